"""Seals of the catalog's pages: whether its file is, byte for byte, as the program left it.

To look at every row whether it can be believed takes minutes on a Pi with a million images. So beside the
catalog lies a CRC-32 of each of its pages, renewed whenever the write-ahead log was folded in. A file whose
pages all have their seals is sound as it was when they were put, and what the log adds is guarded by
SQLite's own checksums. A page without its seal says nothing yet: a kill while the log was folded in leaves
some. Then every row is looked at, as if there were no seals.
"""

import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from trapsync.files import failpoint

# Bytes. An image by itself touches a dozen pages when it comes and half as many when it goes, each written whole.
PAGE = 1024
_CHUNK = 256 * PAGE
# The write-ahead log: a header with the size of a page and two salts, then frames, each with a header of
# its own that begins with the number of its page (sqlite.org/fileformat2.html, 4.1).
_LOG_HEADER = struct.Struct(">8xI4x8s8x")
_FRAME_HEADER = struct.Struct(">I4x8s8x")


class PageSeals:
    """The seals of one catalog. Whoever folds its log says `note` before that, and `renew` after it.

    To close a file takes every POSIX lock from it that this process holds, those of SQLite too, and the next
    process that closes the catalog would delete the log under us (sqlite.org/howtocorrupt.html, 2.2). So the
    catalog, once opened here, stays open until `close`, which comes after SQLite's own.
    """

    def __init__(self, catalog: Path) -> None:
        self._catalog = catalog
        self._log = Path(f"{catalog}-wal")
        self._seals = Path(f"{catalog}-seals")
        self._changed: set[int] | None = set()  # None: not known
        self._is_checked = False
        self._pages: BinaryIO | None = None

    def close(self) -> None:
        """Let the catalog's file go, once SQLite has."""
        pages, self._pages = self._pages, None
        if pages:
            pages.close()

    def _open_pages(self) -> int:
        if not self._pages:
            self._pages = self._catalog.open("rb", buffering=0)
        return self._pages.fileno()

    def hold(self) -> bool:
        """Whether every page has its seal. To be asked before SQLite opens the file, and may change it."""
        try:
            pages, at = self._open_pages(), 0
            with self._seals.open("rb") as seals:
                while chunk := os.pread(pages, _CHUNK, at):
                    if _seals_of(chunk) != seals.read(_CHUNK // PAGE * 4):
                        return False
                    at += len(chunk)
                return at > 0 and not seals.read(1)
        except OSError:
            return False

    def put_anew(self) -> None:
        """Every row was looked at just now: put all seals anew, the next time."""
        self._changed, self._is_checked = None, True

    def log_size(self) -> int:
        """The bytes that the write-ahead log takes."""
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def note(self) -> None:
        """The log is about to be folded in: remember which pages that may change."""
        if self._changed is not None:
            try:
                self._changed |= _pages_in(self._log)
            except (OSError, ValueError):
                self._changed = None  # not known: all of them

    def renew(self) -> None:
        """The whole log is in the file: seal what has changed.

        Where that is not known, or could not be sealed, a page may have changed that nobody has looked at: then
        there are no seals until a start has looked at every row.
        """
        changed, self._changed = self._changed, None
        if changed is None and not self._is_checked:
            with suppress(OSError):
                self._seals.unlink(missing_ok=True)
                failpoint.hit("catalog: seals removed")
            return
        self._is_checked = False
        with suppress(OSError):
            pages = self._open_pages()
            count = os.fstat(pages).st_size // PAGE
            with os.fdopen(os.open(self._seals, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as seals:
                sealed = os.fstat(seals.fileno()).st_size // 4
                new = range(1, count + 1) if changed is None else {*changed, *range(sealed + 1, count + 1)}
                self._seal(pages, seals.fileno(), (page for page in new if page <= count))
                seals.truncate(4 * count)
                os.fdatasync(seals.fileno())
                failpoint.hit("catalog: sealed")
            self._changed = set()

    def _seal(self, pages: int, seals: int, numbers: Iterable[int]) -> None:
        for number in numbers:
            content = os.pread(pages, PAGE, PAGE * (number - 1))
            os.pwrite(seals, _seals_of(content), 4 * (number - 1))


def _seals_of(pages: bytes) -> bytes:
    view = memoryview(pages)
    return array("I", (zlib.crc32(view[at : at + PAGE]) for at in range(0, len(view), PAGE))).tobytes()


def _pages_in(log: Path) -> set[int]:
    """The numbers of the pages that a write-ahead log holds; ValueError if they are of another size."""
    pages: set[int] = set()
    try:
        file = log.open("rb")
    except FileNotFoundError:
        return pages
    with file:
        header = file.read(_LOG_HEADER.size)
        if len(header) < _LOG_HEADER.size:
            return pages
        size, salts = _LOG_HEADER.unpack(header)
        if size != PAGE:
            raise ValueError(f"pages of {size} bytes")
        at = _LOG_HEADER.size
        while len(frame := os.pread(file.fileno(), _FRAME_HEADER.size, at)) == _FRAME_HEADER.size:
            number, its_salts = _FRAME_HEADER.unpack(frame)
            if its_salts != salts:  # left over from an earlier round
                break
            pages.add(number)
            at += _FRAME_HEADER.size + PAGE
    return pages
