"""The manifest beside the copies in a folder: `SHA256SUMS`, which `sha256sum -c SHA256SUMS` checks.

Each copy has two lines, a comment with its size and the line that coreutils know::

    # 812345 bytes
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  512858f4.2022-05-17_18-46-57.jpg

Lines that start with `#` are ignored by coreutils (sha256sum.c). All functions raise OSError.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from trapsync import durable, failpoint

NAME = "SHA256SUMS"

_SIZE = re.compile(rb"# (\d+) bytes\r?")
_SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *]([^\r]+)\r?")
# As coreutils escape names that would break the line; such a line starts with a backslash.
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_ESCAPED = {escaped: plain for plain, escaped in _ESCAPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one copy; a size of -1 was not recorded."""

    digest: str
    size: int


def read(folder: Path) -> dict[str, Entry]:
    """The entries by file name. A torn last line, and whatever else is not ours, is passed over."""
    try:
        lines = (folder / NAME).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    entries = {}
    size = -1
    for line in lines:
        if match := _SUM.fullmatch(line):
            name = _unescape(match[3]) if match[1] else match[3]
            entries[os.fsdecode(name)] = Entry(match[2].decode(), size)
        announced = _SIZE.fullmatch(line)
        size = int(announced[1]) if announced else -1
    return entries


def add(folder: Path, name: str, entry: Entry) -> None:
    """Make sure that the manifest has exactly this one entry for `name`, and flush it."""
    entries = read(folder)
    if entries.get(name) == entry:
        return
    if name in entries:  # of a copy that somebody has taken away since
        entries[name] = entry
        durable.write(folder / NAME, (_lines(*item) for item in entries.items()))
    else:
        _append(folder / NAME, _lines(name, entry))


def _append(path: Path, lines: bytes) -> None:
    """Append, after cutting off what a power cut left of a last line."""
    is_new = not path.exists()
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(lines)
        file.flush()
        failpoint.hit("manifest: appended")
        os.fsync(file.fileno())
        failpoint.hit("manifest: flushed")
    if is_new:
        durable.flush_folder(path.parent)


def _lines(name: str, entry: Entry) -> bytes:
    plain = os.fsencode(name)
    escaped = re.sub(rb"[\\\n\r]", lambda match: _ESCAPES[match[0]], plain)
    mark = b"\\" if escaped != plain else b""
    size = b"# %d bytes\n" % entry.size if entry.size >= 0 else b""
    return size + mark + entry.digest.encode() + b"  " + escaped + b"\n"


def _unescape(name: bytes) -> bytes:
    return re.sub(rb"\\[\\nr]", lambda match: _ESCAPED[match[0]], name)
