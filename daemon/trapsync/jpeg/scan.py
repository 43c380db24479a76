"""The picture data of a JPEG, checked without a decoder: is it whole, cut off, or overwritten?"""

import re

from trapsync.errors import IncompleteImage
from trapsync.jpeg.structure import END_OF_IMAGE, RESTART_INTERVAL, START_OF_IMAGE, START_OF_SCAN, Header

_RESTARTS = range(0xD0, 0xD8)
_NUMBER_OF_LINES = 0xDC
# What else may stand between two scans: tables, comments, anybody's data.
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDB, *range(0xE0, 0xF0), 0xFE})
_MARKER = re.compile(rb"\xff[^\x00]")


class PictureData:
    """Check everything behind the header, in as many pieces as it comes in.

    In picture data an FF is followed by 00, or by the restart marker whose turn it is; then come tables
    and further scans, or the end. Four random kilobytes in the middle hold sixteen FFs, and pass once in
    some hundred times only because they look like an early end (`ends_twice`), otherwise never. What this
    cannot see is a block of zeros, or of other picture data.
    """

    def __init__(self, header: Header) -> None:
        self.has_end = False
        self._restarts = header.restarts
        self._turn = 0  # of which restart marker
        self._in_scan = True
        self._skip = 0  # bytes of a segment that are not needed
        self._rest = b""  # of the last piece: too short to say what it is
        self._offset = header.scan  # in the file, of the piece at hand
        self._behind = 0
        self._has_picture_behind = False
        self._last = b""

    @property
    def ends_twice(self) -> bool:
        """Whether the file ends like a picture a second time, without having begun one.

        Some cameras leave the end of an older picture there. Or the first end is none: only a decoder knows.
        """
        return self._behind > 2 and self._last == END_OF_IMAGE and not self._has_picture_behind

    def feed(self, piece: bytes) -> None:
        """Check the next piece. Raises IncompleteImage for what cannot be picture data: it may still be overwritten."""
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
        if marker == RESTART_INTERVAL:
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
    if marker in (RESTART_INTERVAL, _NUMBER_OF_LINES):
        return length == 4
    return marker in _BETWEEN_SCANS and length >= 2
