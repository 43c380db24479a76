"""A zip of files that is never made as a whole: each piece of it is put together when it is read.

Its length is known beforehand, nothing in it is compressed (JPEGs would not get smaller), and one file is open at a time. So
a download costs no thread, no room on the disk and little memory, however slow its reader is. The form is that of PKWARE's
APPNOTE.TXT 6.3: checksums after the data (4.3.9), 64-bit fields where an archive needs them (4.3.14).
"""

import io
import logging
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

from trapsync.errors import one_line

log = logging.getLogger(__name__)

_LOCAL, _DESCRIPTOR = struct.Struct("<4s5H3L2H"), struct.Struct("<4s3L")
_CENTRAL, _END = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")
_END_64, _LOCATOR = struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_OFFSET_64 = struct.Struct("<2HQ")
_FLAGS = 0x0808  # checksums follow the data; names are UTF-8
_VERSION, _VERSION_64, _UNIX = 20, 45, 3 << 8
_MODE = 0o100644 << 16  # a plain file
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
_PIECE = 1 << 16


class Member(NamedTuple):
    """A file in a zip: its name there, its length, its local time, and how to open it. Of less than 4 GiB."""

    name: str
    size: int
    at: datetime
    open: Callable[[], IO[bytes]]

    @classmethod
    def of_file(cls, name: str, path: Path, at: datetime) -> "Member":
        """A file as long as it is now. Raises OSError."""
        return cls(name, path.stat().st_size, at, lambda: path.open("rb"))

    @classmethod
    def of_text(cls, name: str, text: str, at: datetime) -> "Member":
        """A file with this text."""
        data = text.encode()
        return cls(name, len(data), at, lambda: io.BytesIO(data))

    @property
    def head(self) -> bytes:
        """What stands before its data."""
        name = self.name.encode()
        fields = (_VERSION, _FLAGS, 0, *self.moment, 0, 0, 0, len(name), 0)
        return _LOCAL.pack(b"PK\3\4", *fields) + name

    @property
    def moment(self) -> tuple[int, int]:
        """Time and date as MS-DOS has them."""
        at = self.at
        year = min(max(at.year - 1980, 0), 127)
        return at.hour << 11 | at.minute << 5 | at.second // 2, year << 9 | at.month << 5 | at.day

    @property
    def whole(self) -> int:
        """The length of all that belongs to it, but for its entry in the directory."""
        return _LOCAL.size + len(self.name.encode()) + self.size + _DESCRIPTOR.size


class Zip:
    """The zip, to be read like a file that is open.

    Whoever reads may go back, and forward to where it was before: what follows a file's data is its checksum, which is
    added up as the data are read. A file that is gone, or shorter than it was, ends in an OSError: the archive would not be
    whole, and the reader must get to know it.
    """

    def __init__(self, members: Sequence[Member], at_end: Callable[[], object] = lambda: None) -> None:
        """`at_end` is called when nobody reads it any more."""
        self._members, self._at_end = members, at_end
        self._starts, at = list[int](), 0
        for member in members:
            self._starts.append(at)
            at += member.whole
        self._directory_at = at
        self._sums: dict[int, int] = {}  # checksums of whole members
        self._sum = (-1, 0, 0)  # a member, how much of it was added up, and the checksum so far
        self._file: tuple[int, IO[bytes]] | None = None
        self._tail = b""
        self._at = 0
        self.length = (
            at + sum(len(self._entry(number, 0)) for number in range(len(members))) + len(self._end(0))
        )

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as of a file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        self._at = min(max(base + offset, 0), self.length)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as many as there are. Raises OSError."""
        wanted = self.length - self._at if size < 0 else min(size, self.length - self._at)
        pieces = list[bytes]()
        while wanted:
            piece = self._piece(wanted)
            pieces.append(piece)
            self._at += len(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close what is open. It is not read again."""
        self._close_file()
        self._at_end()

    def _close_file(self) -> None:
        if self._file:
            self._file[1].close()
            self._file = None

    def _piece(self, most: int) -> bytes:
        """Some of what comes next: at least a byte, and at most so many."""
        if self._at >= self._directory_at:
            begin = self._at - self._directory_at
            return self._directory()[begin : begin + most]
        number = bisect_right(self._starts, self._at) - 1
        member, at = self._members[number], self._at - self._starts[number]
        head = member.head
        if at < len(head):
            return head[at : at + most]
        at -= len(head)
        if at < member.size:
            return self._data(number, at, min(most, member.size - at, _PIECE))
        at -= member.size
        return self._descriptor(number)[at : at + most]

    def _data(self, number: int, at: int, size: int) -> bytes:
        """Bytes of a member, which are added up as far as they are read for the first time."""
        data = self._read(number, at, size)
        which, done, found = self._sum if self._sum[0] == number else (number, 0, 0)
        if at <= done < at + size:
            self._sum = (which, at + size, zlib.crc32(data[done - at :], found))
            if at + size == self._members[number].size:
                self._sums[number] = self._sum[2]
        return data

    def _read(self, number: int, at: int, size: int) -> bytes:
        try:
            if self._file is None or self._file[0] != number:
                self._close_file()
                self._file = (number, self._members[number].open())
            self._file[1].seek(at)
            data = self._file[1].read(size)
            if len(data) < size:
                raise OSError("it is shorter than it was")
        except OSError as error:
            name = one_line(self._members[number].name)
            log.warning("a download was ended: %s cannot be read: %s", name, error)
            raise
        return data

    def _sum_of(self, number: int) -> int:
        """The checksum of a member; read through for it where the reader has skipped something."""
        size, at = self._members[number].size, 0
        while size and number not in self._sums:
            at = self._sum[1] if self._sum[0] == number else 0
            self._data(number, at, min(size - at, _PIECE))
        return self._sums.get(number, 0)

    def _descriptor(self, number: int) -> bytes:
        size = self._members[number].size
        return _DESCRIPTOR.pack(b"PK\7\x08", self._sum_of(number), size, size)

    def _directory(self) -> bytes:
        if not self._tail:
            entries = b"".join(
                self._entry(number, self._sum_of(number)) for number in range(len(self._members))
            )
            self._tail = entries + self._end(len(entries))
        return self._tail

    def _entry(self, number: int, checksum: int) -> bytes:
        """A member in the directory."""
        member, start = self._members[number], self._starts[number]
        name, is_far = member.name.encode(), start >= _MOST_32
        more = _OFFSET_64.pack(1, 8, start) if is_far else b""
        version = _VERSION_64 if is_far else _VERSION
        fields = (_UNIX | _VERSION_64, version, _FLAGS, 0, *member.moment, checksum, member.size, member.size)
        rest = (len(name), len(more), 0, 0, 0, _MODE, _MOST_32 if is_far else start)
        return _CENTRAL.pack(b"PK\1\2", *fields, *rest) + name + more

    def _end(self, size: int) -> bytes:
        """What closes the directory, which has that length."""
        number, at = len(self._members), self._directory_at
        end = _END.pack(
            *(b"PK\5\6", 0, 0, min(number, _MOST_16), min(number, _MOST_16)),
            *(min(size, _MOST_32), min(at, _MOST_32), 0),
        )
        if number < _MOST_16 and at < _MOST_32:
            return end
        fields = (44, _UNIX | _VERSION_64, _VERSION_64, 0, 0, number, number, size, at)
        return _END_64.pack(b"PK\6\6", *fields) + _LOCATOR.pack(b"PK\6\7", 0, at + size, 1) + end
