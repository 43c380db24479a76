"""Nights: from noon to noon by the clocks of the people at the trap's place.

What is taken in one night belongs together, and its evening gives it its date.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

_NOON = time(12)
# Beyond these the noons before and after, in some time zone, would be outside of what a date can be. A name may
# say the year 9999: it shares a night with whatever else is that late.
_FIRST = datetime(1, 1, 4, tzinfo=UTC)
_LAST = datetime(9999, 12, 28, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Night:
    """The night that begins on this date, in this time zone."""

    evening: date
    zone: tzinfo

    @property
    def since(self) -> float:
        """Its first noon, in unix seconds."""
        return datetime.combine(self.evening, _NOON, self.zone).timestamp()

    @property
    def until(self) -> float:
        """The noon after it, in unix seconds: the first moment that is not in it."""
        return datetime.combine(self.evening + timedelta(days=1), _NOON, self.zone).timestamp()

    def __str__(self) -> str:
        return self.evening.isoformat()


def night_of(taken: datetime, zone: tzinfo) -> Night:
    """The night of a moment (with a time zone of its own) at a place in `zone`."""
    local = min(max(taken, _FIRST), _LAST).astimezone(zone)
    return Night(local.date() - timedelta(days=local.time() < _NOON), zone)
