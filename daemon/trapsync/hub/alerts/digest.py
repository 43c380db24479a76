"""The daily summary: how the traps are, the pictures of last night, and the newest one of them.

A trap reports a night when it is over, at noon. So the summary of a morning has the number of pictures of last night that
the hub holds by then, and the reports of the night before.
"""

from collections.abc import Mapping
from datetime import date, timedelta

from trapsync.clock import Clock
from trapsync.errors import one_line
from trapsync.hub.alerts.changes import DIGEST, Changes
from trapsync.hub.alerts.texts import local
from trapsync.hub.database import Database
from trapsync.hub.nights import LocalTime
from trapsync.hub.store import Store
from trapsync.net.judgement import Trap, summary
from trapsync.settings.alerts import Alerts
from trapsync.settings.words import count

_MOST_LINES = 20
_LONGEST_LINE = 120  # characters
_NONE_YET = "-"


class Digest:
    """Adds the summary to what is told, once a day."""

    def __init__(
        self, database: Database, clock: Clock, settings: Alerts, changes: Changes, store: Store
    ) -> None:
        self._database = database
        self._clock = clock
        self._due = settings.digest_time()
        self._zone = settings.zone()
        self._changes = changes
        self._store = store

    def turn(self, traps: list[Trap]) -> bool:
        """Add the summary if it is time for it; whether it was added."""
        if self._due is None:
            return False
        now = local(self._clock.wall(), self._zone)
        is_due = now.time() >= self._due
        last, today = self._last(), now.date().isoformat()
        if last is None:  # the first turn of all: that of today is not made up for
            self._note(today if is_due else _NONE_YET)
        if last is None or not is_due or last == today:
            return False
        self._note(today, traps, now.date() - timedelta(days=1))
        return True

    def _last(self) -> str | None:
        """The date of the last summary."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT digest FROM alert_clock").fetchone()
        return row["digest"] if row else None

    def _note(self, today: str, traps: list[Trap] | None = None, night: date = date.min) -> None:
        """Note the summary of today, and in the same transaction add it."""
        text, picture = self._composed(traps, night) if traps else ("", None)
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO alert_clock (id, digest) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET digest = "
                "excluded.digest",
                (today,),
            )
            if traps:
                self._changes.add(DIGEST, text, picture, connection)

    def _composed(self, traps: list[Trap], night: date) -> tuple[str, int | None]:
        """The text, and the id of the picture."""
        span = LocalTime(self._zone, True).span_of(night).stored()
        devices = [trap.device for trap in traps]
        return words(traps, self._store.counts(devices, *span), night), self._store.newest(devices, *span)


def words(traps: list[Trap], pictures: Mapping[str, int], night: date) -> str:
    """The text of the summary; the first line says it in short.

    `night` is the date of last evening; `pictures`: of each device, how many of that night are here.
    """
    parts = [summary(traps)]
    bad = [trap for trap in traps if trap.verdict != "ok"]
    if bad:
        parts.append(_lines("", [_trouble(trap) for trap in bad]))
    if any(pictures.values()):
        fewest = sorted(traps, key=lambda trap: pictures[trap.device])
        lines = [f"{trap.name}: {pictures[trap.device]}" for trap in fewest]
        parts.append(_lines("Pictures of last night that are here:\n", lines))
    else:
        parts.append("No picture of last night is here.")
    parts += _nights(traps, night)
    return "\n\n".join(parts)


def _trouble(trap: Trap) -> str:
    reasons = "; ".join(trap.reasons[:2]) or "it does not say why"
    return one_line(f"{trap.name}: {trap.verdict}: {reasons}", _LONGEST_LINE)


def _nights(traps: list[Trap], last: date) -> list[str]:
    """What was reported of the night before the last one; of that too, where it is after noon."""
    parts, silent = [], len(traps)
    for night in (last, last - timedelta(days=1)):
        reports = [
            trap for trap in traps if trap.beat.last_night and trap.beat.last_night.night == str(night)
        ]
        silent -= len(reports)
        if reports:
            lines = [_night(trap) for trap in sorted(reports, key=_share)]
            parts.append(_lines(f"Reports of the night of {night}:\n", lines))
    return parts + ([f"No report of these nights from {count(silent, 'trap')}."] if silent else [])


def _share(trap: Trap) -> float:
    found = trap.beat.last_night
    return found.taken / found.expected if found and found.expected else 1.0


def _night(trap: Trap) -> str:
    found = trap.beat.last_night
    assert found
    return f"{trap.name}: {found.taken} of {count(found.expected, 'expected picture')}"


def _lines(title: str, lines: list[str]) -> str:
    left = len(lines) - _MOST_LINES
    return title + "\n".join(lines[:_MOST_LINES] + ([f"and {left} more"] if left > 0 else []))
