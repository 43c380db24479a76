"""A bandwidth limit that several transfers share."""

import threading
from collections.abc import Callable

# How far a transfer may run ahead of its rate after a pause, in seconds.
_BURST = 0.5


class Throttle:
    """A token bucket: a transfer that is about to move bytes waits here until the rate allows them.

    `rate` is in bytes per second, 0 for no limit. Waiting happens outside the lock, so that one
    transfer's wait does not keep the others from booking theirs.
    """

    def __init__(self, rate: float, monotonic: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.rate = rate
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._booked_until = float("-inf")

    def take(self, count: int) -> None:
        """Wait until `count` more bytes are within the rate."""
        if not self.rate:
            return
        with self._lock:
            now = self._monotonic()
            self._booked_until = max(self._booked_until, now - _BURST) + count / self.rate
            wait = self._booked_until - now
        if wait > 0:
            self._sleep(wait)

    def portion(self, most: int) -> int:
        """How many bytes to move at a time, so that the limit is felt as a flow and not as gusts."""
        return max(256, min(most, int(self.rate * _BURST))) if self.rate else most
