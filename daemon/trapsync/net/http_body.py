"""Bodies that are sent as they are read: their length is known in advance, and no file is whole in memory.

A request of known length needs no chunked encoding, which WSGI servers treat badly (the Sticky Pi
server's sees an empty body).
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from trapsync.errors import Failed
from trapsync.files import durable
from trapsync.image import Image

# What opening it says of a missing file; a file in the place of its folder; a link; a socket, or a device without a driver.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}


@contextmanager
def opened(image: Image, path: Path) -> Iterator[BinaryIO]:
    """Open an image's file for sending. Raises FileNotFoundError when it is gone, or something else took its place,
    Failed when it cannot be read or is not of the size that was examined."""
    try:
        file = open(path, "rb", opener=lambda _name, flags: durable.open_plain(path, flags))  # noqa: SIM115 - below
    except OSError as error:
        if isinstance(error, durable.NotPlain) or error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, "no regular file", str(path)) from None
        raise Failed(f"reading it failed: {durable.explain(error, path)}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != image.size:
            raise Failed(f"the file has {size} bytes now; it had {image.size} when it was examined")
        yield file


class Body(Protocol):
    """What `HttpClient.send` sends: its length is known before the first byte, and it is read once."""

    def __len__(self) -> int:
        """The number of bytes that `read` will give in all."""

    def read(self, count: int) -> bytes:
        """Up to `count` more bytes; empty at the end."""


class Pieces:
    """A body of byte strings and open files, one after another, never whole in memory."""

    def __init__(self, *pieces: "bytes | FilePiece") -> None:
        self._length = sum(len(piece) for piece in pieces)
        self._readers = [_reader(piece) if isinstance(piece, bytes) else piece.read for piece in pieces]

    def __len__(self) -> int:
        return self._length

    def read(self, count: int) -> bytes:
        """Up to `count` more bytes; empty at the end. Raises Failed if a file cannot be read whole."""
        while self._readers:
            chunk = self._readers[0](count)
            if chunk:
                return chunk
            self._readers.pop(0)
        return b""


def _reader(content: bytes) -> Callable[[int], bytes]:
    """A `read` over a byte string."""
    rest = memoryview(content)

    def read(count: int) -> bytes:
        nonlocal rest
        chunk, rest = rest[:count], rest[count:]
        return bytes(chunk)

    return read


class FilePiece:
    """Exactly `size` bytes from the start of an open file.

    A file that has become shorter raises Failed while it is sent; the server then gets less than was
    announced, and drops it. Bytes beyond `size` are not sent. With `md5` (hex) the last piece is kept back,
    with Failed, if what was read is not what was examined: not every server compares digests.
    """

    def __init__(self, file: BinaryIO, size: int, md5: str = "") -> None:
        self._file = file
        self._size = size
        self._offset = 0
        self._md5 = md5
        self._digest = hashlib.md5(usedforsecurity=False)

    def __len__(self) -> int:
        return self._size

    def read(self, count: int) -> bytes:
        """Up to `count` more bytes of the file."""
        try:
            self._file.seek(self._offset)
            chunk = self._file.read(min(count, self._size - self._offset))
        except OSError as error:
            raise Failed(f"reading it failed: {durable.explain(error, Path(self._file.name))}") from error
        if not chunk and self._offset < self._size:
            raise Failed(f"the file shrank while it was sent: {self._offset} of {self._size} bytes")
        self._offset += len(chunk)
        if self._md5 and chunk:
            self._compare(chunk)
        return chunk

    def _compare(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._offset == self._size and self._digest.hexdigest() != self._md5:
            raise Failed(
                "the file on the card has other bytes than when it was examined: the card may be failing"
            )


def multipart(*parts: tuple[str, str, str, "bytes | FilePiece"]) -> tuple[Pieces, str]:
    """A multipart/form-data body of (name, file name or "", content type or "", content), and its type.

    Names are quoted as browsers do it (HTML, "multipart/form-data encoding algorithm").
    """
    boundary = secrets.token_hex(16)
    pieces: list[bytes | FilePiece] = []
    for name, filename, kind, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        head += f'; filename="{_quoted(filename)}"' if filename else ""
        head += f"\r\nContent-Type: {kind}" if kind else ""
        pieces += [f"{head}\r\n\r\n".encode(), content, b"\r\n"]
    return Pieces(*pieces, f"--{boundary}--\r\n".encode()), f"multipart/form-data; boundary={boundary}"


def _quoted(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
