"""The capture thread: its rhythm, and what is done while the camera gives no picture."""

import re
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import structs

from fake_time import FakeTime
from trapsync.catalog import facts as kept
from trapsync.errors import CameraError, StorageError
from trapsync.hardware.sensors import Sensors
from trapsync.runtime.capture_thread import CaptureThread
from trapsync.runtime.context import Context
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Camera, Capture, Settings, Storage
from trapsync.settings.units import Duration
from trapsync.spool import spool_mark
from trapsync.spool.inbox import Inbox
from trapsync.trap import place


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

    def switch_off_flash(self) -> None:
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


class Facts:
    """A catalog that only remembers how the camera was."""

    def __init__(self, failures: int = 0) -> None:
        self.capture: dict[str, Any] = {"failures": failures}
        self.reasons: set[str] = set()

    @property
    def facts(self) -> "Facts":
        return self

    @property
    def images(self) -> "Facts":
        return self

    def read(self) -> kept.Facts:
        return kept.Facts(capture=msgspec.convert(self.capture, kept.Capture))

    def names_from(self, _device: str, _wall: float) -> set[str]:
        return set()

    def set(self, _name: str, value: object) -> None:
        self.capture = msgspec.to_builtins(value)

    @property
    def connection(self) -> "Facts":
        return self

    @property
    def runs(self) -> "Facts":
        return self

    def unflushed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def note_failure(self, reason: str, _error: str) -> None:
        self.reasons.add(reason)


SETTINGS = Settings(capture=Capture(every=Duration(1)), camera=Camera(kind="simulated"))


def hour(
    camera: Unlucky, captures: int | None = None, settings: Settings = SETTINGS, failures: int = 0
) -> tuple[CaptureThread, dict[str, Any]]:
    """Let an hour of the capture thread pass with a camera; the last fact about it."""
    capture_thread, facts = made(camera, captures, settings, failures)
    capture_thread.run()
    return capture_thread, facts.capture


def made(
    camera: Unlucky, captures: int | None = None, settings: Settings = SETTINGS, failures: int = 0
) -> tuple[CaptureThread, Facts]:
    time, facts = camera.time, Facts(failures)
    stop, liveness = cast("Any", Passing(time)), Liveness(time)
    context = Context(settings, "0a1b2c3d", time, cast("Any", facts), Inbox(time), liveness, stop)
    sensors = Sensors(settings.sensors, Path("/nowhere"))
    capture_thread = CaptureThread(context, place(settings), cast("Any", camera), sensors, captures)
    return capture_thread, facts


def test_a_broken_camera_is_tried_less_and_less_often_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    camera = Unlucky(CameraError("the cable is loose"))
    _, capture = hour(camera)
    gaps = [later - earlier for earlier, later in pairwise(camera.tried)]
    assert gaps[:2] == [1.0, 1.0]  # the ladder is climbed at once
    assert gaps == sorted(gaps)
    assert max(gaps) <= 300
    assert 15 < len(camera.tried) < 30
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 4
    assert capture == {"failures": len(camera.tried), "error": "the cable is loose"}


def asks_for_reboots(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings = SETTINGS
) -> list[str]:
    """The words that lie in the daemon's folder after an hour with such a camera; the guard takes none away."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    hour(Unlucky(error), settings=settings)
    return [path.read_text() for path in folder.glob("reboot-wanted")]


def test_a_reboot_is_asked_for_when_nothing_else_brought_the_camera_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (word,) = asks_for_reboots(CameraError("the cable is loose"), tmp_path, monkeypatch)
    assert re.fullmatch("[0-9]+ times in a row the camera gave no picture: the cable is loose", word)


def test_no_reboot_is_asked_for_where_the_card_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not asks_for_reboots(StorageError("the card is full"), tmp_path, monkeypatch)


def test_no_reboot_is_asked_for_where_the_owner_wants_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = structs.replace(SETTINGS, camera=Camera(kind="simulated", reboot=False))
    assert not asks_for_reboots(CameraError("the cable is loose"), tmp_path, monkeypatch, settings)


def test_a_camera_that_is_still_broken_after_a_restart_is_said_to_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, capture = hour(Unlucky(CameraError("the cable is loose")), failures=40)
    assert [r.levelname for r in caplog.records if r.levelname != "DEBUG"] == ["ERROR"]
    assert capture["failures"] > 40


def test_a_card_that_has_room_again_is_noticed_within_a_minute() -> None:
    camera = Unlucky(StorageError("the card is full"))
    hour(camera)
    assert max(later - earlier for earlier, later in pairwise(camera.tried)) <= 60


def test_while_the_spool_is_another_one_no_picture_is_asked_for_and_none_is_missed(tmp_path: Path) -> None:
    storage = Storage(spool=tmp_path / "spool", state=tmp_path / "state")
    storage.spool.mkdir()
    spool_mark.prepare(storage)
    disk = storage.spool.rename(tmp_path / "disk")
    camera = Unlucky(CameraError(""), tries=0)
    settings = structs.replace(SETTINGS, storage=storage)
    _, capture = hour(camera, settings=settings)
    assert camera.tried == []
    assert capture["failures"] == 0
    disk.rename(storage.spool)
    hour(camera, settings=settings)
    assert len(camera.tried) > 3000


def test_a_camera_that_comes_back_is_back_in_its_rhythm(caplog: pytest.LogCaptureFixture) -> None:
    camera = Unlucky(CameraError("the cable is loose"), tries=6)
    _, capture = hour(camera)
    assert {later - earlier for earlier, later in pairwise(camera.tried[7:])} == {1.0}
    assert "pictures again" in caplog.text
    assert capture == {"failures": 0, "error": None, "oddity": None}


def test_pictures_that_look_wrong_are_said_to_once_and_shown_by_the_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    camera = Unlucky(CameraError(""), tries=0)
    camera.oddity = "the pictures show next to nothing"
    _, capture = hour(camera)
    assert capture["oddity"] == camera.oddity
    assert caplog.text.count("next to nothing") == 1


def test_a_number_of_pictures_is_taken_and_no_more() -> None:
    camera = Unlucky(CameraError(""), tries=0)
    capture_thread, _ = hour(camera, 3)
    assert (len(camera.tried), capture_thread.left) == (3, 0)


def test_one_picture_is_tried_for_soon_and_not_for_ever() -> None:
    settings = structs.replace(SETTINGS, capture=Capture(every=Duration(600)))
    camera = Unlucky(CameraError("the cable is loose"))
    capture_thread, facts = made(camera, settings=settings)
    assert not capture_thread.capture_one(3, 5.0)
    assert [later - earlier for earlier, later in pairwise(camera.tried)] == [5.0, 5.0]
    assert facts.capture == {"failures": 3, "error": "the cable is loose"}


def test_one_picture_that_succeeds_in_the_end_is_no_failure() -> None:
    camera = Unlucky(CameraError("the cable is loose"), tries=2)
    capture_thread, facts = made(camera)
    assert capture_thread.capture_one(3, 5.0)
    assert (len(camera.tried), facts.capture["failures"]) == (3, 0)
