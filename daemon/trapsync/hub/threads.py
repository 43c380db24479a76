"""The threads that answer requests: two take pictures, four answer other programs, and two browsers.

So nobody's long question, and no viewer, takes the thread that a trap waits for. More than two would take no picture sooner:
the disk and the examiner serve one at a time, and threads that wait for one another cost a fifth of the CPU. While pictures
come in, those for browsers rest after each answer many times as long as it took: Python runs one thread at a time, and
small copies are made by the process that looks at uploads.
"""

import threading
from typing import Protocol

from waitress.task import ThreadedTaskDispatcher

from trapsync.clock import Clock

_PICTURES, _PROGRAMS, _BROWSERS = 2, 4, 2
_REST, _LONGEST_REST = 24, 2.0  # times the answer; seconds
_LOOK = 0.02  # seconds between two looks whether pictures still come
_STILL = 0.5  # seconds after the last one


class Connection(Protocol):
    """What is answered."""

    asks_for_page: bool
    sends_picture: bool

    def service(self) -> None:
        """Answer its request."""

    def cancel(self) -> None:
        """Do not: the hub ends."""


class Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """The threads of one hub."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._pictures = float("-inf")  # when one last came, on the monotonic clock
        self._ends = threading.Event()
        self._takers, self._pages = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self._takers.set_thread_count(_PICTURES)
        self.set_thread_count(_PROGRAMS)
        self._pages.set_thread_count(_BROWSERS)

    def note_picture(self) -> None:
        """One is being received, or has been."""
        self._pictures = self._clock.monotonic()

    def add_task(self, task: Connection) -> None:
        """Have a request answered."""
        if task.asks_for_page:
            self._pages.add_task(_Page(task, self))
        elif task.sends_picture:
            self._takers.add_task(task)
        else:
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:
        """End; the requests under way have so many seconds."""
        self._ends.set()
        for others in (self._pages, self._takers):
            others.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))

    def answer_page(self, task: Connection) -> None:
        """Answer, and rest while pictures come in."""
        begun = self._clock.monotonic()
        task.service()
        rest = min(_REST * (self._clock.monotonic() - begun), _LONGEST_REST)
        for _ in range(int(rest / _LOOK)):
            if self._clock.monotonic() > self._pictures + _STILL or self._ends.wait(_LOOK):
                return


class _Page:
    """A request of a browser."""

    def __init__(self, task: Connection, threads: Threads) -> None:
        self._task = task
        self._threads = threads

    def service(self) -> None:
        """Answer it."""
        self._threads.answer_page(self._task)

    def cancel(self) -> None:
        """Do not."""
        self._task.cancel()
