"""A server and a broker whose answers are small to send, or announced as large, and would fill a Pi's memory."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

SIZE = 32 * 2**20
_PIECE = b"{}," * 20_000
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"

_TOKEN = _HEAD + b'Content-Length: 19\r\n\r\n{"token": "secret"}'

Send = Callable[[bytes], None]


@cache
def _packed() -> bytes:
    return gzip.compress(b"".join(_pieces()), 9)


def _pieces() -> Iterator[bytes]:
    """A JSON text of 32 MiB."""
    number, rest = divmod(SIZE - 3, len(_PIECE))
    yield b"["
    for _ in range(number):
        yield _PIECE
    yield b" " * rest + b"0]"


def plain(send: Send) -> None:
    """32 MiB of JSON as it is."""
    send(_HEAD + b"Content-Length: %d\r\n\r\n" % SIZE)
    for piece in _pieces():
        send(piece)


def chunked(send: Send) -> None:
    """32 MiB without a length, in chunks."""
    send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for piece in _pieces():
        send(b"%x\r\n%s\r\n" % (len(piece), piece))
    send(b"0\r\n\r\n")


def one_chunk(send: Send) -> None:
    """32 MiB announced as one chunk."""
    send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE)
    for piece in _pieces():
        send(piece)
    send(b"\r\n0\r\n\r\n")


def packed(send: Send) -> None:
    """32 MiB in 32 kB of gzip."""
    send(_HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_packed()) + _packed())


def just_fits(send: Send) -> None:
    """As much as an answer may have, of the smallest values: the most that is ever decoded."""
    text = b"[" + b'{"a":1},' * 49_990 + b"0]"
    send(_HEAD + b"Content-Length: %d\r\n\r\n" % len(text) + text)


def header(send: Send) -> None:
    """A header of 32 MiB."""
    send(b"HTTP/1.1 200 OK\r\nContent-Type: ")
    for piece in _pieces():
        send(piece)


HTTP = {one.__name__: one for one in (plain, chunked, one_chunk, packed, just_fits, header)}


def announced(send: Send) -> None:
    """A broker's welcome, and a message that is announced as 200 MB and begins to come."""
    send(b"\x20\x03\0\0\0")
    send(b"\x30\x80\x84\xaf\x5f" + b"\0\x03a/b\0")
    for piece in _pieces():
        send(piece)


def unreleased(send: Send) -> None:
    """A broker's welcome, and messages of 60 kB with QoS 2, which a client keeps until they are released."""
    send(b"\x20\x03\0\0\0")
    for number in range(1, SIZE // 60_000):
        content = b"\0\x03a/b" + number.to_bytes(2, "big") + b"\0" + bytes(60_000)
        length = len(content)
        send(bytes([0x34, length & 127 | 128, length >> 7 & 127 | 128, length >> 14]) + content)


MQTT = {one.__name__: one for one in (announced, unreleased)}


class Sender:
    """Answers each connection with the next of its bombs, in turn; who wants a token gets one."""

    def __init__(self, *bombs: Callable[[Send], None]) -> None:
        self._bombs = bombs
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self.sent = 0  # bombs that were begun

    def serve(self) -> None:
        """Until the listener is closed."""
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        # Whoever is attacked hangs up in between.
        with peer, suppress(OSError):
            peer.settimeout(30)
            if b"/get_token" in peer.recv(65536).partition(b"\r\n")[0]:
                peer.sendall(_TOKEN)  # so that the questions behind it are asked
            else:
                self._next()(peer.sendall)
            peer.recv(65536)

    def _next(self) -> Callable[[Send], None]:
        with self._lock:
            self.sent += 1
            return self._bombs[(self.sent - 1) % len(self._bombs)]

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def sending(*bombs: Callable[[Send], None]) -> Iterator[Sender]:
    """A server of bombs until the block ends."""
    sender = Sender(*bombs)
    thread = threading.Thread(target=sender.serve, daemon=True)
    thread.start()
    try:
        yield sender
    finally:
        sender.close()
        thread.join(10)
