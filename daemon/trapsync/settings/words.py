"""Numbers, spans and moments in words for people: `1 image`, `5 min`, `21:00 (in 3 h)`."""

from datetime import datetime, tzinfo

_YEAR = 366 * 86400.0  # seconds
_TODAY = 20 * 3600  # seconds ahead or ago in which a time of day says which day it is
_THIS_YEAR = 300 * 86400  # and in which a day of a month says which year


def count(n: int, noun: str) -> str:
    """A number with its noun: `1 image`, `2 images`, `2 copies`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("y") else f"{n} {noun}s"


def age(seconds: float) -> str:
    """A span of time: `5 min`."""
    if seconds > _YEAR:
        return "more than a year"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def days_of(days: float) -> str:
    """A span of days: `2.5 days`."""
    if days * 86400 > _YEAR:
        return "more than a year"
    return f"{days:.0f} days" if days >= 10 else f"{days:g} {'day' if days == 1 else 'days'}"


def when(at: str, now: str, timezone: tzinfo | None) -> str:
    """A moment as a status has it, in that zone, beside another: `12:13 (4 s ago)`, `Sat 28 Nov 12:13 (2 days ago)`."""
    moment = datetime.fromisoformat(at)
    left = (moment - datetime.fromisoformat(now)).total_seconds()
    far = age(abs(left))
    return f"{_short(moment, left, timezone)} ({f'in {far}' if left > 0 else f'{far} ago'})"


def _short(moment: datetime, left: float, timezone: tzinfo | None) -> str:
    days = "%a %d %b" if abs(left) < _THIS_YEAR else "%d %b %Y"
    return f"{moment.astimezone(timezone):{'%H:%M' if abs(left) < _TODAY else f'{days} %H:%M'}}"


def full(at: str | None, timezone: tzinfo | None, missing: str = "unknown") -> str:
    """A moment as a status has it, in that zone, with its day and second."""
    return f"{datetime.fromisoformat(at).astimezone(timezone):%Y-%m-%d %H:%M:%S}" if at else missing
