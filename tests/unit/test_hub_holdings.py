"""What a hub holds of its traps: by trap, night, deployment and time, found by an index, never more than was asked for."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest

import filled_hub
import reported
from fake_time import FakeTime
from filled_hub import NOW, device
from trapsync.hub import nights
from trapsync.hub.app import Hub
from trapsync.hub.database import Database
from trapsync.hub.holdings import Holdings
from trapsync.hub.nights import LocalTime, Span
from trapsync.hub.store import Wanted, by_keys, by_ranges
from trapsync.net.reports import Deployment

VIENNA = LocalTime(ZoneInfo("Europe/Vienna"), True)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub.open(tmp_path / "hub", FakeTime())
    yield hub
    hub.database.close()


@pytest.fixture
def held(hub: Hub) -> Holdings:
    """Two traps: one with 200 images in three nights, one with a single one."""
    filled_hub.add_images(hub.database, 1, 200)
    filled_hub.add_images(hub.database, 2, 1)
    return Holdings(hub.database)


def taken(rows: list[dict[str, Any]]) -> list[str]:
    return [row["datetime"] for row in rows]


def test_the_newest_image_of_each_trap_is_its_last_before_the_moment(held: Holdings) -> None:
    newest = held.newest(NOW)
    assert {key: row["datetime"] for key, row in newest.items()} == {
        device(1): "2026-06-25T01:55:00Z",
        device(2): "2026-06-24T20:00:00Z",
    }
    assert held.newest(datetime(2026, 6, 24, 21, tzinfo=UTC))[device(1)]["datetime"] == "2026-06-24T20:55:00Z"
    assert set(held.newest(datetime(2026, 6, 24, 12, tzinfo=UTC))) == {device(1)}


def test_a_hub_without_an_image_has_no_newest(hub: Hub) -> None:
    assert Holdings(hub.database).newest(NOW) == {}


def test_a_trap_whose_client_writes_capitals_is_one_trap(hub: Hub) -> None:
    filled_hub.add_images(hub.database, 0xAB, 3)
    with hub.database.writing() as connection:
        connection.execute("UPDATE images SET device = upper(device) WHERE id = 2")
    held = Holdings(hub.database)
    assert list(held.newest(NOW)) == ["000000ab"]
    assert len(held.images("000000ab", None, 10)) == 3


def test_nights_are_counted_the_newest_first_and_the_older_ones_follow(held: Holdings) -> None:
    found = held.nights(device(1), VIENNA, NOW, 2)
    assert found == [(date(2026, 6, 24), 72), (date(2026, 6, 23), 72)]
    older = held.nights(device(1), VIENNA, VIENNA.span_of(found[-1].night).since, 10)
    assert older == [(date(2026, 6, 22), 56)]


def test_images_come_in_pages_forwards_and_backwards(held: Holdings) -> None:
    span = VIENNA.span_of(date(2026, 6, 24))
    first = held.images(device(1), span, 40)
    second = held.images(device(1), span, 40, first[-1]["datetime"])
    assert (len(first), len(second)) == (40, 32)
    assert held.images_before(device(1), span, 40, second[0]["datetime"]) == first
    assert held.images(device(1), span, 40, second[-1]["datetime"]) == []


def test_an_image_has_its_neighbours_in_other_nights_too(held: Holdings) -> None:
    before, after = (held.image_before, held.image_after)
    assert (row := before(device(1), "2026-06-24T20:00:00Z"))
    assert row["datetime"] == "2026-06-24T01:55:00Z"
    assert (row := after(device(1), "2026-06-24T01:55:00Z"))
    assert row["datetime"] == "2026-06-24T20:00:00Z"
    assert after(device(1), "2026-06-25T01:55:00Z") is None
    assert held.image(device(1), "2026-06-25T01:55:01Z") is None


def test_a_strip_is_spread_over_its_night(held: Holdings) -> None:
    span = Span(datetime(2026, 6, 24, 20, tzinfo=UTC), datetime(2026, 6, 25, 2, tzinfo=UTC))
    found = held.spread(device(1), [*span.parts(4), *span.parts(2)])
    assert taken(found) == [f"2026-06-24T{time}:00Z" for time in ("20:00", "21:30", "23:00")] + [
        "2026-06-25T00:30:00Z"
    ]


def test_a_deployment_has_the_images_of_its_time(held: Holdings) -> None:
    ended = Deployment("1", datetime(2026, 6, 23, tzinfo=UTC), datetime(2026, 6, 24, 12, tzinfo=UTC))
    lasting = Deployment("2", datetime(2026, 6, 24, 12, tzinfo=UTC))
    assert held.count(device(1), Span.of_deployment(ended)) == 8 + 72
    assert held.count(device(1), Span.of_deployment(lasting)) == 72


def test_neighbours_of_a_night_have_images_or_a_report(hub: Hub, held: Holdings) -> None:
    filled_hub.add_nights(hub.database, 1, 1)  # 24 June
    body = reported.night(-10)  # 11 June, of which there is no image
    reported.heard(hub, device(1))
    hub.reports.take(device(1), reported.lines(body), 0, device(1))
    about = [held.neighbours(device(1), VIENNA, date(2026, 6, day)) for day in (24, 22, 11, 5)]
    assert about == [
        (date(2026, 6, 23), None),
        (date(2026, 6, 11), date(2026, 6, 23)),
        (None, date(2026, 6, 22)),
        (None, date(2026, 6, 11)),
    ]


def test_local_time_is_that_of_the_newest_night_that_names_a_zone_there_is(hub: Hub) -> None:
    held = Holdings(hub.database)
    assert held.local_time(device(1)) == (ZoneInfo("UTC"), False)
    filled_hub.add_nights(hub.database, 1, 3)
    with hub.database.writing() as connection:
        newest = "UPDATE reports SET body = replace(body, 'Europe/Vienna', ?) WHERE key = '2026-06-24'"
        connection.execute(newest, ("../../etc/passwd",))
    assert held.local_time(device(1)) == VIENNA


def test_a_night_lasts_from_local_noon_to_noon_also_as_summer_time_begins() -> None:
    assert VIENNA.span_of(date(2026, 3, 28)).stored() == ("2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z")
    for second, night in (("2026-03-29T09:59:59Z", 28), ("2026-03-29T10:00:00Z", 29)):
        assert VIENNA.night_of(datetime.fromisoformat(second)) == date(2026, 3, night)


@pytest.mark.parametrize(
    "text", ["", "today", "20260621", "2026-W25-7", "2026-02-30", "0001-01-01", "9999-12-31", "٢٠٢٦-٠٦-٢١"]
)
def test_what_is_no_night_is_none(text: str) -> None:
    assert nights.read_night(text) is None


def test_heartbeats_of_a_span_are_as_many_as_asked_for_and_leave_gaps(hub: Hub) -> None:
    filled_hub.add_heartbeats(hub.database, 1, 90)
    held, now = Holdings(hub.database), NOW.timestamp()
    with hub.database.writing() as connection:
        silent = (now - 86400, now - 43200)
        connection.execute("DELETE FROM heartbeats WHERE received >= ? AND received < ?", silent)
    two_days = held.heartbeats(device(1), now - 2 * 86400, now + 1, 400)
    season = held.heartbeats(device(1), now - 90 * 86400, now + 1, 400)
    assert len(two_days) == 192 - 48 + 1
    assert 390 <= len(season) <= 400
    assert max(b.at - a.at for a, b in pairwise(two_days)) == 43200 + 900
    assert (season[0].beat.battery, season[0].at) == (77.0, now - 90 * 86400)


def test_a_heartbeat_that_an_earlier_hub_took_and_is_none_says_nothing(hub: Hub) -> None:
    with hub.database.writing() as connection:
        sql = "INSERT INTO heartbeats (device, received, body) VALUES (?, 5, ?)"
        connection.executemany(sql, [(device(1), "{" * 99), (device(2), '{"battery": "full"}')])
    for number in (1, 2):
        heard = Holdings(hub.database).last_heard(device(number))
        assert heard
        assert (heard.at, heard.beat.battery, bool(heard.beat.odd)) == (5, None, True)


QUESTIONS: list[Callable[[Holdings], object]] = [
    lambda held: held.newest(NOW),
    lambda held: held.newest_of(device(1), NOW),
    lambda held: held.image(device(1), "2026-06-24T20:00:00Z"),
    lambda held: held.image_after(device(1), "2026-06-24T20:00:00Z"),
    lambda held: held.images(device(1), VIENNA.span_of(date(2026, 6, 24)), 40),
    lambda held: held.images_before(device(1), VIENNA.span_of(date(2026, 6, 24)), 40, "9999"),
    lambda held: held.spread(device(1), VIENNA.span_of(date(2026, 6, 24)).parts(5)),
    lambda held: held.annotated([{"id": 1}]),
    lambda held: held.local_time(device(1)),
    lambda held: held.nights(device(1), VIENNA, NOW, 5),
    lambda held: held.neighbours(device(1), VIENNA, date(2026, 6, 24)),
    lambda held: held.last_heard(device(1)),
    lambda held: held.first_heard(device(1)),
    lambda held: held.heartbeats(device(1), 0, 1e9, 400),
]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_no_question_reads_a_table_from_end_to_end(hub: Hub, held: Holdings, number: int) -> None:
    assert plans(held, QUESTIONS[number])
    scans = [plan for plan in plans(held, QUESTIONS[number]) if is_scan(plan)]
    assert scans == []


@pytest.mark.parametrize(
    ("wanted", "how"),
    [
        (by_keys([(device(1), "2026-06-24T20:00:00Z")]), "device=? AND datetime=?"),
        (by_ranges([(device(1), "2026-06-24", "2026-06-25")]), "device=? AND datetime>? AND datetime<?"),
    ],
)
def test_images_that_are_named_are_found_by_the_whole_index(
    hub: Hub, held: Holdings, wanted: Wanted, how: str
) -> None:
    def ask(_: Holdings) -> None:
        assert list(hub.store.find(wanted))
        list(hub.annotations.find(wanted, with_json=False))

    found = [plan for plan in plans(held, ask) if "one" in plan or "asked" in plan]
    assert any(how in plan for plan in found)
    # What looks at all images does it for each pattern that is asked for: there is none.
    for before, plan in pairwise(["", *found]):
        assert not plan.startswith("SCAN one") or before.startswith("SCAN asked")


def test_the_nights_and_deployments_of_one_trap_are_found_by_an_index(hub: Hub) -> None:
    def ask(_: Holdings) -> None:
        list(hub.reports.nights([device(1)], date(2026, 6, 1), date(2026, 7, 1)))
        list(hub.reports.deployments([device(1)]))

    found = plans(Holdings(hub.database), ask)
    assert all("kind=? AND device=?" in plan for plan in found if "reports" in plan)
    assert any("reports" in plan for plan in found)


def is_scan(plan: str) -> bool:
    """Whether a table of the hub is read through. A list that is given, and the first row of an index, are not."""
    small = ("span", "json_each", "CONSTANT ROW", "found", "images USING COVERING INDEX")
    return plan.startswith("SCAN") and not any(plan.startswith(f"SCAN {name}") for name in small)


def plans(held: Holdings, ask: Callable[[Holdings], object]) -> list[str]:
    """How SQLite finds the answers to the queries of a question."""
    found = list[str]()
    rows = Database.rows

    def explained(self: Database, sql: str, values: Any, most: int) -> Iterator[dict[str, Any]]:
        with self.reading() as connection:
            found.extend(row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
        return rows(self, sql, values, most)

    with mock.patch.object(Database, "rows", explained):
        ask(held)
    return found
