"""How the catalog's costs grow with what it knows: a thousand images beside a million."""

from collections.abc import Iterator
from functools import partial
from itertools import count as numbers
from pathlib import Path

import drawings
from bench import filling
from bench.costs import Work, in_turns
from bench.table import Row
from trap_bench import Trap
from trapsync import status
from trapsync.image import Found
from trapsync.settings.schema import Settings

_BATCH = 512  # what a Sticky Pi server is asked for at once
_OWED = 1000
_START = "start-up check"
_IN_A_TURN = 10  # times, but for the start


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """Each thing that is done with a catalog, with few images and with many."""
    few, many = (1_100, 2_200) if tiny else (1_100, 1_000_000)
    traps = [Trap(folder / str(count)) for count in (few, many)]
    for trap, count in zip(traps, (few, many), strict=True):
        filling.fill(trap.catalog, count, max(_OWED, count // 10))
        trap.restart()  # moves the log into the file
    for name, target in _TARGETS.items():
        ways = {str(n): _WAYS[name](trap, n) for trap, n in zip(traps, (few, many), strict=True)}
        turns = in_turns(ways, rounds)
        one = 1e3 / (1 if name == _START else _IN_A_TURN)  # ms
        figure, less = (one * turns.figure(str(n)) for n in (many, few))
        reference = f"with {few:,}, {less:.3g} ms"
        ratio = turns.ratio(str(many), str(few))
        yield Row("catalog", f"{name}, with {many:,} images", figure, "ms", reference, ratio, target)
    sizes = [trap.storage.catalog.stat().st_size / n for trap, n in zip(traps, (few, many), strict=True)]
    reference = f"with {few:,}, {sizes[0]:,.0f} B"
    yield Row("catalog", "size per image", sizes[1], "B", reference, sizes[1] / sizes[0])
    for trap in traps:
        trap.catalog.close()


def _next_batch(trap: Trap, _count: int) -> Work:
    def ask() -> None:
        for _ in range(_IN_A_TURN):
            assert len(trap.catalog.deliveries.due(filling.HOME, "newest", _BATCH)) == _BATCH

    return ask


def _next_image(trap: Trap, _count: int) -> Work:
    def ask() -> None:
        for _ in range(_IN_A_TURN):
            assert len(trap.catalog.deliveries.due(filling.HOME, "newest", 1)) == 1

    return ask


def _insert(trap: Trap, count: int) -> Work:
    following = numbers(count)

    def add() -> None:
        for number in (next(following) for _ in range(_IN_A_TURN)):
            one = filling.image(number)
            assert trap.catalog.images.add([(Found(one.path, one.size, filling.MTIME), one)]) == 1

    return add


def _mark(trap: Trap, count: int) -> Work:
    ids = iter(range(count - _OWED + 1, count))  # the rows' ids begin at 1

    def mark() -> None:
        for number in (next(ids) for _ in range(_IN_A_TURN)):
            trap.catalog.deliveries.mark_delivered(filling.HOME, [(number, f"md5:{number - 1:032x}", {})])

    return mark


def _status(trap: Trap, _count: int) -> Work:
    settings = Settings(storage=trap.storage)
    return lambda: [status.snapshot(settings, trap.time, drawings.DEVICE) for _ in range(_IN_A_TURN)]


def _start(trap: Trap, _count: int) -> Work:
    return partial(trap.restart)


_WAYS = {
    "next batch": _next_batch,
    "next image": _next_image,
    "insert": _insert,
    "mark": _mark,
    "status": _status,
    _START: _start,
}
_TARGETS = {
    "next batch": 2.0,
    "next image": 2.0,
    "insert": 2.0,
    "mark": 2.0,
    "status": 5.0,
    _START: 2.0,
}
