"""What may befall a child process: run there by the tests, so it must be importable there."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

import drawings
from trapsync import cameras
from trapsync.cameras import AlwaysReady, Frame
from trapsync.destinations import Destination
from trapsync.errors import CameraError
from trapsync.image import Image
from trapsync.jpeg import thumbnail
from trapsync.jpeg.examination import examine
from trapsync.runtime import (
    capture_thread,
    catalog_check,
    ingest_thread,
    jobs,
    scheduler,
    service,
    single_run,
)
from trapsync.runtime.camera_process import CameraProcess
from trapsync.settings.schema import Camera as CameraSettings
from trapsync.settings.schema import Flash, Settings
from trapsync.spool.inbox import Inbox


def look(spool: Path, path: str) -> Image:
    """Examine a file; its name says what befalls the examiner."""
    if "hang" in path:
        time.sleep(60)
    if "once" in path and not (spool / "met").exists():
        (spool / "met").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "crash" in path:
        ctypes.string_at(0)  # a segmentation fault, as a decoder's would be
    if "shot" in path:  # from outside, as the kernel does for want of memory
        os.kill(os.getpid(), signal.SIGKILL)
    if "ended" in path:
        os.kill(os.getpid(), signal.SIGTERM)
    if "greedy" in path:
        return Image(str(len(bytearray(4 << 30))), 0, "", "", 0, 0)
    if "bug" in path:
        raise ZeroDivisionError("a mistake of our own")
    return examine(spool, path)


@dataclass(frozen=True)
class StillClock:
    """A clock that stands still, in every process: the pictures of one second."""

    def monotonic(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return drawings.TAKEN.timestamp() + 0.25

    def boot_id(self) -> str:
        return "5b0c0d5e-0000-4000-8000-000000000000"

    def trusted(self) -> bool:
        return True


def black(width: int = 160, height: int = 120) -> bytes:
    """A picture without any light, and without noise."""
    size = f'width="{width}" height="{height}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size}/></svg>'
    return thumbnail.draw(svg, width=width, height=height, noise=0, seed=1, quality=90)


class Camera(AlwaysReady):
    """A camera whose n-th picture goes as the n-th word of the file `script` in the current folder says."""

    def __init__(self, settings: CameraSettings, device: str) -> None:
        self._script = Path(os.environ["CAMERA_SCRIPT"])
        self._opened = 0
        self._rested = 0
        self._is_sleepless = False

    def open(self) -> None:
        self._opened += 1

    def capture(self, moment: datetime) -> Frame:
        word, *rest = self._script.read_text().split()
        self._script.write_text(" ".join(rest))
        if word == "hang":
            time.sleep(60)
        if word == "stuck":
            os.write(1, b"%d\n" % os.getpid())
            time.sleep(60)
        if word == "die":
            os._exit(3)
        if word == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if word == "fail":
            raise CameraError("the cable is loose")
        if word == "rubbish":
            return Frame(b"no picture", 160, 120, "imx477")
        model = f"opened {self._opened} rested {self._rested} pid {os.getpid()}"
        if word == "black":
            return Frame(black(), 160, 120, model)
        if word == "sleepless":
            self._is_sleepless = True
        if word == "small":
            return Frame(drawings.plain(80, 60), 80, 60, model)
        return Frame(drawings.plain(), 160, 120, model)

    def rest(self) -> None:
        if self._is_sleepless:
            raise CameraError("the camera cannot be stopped")
        self._rested += 1

    def close(self) -> None:
        pass


def switch_off_flash(settings: Flash) -> None:
    """What is run in place of `_switch_off_flash`: it leaves a file."""
    Path(os.environ["CAMERA_SCRIPT"]).with_name("switched-off").write_text(f"GPIO{settings.pin}")


def make(settings: CameraSettings, device: str) -> Camera:
    """What the camera process is given in place of `cameras.make`."""
    return Camera(settings, device)


# ── A daemon of which one part freezes: `python misfortunes.py PART -c CONFIG run` ───────────────────


def _freeze(*_: object) -> None:
    while True:
        time.sleep(60)


def _fail(*_: object) -> str:
    raise CameraError("the cable is loose")


SERVICE, JOBS = "trapsync.runtime.service:", "trapsync.runtime.jobs:Jobs"
SINGLE_RUN = "trapsync.runtime.single_run:"
FREEZING: dict[str, tuple[str, str, Callable[..., object]]] = {
    "main": (SERVICE + "Service", "_straighten", _freeze),
    "capture": (SERVICE + "CameraProcess", "capture", _freeze),
    "camera": (SERVICE + "CameraProcess", "capture", _fail),
    "ingest": ("trapsync.runtime.ingest_thread:IngestThread", "_ingest", _freeze),
    "thumbnails": (SERVICE + "Examiners", "make_thumbnails", _freeze),
    "scheduler": ("trapsync.runtime.scheduler:BackgroundScheduler", "_process_jobs", _freeze),
    "sweep": (JOBS, "sweep", _freeze),
    "deliver": (JOBS, "deliver", _freeze),
}


def _run_freezing(part: str) -> None:
    """Run the program with one part replaced, and with less patience than a trap has in the field."""
    if part in FREEZING:
        capture_thread._GRACE, scheduler._PULSE, scheduler._TIMEOUT = 1.0, 0.5, 3.0
        setattr(ingest_thread.IngestThread, "_limit", lambda _self: 3.0)  # noqa: B010
        where, name, instead = FREEZING[part]
        setattr(resolve_name(where), name, instead)
    from trapsync.cli import main

    main()


# ── A daemon that does badly with some settings: `python misfortunes.py bad -c CONFIG run` ──────────────

CRASHING, HANGING, CLOSING = 13, 14, 13  # the quality with which it dies, or its camera hangs; `parallel`
_make = cameras.make
_deliver = jobs.Jobs.deliver
_start = service.Service._start
_open = single_run.SingleRun._open


def make_or_hang(settings: CameraSettings, device: str) -> cameras.Camera:
    """The camera, in its own process; with one quality it never gives a picture."""
    camera = _make(settings, device)
    if settings.quality == HANGING:
        camera.capture = _freeze  # type: ignore[method-assign, assignment]
    return camera


def _start_or_crash(daemon: service.Service) -> None:
    _start(daemon)
    _crash_or_not(daemon.settings)


def _open_or_crash(one: single_run.SingleRun) -> None:
    _open(one)
    _crash_or_not(one._settings)


def _crash_or_not(settings: Settings) -> None:
    if settings.camera.quality == CRASHING:
        os.kill(os.getpid(), signal.SIGKILL)


def _deliver_or_not(self: jobs.Jobs, destination: Destination) -> None:
    if destination.settings.transfers != CLOSING:
        _deliver(self, destination)


def _do_badly() -> None:
    """What no limit on values can foresee, at the values above; a restart of its own brings it back here."""
    instead = {
        SERVICE + "CameraProcess": partial(CameraProcess, make=make_or_hang),
        SERVICE + "Service._start": _start_or_crash,
        SINGLE_RUN + "CameraProcess": partial(CameraProcess, make=make_or_hang),
        SINGLE_RUN + "SingleRun._open": _open_or_crash,
        JOBS + ".deliver": _deliver_or_not,
        SERVICE + "restart": lambda more: os.execv(sys.executable, [sys.executable, __file__, "bad", *more]),
    }
    for where, misfortune in instead.items():
        inside, _, name = where.replace(":", ".").rpartition(".")
        setattr(resolve_name(inside), name, misfortune)


INBOX = 1500  # paths: what the inbox of a daemon holds that is run by `python misfortunes.py crowded -c CONFIG run`

if __name__ == "__main__":
    if sys.argv[1] == "bad":
        _do_badly()
    if sys.argv[1] == "crowded":
        setattr(service, "Inbox", partial(Inbox, limit=INBOX))  # noqa: B010
    if sys.argv[1] == "checking":  # at once, not after a minute
        catalog_check.AFTER_START = 0.0
    _run_freezing(sys.argv.pop(1))
