"""The map: where the traps stand, as SVG of our own, without a map of others under it."""

import math
import unicodedata
from collections.abc import Iterator
from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from flask import Response

from trapsync.clock import utc
from trapsync.hub.holdings import Holdings
from trapsync.hub.pages.fleet import judged
from trapsync.hub.pages.frame import render
from trapsync.hub.store import Row
from trapsync.image import without_unknown
from trapsync.net.judgement import VERDICTS
from trapsync.net.reports import Deployment
from trapsync.settings.words import count

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_WIDTH, _LEAST, _MOST = (
    400.0,
    260.0,
    480.0,
)  # of the drawing, and bounds of its height: as many as a phone has pixels
_MARGIN = 40.0
_ENLARGED = 3  # at most, on a wide screen
_METRES = 111_320.0  # of a degree of latitude
_SMALLEST = 200.0  # metres that the drawing is wide at least
_STEPS = tuple(number * 10.0**power for power in range(1, -5, -1) for number in (5, 2, 1))  # degrees
_MOST_NAMES = 60
_LETTER, _LINE = 6.5, 13.0  # the size of a name: a letter's width, and its height


class Spot(NamedTuple):
    """A trap and where it stands, in degrees. Texts are clean."""

    device: str
    name: str
    verdict: str
    latitude: float
    longitude: float

    @property
    def position(self) -> str:
        """`46.20110° N, 6.12300° E`."""
        return f"{_degrees(self.latitude, 'NS', 5)}, {_degrees(self.longitude, 'EW', 5)}"


class MapPage:
    """Where the traps of the hub stand."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._holdings = Holdings(hub.database)

    def show(self) -> Response:
        """The drawing, the same as a list, and the traps of which no position is known."""
        found = judged(self._hub)
        places = self._places()
        spots = [
            Spot(trap.device, trap.name, trap.verdict, *places[trap.device])
            for trap in found
            if trap.device in places
        ]
        without = [trap for trap in found if trap.device not in places]
        return render("map.html", drawing=drawn(spots) if spots else "", spots=spots, without=without)

    def _places(self) -> dict[str, tuple[float, float]]:
        """Latitude and longitude by device: of the newest deployment that has them, else of the newest picture."""
        soon = utc(self._hub.clock.wall()) + timedelta(days=1)
        pictures = {
            device: place
            for device, row in self._holdings.newest(soon).items()
            if (place := _place_of_picture(row))
        }
        newest: dict[str, Deployment] = {}
        for device, one in self._hub.reports.deployments():
            if place_of(one) and (device not in newest or newest[device].began < one.began):
                newest[device] = one
        return pictures | {device: place for device, one in newest.items() if (place := place_of(one))}


def place_of(deployment: Deployment) -> tuple[float, float] | None:
    """Where a deployment stood, if it says so."""
    latitude, longitude = (deployment.terms.get(name) for name in ("latitude", "longitude"))
    if isinstance(latitude, int | float) and isinstance(longitude, int | float):
        return float(latitude), float(longitude)
    return None


def _place_of_picture(row: Row) -> tuple[float, float] | None:
    """Where a picture was taken. None where it does not say, or names no place on earth, which would shrink the map."""
    known = without_unknown({key: row[key] for key in ("lat", "lng")})
    latitude, longitude = known.get("lat"), known.get("lng")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    return latitude, longitude


# ── The drawing ──────────────────────────────────────────────────────────────────────────────────────


class _Sheet:
    """Which point of the drawing a position has: north is up, and a metre is as long in all directions."""

    def __init__(self, spots: list[Spot]) -> None:
        latitudes = [spot.latitude for spot in spots]
        longitudes = [spot.longitude for spot in spots]
        self._is_across = max(longitudes) - min(longitudes) > 180  # of the line at which the date changes
        longitudes = [self._unwrapped(one) for one in longitudes]
        self._north, self._west = (
            (max(latitudes) + min(latitudes)) / 2,
            (max(longitudes) + min(longitudes)) / 2,
        )
        self._narrow = max(0.01, math.cos(math.radians(self._north)))
        width = (max(longitudes) - min(longitudes)) * _METRES * self._narrow
        height = (max(latitudes) - min(latitudes)) * _METRES
        across = max(width, _SMALLEST)
        self.height = min(_MOST, max(_LEAST, (_WIDTH - 2 * _MARGIN) * height / across + 2 * _MARGIN))
        self.metres = max(across / (_WIDTH - 2 * _MARGIN), height / (self.height - 2 * _MARGIN))  # of a unit

    def _unwrapped(self, longitude: float) -> float:
        return longitude + 360 if self._is_across and longitude < 0 else longitude

    def x(self, longitude: float) -> float:
        """From the left."""
        east = self._unwrapped(longitude) - self._west
        return round(_WIDTH / 2 + east * _METRES * self._narrow / self.metres, 1)

    def y(self, latitude: float) -> float:
        """From the top."""
        return round(self.height / 2 - (latitude - self._north) * _METRES / self.metres, 1)

    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The first and last degree of latitude, and of longitude, on the sheet."""
        up = self.height / 2 * self.metres / _METRES
        along = _WIDTH / 2 * self.metres / (_METRES * self._narrow)
        return (self._north - up, self._north + up), (self._west - along, self._west + along)


def drawn(spots: list[Spot]) -> str:
    """A map of these traps, the worst on top, with a scale and lines of latitude and longitude."""
    sheet = _Sheet(spots)
    parts = [*_lines(sheet), *_scale(sheet), *_marks(sheet, spots)]
    height = round(sheet.height)
    size = (
        f'viewBox="0 0 {_WIDTH:.0f} {height}" width="{_WIDTH * _ENLARGED:.0f}" height="{height * _ENLARGED}"'
    )
    text = f"Map of {count(len(spots), 'trap')}; the list below says the same"
    return f'<svg class="map" {size} role="img" aria-label="{text}">{"".join(parts)}</svg>'


def _lines(sheet: _Sheet) -> Iterator[str]:
    (south, north), (west, east) = sheet.spans()
    bottom = sheet.height
    step = _step(north - south)
    for degree in _ticks(max(south, -90), min(north, 90), step):
        y = sheet.y(degree)
        yield f'<line class="grid" x1="0" x2="{_WIDTH:.0f}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="4" y="{y - 3:.0f}">{_degrees(degree, "NS", _digits(step))}</text>'
    step = _step(east - west)
    for degree in _ticks(west, east, step):
        x, shown = sheet.x(degree), (degree + 180) % 360 - 180
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{bottom:.0f}"/>'
        if 60 < x < _WIDTH - 50:  # beside the names of the other lines
            yield f'<text class="tick" x="{x + 3:.0f}" y="12">{_degrees(shown, "EW", _digits(step))}</text>'


def _scale(sheet: _Sheet) -> Iterator[str]:
    """A bar of a round length, about a quarter as wide as the sheet."""
    wanted = sheet.metres * _WIDTH / 4
    power = 10.0 ** math.floor(math.log10(wanted))
    metres = max(number for number in (power, 2 * power, 5 * power) if number <= wanted)
    length, y = metres / sheet.metres, sheet.height - 10
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    yield f'<path class="scale" d="M10 {y - 5:.0f}v5h{length:.1f}v-5" fill="none"/>'
    yield f'<text class="label" x="15" y="{y - 4:.0f}">{text}</text>'


def _marks(sheet: _Sheet, spots: list[Spot]) -> Iterator[str]:
    """Marks that lead to the traps, and the names that have room; the list has them all, so the tab key passes them by."""
    named = list[tuple[float, float, float]]()
    points = [(sheet.x(spot.longitude), sheet.y(spot.latitude), spot) for spot in spots]
    for x, y, spot in sorted(points, key=lambda point: VERDICTS.index(point[2].verdict)):
        label = f"<title>{escape(spot.name)}: {spot.verdict}</title>"
        place = f'href="/trap/{escape(spot.device)}" tabindex="-1"'
        yield f'<a {place}>{label}<path class="mark {spot.verdict}" d="M{x} {y}{_SHAPES[spot.verdict]}"/></a>'
    for x, y, spot in points[:_MOST_NAMES]:  # the worst first
        width = _letters(spot.name) * _LETTER
        is_free = all(
            abs(y - other) > _LINE or x > right or x + width + 10 < left for left, right, other in named
        )
        if is_free and x + width + 10 < _WIDTH:
            named.append((x, x + width + 10, y))
            yield f'<text class="label" x="{x + 9:.0f}" y="{y + 4:.0f}">{escape(spot.name)}</text>'


def _letters(name: str) -> int:
    """How many letters a name is as wide as: those of Chinese, Japanese and Korean are two."""
    return sum(1 + (unicodedata.east_asian_width(letter) in {"W", "F"}) for letter in name)


# From the middle of a mark on: a circle, a triangle and a square, as beside the words.
_SHAPES = {
    "ok": "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "warning": "m0-7l7 12h-14z",
    "failing": "m-6-6h12v12h-12z",
}


def _step(span: float) -> float:
    """The distance of lines, so that there are some four of them."""
    return next((step for step in reversed(_STEPS) if span / step <= 5), _STEPS[0])


def _ticks(first: float, last: float, step: float) -> Iterator[float]:
    for number in range(math.ceil(first / step), math.floor(last / step) + 1):
        yield number * step


def _digits(step: float) -> int:
    return max(0, -math.floor(math.log10(step)))


def _degrees(degree: float, sides: str, digits: int) -> str:
    return f"{abs(degree):.{digits}f}° {sides[degree < 0]}"
