"""What the examination of one image costs: against the least that can be done, and against the peer's method.

The floor: libvips decodes once and shrinks while it does so, the MD5 of the file, two encodes. The peer's method,
re-stated here: decode the whole picture to see that it is one, decode again for two small copies, and read the
file a second time for its MD5.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from bench import pictures
from bench.costs import Turns, in_a_process, in_turns, repeated
from bench.table import Row
from trapsync.jpeg import examination, exif, structure, thumbnail

_AT_ONCE = 3  # images in a turn

_PEAK = """
from trapsync.jpeg import examination
for number in range(int(sys.argv[2])):
    examination.examine(Path(sys.argv[1]), "a.jpg")
    examination.thumbnails(Path(sys.argv[1]), "a.jpg", Path(sys.argv[1]) / "copies")
print(json.dumps({"kb": memory("VmHWM")}))
"""
_FLOOR_PEAK = """
from bench import examining
for number in range(int(sys.argv[2])):
    examining.floor(Path(sys.argv[1]) / "a.jpg", Path(sys.argv[1]) / "copies")
print(json.dumps({"kb": memory("VmHWM")}))
"""


def floor(source: Path, folder: Path) -> None:
    """The least that gives two small copies and an MD5, by libvips."""
    pyvips = thumbnail._pyvips()
    content = source.read_bytes()
    hashlib.md5(content, usedforsecurity=False).hexdigest()
    width = structure.header(content).width
    shrink = max(factor for factor in (1, 2, 4, 8) if factor <= max(1, width / 512))
    picture = pyvips.Image.jpegload_buffer(content, shrink=shrink, access="sequential").copy_memory()
    for name, side in (("small", 512), ("mini", 128)):
        copy = picture.resize(side / picture.width, kernel="nearest")
        (folder / name).write_bytes(copy.jpegsave_buffer(Q=80, strip=True))


def peer(source: Path, folder: Path) -> None:
    """The peer's method, over Pillow."""
    with Pillow.open(source) as picture:
        picture.load()
    with Pillow.open(source) as picture:
        picture._getexif()  # type: ignore[attr-defined]
        picture.thumbnail((512, 384))
        picture.save(folder / "small", "JPEG", quality=80)
        picture.thumbnail((128, 96))
        picture.save(folder / "mini", "JPEG", quality=80)
    hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()


def ours(spool: Path, path: str, folder: Path) -> None:
    """What our examiner does, first for a delivery and then for small copies."""
    examination.examine(spool, path)
    examination.thumbnails(spool, path, folder)


def digest_and_exif(source: Path) -> None:
    """The least that a delivery needs: the MD5, and the EXIF."""
    content = source.read_bytes()
    hashlib.md5(content, usedforsecurity=False).hexdigest()
    exif.read(structure.header(content).exif)


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """5 and 12 megapixels."""
    sizes: Any = (pictures.TINY,) if tiny else (pictures.FIELD, pictures.LARGE)
    for size, target in zip(sizes, (0.75, 0.55), strict=False):
        spool = folder / f"{size[0]}"
        (spool / "copies").mkdir(parents=True)
        source = spool / "a.jpg"
        source.write_bytes(pictures.picture(size))
        kind = f"{size[0]}×{size[1]}, {source.stat().st_size / 1e6:.2f} MB"
        yield from _examined(kind, source, rounds, target)
        yield from _ready(kind, source, rounds)
        yield _peak(kind, spool, 3 if tiny else 20, size == pictures.LARGE)


def _examined(kind: str, source: Path, rounds: int, target: float) -> Iterator[Row]:
    spool, copies = source.parent, source.parent / "copies"
    turns = in_turns(
        {
            "ours": repeated(_AT_ONCE, partial(ours, spool, source.name, copies)),
            "floor": repeated(_AT_ONCE, partial(floor, source, copies)),
            "peer": repeated(_AT_ONCE, partial(peer, source, copies)),
        },
        rounds,
    )
    yield _row(turns, f"CPU per image, {kind}", "floor", "cpu", 1.25)
    yield _row(turns, f"time per image, {kind}", "floor", "wall", None)
    yield _row(turns, f"CPU per image, {kind}", "peer", "cpu", target)


def _row(turns: Turns, what: str, against: str, kind: str, target: float | None) -> Row:
    figure, other = (1e3 * turns.figure(way, kind) / _AT_ONCE for way in ("ours", against))
    words = {"floor": "the floor", "peer": "the peer's method"}
    reference = f"{words[against]}, {other:.3g} ms"
    return Row("examine", what, figure, "ms", reference, turns.ratio("ours", against, kind), target)


def _ready(kind: str, source: Path, rounds: int) -> Iterator[Row]:
    many = 10
    turns = in_turns(
        {
            "ours": repeated(many, partial(examination.examine, source.parent, source.name)),
            "floor": repeated(many, partial(digest_and_exif, source)),
        },
        2 * rounds,
    )
    # Neither waits for anything, so CPU is what it takes; the wall shows what else the machine does.
    reference = f"MD5 and EXIF, {1e3 * turns.figure('floor', 'cpu') / many:.3g} ms"
    figure = 1e3 * turns.figure("ours", "cpu") / many
    ratio = turns.ratio("ours", "floor", "cpu")
    yield Row("examine", f"ready to deliver, {kind}", figure, "ms", reference, ratio, 2.0)


def _peak(kind: str, spool: Path, count: int, is_large: bool) -> Row:
    ours, least = (in_a_process(code, spool, count)["kb"] / 1e3 for code in (_PEAK, _FLOOR_PEAK))
    what, reference = f"peak memory after {count} images, {kind}", f"the floor, {least:.3g} MB"
    if is_large:  # the one limit that is a size: it is what a worker may take of the Pi's 512 MB
        return Row("examine", what, ours, "MB", f"80 MB (the floor: {least:.3g})", ours / 80, 1.0)
    return Row("examine", what, ours, "MB", reference, ours / least)
