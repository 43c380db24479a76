"""When the battery will be empty, by what the pictures of the last days say of it.

A solar panel charges by day, so that a battery rises and falls however it is on the whole. Two readings that are whole days
apart saw the same sun: what lies between them is the trend. The median of all such pairs is taken (the estimator of Theil
and Sen); and it counts from the low of the last day, for that is when it will end, in the
early morning. Where the pairs do not agree that it falls, nothing is said.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import median_low, quantiles

_DAY = 86400.0
_SAME_HOUR = 2700.0  # seconds by which two readings of one time of day may be apart
_AROUND = 9000.0  # seconds before and after a reading, in which a battery changes little
_ENOUGH = 10  # pairs: of a reading an hour after a day and a half, of one a day after five days
_LEAST = 0.5  # per cent a day, below which nobody can tell
_OTHER_BATTERY = 25.0  # per cent up from one reading to the next, an hour later as a rule: no sun does that

Reading = tuple[float, float]  # unix seconds, per cent


def days_until_empty(readings: Sequence[Reading], now: float) -> float | None:
    """In how many days the battery is empty, by its readings in their order; None if that is not known."""
    known = _of_this_battery(_without_bad_ones(readings))
    today, falls = [level for at, level in known if at > now - _DAY], _falls(known)
    return round(min(today) / falls, 1) if today and falls else None


def _without_bad_ones(readings: Sequence[Reading]) -> list[Reading]:
    """Each reading as the middle one of those around it, if there are such: a single bad one never is."""
    around = (
        [level for then, level in readings[max(0, number - 2) : number + 3] if abs(then - at) <= _AROUND]
        for number, (at, _) in enumerate(readings)
    )
    return [(at, median_low(levels)) for (at, _), levels in zip(readings, around, strict=True)]


def _falls(readings: Sequence[Reading]) -> float | None:
    """By how many per cent a day; None if that is not known, or it does not."""
    changes = []
    for (earlier, before), (later, after) in combinations(readings, 2):
        days = round((later - earlier) / _DAY)
        if days and abs(later - earlier - days * _DAY) <= _SAME_HOUR:
            changes.append((after - before) / days)
    if len(changes) < _ENOUGH:
        return None
    _, median, most = quantiles(changes, n=4)
    return -median if most < 0 and median <= -_LEAST else None


def _of_this_battery(readings: Sequence[Reading]) -> Sequence[Reading]:
    """The readings since the battery was changed, or charged from a socket."""
    changed = [
        number
        for number, ((_, before), (_, after)) in enumerate(pairwise(readings), start=1)
        if after - before > _OTHER_BATTERY
    ]
    return readings[changed[-1] :] if changed else readings
