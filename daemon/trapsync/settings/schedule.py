"""When to take a picture: daily windows, by the clock on the wall or by the sun.

A window is written `"21:00 - 05:30"`, `"sunset - sunrise"` or `"sunset-30min - sunrise+1h"`; it may
run over midnight. No window at all means day and night. The cadence inside a window belongs to the
service's monotonic clock; this module only says whether the trap is awake.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_EDGE = re.compile(
    r"(?:(?P<clock>([01]\d|2[0-3]):[0-5]\d)|(?P<sun>sunrise|sunset)((?P<sign>[+-])(?P<shift>\d+)(?P<unit>min|h))?)"
)

_LONGEST_SHIFT = 12 * 60  # minutes: beyond, it is another day's sunrise that is meant


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a window: a local time of day, or an offset from sunrise or sunset."""

    clock: time | None = None
    sun: str = ""
    shift: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trap hangs (degrees WGS84), and its civil time zone."""

    latitude: float
    longitude: float
    timezone: ZoneInfo


def parse_window(text: str) -> tuple[Edge, Edge]:
    """Read a window; ValueError says how one is written."""
    begin, separator, end = text.partition(" - ")
    if not separator:
        raise ValueError(f'{text!r} is not a window; write "21:00 - 05:30" or "sunset-30min - sunrise"')
    return _parse_edge(begin.strip(), text), _parse_edge(end.strip(), text)


def _parse_edge(edge: str, text: str) -> Edge:
    match = _EDGE.fullmatch(edge)
    if match is None:
        raise ValueError(f'{edge!r} in {text!r} is neither a time like "21:00" nor "sunset-30min"')
    if match["clock"]:
        return Edge(clock=time.fromisoformat(match["clock"]))
    minutes = int((match["shift"] or "0")[:6]) * (60 if match["unit"] == "h" else 1)
    if minutes > _LONGEST_SHIFT:
        raise ValueError(f'{edge!r} in {text!r} is more than 12 h from the sun; write a time like "21:00"')
    return Edge(sun=match["sun"], shift=timedelta(minutes=-minutes if match["sign"] == "-" else minutes))


def needs_place(windows: Iterable[str]) -> bool:
    """Whether any window goes by the sun, so that the trap's place must be known."""
    return any(edge.sun for window in windows for edge in parse_window(window))


def is_open(windows: Sequence[str], place: Place, now: datetime) -> bool:
    """Whether `now` (with a time zone) lies in one of the windows."""
    return not windows or any(_holds(*parse_window(window), place, now) for window in windows)


def open_fraction(windows: Sequence[str], place: Place, now: datetime) -> float:
    """Which part of the coming 24 hours is open, to a quarter of an hour: for days of disk left."""
    quarters = [now + timedelta(minutes=15 * n) for n in range(96)]
    return sum(is_open(windows, place, quarter) for quarter in quarters) / len(quarters)


def _holds(begin: Edge, end: Edge, place: Place, now: datetime) -> bool:
    """Look at the window that began today, yesterday or (east of Greenwich, by the sun) tomorrow."""
    today = now.astimezone(place.timezone).date()
    days = [today + timedelta(days=n) for n in (-1, 0, 1, 2)]
    opening = [at for day in days if (at := _moment(begin, day, place))]
    closing = [at for day in days if (at := _moment(end, day, place))]
    # The sun that neither rises nor sets leaves no edge to go by: rather a picture too many.
    if len(opening) + len(closing) < 2 * len(days):
        return True
    windows = zip(opening, closing, closing[1:], strict=False)
    return any(opened <= now < (closed if closed > opened else over) for opened, closed, over in windows)


def _moment(edge: Edge, day: date, place: Place) -> datetime | None:
    """The edge's moment on that day; None on a day when the sun does not do that."""
    if edge.clock is not None:
        return datetime.combine(day, edge.clock, place.timezone)
    from astral import Observer
    from astral.sun import sunrise, sunset

    event = sunrise if edge.sun == "sunrise" else sunset
    try:
        at: datetime = event(Observer(place.latitude, place.longitude), day, tzinfo=place.timezone)
    except ValueError:  # polar day or night
        return None
    return at + edge.shift
