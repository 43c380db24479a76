"""The structure of a JPEG: the segments before the picture data, and what they say.

Read here, a few bytes at a time: neither a decoder nor an EXIF library is needed to know the size of a
picture, to find where its metadata lies, or to see that something else was written into the middle of it.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from trapsync.errors import DamagedImage, IncompleteImage

EXIF_SIGNATURE = b"Exif\0\0"  # the first bytes of an APP1 segment that holds EXIF
START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"  # never within picture data: there an FF is followed by 00 or a restart marker

START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_APP1 = 0xE1
_FILL = b"\xff"  # any number of them may stand before a marker
RESTART_INTERVAL = 0xDD
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
# C4, C8 and CC lie among the start-of-frame markers and are none.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


class Segment(NamedTuple):
    """One marker segment: the marker's second byte, and where it lies in the file.

    `start` is the offset of the marker, `payload` of what follows the length, `end` of the next marker.
    """

    marker: int
    start: int
    payload: int
    end: int


class Header(NamedTuple):
    """What a JPEG says about itself before its picture data.

    `exif` is the payload of the first APP1 segment that holds EXIF, `restarts` whether the picture data is
    to hold restart markers, `scan` the offset of its first byte. `has_strays` is whether bytes stand between its
    segments that belong to none.
    """

    width: int
    height: int
    progressive: bool
    exif: bytes | None
    restarts: bool
    scan: int
    has_strays: bool


def segments(jpeg: bytes | bytearray) -> Iterator[Segment]:
    """List the segments of a JPEG up to and including the first start of scan.

    Bytes between them that belong to none are passed over, as every decoder does: some cameras write a wrong length.
    Raises IncompleteImage when the bytes end before that, or are not written yet, DamagedImage for what is
    no JPEG.
    """
    if not START_OF_IMAGE.startswith(jpeg[:2].rstrip(b"\0")) or (jpeg[2:3] or b"\0") not in b"\xff\0":
        raise DamagedImage("not a JPEG: it does not begin like one")
    if b"\0" in jpeg[:3]:  # space that was reserved: many programs write into it later
        raise IncompleteImage("not a JPEG: it begins with zeros")
    offset, hole = len(START_OF_IMAGE), None
    while True:
        found = _NEXT_MARKER.search(jpeg, offset)
        start = found.start() if found else len(jpeg)
        zeros = _ZEROS.search(jpeg, offset, start)
        hole = zeros.start() if hole is None and zeros else hole
        try:
            segment = _segment_at(jpeg, start)
        except DamagedImage as error:
            if hole is None:
                raise
            # Stray bytes like others, or not written yet: then nothing that follows can be believed.
            raise IncompleteImage(f"not a whole JPEG: zeros from byte {hole} on") from error
        yield segment
        if segment.marker == START_OF_SCAN:
            return
        offset = segment.end


_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff]")
_ZEROS = re.compile(rb"\0\0")


def _segment_at(jpeg: bytes | bytearray, start: int) -> Segment:
    if len(jpeg) < start + 2:
        raise IncompleteImage("cut off: it ends inside its header")
    marker = jpeg[start + 1]
    if marker == START_OF_IMAGE[1]:
        raise DamagedImage(f"not a whole JPEG: it begins once more at byte {start}")
    if marker == _END_OF_IMAGE:
        raise DamagedImage("not a whole JPEG: it has no picture data")
    if marker in _ALONE:
        return Segment(marker, start, start + 2, start + 2)
    if len(jpeg) < start + 4:
        raise IncompleteImage("cut off: it ends inside its header")
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    if length == 0:  # not written yet
        raise IncompleteImage(f"not a whole JPEG: zeros from byte {start + 2} on")
    end = start + 2 + length
    if end < start + 4:
        raise DamagedImage(f"not a whole JPEG: impossible length at byte {start}")
    if end > len(jpeg):
        raise IncompleteImage("cut off: it ends inside its header")
    return Segment(marker, start, start + 4, end)


def header(jpeg: bytes | bytearray) -> Header:
    """Read the header of a JPEG; the first part of a file is enough, up to the picture data.

    Raises like `segments`, and DamagedImage when the size is missing or zero.
    """
    width = height = 0
    progressive = restarts = has_strays = False
    exif = None
    end = len(START_OF_IMAGE)
    for segment in segments(jpeg):
        has_strays = has_strays or bool(jpeg[end : segment.start].strip(_FILL))
        end = segment.end
        payload = jpeg[segment.payload : segment.end]
        if segment.marker in _FRAMES:
            if len(payload) < 6:
                raise DamagedImage("not a whole JPEG: its frame header is too short")
            height, width = struct.unpack(">HH", payload[1:5])
            progressive = segment.marker in _PROGRESSIVE
        elif segment.marker == RESTART_INTERVAL:
            restarts = any(payload)
        elif exif is None and is_exif(segment.marker, payload):
            exif = bytes(payload)
    if not width or not height:
        # Among stray bytes, its frame header may be still to come.
        kind = IncompleteImage if has_strays else DamagedImage
        raise kind(f"not a whole JPEG: its size is {width} x {height}")
    return Header(width, height, progressive, exif, restarts, segment.end, has_strays)


def is_exif(marker: int, payload: bytes | bytearray) -> bool:
    """Whether a segment holds EXIF."""
    return marker == _APP1 and payload[:6] == EXIF_SIGNATURE


def without_exif(jpeg: bytes) -> Iterator[memoryview]:
    """A JPEG without its first two bytes and its EXIF segments, piece by piece. Raises as `segments`."""
    whole = memoryview(jpeg)
    for segment in segments(jpeg):
        if not is_exif(segment.marker, jpeg[segment.payload : segment.end]):
            yield whole[segment.start : segment.end]
    yield whole[segment.end :]


def without_strays(jpeg: bytes) -> Iterator[memoryview]:
    """A JPEG without what stands between the segments of its header, piece by piece. Raises as `segments`."""
    whole = memoryview(jpeg)
    yield whole[: len(START_OF_IMAGE)]
    for segment in segments(jpeg):
        yield whole[segment.start : segment.end]
    yield whole[segment.end :]
