"""Attacks by pictures: damaged JPEGs among good ones through the real examiners, their small copies, and blocks of EXIF.

Each function attacks so often as it is told, from a `random.Random`, and returns what was seen in a few words. An
attack that succeeds is an AssertionError.
"""

import json
import random
import struct
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyvips

import drawings
import odd_pictures
import tiff_blocks
from trapsync.errors import DamagedImage
from trapsync.image import Found, Image
from trapsync.jpeg import exif
from trapsync.runtime.examiners import Examiners
from trapsync.settings.schema import Ingest, Storage
from trapsync.spool.scan import stat_file

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # a card's flushes are no part of this
_EACH_GOOD = 10  # every tenth is a good one
_BATCH = 500  # files that lie there at once

_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the order of letters

Make = Callable[[random.Random, bytes], bytes]


# ── Damaged JPEGs ────────────────────────────────────────────────────────────────────────────────────


@cache
def _saved(kind: str) -> bytes:
    """The same picture, written by libvips in another way."""
    picture = pyvips.Image.new_from_buffer(drawings.plain(320, 240), "")
    options: dict[str, dict[str, Any]] = {
        "progressive": {"interlace": True},
        "restart markers": {"restart_interval": 4},
        "4:4:4": {"subsample_mode": "off"},
    }
    if kind == "CMYK":
        picture = picture.colourspace("cmyk")
    if kind == "grey":
        picture = picture.colourspace("b-w")
    saved: bytes = picture.jpegsave_buffer(**options.get(kind, {}))
    return saved


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", min(65_535, len(payload) + 2)) + payload


def _with(plain: bytes, *segments: bytes) -> bytes:
    return plain[:2] + b"".join(segments) + plain[2:]


def _exif(chance: random.Random, plain: bytes) -> bytes:
    """Loops, counts without bounds, and blocks of a grammar with bytes changed."""
    return odd_pictures._exif(chance, plain)[1]


def _icc(chance: random.Random, plain: bytes) -> bytes:
    """Profiles in parts that are missing, come twice, or are said to be enormous."""
    total = chance.choice((0, 1, 3, 255))
    profile = struct.pack(">L", chance.choice((0, 128, 2**32 - 1))) + chance.randbytes(
        chance.choice((0, 124, 9000))
    )
    parts = [
        _segment(0xE2, b"ICC_PROFILE\0" + bytes((chance.choice((0, 1, 2, 255)), total)) + profile)
        for _ in range(chance.randint(1, 4))
    ]
    return _with(plain, *parts)


_XML = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><x>&b;</x>',
    '<!DOCTYPE x SYSTEM "file:///etc/passwd"><x>&x;</x>',
    "<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + "<a>" * 9000,
    "\ud83d\udc4d\x1b]0;t\x07".encode("utf-16", "surrogatepass").decode("latin-1"),
    "",
)


def _xmp(chance: random.Random, plain: bytes) -> bytes:
    """XML that grows, leads to a file, does not end, or is none."""
    text = chance.choice(_XML).encode("utf-8", "replace")
    named = b"http://ns.adobe.com/xap/1.0/\0" + text + chance.randbytes(chance.choice((0, 0, 300)))
    return _with(plain, *[_segment(0xE1, named)] * chance.choice((1, 1, 30)))


def _mpf(chance: random.Random, plain: bytes) -> bytes:
    """An index of more pictures in the file, which leads out of it and back to its start."""
    count = chance.choice((0, 2, 9, 2**32 - 1))
    tags = [(0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, count), (0xB002, 7, (16 * count) % 2**32, 50)]
    block = b"II*\0" + struct.pack("<LH", 8, len(tags)) + b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    entries = b"".join(
        struct.pack("<LLLHH", chance.getrandbits(32), chance.getrandbits(32), 0, 0, 0) for _ in range(4)
    )
    return _with(plain, _segment(0xE2, b"MPF\0" + block + struct.pack("<L", 8) + entries)) + plain


def _bomb(chance: random.Random, plain: bytes) -> bytes:
    """A header that promises a picture of any size, or many components."""
    at = plain.index(b"\xff\xc2" if b"\xff\xc0" not in plain else b"\xff\xc0")
    content = bytearray(plain)
    sizes = (0, 1, 64, 20_000, 65_500, 65_535)
    content[at + 5 : at + 9] = struct.pack(">HH", chance.choice(sizes), chance.choice(sizes))
    if chance.random() < 0.3:
        content[at + 9] = chance.choice((0, 1, 2, 4, 200, 255))
    return bytes(content)


def _cut(chance: random.Random, plain: bytes) -> bytes:
    return plain[: chance.randrange(len(plain))]


def _doubled(chance: random.Random, plain: bytes) -> bytes:
    half = chance.randrange(2, len(plain))
    return chance.choice((plain + plain, plain[:half] + plain, plain[:half] + plain[2:] + plain[half:]))


def _changed(chance: random.Random, plain: bytes) -> bytes:
    return odd_pictures.changed(chance, plain)[1]


def _other(chance: random.Random, _plain: bytes) -> bytes:
    return odd_pictures.whole(chance, drawings.plain())[1]


def _none(chance: random.Random, _plain: bytes) -> bytes:
    return odd_pictures.broken(chance, drawings.plain())[1]


_DAMAGES: tuple[Make, ...] = (
    *(_exif, _exif, _icc, _xmp, _mpf, _bomb, _bomb, _cut, _doubled, _changed, _changed, _other, _none),
)
_SAVED = ("plain", "progressive", "CMYK", "grey", "restart markers", "4:4:4")


def damaged(chance: random.Random) -> bytes:
    """One JPEG with something that no camera makes, or that breaks it."""
    plain = _saved(chance.choice(_SAVED))
    content = chance.choice(_DAMAGES)(chance, plain)
    return _changed(chance, content) if len(content) > 3 and chance.random() < 0.1 else content


def good(chance: random.Random) -> bytes:
    """One with nothing wrong about it, and bytes of its own."""
    plain = _saved(chance.choice(_SAVED))
    return _with(plain, _segment(0xFE, b"number %d" % chance.getrandbits(64)))


@contextmanager
def _examining() -> Iterator[tuple[Examiners, Storage]]:
    """The real pool, and a card that is memory."""
    with tempfile.TemporaryDirectory(prefix="trapsync-attack-", dir=MEMORY) as name:
        storage = Storage(spool=Path(name) / "spool", state=Path(name) / "state")
        storage.spool.mkdir()
        examiners = Examiners(Ingest(), storage)
        try:
            yield examiners, storage
        finally:
            examiners.close()


def _lain(storage: Storage, contents: list[bytes]) -> list[Found]:
    found = []
    for number, content in enumerate(contents):
        drawings.put(storage.spool, content, f"{number:04}.jpg")
        one = stat_file(storage.spool, f"{number:04}.jpg")
        assert one
        found.append(one)
    return found


def through_the_pool(count: int, chance: random.Random) -> str:
    """Damaged JPEGs, every tenth of them good: each has an outcome, and all good ones pass."""
    passed, refused, worst = 0, 0, 0.0
    with _examining() as (examiners, storage):
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            contents = [good(chance) if n % _EACH_GOOD == 0 else damaged(chance) for n in numbers]
            files = _lain(storage, contents)
            outcomes, began = dict[str, Image | Exception](), time.monotonic()
            for found, outcome in examiners.examine(files):
                worst = max(worst, time.monotonic() - began)
                began = time.monotonic()
                outcomes[found.path] = outcome
            assert outcomes.keys() == {one.path for one in files}, "a file has no outcome"
            for found, n in zip(files, numbers, strict=True):
                outcome = outcomes[found.path]
                assert isinstance(outcome, Image | DamagedImage), outcome
                assert isinstance(outcome, Image) or n % _EACH_GOOD, f"a good picture was refused: {outcome}"
                _require_clean(outcome)
                passed, refused = (
                    passed + isinstance(outcome, Image),
                    refused + isinstance(outcome, DamagedImage),
                )
    return f"{passed} images, {refused} with a reason, the slowest after {worst:.2f} s"


def _require_clean(outcome: Image | Exception) -> None:
    """No control character in what is kept, and JSON that everybody can read."""
    if isinstance(outcome, Image):
        texts = [value for value in outcome.metadata.values() if isinstance(value, str)]
        json.dumps(outcome.metadata, allow_nan=False).encode()
    else:
        texts = [str(outcome)]
    for text in texts:
        assert not any(
            unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} or one in _TURNS for one in text
        ), texts


def thumbnails(count: int, chance: random.Random) -> str:
    """Small copies of damaged JPEGs that were taken for images: each is made, or is not, and the next one is."""
    made = tried = 0
    with _examining() as (examiners, storage):
        while tried < count:
            files = _lain(storage, [damaged(chance) for _ in range(min(_BATCH, 2 * (count - tried)))])
            images = [(found.path, one) for found, one in examiners.examine(files) if isinstance(one, Image)]
            for path, image in images[: count - tried]:
                made += examiners.make_thumbnails(image, path)
                tried += 1
        (whole,) = _lain(storage, [good(chance)])
        ((_, last),) = examiners.examine([whole])
        assert isinstance(last, Image)
        assert examiners.make_thumbnails(last, whole.path), "no small copy of a good picture"
    assert made, "a maker that makes nothing shows nothing"
    return f"{made} made of {tried}"


# ── EXIF ─────────────────────────────────────────────────────────────────────────────────────────────


def exif_blocks(count: int, chance: random.Random) -> str:
    """Blocks of every kind, damaged: each is read, in no time, to what JSON can hold."""
    kinds = [
        drawings.block_of(make())
        for make in (drawings.trap, drawings.sticky_pi_2020, drawings.sticky_pi_2022)
    ]
    worst = 0.0
    for number in range(count):
        if number % 1000 == 0:
            made_up = [tiff_blocks.made_up(chance.getrandbits(32)).app1 for _ in range(40)]
            loops = [b"Exif\0\0" + odd_pictures._loop(chance) for _ in range(6)]
        block = _block(chance, [*kinds, *made_up], loops)
        began = time.thread_time()
        try:
            metadata, _ = exif.read(block)
        except Exception as error:
            raise AssertionError(f"{error!r}: {block!r}") from error
        worst = max(worst, time.thread_time() - began)
        if number % 50 == 0:
            json.dumps(metadata, allow_nan=False)
    return f"at most {worst:.3f} s of CPU for one"


def _block(chance: random.Random, kinds: list[bytes], loops: list[bytes]) -> bytes:
    match chance.randrange(10):
        case 0:
            return (
                b"Exif\0\0"
                + chance.choice((b"II*\0", b"MM\0*", b""))
                + chance.randbytes(chance.choice((0, 4, 60)))
            )
        case 1:
            return chance.choice(loops)[: chance.choice((200, 2000, 2000, 2000, 2000, 70_000))]
        case 2:
            block = chance.choice(kinds)
            return block[: chance.randrange(len(block))]
        case _:
            content = bytearray(chance.choice(kinds))
            for _ in range(chance.choice((1, 1, 1, 4, 40))):
                content[chance.randrange(6, len(content))] = chance.choice((0, 1, 255, chance.randrange(256)))
            return bytes(content)
