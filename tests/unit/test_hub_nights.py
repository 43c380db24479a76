"""The nights of a trap, from its catalog to the hub: what people see at home is what the trap's own ledger says."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import reported
from season import DEVICE, REASONS, Season
from trapsync.effort import tables
from trapsync.effort.ledger import ledger
from trapsync.hub.app import Hub
from trapsync.net.http_answer import Answer
from trapsync.runtime import hub_reports
from trapsync.settings.time_zone import zone
from trapsync.trap import open_to_read


class Told:
    """A trap of some nights with every trouble, and the hub that it tells of them."""

    def __init__(self, folder: Path) -> None:
        self.season = Season(folder / "trap", ("21:00 - 02:00",), 900.0)
        self.season.live(6, 1)
        self.season.watch(43200.0)  # until noon is over
        self.hub = Hub.open(folder / "hub", self.season.time)
        reported.heard(self.hub, DEVICE)
        self.posted: list[bytes] = []

    def turn(self) -> list[str]:
        """A turn of the reports after a start; the keys of what was sent."""
        self.posted.clear()
        season = self.season
        reporter = hub_reports.reporter(DEVICE, season.catalog, season.settings, season.time)
        reporter.send(self._post)
        return [json.loads(one)[1] for data in self.posted for one in data.splitlines()]

    def _post(self, data: bytes, since: int) -> Answer:
        self.posted.append(data)
        answer = json.dumps(self.hub.reports.take(DEVICE, data, since)).encode()
        return Answer("hub.example.org", 200, {"Content-Type": "application/json"}, answer)

    def at_hub(self) -> dict[str, tuple[int, int, dict[str, int]]]:
        """By night: expected, taken, and missed by reason, as the hub adds it up."""
        return {str(one.night): (one.expected, one.taken, one.missed) for one in self.hub.reports.effort()}

    def on_trap(self) -> dict[str, tuple[int, int, dict[str, int]]]:
        """The same of the trap's ledger, but for the night that is not over."""
        season = self.season
        with closing(open_to_read(season.settings, season.time)) as reader:
            slots = ledger(reader, season.settings).slots()
            rows = tables.added_up(slots, [], tables.night_of(zone(season.settings)))
        return {
            row.name: (row.expected, row.taken, {str(reason): n for reason, n in row.missed.items()})
            for row in rows
            if row.until <= season.true
        }


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    told.season.catalog.close()
    told.hub.database.close()


def test_the_hub_has_each_night_that_is_over_as_the_traps_ledger_has_it(told: Told) -> None:
    told.turn()

    assert told.at_hub() == told.on_trap()
    assert len(told.at_hub()) >= 6
    assert {reason for _, _, missed in told.at_hub().values() for reason in missed} >= set(REASONS) - {
        "unknown"
    }


def test_of_another_day_one_night_more_is_told(told: Told) -> None:
    first = told.turn()
    assert told.turn() == []
    told.season.watch(86400.0)

    again = told.turn()

    assert len(again) == 1
    assert told.at_hub() == told.on_trap()
    assert not set(again) & set(first)


def test_a_night_that_says_something_else_by_now_is_told_again_with_the_next_one(told: Told) -> None:
    told.turn()
    (night, *_) = told.on_trap()
    with told.season.catalog.connection.transaction("together") as db:
        db.execute("UPDATE images SET rank = rank + 100000 WHERE id = (SELECT min(id) FROM images)")

    assert told.turn() == []
    told.season.watch(86400.0)

    assert night in told.turn()
    assert told.at_hub() == told.on_trap()


def test_what_was_told_before_the_catalog_was_lost_stays_at_the_hub(told: Told) -> None:
    told.turn()
    before = told.at_hub()
    with told.season.catalog.connection.transaction("together") as db:
        for table in ("failures", "runs", "schedules", "reports", "reports_hub"):
            db.execute(f"DELETE FROM {table}")
    told.season.start()
    told.season.watch(2 * 86400.0)
    assert {night: told.on_trap()[night] for night in before} != before  # it knows no reasons any more

    told.turn()

    after = told.at_hub()
    assert {night: after[night] for night in before} == before
    assert len(after) == len(before) + 2
