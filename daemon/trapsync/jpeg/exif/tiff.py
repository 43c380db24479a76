"""Read an EXIF block as cameras write it: directory by directory and tag by tag. What is broken costs only itself.

A tag is believed as far as it fits into the block: its type, its count, and where its value lies. Nothing larger than
the block is ever built, whatever a count says.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from trapsync.jpeg.structure import EXIF_SIGNATURE

# Bytes per value of the TIFF types; 129 is the UTF-8 text of EXIF 3.0.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
_BYTES = {1, 2, 7, 129}  # types that may hold a text; some cameras write one as BYTE or UNDEFINED
_FORMS = {1: "B", 3: "H", 4: "L", 5: "2L", 6: "b", 8: "h", 9: "l", 10: "2l", 11: "f", 12: "d", 13: "L"}
ASCII, RATIONAL, UNDEFINED, SIGNED_RATIONAL = 2, 5, 7, 10

POINTERS = _EXIF_POINTER, _GPS_POINTER = 0x8769, 0x8825  # to the directories below the first one
_HEADER = 8  # bytes: the byte order, 42, and where the first directory is


class Tag(NamedTuple):
    """A tag's value as it stands in the file: its TIFF type, and where it lies; `order` is as `struct` writes it.

    The bytes are not copied before they are wanted: thousands of tags may have the same ones.
    """

    kind: int
    order: str
    block: bytes
    start: int
    size: int

    @property
    def raw(self) -> bytes:
        """The bytes of the value."""
        return self.block[self.start : self.start + self.size]

    def text(self) -> str | None:
        """The text up to its first NUL, with or without one; None for a tag of numbers."""
        return self.raw.partition(b"\0")[0].decode("utf-8", "replace") if self.kind in _BYTES else None

    def unpacked(self, most: int | None = None) -> list[tuple[Any, ...]]:
        """The first values: a number each, or the two of a fraction. Empty for a text."""
        form = _FORMS.get(self.kind, "")
        values = self.raw if most is None else self.raw[: most * _SIZES[self.kind]]
        return list(struct.iter_unpack(self.order + form, values)) if form else []

    def numbers(self, most: int) -> list[float | None]:
        """The first values, no more than `most`; None for each that is no finite number. Empty for a text."""
        return [_number(*value) for value in self.unpacked(most)]

    def number(self) -> float | None:
        """The first number, as it is; None if there is none."""
        return next(iter(self.numbers(1)), None)

    def whole(self) -> int | None:
        """The first number, if it is a whole one."""
        first = self.number()
        return int(first) if first is not None and first == int(first) else None


def _number(number: float, below: int = 1) -> float | None:
    if below == 0 or not math.isfinite(number):
        return None
    return number if below == 1 else number / below


class Directory(NamedTuple):
    """The tags of a directory by their numbers, and the numbers of those that cannot be read."""

    tags: dict[int, Tag]
    broken: frozenset[int]

    def has(self, number: int) -> bool:
        """Whether there is such a tag, broken or not."""
        return number in self.tags or number in self.broken


class Directories(NamedTuple):
    """What is read of a block; a directory is None where there should be one that cannot be read."""

    zeroth: Directory
    exif: Directory | None
    gps: Directory | None


_NOTHING = Directory({}, frozenset())
_Extent = tuple[int, int]  # of the bytes of a directory: its offset, and what follows it


def read(app1: bytes) -> Directories:
    """Read the payload of an APP1 segment. Raises ValueError, in words, where not even its first directory is one."""
    tiff = app1[len(EXIF_SIGNATURE) :]
    if not app1.startswith(EXIF_SIGNATURE) or tiff[:2] not in (b"MM", b"II"):
        raise ValueError("the block is not TIFF")
    order = "<" if tiff[:2] == b"II" else ">"
    if len(tiff) < _HEADER:
        raise ValueError("the block is cut off")
    first = _extent(tiff, struct.unpack_from(f"{order}L", tiff, 4)[0], order)
    zeroth = _directory(tiff, first, order, [first]) if first else None
    if first is None or zeroth is None:
        raise ValueError("its first directory cannot be read")
    below = [_below(tiff, zeroth, pointer, order) for pointer in POINTERS]
    # One that leads back to the first directory would give its tags another meaning.
    extents = [None if extent == first else extent for extent in below]
    taken = [first, *(extent for extent in extents if extent)]
    exif, gps = (
        _directory(tiff, extent, order, taken) if extent else (None if zeroth.has(pointer) else _NOTHING)
        for extent, pointer in zip(extents, POINTERS, strict=True)
    )
    return Directories(_directory(tiff, first, order, taken) or zeroth, exif, gps)


def _below(tiff: bytes, zeroth: Directory, pointer: int, order: str) -> _Extent | None:
    """Where the directory is to which a tag of the first one points."""
    tag = zeroth.tags.get(pointer)
    offset = tag.whole() if tag else None
    return None if offset is None else _extent(tiff, offset, order)


def _extent(tiff: bytes, offset: int, order: str) -> _Extent | None:
    """Where the directory at an offset begins and ends; None where there can be none."""
    if not _HEADER <= offset <= len(tiff) - 2:
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, offset)
    end = offset + 2 + 12 * count
    return (offset, end) if end <= len(tiff) else None


def _directory(tiff: bytes, extent: _Extent, order: str, taken: Sequence[_Extent]) -> Directory | None:
    """The directory in this place, and None if that is none. No value lies in what is `taken` by directories."""
    tags: dict[int, Tag] = {}
    broken = set()
    unknown = 0
    places = range(extent[0] + 2, extent[1], 12)
    for at in places:
        number, kind = struct.unpack_from(f"{order}HH", tiff, at)
        unknown += kind not in _SIZES
        size = struct.unpack_from(f"{order}L", tiff, at + 4)[0] * _SIZES.get(kind, 0)
        start = at + 8 if size <= 4 else struct.unpack_from(f"{order}L", tiff, at + 8)[0]
        if kind in _SIZES and (size <= 4 or _is_free(start, start + size, len(tiff), taken)):
            tags[number] = Tag(kind, order, tiff, start, size)
        else:
            broken.add(number)
    # Where a broken pointer leads to anything at all, hardly an entry is of a type that there is.
    if 2 * unknown > len(places):
        return None
    return Directory(tags, frozenset(broken - tags.keys()))


def _is_free(start: int, end: int, length: int, taken: Sequence[_Extent]) -> bool:
    """Whether a value can lie there: in the block, and not in its header or a directory."""
    return (
        start >= _HEADER
        and end <= length
        and not any(start < behind and end > begin for begin, behind in taken)
    )
