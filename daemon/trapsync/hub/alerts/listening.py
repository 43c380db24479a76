"""For how long the hub could have heard the traps: since its start, if it was off for long, or since its clock was stepped.

A trap is silent by the hub's clock. After an outage of the hub, and after a step of its clock, all traps would be; and after
the hub stood still: a container that was paused, a disk that hung.
"""

from trapsync.clock import Clock
from trapsync.hub.database import Database

_SHORT = 300.0  # seconds without a turn in which no trap misses more than one heartbeat
_STOOD_STILL = 1200.0  # seconds from one turn to the next; the messages of a turn take 900 at the most
_STEP = 60.0  # seconds by which the wall clock and the monotonic one may go apart between two turns


class Listening:
    """Counts on while the hub runs; notes in the database when the last turn was, by the wall clock."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._wall, self._monotonic = clock.wall(), clock.monotonic()
        with database.reading() as connection:
            row = connection.execute("SELECT turn FROM alert_clock").fetchone()
        was_off = self._wall - row["turn"] if row and row["turn"] is not None else None
        is_short = was_off is not None and 0 <= was_off <= _SHORT
        self._since = float("-inf") if is_short else self._monotonic

    def seconds(self) -> float:
        """For how long by now; infinite where the hub was off for a moment only."""
        return self._monotonic - self._since

    def turn(self) -> None:
        """A turn begins: look whether the clock was stepped since the last one, or the hub stood still."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        went_on = monotonic - self._monotonic
        ahead = wall - self._wall - went_on
        self._wall, self._monotonic = wall, monotonic
        if abs(ahead) > _STEP or went_on > _STOOD_STILL:
            self.restart()

    def restart(self) -> None:
        """Count anew: until now the hub took no heartbeat."""
        self._since = self._monotonic

    def note(self) -> None:
        """A turn is done."""
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO alert_clock (id, turn) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET turn = excluded.turn",
                (self._wall,),
            )
