"""The effort calendar as SVG: a row for each night, a cell for each hour from noon to noon, coloured by the share taken."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup

from trapsync.net.reports import Night
from trapsync.settings.words import count

_LEFT, _CELL, _ROW, _TOP = 72, 14, 26, 18
_WIDTH = _LEFT + 24 * _CELL + 4
_LABELS = range(0, 24, 3)  # o'clock
# From which share on an hour has which class of the style sheet.
_CLASSES = ((1.0, "all"), (0.9, "most"), (0.5, "some"), (1e-9, "few"), (0.0, "none"))

_SVG = Markup(
    '<svg class="calendar" viewBox="0 0 {width} {height}" role="img"><title>{title}</title>{content}</svg>'
)
_HOUR = Markup('<text class="tick" x="{x}" y="12">{text}</text>')
_NIGHT = Markup(
    '<a href="{link}"><rect class="target" x="0" y="{y}" width="{width}" height="{height}"/>'
    '<rect class="base" x="{left}" y="{bar}" width="{length}" height="{thick}"/>'
    '<text class="tick" x="0" y="{base}">{text}</text>{cells}</a>'
)
_EMPTY = Markup('<text class="tick" x="{x}" y="{y}">{text}</text>')
_PIECE = Markup(
    '<rect class="share {kind}" x="{x}" y="{y}" width="{width}" height="{height}"><title>{title}</title></rect>'
)


@dataclass(frozen=True, slots=True)
class Hour:
    """What was watched in an hour, by the clock on the wall: slots, those with a picture, and why the others have none."""

    hour: int
    expected: int
    taken: int
    reasons: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The class of its cell."""
        share = self.taken / self.expected
        return next(name for least, name in _CLASSES if share >= least)

    @property
    def said(self) -> str:
        """The same in words."""
        reasons = f"; missed: {self.because}" if self.reasons else ""
        return f"{self.hour:02}:00 to {(self.hour + 1) % 24:02}:00: {self.taken} of {self.expected} taken{reasons}"

    @property
    def because(self) -> str:
        """The reasons in words."""
        return ", ".join(words(one) for one in self.reasons)


# Why a picture is missing, in words for a page: see `net.reports`.
_WORDS: Mapping[str, str] = {
    "off": "the trap was off",
    "no_power": "no power",
    "battery": "the battery was low",
    "card": "the card took no pictures",
    "camera": "the camera failed",
    "clock": "the clock was not set",
    "paused": "the daemon was stopped",
    "settings": "other settings were applied",
    "unknown": "unknown",
}


def words(reason: str) -> str:
    """A reason for a missed picture in words."""
    return _WORDS.get(reason, reason.replace("_", " "))


def hours(night: Night, zone: ZoneInfo) -> list[Hour]:
    """The hours of a night in which pictures were due, in order. An hour that the clock shows twice is one."""
    found = dict[int, Hour]()
    for one in sorted(night.hours, key=lambda one: one.begin):
        local = one.begin.astimezone(zone).hour
        until = one.begin + timedelta(hours=1)
        reasons = {gap.reason for gap in night.gaps if gap.since < until and gap.until > one.begin}
        known = found.get(local, Hour(local, 0, 0, ()))
        both = (
            (*known.reasons, *sorted(reasons - {*known.reasons}))
            if one.taken < one.expected
            else known.reasons
        )
        found[local] = Hour(local, known.expected + one.expected, known.taken + one.taken, both)
    return [hour for hour in found.values() if hour.expected]


def draw(nights: Sequence[tuple[date, Night | None]], zone: ZoneInfo, link: Mapping[date, str]) -> Markup:
    """The nights in this order, each with the address that it leads to; None: nothing was reported of it."""
    content = [_HOUR.format(x=_x(hour), text=f"{hour:02}") for hour in _LABELS]
    for number, (day, night) in enumerate(nights):
        top = _TOP + number * _ROW
        cells = Markup().join(_cells(night, zone, top)) if night else _unknown(top)
        content.append(
            _NIGHT.format(
                link=link[day],
                y=top,
                width=_WIDTH,
                height=_ROW,
                left=_LEFT,
                bar=top + 2,
                length=24 * _CELL,
                thick=_ROW - 4,
                base=top + 17,
                text=f"{day:%a} {day.day} {day:%b}",
                cells=cells,
            )
        )
    title = (
        f"{count(len(nights), 'night')} by the hour, with the share of pictures taken of those that were due"
    )
    height = _TOP + len(nights) * _ROW
    return _SVG.format(width=_WIDTH, height=height, title=title, content=Markup().join(content))


def _cells(night: Night, zone: ZoneInfo, top: int) -> Iterator[Markup]:
    known = hours(night, zone)
    if not known:
        yield _EMPTY.format(x=_LEFT + 6, y=top + 17, text="no picture was due")
    for hour in known:
        day = night.night + timedelta(days=hour.hour < 12)
        yield _PIECE.format(
            kind=hour.kind,
            x=_x(hour.hour),
            y=top + 2,
            width=_CELL - 1,
            height=_ROW - 4,
            title=f"{day.day} {day:%b}, {hour.said}",
        )


def _unknown(top: int) -> Markup:
    return _EMPTY.format(x=_LEFT + 6, y=top + 17, text="no report yet")


def _x(hour: int) -> int:
    return _LEFT + (hour - 12) % 24 * _CELL
