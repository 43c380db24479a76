"""The daemon's own small parts: its schedule, its clock guard, its signs of life."""

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import daemon
from fake_time import FakeTime
from trapsync.errors import SettingsError
from trapsync.service import Board, Every, Service
from trapsync.settings import load


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


@pytest.fixture
def service(tmp_path: Path) -> Service:
    one = daemon.Daemon(tmp_path)
    return Service(load(one.config), one.config)


class Jobs:
    """Stands where the scheduler's jobs stand: notes which are told to run now."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, prefix: str) -> None:
        self.told.append(prefix)


@pytest.mark.parametrize("step", [-86400.0, -3600.0, 90 * 86400.0])
def test_after_a_step_of_the_clock_every_job_is_put_straight(
    service: Service, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    time, jobs = FakeTime(), Jobs()
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service, "_run_jobs_now", jobs)
    offset = service._straighten(time.wall() - time.monotonic())
    time.sleep(1000)
    assert (service._straighten(offset), jobs.told) == (offset, [])
    time.step_wall(step)
    assert service._straighten(offset) == offset + step
    assert jobs.told == [""]


def test_a_part_that_falls_silent_is_overdue_until_it_speaks_or_rests() -> None:
    time = FakeTime()
    board = Board(time)
    board.beat("capture", 60)
    board.beat("ingest", 600)
    time.sleep(61)
    assert board.overdue() == ["capture"]
    board.beat("capture", 60)
    assert board.overdue() == []
    time.sleep(601)
    board.rest("ingest")
    assert board.overdue() == ["capture"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('[trap]\ntimezone = "Mars/Olympus"', "no such time zone"),
        ('[capture]\nwindows = ["sunset - sunrise"]', "needs a place"),
        ('[destinations.x]\nkind = "pigeon"', "must be one of: directory, stickypi"),
    ],
)
def test_what_is_wrong_in_the_settings_is_said_before_anything_is_touched(
    tmp_path: Path, more: str, reason: str
) -> None:
    config = tmp_path / "trapsync.toml"
    table = more.partition("\n")[0]
    kept = "" if table == "[trap]" else '[trap]\ndevice = "0a1b2c3d"\n'
    config.write_text(kept + (more if kept else more + '\ndevice = "0a1b2c3d"'))
    with pytest.raises(SettingsError, match=reason):
        Service(load(config), config)
    assert [path.name for path in tmp_path.iterdir()] == ["trapsync.toml"]


def test_the_watchdog_is_fed_while_all_parts_live_and_no_longer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    time = FakeTime()
    monkeypatch.setattr("trapsync.systemd.notify", said.append)
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service, "_board", Board(time))
    monkeypatch.setattr(service, "_watcher", _Alive(), raising=False)
    service._board.beat("capture", 60)
    service._check_parts()
    assert said == ["WATCHDOG=1"]
    time.sleep(61)
    service._check_parts()
    assert said == ["WATCHDOG=1"]


class _Alive:
    def is_alive(self) -> bool:
        return True


def test_systemd_hears_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    import socket

    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(15)
        one = daemon.Daemon(tmp_path / "trap")
        one.start(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="30000000")
        heard: list[Any] = [listener.recv(100), listener.recv(100)]
        one.signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(listener.recv(100))
        assert one.wait() == 0
    assert heard[:2] == [b"READY=1", b"WATCHDOG=1"]
