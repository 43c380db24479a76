"""When to take a picture: daily windows, by the clock on the wall or by the sun.

A window is written `"21:00 - 05:30"`, `"sunset - sunrise"` or `"sunset-30min - sunrise+1h"`; it may
run over midnight. No window at all means day and night. What is asked here is answered from the windows of a week, which
are found once and kept (`windows.between`). Moments are unix seconds by the wall clock; the interval inside a window
belongs to the capture thread.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import time, timedelta
from functools import lru_cache

from trapsync.settings.windows import Edge, Place, Window, between

__all__ = ["Edge", "Place", "Window", "parse_window"]

_EDGE = re.compile(
    r"(?:(?P<clock>([01]\d|2[0-3]):[0-5]\d)|(?P<sun>sunrise|sunset)((?P<sign>[+-])(?P<shift>\d+)(?P<unit>min|h))?)"
)

_LONGEST_SHIFT = 12 * 60  # minutes: beyond, it is another day's sunrise that is meant
_DAY = 86400
_WEEK = 7 * _DAY
_YEAR = 370  # days: what does not open within them never does
_LONGEST_NIGHTS = (1_782_000_000, 1_797_800_000)  # unix seconds: the solstices of June and December 2026
ALWAYS = Window(-math.inf, math.inf)


def parse_window(text: str) -> tuple[Edge, Edge]:
    """Read a window; ValueError says how one is written."""
    begin, separator, end = text.partition(" - ")
    if not separator:
        raise ValueError(f'{text!r} is not a window; write "21:00 - 05:30" or "sunset-30min - sunrise"')
    edges = _parse_edge(begin.strip(), text), _parse_edge(end.strip(), text)
    if edges[0] == edges[1]:
        raise ValueError(
            f'{text!r} ends when it begins, so no picture is taken in it; write "21:00 - 05:30", '
            "or no window at all for day and night"
        )
    return edges


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


def open_at(windows: Sequence[str], place: Place, at: float) -> list[Window]:
    """The windows that are open at that moment."""
    if not windows:
        return [ALWAYS]
    return [one for one in _around(windows, place, at) if one.begin <= at < one.end]


def openings(windows: Sequence[str], place: Place, since: float, until: float) -> list[Window]:
    """The windows that are open at any moment of a span, in order; each in one piece, however long it is.

    One that opened more than a week before, or closes more than a week after, has no begin or end here.
    """
    if not windows:
        return [ALWAYS]
    first, last = int(since // _WEEK) - 1, int(until // _WEEK) + 1
    found = {piece for text in windows for piece in _pieces(text, place, range(first, last + 1))}
    return sorted(one for one in found if one.begin < until and one.end > since)


def _pieces(text: str, place: Place, weeks: range) -> Iterator[Window]:
    """The openings of one window, each put together again of what the weeks cut it into."""
    begin, end = weeks.start * _WEEK, weeks.stop * _WEEK
    left: Window | None = None
    for week in weeks:
        since, until = week * _WEEK, (week + 1) * _WEEK
        for one in _around((text,), place, since):
            if one.end <= since or one.begin >= until:
                continue
            piece = Window(max(one.begin, since), min(one.end, until))
            if left and left.end == piece.begin == since:
                piece = Window(left.begin, piece.end)
            elif left:
                yield left
            left = piece
    if left:
        yield Window(
            -math.inf if left.begin == begin else left.begin, math.inf if left.end == end else left.end
        )


def next_opening(windows: Sequence[str], place: Place, at: float, days: int = _YEAR) -> float | None:
    """When a window opens next after that moment, be others open or not; None if none does in so many days."""
    if not windows:
        return None
    for week in range(days // 7 + 2):
        later = [one.begin for one in _around(windows, place, at + week * _WEEK) if one.begin > at]
        if later:
            return min(later)
    return None


def last_opened(windows: Sequence[str], place: Place, at: float, days: int = _YEAR) -> Window | None:
    """The latest time that was open by that moment, up to that moment; windows that overlap are put together.

    None if there was none in so many days.
    """
    if not windows:
        return Window(-math.inf, at)
    begun: list[Window] = []
    for week in range(days // 7 + 2):
        begun = [one for one in _around(windows, place, at - week * _WEEK) if one.begin <= at]
        if begun:
            break
    if not begun:
        return None
    end = max(one.end for one in begun)
    begin = max(begun, key=lambda one: one.end).begin
    for one in sorted(begun, reverse=True):
        if one.end >= begin:
            begin = min(begin, one.begin)
    return Window(begin, min(end, at))


def closes(windows: Sequence[str], place: Place, at: float) -> float:
    """When what is open at that moment is closed; inf where that is days away."""
    end = at
    while (now := open_at(windows, place, end)) and end < at + 2 * _DAY:
        end = max(one.end for one in now)
    return end if end < at + 2 * _DAY else math.inf


def seconds_open(windows: Sequence[str], place: Place, at: float) -> float:
    """How many seconds of the coming 24 hours are open."""
    if not windows:
        return float(_DAY)
    seconds, until = 0.0, at
    for one in sorted(_of_coming_day(windows, place, at)):
        begin, end = max(one.begin, until), min(one.end, at + _DAY)
        seconds += max(0.0, end - begin)
        until = max(until, end)
    return seconds


def pictures_a_day(windows: Sequence[str], place: Place, at: float, every: float) -> float:
    """How many pictures the coming 24 hours bring: one as a window opens, and one per interval from there."""
    by_interval = seconds_open(windows, place, at) / every
    found = _of_coming_day(windows, place, at)
    opening = (min(one.end - one.begin, _DAY) for one in found if at <= one.begin < at + _DAY)
    return max(by_interval, sum(math.ceil(length / every) for length in opening))


def never_open(windows: Sequence[str], place: Place) -> str:
    """The first window that opens on no day of the year at that place, as the sun is never that long up or down; or ""."""
    nights = ((window, _around((window,), place, at)) for window in windows for at in _LONGEST_NIGHTS)
    ever = {window for window, found in nights if found}
    return next((window for window in windows if window not in ever), "")


def _of_coming_day(windows: Sequence[str], place: Place, at: float) -> set[Window]:
    """The windows that are open at any moment of the coming 24 hours, and some that are not."""
    return {one for moment in (at, at + _DAY) for one in _around(windows, place, moment)}


def _around(windows: Sequence[str], place: Place, at: float) -> tuple[Window, ...]:
    """The windows that are open at any moment of that week, of the day before it or the day after, by their begin."""
    return _of_week(tuple(windows), place, int(at // _WEEK))


@lru_cache(maxsize=32)
def _of_week(windows: tuple[str, ...], place: Place, week: int) -> tuple[Window, ...]:
    since, until = week * _WEEK - _DAY, (week + 1) * _WEEK + _DAY
    found = {one for text in windows for one in between(*parse_window(text), place, since, until)}
    return tuple(sorted(found))
