"""Nights and local time: from noon to noon in the zone of a trap, each night named by the date of its evening."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from trapsync.clock import iso
from trapsync.net.reports import Deployment

_YEARS = range(1970, 2200)  # of nights; in any other no trap stood
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HALF_A_DAY = timedelta(hours=12)
_FAR = datetime(_YEARS[-1], 1, 1, tzinfo=UTC)


class LocalTime(NamedTuple):
    """The zone of a trap's local time. `is_known`: the trap reported it; else it is UTC."""

    zone: ZoneInfo
    is_known: bool

    def night_of(self, moment: datetime) -> date:
        """The date of the evening of the night in which a moment lies."""
        return (moment.astimezone(self.zone).replace(tzinfo=None) - _HALF_A_DAY).date()

    def span_of(self, night: date) -> "Span":
        """A night from its beginning to its end."""
        noons = (datetime.combine(day, time(12), self.zone) for day in (night, night + timedelta(days=1)))
        return Span(*(noon.astimezone(UTC) for noon in noons))


class Span(NamedTuple):
    """From a moment on and before another, both in UTC."""

    since: datetime
    until: datetime

    @classmethod
    def of_deployment(cls, deployment: Deployment) -> "Span":
        """The time of a deployment; of one that goes on, without an end."""
        return cls(deployment.began.astimezone(UTC), (deployment.ended or _FAR).astimezone(UTC))

    def parts(self, number: int) -> list["Span"]:
        """The same in so many parts of equal length."""
        step = (self.until - self.since) / number
        bounds = [self.since + step * at for at in range(number)]
        return [Span(*pair) for pair in zip(bounds, [*bounds[1:], self.until], strict=True)]

    def stored(self) -> tuple[str, str]:
        """Both ends as the database has them in `images.datetime`."""
        return stored(self.since), stored(self.until)


def stored(moment: datetime) -> str:
    """A moment as the database has it in `images.datetime`: UTC, to the second, so that text order is time order."""
    return iso(moment)


def read_night(text: str) -> date | None:
    """The night that a text names, `2026-06-21`; None for what is no date, or of a year in which no trap stood."""
    try:
        night = date.fromisoformat(text) if _NIGHT.fullmatch(text) else None
    except ValueError:
        return None
    return night if night and night.year in _YEARS else None
