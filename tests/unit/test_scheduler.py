"""The jobs: when they run, and what becomes of one that fails."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

from fake_time import FakeTime
from trapsync.errors import CatalogError, StorageError
from trapsync.runtime.liveness import Liveness
from trapsync.runtime.scheduler import Every, Scheduler, run_job


def test_a_job_runs_soon_at_first_and_then_after_its_interval_give_or_take_a_tenth() -> None:
    now = datetime(2026, 6, 21, tzinfo=UTC)
    trigger = Every(600)
    assert trigger.get_next_fire_time(None, now) <= now + timedelta(seconds=1)
    later = {trigger.get_next_fire_time(now, now) - now for _ in range(50)}
    assert timedelta(seconds=540) <= min(later) < max(later) <= timedelta(seconds=660)


@pytest.mark.parametrize("step", [timedelta(days=10), timedelta(days=3650)])
def test_a_step_forward_makes_up_for_nothing(step: timedelta) -> None:
    scheduler = BackgroundScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None})
    job = scheduler.add_job(print, Every(1))
    scheduler.start(paused=True)
    late = job.next_run_time + step
    assert len(job._get_run_times(late)) == 1
    scheduler.shutdown()


def test_a_job_that_fails_by_a_bug_is_told_of_and_need_give_no_sign_of_life() -> None:
    liveness, told, tells = Liveness(FakeTime()), threading.Event(), []

    def tell(fact: str, value: object) -> None:
        tells.append((fact, value, "sweep" in liveness._due))
        told.set()

    scheduler = Scheduler(1, liveness, threading.Event(), tell)
    scheduler.add("sweep", 3600, lambda: 1 // 0)
    scheduler.start()
    assert told.wait(30)
    while "sweep" in liveness._due:  # it is at its very end
        time.sleep(0.01)
    scheduler.end()
    assert tells == [("bug", "sweep failed; see the log", True)]
    assert list(liveness._due) == ["scheduler"]


def test_a_job_that_the_card_refuses_is_told_of_until_it_is_done() -> None:
    tells: list[tuple[str, object]] = []
    outcomes: list[Exception | None] = [
        StorageError("read-only"),
        StorageError("read-only"),
        CatalogError("full"),
        None,
    ]
    scheduler = Scheduler(1, Liveness(FakeTime()), threading.Event(), lambda *told: tells.append(told))

    def work() -> None:
        if error := outcomes.pop(0):
            raise error

    while outcomes:
        scheduler._note("sweep", run_job("sweep", work, threading.Event(), lambda *_: None))
    scheduler._note("prune", None)
    assert tells == [("jobs", {"sweep": "read-only"}), ("jobs", {"sweep": "full"}), ("jobs", None)]


def test_a_scheduler_that_never_begins_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    time = FakeTime()
    liveness = Liveness(time)
    scheduler = Scheduler(1, liveness, threading.Event(), lambda *_: None)
    monkeypatch.setattr(scheduler._background, "start", lambda: None)
    scheduler.start()
    time.sleep(121)
    assert liveness.overdue() == ["scheduler"]


def test_a_job_that_wants_to_runs_again_before_its_interval_is_over() -> None:
    runs: list[float] = []
    again, over = iter([0.0, 1.5, 7200.0]), threading.Event()

    def work() -> float | None:
        runs.append(time.monotonic())
        wanted = next(again)
        if wanted == 7200.0:
            over.set()
        return wanted

    scheduler = Scheduler(1, Liveness(FakeTime()), threading.Event(), lambda *_: None)
    scheduler.add("deliver", 3600, work)
    scheduler.start()
    assert over.wait(30)
    job = scheduler._background.get_job("deliver")
    assert job.next_run_time - datetime.now(UTC) < timedelta(seconds=3600 * 1.1)  # and not two hours
    scheduler.end()
    first, second, third = runs
    assert second - first >= 0.9  # a second at least
    assert third - second >= 1.4
