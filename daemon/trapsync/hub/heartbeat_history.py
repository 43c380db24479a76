"""How long the hub keeps heartbeats: all of two days, then the first of each hour, after ninety days the first of each day.

So a season can be drawn, and a trap takes some 3 MB in its first year and 0.4 in each that follows, at a heartbeat in a
quarter of an hour. Times are those of this machine, in unix seconds.
"""

import sqlite3

from trapsync.clock import Clock

DAY = 86400.0
_ALL, _HOURLY = 2 * DAY, 90 * DAY
# Heartbeats that are kept of two days, however many come: of a trap that calls once a minute, all.
MOST = 3000
_LOOK_AFTER = 500  # heartbeats, or a new day: looked through is what one trap has, some thousand rows


def kept_every(age: float) -> float:
    """Seconds between two heartbeats that are kept of what is so many seconds old; 0 where all are."""
    return 0.0 if age <= _ALL else 3600.0 if age <= _HOURLY else DAY


class Thinning:
    """Removes what is kept no longer, trap by trap."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, int] = {}  # heartbeats since the last look
        self._looked: dict[str, float] = {}  # the day of it

    def added(self, connection: sqlite3.Connection, device: str) -> None:
        """A heartbeat was added, in this transaction."""
        self._since[device] = self._since.get(device, 0) + 1
        today = self._clock.wall() // DAY
        if self._looked.get(device) != today or self._since[device] >= _LOOK_AFTER:
            self._since[device], self._looked[device] = 0, today
            thin(connection, device, self._clock.wall())


def thin(connection: sqlite3.Connection, device: str, now: float) -> None:
    """Remove of one trap what is kept no longer."""
    connection.execute(
        """DELETE FROM heartbeats WHERE id IN (SELECT id FROM (
               SELECT id, row_number() OVER (PARTITION BY received < :old,
                   CAST(received / iif(received < :old, 86400, 3600) AS INTEGER) ORDER BY id) AS number
               FROM heartbeats WHERE device = :device AND (received < :recent OR id <= coalesce(
                   (SELECT id FROM heartbeats WHERE device = :device ORDER BY id DESC LIMIT 1 OFFSET :most), -1)))
           WHERE number > 1)""",
        {"device": device, "old": now - _HOURLY, "recent": now - _ALL, "most": MOST},
    )
