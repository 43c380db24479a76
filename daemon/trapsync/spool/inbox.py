"""The one queue of files to look at: the observer's hints and the sweep's finds, each path once."""

import math
import threading
from collections.abc import Iterable

from trapsync.clock import Clock

BATCH = 32  # files that are examined and committed together


class Inbox:
    """A queue of paths without duplicates, filled from any thread and emptied by one.

    Bounded: beyond `most` paths further ones are not kept; `overflowed` says that a sweep is due again.
    """

    def __init__(self, clock: Clock, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._due: dict[str, float] = {}
        self._overflowed = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, path: str) -> None:
        """Look at this file as soon as may be."""
        self.put_later(path, 0.0)

    def put_later(self, path: str, seconds: float) -> None:
        """Look at this file in so many seconds, or sooner if it was put for sooner."""
        due = self._clock.monotonic() + seconds
        with self._changed:
            if path in self._due or len(self._due) < self._most:
                self._due[path] = min(due, self._due.get(path, due))
                self._changed.notify()
            else:
                self._overflowed = True

    def overflowed(self) -> bool:
        """Whether paths had to be left out since this was last asked."""
        overflowed, self._overflowed = self._overflowed, False
        return overflowed

    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._due

    def take(self, most: int = BATCH) -> list[str]:
        """Up to `most` paths that are due, in the order in which they came; they leave the inbox."""
        now = self._clock.monotonic()
        with self._changed:
            paths = _first(most, (path for path, due in self._due.items() if due <= now))
            for path in paths:
                del self._due[path]
            return paths

    def wait(self, seconds: float) -> None:
        """Wait until something is put or due, for so many seconds at most; not at all once it is closed."""
        with self._changed:
            due = min(self._due.values(), default=math.inf) - self._clock.monotonic()
            if not self._closed and due > 0:
                self._changed.wait(min(seconds, due))

    def close(self) -> None:
        """Wake whoever waits, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _first(most: int, paths: Iterable[str]) -> list[str]:
    return [path for _, path in zip(range(most), paths, strict=False)]
