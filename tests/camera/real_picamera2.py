"""The real picamera2 on libcamera's virtual pipeline, through trapsync's own backend, process and daemon.

Run by scripts/test-camera, in a root of its own. The virtual camera shows drawn sticky cards. It has no sensor, so
what depends on one (modes, exposure, gain, focus, crop, contiguous memory, time-outs of the hardware) is not
shown here.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import virtual_camera

import daemon_process
import drawings
from trapsync.cameras import Frame
from trapsync.cameras.picamera import Picamera
from trapsync.cameras.simulated import SimulatedCamera
from trapsync.clock import SystemClock
from trapsync.errors import CameraError
from trapsync.jpeg import exif, structure
from trapsync.runtime.camera_process import CameraProcess
from trapsync.settings.schema import Camera, Capture, Settings, Storage
from trapsync.settings.units import Duration, Size

CARDS = Path("/usr/share/libcamera/cards")  # the camera's process sees no other folder of these
NOON = datetime(2026, 6, 20, 12, tzinfo=UTC)
SETTINGS = Camera(resolution=(2048, 1536), warm_up=Duration(0), timeout=Duration(5))


@pytest.fixture(scope="session", autouse=True)
def cards() -> list[bytes]:
    """Three drawn sticky cards, of three hours; libcamera reads them when it is loaded."""
    artist = SimulatedCamera(msgspec.structs.replace(SETTINGS, kind="simulated"), drawings.DEVICE)
    artist.open()
    pictures = [artist.capture(NOON + timedelta(hours=8 * n)).jpeg for n in range(3)]
    CARDS.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        (CARDS / f"{number}.jpg").write_bytes(picture)
    return pictures


@pytest.fixture(autouse=True)
def _frames_come() -> Iterator[None]:
    virtual_camera.SILENT.unlink(missing_ok=True)
    yield
    virtual_camera.SILENT.unlink(missing_ok=True)


@pytest.fixture
def camera() -> Iterator[Picamera]:
    one = Picamera(SETTINGS)
    one.open()
    yield one
    one.close()


def taken(camera: Picamera) -> Frame:
    with camera.ready():
        return camera.capture(NOON)


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def threads(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208


def memory(pid: int | str = "self") -> float:
    """Resident, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def difference(one: bytes, other: bytes) -> float:
    """In grey levels, on the average."""
    import pyvips

    a, b = (pyvips.Image.new_from_buffer(content, "").resize(0.25) for content in (one, other))
    return float((a - b).abs().avg())


# ── The backend ──────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_of_the_real_package_shows_the_card(camera: Picamera, cards: list[bytes]) -> None:
    frame = taken(camera)

    assert (frame.width, frame.height, frame.model) == (2048, 1536, "virtual")
    best, *others = sorted(difference(frame.jpeg, card) for card in cards)
    print(f"\ndifference from the card that is shown {best:.2f} grey levels, from the others {others}")
    assert best < 3 < others[0]
    assert frame.jpeg.endswith(structure.END_OF_IMAGE)


def test_what_the_camera_does_not_say_is_not_made_up(camera: Picamera) -> None:
    frame = taken(camera)

    assert (frame.exposure, frame.gain, frame.lens_position) == (None, None, None)


def test_what_opening_again_costs() -> None:
    """For the record: why the camera is stopped and started, and not closed and opened."""
    figures = []
    for count in (5, 25):
        for _ in range(count):
            one = Picamera(SETTINGS)
            one.open()
            taken(one)
            one.close()
        figures.append((round(memory(), 1), descriptors(), threads()))

    print(f"\nMB, descriptors, threads after 5 openings {figures[0]}, after 30 {figures[1]}")


def test_frames_that_stop_coming_are_an_error_and_the_camera_can_be_opened_again(camera: Picamera) -> None:
    taken(camera)
    virtual_camera.SILENT.touch()
    since = time.monotonic()

    with pytest.raises(CameraError, match="no picture in time"):
        taken(camera)

    assert 1.5 < time.monotonic() - since < SETTINGS.timeout
    virtual_camera.SILENT.unlink()
    camera.close()
    camera.open()
    assert taken(camera).width == 2048


def test_a_picture_after_one_that_did_not_come_comes_without_opening_again(camera: Picamera) -> None:
    """The buffer is not lost with the wait that was taken back."""
    taken(camera)
    virtual_camera.SILENT.touch()
    with pytest.raises(CameraError):
        taken(camera)
    virtual_camera.SILENT.unlink()

    assert taken(camera).width == 2048


def test_another_program_that_holds_the_camera_is_named_as_the_reason(camera: Picamera) -> None:
    with pytest.raises(CameraError, match="another program holds the camera"):
        Picamera(SETTINGS).open()


# ── The camera's process ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., CameraProcess]]:
    made: list[CameraProcess] = []
    (tmp_path / "spool").mkdir()  # what is made later is another folder than the one that it may use

    def make(every: float = 1200.0, **changes: Any) -> CameraProcess:
        settings = Settings(
            storage=Storage(spool=tmp_path / "spool", state=tmp_path / "state", min_free=Size(0)),
            camera=msgspec.structs.replace(SETTINGS, **changes),
            capture=Capture(every=Duration(every)),
        )
        made.append(CameraProcess(settings, drawings.DEVICE, SystemClock(), virtual_camera.make))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pid_of(process: CameraProcess) -> int:
    assert process._process
    assert process._process.pid
    return process._process.pid


def busy(pid: int, seconds: float = 1.0) -> float:
    """What part of a CPU it takes."""

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))

    before = ticks()
    time.sleep(seconds)  # what is measured is time
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def test_pictures_of_the_process_lie_in_the_spool_with_our_exif(
    process: Callable[..., CameraProcess], tmp_path: Path
) -> None:
    camera = process()

    path = tmp_path / "spool" / camera.capture()

    metadata = exif.read(drawings.block_of(path.read_bytes()))[0]
    assert (metadata["Model"], metadata["Make"], "ExposureTime" in metadata) == ("virtual", "StickyPi", False)
    assert camera.oddity is None


def test_at_rest_the_process_does_nothing(process: Callable[..., CameraProcess]) -> None:
    resting, running = process(every=1200.0), process(every=5.0)
    resting.capture()
    at_rest, size = busy(pid_of(resting)), memory(pid_of(resting))
    resting.close()
    running.capture()
    at_work = busy(pid_of(running))

    print(f"\nof a CPU: at rest {at_rest:.1%}, running {at_work:.0%}; {size:.0f} MB resident")
    assert at_rest < 0.05 < at_work


def test_three_hundred_rests_leak_nothing(process: Callable[..., CameraProcess]) -> None:
    camera = process()

    def figures(pictures: int) -> tuple[float, int, int]:
        for _ in range(pictures):
            camera.capture()
        time.sleep(0.5)  # until it rests
        pid = pid_of(camera)
        return memory(pid), descriptors(pid), threads(pid)

    before, after = figures(50), figures(300)

    print(f"\nMB, descriptors, threads after 50 rests {before}, after 350 {after}")
    assert after[1] <= before[1]
    assert after[2] <= before[2]
    assert after[0] - before[0] < 10


def test_a_process_that_freezes_is_killed_at_its_deadline_and_the_next_picture_comes(
    process: Callable[..., CameraProcess],
) -> None:
    camera = process()
    camera.capture()
    os.kill(pid_of(camera), signal.SIGSTOP)
    since = time.monotonic()

    with pytest.raises(CameraError, match="within 5 s"):
        camera.capture()

    print(f"\nkilled after {time.monotonic() - since:.1f} s")
    assert camera.capture()


def test_a_process_that_is_killed_at_rest_costs_no_picture(process: Callable[..., CameraProcess]) -> None:
    camera = process()
    for _ in range(3):
        assert camera.capture()
        time.sleep(0.2)  # until it rests
        os.kill(pid_of(camera), signal.SIGKILL)
        assert camera._process
        camera._process.join(5)

    assert camera.capture()


def test_a_camera_without_frames_is_opened_anew_then_its_process_replaced(
    process: Callable[..., CameraProcess],
) -> None:
    camera = process()
    camera.capture()
    first = pid_of(camera)
    virtual_camera.SILENT.touch()
    for _ in range(2):
        with pytest.raises(CameraError, match="no picture in time"):
            camera.capture()
    virtual_camera.SILENT.unlink()

    assert camera.capture()
    assert pid_of(camera) != first


def test_the_process_is_renewed_each_day_without_a_trace(process: Callable[..., CameraProcess]) -> None:
    camera = process()
    camera.capture()
    pids, lasted, before = {pid_of(camera)}, [], descriptors()
    for _ in range(10):
        camera._started -= 86401  # a day
        since = time.monotonic()
        assert camera.capture()
        lasted.append(time.monotonic() - since)
        pids.add(pid_of(camera))

    print(f"\na picture with a renewal takes {statistics.median(lasted):.1f} s")
    assert len(pids) == 11
    assert descriptors() == before


def test_the_focus_is_shown_live_with_the_real_package(tmp_path: Path) -> None:
    trap = daemon_process.Daemon(tmp_path / "trap", camera="picamera")
    trap.config.write_text(trap.config.read_text().replace("[320, 240]", "[2048, 1536]"))
    code = "import virtual_camera; from trapsync.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "-c", str(trap.config), "focus", "--pictures", "3"],
        capture_output=True,
        text=True,
        check=False,
    )

    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sharpness") == 3
    assert structure.header((trap.folder / "state" / "focus.jpg").read_bytes()).width == 2048


# ── The daemon ───────────────────────────────────────────────────────────────────────────────────────

STICK = """
[destinations.stick]
kind = "directory"
path = "{folder}"
every = "1 s"
"""


class Trap(daemon_process.Daemon):
    program = (virtual_camera.__file__,)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_whole_daemon_takes_delivers_and_ends_with_the_real_package(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    trap = Trap(tmp_path / "trap", STICK.format(folder=stick), camera="picamera")
    config = trap.config.read_text().replace("[320, 240]", "[2048, 1536]")
    trap.config.write_text(config)
    trap.start()
    try:
        trap.until(lambda facts: facts["ledger"]["delivered"] >= 3, seconds=120)
        # The camera's process is shot in the middle of its work; then the daemon itself.
        for one in children(trap.pid):
            os.kill(one, signal.SIGKILL)
        before = trap.status()["ledger"]["delivered"]
        trap.until(lambda facts: facts["ledger"]["delivered"] >= before + 3, seconds=120)
        trap.kill()
        trap.start()
        trap.until(lambda facts: facts["ledger"]["delivered"] >= before + 6, seconds=120)
        since = time.monotonic()
        assert trap.stop() == 0
        print(f"\nSIGTERM to end {time.monotonic() - since:.1f} s")
    finally:
        if trap.poll() is None:
            os.killpg(trap.pid, signal.SIGKILL)
    ledger = trap.status()["ledger"]
    print(ledger)
    assert ledger["captured"] == ledger["delivered"] + ledger["pending"]
    assert ledger["quarantined"] == ledger["dropped"] == 0
    pictures = list(stick.rglob("*.jpg"))
    assert len(pictures) == ledger["delivered"]
    for picture in pictures:
        content = picture.read_bytes()
        assert exif.read(drawings.block_of(content))[0]["Model"] == "virtual"
        assert structure.header(content).width == 2048
