"""Plots over time as SVG: a line with gaps, axes with round numbers and local times. Colours are classes of the style sheet.

Moments are unix seconds. What a plot shows stands in its `<title>` as text, too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from markupsafe import Markup

_WIDTH, _HEIGHT = 420.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 12.0, 10.0, 22.0
_TICKS = 4  # on the axis of values, about
_MOST_TIMES = 6  # on the axis of time
_HOUR, _DAY = 3600.0, 86400.0
# Steps of the axis of time: from hours to days. Longer ones are months.
_STEPS = (1, 3, 6, 12, 24, 48, 7 * 24, 14 * 24)
_MONTHS = (1, 3, 6, 12, 60)

_SVG = Markup('<svg class="plot" viewBox="0 0 420 150" role="img"><title>{title}</title>{content}</svg>')
_ROW = Markup('<line class="grid" x1="{x1:.0f}" x2="{x2:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
_VALUE = Markup('<text class="tick" x="{x:.0f}" y="{y:.1f}" text-anchor="end">{text}</text>')
_TIME = Markup(
    '<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>'
    '<text class="tick" x="{x:.1f}" y="{y:.0f}" text-anchor="middle">{text}</text>'
)
_PATH = Markup('<path class="line" d="{path}"/>')
_DOT = Markup('<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>')
_NOTHING = Markup(
    '<text class="tick" x="220" y="70" text-anchor="middle">nothing is known of this time</text>'
)


@dataclass(frozen=True, slots=True)
class Frame:
    """The time that plots beside one another show, and the zone of its axis."""

    since: float
    until: float
    zone: ZoneInfo

    def x(self, at: float) -> float:
        """Where a moment is, from the left."""
        width = _WIDTH - _LEFT - _RIGHT
        return _LEFT + width * (at - self.since) / (self.until - self.since)


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over time, oldest first. After more than `gap` seconds without one the line is interrupted.

    `least` and `most` are shown whatever the values are; None: what the values need.
    """

    title: str
    unit: str
    points: Sequence[tuple[float, float]]
    gap: float
    least: float | None = None
    most: float | None = None
    ticks: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Choose the numbers of the axis."""
        bounds = [one for one in (self.least, self.most) if one is not None]
        values = [*bounds, *(value for _, value in self.points)] or [0.0]
        object.__setattr__(self, "ticks", tuple(_round_numbers(min(values), max(values))))

    def y(self, value: float) -> float:
        """Where a value is, from the top."""
        least, most = self.ticks[0], self.ticks[-1]
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (most - value) / (most - least)

    def lines(self) -> Iterator[list[tuple[float, float]]]:
        """The points in pieces without a gap."""
        piece = list[tuple[float, float]]()
        for point in self.points:
            if piece and point[0] - piece[-1][0] > self.gap:
                yield piece
                piece = []
            piece.append(point)
        if piece:
            yield piece

    @property
    def said(self) -> str:
        """The same in words: the last value; the least and the most."""
        if not self.points:
            return f"{self.title}: nothing is known of this time"
        values = [value for _, value in self.points]
        last, least, most = (shown(one) for one in (values[-1], min(values), max(values)))
        unit = f" {self.unit}" if self.unit else ""
        between = f"; between {least} and {most}{unit}" if least != most else ""
        return f"{self.title}: {last}{unit}{between}"


def draw(curve: Curve, frame: Frame) -> Markup:
    """A curve in its frame."""
    content = Markup().join([*_values(curve), *_times(frame), *_drawn(curve, frame)])
    return _SVG.format(title=curve.said, content=content if curve.points else content + _NOTHING)


def shown(value: float, step: float = 0.1) -> str:
    """A number in few characters: `0.5`, `12`, `12k`, `3.4M`; so that it can be told from one that is a step away."""
    for size, unit, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= size:
            return f"{value / unit:.3g}{letter}"
    decimals = max(0, min(3, math.ceil(-math.log10(step) - 1e-9)))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _values(curve: Curve) -> Iterator[Markup]:
    for value in curve.ticks:
        y = curve.y(value)
        yield _ROW.format(x1=_LEFT, x2=_WIDTH - _RIGHT, y=y)
        yield _VALUE.format(x=_LEFT - 6, y=y + 4, text=shown(value, curve.ticks[1] - curve.ticks[0]))


def _times(frame: Frame) -> Iterator[Markup]:
    for moment, text in times(frame):
        x = frame.x(moment)
        yield _TIME.format(x=x, top=_TOP, bottom=_HEIGHT - _BOTTOM, y=_HEIGHT - 7, text=text)


def _drawn(curve: Curve, frame: Frame) -> Iterator[Markup]:
    for piece in curve.lines():
        places = [(frame.x(at), curve.y(value)) for at, value in piece]
        if len(places) == 1:
            yield _DOT.format(x=places[0][0], y=places[0][1])
        else:
            yield _PATH.format(path="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places))


def _round_numbers(least: float, most: float) -> Iterator[float]:
    """Round numbers at equal distances, the first not above `least` and the last not below `most`."""
    if most - least < 1e-6 * max(abs(least), abs(most), 1.0):
        more = max(0.5, 1e-6 * abs(most))  # of a large number half of one may be nothing
        least, most = (least - more if least else 0.0), most + more
    rough = (most - least) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return (round(number * step, 9) for number in range(first, last + 1))


def times(frame: Frame) -> list[tuple[float, str]]:
    """Moments for the axis of time, round in local time, with their texts."""
    for hours in _STEPS:
        found = list(_every(frame, hours))
        if len(found) <= _MOST_TIMES:
            return found
    for months in _MONTHS:
        found = list(_months(frame, months))
        if len(found) <= _MOST_TIMES:
            return found
    return found[:: -(-len(found) // _MOST_TIMES)]


def _every(frame: Frame, hours: int) -> Iterator[tuple[float, str]]:
    """Every so many hours: from local midnight on, or days that are counted from a Monday on."""
    if frame.until - frame.since > hours * _HOUR * 2 * _MOST_TIMES:
        yield from ((frame.since, "") for _ in range(_MOST_TIMES + 1))  # too many, however they are counted
        return
    day = datetime.fromtimestamp(frame.since, frame.zone).date()
    while (midnight := datetime.combine(day, datetime.min.time(), frame.zone)).timestamp() < frame.until:
        if day.toordinal() % max(1, hours // 24) == 1 % max(1, hours // 24):
            for hour in range(0, 24, min(hours, 24)):
                at = midnight.replace(hour=hour)
                if frame.since <= at.timestamp() <= frame.until:
                    is_day = hour == 0
                    yield at.timestamp(), f"{at.day} {at:%b}" if is_day else f"{at:%H:%M}"
        day += timedelta(days=1)


def _months(frame: Frame, months: int) -> Iterator[tuple[float, str]]:
    """The first day of every so many months, counted from January 1970 on."""
    begin, end = (datetime.fromtimestamp(at, frame.zone) for at in (frame.since, frame.until))
    for number in range(begin.year * 12 + begin.month - 1, end.year * 12 + end.month):
        at = datetime(number // 12, number % 12 + 1, 1, tzinfo=frame.zone)
        if (number - 1970 * 12) % months == 0 and frame.since <= at.timestamp() <= frame.until:
            yield at.timestamp(), f"{at:%Y}" if months >= 12 else f"{at:%b %Y}"


def growth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """How much a count has grown since the first point; a count that begins anew goes on from there."""
    total, found = 0.0, [(at, 0.0) for at, _ in points[:1]]
    for (_, before), (at, value) in pairwise(points):
        total += value - before if value >= before else value
        found.append((at, total))
    return found
