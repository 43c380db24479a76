"""Nights run from noon to noon, where the trap is."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from trapsync.clock import utc
from trapsync.destinations.nights import Night, night_of

ZURICH = ZoneInfo("Europe/Zurich")


@pytest.mark.parametrize(
    ("taken", "zone", "evening"),
    [
        ("2026-06-21T20:19:15Z", UTC, "2026-06-21"),
        ("2026-06-22T11:59:59Z", UTC, "2026-06-21"),
        ("2026-06-22T12:00:00Z", UTC, "2026-06-22"),
        ("2026-06-22T09:59:59Z", ZURICH, "2026-06-21"),  # 11:59:59 there
        ("2026-06-22T10:00:00Z", ZURICH, "2026-06-22"),
        ("2026-01-01T03:00:00Z", ZoneInfo("America/Vancouver"), "2025-12-31"),
        ("2026-12-31T12:00:00Z", ZoneInfo("Pacific/Auckland"), "2026-12-31"),
    ],
)
def test_a_moment_belongs_to_the_night_whose_evening_came_before(
    taken: str, zone: ZoneInfo, evening: str
) -> None:
    moment = datetime.fromisoformat(taken)
    night = night_of(moment, zone)
    assert str(night) == evening
    assert night.since <= moment.timestamp() < night.until


@pytest.mark.parametrize("zone", [UTC, ZURICH, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("Etc/GMT+12")])
@pytest.mark.parametrize("year", [1, 1000, 9999])
def test_a_moment_at_either_end_of_time_has_a_night_too(year: int, zone: ZoneInfo) -> None:
    for month, day, hour in ((1, 1, 0), (12, 31, 23)):
        night = night_of(datetime(year, month, day, hour, 59, 59, tzinfo=UTC), zone)
        assert night.until - night.since == pytest.approx(86400, abs=7200)
        assert Night(date.fromisoformat(str(night)), zone) == night


@pytest.mark.parametrize(
    ("evening", "hours"), [((2026, 6, 21), 24), ((2026, 3, 28), 23), ((2026, 10, 24), 25)]
)
def test_a_night_lasts_from_noon_to_noon_when_the_clocks_are_changed_too(
    evening: tuple[int, int, int], hours: int
) -> None:
    night = Night(date(*evening), ZURICH)
    assert night.until - night.since == hours * 3600
    assert utc(night.since).astimezone(ZURICH).hour == utc(night.until).astimezone(ZURICH).hour == 12
    assert night_of(utc(night.since), ZURICH) == night_of(utc(night.until - 1), ZURICH) == night
