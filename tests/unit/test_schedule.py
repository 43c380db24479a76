"""When the trap is awake: by the clock on the wall and by the sun, wherever it hangs."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from trapsync.settings import schedule, sun
from trapsync.settings.schedule import Place, needs_place, parse_window

UTC_ZONE = ZoneInfo("UTC")
ZURICH = Place(47.3769, 8.5417, ZoneInfo("Europe/Zurich"))
SYDNEY = Place(-33.8688, 151.2093, ZoneInfo("Australia/Sydney"))
VANCOUVER = Place(49.2827, -123.1207, ZoneInfo("America/Vancouver"))
SUVA = Place(-18.1416, 178.4419, ZoneInfo("Pacific/Fiji"))
TROMSO = Place(69.6492, 18.9553, ZoneInfo("Europe/Oslo"))


def at(place: Place, text: str) -> datetime:
    """That moment by the clock on the wall there."""
    return datetime.fromisoformat(text).replace(tzinfo=place.timezone)


def is_open(windows: list[str], place: Place, now: datetime) -> bool:
    """Whether that moment lies in one of the windows."""
    return bool(schedule.open_at(windows, place, now.timestamp()))


def open_fraction(windows: list[str], place: Place, now: datetime) -> float:
    """Which part of the coming 24 hours is open."""
    return schedule.seconds_open(windows, place, now.timestamp()) / 86400


def hours_open(windows: list[str], place: Place, day: str) -> list[int]:
    """The hours of that day, by the clock on the wall there, at whose half the trap is awake."""
    return [hour for hour in range(24) if is_open(windows, place, at(place, f"{day}T{hour:02}:30"))]


# ── By the clock ─────────────────────────────────────────────────────────────────────────────────────


def test_without_windows_the_trap_is_awake_day_and_night() -> None:
    assert hours_open([], ZURICH, "2026-06-21") == list(range(24))


def test_a_window_is_open_from_its_first_second_and_closed_from_its_last() -> None:
    window = ["08:00 - 10:30"]
    assert not is_open(window, ZURICH, at(ZURICH, "2026-06-21T07:59:59"))
    assert is_open(window, ZURICH, at(ZURICH, "2026-06-21T08:00:00"))
    assert is_open(window, ZURICH, at(ZURICH, "2026-06-21T10:29:59"))
    assert not is_open(window, ZURICH, at(ZURICH, "2026-06-21T10:30:00"))


def test_a_window_may_run_over_midnight() -> None:
    assert hours_open(["21:00 - 05:00"], ZURICH, "2026-06-21") == [0, 1, 2, 3, 4, 21, 22, 23]


@pytest.mark.parametrize("text", ["06:00 - 06:00", "sunset - sunset", "sunrise+60min - sunrise+1h"])
def test_a_window_that_ends_when_it_begins_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(text))} ends when it begins"):
        parse_window(text)


def test_several_windows_add_up() -> None:
    assert hours_open(["06:00 - 08:00", "23:00 - 01:00"], ZURICH, "2026-06-21") == [0, 6, 7, 23]


def test_a_window_is_in_the_traps_own_time_zone_whatever_the_clocks() -> None:
    noon_in_utc = datetime(2026, 6, 21, 12, tzinfo=UTC)
    assert is_open(["14:00 - 14:01"], ZURICH, noon_in_utc)
    assert is_open(["22:00 - 22:01"], SYDNEY, noon_in_utc)
    assert is_open(["05:00 - 05:01"], VANCOUVER, noon_in_utc)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])  # 02:00 becomes 03:00, and back
def test_on_days_when_the_clock_changes_the_window_still_ends_by_the_clock_on_the_wall(day: str) -> None:
    night = ["21:00 - 05:00"]
    assert hours_open(night, ZURICH, day) == [0, 1, 2, 3, 4, 21, 22, 23]
    assert is_open(night, ZURICH, at(ZURICH, f"{day}T04:59"))
    assert not is_open(night, ZURICH, at(ZURICH, f"{day}T05:00"))


def test_the_night_of_the_spring_change_is_an_hour_shorter_and_that_of_autumn_an_hour_longer() -> None:
    def quarters(begin: datetime) -> int:
        moments = [begin + timedelta(minutes=15 * n) for n in range(96)]
        return sum(is_open(["21:00 - 05:00"], ZURICH, moment) for moment in moments)

    assert quarters(datetime(2026, 3, 27, 12, tzinfo=UTC)) == 8 * 4
    assert quarters(datetime(2026, 3, 28, 12, tzinfo=UTC)) == 7 * 4
    assert quarters(datetime(2026, 10, 24, 12, tzinfo=UTC)) == 9 * 4


def test_a_window_inside_the_hour_that_the_spring_change_leaves_out_never_fails() -> None:
    moments = [datetime(2026, 3, 29, tzinfo=UTC) + timedelta(minutes=5 * n) for n in range(36)]
    for moment in moments:
        is_open(["02:15 - 02:45"], ZURICH, moment)


def test_the_hour_that_comes_twice_in_autumn_is_open_twice() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 in summer time, then 02:30 again
    second = first + timedelta(hours=1)
    assert is_open(["02:00 - 03:00"], ZURICH, first)
    assert is_open(["02:00 - 03:00"], ZURICH, second)


# ── By the sun ───────────────────────────────────────────────────────────────────────────────────────

# Sunrise and sunset by the clock on the wall as almanacs give them, good to 5 minutes. A year gone by:
# a machine's time zones may be newer or older than a country's last change of mind (Vancouver's, in 2026).
ALMANAC = [
    (ZURICH, "2024-06-21", "05:29", "21:26"),
    (ZURICH, "2024-12-21", "08:10", "16:38"),
    (SYDNEY, "2024-06-21", "07:00", "16:54"),
    (SYDNEY, "2024-12-21", "05:41", "20:05"),
    (VANCOUVER, "2024-06-21", "05:07", "21:21"),
    (VANCOUVER, "2024-12-21", "08:05", "16:16"),
    (SUVA, "2024-06-21", "06:37", "17:36"),
]


def around(place: Place, day: str, clock: str) -> tuple[datetime, datetime]:
    """Five minutes before and after."""
    moment = at(place, f"{day}T{clock}")
    return moment - timedelta(minutes=5), moment + timedelta(minutes=5)


@pytest.mark.parametrize(("place", "day", "sunrise", "sunset"), ALMANAC)
def test_the_day_lasts_from_sunrise_to_sunset_as_the_almanac_has_it(
    place: Place, day: str, sunrise: str, sunset: str
) -> None:
    for window, inside in (("sunrise - sunset", True), ("sunset - sunrise", False)):
        dark, light = around(place, day, sunrise)
        assert is_open([window], place, dark) is not inside
        assert is_open([window], place, light) is inside
        light, dark = around(place, day, sunset)
        assert is_open([window], place, light) is inside
        assert is_open([window], place, dark) is not inside


@pytest.mark.parametrize("place", [ZURICH, SYDNEY, VANCOUVER, SUVA])
@pytest.mark.parametrize("day", ["2026-03-20", "2026-06-21", "2026-12-21"])
def test_by_day_or_by_night_but_never_both_nor_neither(place: Place, day: str) -> None:
    moments = [at(place, f"{day}T00:00") + timedelta(minutes=20 * n) for n in range(72)]
    for moment in moments:
        assert is_open(["sunrise - sunset"], place, moment) != is_open(["sunset - sunrise"], place, moment)


@pytest.mark.parametrize("place", [ZURICH, SYDNEY, VANCOUVER, SUVA])
def test_the_time_zone_of_the_settings_does_not_move_the_sun(place: Place) -> None:
    in_utc = Place(place.latitude, place.longitude, UTC_ZONE)
    moments = [datetime(2026, 6, 21, tzinfo=UTC) + timedelta(minutes=20 * n) for n in range(72)]
    for moment in moments:
        assert is_open(["sunset - sunrise"], place, moment) == is_open(["sunset - sunrise"], in_utc, moment)


def test_an_offset_moves_its_own_edge() -> None:
    # Zurich on this day: sunset 21:26, sunrise 05:29.
    window = ["sunset-30min - sunrise+1h"]
    assert not is_open(window, ZURICH, at(ZURICH, "2026-06-21T20:51"))
    assert is_open(window, ZURICH, at(ZURICH, "2026-06-21T21:01"))
    assert is_open(window, ZURICH, at(ZURICH, "2026-06-21T06:24"))
    assert not is_open(window, ZURICH, at(ZURICH, "2026-06-21T06:34"))


def test_sun_and_clock_go_together_in_one_window() -> None:
    assert hours_open(["sunset - 23:00"], ZURICH, "2026-12-21") == [17, 18, 19, 20, 21, 22]
    assert hours_open(["22:00 - sunrise"], ZURICH, "2026-12-21") == [*range(8), 22, 23]


@pytest.mark.parametrize("day", ["2026-06-21", "2026-12-21"])
@pytest.mark.parametrize("window", ["sunset - sunrise", "sunrise - sunset", "sunrise+1h - 12:00"])
def test_where_the_sun_does_not_rise_or_set_a_picture_too_many_is_taken(day: str, window: str) -> None:
    assert hours_open([window], TROMSO, day) == list(range(24))


def test_a_window_by_the_clock_holds_in_the_polar_night_too() -> None:
    assert hours_open(["09:00 - 11:00"], TROMSO, "2026-12-21") == [9, 10]


@pytest.mark.parametrize(
    ("place", "moment", "is_night"),
    [
        # The zone of the settings has two sunsets on the first of these dates, and none on the second.
        (Place(39.0, -98.0, UTC_ZONE), "2026-10-11T06:00", True),
        (Place(39.0, -98.0, UTC_ZONE), "2026-02-06T18:30", False),
        # So have the zones of these places themselves.
        (Place(64.84, -147.72, ZoneInfo("America/Anchorage")), "2026-07-15T08:45", True),
        (Place(64.1, -21.9, ZoneInfo("Atlantic/Reykjavik")), "2026-06-17T12:00", False),
    ],
)
def test_a_date_with_two_sunsets_or_none_costs_no_night_and_no_day(
    place: Place, moment: str, is_night: bool
) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert is_open(["sunset - sunrise"], place, now) is is_night
    assert is_open(["sunrise - sunset"], place, now) is not is_night


def test_from_the_last_sunset_before_the_polar_day_to_the_first_one_after_it_nothing_is_closed() -> None:
    moments = [datetime(2026, 5, 1, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(48 * 120)]
    seen = [is_open(["sunset - sunrise"], TROMSO, moment) for moment in moments]
    changes = [moment for moment, was, now in zip(moments[1:], seen, seen[1:], strict=False) if was != now]
    long = max(pairwise(changes), key=lambda two: two[1] - two[0])
    # The almanac: the sun does not set from 18 May to 25 July.
    assert [f"{moment:%m-%d}" for moment in long] == ["05-17", "07-25"]


def test_a_night_that_is_shorter_than_its_offsets_is_left_out_and_no_day_is_taken_for_it() -> None:
    window = ["sunset+3h - sunrise-3h"]
    assert hours_open(window, ZURICH, "2026-12-21") == [0, 1, 2, 3, 4, 20, 21, 22, 23]
    oslo = Place(59.9, 10.75, ZoneInfo("Europe/Oslo"))
    assert hours_open(window, oslo, "2026-06-21") == []


def test_a_window_around_one_sunset_lasts_as_long_as_its_offsets_say() -> None:
    assert hours_open(["sunset-1h - sunset+2h"], ZURICH, "2026-12-21") == [16, 17, 18]
    rest = [*range(13), 19, 20, 21, 22, 23]
    assert hours_open(["sunset+2h - sunset-4h"], ZURICH, "2026-12-21") == rest


def test_around_the_first_and_last_white_night_no_moment_is_left_out() -> None:
    # In Oulu the sun of 1 June 2026 rises, by the almanac's reckoning, on no date at all.
    oulu = Place(65.01, 25.47, ZoneInfo("Europe/Helsinki"))
    for moment in (at(oulu, "2026-05-31T20:00") + timedelta(minutes=10 * n) for n in range(24 * 6)):
        by_day = is_open(["sunrise - sunset"], oulu, moment)
        assert by_day or is_open(["sunset - sunrise"], oulu, moment), moment


def test_a_year_at_the_pole_and_the_circle_never_fails() -> None:
    for latitude in (66.6, 89.9, -67.0, -90.0):
        place = Place(latitude, 20.0, UTC_ZONE)
        for day in range(0, 366, 5):
            is_open(["sunset - sunrise"], place, datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day))


# ── Besides ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_open_part_of_a_day_is_known_to_a_quarter_of_an_hour() -> None:
    now = at(ZURICH, "2026-06-21T12:00")
    assert open_fraction([], ZURICH, now) == 1
    assert open_fraction(["06:00 - 12:00"], ZURICH, now) == 0.25
    assert open_fraction(["21:00 - 03:00", "05:00 - 11:00"], ZURICH, now) == 0.5
    assert open_fraction(["sunset - sunrise"], ZURICH, now) == pytest.approx(8.07 / 24, abs=0.5 / 24)


def test_only_windows_by_the_sun_need_a_place() -> None:
    assert not needs_place([])
    assert not needs_place(["21:00 - 05:00"])
    assert needs_place(["21:00 - 05:00", "21:00 - sunrise"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "21:00",
        "21:00-05:00",
        "24:00 - 05:00",
        "21:60 - 05:00",
        "9:00 - 10:00",
        "21:00 - dusk",
        "sunset-30 - sunrise",
        "sunset - 30min - sunrise",
        "Sunset - sunrise",
        "21:00+1h - 05:00",
        "21:00 - 05:00 - 06:00",
    ],
)
def test_what_is_no_window_is_quoted_in_the_error_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="21:00") as caught:
        parse_window(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["sunset-99999999999h - sunrise", "sunset+25h - sunrise"])
def test_an_offset_of_more_than_half_a_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="12 h"):
        parse_window(text)


# ── When it opens next, when it was open last ────────────────────────────────────────────────────────


def unix(place: Place, text: str) -> float:
    return at(place, text).timestamp()


def test_the_next_opening_and_the_last_open_time_are_told() -> None:
    window, noon = ["21:00 - 05:30"], unix(ZURICH, "2026-06-21T12:00")
    assert schedule.next_opening(window, ZURICH, noon) == unix(ZURICH, "2026-06-21T21:00")
    night = (unix(ZURICH, "2026-06-20T21:00"), unix(ZURICH, "2026-06-21T05:30"))
    assert schedule.last_opened(window, ZURICH, noon) == night
    assert schedule.last_opened(window, ZURICH, night[0] + 60) == (night[0], night[0] + 60)
    assert schedule.closes(window, ZURICH, night[0]) == night[1]


def test_windows_that_overlap_are_one_time_that_was_open() -> None:
    windows, noon = ["20:00 - 23:00", "21:00 - 22:00", "22:30 - 01:00"], unix(ZURICH, "2026-06-21T12:00")
    evening = (unix(ZURICH, "2026-06-20T20:00"), unix(ZURICH, "2026-06-21T01:00"))
    assert schedule.last_opened(windows, ZURICH, noon) == evening
    assert schedule.closes(windows, ZURICH, evening[0] + 60) == evening[1]
    assert schedule.seconds_open(windows, ZURICH, noon) == 5 * 3600
    assert schedule.pictures_a_day(windows, ZURICH, noon, 24 * 3600) == 3


def test_an_opening_that_is_months_away_is_found() -> None:
    window, now = ["sunset+7h - sunrise-7h"], unix(ZURICH, "2026-05-01T12:00")
    opening = schedule.next_opening(window, ZURICH, now)
    assert opening is not None
    assert f"{datetime.fromtimestamp(opening, UTC):%B}" in {"October", "November"}
    last = schedule.last_opened(window, ZURICH, now)
    assert last is not None
    assert f"{datetime.fromtimestamp(last.end, UTC):%B}" in {"January", "February"}


def test_a_window_that_opens_on_no_day_of_the_year_is_known() -> None:
    quito = Place(-0.2, -78.5, ZoneInfo("America/Guayaquil"))
    assert schedule.never_open(["21:00 - 05:00", "sunset+7h - sunrise-7h"], quito) == "sunset+7h - sunrise-7h"
    assert schedule.never_open(["sunset+7h - sunrise-7h"], ZURICH) == ""
    assert schedule.never_open(["sunrise+7h - sunset-7h"], SYDNEY) == ""


def test_what_is_open_is_known_without_looking_at_the_sun_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    real = sun._above

    def look(latitude: float, longitude: float, at: float) -> float:
        looks.append(at)
        return real(latitude, longitude, at)

    monkeypatch.setattr(sun, "_above", look)
    place = Place(12.34, 56.78, UTC_ZONE)
    for minute in range(3 * 1440):
        is_open(["sunset - sunrise"], place, datetime(2026, 6, 21, tzinfo=UTC) + timedelta(minutes=minute))
    assert len(looks) < 3 * 40
