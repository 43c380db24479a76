"""Liveness: whether each part of the daemon has reported within its own limit."""

from trapsync.clock import Clock


class Liveness:
    """When each part of the daemon has to report again, at the latest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}

    def report(self, part: str, within: float) -> None:
        """Note that this part works, and will report again within so many seconds."""
        self._due[part] = self._clock.monotonic() + within

    def finish(self, part: str) -> None:
        """Note that this part has nothing to do, and need not report until it begins again."""
        self._due.pop(part, None)

    def overdue(self) -> list[str]:
        """Return the parts that have not reported in time."""
        now = self._clock.monotonic()
        return [part for part, due in list(self._due.items()) if due < now]
