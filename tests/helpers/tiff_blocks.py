"""EXIF blocks written tag by tag with `struct`, as cameras write them: well, oddly, and broken on purpose.

Nothing of the program and no EXIF library has a part in it, so that what reads the blocks is judged by another reader.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, SRATIONAL, FLOAT, DOUBLE = range(1, 13)
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_FORMS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d"}

# The tags that the program reads, by the names that EXIF gives them.
ZEROTH_TEXTS = {
    "ImageDescription": 0x010E,
    "Make": 0x010F,
    "Model": 0x0110,
    "Software": 0x0131,
    "DateTime": 0x0132,
    "Artist": 0x013B,
    "Copyright": 0x8298,
}
EXIF_TEXTS = {
    "DateTimeOriginal": 0x9003,
    "DateTimeDigitized": 0x9004,
    "OffsetTime": 0x9010,
    "OffsetTimeOriginal": 0x9011,
    "OffsetTimeDigitized": 0x9012,
    "SubSecTimeOriginal": 0x9291,
    "BodySerialNumber": 0xA431,
    "LensModel": 0xA434,
}
ZEROTH_WHOLES = {"Orientation": 0x0112}
EXIF_WHOLES = {
    "ExposureProgram": 0x8822,
    "ISOSpeedRatings": 0x8827,
    "MeteringMode": 0x9207,
    "Flash": 0x9209,
    "WhiteBalance": 0xA403,
}
EXIF_NUMBERS = {
    "ExposureTime": 0x829A,
    "FNumber": 0x829D,
    "BrightnessValue": 0x9203,
    "ExposureBiasValue": 0x9204,
    "FocalLength": 0x920A,
}
USER_COMMENT = {"UserComment": 0x9286}
GPS = {
    "GPSLatitudeRef": 1,
    "GPSLatitude": 2,
    "GPSLongitudeRef": 3,
    "GPSLongitude": 4,
    "GPSAltitudeRef": 5,
    "GPSAltitude": 6,
}
IN_ZEROTH = ZEROTH_TEXTS | ZEROTH_WHOLES
IN_EXIF = EXIF_TEXTS | EXIF_WHOLES | EXIF_NUMBERS | USER_COMMENT
_EXIF_POINTER, _GPS_POINTER, _INTEROPERABILITY, _MAKER_NOTE = 0x8769, 0x8825, 0xA005, 0x927C


@dataclass
class Tag:
    """One entry of a directory. `at` is written as the place of its value instead of the true one.

    `damaged` is what becomes of it in a block that is written with its damage.
    """

    number: int
    kind: int
    count: int
    raw: bytes
    at: int | None = None
    damaged: "Tag | None" = None


def text(number: int, raw: bytes, kind: int = ASCII) -> Tag:
    """A tag of bytes, exactly these."""
    return Tag(number, kind, len(raw), raw)


def numbers(order: str, number: int, kind: int, values: Sequence[float]) -> Tag:
    """A tag of whole or floating numbers."""
    return Tag(number, kind, len(values), struct.pack(f"{order}{len(values)}{_FORMS[kind]}", *values))


def rationals(order: str, number: int, pairs: Sequence[tuple[int, int]], kind: int = RATIONAL) -> Tag:
    """A tag of fractions."""
    flat = [part for pair in pairs for part in pair]
    return Tag(
        number, kind, len(pairs), struct.pack(f"{order}{len(flat)}{'l' if kind == SRATIONAL else 'L'}", *flat)
    )


@dataclass
class Block:
    """Directories of tags to be written. With its damage, a pointer that is given is written instead of the true one."""

    order: str
    zeroth: list[Tag] = field(default_factory=list)
    exif: list[Tag] = field(default_factory=list)
    gps: list[Tag] = field(default_factory=list)
    exif_at: int | None = None
    gps_at: int | None = None
    next_at: int = 0
    gap: int = 0  # bytes that belong to nobody before each value

    def app1(self, *, sound: bool = False) -> bytes:
        """The payload of an APP1 segment, with its damage or without."""
        order = self.order
        directories = [list(self.zeroth), list(self.exif), list(self.gps)]
        pointers = []
        for index, number, given in ((1, _EXIF_POINTER, self.exif_at), (2, _GPS_POINTER, self.gps_at)):
            if directories[index]:
                pointers.append((index, numbers(order, number, LONG, [0]), None if sound else given))
        directories[0] += [pointer for _, pointer, _ in pointers]
        places, end = [], 8
        for tags in directories:
            places.append(end)
            end += 2 + 12 * len(tags) + 4
        for index, pointer, given in pointers:
            pointer.raw = struct.pack(f"{order}L", places[index] if given is None else given)
        head, values = b"", b""
        for tags, following in zip(directories, (0 if sound else self.next_at, 0, 0), strict=True):
            head += struct.pack(f"{order}H", len(tags))
            for tag in sorted(tags, key=lambda one: one.number):
                written = tag if sound or tag.damaged is None else tag.damaged
                if len(written.raw) <= 4 and written.at is None:
                    last = written.raw.ljust(4, b"\0")
                else:
                    values += b"\xaa" * self.gap
                    last = struct.pack(f"{order}L", end + len(values) if written.at is None else written.at)
                    values += written.raw + b"\0" * (len(written.raw) % 2)
                head += struct.pack(f"{order}HHL", written.number, written.kind, written.count) + last
            head += struct.pack(f"{order}L", following)
        mark = b"II*\0" if order == "<" else b"MM\0*"
        return b"Exif\0\0" + mark + struct.pack(f"{order}L", 8) + head + values


def inserted(app1: bytes, jpeg: bytes) -> bytes:
    """A JPEG with this payload as its first segment."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + jpeg[2:]


# --- Made up, by a seed ---------------------------------------------------------------------------------------


@dataclass
class Written:
    """A block that was made up: with its damage and without, what that breaks, and how its tags were written."""

    app1: bytes
    sound: bytes
    order: str
    broken: frozenset[str]
    kinds: dict[str, tuple[int, int]]  # type and count, by name
    closed: frozenset[str]  # texts that end in NUL
    open: frozenset[str]  # texts without any


_WORDS = (
    *(
        "Canon",
        "BUSHNELL",
        "RECONYX HYPERFIRE 2",
        "Moultrie",
        "StickyPi",
        "x",
        "ab",
        "v1.0.9",
        "12",
        "05",
        "1.50",
    ),
    *(
        "Gelände 7",
        "Камера",
        "пруд",
        "池のそば",
        "\u06cc\u200c\u062e",
        "site\u00a01",
        "\U0001f98a",
        "\U0001fae9 new",
    ),
)
_DAMAGE = ("beyond", "count", "type", "header", "itself", "wrong", "nothing")


def made_up(seed: int) -> Written:
    """A block of the tags that the program reads, some of them broken."""
    return _Maker(random.Random(seed)).written()


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.order = chance.choice("<>")
        self.broken: set[str] = set()
        self.kinds: dict[str, tuple[int, int]] = {}
        self.closed: set[str] = set()
        self.open: set[str] = set()

    def written(self) -> Written:
        """Make up one block."""
        chance = self.chance
        block = Block(self.order, gap=chance.choice((0, 0, 0, 3, 8)))
        for home, other, names in (
            (block.zeroth, block.exif, IN_ZEROTH),
            (block.exif, block.zeroth, IN_EXIF),
        ):
            for name, number in names.items():
                if chance.random() < 0.75:
                    tag = self._damaged(name, self._tag(name, number))
                    self.kinds[name] = tag.kind, tag.count
                    (other if chance.random() < 0.03 else home).append(tag)
        if chance.random() < 0.8:
            block.gps = self._position()
        self._other_tags(block)
        self._pointers(block)
        return Written(
            block.app1(),
            block.app1(sound=True),
            self.order,
            frozenset(self.broken),
            self.kinds,
            frozenset(self.closed - self.broken),
            frozenset(self.open - self.broken),
        )

    def _tag(self, name: str, number: int) -> Tag:
        if name in ZEROTH_TEXTS or name in EXIF_TEXTS:
            return self._text(name, number)
        if name in USER_COMMENT:
            return self._comment(number)
        if name in ZEROTH_WHOLES or name in EXIF_WHOLES:
            kind = self.chance.choice((SHORT, SHORT, SHORT, LONG, BYTE, SSHORT, SLONG, SBYTE))
            values = [self.chance.randint(0, 100) for _ in range(self.chance.choice((1, 1, 1, 2)))]
            return numbers(self.order, number, kind, values)
        return self._number(name, number)

    def _text(self, name: str, number: int) -> Tag:
        chance = self.chance
        if "DateTime" in name:
            year, month, day = chance.randint(2005, 2026), chance.randint(1, 12), chance.randint(1, 28)
            words = f"{year}:{month:02d}:{day:02d} 05:47:{chance.randint(0, 59):02d}"
        elif name.startswith("Offset"):
            words = chance.choice(("+00:00", "-03:00", "+05:45"))
        else:
            words = " ".join(chance.choices(_WORDS, k=chance.choice((0, 1, 1, 1, 2, 5))))
        raw = words.encode()
        end = chance.choice((b"", b"", b"\0", b"\0", b"\0\0", b"  ", b"\0 3ghx7y", b"\0\xff\xfe", b"   \0"))
        if end == b"\0":
            self.closed.add(name)
        if end == b"":
            self.open.add(name)
        # Of UNDEFINED with more behind a NUL, exiftool's JSON shows both, without the NUL.
        kinds = (ASCII, ASCII, BYTE) if end.strip(b"\0 ") else (ASCII, ASCII, ASCII, ASCII, UNDEFINED, BYTE)
        return text(number, raw + end, chance.choice(kinds))

    def _comment(self, number: int) -> Tag:
        chance = self.chance
        words = " ".join(chance.choices(_WORDS, k=chance.choice((1, 2, 3))))
        little, big = words.encode("utf-16-le"), words.encode("utf-16-be")
        latin = "seen at the pond"
        # In a little-endian block nothing says which way round these bytes are.
        pairs = "池写真".encode("iso2022_jp").removeprefix(b"\x1b$B").removesuffix(b"\x1b(B")
        japanese = b"JIS\0\0\0\0\0" + pairs if self.order == ">" else b""
        coded = chance.choice(
            (
                b"ASCII\0\0\0" + words.encode() + chance.choice((b"", b"\0", b"\0junk", b"   ")),
                b"ASCII   " + words.encode(),
                b"\0" * 8 + words.encode(),
                b" " * 8 + words.encode(),
                words.encode(),
                b"UNICODE\0" + (little if self.order == "<" else big),
                b"UNICODE\0" + chance.choice((latin.encode("utf-16-le"), latin.encode("utf-16-be"))),
                b"UNICODE\0" + chance.choice((b"\xff\xfe" + little, b"\xfe\xff" + big)),
                japanese,
                b"ASCII\0\0\0",
                b"ASCII\0\0\0" + b"\0" * 200,
            )
        )
        return text(number, coded, chance.choice((UNDEFINED, UNDEFINED, UNDEFINED, ASCII, BYTE)))

    def _number(self, name: str, number: int) -> Tag:
        chance = self.chance
        kind = chance.choice((RATIONAL, RATIONAL, SRATIONAL, FLOAT, DOUBLE))
        if name in ("ExposureBiasValue", "BrightnessValue") and kind == RATIONAL:
            kind = SRATIONAL
        if kind in (FLOAT, DOUBLE) and name != "ExposureBiasValue":
            return numbers(self.order, number, kind, [chance.randint(1, 4000) / 64])
        above = chance.randint(-900, 900) if kind == SRATIONAL else chance.randint(0, 2**32 - 1)
        if name == "ExposureBiasValue" and chance.random() < 0.3:  # signed, by an unsigned type
            return rationals(self.order, number, [(2**32 - chance.randint(1, 9), 3)])
        return rationals(
            self.order,
            number,
            [(above, chance.randint(1, 10**6))],
            SRATIONAL if kind == SRATIONAL else RATIONAL,
        )

    def _position(self) -> list[Tag]:
        chance, order, tags = self.chance, self.order, []
        for letters, name in (("NS", "GPSLatitude"), ("EW", "GPSLongitude")):
            words = {"N": "North", "S": "South", "E": "East", "W": "West"}
            letter = chance.choice(letters)
            reference = chance.choice(
                (letter, letter, letter, letter.lower(), words[letter], words[letter].upper())
            )
            ending = chance.choice((b"", b"\0", b"\0\0"))
            degrees = (chance.randint(0, 89), 1), (chance.randint(0, 59), 1)
            angle = chance.choice(
                (
                    (*degrees, (chance.randint(0, 599_999), 10_000)),
                    (degrees[0], (chance.randint(0, 5_999_999), 100_000), (0, 1)),
                    ((chance.randint(0, 89_000_000), 10**6),),
                    degrees,
                )
            )
            unknown = chance.random()
            ref_name = f"{name}Ref"
            if unknown < 0.1:  # no reference, or one that says nothing
                reference = chance.choice(("", "X", " ", "?", "0"))
            if unknown > 0.05:
                tags.append(
                    self._damaged(ref_name, text(GPS[ref_name], reference.encode() + ending), of=name)
                )
            tags.append(self._damaged(name, rationals(order, GPS[name], angle)))
        if chance.random() < 0.7:
            below = numbers(order, GPS["GPSAltitudeRef"], BYTE, [chance.choice((0, 0, 1))])
            tags.append(self._damaged("GPSAltitudeRef", below, of="GPSAltitude"))
        tags.append(
            self._damaged(
                "GPSAltitude", rationals(order, GPS["GPSAltitude"], [(chance.randint(0, 10**6), 100)])
            )
        )
        return tags

    def _damaged(self, name: str, tag: Tag, of: str = "") -> Tag:
        """The tag, one time in twelve with a damage of one of seven kinds; `of` is what means nothing without it."""
        if self.chance.random() < 1 / 12:
            self.broken |= {name, of or name}
            tag.damaged = self._damage(tag)
        return tag

    def _damage(self, tag: Tag) -> Tag:
        number, kind = tag.number, tag.kind
        long = tag.raw.ljust(20 * SIZES[kind], b"1")
        match self.chance.choice(_DAMAGE):
            case "beyond":
                return Tag(number, kind, 20, long, at=60_000)
            case "count":
                return Tag(number, kind, self.chance.choice((2**32 - 1, 70_000)), tag.raw)
            case "type":
                return Tag(number, self.chance.choice((0, 14, 200, 65535)), tag.count, tag.raw)
            case "header":
                return Tag(number, kind, 20, long, at=0)
            case "itself":
                return Tag(number, kind, 20, long, at=12)
            case "wrong" if kind in (ASCII, UNDEFINED):
                return numbers(self.order, number, SHORT, [1, 2, 3])
            case "wrong":
                return text(number, b"many\0")
            case _:
                return Tag(number, kind, 0, b"")

    def _other_tags(self, block: Block) -> None:
        """Tags that nobody here reads, broken or not: they cost nothing."""
        chance = self.chance
        if chance.random() < 0.5:
            block.exif.append(Tag(_MAKER_NOTE, chance.choice((UNDEFINED, 14, BYTE)), 4, b"abcd"))
        if chance.random() < 0.5:
            block.exif.append(numbers(self.order, _INTEROPERABILITY, LONG, [chance.choice((60_000, 0, 8))]))
        if chance.random() < 0.5:
            block.next_at = chance.choice((60_000, 4))
        if chance.random() < 0.5:
            block.zeroth.append(Tag(0x4746, chance.choice((SHORT, 0, 77)), 1, b"\0\x05"))

    def _pointers(self, block: Block) -> None:
        """Break the way to a directory now and then; then all that is in it is lost."""
        way = self.chance.random()
        if way < 0.04:
            block.exif_at = self.chance.choice((60_000, 0, 8))
            lost = {tag.number for tag in block.exif}
            self.broken |= {name for name, number in (IN_ZEROTH | IN_EXIF).items() if number in lost}
        elif way < 0.08:
            block.gps_at = self.chance.choice((60_000, 2))
            self.broken |= GPS.keys()
