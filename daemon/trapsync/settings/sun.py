"""When the sun rises and sets at a place: one event after the other, whatever the calendar there says.

On some dates of a time zone the sun sets twice or not at all. So nothing here asks for the sunset *of a date*: each half
turn of the earth, from the sun's lowest to its highest point and back, holds one event or none.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import acos, pi, radians, sin
from typing import NamedTuple

# Degrees of the sun's middle, as in almanacs: its upper edge is at the horizon, with 34' of refraction and 16' of radius.
_LIMIT = -0.833
_SINE = sin(radians(_LIMIT))
_HALF_TURN = 43200.0  # seconds
_PER_DEGREE = 240.0  # seconds by which noon is earlier, a degree further east
_NEAR = 0.0001  # of the sine of its height from the limit, where an event is found: 0.006 degrees, 1.4 seconds or more
_STEPS = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Event(NamedTuple):
    """A sunrise, or else a sunset, in unix seconds."""

    at: float
    is_rise: bool


def events(latitude: float, longitude: float, begin: float, end: float) -> list[Event]:
    """Sunrises and sunsets from `begin` until `end` (unix seconds), in turns. None in polar day and night."""
    first = int((begin + longitude * _PER_DEGREE) // _HALF_TURN) - 1
    last = int((end + longitude * _PER_DEGREE) // _HALF_TURN) + 1
    found: Iterator[Event | None] = (_event(latitude, longitude, n) for n in range(first, last + 1))
    return [event for event in found if event and begin <= event.at < end]


@lru_cache(maxsize=1024)
def _event(latitude: float, longitude: float, number: int) -> Event | None:
    """The event within this half turn, if the sun is on one side of the limit at its begin and on the other at its end."""
    (early, before), (late, after) = (_turn(latitude, longitude, n) for n in (number, number + 1))
    if (before > 0) == (after > 0):
        return None
    # From turn to turn the sine of the height goes as a cosine: so the first guess is right to a minute, and Newton's
    # second or third to a second. Where the sun hardly rises or sets the halves of what is left take over.
    begin, length, middle, half = early, late - early, (before + after) / 2, (after - before) / 2
    at = begin + length * acos(middle / half) / pi
    for _ in range(_STEPS):
        above = _above(latitude, longitude, at)
        if abs(above) < _NEAR or late - early < 1:
            break
        early, late = (early, at) if (above > 0) == (after > 0) else (at, late)
        slope = half * sin(pi * (at - begin) / length) * pi / length
        at = at - above / slope if slope else early
        if not early < at < late:
            at = (early + late) / 2
    return Event(at, after > 0)


@lru_cache(maxsize=1024)
def _turn(latitude: float, longitude: float, number: int) -> tuple[float, float]:
    """The sun's lowest or highest point, at the begin of this half turn: when, and how far above the limit."""
    from astral.julian import julianday, julianday_to_juliancentury
    from astral.sun import eq_of_time

    mean = number * _HALF_TURN - longitude * _PER_DEGREE
    at = mean - 60 * eq_of_time(julianday_to_juliancentury(julianday(_moment(mean))))
    return at, _above(latitude, longitude, at)


def _above(latitude: float, longitude: float, at: float) -> float:
    """How far the sun is above the limit, by the sine of its height."""
    from astral import Observer
    from astral.sun import elevation

    height = elevation(Observer(latitude, longitude), _moment(at), with_refraction=False)
    return sin(radians(height)) - _SINE


def _moment(at: float) -> datetime:
    return _EPOCH + timedelta(seconds=at)
