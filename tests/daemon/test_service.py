"""The daemon's own small parts: its schedule, its clock guard, its signs of life."""

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from msgspec import structs

import daemon_process
import statuses
from fake_time import FakeTime
from trap_bench import Memory, Trap
from trapsync.destinations import Receipt
from trapsync.destinations.outcomes import Outcome, Turn
from trapsync.errors import CatalogDamaged, CatalogError, SettingsError
from trapsync.image import Image
from trapsync.pipeline import Uploads
from trapsync.remote.in_force import load
from trapsync.runtime.context import Context
from trapsync.runtime.jobs import Jobs
from trapsync.runtime.liveness import Liveness
from trapsync.runtime.scheduler import Scheduler, Stopping
from trapsync.runtime.service import Service
from trapsync.runtime.upload_pool import UploadPool
from trapsync.settings.schema import Camera, Settings
from trapsync.settings.schema import Destination as DestinationSettings
from trapsync.status.reasons import of_the_trap


@pytest.fixture
def service(tmp_path: Path) -> Service:
    one = daemon_process.Daemon(tmp_path)
    return Service(load(one.config))


def jobs_of(service: Service) -> Jobs:
    """The jobs that it makes once its catalog is open."""
    context = Context(
        *(service.settings, service._device, service._clock, service._catalog, service._inbox),
        *(service._liveness, service._stop),
    )
    return Jobs(context, [], lambda *more: service._scheduler.go_on(*more), service._pause)


class Told:
    """Stands where the scheduler's jobs stand: notes which are told to run now."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, prefix: str) -> None:
        self.told.append(prefix)


@pytest.mark.parametrize("step", [-86400.0, -3600.0, 90 * 86400.0])
def test_after_a_step_of_the_clock_every_job_is_put_straight(
    service: Service, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    time, jobs = FakeTime(), Told()
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service._scheduler, "run_now", jobs)
    offset = service._straighten(time.wall() - time.monotonic())
    time.sleep(1000)
    assert (service._straighten(offset), jobs.told) == (offset, [])
    time.step_wall(step)
    assert service._straighten(offset) == offset + step
    assert jobs.told == [""]


def test_drift_of_weeks_is_no_step(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    time, jobs = FakeTime(), Told()
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service._scheduler, "run_now", jobs)
    offset = time.wall() - time.monotonic()
    for _ in range(10):
        time.step_wall(0.5)
        offset = service._straighten(offset)
    assert jobs.told == []


def test_a_signal_to_end_goes_before_a_reload_that_was_about_to_begin(service: Service) -> None:
    service._begin_again()
    assert service.reload
    service._on_signal(signal.SIGTERM)
    assert not service.reload


class Refusing:
    """A catalog on a card that takes no more writes."""

    damage: CatalogDamaged | None = None

    @property
    def connection(self) -> "Refusing":
        return self

    @property
    def deliveries(self) -> "Refusing":
        return self

    def is_there(self) -> bool:
        return True

    def has_news_of_doubt(self) -> bool:
        return False

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
    jobs = Told()
    monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
    monkeypatch.setattr(service._scheduler, "run_now", jobs)
    service._on_signal(signal.SIGUSR1)
    assert jobs.told == ["deliver:"]


@pytest.mark.parametrize(("hours", "silent"), [(2.5, []), (3, ["deliver:home"])])
def test_an_image_that_is_sent_for_hours_is_no_silence_until_it_passed_its_own_deadlines(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, silent: list[str]
) -> None:
    trap = Trap(tmp_path / "bench")
    liveness = Liveness(trap.time)
    arrived = threading.Event()
    overdue: list[list[str]] = []

    class Slowly(DestinationSettings, frozen=True):
        def slowest(self) -> float:
            return size / 2000

    class Slow(Memory):
        def deliver(self, image: Image, path: Path) -> Receipt:
            assert arrived.wait(60)
            return super().deliver(image, path)

    class Watched(UploadPool):
        def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
            overdue.append(liveness.overdue())
            if len(overdue) == 1:
                trap.time.sleep(hours * 3600)
                return None
            arrived.set()
            return super().finished(60)

    home = Slow()
    home.settings = Slowly(kind="memory", transfers=2)
    trap.register(home)
    trap.put()
    trap.ingest()
    size = trap.catalog.images.on_card(0, 1)[0].size
    monkeypatch.setattr("trapsync.runtime.jobs.UploadPool", Watched)
    monkeypatch.setattr(service, "_clock", trap.time)
    monkeypatch.setattr(service, "_scheduler", Scheduler(1, liveness, threading.Event(), Mock()))
    monkeypatch.setattr(service, "_catalog", trap.catalog, raising=False)
    service.settings = structs.replace(service.settings, storage=trap.storage)
    jobs_of(service).deliver(home)
    assert overdue[1] == silent
    assert trap.ledger() == (1, 1, 0, 0, 0)


class CutShort:
    """A turn of two uploads: the first arrives, the second hangs, and then the turn ends in an error."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.error = error
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.arrived: list[str] = []
        monkeypatch.setattr("trapsync.pipeline.deliver", self.deliver)
        monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
        self.home = Memory()
        self.home.settings = structs.replace(self.home.settings, transfers=2)

    def send(self, images: Sequence[Image]) -> Mapping[int, Outcome]:
        (image,) = images
        if image.path == "1.jpg":
            self.has_begun.set()
            assert self.may_end.wait(60)
        assert self.has_begun.wait(60)
        self.arrived.append(image.path)
        return {image.id: Receipt(f"md5:{image.md5}")}

    def deliver(self, _c: object, _d: object, _s: object, _t: object, uploads: Uploads, _p: object) -> Turn:
        for number in range(2):
            uploads.start([Image(f"{number}.jpg", 1, "", "", 1, 1)], self.send)
        assert uploads.finished(60)
        raise self.error


def test_a_turn_that_ends_over_the_catalog_lasts_until_no_upload_of_it_is_on_its_way(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = CutShort(service, monkeypatch, CatalogError("disk full"))
    monkeypatch.setattr(service, "_pause", lambda _seconds: turn.may_end.set())
    with pytest.raises(CatalogError):
        jobs_of(service).deliver(turn.home)
    assert turn.arrived == ["0.jpg", "1.jpg"]


def test_the_end_of_the_daemon_waits_for_no_upload(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = CutShort(service, monkeypatch, Stopping())
    monkeypatch.setattr(service._scheduler, "go_on", lambda *_: None)
    service._stop.set()
    with pytest.raises(Stopping):
        jobs_of(service).deliver(turn.home)
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
    monkeypatch.setattr("trapsync.runtime.service._END", 0.01)
    monkeypatch.setattr(service, "_watcher", Hanging(), raising=False)
    with pytest.raises(InterruptedError):
        service._end("stopped")
    assert codes == [1]


def test_a_part_that_falls_silent_is_overdue_until_it_speaks_or_rests() -> None:
    time = FakeTime()
    liveness = Liveness(time)
    liveness.report("capture", 60)
    liveness.report("ingest", 600)
    time.sleep(61)
    assert liveness.overdue() == ["capture"]
    liveness.report("capture", 60)
    assert liveness.overdue() == []
    time.sleep(601)
    liveness.finish("ingest")
    assert liveness.overdue() == ["capture"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('[trap]\ntimezone = "Mars/Olympus"', "no such time zone"),
        ('[capture]\nschedule = ["sunset - sunrise"]', "needs a place"),
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
        Service(load(config))
    assert [path.name for path in tmp_path.iterdir()] == ["trapsync.toml"]


def test_the_watchdog_is_fed_while_all_parts_live_and_no_longer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    time = FakeTime()
    monkeypatch.setattr("trapsync.runtime.systemd.notify", said.append)
    monkeypatch.setattr(service, "_clock", time)
    monkeypatch.setattr(service, "_liveness", Liveness(time))
    monkeypatch.setattr(service, "_watcher", _Alive(), raising=False)
    monkeypatch.setattr(service, "_catalog", Refusing(), raising=False)
    service._liveness.report("capture", 60)
    service._check_parts()
    assert said == ["WATCHDOG=1"]
    time.sleep(61)
    service._check_parts()
    assert said == ["WATCHDOG=1"]


def test_the_status_warns_of_pictures_that_look_wrong(service: Service) -> None:
    capture = {"oddity": "the pictures show next to nothing"}
    settings = Settings(camera=Camera(kind="simulated"))
    reasons = of_the_trap(statuses.status(capture=capture), settings, FakeTime())
    assert ("warning", capture["oddity"]) in [(one.verdict, one.text) for one in reasons]


class _Alive:
    def is_alive(self) -> bool:
        return True


def test_systemd_hears_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    import socket

    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(15)
        one = daemon_process.Daemon(tmp_path / "trap")
        one.start(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="30000000")
        heard: list[Any] = [listener.recv(100), listener.recv(100)]
        one.signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(listener.recv(100))
        assert one.wait() == 0
    assert heard[:2] == [b"READY=1", b"WATCHDOG=1"]
