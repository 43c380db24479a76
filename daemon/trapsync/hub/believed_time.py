"""What time it is, for who deletes by it: this machine's clock alone is not believed.

A clock that jumps into the future would make a season old in a second. So the time that counts is never later than a
day after the newest picture or night of any trap, by the trap's own clock: where nothing new comes, nothing ages. And
after a jump of this machine's clock nothing is deleted for a week in which the hub runs, so that somebody may notice.
What is remembered of the last look is a row of the database. Times are unix seconds.
"""

import logging
import sqlite3
from datetime import datetime
from typing import NamedTuple

from trapsync.clock import Clock, iso, utc
from trapsync.hub.database import Database
from trapsync.hub.holdings import Holdings

log = logging.getLogger(__name__)

DAY = 86400.0
LOOK_EVERY = 3600.0  # seconds
_FIRST_WAIT, _WAIT = DAY, 7 * DAY  # seconds that the hub runs
_MOST_DRIFT = 3600.0
_LONGEST_OFF = 31 * DAY  # that a hub may have been off; beyond it, its clock may as well have jumped


class _Look(NamedTuple):
    """What the clocks showed at a look, and for how many seconds nothing is deleted from then on."""

    boot: str
    monotonic: float
    wall: float
    wait: float


class BelievedTime:
    """The time of one hub. To be looked at every LOOK_EVERY seconds while it runs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._holdings = Holdings(database)
        self._clock = clock

    def look(self) -> float | None:
        """The time by which things are old; None while that is in doubt, which is told in the log."""
        with self._database.writing() as connection:
            before = _remembered(connection)
            now = _Look(self._clock.boot_id(), self._clock.monotonic(), self._clock.wall(), 0)
            now = now._replace(wait=_wait(before, now))
            connection.execute("INSERT OR REPLACE INTO looks VALUES (1, ?, ?, ?, ?)", now)
        newest = self._newest(utc(now.wall))
        return None if now.wait or newest is None else min(now.wall, newest + DAY)

    def _newest(self, now: datetime) -> float | None:
        """The newest time that a trap says of a picture or a night, of those that are over: one of a wrong clock is not."""
        images = self._holdings.newest(now).values()
        sql = "SELECT max(key) AS night FROM reports WHERE kind = 'night' AND key <= ?"
        nights = self._database.rows(sql, (str(now.date()),), 1)
        texts = [row["datetime"] for row in images] + [
            f"{row['night']}T00:00:00Z" for row in nights if row["night"]
        ]
        return datetime.fromisoformat(max(texts)).timestamp() if texts else None


def _remembered(connection: sqlite3.Connection) -> _Look | None:
    row = connection.execute("SELECT boot, monotonic, wall, wait FROM looks").fetchone()
    return _Look(*row) if row else None


def _wait(before: _Look | None, now: _Look) -> float:
    """For how many seconds nothing is deleted."""
    if before is None:
        return _FIRST_WAIT
    passed = now.wall - before.wall
    if now.boot != before.boot:
        is_believable, ran = -_MOST_DRIFT <= passed <= _LONGEST_OFF, 0.0
    else:
        ran = now.monotonic - before.monotonic
        is_believable = abs(passed - ran) <= _MOST_DRIFT
    if is_believable:
        return max(0.0, before.wait - ran)
    log.warning(
        "this machine's clock went from %s to %s at once: nothing that is old is deleted for %d days",
        iso(utc(before.wall)),
        iso(utc(now.wall)),
        _WAIT / DAY,
    )
    return _WAIT
