"""The daemon's own small parts: its schedule, its clock guard, its signs of life."""

import re
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from msgspec import structs

import daemon
from fake_time import FakeTime
from trap_bench import Memory
from trapsync import pipeline, status
from trapsync.destinations import Receipt
from trapsync.errors import CameraError, CatalogDamaged, CatalogError, SettingsError, StorageError
from trapsync.image import Image
from trapsync.inbox import Inbox
from trapsync.pipeline import Hands, Ingested, Turn
from trapsync.service import Service
from trapsync.settings import Settings, load
from trapsync.signs import Board
from trapsync.timetable import Every, Stopping, Timetable


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


def test_a_job_that_fails_by_a_bug_is_told_of_and_owes_no_sign_of_life() -> None:
    board, told, tells = Board(FakeTime()), threading.Event(), []

    def tell(fact: str, value: object) -> None:
        tells.append((fact, value, board.awaits("sweep")))
        told.set()

    timetable = Timetable(1, board, threading.Event(), tell)
    timetable.add("sweep", 3600, lambda: 1 // 0)
    timetable.start()
    assert told.wait(30)
    timetable.end(wait=True)
    assert tells == [("bug", "sweep failed; see the log", True)]
    assert (board.awaits("sweep"), board.awaits("scheduler")) == (False, True)


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
    monkeypatch.setattr(service._timetable, "run_now", jobs)
    offset = service._straighten(time.wall() - time.monotonic())
    time.sleep(1000)
    assert (service._straighten(offset), jobs.told) == (offset, [])
    time.step_wall(step)
    assert service._straighten(offset) == offset + step
    assert jobs.told == [""]


def test_drift_of_weeks_is_no_step(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    time, jobs = FakeTime(), Jobs()
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service._timetable, "run_now", jobs)
    offset = time.wall() - time.monotonic()
    for _ in range(10):
        time.step_wall(0.5)
        offset = service._straighten(offset)
    assert jobs.told == []


def test_a_signal_waits_for_no_lock_that_the_interrupted_thread_holds(service: Service) -> None:
    def interrupted() -> None:
        with service._stop._cond:  # type: ignore[attr-defined]
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                service._on_signal(number, None)

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


class Refusing:
    """A catalog on a card that takes no more writes."""

    damage: CatalogDamaged | None = None

    def is_there(self) -> bool:
        return True

    def may_go(self, _destination: str) -> bool:
        return True

    def end_waits(self) -> None:
        raise CatalogError("the catalog refuses a write: disk I/O error")


def test_a_catalog_that_is_damaged_while_in_use_ends_the_daemon_so_that_the_next_rebuilds_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = Refusing()
    damaged.damage = CatalogDamaged("the catalog refuses a read: database disk image is malformed")
    monkeypatch.setattr(service, "_catalog", damaged, raising=False)
    with pytest.raises(CatalogDamaged):
        service._check_parts()


def test_the_word_to_deliver_now_survives_a_catalog_that_refuses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs()
    monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
    monkeypatch.setattr(service._timetable, "run_now", jobs)
    service._heed(signal.SIGUSR1)
    assert jobs.told == ["deliver"]


def test_the_ingest_thread_survives_what_the_card_refuses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []

    def failing(paths: list[str], _patience: object) -> None:
        tried.append(paths)
        service._stop.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(service, "_thumbnails", lambda: iter(()))
    monkeypatch.setattr(service, "_ingest_some", failing)
    service._inbox.put("a.jpg")
    service._ingest()
    assert tried == [["a.jpg"]]


def test_more_files_than_the_inbox_holds_that_cannot_be_done_with_are_no_busy_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found again and again. Those behind them get their turn as soon as there is one."""
    sweeps, breaths = 0, []

    def sweep() -> None:
        nonlocal sweeps
        sweeps += 1
        for number in range(6):
            service._inbox.put(f"{number}.jpg")

    def breathe(seconds: float) -> bool:
        breaths.append(seconds)
        if len(breaths) == 3:
            service._stop.set()
        return False

    outcomes = iter([Ingested(new=1), Ingested(damaged=1)])
    monkeypatch.setattr(service, "_inbox", Inbox(service._clock, most=4))
    monkeypatch.setattr(service, "_thumbnails", lambda: iter(()))
    monkeypatch.setattr(service, "_sweep", sweep)
    monkeypatch.setattr(service._stop, "wait", breathe)
    monkeypatch.setattr(pipeline, "ingest", lambda *_: next(outcomes, Ingested()))
    service._examiners, service._catalog = Mock(), Mock()
    sweep()
    service._ingest()
    assert breaths == [10.0] * 3
    assert sweeps == 1 + 2 + 3  # at once while there was something new, then with a breath before each


@pytest.mark.parametrize(("hours", "silent"), [(2.5, []), (3, ["deliver:home"])])
def test_an_image_that_is_sent_for_hours_is_no_silence_until_it_passed_its_own_deadlines(
    service: Service, monkeypatch: pytest.MonkeyPatch, hours: float, silent: list[str]
) -> None:
    time = FakeTime()
    board = Board(time)
    overdue: list[list[str]] = []

    def send(image: Image) -> Receipt:
        time.sleep(hours * 3600)
        overdue.append(board.overdue())
        return Receipt(f"md5:{image.md5}")

    def deliver(_c: object, _d: object, _s: object, _t: object, hands: Hands, _p: object) -> Turn:
        images = (Image(f"{n}.jpg", 4 * 10**6, "", "", 1, 1) for n in range(2))
        return Turn(delivered=len(list(hands(send, images))))

    monkeypatch.setattr("trapsync.pipeline.deliver", deliver)
    monkeypatch.setattr(service, "_timetable", Timetable(1, board, threading.Event(), Mock()))
    monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
    home = Memory()
    home.settings = structs.replace(home.settings, parallel=1)
    service._deliver(home)
    assert overdue == [silent, silent]


class CutShort:
    """A turn of two uploads: the first arrives, the second hangs, and then the turn ends in an error."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.error = error
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.arrived: list[str] = []
        monkeypatch.setattr("trapsync.pipeline.deliver", self.deliver)
        monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
        self.home = Memory()
        self.home.settings = structs.replace(self.home.settings, parallel=2)

    def send(self, image: Image) -> Receipt:
        if image.path == "1.jpg":
            self.has_begun.set()
            assert self.may_end.wait(60)
        assert self.has_begun.wait(60)
        self.arrived.append(image.path)
        return Receipt(f"md5:{image.md5}")

    def deliver(self, _c: object, _d: object, _s: object, _t: object, hands: Hands, _p: object) -> Turn:
        for _ in hands(self.send, (Image(f"{n}.jpg", 1, "", "", 1, 1) for n in range(2))):
            raise self.error
        raise AssertionError


def test_a_turn_that_ends_over_the_catalog_lasts_until_no_upload_of_it_is_on_its_way(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = CutShort(service, monkeypatch, CatalogError("disk full"))
    monkeypatch.setattr(service, "_pause", lambda _seconds: turn.may_end.set())
    with pytest.raises(CatalogError):
        service._deliver(turn.home)
    assert turn.arrived == ["0.jpg", "1.jpg"]


def test_the_end_of_the_daemon_waits_for_no_upload(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = CutShort(service, monkeypatch, Stopping())
    monkeypatch.setattr(service._timetable, "go_on", lambda *_: None)
    service._stop.set()
    with pytest.raises(Stopping):
        service._deliver(turn.home)
    assert turn.arrived == ["0.jpg"]
    turn.may_end.set()


def test_what_hangs_at_the_end_does_not_keep_the_process(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        ended.set()

    class Hanging:
        def stop(self) -> None:
            assert ended.wait(10)
            raise InterruptedError

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr("trapsync.service._END", 0.01)
    monkeypatch.setattr(service, "_watcher", Hanging(), raising=False)
    with pytest.raises(InterruptedError):
        service._end()
    assert codes == [1]


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
        ('[destinations.x]\nkind = "pigeon"', "must be one of: directory, "),
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
    monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
    service._board.beat("capture", 60)
    service._check_parts()
    assert said == ["WATCHDOG=1"]
    time.sleep(61)
    service._check_parts()
    assert said == ["WATCHDOG=1"]


class Unlucky:
    """A camera that fails until so many tries are over."""

    oddity: str | None = None

    def __init__(self, error: Exception, tries: int = 10**9) -> None:
        self.error = error
        self.tries = tries
        self.tried: list[float] = []
        self.time = FakeTime()

    def capture(self, _taken: object, _reading: object) -> str:
        self.tried.append(self.time.monotonic())
        if len(self.tried) <= self.tries:
            raise self.error
        return "a.jpg"

    def put_out(self) -> None:
        """It has no flash."""


class Passing:
    """Where the word to stop stands: time passes while one waits for it, and after an hour it comes."""

    def __init__(self, time: FakeTime, seconds: float = 3600.0) -> None:
        self._time = time
        self._end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return self._time.monotonic() >= self._end

    def wait(self, seconds: float = 0.0) -> bool:
        self._time.sleep(seconds)
        return self.is_set()


@pytest.fixture
def hour(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[Unlucky], dict[str, Any]]:
    """Let an hour of the capture thread pass with a camera; the last fact about it."""

    def pass_by(camera: Unlucky) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        monkeypatch.setattr(service, "_clock", camera.time)
        monkeypatch.setattr(service, "_board", Board(camera.time))
        monkeypatch.setattr(service, "_stop", Passing(camera.time))
        monkeypatch.setattr(service, "_camera", camera, raising=False)
        monkeypatch.setattr(service, "_taken_names", set)
        monkeypatch.setattr(service, "_failures_before", lambda: 0)
        monkeypatch.setattr(service, "_tell", lambda name, value: facts.update({name: value}))
        service._capture()
        return facts

    return pass_by


def test_a_broken_camera_is_tried_less_and_less_often_and_fills_no_log(
    hour: Callable[[Unlucky], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    camera = Unlucky(CameraError("the cable is loose"))
    facts = hour(camera)
    gaps = [later - earlier for earlier, later in pairwise(camera.tried)]
    assert gaps[:2] == [1.0, 1.0]  # the ladder is climbed at once
    assert gaps == sorted(gaps)
    assert max(gaps) <= 300
    assert 15 < len(camera.tried) < 30
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 4
    assert facts["capture"] == {"failures": len(camera.tried), "error": "the cable is loose"}


def asks_for_reboots(
    error: Exception, hour: Callable[[Unlucky], dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The words that lie in the daemon's folder after an hour with such a camera; the guard takes none away."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    hour(Unlucky(error))
    return [path.read_text() for path in folder.glob("reboot-wanted")]


def test_a_reboot_is_asked_for_when_nothing_else_brought_the_camera_back(
    hour: Callable[[Unlucky], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (word,) = asks_for_reboots(CameraError("the cable is loose"), hour, tmp_path, monkeypatch)
    assert re.fullmatch("[0-9]+ times in a row the camera gave no picture: the cable is loose", word)


def test_no_reboot_is_asked_for_where_the_card_is_full(
    hour: Callable[[Unlucky], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not asks_for_reboots(StorageError("the card is full"), hour, tmp_path, monkeypatch)


def test_no_reboot_is_asked_for_where_the_owner_wants_none(
    service: Service,
    hour: Callable[[Unlucky], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    camera = structs.replace(service.settings.camera, reboot=False)
    service.settings = structs.replace(service.settings, camera=camera)
    assert not asks_for_reboots(CameraError("the cable is loose"), hour, tmp_path, monkeypatch)


def test_a_camera_that_is_still_broken_after_a_restart_is_said_to_once_more(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "_tell", lambda *_: None)
    for failures in range(40, 50):
        service._capture_failed(failures, CameraError("the cable is loose"))
    assert [r.levelname for r in caplog.records if r.levelname != "DEBUG"] == ["ERROR"]


def test_a_card_that_has_room_again_is_noticed_within_a_minute(
    hour: Callable[[Unlucky], dict[str, Any]],
) -> None:
    camera = Unlucky(StorageError("the card is full"))
    hour(camera)
    assert max(later - earlier for earlier, later in pairwise(camera.tried)) <= 60


def test_a_camera_that_comes_back_is_back_in_its_rhythm(
    hour: Callable[[Unlucky], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    camera = Unlucky(CameraError("the cable is loose"), tries=6)
    facts = hour(camera)
    assert {later - earlier for earlier, later in pairwise(camera.tried[7:])} == {1.0}
    assert "pictures again" in caplog.text
    assert facts["capture"] == {"failures": 0, "error": None, "oddity": None}


def test_pictures_that_look_wrong_are_said_to_once_and_shown_by_the_status(
    hour: Callable[[Unlucky], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    camera = Unlucky(CameraError(""), tries=0)
    camera.oddity = "the pictures show next to nothing"
    facts = hour(camera)
    assert facts["capture"]["oddity"] == camera.oddity
    assert caplog.text.count("next to nothing") == 1


def test_the_status_warns_of_pictures_that_look_wrong(service: Service) -> None:
    capture = {"failures": 0, "error": None, "oddity": "the pictures show next to nothing"}
    facts = {"daemon": {"running": True}, "capture": capture, "newest_image": None}
    (reason,) = status._capture(facts, Settings(), FakeTime())
    assert (reason.verdict, reason.text) == ("warning", capture["oddity"])


def test_a_camera_that_was_broken_before_a_restart_is_still_failing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remembering:
        def facts(self) -> dict[str, Any]:
            return {"capture": {"failures": 7, "error": "the cable is loose"}}

    monkeypatch.setattr(service, "_catalog", Remembering(), raising=False)
    assert service._failures_before() == 7


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


def test_small_copies_wait_for_room_instead_of_being_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Wanting(Refusing):
        def without_thumbnails(self, limit: int) -> list[Image]:
            asked.append(limit)
            return []

    free = [0]
    monkeypatch.setattr("trapsync.pipeline.free_bytes", lambda _folder: free[0])
    monkeypatch.setattr(service, "_catalog", Wanting(), raising=False)
    monkeypatch.setattr(service, "_tell", lambda *_: None)
    steps = service._thumbnails()
    assert (next(steps), asked) == (False, [])
    free[0] = 10**9
    assert (next(steps), asked) == (False, [1])
