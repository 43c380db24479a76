"""The ping: a plain GET now and then of the address that a dead-man's service gave, which says that the hub works.

Such a service (healthchecks.io, say) tells people when no ping came for a while: the hub itself cannot.
"""

import logging
from collections.abc import Callable

from trapsync.clock import Clock
from trapsync.errors import TrapsyncError

log = logging.getLogger(__name__)

# Asks for an address, and raises TrapsyncError where the answer is none: see `net.ping`.
Ping = Callable[[str], object]


class Pings:
    """Pings one address. One thread uses it."""

    def __init__(self, url: str, every: float, clock: Clock, ping: Ping) -> None:
        self._url = url
        self._every = every
        self._clock = clock
        self._ping = ping
        self._last = float("-inf")
        self._is_failing = False

    def turn(self) -> None:
        """Ping, if it is time."""
        now = self._clock.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        reason = self._try()
        if reason and not self._is_failing:
            log.warning("the ping of the hub did not get through: %s", reason)
        elif self._is_failing and not reason:
            log.info("the ping of the hub gets through again")
        self._is_failing = bool(reason)

    def _try(self) -> str:
        """Why it did not get through; empty if it did."""
        try:
            self._ping(self._url)
        except TrapsyncError as error:
            return str(error)
        return ""
