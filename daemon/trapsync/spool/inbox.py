"""The queue of files that wait to be examined: hints of the observer and finds of the sweep, each path once."""

import math
import threading
from collections.abc import Iterable

from trapsync.clock import Clock

BATCH = 32  # files that are examined and committed together


class Inbox:
    """A queue of paths without duplicates, filled from any thread and emptied by one.

    Bounded: beyond `limit` paths further ones are not kept; `overflowed` says that another sweep is needed.
    """

    def __init__(self, clock: Clock, limit: int = 10_000) -> None:
        self._clock = clock
        self._limit = limit
        self._due: dict[str, float] = {}
        self._overflowed = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, path: str) -> None:
        """Add a file, to be examined as soon as possible."""
        self.put_later(path, 0.0)

    def put_later(self, path: str, seconds: float) -> None:
        """Add a file, to be examined in so many seconds, or sooner if it was put for sooner."""
        due = self._clock.monotonic() + seconds
        with self._changed:
            if path in self._due or len(self._due) < self._limit:
                self._due[path] = min(due, self._due.get(path, due))
                self._changed.notify()
            else:
                self._overflowed = True

    def overflowed(self) -> bool:
        """Whether paths had to be left out since the last call."""
        overflowed, self._overflowed = self._overflowed, False
        return overflowed

    def is_empty(self) -> bool:
        """Whether nothing is waiting."""
        return not self._due

    def take(self, limit: int = BATCH) -> list[str]:
        """Remove up to `limit` paths that are due and return them, in the order in which they came."""
        now = self._clock.monotonic()
        with self._changed:
            paths = _first(limit, (path for path, due in self._due.items() if due <= now))
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
        """End `wait`, now and for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _first(count: int, paths: Iterable[str]) -> list[str]:
    return [path for _, path in zip(range(count), paths, strict=False)]
