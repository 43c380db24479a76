"""What it costs to look when there is nothing new: a sweep and a turn of deliveries over images that are known.

The reference walks the same tree with scandir and stat and looks each file up once, in bare sqlite3.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import filling, pictures
from bench.costs import in_turns
from bench.table import Row
from trap_bench import Memory, Trap
from trapsync import pipeline

_SIZES = (1_000, 10_000, 100_000)
_opened: list[str] = []


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """A thousand, ten thousand and a hundred thousand images."""
    sys.addaudithook(_note_opened)
    for count in (60, 120) if tiny else _SIZES:
        trap, home = Trap(folder / str(count)), Memory(filling.HOME)
        filling.fill(trap.catalog, count, 0, every=20, size=3)
        _lay(trap.storage.spool, count)
        yield from _looked(trap, home, count, rounds)
        trap.catalog.close()


def _lay(spool: Path, count: int) -> None:
    """Files as the catalog knows them. What is in them, nobody is to read."""
    for number in range(count):
        file = spool / pictures.path(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"...")
        os.utime(file, ns=(filling.MTIME, filling.MTIME))


def _looked(trap: Trap, home: Memory, count: int, rounds: int) -> Iterator[Row]:
    def ours() -> None:
        assert pipeline.sweep(trap.catalog, trap.storage, found.append).offered == 0
        assert trap.deliver(home).delivered == 0

    found: list[str] = []
    _opened.clear()
    turns = in_turns({"ours": ours, "floor": lambda: _floor(trap, count)}, rounds)
    read = [path for path in _opened if path.endswith(".jpg")]
    figure, least = (1e3 * turns.figure(way) for way in ("ours", "floor"))
    reference, ratio = f"scandir + stat + a look-up each, {least:.3g} ms", turns.ratio("ours", "floor")
    target = 3.0 if count == 10_000 else None
    what = f"{count:,} known images"
    yield Row("known", f"{what}: sweep and deliver", figure, "ms", reference, ratio, target)
    yield Row("known", f"{what}: images opened", len(read), "files", "none", len(read), 0.0)
    asked = len(home.asked) + len(home.sent)
    yield Row("known", f"{what}: requests", asked, "requests", "none", asked, 0.0)


def _floor(trap: Trap, count: int) -> None:
    look_up = "SELECT size, mtime_ns FROM files WHERE folder = ? AND name = ?"
    db, seen = trap.catalog.connection._db.conn, 0
    folders = [("", trap.storage.spool)]
    while folders:
        prefix, folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{prefix}/{entry.name}".lstrip("/"), folder / entry.name))
                else:
                    status = entry.stat(follow_symlinks=False)
                    row = db.execute(look_up, [prefix, entry.name]).fetchone()
                    assert row == (status.st_size, status.st_mtime_ns)
                    seen += 1
    assert seen == count


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))
