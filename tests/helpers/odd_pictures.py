"""Odd pictures and names, drawn from a `random.Random`: whole JPEGs of every kind, broken ones, and names of files.

::

    odd_pictures.whole(chance, plain)    # what it is, and the bytes: a decoder reads it as it reads `plain`
    odd_pictures.broken(chance, plain)   # what it is, and bytes that are no whole JPEG
    odd_pictures.name(chance)            # a name of a file, as bytes, that is text
    odd_pictures.no_text(chance)         # one that is not
"""

import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import drawings
import tiff_blocks
from trapsync.image import Evidence

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAME = b"\xff\xc0"

# ── Names ────────────────────────────────────────────────────────────────────────────────────────────

# Valid UTF-8 without control characters: whatever it looks like, it is text.
_TEXTS = (
    *(
        "Flügel",
        "Flu\u0308gel",
        "Gelände 7",
        "Камера",
        "池のそば",
        "site\u00a01",
        "\u06cc\u200c\u062e",
        "a\u3000b",
    ),
    *(
        "\U0001f468\u200d\U0001f469\u200d\U0001f466",
        "\U0001fae9",
        "soft\u00adhyphen",
        "\ufeffmark",
        "\ufffdx",
        "\ufffe",
    ),
    *(
        "CON",
        "NUL",
        "aux",
        "COM1",
        "desktop",
        "Thumbs",
        "SHA256SUMS",
        "trapsync",
        "0a1b2c3d",
        "_",
        "-rf",
        "--help",
    ),
    *(
        " lead",
        "trail ",
        "trail.",
        "...x",
        "~",
        "#x#",
        "a..b",
        "a b  c",
        "%00",
        "%2e%2e%2f",
        "$(reboot)",
        ";true",
        "`id`",
    ),
    *(
        '"quoted"',
        "a'b",
        "a\\b",
        "a:b",
        "a*b",
        "a?b",
        "a<b>c",
        "a|b",
        "{x}",
        "[red]x[red]",
        "%s%d%n",
        "{0}",
        "&amp;",
    ),
    *(
        "e" + "\u0301" * 60,
        "\u200f\u0627",
        "\u200e",
        "\u2028",
        "\U000e0041",
        "\ue000",
        "ﬁ",
        "İ",
        "ß",
        "\u1e9e",
        "١٢٣",
    ),
    *(
        "IMG_0001",
        "DSC",
        "1e400",
        "null",
        "0",
        "-1",
        "a,b",
        "a;b",
        "a=b",
        "a@b",
        "a!b",
        "a^b",
        "x.jpg",
        "x.jpg.part",
    ),
)
_NO_TEXTS = (
    *(
        b"Fl\xfcgel",
        b"\xff\xfe",
        b"\x80",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xed\xb2\x80\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
    ),
    *(
        b"a\nb",
        b"a\rb",
        b"a\tb",
        b"\x1b[31mred",
        b"\x1b]0;title\x07",
        b"\x7f",
        b"\x01",
        "a\u0085b".encode(),
        b"\n",
    ),
    *(
        "\u202egpj".encode(),
        "\u2066x".encode(),
        "\u202a".encode(),
        "\u2069".encode(),
        b"ok\xe2\x80",
        b"12:00:00 INFO ok\n",
    ),
)
SUFFIXES = (".jpg", ".jpg", ".jpg", ".JPG", ".jpeg", ".JPEG", ".JpG", ".jPeG")


def name(chance: random.Random, number: int) -> bytes:
    """A name of an image that is text; `number` is in it, so that no two are the same."""
    stem = chance.choice(_TEXTS) + chance.choice(("", "", chance.choice(_TEXTS)))
    # What begins with a dot is hidden, which is another thing.
    return _cut(f"{number}{stem}".encode(), chance, chance.choice(SUFFIXES).encode())


def no_text(chance: random.Random, number: int) -> bytes:
    """A name of an image that nobody can write down."""
    return _cut(
        f"{number}".encode() + chance.choice(_NO_TEXTS), chance, chance.choice(SUFFIXES).encode(), cuts=False
    )


def folder_name(chance: random.Random, number: int) -> bytes:
    """A name of a folder that is text."""
    return _cut(f"{number}{chance.choice(_TEXTS)}".encode(), chance, chance.choice((b"", b"", b"", b".jpg")))


def no_text_folder(chance: random.Random, number: int) -> bytes:
    """A name of a folder that nobody can write down."""
    return f"{number}".encode() + chance.choice(_NO_TEXTS)


def _cut(stem: bytes, chance: random.Random, suffix: bytes, *, cuts: bool = True) -> bytes:
    """The name, now and then of 255 bytes, or a little less."""
    if cuts and chance.random() < 0.15:
        longest = chance.choice((255, 255, 254, 250, 249, 240)) - len(suffix)
        filler = chance.choice(("x", "ü", "池", "\U0001f98a")).encode()
        stem += filler * ((longest - len(stem)) // len(filler))
    return stem + suffix


# ── Whole pictures ───────────────────────────────────────────────────────────────────────────────────


def whole(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    """A JPEG that is whole, with something odd in it or behind it."""
    make = chance.choice((_trailing, _trailing, _strays, _fill, _segments, _exif, _exif, _exif, _old, _own))
    what, content = make(chance, plain)
    # No two of them are the same bytes: a comment of its own, which nobody reads.
    return what, content[:2] + _segment(0xFE, b"number %d" % chance.getrandbits(64)) + content[2:]


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def _trailing(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    behind = {
        "zeros": b"\0" * chance.choice((1, 512, 70_000)),
        "bytes": chance.randbytes(chance.choice((1, 7, 5000))),
        "another picture": drawings.plain(seed=3),
        "a film": b"\0\0\0\x18ftypmp42" + chance.randbytes(3000),
        "an end": b"junk" + _END,
        "a line": b"\n",
    }
    what = chance.choice(sorted(behind))
    return f"a picture with {what} behind its end", plain + behind[what]


def _strays(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    """Between its first segments stand bytes that belong to none."""
    stray = chance.choice((b"?>", b"x", b"stray bytes", bytes(chance.choices(range(1, 0xF0), k=40))))
    start = plain.index(b"\xff\xdb")  # before its tables
    return f"a picture with {len(stray)} stray bytes in its header", plain[:start] + stray + plain[start:]


def _fill(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    start = plain.index(b"\xff\xdb")
    count = chance.choice((1, 2, 300))
    return f"a picture with {count} fill bytes before a marker", plain[:start] + b"\xff" * count + plain[
        start:
    ]


def _segments(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    more = b"".join(
        _segment(
            chance.choice((0xFE, *range(0xE1, 0xF0))), chance.randbytes(chance.choice((0, 1, 6, 900, 65_533)))
        )
        for _ in range(chance.randint(1, 6))
    )
    return "a picture with segments of nobody", plain[:2] + more + plain[2:]


def _exif(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    """EXIF from a grammar, perhaps damaged byte by byte besides, or cut, or twice."""
    seed = chance.getrandbits(32)
    app1 = bytearray(tiff_blocks.made_up(seed).app1)
    what = f"a picture with made-up EXIF ({seed})"
    match chance.randint(0, 5):
        case 0:
            for _ in range(chance.choice((1, 3, 30))):
                app1[chance.randrange(6, len(app1))] = chance.randrange(256)
            what += ", bytes changed"
        case 1:
            app1 = app1[: chance.randint(6, len(app1))]
            what += ", cut"
        case 2:
            app1 = bytearray(b"Exif\0\0" + _loop(chance))
            what = "a picture with EXIF that leads to itself"
        case 3:
            app1 = bytearray(b"Exif\0\0" + chance.randbytes(chance.choice((0, 1, 8, 4000))))
            what = "a picture with EXIF of any bytes"
    content = tiff_blocks.inserted(bytes(app1), plain)
    return what, tiff_blocks.inserted(bytes(app1), content) if chance.random() < 0.1 else content


def _loop(chance: random.Random) -> bytes:
    """A directory whose pointers lead to itself, with counts without bounds."""
    order = chance.choice("<>")
    tags = [(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0x010F, 2, 2**32 - 1, 8), (0x9286, 7, 2**31, 10)]
    tags += [
        (chance.randrange(65_536), chance.randrange(16), chance.getrandbits(32), 8)
        for _ in range(chance.choice((0, 9, 5000)))
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}LH", 8, len(tags))
    return head + b"".join(struct.pack(f"{order}HHLL", *tag) for tag in tags) + struct.pack(f"{order}L", 8)


_FIELDS = (
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "-0.0",
    "9" * 400,
    "x",
    "",
    "1_0",
    "١",
    "\x1b[31m",
    "0x10",
    "1e-400",
    "true",
)


def _old(chance: random.Random, _plain: bytes) -> tuple[str, bytes]:
    """The fields of the Sticky Pi firmware in either format, with odd values."""
    if chance.random() < 0.5:
        names = ["v", "T", "H", "B", "L", "lat", "lng", "a", "l", "b", *chance.choices(_FIELDS, k=2)]
        chance.shuffle(names)
        comment = ",".join(names) + "\n" + ",".join(chance.choice(_FIELDS) for _ in names)
        return "a picture with odd fields of 2022", drawings.sticky_pi_2022(comment)
    values = (
        *_FIELDS[:6],
        "None",
        "'x'",
        "(" * 90 + ")" * 90,
        "[" * 300 + "]" * 300,
        "(1, 0)",
        "{}",
        "__import__('os')",
        "1j",
        "b'x'",
    )
    make = (
        "{"
        + ", ".join(
            f"{key!r}: {chance.choice(values)}" for key in ("lng", "lat", "alt", "temp", "hum", "no_flash_bv")
        )
        + "}"
    )
    return "a picture with odd fields of 2020", drawings.sticky_pi_2020(make)


_TIMES = (0.0, -1.0, 1e18, -1e18, 1e308, float("nan"), float("inf"), 253_402_300_799.0, 1e-300, 2.0**63)
_BOOTS = ("", "x" * 3000, "3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11", "\u202e", "0" * 36)


def _own(chance: random.Random, _plain: bytes) -> tuple[str, bytes]:
    """A picture as a trap takes it, whose clocks showed what no clock shows."""

    def moment() -> float:
        return chance.choice((*_TIMES, 1_782_073_155.25))

    evidence = Evidence(
        chance.choice(_BOOTS), moment(), moment(), chance.random() < 0.5, chance.choice((None, moment()))
    )
    return f"a picture of odd clocks ({evidence!r})"[:200], drawings.trap(
        chance.randint(1, 5), evidence=evidence
    )


# ── Broken ones ──────────────────────────────────────────────────────────────────────────────────────


def broken(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    """What is no whole JPEG, whatever it is called."""
    kinds: dict[str, Callable[[], bytes]] = {
        "a cut picture": lambda: plain[: chance.randint(3, len(plain) - 3)],
        "a cut header": lambda: plain[: chance.randint(3, 200)],
        "a picture without its end": lambda: plain[:-2],
        "zeros": lambda: b"\0" * chance.choice((1, 512, 100_000)),
        "a GIF": lambda: b"GIF89a" + chance.randbytes(300),
        "a PNG": lambda: b"\x89PNG\r\n\x1a\n" + chance.randbytes(300),
        "a portal's page": lambda: b"<html><body>log in</body></html>",
        "any bytes": lambda: b"x" + chance.randbytes(chance.choice((1, 100, 50_000))),
        "a start and an end": lambda: _START + _END,
        "a picture that begins twice": lambda: _START + _START + plain[2:],
        "an enormous header": lambda: _enlarged(plain, chance.choice((65_535, 20_000))),
        "a header of no size": lambda: _enlarged(plain, 0),
        "a picture with a hole": lambda: plain[: len(plain) // 2] + b"\xff\x05" + plain[len(plain) // 2 :],
        "a length of one": lambda: _START + b"\xff\xe0\0\x01" + plain[2:],
    }
    what = chance.choice(sorted(kinds))
    # Of the same content twice, the second would be no news.
    content = kinds[what]()
    return what, content if len(content) < 20 or content[
        :2
    ] == _START else content + b"%d" % chance.getrandbits(40)


def _enlarged(plain: bytes, size: int) -> bytes:
    start = plain.index(_FRAME) + 5
    return plain[:start] + struct.pack(">HH", size, size) + plain[start + 4 :]


# ── Dates of files ───────────────────────────────────────────────────────────────────────────────────


def mtime_ns(chance: random.Random) -> int:
    """A date of a file between the years 1601 and 9999, or an odd one near the ends of what is counted in bits."""
    ends = (0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63) - 1, 2**63 + 10**9)
    if chance.random() < 0.3:
        return chance.choice(ends)
    moment = datetime(1601, 1, 1, tzinfo=UTC) + timedelta(days=chance.randrange(3_067_000))
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9 + chance.randrange(10**9)


def changed(chance: random.Random, plain: bytes) -> tuple[str, bytes]:
    """A picture in which some bytes were changed; whether it is whole only a reader can tell."""
    content = bytearray(plain)
    count = chance.choice((1, 2, 10, 200))
    for _ in range(count):
        content[chance.randrange(2, len(content))] = chance.randrange(256)
    return f"a picture with {count} bytes changed", bytes(content)
