"""The daily summary: how the traps are, what each took last night, and the newest picture of it."""

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from trapsync.clock import Clock, iso
from trapsync.hub.alerts.changes import DIGEST, Changes
from trapsync.hub.alerts.texts import local
from trapsync.hub.database import Database
from trapsync.net.judgement import Trap, summary
from trapsync.settings.alerts import Alerts
from trapsync.settings.words import count

log = logging.getLogger(__name__)

_MOST_LINES = 20
_NONE_YET = "-"

# The id of the newest image of these devices since a moment, UTC text; None if there is none.
Newest = Callable[[list[str], str], int | None]


class Digest:
    """Adds the summary to what is told, once a day."""

    def __init__(
        self, database: Database, clock: Clock, settings: Alerts, changes: Changes, newest: Newest
    ) -> None:
        self._database = database
        self._clock = clock
        self._due = settings.digest_time()
        self._zone = settings.zone()
        self._changes = changes
        self._newest = newest

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
        picture = self._picture(traps, night) if traps else None
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO alert_clock (id, digest) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET digest = "
                "excluded.digest",
                (today,),
            )
            if traps:
                self._changes.add(DIGEST, words(traps, night), picture, connection)

    def _picture(self, traps: list[Trap], night: date) -> int | None:
        since = datetime.combine(night, time(12), self._zone).astimezone(UTC)
        return self._newest([trap.device for trap in traps], iso(since))


def words(traps: list[Trap], night: date) -> str:
    """The text of the summary; the first line says it in short. `night` is the date of last evening."""
    parts = [summary(traps)]
    bad = [
        f"{trap.name}: {trap.verdict}: {'; '.join(trap.reasons[:2]) or 'it does not say why'}"
        for trap in traps
        if trap.verdict != "ok"
    ]
    if bad:
        parts.append(_lines("", bad))
    reports = [trap for trap in traps if trap.beat.last_night and trap.beat.last_night.night == str(night)]
    if reports:
        parts.append(_lines("Last night:\n", [_night(trap) for trap in sorted(reports, key=_share)]))
    if len(traps) > len(reports):
        parts.append(f"No report of last night from {count(len(traps) - len(reports), 'trap')}.")
    return "\n\n".join(parts)


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
