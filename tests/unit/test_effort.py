"""What was watched and what was not: slots, the pictures in them, and the reasons for those that were missed."""

import csv
import io
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from msgspec import UNSET

import operator_desk
from fake_time import FakeTime
from season import DEVICE, REASONS, Season, right_reasons
from trapsync.catalog import Catalog
from trapsync.catalog.runs import Schedule
from trapsync.effort import nights, tables
from trapsync.effort.ledger import Ledger, Slot, gaps
from trapsync.effort.reasons import Now
from trapsync.effort.slots import Span, filled, wanted
from trapsync.errors import CameraError
from trapsync.net import heartbeat as read_heartbeat
from trapsync.remote import heartbeat
from trapsync.settings.schedule import Place
from trapsync.status import snapshot
from trapsync.status.model import LastNight

VIENNA = ZoneInfo("Europe/Vienna")
ALPS = Place(47.1, 13.2, VIENNA)
TROMSO = Place(69.6, 18.9, ZoneInfo("Europe/Oslo"))
EVERY = 300.0
# Nights, and how often each trouble comes: `scripts/torture --season` has 90 and 40.
OLDER = Path(__file__).parents[1] / "helpers" / "older"
LEDGER = ("runs", "schedules", "failures")
NIGHTS, TROUBLES = json.loads(os.environ.get("TRAPSYNC_SEASON", "[16, 7]"))


def at(text: str, zone: ZoneInfo = VIENNA) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def slots_of(
    windows: Sequence[str], since: str, until: str, every: float = 3600.0, where: Place = ALPS
) -> list[str]:
    """The slots as local times, of a schedule that was always in force."""
    zone = where.timezone
    found = wanted(windows, where, every, (-1e11, 1e11), (at(since, zone), at(until, zone)))
    return [datetime.fromtimestamp(one.begin, zone).strftime("%d %H:%M") for one in found]


# ── When pictures are due ────────────────────────────────────────────────────────────────────────────


def test_slots_begin_with_the_window_and_follow_the_interval() -> None:
    found = slots_of(["21:00 - 00:30"], "2026-06-01 12:00", "2026-06-03 12:00")
    assert found == [
        "01 21:00",
        "01 22:00",
        "01 23:00",
        "02 00:00",
        "02 21:00",
        "02 22:00",
        "02 23:00",
        "03 00:00",
    ]


def test_a_window_that_opens_within_another_begins_the_count_anew() -> None:
    found = slots_of(["20:00 - 23:00", "21:30 - 22:30"], "2026-06-01 12:00", "2026-06-02 12:00")
    assert found == ["01 20:00", "01 21:00", "01 21:30", "01 22:30"]


def test_windows_over_noon_have_their_slots() -> None:
    assert slots_of(["11:00 - 13:00"], "2026-06-01 00:00", "2026-06-02 00:00") == ["01 11:00", "01 12:00"]


def test_the_night_in_which_the_clock_goes_back_has_an_hour_more() -> None:
    assert len(slots_of(["21:00 - 05:00"], "2026-10-24 12:00", "2026-10-25 12:00")) == 9
    assert len(slots_of(["21:00 - 05:00"], "2026-03-28 12:00", "2026-03-29 12:00")) == 7


def test_polar_day_is_open_all_the_time_and_counts_the_same_whatever_is_asked() -> None:
    week = slots_of(["sunrise - sunset"], "2026-06-10 00:00", "2026-06-17 00:00", 7 * 60.0, TROMSO)
    day = slots_of(["sunrise - sunset"], "2026-06-13 00:00", "2026-06-14 00:00", 7 * 60.0, TROMSO)
    assert len(week) == 7 * 86400 // 420
    assert [one for one in week if one.startswith("13")] == day


def test_without_windows_slots_follow_each_other_for_ever() -> None:
    assert len(slots_of([], "2026-06-10 00:00", "2026-06-11 00:00", 1200.0)) == 72


def test_a_schedule_counts_from_when_it_is_in_force() -> None:
    valid = (at("2026-06-01 21:20"), at("2026-06-01 23:00"))
    found = list(
        wanted(["21:00 - 05:00"], ALPS, 3600.0, valid, (at("2026-06-01 12:00"), at("2026-06-02 12:00")))
    )
    assert [(one.begin - valid[0], one.end - valid[0]) for one in found] == [(0, 3600), (3600, 6000)]


# ── Which of them have a picture ─────────────────────────────────────────────────────────────────────


def taken(pictures: Iterable[float], slots: int = 6, now: float = 1e9, last: float = 10.0) -> str:
    """Slots of ten seconds, the last one perhaps shorter: x for a picture, - for none; those that are none are left out."""
    spans = [Span(10.0 * n, 10.0 * n + (last if n == slots - 1 else 10.0), 10.0) for n in range(slots)]
    return "".join("x" if one.is_taken else "-" for one in filled(spans, pictures, now))


def test_each_slot_is_taken_or_missed() -> None:
    assert taken([1, 11, 31, 41, 51]) == "xx-xxx"
    assert taken([]) == "------"


def test_pictures_that_wander_over_a_border_are_not_missed() -> None:
    assert taken([9.9, 20.1, 29.9, 40.1, 49.9, 59.9]) == "xxxxxx"
    assert taken([0, 10, 19.9, 30.1, 40, 50]) == "xxxxxx"


def test_two_pictures_in_one_slot_do_not_stand_for_one_that_is_far_away() -> None:
    assert taken([1, 2, 21, 31, 41, 51]) == "x-xxxx"
    assert taken([8, 9, 28, 31, 41, 51]) == "xxxxxx"


def test_an_interval_that_is_hardly_longer_than_a_slot_misses_nothing() -> None:
    assert taken([9.9, 20.1, 30.1, 40.1, 50.1]) == "xxxxx"


def test_a_window_that_closes_before_the_next_picture_is_due_misses_nothing() -> None:
    assert taken([8, 18, 28, 38, 48], last=7.0) == "xxxxx"
    assert taken([1, 11, 21, 31], last=7.0) == "xxxx--"


def test_the_present_slot_is_not_missed_yet() -> None:
    assert taken([1, 11, 21], now=35.0) == "xxx"
    assert taken([1, 11, 21], now=40.0) == "xxx-"


# ── A season ─────────────────────────────────────────────────────────────────────────────────────────


def ledger(season: Season, *, is_running: bool = True) -> Ledger:
    return Ledger(season.catalog, Now(season.time.wall(), season.time.boot_id(), is_running, 20.0))


@pytest.mark.parametrize(
    "windows", [("21:00 - 05:00",), ("sunset-30min - sunrise",), ("10:00 - 13:30", "23:00 - 03:00")]
)
def test_of_a_season_with_every_trouble_each_miss_has_its_reason(
    tmp_path: Path, windows: tuple[str, ...]
) -> None:
    season = Season(tmp_path, windows, EVERY)
    season.live(NIGHTS, TROUBLES)
    slots = list(ledger(season).slots())
    hour = tables.hour_of(VIENNA)
    rows = tables.added_up(slots, season.catalog.runs.counts_by_quarter(0, 1e11), hour)
    assert all(row.expected - row.taken == row.missed.total() for row in rows)
    outside = Counter(hour(moment).since for moment in season.taken)
    assert {row.since: row.pictures for row in rows if row.pictures} == outside
    for one in slots:
        near = [moment for moment in season.taken if abs(moment - (one.begin + one.end) / 2) <= EVERY]
        assert bool(near) >= one.is_taken >= any(one.begin <= moment < one.end for moment in near)
    right, missed = Counter[str](), Counter[str]()
    for one in slots:
        if not one.is_taken:
            there = right_reasons(season.troubles, one)
            reason = str(one.reason) if one.reason in there else (there.most_common(1) or [("none", 0)])[0][0]
            missed[reason] += 1
            right[reason] += one.reason == reason
    assert missed["none"] <= 0.01 * missed.total()
    assert all(right[reason] >= 0.95 * missed[reason] > 0 for reason in REASONS), (right, missed)


# ── What the ledger costs, and what it survives ──────────────────────────────────────────────────────


def statements(catalog: Catalog) -> list[str]:
    """Every statement from here on."""
    said: list[str] = []
    catalog.connection._db.conn.set_trace_callback(said.append)
    return said


def flushed_commits(said: list[str]) -> int:
    """How many commits of the ledger's tables are flushed for their own sake."""
    number, flushes, is_ours = 0, True, False
    for one in said:
        if one.startswith("PRAGMA synchronous="):
            flushes = one.endswith("FULL")
        is_ours = is_ours or any(f"{verb} {table}" in one for verb in ("INTO", "UPDATE") for table in LEDGER)
        if one == "COMMIT":
            number += flushes and is_ours
            is_ours = False
    return number


def test_a_run_costs_one_commit_and_a_failure_none_that_flushes(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    said = statements(season.catalog)
    season.start()
    season.watch(10 * EVERY)
    assert len(season.taken) == 10
    assert flushed_commits(said) == 1
    season.camera.error = CameraError("the cable is loose")
    season.watch(10 * EVERY)
    season.catalog.runs.end("stopped")
    assert flushed_commits(said) == 1


def test_a_year_of_power_cuts_and_failures_is_small(tmp_path: Path) -> None:
    season = Season(tmp_path, ("sunset - sunrise",), EVERY)
    size = season.settings.storage.catalog.stat().st_size
    for day in range(365):
        season.start()
        for _ in range(5):
            season.pass_(7200)
            season.catalog.runs.note_failure("card" if day % 2 else "camera", "no picture: " + "x" * 100)
        season.pass_(36000)
        season.reboot()
    season.kill()
    assert season.settings.storage.catalog.stat().st_size - size < 2e6


def test_single_runs_share_a_row_and_are_without_power_in_between(tmp_path: Path) -> None:
    season = Season(tmp_path, (), 1200.0)
    for number in range(100):
        season.catalog.runs.begin(Schedule(1200.0, (), 47.1, 13.2, "Europe/Vienna"), is_single=True)
        season.catalog.times.note_boot()
        if number not in {30, 31, 32}:
            season.picture()
        else:
            season.catalog.runs.note_failure("camera", "the cable is loose")
        if number == 60:
            season.pass_(10 * 1200)
        season.pass_(1200 - season.true % 1200 + 5)
        season.reboot()
    assert len(season.catalog.runs.all()) == 1
    reasons = Counter(one.reason for one in ledger(season, is_running=False).slots())
    assert reasons == {None: 97, "camera": 3, "no_power": 10}


def test_single_runs_are_known_though_the_time_of_the_first_never_was(tmp_path: Path) -> None:
    season = Season(tmp_path, (), 1200.0)
    season.time.is_trusted = False
    for number in range(10):
        season.catalog.runs.begin(Schedule(1200.0, (), 47.1, 13.2, "Europe/Vienna"), is_single=True)
        season.catalog.times.note_boot()
        season.picture()
        season.pass_(1200 - season.true % 1200 + 5)
        season.reboot(is_trusted=number > 0)
    assert len(season.catalog.runs.all()) == 1
    assert Counter(one.is_taken for one in ledger(season, is_running=False).slots())[True] == 8


def test_a_gap_is_of_the_battery_only_after_a_low_reading(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    for level in (90.0, 7.0, 90.0, 7.0):
        season.battery = level
        season.start()
        season.watch(2 * EVERY)
        season.kill()
        season.pass_(3 * EVERY)
        season.reboot()
    missed = [one.reason for one in gaps(ledger(season, is_running=False).slots())]
    assert missed == ["no_power", "battery", "no_power", "battery"]


def test_thousands_of_runs_and_of_missed_slots_are_read_with_few_queries(tmp_path: Path) -> None:
    season = Season(tmp_path, (), 60.0)
    season.start()
    season.picture()
    season.pass_(10 * 86400.0)
    season.reboot()
    said = statements(season.catalog)
    assert len(list(ledger(season, is_running=False).slots())) > 14000
    assert len(said) < 100


def forget_runs(season: Season) -> None:
    """Leave what a sweep finds again after the catalog was lost."""
    with closing(sqlite3.connect(season.settings.storage.catalog)) as db, db:
        for table in ("failures", "runs", "schedules"):
            db.execute(f"DELETE FROM {table}")


def test_a_catalog_of_an_older_program_has_its_pictures_and_no_reasons(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLDER / "catalog-13fe5f4.sql").read_text())
        connection.commit()
    time = FakeTime()
    with closing(Catalog.open(path, time)) as catalog:
        newest = max(catalog.runs.pictures(0, 1e11))
        time.step_wall(newest + 5 - time.wall())
        catalog.runs.begin(Schedule(60.0, (), 47.1, 13.2, "UTC"), is_single=False)
        time.sleep(600)
        slots = list(
            Ledger(catalog, Now(time.wall(), time.boot_id(), is_running=True, low_battery=20.0)).slots()
        )
        pictures = list(catalog.runs.pictures(newest - 86400, 1e11))
    assert pictures
    assert {one.reason for one in slots} <= {None, "unknown"}
    assert {moment // 60 for moment in pictures} <= {one.begin // 60 for one in slots if one.is_taken}


def test_pictures_of_another_season_are_no_slots_of_this_one(tmp_path: Path) -> None:
    season = Season(tmp_path, (), 1.0)
    season.picture()
    season.pass_(150 * 86400.0)
    season.picture()
    season.pass_(10.0)
    season.start()
    season.pass_(10.0)
    slots = list(ledger(season).slots())
    assert 15 < len(slots) < 30
    assert slots[0].is_taken


def test_after_the_catalog_was_lost_what_is_missing_is_unknown(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 05:00",), EVERY)
    season.live(4, 1)
    whole = list(ledger(season).slots())
    forget_runs(season)
    season.start()
    rebuilt = list(ledger(season).slots())
    assert {one.begin for one in rebuilt if one.is_taken} == {one.begin for one in whole if one.is_taken}
    assert {one.reason for one in rebuilt if one.begin < season.true} == {None, "unknown"}


def test_times_that_are_corrected_later_count_where_they_belong(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    season.start()
    season.watch(10 * EVERY)
    season.kill()
    season.reboot(is_trusted=False, wrong_by=-600.0)
    season.start()
    first = season.true
    season.watch(10 * EVERY)
    assert {one.reason for one in ledger(season).slots(first - 2 * EVERY)} >= {"clock"}
    season.time.step_wall(-600.0)
    season.time.is_trusted = True
    season.catalog.times.note_boot()
    for image, offset, _ in season.catalog.times.correctable(100):
        assert image.evidence
        with season.catalog.connection.transaction("test") as db:
            right = int(offset + image.evidence.monotonic)
            db.execute("UPDATE images SET rank = ?, timing = 'confirmed' WHERE id = ?", [right, image.id])
    found = list(ledger(season).slots(first))
    assert found
    assert all(one.is_taken for one in found)


def test_other_schedules_have_their_own_slots(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    season.start()
    season.watch(4 * EVERY)
    began = season.true
    season.stop("settings")
    season.catalog.runs.begin(Schedule(60.0, (), 47.1, 13.2, "Europe/Vienna"), is_single=False)
    season.pass_(600)
    found = list(ledger(season).slots(began))
    assert {round(one.end - one.begin) for one in found[1:]} == {60}
    season.stop("settings")
    season.catalog.runs.begin(None, is_single=False)
    quiet = season.true
    season.pass_(3600)
    assert not list(ledger(season).slots(quiet))


def test_what_ended_the_last_run_holds_until_now(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    season.start()
    season.watch(4 * EVERY)
    since = season.true + EVERY
    season.pass_(10 * EVERY)
    assert {one.reason for one in ledger(season, is_running=True).slots(since)} == {"unknown"}
    assert {one.reason for one in ledger(season, is_running=False).slots(since)} == {"unknown"}
    season.reboot()
    assert {one.reason for one in ledger(season, is_running=False).slots(since)} == {"no_power"}


# ── Clocks that were trusted and wrong ───────────────────────────────────────────────────────────────


def restart(season: Season, wrong_by: float, every: float = EVERY) -> None:
    """Begin another run after a reboot, with a clock that is trusted and so much behind."""
    season.kill()
    season.reboot(wrong_by=wrong_by)
    season.catalog.times.note_boot()
    season.catalog.runs.begin(Schedule(every, (), 47.1, 13.2, "Europe/Vienna"), is_single=False)
    season.picture()
    season.pass_(10 * EVERY)


@pytest.mark.parametrize("wrong_by", [-400 * 86400.0, 400 * 86400.0, 1800.0])
def test_a_clock_that_is_wrong_for_a_while_makes_no_slots_of_years_and_none_twice(
    tmp_path: Path, wrong_by: float
) -> None:
    season = Season(tmp_path, (), EVERY)
    began = season.true
    restart(season, 0.0)
    restart(season, wrong_by, 200.0)
    restart(season, 0.0, 100.0)
    slots = list(ledger(season).slots())
    assert slots[0].begin >= began - EVERY
    assert slots[-1].end <= season.true
    assert all(one.end <= later.begin for one, later in pairwise(slots))
    assert {round(one.end - one.begin) for one in slots[-20:]} == {100}


def test_what_a_run_says_counts_until_the_next_one_began_even_where_the_clock_was_put_back(
    tmp_path: Path,
) -> None:
    season = Season(tmp_path, (), EVERY)
    restart(season, -7200.0)
    season.stop("stopped")
    restart(season, 0.0)
    season.stop("card")
    since = season.true + EVERY
    season.pass_(40 * EVERY)
    reasons = {one.reason for one in ledger(season, is_running=False).slots(since) if not one.is_taken}
    assert reasons == {"card"}


def test_slots_are_the_same_whatever_span_is_asked_for(tmp_path: Path) -> None:
    season = Season(tmp_path, (), EVERY)
    season.start()
    season.pass_(EVERY * 1.6)
    season.picture()
    season.picture()
    season.pass_(EVERY * 5)
    whole = list(ledger(season).slots())
    assert [one.is_taken for one in whole][:4] == [False, True, True, False]
    for one in whole:
        parts = [*ledger(season).slots(until=one.begin), *ledger(season).slots(one.begin)]
        assert parts == whole


# ── Added up ─────────────────────────────────────────────────────────────────────────────────────────


def test_hours_and_nights_are_local_ones() -> None:
    kathmandu = tables.hour_of(ZoneInfo("Asia/Kathmandu"))(at("2026-06-01 21:20", ZoneInfo("Asia/Kathmandu")))
    assert kathmandu.name == "2026-06-01 21:00"
    assert kathmandu.until - kathmandu.since == 3600
    night = tables.night_of(VIENNA)
    assert {
        night(at(text)).name for text in ("2026-06-01 12:00", "2026-06-01 23:59", "2026-06-02 11:59")
    } == {"2026-06-01"}
    autumn = night(at("2026-10-25 02:30"))
    assert (autumn.name, autumn.until - autumn.since) == ("2026-10-24", 25 * 3600)


def test_gaps_are_slots_in_a_row_of_one_reason() -> None:
    kinds = [None, "camera", "camera", "off", None, "off"]
    slots = [Slot(10.0 * n, 10.0 * n + 10, kind is None, kind) for n, kind in enumerate(kinds)]  # type: ignore[arg-type]
    assert list(gaps(slots)) == [(10, 30, 2, "camera"), (30, 40, 1, "off"), (50, 60, 1, "off")]


def test_a_night_is_told_with_its_hours_and_gaps(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(at("2026-06-23 21:15") - season.true)
    season.trouble("camera", 4200.0)
    season.watch(86400.0)
    told = dict(nights.reports(season.catalog, season.settings, lambda _: False))
    assert list(told)[-1] == "2026-06-23"
    assert told["2026-06-23"] == {
        "schema": 1,
        "night": "2026-06-23",
        "timezone": "Europe/Vienna",
        "hours": [["2026-06-23T19:00:00Z", 3, 1, 1], ["2026-06-23T20:00:00Z", 3, 2, 2]],
        "gaps": [["2026-06-23T19:20:00Z", "2026-06-23T20:20:00Z", 3, "camera"]],
    }
    assert len(json.dumps(told["2026-06-23"])) < 300


def test_the_last_night_stands_in_the_status_and_the_heartbeat(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(at("2026-06-23 21:15") - season.true)
    season.trouble("camera", 4200.0)
    season.watch(at("2026-06-24 12:30") - season.true)
    status = snapshot(season.settings, season.time, DEVICE)
    assert status.plain()["last_night"] == {
        "night": "2026-06-23",
        "expected": 6,
        "taken": 3,
        "missed": {"camera": 3},
    }
    told = heartbeat.compose(status, 900)
    assert read_heartbeat.read(read_heartbeat.decode(told)).last_night == read_heartbeat.LastNight(
        night="2026-06-23", expected=6, taken=3, missed={"camera": 3}
    )
    status.last_night = LastNight(
        night="2026-06-23", expected=9999, taken=0, missed=dict.fromkeys(REASONS, 1111)
    )
    worst = len(heartbeat.compose(status, 900))
    status.last_night = UNSET
    assert worst - len(heartbeat.compose(status, 900)) <= 200


def test_a_night_that_the_hub_knows_is_told_again_only_while_it_may_change(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(30 * 86400.0)
    told = dict(nights.reports(season.catalog, season.settings, lambda _: False))
    known = {night for night in told if night != "2026-06-25"}
    again = dict(nights.reports(season.catalog, season.settings, known.__contains__))
    assert len(told) == 30
    assert list(again) == ["2026-06-25", *list(told)[-14:]]
    assert again == {night: told[night] for night in again}


def test_a_night_in_which_nothing_was_due_is_told_as_such(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(2 * 86400.0)
    season.stop("settings")
    season.catalog.runs.begin(None, is_single=False)
    season.pass_(3 * 86400.0)
    told = dict(nights.reports(season.catalog, season.settings, lambda _: False))
    assert [len(one["hours"]) for one in told.values()] == [1, 2, 2, 0, 0]


def test_what_the_hub_knows_is_not_replaced_by_what_a_lost_catalog_knows(tmp_path: Path) -> None:
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(5 * 86400.0)
    forget_runs(season)
    season.start()
    season.watch(3 * 86400.0)
    told = dict(nights.reports(season.catalog, season.settings, lambda _: False))
    again = dict(nights.reports(season.catalog, season.settings, lambda _: True))
    assert (len(told), len(again)) == (8, 2)
    assert list(again) == list(told)[-2:]


# ── trapsync effort ──────────────────────────────────────────────────────────────────────────────────

Effort = operator_desk.Say


@pytest.fixture
def effort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Effort:
    """Run `trapsync effort` on a trap that took pictures for two nights, and had no power for an hour of the second."""
    season = Season(tmp_path, ("21:00 - 23:00",), 1200.0)
    season.start()
    season.watch(at("2026-06-24 21:15") - season.true)
    season.trouble("no_power", 4200.0)
    season.watch(86400.0)
    season.kill()
    season.catalog.close()
    config = tmp_path / "trap.toml"
    config.write_text(
        f'[trap]\ndevice = "{DEVICE}"\nlatitude = 47.1\nlongitude = 13.2\ntimezone = "Europe/Vienna"\nclock = "trusted"\n'
        '[storage]\nspool = "spool"\nstate = "state"\n[camera]\nkind = "simulated"\n'
        '[capture]\nevery = "20 min"\nschedule = ["21:00 - 23:00"]\n'
    )
    monkeypatch.setattr("trapsync.clock.SystemClock.wall", lambda _: season.time.wall())
    monkeypatch.chdir(tmp_path)

    return partial(operator_desk.typing(monkeypatch, capsys), "-c", config, "effort")


def test_effort_shows_each_night_and_why_pictures_are_missing(effort: Effort) -> None:
    code, out, _ = effort()
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.startswith("2026-06-24")]
    assert row == ["2026-06-24", "6", "3", "3", "3", "no", "power", "3"]
    assert out.splitlines()[-1].startswith("total")


def test_effort_is_read_by_programs(effort: Effort) -> None:
    rows = json.loads(effort("--json", "--by", "hour", "--from", "2026-06-24")[1])["rows"]
    assert [(row["since"], row["expected"], row["taken"], row["missed"]) for row in rows][:2] == [
        ("2026-06-24T19:00:00Z", 3, 1, {"no_power": 2}),
        ("2026-06-24T20:00:00Z", 3, 2, {"no_power": 1}),
    ]
    table = list(csv.DictReader(io.StringIO(effort("--csv")[1])))
    assert [(one["night"], one["missed"], one["no_power"]) for one in table][-2] == ("2026-06-24", "3", "3")


def test_effort_draws_nights_and_hours(effort: Effort) -> None:
    out = effort("--calendar")[1].splitlines()
    assert out[0].split() == ["21", "22"]
    assert [line.split() for line in out[1:5]][-2:] == [
        ["2026-06-23", "██", "██"],
        ["2026-06-24", "░░", "▓▓"],
    ]


def test_effort_of_a_span_that_cannot_be_is_one_line(effort: Effort) -> None:
    for words, what in (
        (["--from", "2026-06-24", "--until", "2026-06-23"], "this is not after --from"),
        (["--from", "2126-06-24"], "this is in the future"),
        (["--from", "last summer"], "is no moment"),
        (["--json", "--csv"], "only one of --calendar, --json and --csv"),
    ):
        code, _, err = effort(*words)
        assert code == 2
        assert what in err.splitlines()[-1]


def test_effort_says_where_nothing_was_due(effort: Effort) -> None:
    assert "no picture was due" in effort("--until", "2026-01-01")[1]
