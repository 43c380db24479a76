"""Windows by the sun at places all over the globe, judged by the sun's height, which is computed by another method."""

import os
import re
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from math import asin, cos, degrees, inf, radians, sin
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from sun_position import LIMIT, height
from trapsync.settings import schedule
from trapsync.settings.schedule import Place

PLACES = int(os.environ.get("TRAPSYNC_PLACES", "40"))
NEAR = 0.3  # degrees from the limit within which it is neither certainly day nor certainly night
HOUR, DAY = 3600, 86400
NIGHT = ("sunset - sunrise",)


class City(NamedTuple):
    """A place whose time zone is known."""

    latitude: float
    longitude: float
    zone: str


def cities() -> list[City]:
    """The places of the table of zones; `+4723+00832` is 47° 23' north, 8° 32' east."""
    found = []
    for line in (files("tzdata") / "zoneinfo" / "zone1970.tab").read_text().splitlines():
        if not line.startswith("#"):
            _, where, zone, *_ = line.split("\t")
            numbers = re.findall(r"([+-])(\d{2,3})(\d\d)(\d\d)?(?=[+-]|$)", where)
            angles = [
                (-1 if sign == "-" else 1) * (int(d) + int(m) / 60 + int(s or 0) / 3600)
                for sign, d, m, s in numbers
            ]
            found.append(City(angles[0], angles[1], zone))
    return found


CITIES = cities()


def own_zone(latitude: float, longitude: float) -> str:
    """The zone of the nearest city."""

    def nearness(city: City) -> float:
        a, b = radians(latitude), radians(city.latitude)
        return sin(a) * sin(b) + cos(a) * cos(b) * cos(radians(longitude - city.longitude))

    return max(CITIES, key=nearness).zone


def drawn(number: int) -> tuple[float, float, int, list[str]]:
    """A place anywhere on the globe, a year, and three zones: UTC, its own, and a wrong one."""
    random = Random(number)
    latitude, longitude = degrees(asin(random.uniform(-1, 1))), random.uniform(-180, 180)
    # The first ones lie where programs stumble: the poles, the date line, the polar circle, Greenwich, the equator.
    ends = [(90, 0), (-90, 180), (17.3, 180), (-17.3, -180), (66.56, 25.7), (-66.6, 140), (51.5, 0), (0, 100)]
    if number < len(ends):
        latitude, longitude = ends[number]
    return (
        latitude,
        longitude,
        random.randint(2024, 2035),
        ["UTC", own_zone(latitude, longitude), random.choice(CITIES).zone],
    )


class Year:
    """A year of a place, hour by hour: when it is certainly night, certainly day, or neither."""

    def __init__(self, latitude: float, longitude: float, year: int) -> None:
        self.begin, self.end = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (year, year + 1))
        self.latitude, self.longitude = latitude, longitude
        step = 1800
        heights = [
            (at, height(latitude, longitude, at))
            for at in range(self.begin - 3 * DAY, self.end + 3 * DAY, step)
        ]
        looked_at = range(self.begin, self.end, HOUR)
        self.night = [at for at, h in heights if h < LIMIT - NEAR and at in looked_at]
        self.day = []
        # Between two certain nights at most a day apart there is no polar day.
        for is_night, run in groupby(heights, key=lambda one: one[1] < LIMIT - NEAR):
            hours = list(run)
            if not is_night and hours[-1][0] - hours[0][0] + 2 * step <= DAY:
                self.day += [at for at, h in hours if h > LIMIT + NEAR and at in looked_at]

    def nights(self) -> int:
        """How many nights there are."""
        return sum(
            1 for early, late in zip([0, *self.night], self.night, strict=False) if late - early > HOUR
        )


def faults(year: Year, place: Place) -> Counter[str]:
    """What is wrong with the windows of that year by night, and how much of it was looked at."""
    found, at = Counter({"nights": year.nights()}), float(year.begin)
    certain = sorted([(moment, True) for moment in year.night] + [(moment, False) for moment in year.day])
    moments: set[float] = set()
    for moment, is_night in certain:
        now_open = schedule.open_at(NIGHT, place, moment)
        found["night hours" if is_night else "day hours"] += 1
        found["night hours lost" if is_night else "day hours open"] += bool(now_open) != is_night
        moments.update(*now_open)
        while at <= moment and (opening := schedule.next_opening(NIGHT, place, at)):
            at = opening
            moments.update(*schedule.open_at(NIGHT, place, at))
    for edge in moments - {-inf, inf}:
        found["moments"] += 1
        found["moments off"] += abs(height(place.latitude, place.longitude, edge) - LIMIT) > NEAR
    return found


@pytest.mark.timeout(60 + 10 * PLACES)
def test_windows_by_the_sun_are_open_by_night_and_closed_by_day_all_over_the_globe() -> None:
    total: Counter[str] = Counter()
    for number in range(PLACES):
        latitude, longitude, which, zones = drawn(number)
        year = Year(latitude, longitude, which)
        for zone in zones:
            found = faults(year, Place(latitude, longitude, ZoneInfo(zone)))
            wrong = {
                key: found[key] for key in ("moments off", "night hours lost", "day hours open") if found[key]
            }
            assert not wrong, (number, latitude, longitude, which, zone)
            total += found
    print(PLACES, "places:", dict(total))  # noqa: T201
    assert total["moments"] > PLACES * 3 * 400
    assert total["nights"] > PLACES * 3 * 200
    assert min(total["night hours"], total["day hours"]) > PLACES * 3 * 2500
