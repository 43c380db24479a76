"""When to call the hub: by chance within bounds, so that five hundred traps never call together."""

import random

from trapsync.clock import Clock
from trapsync.net import backoff

FIRST = 900.0  # seconds within which a trap calls after its start: a valley's traps start together
_LONGEST_WAIT = 6 * 3600.0  # seconds
_SOON = 60.0  # seconds within which news is sent


class CallTimer:
    """Says when the next call is due. Runs on the monotonic clock.

    After the start, within a quarter of an hour (or one interval); then every interval, give or take a tenth.
    After a failure within one interval, the next within two, then four: never sooner on average than without
    failures, for traps that come back together overload a server.
    """

    def __init__(self, every: float, clock: Clock) -> None:
        self._every = every
        self._clock = clock
        self._failures = 0
        self._last = clock.monotonic() - every  # when it last called, or so that news may go at once
        self._due = clock.monotonic() + random.uniform(0, min(every, FIRST))  # noqa: S311 - spread

    @property
    def due(self) -> float:
        """The moment of the next call, on the monotonic clock."""
        return self._due

    def is_due(self) -> bool:
        """Whether it is time to call."""
        return self._clock.monotonic() >= self._due

    def succeeded(self) -> None:
        """Note a call that succeeded."""
        self._failures = 0
        self._next(self._every * random.uniform(0.9, 1.1))  # noqa: S311 - spread, not secrecy

    def failed(self, wait: float = 0.0) -> None:
        """Note a call that failed; `wait` is how long the hub asked to stay away, which it asked the others too.

        It is heeded for some hours at the most: one that was taken over may not silence its traps.
        """
        self._failures += 1
        self._next(
            min(wait, _LONGEST_WAIT)
            + backoff.wait(self._failures, first=self._every, longest=4 * self._every)
        )

    def hasten(self) -> None:
        """Call within a minute, for there is news; no more than three times in an interval for what changes often.

        After a failure it changes nothing: the hub is unreachable, or overloaded.
        """
        if not self._failures:
            soon = self._clock.monotonic() + random.uniform(0, min(_SOON, self._every))  # noqa: S311
            self._due = min(self._due, max(soon, self._last + self._every / 3))

    def call_now(self) -> None:
        """Make the next call due at once."""
        self._due = self._clock.monotonic()

    def _next(self, seconds: float) -> None:
        self._last = self._clock.monotonic()
        self._due = self._last + seconds
