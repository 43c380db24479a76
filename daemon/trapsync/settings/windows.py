"""The windows of a schedule: from when until when each is open, by the clock on the wall or by the sun.

Moments are unix seconds. A window that began before, or ends after, what was looked at has no begin or end here: -inf, inf.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from trapsync.settings import sun

_DAY = 86400.0
# What is looked at before and after: a window of two events, each moved by half a day, lies within it.
_MARGIN = 2.5 * _DAY
# From a sunrise to a sunset: longer is polar day; and from a sunset to a sunrise, polar night.
_NO_SUNSET = _DAY
_LEFT_OUT = 1.5 * _DAY  # from a sunset to the next: longer, and there was a day without one
_CHANGES = 3 * 3600  # seconds between two looks at the zone's offset


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a window: a local time of day, or an offset from sunrise or sunset."""

    clock: time | None = None
    sun: str = ""
    shift: timedelta = timedelta()

    @property
    def seconds(self) -> float:
        """The offset, or since midnight."""
        if self.clock is None:
            return self.shift.total_seconds()
        return self.clock.hour * 3600.0 + self.clock.minute * 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trap hangs (degrees WGS84), and its civil time zone."""

    latitude: float
    longitude: float
    timezone: ZoneInfo


class Window(NamedTuple):
    """One window of one day or night: open from `begin` on, closed from `end` on."""

    begin: float
    end: float


def between(opening: Edge, closing: Edge, place: Place, since: float, until: float) -> list[Window]:
    """Every window between these two edges that is open at any moment from `since` until `until`."""
    search = _Search(place, math.floor(since - _MARGIN), math.ceil(until + _MARGIN))
    if opening.clock and closing.clock:
        found = search.by_clock(opening, closing)
    elif opening.sun and closing.sun:
        found = (
            search.by_one_event(opening, closing)
            if opening.sun == closing.sun
            else search.by_sun(opening, closing)
        )
    else:
        found = search.by_both(opening, closing)
    return [one for one in found if one.begin < one.end and one.begin < until and one.end > since]


@dataclass(frozen=True, slots=True)
class _Search:
    """For windows at a place, in a span that is longer than what is asked about by a margin at both ends."""

    place: Place
    since: int
    until: int

    # By the sun. Where it does not rise, or does not set, there is no edge to go by: rather a picture too many.

    def by_sun(self, opening: Edge, closing: Edge) -> Iterator[Window]:
        """Yield a window from each opening event to the one that follows, and one for polar day (or night)."""
        events = [(event.at, _name(event) == opening.sun) for event in self._events()]
        if not events:
            yield Window(-math.inf, math.inf)
            return
        first, last = events[0], events[-1]
        # What lies before the first event and after the last is known by those.
        long_before = first[0] - self.since > _NO_SUNSET
        long_after = self.until - last[0] > _NO_SUNSET
        if long_before or not first[1]:
            yield Window(-math.inf, first[0] + (opening if first[1] else closing).seconds)
        for (early, opens), (late, _) in pairwise(events):
            if opens:
                yield Window(early + opening.seconds, late + closing.seconds)
            elif late - early > _NO_SUNSET:
                yield Window(early + closing.seconds, late + opening.seconds)
        if long_after or last[1]:
            yield Window(last[0] + (opening if last[1] else closing).seconds, math.inf)

    def by_one_event(self, opening: Edge, closing: Edge) -> Iterator[Window]:
        """Yield a window around each sunrise (or sunset), or from after it until before the next."""
        moments = self._moments(opening.sun)
        if opening.seconds < closing.seconds:
            for at in moments:
                yield Window(at + opening.seconds, at + closing.seconds)
        else:
            for early, late in pairwise(moments):
                yield Window(early + opening.seconds, late + closing.seconds)
        for early, late in self._left_out(moments):
            yield Window(early + closing.seconds, late + opening.seconds)

    def by_both(self, opening: Edge, closing: Edge) -> Iterator[Window]:
        """Yield a window from each opening to the next closing, one of which goes by the clock."""
        openings = self._clock_times(opening, 0) if opening.clock else self._sun_times(opening)
        closings = self._clock_times(closing, 1) if closing.clock else self._sun_times(closing)
        for begin in openings:
            yield Window(begin, next((end for end in closings if end > begin), math.inf))
        shift = (opening if opening.sun else closing).seconds
        for early, late in self._left_out(self._moments(opening.sun or closing.sun)):
            yield Window(early + shift, late + shift)

    def _events(self) -> list[sun.Event]:
        return sun.events(self.place.latitude, self.place.longitude, self.since, self.until)

    def _moments(self, name: str) -> list[float]:
        return [event.at for event in self._events() if _name(event) == name]

    def _sun_times(self, edge: Edge) -> list[float]:
        return [at + edge.seconds for at in self._moments(edge.sun)]

    def _left_out(self, moments: Sequence[float]) -> Iterator[tuple[float, float]]:
        """Yield from and to the events between which there are days without one."""
        if not moments:
            yield -math.inf, math.inf
            return
        if moments[0] - self.since > _LEFT_OUT:
            yield -math.inf, moments[0]
        yield from ((early, late) for early, late in pairwise(moments) if late - early > _LEFT_OUT)
        if self.until - moments[-1] > _LEFT_OUT:
            yield moments[-1], math.inf

    # By the clock on the wall

    def _clock_times(self, edge: Edge, fold: int) -> list[float]:
        """When the clock shows that time; the first or the last moment where it does so twice."""
        assert edge.clock
        first, last = (self._local(at).date().toordinal() for at in (self.since, self.until))
        days = (datetime.fromordinal(day).date() for day in range(first, last + 1))
        at = [datetime.combine(day, edge.clock, self.place.timezone) for day in days]
        return [max(one.timestamp(), one.replace(fold=fold).timestamp()) for one in at]

    def by_clock(self, opening: Edge, closing: Edge) -> Iterator[Window]:
        """Yield when the clock on the wall shows a time of the window.

        One that the change to summer time leaves out is moved behind it. In autumn one may be open twice.
        """
        length = (closing.seconds - opening.seconds) % _DAY or _DAY
        spans = list(self._offsets())
        pieces = [piece for span in spans for piece in _within(span, opening.seconds, length)]
        yield from _joined(sorted(pieces))
        for (_, change, old), (_, _, new) in pairwise(spans):
            for day in _days(change, old):
                begin = day + opening.seconds
                if begin - old >= change >= begin + length - new:
                    yield Window(begin - old, begin - old + length)

    def _offsets(self) -> Iterator[tuple[float, float, float]]:
        """Yield the spans of one offset: since, until, and the seconds that the clock on the wall is ahead of UTC."""
        begin, at, offset = float(self.since), self.since, self._offset(self.since)
        while at < self.until:
            later = min(at + _CHANGES, self.until)
            if self._offset(later) != offset:
                change = self._change(at, later)
                yield begin, change, offset
                begin, offset = change, self._offset(later)
            at = later
        yield begin, self.until, offset

    def _change(self, early: int, late: int) -> float:
        """The first second of the offset that `late` has."""
        old = self._offset(early)
        while late - early > 1:
            middle = (early + late) // 2
            early, late = (middle, late) if self._offset(middle) == old else (early, middle)
        return float(late)

    def _offset(self, at: float) -> float:
        offset = self._local(at).utcoffset()
        return offset.total_seconds() if offset else 0.0

    def _local(self, at: float) -> datetime:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).astimezone(self.place.timezone)


def _name(event: sun.Event) -> str:
    return "sunrise" if event.is_rise else "sunset"


def _days(at: float, offset: float) -> list[float]:
    """Midnights of the day before, of that day and of the next, on the wall, as if that were UTC."""
    today = (at + offset) // _DAY * _DAY
    return [today - _DAY, today, today + _DAY]


def _within(span: tuple[float, float, float], begin: float, length: float) -> Iterator[Window]:
    """Yield each day's window, as far as it lies in a span of one offset."""
    since, until, offset = span
    day = (since + offset) // _DAY * _DAY - _DAY
    while day + begin - offset < until:
        opened = day + begin - offset
        piece = Window(max(opened, since), min(opened + length, until))
        if piece.begin < piece.end:
            yield piece
        day += _DAY


def _joined(pieces: Sequence[Window]) -> Iterator[Window]:
    """Yield them with those put together that a change of the offset has cut."""
    # Whole-day windows of two days touch as well; what is one window does not matter there.
    left: Window | None = None
    for piece in pieces:
        if left and left.end == piece.begin:
            left = Window(left.begin, piece.end)
            continue
        if left:
            yield left
        left = piece
    if left:
        yield left
