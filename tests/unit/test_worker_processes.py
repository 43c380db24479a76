"""The children: what befalls one costs that one, and no more."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pebble import ProcessExpired

import child_faults
import drawings
from trapsync.errors import CameraError, DamagedImage, ExaminerKilled, StorageError
from trapsync.files import mounts
from trapsync.image import UNKNOWN, Found, Image
from trapsync.jpeg.examination import examine
from trapsync.runtime import camera_process
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.examiner_process import NoExaminer
from trapsync.runtime.examiners import Examiners
from trapsync.settings.schema import Camera, Capture, Flash, Ingest, Settings, Storage
from trapsync.settings.units import Duration, Size
from trapsync.spool.scan import stat_file


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def examiners(spool: Path) -> Iterator[Examiners]:
    settings = Ingest(timeout=Duration(1))
    some = Examiners(settings, Storage(spool=spool, state=spool / "state"), child_faults.look)
    yield some
    some.close()


def put(spool: Path, *names: str) -> list[Found]:
    found = []
    for number, name in enumerate(names):
        drawings.put(spool, drawings.trap(seed=number), name)
        one = stat_file(spool, name)
        assert one
        found.append(one)
    return found


def outcomes(examiners: Examiners, files: list[Found]) -> dict[str, Image | Exception]:
    return {found.path: outcome for found, outcome in examiners.examine(files)}


def test_good_files_come_back_examined(examiners: Examiners, spool: Path) -> None:
    files = put(spool, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert outcomes(examiners, files) == {found.path: examine(spool, found.path) for found in files}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("hang.jpg", "longer than 1 s"), ("crash.jpg", "crashed"), ("greedy.jpg", "memory")],
)
def test_a_file_that_undoes_its_examiner_is_damaged_and_the_others_are_not(
    examiners: Examiners, spool: Path, name: str, reason: str
) -> None:
    result = outcomes(examiners, put(spool, "a.jpg", name, "b.jpg"))
    assert isinstance(result["a.jpg"], Image)
    assert isinstance(result["b.jpg"], Image)
    assert reason in str(result[name])


@pytest.mark.parametrize("name", ["shot.jpg", "ended.jpg", "once-crash.jpg"])
def test_an_examiner_that_is_killed_from_outside_says_nothing_about_the_file(
    examiners: Examiners, spool: Path, name: str
) -> None:
    result = outcomes(examiners, put(spool, "a.jpg", name, "b.jpg"))
    assert isinstance(result["a.jpg"], Image)
    assert isinstance(result["b.jpg"], Image)
    assert isinstance(result[name], ExaminerKilled)


@pytest.mark.parametrize("name", ["hang.jpg", "crash.jpg", "greedy.jpg"])
def test_an_examiner_that_dies_of_the_file_or_at_our_limits_was_not_killed(
    examiners: Examiners, spool: Path, name: str
) -> None:
    outcome = outcomes(examiners, put(spool, name))[name]
    assert isinstance(outcome, DamagedImage)
    assert not isinstance(outcome, ExaminerKilled)


def test_a_file_whose_examiner_is_killed_once_is_examined_by_the_next(
    examiners: Examiners, spool: Path
) -> None:
    files = put(spool, "once.jpg")
    assert outcomes(examiners, files) == {"once.jpg": examine(spool, "once.jpg")}


def test_a_file_on_which_our_own_program_fails_is_not_called_damaged(
    examiners: Examiners, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = outcomes(examiners, put(spool, "bug.jpg", "a.jpg"))
    assert isinstance(result["a.jpg"], Image)
    assert not isinstance(result["bug.jpg"], Image | DamagedImage)
    assert "a mistake of our own" in caplog.text


def test_a_file_that_vanishes_before_it_is_examined_is_left_out(examiners: Examiners, spool: Path) -> None:
    files = put(spool, "a.jpg", "gone.jpg")
    (spool / "gone.jpg").unlink()
    assert set(outcomes(examiners, files)) == {"a.jpg"}


def test_an_examiner_that_is_shot_between_two_files_costs_no_file(
    examiners: Examiners, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = put(spool, "a.jpg", "b.jpg", "c.jpg")
    expected = {found.path: examine(spool, found.path) for found in files}
    for _ in range(4):
        for child in multiprocessing.active_children():
            child.kill()
        assert outcomes(examiners, files) == expected
    assert not [record for record in caplog.records if record.exc_info]


def test_thumbnails_that_cannot_be_made_are_no_reason_to_stop(examiners: Examiners, spool: Path) -> None:
    put(spool, "a.jpg")
    (spool / "bad.jpg").write_bytes(b"rubbish")
    good, bad = (Image(name, 0, "", "", 0, 0) for name in ("a.jpg", "bad.jpg"))
    assert examiners.make_thumbnails(good, "a.jpg")
    assert not examiners.make_thumbnails(bad, "bad.jpg")


@pytest.mark.parametrize("kills", [1, 2])
def test_a_maker_of_thumbnails_that_is_killed_from_outside_says_nothing_about_the_image(
    examiners: Examiners, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    ends = iter([ProcessExpired("", code=-9)] * kills)  # type: ignore[no-untyped-call]

    def killing(_future: object) -> None:
        for end in ends:
            raise end

    monkeypatch.setattr(examiners, "_result", killing)
    image = Image("a.jpg", 0, "", "", 0, 0)
    if kills == 1:
        assert examiners.make_thumbnails(image, "a.jpg")
    else:
        with pytest.raises(ExaminerKilled):
            examiners.make_thumbnails(image, "a.jpg")


def test_a_bug_in_making_thumbnails_is_loud_and_no_reason_to_stop(
    examiners: Examiners, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_future: object) -> None:
        raise ZeroDivisionError("a mistake of our own")

    monkeypatch.setattr(examiners, "_result", failing)
    assert not examiners.make_thumbnails(Image("a.jpg", 0, "", "", 0, 0), "a.jpg")
    assert "a mistake of our own" in caplog.text


EVERY = 5.0  # seconds; a test may ask for another rhythm


@pytest.fixture
def every() -> float:
    return EVERY


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float) -> Iterator[CameraProcess]:
    monkeypatch.setenv("CAMERA_SCRIPT", str(script_in(tmp_path)))
    settings = Settings(
        storage=Storage(spool=tmp_path / "spool", state=tmp_path / "state", min_free=Size(0)),
        capture=Capture(every=Duration(every)),
        camera=Camera(warm_up=Duration(0), timeout=Duration(3), resolution=(160, 120)),
    )
    process = CameraProcess(settings, drawings.DEVICE, child_faults.StillClock(), child_faults.make)
    yield process
    process.close()


def script_in(tmp_path: Path) -> Path:
    """Where it is: in the spool, for the camera's process sees nothing else."""
    return tmp_path / "spool" / "script"


def script(tmp_path: Path, words: str) -> None:
    script_in(tmp_path).parent.mkdir(exist_ok=True)
    script_in(tmp_path).write_text(words)


def model(tmp_path: Path, path: str) -> str:
    return str(examine(tmp_path / "spool", path).metadata["Model"])


def test_pictures_of_one_second_get_names_of_their_own(camera: CameraProcess, tmp_path: Path) -> None:
    script(tmp_path, "ok ok ok")
    paths = [camera.capture() for _ in range(3)]
    assert len(set(paths)) == 3
    assert all((tmp_path / "spool" / path).is_file() for path in paths)


def test_a_name_of_an_image_that_has_left_the_card_is_not_given_again(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "ok ok")
    first = camera.capture()
    (tmp_path / "spool" / first).unlink()  # pruned; and then the clock is stepped back
    assert camera.capture(frozenset({Path(first).name})) > first


def test_a_camera_whose_daemon_died_stores_its_picture_and_ends_in_silence(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "ok")
    pipe = camera._start()
    assert camera._process
    pipe.send((frozenset(), UNKNOWN, ""))
    pipe.close()
    camera._process.join(20)
    assert camera._process.exitcode == 0
    assert len(list((tmp_path / "spool").rglob("*.jpg"))) == 1


DAEMON = """
import sys
from pathlib import Path
import child_faults, drawings
from trapsync.runtime.camera_process import CameraProcess
from trapsync.settings.schema import Camera, Settings, Storage
from trapsync.settings.units import Duration, Size
folder = Path(sys.argv[1])
storage = Storage(spool=folder / "spool", state=folder / "state", min_free=Size(0))
settings = Settings(storage=storage, camera=Camera(timeout=Duration(300)))
CameraProcess(settings, drawings.DEVICE, child_faults.StillClock(), child_faults.make).capture()
"""


def test_a_camera_that_is_stuck_does_not_outlive_its_daemon(tmp_path: Path) -> None:
    script(tmp_path, "stuck")
    environment = os.environ | {
        "CAMERA_SCRIPT": str(script_in(tmp_path)),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, tmp_path], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout
    child = int(daemon.stdout.readline())
    with os.fdopen(os.pidfd_open(child)) as its_end:
        daemon.kill()
        daemon.wait()
        is_over = bool(select.select([its_end], [], [], 10)[0])
        if not is_over:
            os.kill(child, signal.SIGKILL)
    daemon.stdout.close()
    assert is_over


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The machine has no process left for us, until the patch is undone."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.popen_spawn_posix.Popen._launch", refuse)
        yield patch


def test_a_camera_process_that_cannot_be_started_is_a_failed_picture(
    camera: CameraProcess, tmp_path: Path, no_process: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "ok")
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(3):
        with pytest.raises(CameraError, match=r"cannot be started: .*Resource temporarily unavailable"):
            camera.capture()
    assert len([*Path("/proc/self/fd").iterdir()]) <= before
    no_process.undo()
    camera.capture()


def test_a_flash_that_no_process_can_switch_off_is_told_and_costs_no_daemon(
    tmp_path: Path, no_process: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(camera=Camera(flash=Flash(pin=17)), storage=Storage(spool=tmp_path, state=tmp_path))
    CameraProcess(settings, drawings.DEVICE, child_faults.StillClock(), child_faults.make).switch_off_flash()
    assert "the flash may be on: no process can be started" in caplog.text


def test_examiners_that_cannot_be_started_say_so_and_no_file_is_to_blame(
    examiners: Examiners, spool: Path, no_process: pytest.MonkeyPatch
) -> None:
    files = put(spool, "a.jpg")
    for _ in range(4):
        with pytest.raises(
            NoExaminer, match=r"no process can be started for it .*Resource temporarily unavailable"
        ):
            outcomes(examiners, files)
    no_process.undo()
    assert isinstance(outcomes(examiners, files)["a.jpg"], Image)


def test_without_shared_memory_it_is_named(
    examiners: Examiners, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:  # as the C library does where /dev/shm is read-only
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    monkeypatch.setattr(mounts, "SHARED_MEMORY", tmp_path / "shm")
    with pytest.raises(
        NoExaminer, match=rf"no file can be examined: {tmp_path}/shm is missing .* sudo mount"
    ):
        outcomes(examiners, put(spool, "a.jpg"))


def test_a_camera_that_fails_is_opened_anew_in_the_same_process(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "ok fail ok")
    first = model(tmp_path, camera.capture())
    with pytest.raises(CameraError, match="the cable is loose"):
        camera.capture()
    second = model(tmp_path, camera.capture())
    assert first.replace("opened 1", "opened 2") == second


def test_a_camera_that_hangs_loses_its_process_and_the_next_picture_is_well(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "ok hang ok")
    camera.capture()
    with pytest.raises(CameraError, match="within 3 s"):
        camera.capture()
    assert "opened 1" in model(tmp_path, camera.capture())


def test_a_camera_process_that_dies_is_replaced(camera: CameraProcess, tmp_path: Path) -> None:
    script(tmp_path, "die ok")
    with pytest.raises(CameraError, match="exit code 3"):
        camera.capture()
    assert camera.capture()


def test_a_camera_that_fails_again_after_it_was_opened_anew_gets_a_new_process(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "ok fail fail ok")
    first = model(tmp_path, camera.capture())
    for _ in range(2):
        with pytest.raises(CameraError, match="the cable is loose"):
            camera.capture()
    second = model(tmp_path, camera.capture())
    assert second.startswith("opened 1 ")
    assert second != first


@pytest.mark.parametrize(("every", "rests"), [(10.0, [0, 0, 0]), (10.1, [0, 1, 2])])
def test_a_camera_rests_between_two_pictures_unless_the_next_one_is_near(
    camera: CameraProcess, tmp_path: Path, rests: list[int]
) -> None:
    script(tmp_path, "ok ok ok")
    assert [f"rested {n} " in model(tmp_path, camera.capture()) for n in rests] == [True] * 3


@pytest.mark.parametrize("every", [1200.0])
def test_a_camera_that_cannot_rest_loses_its_process_and_no_picture(
    camera: CameraProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script(tmp_path, "sleepless ok")
    first = model(tmp_path, camera.capture())
    assert camera._process
    camera._process.join(20)
    assert camera._process.exitcode == 1
    second = model(tmp_path, camera.capture())
    assert first.split("pid")[1] != second.split("pid")[1]
    assert "ended between two pictures (exit code 1)" in caplog.text


def test_a_new_process_is_given_time_to_load_the_camera_software(
    camera: CameraProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_process, "_TO_START", 1.0)
    script(tmp_path, "hang")
    with pytest.raises(CameraError, match="within 4 s"):
        camera.capture()


@pytest.fixture
def lit(camera: CameraProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The camera has a flash; the file that says that it was put out from outside."""
    monkeypatch.setattr(camera_process, "_switch_off_flash", child_faults.switch_off_flash)
    settings = camera._settings
    with_flash = msgspec.structs.replace(settings.camera, flash=Flash(pin=17, warm_up=Duration(0)))
    monkeypatch.setattr(camera, "_settings", msgspec.structs.replace(settings, camera=with_flash))
    return script_in(tmp_path).with_name("switched-off")


@pytest.mark.parametrize("end", ["hang", "die"])
def test_the_flash_of_a_process_that_was_killed_or_died_is_switched_off(
    camera: CameraProcess, tmp_path: Path, lit: Path, end: str
) -> None:
    script(tmp_path, f"ok {end}")
    camera.capture()
    assert not lit.exists()
    with pytest.raises(CameraError):
        camera.capture()
    for child in multiprocessing.active_children():
        child.join(60)
    assert lit.read_text() == "GPIO17"


def test_a_process_that_ends_by_itself_puts_its_flash_out_itself(
    camera: CameraProcess, tmp_path: Path, lit: Path
) -> None:
    script(tmp_path, "ok")
    camera.capture()
    camera.close()
    assert not lit.exists()


def test_a_camera_process_that_is_frozen_is_replaced(camera: CameraProcess, tmp_path: Path) -> None:
    script(tmp_path, "ok stop ok")
    camera.capture()
    with pytest.raises(CameraError, match="within 3 s"):
        camera.capture()
    assert camera.capture()


def test_what_the_camera_gives_and_is_no_picture_is_the_cameras_failure(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, "rubbish ok")
    with pytest.raises(CameraError, match="no JPEG"):
        camera.capture()
    assert camera.capture()


@pytest.mark.parametrize(
    ("word", "reason"), [("black", "next to nothing"), ("small", "80 × 60, not 160 × 120")]
)
def test_a_picture_that_looks_wrong_is_kept_and_its_oddity_told_until_the_next_is_well(
    camera: CameraProcess, tmp_path: Path, word: str, reason: str
) -> None:
    script(tmp_path, f"ok {word} ok")
    camera.capture()
    assert camera.oddity is None
    path = camera.capture()
    assert reason in str(camera.oddity)
    assert examine(tmp_path / "spool", path).size > 500
    camera.capture()
    assert camera.oddity is None


def test_a_row_of_black_pictures_costs_the_process_once_and_no_picture(
    camera: CameraProcess, tmp_path: Path
) -> None:
    script(tmp_path, 8 * "black ")
    models = [model(tmp_path, camera.capture()) for _ in range(8)]
    assert [models.index(one) for one in models] == [0, 0, 0, 3, 3, 3, 3, 3]


def test_a_card_that_is_nearly_full_stops_capture_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_SCRIPT", str(script_in(tmp_path)))
    storage = Storage(spool=tmp_path / "spool", state=tmp_path / "state", min_free=Size(10**15))
    process = CameraProcess(
        Settings(storage=storage), drawings.DEVICE, child_faults.StillClock(), child_faults.make
    )
    try:
        with pytest.raises(StorageError, match="min_free"):
            process.capture()
    finally:
        process.close()
    assert not (tmp_path / "spool").exists()
