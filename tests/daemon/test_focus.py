"""The aid for focusing: a number that follows the lens, a whole picture at the end, and no harm to the trap."""

import os
import pty
import signal
import sys
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

import daemon_process
import drawings
import processes
from trapsync.cameras import close_up
from trapsync.cameras.simulated import SimulatedCamera
from trapsync.errors import DamagedImage
from trapsync.jpeg import structure, thumbnail
from trapsync.settings.schema import Camera
from trapsync.trap import lock


@cache
def sharp_card() -> bytes:
    camera = SimulatedCamera(close_up(Camera(kind="simulated")), drawings.DEVICE)
    camera.open()
    return camera.capture(datetime(2026, 6, 22, 12, tzinfo=UTC)).jpeg


def card(*, blur: float = 0.0, light: float = 1.0, grain: float = 0.0) -> bytes:
    """The middle of a drawn sticky card, out of focus by so many pixels, darker, or with more grain."""
    import pyvips

    picture: Any = pyvips.Image.new_from_buffer(sharp_card(), "")
    picture = picture.gaussblur(blur) if blur else picture
    picture += pyvips.Image.gaussnoise(picture.width, picture.height, mean=0, sigma=grain, seed=1)
    content: bytes = (picture * light).cast("uchar").jpegsave_buffer(Q=90)
    return content


def test_the_sharper_the_picture_the_greater_the_number() -> None:
    numbers = [thumbnail.sharpness(card(blur=blur)) for blur in (0, 1, 2, 3, 4, 6, 8)]

    assert all(sharper > 1.1 * softer for sharper, softer in pairwise(numbers))
    assert numbers[0] > 3 * numbers[4]


def test_grain_is_not_taken_for_sharpness() -> None:
    assert thumbnail.sharpness(card(blur=4, grain=8)) < thumbnail.sharpness(card(blur=1, grain=8)) / 1.5


def test_less_light_makes_no_picture_less_sharp() -> None:
    light, dark = thumbnail.sharpness(card()), thumbnail.sharpness(card(light=0.4))

    assert dark == pytest.approx(light, rel=0.1)


def test_what_is_no_picture_has_no_sharpness() -> None:
    with pytest.raises(DamagedImage, match="cannot be decoded"):
        thumbnail.sharpness(b"no picture")


def test_the_close_up_shows_the_middle_of_the_picture_pixel_by_pixel() -> None:
    whole = msgspec.structs.replace(Camera(), resolution=(4608, 2592), zoom=(0.5, 0.0, 0.5, 0.5))

    near = close_up(whole)

    assert near.resolution == (1152, 648)
    assert near.zoom == (0.6875, 0.1875, 0.125, 0.125)


@pytest.fixture
def trap(tmp_path: Path) -> daemon_process.Daemon:
    return daemon_process.Daemon(tmp_path / "trap", camera="simulated")


def test_the_number_is_shown_for_each_picture_and_a_whole_one_is_saved(trap: daemon_process.Daemon) -> None:
    done = trap.run("focus", "--pictures", "3")

    assert done.returncode == 0
    assert done.stdout.count("sharpness") == 3
    saved = structure.header((trap.folder / "state" / "focus.jpg").read_bytes())
    assert (saved.width, saved.height) == (320, 240)
    assert not trap.spool.exists()


def test_it_is_refused_while_the_daemon_has_the_camera(trap: daemon_process.Daemon, tmp_path: Path) -> None:
    with lock(trap.folder / "state"):
        done = trap.run("focus", "--still", str(tmp_path / "a.jpg"))

    assert done.returncode == 1
    assert f"the daemon (process {os.getpid()}) has the camera: stop it" in done.stderr
    assert not (tmp_path / "a.jpg").exists()


def test_a_folder_that_takes_no_picture_is_named(trap: daemon_process.Daemon, tmp_path: Path) -> None:
    (tmp_path / "nowhere").touch()
    done = trap.run("focus", "--pictures", "1", "--still", str(tmp_path / "nowhere" / "a.jpg"))

    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("before", [(), ("sh", "-c", 'trap "" INT; exec "$@"', "sh")], ids=["", "ignored"])
def test_ctrl_c_on_a_terminal_ends_it_with_a_whole_picture_also_where_it_was_ignored(
    trap: daemon_process.Daemon, before: tuple[str, ...]
) -> None:
    ours, theirs = pty.openpty()
    command = [*before, sys.executable, "-m", "trapsync", "-c", str(trap.config), "focus"]
    with processes.started(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"best" not in seen:  # the bar, at least once
            seen += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        while process.poll() is None:
            seen += _read(ours)
    seen += _read(ours)
    os.close(ours)

    assert process.returncode == 0, seen
    assert b"Traceback" not in seen
    assert (trap.folder / "state" / "focus.jpg").stat().st_size > 5000


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""
