"""How a JPEG is put together: the segments before the picture data, and what they say.

Read by hand, a few bytes at a time: neither a decoder nor an EXIF library is needed to know the size of a
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
_RESTARTS = range(0xD0, 0xD8)
_RESTART_INTERVAL = 0xDD
_NUMBER_OF_LINES = 0xDC
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
# C4, C8 and CC lie among the start-of-frame markers and are none.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# What else may stand between two scans: tables, comments, anybody's data.
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDB, *range(0xE0, 0xF0), 0xFE})
_MARKER = re.compile(rb"\xff[^\x00]")


class Segment(NamedTuple):
    """One marker segment: the marker's second byte, and where it lies in the file.

    `start` is the offset of the marker, `payload` of what follows the length, `end` of the next marker.
    """

    marker: int
    start: int
    payload: int
    end: int


class Header(NamedTuple):
    """What a JPEG says of itself before its picture data.

    `exif` is the payload of the first APP1 segment that holds EXIF, `restarts` whether the picture data is
    to hold restart markers, `scan` the offset of its first byte.
    """

    width: int
    height: int
    progressive: bool
    exif: bytes | None
    restarts: bool
    scan: int


def segments(jpeg: bytes | bytearray) -> Iterator[Segment]:
    """Walk the segments of a JPEG up to and including the first start of scan.

    Raises IncompleteImage when the bytes end before that, or are not written yet, DamagedImage for what is
    no JPEG.
    """
    if not START_OF_IMAGE.startswith(jpeg[:2].rstrip(b"\0")) or (jpeg[2:3] or b"\0") not in b"\xff\0":
        raise DamagedImage("not a JPEG: it does not begin like one")
    if b"\0" in jpeg[:3]:  # room that was made for it: many a program writes into it later
        raise IncompleteImage("not a JPEG: it begins with zeros")
    offset = 2
    while True:
        segment = _segment_at(jpeg, offset)
        yield segment
        if segment.marker == START_OF_SCAN:
            return
        offset = segment.end


def _segment_at(jpeg: bytes | bytearray, offset: int) -> Segment:
    start = offset
    while jpeg[start : start + 2] == b"\xff\xff":  # any number of fill bytes
        start += 1
    if len(jpeg) < start + 2:
        raise IncompleteImage("cut off: it ends inside its header")
    marker = jpeg[start + 1]
    _refuse_hole(jpeg, start)
    if jpeg[start] != 0xFF or marker in (0x00, 0xD8):
        raise DamagedImage(f"not a whole JPEG: no marker at byte {start}")
    if marker == _END_OF_IMAGE:
        raise DamagedImage("not a whole JPEG: it has no picture data")
    if marker in _ALONE:
        return Segment(marker, start, start + 2, start + 2)
    if len(jpeg) < start + 4:
        raise IncompleteImage("cut off: it ends inside its header")
    end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    if end < start + 4:
        raise DamagedImage(f"not a whole JPEG: impossible length at byte {start}")
    if end > len(jpeg):
        raise IncompleteImage("cut off: it ends inside its header")
    return Segment(marker, start, start + 4, end)


def _refuse_hole(jpeg: bytes | bytearray, start: int) -> None:
    """Zeros where a segment begins are room that is not written yet, or never will be."""
    if any(jpeg[at : at + 2] == b"\0\0" for at in range(start, start + 3)):
        raise IncompleteImage(f"not a whole JPEG: zeros from byte {start} on")


def header(jpeg: bytes | bytearray) -> Header:
    """Read what a JPEG says of itself; the first part of a file is enough, up to the picture data.

    Raises like `segments`, and DamagedImage when the size is missing or zero.
    """
    width = height = 0
    progressive = restarts = False
    exif = None
    for segment in segments(jpeg):
        payload = jpeg[segment.payload : segment.end]
        if segment.marker in _FRAMES:
            if len(payload) < 6:
                raise DamagedImage("not a whole JPEG: its frame header is too short")
            height, width = struct.unpack(">HH", payload[1:5])
            progressive = segment.marker in _PROGRESSIVE
        elif segment.marker == _RESTART_INTERVAL:
            restarts = any(payload)
        elif exif is None and is_exif(segment.marker, payload):
            exif = bytes(payload)
    if not width or not height:
        raise DamagedImage(f"not a whole JPEG: its size is {width} x {height}")
    return Header(width, height, progressive, exif, restarts, segment.end)


def is_exif(marker: int, payload: bytes | bytearray) -> bool:
    """Whether a segment holds EXIF."""
    return marker == _APP1 and payload[:6] == EXIF_SIGNATURE


def without_exif(jpeg: bytes) -> Iterator[memoryview]:
    """All of a JPEG behind its first two bytes, but for the segments that hold EXIF. Raises as `segments`."""
    whole = memoryview(jpeg)
    for segment in segments(jpeg):
        if not is_exif(segment.marker, jpeg[segment.payload : segment.end]):
            yield whole[segment.start : segment.end]
    yield whole[segment.end :]


class PictureData:
    """The walk through everything behind the header, in as many pieces as it comes in.

    In picture data an FF is followed by 00, or by the restart marker whose turn it is; then come tables
    and further scans, or the end. Four random kilobytes in the middle hold sixteen FFs, and pass once in
    some hundred times only because they look like an early end (`goes_on`), otherwise never. What this
    cannot see is a block of zeros, or of other picture data.
    """

    def __init__(self, header: Header) -> None:
        self.has_end = False
        self._restarts = header.restarts
        self._turn = 0  # of which restart marker
        self._in_scan = True
        self._skip = 0  # bytes of a segment that nobody needs
        self._rest = b""  # of the last piece: too short to say what it is
        self._offset = header.scan  # in the file, of the piece at hand
        self._behind = 0
        self._has_picture_behind = False
        self._last = b""

    @property
    def goes_on(self) -> bool:
        """Whether the file ends like a picture a second time, without having begun one.

        Some cameras leave the end of an older picture there. Or the first end is none: only a decoder knows.
        """
        return self._behind > 2 and self._last == END_OF_IMAGE and not self._has_picture_behind

    def take(self, piece: bytes) -> None:
        """The next piece. Raises IncompleteImage for what no picture data can be: it may be written over yet."""
        data, at = self._rest + piece, 0
        self._rest = b""
        while at < len(data) and not self.has_end and not self._rest:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip, at = self._skip - step, at + step
            else:
                at = self._walk_scan(data, at) if self._in_scan else self._walk_segment(data, at)
        if self.has_end:
            self._look_behind(data[at:])
        self._offset += len(data) - len(self._rest)

    def _walk_scan(self, data: bytes, at: int) -> int:
        """Go on to the next marker that is no restart marker, or to the end of the piece."""
        while found := _MARKER.search(data, at):
            at = found.start()
            marker = data[at + 1]
            if marker in _RESTARTS:
                if not self._restarts or marker != _RESTARTS[self._turn]:
                    raise self._no_picture(at)
                self._turn = (self._turn + 1) % len(_RESTARTS)
                at += 2
            elif marker == 0xFF:  # fill bytes: any number of them may stand before a marker
                at += 1
            else:
                self._in_scan = False
                return at
        self._rest = b"\xff" if data.endswith(b"\xff") else b""
        return len(data)

    def _walk_segment(self, data: bytes, at: int) -> int:
        """Read the head of the segment here: the end, the next scan, or something to be skipped."""
        head = data[at : at + 5]
        if head[0] != 0xFF:
            raise self._no_picture(at)
        if head[1:2] == b"\xff":
            return at + 1
        if head[:2] == END_OF_IMAGE:
            self.has_end = True
            return at + 2
        if len(head) < 5:
            self._rest = head
            return len(data)
        marker, length = head[1], int.from_bytes(head[2:4], "big")
        if not _may_follow(marker, length, head[4]):
            raise self._no_picture(at)
        if marker == START_OF_SCAN:
            self._in_scan, self._turn = True, 0
        if marker == _RESTART_INTERVAL:
            self._restarts = True  # after how many blocks, nobody counts here
        self._skip = 2 + length
        return at

    def _no_picture(self, at: int) -> IncompleteImage:
        return IncompleteImage(f"damaged: what stands at byte {self._offset + at} is no picture data")

    def _look_behind(self, data: bytes) -> None:
        self._behind += len(data)
        seam = self._last + data
        self._has_picture_behind = self._has_picture_behind or START_OF_IMAGE in seam
        self._last = seam[-2:]


def _may_follow(marker: int, length: int, first: int) -> bool:
    """Whether such a segment may stand behind a scan; `first` is the first byte of what is in it."""
    if marker == START_OF_SCAN:
        return 1 <= first <= 4 and length == 6 + 2 * first
    if marker in (_RESTART_INTERVAL, _NUMBER_OF_LINES):
        return length == 4
    return marker in _BETWEEN_SCANS and length >= 2
