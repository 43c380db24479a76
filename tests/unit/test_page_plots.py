"""Plots and the effort calendar: what stands in the SVG, with odd values, odd times and odd texts."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

import reported
from trapsync.hub.pages import calendar, plots
from trapsync.hub.pages.plots import Curve, Frame
from trapsync.net import reports
from trapsync.net.reports import Night

VIENNA = ZoneInfo("Europe/Vienna")
NOON = datetime(2026, 6, 24, 10, tzinfo=UTC).timestamp()
DAY = 86400.0


def frame(days: float, until: float = NOON) -> Frame:
    return Frame(until - days * DAY, until, VIENNA)


def curve(points: list[tuple[float, float]], **more: Any) -> Curve:
    return Curve("Battery", "%", points, **{"gap": 3600.0, **more})


def drawn(one: Curve, where: Frame) -> ElementTree.Element:
    """The SVG, which is well-formed."""
    return ElementTree.fromstring(plots.draw(one, where))


def texts(svg: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in svg.iter("text")]


@pytest.mark.parametrize(
    ("least", "most", "ticks"),
    [
        (0, 100, (0, 50, 100)),
        (0, 39, (0, 10, 20, 30, 40)),
        (-7.2, 18.9, (-10, 0, 10, 20)),
        (20.6, 20.6, (20, 20.5, 21, 21.5)),
        (0, 0, (0, 0.2, 0.4, 0.6)),
        (0, 1795, (0, 500, 1000, 1500, 2000)),
        (1e9, 1e9 + 1, None),
        (-(2.0**53), 2.0**53, None),
        (2.0**53, 2.0**53, None),
    ],
)
def test_the_numbers_of_an_axis_are_round_and_hold_all_values(
    least: float, most: float, ticks: tuple[float, ...] | None
) -> None:
    found = curve([(0, least), (1, most)]).ticks
    assert ticks is None or found == ticks
    assert found[0] <= least <= most <= found[-1]
    assert 2 <= len(found) <= 7


def test_numbers_of_an_axis_can_be_told_from_one_another() -> None:
    svg = drawn(curve([(NOON - 60, 20.6), (NOON, 20.7)]), frame(1))
    shown = texts(svg)[: len(curve([(0, 20.6), (1, 20.7)]).ticks)]
    assert len(set(shown)) == len(shown) > 2
    assert [plots.shown(value, 500) for value in (0, 1500, 25_000, 3.4e6)] == ["0", "1500", "25k", "3.4M"]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (1, ["12:00", "18:00", "24 Jun", "06:00", "12:00"]),
        (2, ["12:00", "23 Jun", "12:00", "24 Jun", "12:00"]),
        (30, ["1 Jun", "8 Jun", "15 Jun", "22 Jun"]),
        (90, ["Apr 2026", "May 2026", "Jun 2026"]),
        (1000, ["Jan 2024", "Jul 2024", "Jan 2025", "Jul 2025", "Jan 2026"]),
    ],
)
def test_the_times_of_an_axis_are_round_in_local_time(days: float, expected: list[str]) -> None:
    assert [text for _, text in plots.times(frame(days))] == expected


@pytest.mark.parametrize("days", [0.01, 0.5, 3, 7, 14, 45, 200, 400, 3650, 20_000])
def test_an_axis_of_time_has_a_few_texts_whatever_the_time_is(days: float) -> None:
    where = frame(days)
    found = plots.times(where)
    assert len(found) <= 6
    assert all(where.since <= at <= where.until for at, _ in found)


def test_a_line_is_interrupted_where_nothing_came_and_a_single_point_is_a_dot() -> None:
    minutes = [*range(0, 60, 10), *range(200, 260, 10), 500]
    svg = drawn(curve([(NOON - 60 * minute, 50.0) for minute in reversed(minutes)]), frame(1))
    assert len(list(svg.iter("path"))) == 2
    assert len(list(svg.iter("circle"))) == 1


def test_points_lie_within_their_frame() -> None:
    points = [(NOON - DAY + 3600 * hour, math.sin(hour) * 1e6) for hour in range(25)]
    svg = drawn(curve(points), frame(1))
    (path,) = svg.iter("path")
    places = re.findall(r"([\d.]+) ([\d.-]+)", path.get("d") or "")
    assert len(places) == 25
    assert all(0 <= float(x) <= 420 and 0 <= float(y) <= 150 for x, y in places)


def test_a_plot_says_in_words_what_it_shows() -> None:
    svg = drawn(curve([(NOON - 60, 70.0), (NOON, 64.5)]), frame(1))
    assert [one.text for one in svg.iter("title")] == ["Battery: 64.5 %; between 64.5 and 70 %"]


def test_a_plot_of_nothing_says_so() -> None:
    svg = drawn(curve([], least=0, most=100), frame(30))
    assert "nothing is known of this time" in texts(svg)


def test_a_count_that_begins_anew_goes_on() -> None:
    assert plots.growth([(1, 100), (2, 130), (3, 5), (4, 6)]) == [(1, 0), (2, 30), (3, 35), (4, 36)]
    assert plots.growth([]) == []


def test_a_hostile_title_is_text() -> None:
    svg = plots.draw(Curve("</title><script>", '"><script>', [(NOON, 1)], 60), frame(1))
    assert "<script>" not in svg


# ── The calendar ─────────────────────────────────────────────────────────────────────────────────────


def night(**changes: Any) -> Night:
    found = reports.understood("night", {**reported.night(3), **changes})
    assert isinstance(found, Night)
    return found


def calendar_of(*nights: Night | None) -> ElementTree.Element:
    days = [date(2026, 6, 24) - timedelta(days=number) for number in range(len(nights))]
    links = {day: f"/trap/0a5bb6f4/{day}" for day in days}
    return ElementTree.fromstring(calendar.draw([*zip(days, nights, strict=True)], VIENNA, links))


def cells(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return [one for one in svg.iter("rect") if (one.get("class") or "").startswith("share")]


def test_each_hour_has_the_colour_of_its_share_and_says_it_with_the_reason() -> None:
    found = cells(calendar_of(night()))
    assert [one.get("class") for one in found] == ["share some"] * 5
    says = [one.findtext("title") for one in found]
    assert says[0] == "24 Jun, 21:00 to 22:00: 2 of 4 taken"
    assert says[1] == "24 Jun, 22:00 to 23:00: 2 of 4 taken; missed: the camera failed"
    assert (says[3] or "").startswith("25 Jun, 00:00 to 01:00")


@pytest.mark.parametrize(
    ("taken", "kind"), [(0, "none"), (1, "few"), (49, "few"), (50, "some"), (90, "most"), (100, "all")]
)
def test_shares_have_five_classes(taken: int, kind: str) -> None:
    assert calendar.Hour(21, 100, taken, ()).kind == kind


def test_a_night_leads_to_its_page_and_one_without_a_report_says_so() -> None:
    svg = calendar_of(None, night(hours=[], gaps=[]))
    assert [one.get("href") for one in svg.iter("a")] == [
        "/trap/0a5bb6f4/2026-06-24",
        "/trap/0a5bb6f4/2026-06-23",
    ]
    assert "no report yet" in texts(svg)
    assert "no picture was due" in texts(svg)


def test_an_hour_that_the_clock_shows_twice_is_one() -> None:
    twice = [[f"2026-10-25T0{hour}:00:00Z", 4, 3, 3] for hour in (0, 1)]
    body = {"night": "2026-10-24", "hours": twice, "gaps": []}
    (hour,) = calendar.hours(night(**body), VIENNA)
    assert (hour.hour, hour.expected, hour.taken) == (2, 8, 6)


def test_a_reason_of_a_later_program_is_shown_as_it_came() -> None:
    assert calendar.words("eaten_by_bear") == "eaten by bear"
    assert {calendar.words(one) for one in reports.REASONS}.isdisjoint({"no_power"})
