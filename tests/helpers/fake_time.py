"""Time that passes only when somebody sleeps: no test waits."""

import threading


class FakeTime:
    """A clock and the sleep that moves it. Wall time starts at a moment that certificates would like."""

    def __init__(self, wall: float = 1_782_073_155.0, *, is_trusted: bool = True) -> None:
        self.slept: list[float] = []
        self.is_trusted = is_trusted
        self._lock = threading.Lock()
        self._monotonic = 1000.0
        self._boots = 0
        self._ahead = wall - self._monotonic

    def monotonic(self) -> float:
        """Seconds since boot."""
        return self._monotonic

    def wall(self) -> float:
        """Unix seconds."""
        return self._monotonic + self._ahead

    def boot_id(self) -> str:
        """The same until `reboot`."""
        return f"5b0c0d5e-0000-4000-8000-{self._boots:012d}"

    def reboot(self, uptime: float = 10.0) -> None:
        """Start the monotonic clock anew, so many seconds ago."""
        self._boots += 1
        self._ahead += self._monotonic - uptime
        self._monotonic = uptime

    def trusted(self) -> bool:
        """As the test wants it."""
        return self.is_trusted

    def trusted_by(self) -> str:
        """The test."""
        return "the test" if self.is_trusted else ""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass at once."""
        with self._lock:
            self.slept.append(seconds)
            self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock, as a time server does."""
        self._ahead += seconds
