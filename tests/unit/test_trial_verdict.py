"""The judge of a trial, on a real catalog and with time that stands still: what is well, and what is worse."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec import structs

import drawings
import processes
import trap_bench as bench
from trapsync.clock import utc
from trapsync.image import Evidence
from trapsync.runtime import trial
from trapsync.runtime.trial import Before, Failure, Judge, Trial
from trapsync.settings.schema import Capture, Hub, Prune, Remote, RemoteLimits, Settings
from trapsync.settings.units import Duration

MINUTE = 60.0
OK = "OK"  # all was OK for long enough
GOOD = Before(pictures=True, open=(), hub=False, bytes_a_day=10.0**9)


def before(**changes: Any) -> Before:
    """Another trap than the good one, as it was before."""
    return replace(GOOD, **changes)


memory_used = trial.memory_used


@pytest.fixture(autouse=True)
def _spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of this process is looked at in its own tests: the kernel takes its time over it."""
    monkeypatch.setattr(trial, "memory_used", lambda: 0)


class Court:
    """A trap with settings on trial: a picture every ten minutes, judged after an hour."""

    def __init__(self, folder: Path, was: Before = GOOD, **settings: Any) -> None:
        self.trap = bench.Trap(folder)
        self.time = self.trap.time
        self.settings = Settings(
            storage=self.trap.storage,
            capture=Capture(every=Duration(10 * MINUTE)),
            remote=Remote(limits=RemoteLimits(min_days=0.0)),
        )
        self.settings = structs.replace(self.settings, **settings)
        self.trap.register(bench.Memory("home"), bench.Memory("stick"))
        self.trial = Trial(self.settings, was, self.trap.catalog, self.time, {})

    def picture(self, size: int = 0) -> None:
        """The trap takes one, and it gets into the catalog."""
        seen = Evidence(self.time.boot_id(), self.time.monotonic(), self.time.wall(), trusted=True)
        taken = utc(self.time.wall())
        content = drawings.trap(taken=taken, evidence=seen) + b"\0" * size
        drawings.put(
            self.trap.storage.spool,
            content,
            f"{drawings.DEVICE}/{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg",
        )
        self.trap.ingest()

    def pass_by(
        self, minutes: float, every: float = 10, overdue: tuple[str, ...] = ()
    ) -> Failure | str | None:
        """Minutes pass, with a picture every so many; the verdict, as soon as there is one."""
        next_picture = self.time.monotonic()
        for _ in range(int(minutes * 2)):
            if self.time.monotonic() >= next_picture and every:
                self.picture()
                next_picture += every * MINUTE
            self.time.sleep(MINUTE / 2)
            if failure := self.trial.look(overdue):
                return failure
            if self.trial.is_passed:
                return OK
        return None

    def delivers(self, name: str) -> None:
        self.trap.deliver(bench.Memory(name))


def test_a_trap_that_takes_its_pictures_for_an_hour_does_well(tmp_path: Path) -> None:
    court = Court(tmp_path)
    assert court.pass_by(59) is None
    assert court.pass_by(2) == OK


def test_a_slow_rhythm_is_given_the_time_of_three_pictures(tmp_path: Path) -> None:
    court = Court(tmp_path, capture=Capture(every=Duration(60 * MINUTE)))
    assert court.pass_by(175, every=60) is None
    assert court.pass_by(10, every=60) == OK


def test_a_camera_that_does_not_keep_the_new_rhythm_is_noticed(tmp_path: Path) -> None:
    verdict = Court(tmp_path).pass_by(190, every=20)
    assert isinstance(verdict, Failure)
    assert (verdict.code, "not 18" in verdict.reason) == ("captures", True)


def test_one_bad_hour_is_forgiven(tmp_path: Path) -> None:
    court = Court(tmp_path)
    assert court.pass_by(61, every=40) is None
    assert court.pass_by(62) == OK


def test_only_the_hours_awake_count(tmp_path: Path) -> None:
    # It is 20:19 UTC; the window opens in forty minutes.
    court = Court(tmp_path, capture=Capture(every=Duration(10 * MINUTE), schedule=("21:00 - 05:00",)))
    assert court.pass_by(45, every=0) is None
    assert court.pass_by(45) is None
    assert court.pass_by(20) == OK


def test_while_the_clock_is_not_set_every_hour_counts_as_pictures_are_taken_in_all(tmp_path: Path) -> None:
    court = Court(tmp_path, capture=Capture(every=Duration(10 * MINUTE), schedule=("23:00 - 05:00",)))
    court.time.is_trusted = False
    assert court.pass_by(62) == OK


@pytest.mark.parametrize(("works", "verdict", "days"), [(True, "committed", 2), (False, "rolled back", 6)])
def test_a_trap_that_is_shut_down_after_half_an_hour_each_day_comes_to_a_verdict(
    tmp_path: Path, works: bool, verdict: str, days: int
) -> None:
    court, remote = Court(tmp_path, before(open=("home",))), Mock()
    judged: list[str | None] = []
    for _ in range(30):
        court.trial = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {})
        judge = Judge(court.trial, remote, court.trap.catalog, "the hash")
        judge_now = partial(judge.judge, ())
        for minute in range(30):
            if minute % 10 == 0:
                court.picture()
                if works:
                    court.delivers("home")
            court.time.sleep(MINUTE)
            judged.append(judge_now())
            if judged[-1]:
                break
        if judged[-1]:
            break
        judge.interrupted()
        court.time.sleep(23.5 * 3600)
        court.time.reboot()
    assert judged[-1] == verdict
    assert remote.uncount_start.call_count == days - 1
    # Another document begins anew.
    other = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {})
    Judge(other, remote, court.trap.catalog, "another hash")
    assert other.awake == 0.0


DAILY = Capture(every=Duration(360 * MINUTE), schedule=("21:00 - 21:15",))


def days_pass(court: Court, days: float, *, pictures: bool, restart_at: float = -1.0) -> tuple[float, Any]:
    """Days pass from 20:19 on, with a picture at 21:00 each or none; after how many hours there is which verdict."""
    began, remote, due = court.time.wall(), Mock(), court.time.wall() + 41 * MINUTE
    judge = Judge(court.trial, remote, court.trap.catalog, "the hash")
    while court.time.wall() - began < days * 86400:
        if pictures and court.time.wall() >= due:
            court.picture()
            due += 86400
        court.time.sleep(5 * MINUTE)
        if end := judge.judge(()):
            return (court.time.wall() - began) / 3600, (end, *(remote.roll_back.call_args or ((),))[0])
        if 0 <= restart_at * 3600 <= court.time.wall() - began:
            restart_at = -1.0
            judge.interrupted()
            court.time.reboot()
            court.trial = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {})
            judge = Judge(court.trial, remote, court.trap.catalog, "the hash")
    return days * 24, None


def test_a_schedule_that_is_open_for_minutes_a_day_comes_to_a_verdict_in_days(tmp_path: Path) -> None:
    hours, said = days_pass(Court(tmp_path / "a", capture=DAILY), 10, pictures=True)
    assert (said, 48 <= hours < 49) == (("committed",), True)
    hours, said = days_pass(Court(tmp_path / "b", capture=DAILY), 10, pictures=False)
    assert (said[:2], 48 <= hours < 49) == (("rolled back", "captures"), True)


def test_the_pictures_of_the_starts_before_count_where_the_calendar_ends_the_trial(tmp_path: Path) -> None:
    # Started again an hour before the end: no picture was due since.
    hours, said = days_pass(Court(tmp_path, capture=DAILY), 10, pictures=True, restart_at=47)
    assert (said, 48 <= hours < 49) == (("committed",), True)


def test_a_link_that_is_down_is_given_longer_than_a_camera_without_pictures(tmp_path: Path) -> None:
    hours, said = days_pass(Court(tmp_path, before(open=("home",)), capture=DAILY), 10, pictures=True)
    assert (said[:2], 144 <= hours < 145) == (("rolled back", "link_lost"), True)


def test_a_clock_that_is_put_right_by_years_ends_no_trial(tmp_path: Path) -> None:
    court = Court(tmp_path)
    court.time.is_trusted = False
    judge = Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    assert court.pass_by(10) is None
    judge.interrupted()
    court.time.reboot()
    court.time.step_wall(1000 * 86400)
    court.time.is_trusted = True
    court.trial = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {})
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    assert court.pass_by(30) is None


def test_a_trial_whose_time_an_older_version_noted_goes_on(tmp_path: Path) -> None:
    court = Court(tmp_path)
    court.trap.catalog.facts.set("trial", {"hash": "the hash", "awake": 3500.0})
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    assert court.trial.awake == 3500.0


def test_pictures_that_show_next_to_nothing_end_a_trial_if_they_did_not_before(tmp_path: Path) -> None:
    dark = {"failures": 0, "error": None, "oddity": "the pictures show next to nothing"}
    court = Court(tmp_path / "new")
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    court.trap.catalog.facts.set("capture", dark)
    assert court.pass_by(170) is None
    assert court.pass_by(20) == Failure("picture", "the pictures show next to nothing")
    # One that was followed by a good one is no reason.
    court = Court(tmp_path / "once")
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    court.trap.catalog.facts.set("capture", dark)
    assert court.pass_by(90) is None
    court.trap.catalog.facts.set("capture", {"failures": 0, "error": None, "oddity": None})
    assert court.pass_by(10) == OK
    # And where it was so before, these settings are not to blame, in no start of the trial.
    court = Court(tmp_path / "before")
    court.trap.catalog.facts.set("capture", dark)
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    again = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {})
    Judge(again, Mock(), court.trap.catalog, "the hash")
    court.trial = again
    assert court.pass_by(62) == OK


def test_pictures_that_show_next_to_nothing_in_a_single_run_are_a_failure(tmp_path: Path) -> None:
    court = Court(tmp_path)
    Judge(court.trial, Mock(), court.trap.catalog, "the hash")
    court.picture()
    assert court.trial.look_at_single_run((), ()) is None
    court.trap.catalog.facts.set("capture", {"failures": 0, "error": None, "oddity": "black"})
    assert court.trial.look_at_single_run((), ()) == Failure("picture", "black")


@pytest.mark.parametrize(("delivers", "verdict"), [(True, OK), (False, "disk")])
def test_a_card_that_fills_up_although_pruning_is_on_ends_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delivers: bool, verdict: str
) -> None:
    court = Court(
        tmp_path, before(open=("home",), bytes_a_day=1000.0), prune=Prune(enabled=True), remote=Remote()
    )
    images, least = court.trap.catalog.images, court.settings.storage.min_free
    # Room for 25 pictures, and 144 are taken a day.
    monkeypatch.setattr(trial, "free_bytes", lambda _folder: int(least + 25 * images.mean_size()))
    outcome: Failure | str | None = None
    for _ in range(20):
        outcome = outcome or court.pass_by(10)
        court.trap.deliver(bench.Memory("stick"))
        if delivers or not court.trap.catalog.counts.ledger().delivered:
            court.delivers("home")
    assert (outcome if isinstance(outcome, str) else outcome and outcome.code) == verdict
    if isinstance(outcome, Failure):
        assert "are not delivered: the card has room for" in outcome.reason


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        ("2 B", "0 B", "bandwidth"),
        ("2 B", "1 GB", "bandwidth"),
        ("2 B", "1 B", OK),  # which was too little before, and is no fault of the new settings
        ("1 MB", "0 B", OK),
        ("0 B", "0 B", OK),
    ],
)
def test_a_limit_below_what_is_taken_ends_a_trial(tmp_path: Path, new: str, old: str, verdict: str) -> None:
    """Finding S9: it falls behind for good, though each turn delivers something."""
    tables = {"home": {"kind": "stickypi", "bandwidth": new}}
    court = Court(tmp_path, before(open=("home",), bytes_a_day=400_000.0), destinations=tables)
    previous = structs.replace(court.settings, destinations={"home": {"kind": "stickypi", "bandwidth": old}})
    court.trial = Trial(court.settings, court.trial.before, court.trap.catalog, court.time, {}, previous)
    outcome: Failure | str | None = None
    for _ in range(8):
        outcome = outcome or court.pass_by(10)
        court.delivers("home")
    assert (outcome.code if isinstance(outcome, Failure) else outcome) == verdict
    if isinstance(outcome, Failure):
        assert outcome.reason.startswith("home carries 0.173 MB a day by its bandwidth, and ")


def test_a_camera_that_fails_three_times_in_a_row_is_enough(tmp_path: Path) -> None:
    court = Court(tmp_path)
    court.trap.catalog.facts.set("capture", {"failures": 2, "error": "dark"})
    assert court.pass_by(1) is None
    court.trap.catalog.facts.set("capture", {"failures": 3, "error": "dark"})
    assert court.pass_by(1) == Failure("camera", "no pictures, 3 failures in a row: dark")


def test_a_camera_that_was_broken_before_is_not_asked_for(tmp_path: Path) -> None:
    court = Court(tmp_path, before(pictures=False))
    court.trap.catalog.facts.set("capture", {"failures": 9, "error": "dark"})
    assert court.pass_by(62, every=0) == OK


def test_a_part_that_falls_silent_is_enough(tmp_path: Path) -> None:
    assert Court(tmp_path).pass_by(1, overdue=("ingest",)) == Failure("hung", "no sign of life from: ingest")


def test_memory_above_the_limit_twice_in_a_row_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    court = Court(tmp_path)
    used = iter([4e8, 1e7, 4e8, 4e8])
    monkeypatch.setattr(trial, "memory_used", lambda: next(used))
    assert court.pass_by(1.5) is None
    verdict = court.pass_by(1)
    assert verdict == Failure("memory", "the daemon uses 400 MB of memory, above 350 MB")


def test_the_memory_of_children_counts() -> None:
    alone = memory_used()
    code = "x = bytearray(b'x' * 80_000_000); print(1, flush=True); input()"
    with processes.started(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        child.stdout.readline()
        assert memory_used() - alone > 70_000_000
        child.communicate("\n")
    assert alone > 10_000_000


def test_a_card_that_would_be_full_in_too_few_days_is_enough_if_it_gets_worse(tmp_path: Path) -> None:
    strict = Remote(limits=RemoteLimits(min_days=1000.0))
    court = Court(tmp_path / "worse", before(bytes_a_day=1000.0), remote=strict)
    monstrous = 8 * 10**8
    for _ in range(2):  # as if they were so large
        court.picture()
        court.time.sleep(MINUTE)
    with court.trap.catalog.connection.transaction("test") as db:
        db.execute("UPDATE images SET size = ?", [monstrous])
    verdict = court.trial.look(())
    assert isinstance(verdict, Failure)
    assert (verdict.code, verdict.reason.partition(" of")[0]) == ("disk", "115 GB")
    # The same where it was as bad before: these settings are not to blame, or even a relief.
    relief = Trial(court.settings, before(bytes_a_day=monstrous * 144.0), court.trap.catalog, court.time, {})
    relief._began = court.trial._began
    court.time.sleep(MINUTE)
    assert relief.look(()) is None
    # And where pruning makes room, and the way home is open.
    pruning = structs.replace(court.settings, prune=Prune(enabled=True))
    open_ = Trial(pruning, before(bytes_a_day=1000.0, open=("home",)), court.trap.catalog, court.time, {})
    open_._began = court.trial._began
    court.time.sleep(MINUTE)
    assert open_.look(()) is None


# ── The way home ─────────────────────────────────────────────────────────────────────────────────────


def test_a_destination_that_was_reached_before_must_be_reached_again(tmp_path: Path) -> None:
    court = Court(tmp_path, before(open=("home",)))
    assert court.pass_by(121) is None  # the link may be down for a while
    court.delivers("stick")
    verdict = court.pass_by(70)
    assert verdict == Failure("link_lost", "not reached any more: home")


def test_a_destination_that_is_reached_in_the_end_is_well(tmp_path: Path) -> None:
    court = Court(tmp_path, before(open=("home",)))
    assert court.pass_by(121) is None
    court.delivers("home")
    assert court.pass_by(60) == OK


def test_a_destination_at_which_nothing_is_pending_may_be_silent(tmp_path: Path) -> None:
    court = Court(tmp_path, before(open=("home",), pictures=False))
    assert court.pass_by(62, every=0) == OK


def test_a_destination_of_a_slow_rhythm_is_given_its_time(tmp_path: Path) -> None:
    court = Court(tmp_path, before(open=("home",)))
    court.trial._intervals = {"home": 5 * 60 * MINUTE}
    assert court.pass_by(290) is None
    court.delivers("home")
    assert court.pass_by(80) == OK


def test_offline_is_no_failure(tmp_path: Path) -> None:
    court = Court(tmp_path)  # nothing was reached before
    assert court.pass_by(62) == OK


def test_home_itself_must_be_reached_again_if_it_was_before(tmp_path: Path) -> None:
    def reached(at: float | None, error: str | None = None) -> None:
        court.trap.catalog.facts.set("hub", {"web": {"reached": at, "since": None, "error": error}})

    court = Court(tmp_path, before(hub=True))
    reached(1.0)
    court.trial = Trial(court.settings, before(hub=True), court.trap.catalog, court.time, {})
    assert court.pass_by(121) is None
    reached(2.0, "no route")
    assert court.pass_by(30) is None
    reached(3.0)
    assert court.pass_by(40) == OK
    silent = Trial(court.settings, before(hub=True), court.trap.catalog, court.time, {})
    court.trial = silent
    assert court.pass_by(200) == Failure("link_lost", "not reached any more: the hub")


# ── How it was before ────────────────────────────────────────────────────────────────────────────────


def test_how_a_trap_was_is_read_from_its_catalog_and_kept_in_a_file(tmp_path: Path) -> None:
    court = Court(tmp_path)
    catalog = court.trap.catalog
    empty = Before.of(court.settings, catalog, court.time)
    assert empty == Before(pictures=False, open=(), hub=False, bytes_a_day=0.0)
    court.picture()
    court.delivers("home")
    catalog.facts.set("hub", {"mqtt": {"reached": 5.0, "since": None, "error": None}})
    assert Before.of(court.settings, catalog, court.time).hub is False  # there is none any more
    court.settings = structs.replace(court.settings, hub=Hub(url="https://hub.example.org"))
    well = Before.of(court.settings, catalog, court.time)
    assert (well.pictures, well.open, well.hub) == (True, ("home",), True)
    assert well.bytes_a_day == pytest.approx(144 * catalog.images.mean_size())
    assert Before.recalled(well.plain()) == well
    catalog.facts.set("capture", {"failures": 1, "error": "dark"})
    catalog.deliveries.destination_failed("home", "no route", 10.0)
    catalog.facts.set("hub", {"mqtt": {"reached": 5.0, "since": 6.0, "error": "no route"}})
    ill = Before.of(court.settings, catalog, court.time)
    assert (ill.pictures, ill.open, ill.hub) == (False, (), False)


def test_a_destination_behind_one_that_is_out_of_reach_is_not_asked_for(tmp_path: Path) -> None:
    linked = {"home": {"kind": "memory"}, "stick": {"kind": "memory", "depends_on": "home"}}
    court = Court(tmp_path, destinations=linked)
    court.picture()
    court.delivers("home")
    court.delivers("stick")
    assert Before.of(court.settings, court.trap.catalog, court.time).open == ("home", "stick")
    court.trap.catalog.deliveries.destination_failed("home", "no route", 10.0)
    assert Before.of(court.settings, court.trap.catalog, court.time).open == ()
