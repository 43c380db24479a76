"""The bell that wakes the main thread: rung by a signal, or by another thread.

A thread that waits for an Event is not told of a signal before its time is up, and a handler may take no lock. So the
interpreter itself writes to a socket when a signal comes, and whoever waits for that one sleeps as long as it likes.
"""

import select
import signal
import socket
from contextlib import suppress
from typing import Self


class Bell:
    """The bell. Within its `with` it hears signals (the main thread's only); outside, ringing it does nothing."""

    def __init__(self) -> None:
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> Self:
        self._ends = ear, rope = socket.socketpair()
        for end in (ear, rope):
            end.setblocking(False)
        signal.set_wakeup_fd(rope.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        ends, self._ends = self._ends, None
        for end in ends or ():
            end.close()

    def ring(self) -> None:
        """Wake who waits; from any thread."""
        if ends := self._ends:
            with suppress(OSError):  # it is ringing already
                ends[1].send(b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or for so many seconds."""
        assert self._ends
        ear, _ = self._ends
        if select.select([ear], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                ear.recv(4096)
