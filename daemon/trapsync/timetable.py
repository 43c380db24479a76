"""When the scheduler's jobs run again."""

import random
from datetime import datetime, timedelta

from apscheduler.triggers.base import BaseTrigger

_SOON = 0.1  # seconds after the start until every job runs for the first time


class Every(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fire again so many seconds from now, give or take a tenth; never make up for missed times.

    APScheduler's own interval trigger enumerates every time it missed when the clock steps forward
    (3.4 s of CPU for ten days of seconds); after a suspend or a step one run is enough.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next time, from now; the very first comes soon."""
        seconds = self._seconds * random.uniform(0.9, 1.1)  # noqa: S311 - traps need not march in step
        return now + timedelta(seconds=seconds if previous else min(seconds, _SOON))
