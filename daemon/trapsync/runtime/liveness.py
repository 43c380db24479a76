"""Signs of life, by which the daemon knows that each of its parts is still at work."""

from trapsync.clock import Clock


class Board:
    """Signs of life: each part of the daemon reports, and must do so again within its own limit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}

    def beat(self, part: str, within: float) -> None:
        """This part lives, and will say so again within so many seconds."""
        self._due[part] = self._clock.monotonic() + within

    def rest(self, part: str) -> None:
        """This part has nothing to do and owes no sign of life."""
        self._due.pop(part, None)

    def overdue(self) -> list[str]:
        """The parts that fell silent."""
        now = self._clock.monotonic()
        return [part for part, due in list(self._due.items()) if due < now]
