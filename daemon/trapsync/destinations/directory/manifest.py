"""The manifest beside the copies in a folder: `SHA256SUMS`, which `sha256sum -c SHA256SUMS` checks.

Each copy has two lines, a comment with its size and the line that coreutils know::

    # 812345 bytes
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  512858f4.2022-05-17_18-46-57.jpg

Lines that start with `#` are ignored by coreutils (sha256sum.c). A manifest is a note about copies and no proof: what
is no file, cannot be opened or is larger than ours ever get is left alone (`NotOurs`), and the copies are told by their
bytes. All functions raise OSError where the medium fails.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO, FileIO

from trapsync.files import failpoint
from trapsync.files.folder import Folder, NotRegular

NAME = "SHA256SUMS"

# Beyond any folder of ours: some 70,000 images in one.
_LARGEST, _MOST_LINES, _LONGEST_LINE = 8 * 10**6, 200_000, 8192

_TEMPORARY = f".{NAME}.part"
_SIZE = re.compile(rb"# (\d{1,15}) bytes\r?\n")
_SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *]([^\r]+)\r?\n", re.DOTALL)
# As coreutils escape names that would break the line; such a line starts with a backslash.
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_ESCAPED = {escaped: plain for plain, escaped in _ESCAPES.items()}
_NOT_TO_BE_OPENED = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EXDEV}


class NotOurs(Exception):
    """What is called SHA256SUMS there is left alone; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one copy; a size of -1 was not recorded."""

    digest: str
    size: int


def read(folder: Folder, names: Collection[str]) -> dict[str, Entry]:
    """The entries of these names. A torn last line, and whatever else is not ours, is passed over."""
    try:
        with _opened(folder, os.O_RDONLY) as file:
            return _entries(_content(file), names)
    except FileNotFoundError:
        return {}


def add(folder: Folder, name: str, entry: Entry) -> None:
    """Make sure that the manifest has exactly this one entry for `name`, and flush it."""
    lines = _lines(name, entry)
    try:
        with _opened(folder, os.O_RDWR | os.O_APPEND) as file:
            content = _content(file)
            # Most have none: a manifest of thousands of lines is not taken apart for each image.
            before = _entries(content, {name}).get(name) if _escaped(name) in content else None
            if before is None:
                _append(file, content, lines)
    except FileNotFoundError:
        _write(folder, lines)
        return
    if before not in (None, entry):  # of a copy that somebody has taken away since
        _write(folder, b"".join(_without(content, name)) + lines)


def remove(folder: Folder, name: str) -> None:
    """Make sure that the manifest has no entry for `name`: its copy is not what was recorded of it."""
    try:
        with _opened(folder, os.O_RDONLY) as file:
            content = _content(file)
    except FileNotFoundError:
        return
    if _escaped(name) in content and name in _entries(content, {name}):
        _write(folder, b"".join(_without(content, name)))


@contextmanager
def _opened(folder: Folder, flags: int) -> Iterator[FileIO]:
    try:
        file = folder.file(NAME, flags)
    except NotRegular:
        raise NotOurs("it is no regular file") from None
    except OSError as error:
        if error.errno in _NOT_TO_BE_OPENED:
            raise NotOurs(f"it cannot be opened: {error.strerror}") from None
        raise
    with file:
        yield file


def _content(file: FileIO) -> bytes:
    """All of it, within bounds."""
    size = os.fstat(file.fileno()).st_size
    content = file.read(_LARGEST + 1) if size <= _LARGEST else None
    if content is None or len(content) > _LARGEST or content.count(b"\n") > _MOST_LINES:
        raise NotOurs("it is too large")
    return content


def _parsed(content: bytes) -> Iterator[tuple[bytes, str | None, Entry | None]]:
    """Each whole line, with the name and the entry if it is a checksum; bounded memory whatever it holds."""
    size = -1
    for line in BytesIO(content):
        if len(line) > _LONGEST_LINE:
            raise NotOurs("it has lines without end")
        match = _SUM.fullmatch(line)
        if match:
            name = _unescape(match[3]) if match[1] else match[3]
            yield line, os.fsdecode(name), Entry(match[2].decode(), size)
        else:
            yield line, None, None
        announced = _SIZE.fullmatch(line)
        size = int(announced[1]) if announced else -1


def _entries(content: bytes, names: Collection[str]) -> dict[str, Entry]:
    return {
        name: entry for _, name, entry in _parsed(content) if name is not None and entry and name in names
    }


def _without(content: bytes, name: str) -> Iterator[bytes]:
    """The lines but for those of one name, and but for a torn last one."""
    comment = b""
    for line, of, _ in _parsed(content):
        if _SIZE.fullmatch(line):
            yield comment
            comment = line
        elif of == name:
            comment = b""
        elif line.endswith(b"\n"):
            yield comment + line
            comment = b""
    yield comment


def _append(file: FileIO, content: bytes, lines: bytes) -> None:
    """Add lines behind the last whole one."""
    whole = content.rfind(b"\n") + 1
    if whole + len(lines) > _LARGEST:
        raise NotOurs("it is full")
    if whole < len(content):
        file.truncate(whole)
    _write_all(file, lines)
    failpoint.hit("manifest: appended")
    os.fsync(file.fileno())
    failpoint.hit("manifest: flushed")


def _write(folder: Folder, content: bytes) -> None:
    """Write it whole, in the place of the one that is there."""
    if folder.has(_TEMPORARY) and not folder.is_file(_TEMPORARY):
        raise NotOurs(f"what is called {_TEMPORARY} there is no file")
    folder.remove(_TEMPORARY)
    try:
        with folder.new(_TEMPORARY) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        failpoint.hit("manifest: written")
        folder.replace(_TEMPORARY, NAME)
        folder.flush()
    except BaseException:
        with suppress(OSError):
            folder.remove(_TEMPORARY)
        raise


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _lines(name: str, entry: Entry) -> bytes:
    escaped = _escaped(name)
    mark = b"\\" if escaped != os.fsencode(name) else b""
    size = b"# %d bytes\n" % entry.size if entry.size >= 0 else b""
    return size + mark + entry.digest.encode() + b"  " + escaped + b"\n"


def _escaped(name: str) -> bytes:
    return re.sub(rb"[\\\n\r]", lambda match: _ESCAPES[match[0]], os.fsencode(name))


def _unescape(name: bytes) -> bytes:
    return re.sub(rb"\\[\\nr]", lambda match: _ESCAPED[match[0]], name)
