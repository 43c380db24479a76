"""The camera in a process of its own, which is killed at its deadline and replaced."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Set
from dataclasses import replace
from datetime import tzinfo
from multiprocessing.connection import Connection
from pathlib import PurePosixPath
from typing import Any

from trapsync import cameras
from trapsync.cameras import Camera, Frame
from trapsync.clock import Clock
from trapsync.errors import CameraError, StorageError, TrapsyncError
from trapsync.hardware import gpio
from trapsync.image import UNKNOWN, Reading, parse_name, place_of
from trapsync.runtime import child_process, restricted
from trapsync.runtime.child_process import become_child, spawn
from trapsync.settings.schema import Camera as CameraSettings
from trapsync.settings.schema import Flash, Settings
from trapsync.settings.time_zone import exif_offset
from trapsync.spool import spool_mark

log = logging.getLogger(__name__)

_TO_START = 20.0  # seconds for a new camera process: on a small Pi picamera2 alone takes five to load
_MIN_REST = 10.0  # seconds: a camera whose next picture is further away than this rests until then
_RESTART_EVERY = 86400.0  # seconds: the camera software leaks a little
_TO_END = 0.5  # seconds for a killed process: one that is stuck in the kernel must not hold us up
_ODD_PICTURES = 3  # in a row, until the camera's process is renewed over them


class CameraProcess:
    """The camera in its own process. One thread uses it.

    The ladder: a failed capture closes the camera, and the next one opens it again; a second failure in a row,
    or one that passes its deadline, costs the process. Each is a CameraError; whether to give up is the
    caller's business. A picture that looks wrong is kept; `oddity` says what is wrong with the last one, and
    several in a row cost the process once. `make` makes the camera, there; `deployment` tells the id of the deployment to
    which a picture belongs.
    """

    def __init__(
        self,
        settings: Settings,
        device: str,
        clock: Clock,
        make: Callable[[CameraSettings, str], Camera] = cameras.make,
        deployment: Callable[[], str] = lambda: "",
    ) -> None:
        self._make = make
        self._deployment = deployment
        self._settings = settings
        self._offset = exif_offset(settings)
        self._device = device
        self._clock = clock
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._rights = restricted.Rights(
            read=tuple(
                spool_mark.read_for_check(settings.storage) + cameras.read_for_pictures(settings.camera)
            ),
            write=(settings.storage.spool,),
            is_camera=True,
        )
        self._started = 0.0
        self._failures = 0
        self._odd_pictures = 0
        self.oddity: str | None = None

    def capture(self, taken: Set[str] = frozenset(), reading: Reading = UNKNOWN) -> str:
        """Have one picture taken and stored, and return its path in the spool. Raises CameraError, StorageError.

        `taken` are names that it must not get, besides those in the spool; `reading` is what the sensors
        measured, which goes into its EXIF.
        """
        try:
            return self._capture(taken, reading)
        except StorageError as error:
            if not self._rights.are_stale(error):
                raise
        self.close()
        return self._capture(taken, reading)

    def _capture(self, taken: Set[str], reading: Reading) -> str:
        camera = self._settings.camera
        if self._process and self._clock.monotonic() - self._started > _RESTART_EVERY:
            self.close()  # what leaks in libcamera goes with the process
        if self._process and self._rights.identity() != self._folders:
            self.close()  # a disk was mounted at the spool, say: only a new process may use it
        self._replace_ended()
        deadline = cameras.timeout(camera) + (0.0 if self._pipe else _TO_START)
        try:
            pipe = self._pipe or self._start()
        except OSError as error:  # no process, memory or descriptor is left
            raise CameraError(f"the camera's process cannot be started: {error}") from error
        try:
            pipe.send((taken, reading, self._deployment()))
            if not pipe.poll(deadline):
                self._kill()
                raise CameraError(
                    f"the camera gave no picture within {deadline:.0f} s; its process was killed"
                )
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            code = self._kill()
            raise CameraError(f"the camera's process died ({_describe_exit(code)})") from error
        if isinstance(answer, TrapsyncError):
            self._failed(answer)
            raise answer
        path, self.oddity = _stored(answer)
        self._succeeded()
        return path

    def _replace_ended(self) -> None:
        """Forget a process that ended between two pictures: that costs none."""
        if self._process and not self._process.is_alive():
            end = _describe_exit(self._kill())
            log.warning("the camera's process ended between two pictures (%s); another takes its place", end)

    def _failed(self, error: TrapsyncError) -> None:
        if isinstance(error, CameraError):
            self._failures += 1
            if self._failures > 1:  # to open it again did not help
                self.close()

    def _succeeded(self) -> None:
        self._failures = 0
        self._odd_pictures = self._odd_pictures + 1 if self.oddity else 0
        if self._odd_pictures == _ODD_PICTURES:  # once: it may just be a dark night
            self.close()

    def _start(self) -> Connection:
        self._folders = self._rights.identity()
        self._process, self._pipe = child_process.start(
            *(_run_camera, self._settings, self._device, self._clock, self._make, self._offset, self._rights),
            name="camera",
        )
        self._started = self._clock.monotonic()
        return self._pipe

    def _kill(self) -> int | None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None:
            return None
        code = child_process.end(process, pipe, _TO_END)
        if code != 0:
            self.switch_off_flash()
        return code

    def switch_off_flash(self) -> None:
        """Switch off a flash that a process which was killed, or died, may have left on."""
        flash = self._settings.camera.flash
        if flash.pin is not None:
            process = spawn.Process(target=_switch_off_flash, args=(flash,), daemon=True)
            try:
                process.start()
            except OSError as error:
                log.error("the flash may be on: no process can be started to switch it off: %s", error)
                return
            process.join(6)  # for the next process wants the same pin

    def close(self) -> None:
        """End the process: it ends by itself when its pipe closes, or is killed."""
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if self._process:
            self._process.join(2)
            self._kill()


def _stored(answer: Any) -> tuple[str, str | None]:
    """The path in the spool and the oddity; CameraError for an answer that is none of a picture's."""
    match answer:
        case (str(path), str() | None as oddity) if (
            parse_name(PurePosixPath(path).name) and place_of(path) == path
        ):
            return path, oddity
    raise CameraError("the camera's process gives an answer that makes no sense")


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "no exit code"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _run_camera(
    pipe: Connection,
    settings: Settings,
    device: str,
    clock: Clock,
    make: Callable[[CameraSettings, str], Camera],
    offset: tzinfo,
    rights: restricted.Rights,
) -> None:
    """Run the camera process: for each request take a picture, and answer with its path or the error."""
    become_child()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a picture under way is finished; the pipe says when
    from trapsync import pipeline

    clock.boot_id()  # which is read once, while it can be
    has_pins = settings.camera.flash.pin is not None or settings.sensors.button is not None
    restricted.restrict(replace(rights, pipes=gpio.pipe_folder() if has_pins else None))
    camera = make(settings.camera, device)
    oddities: list[str | None] = []

    def inspect(frame: Frame) -> None:
        oddities[:] = [cameras.oddity(frame, settings.camera)]

    button = gpio.Button(settings.sensors.button)
    is_open = False
    rests = settings.capture.every > _MIN_REST
    answer: tuple[str, str | None] | TrapsyncError
    while True:
        try:
            taken, reading, deployment = pipe.recv()
        except (EOFError, OSError):  # the daemon is done with us
            break
        try:
            if not is_open:
                camera.open()
                is_open = True
            reading = replace(reading, button=button.is_pressed())
            path = pipeline.capture(
                camera, settings, device, clock, taken, reading, inspect, offset, deployment
            )
            answer = path, oddities[0]
        except StorageError as error:  # no fault of the camera's
            answer = error
        except TrapsyncError as error:
            camera.close()
            is_open = False
            answer = error
        try:
            pipe.send(answer)
            if is_open and (rests or not pipe.poll(_MIN_REST)):
                camera.rest()
        except OSError:  # the daemon died meanwhile; the sweep of the next one finds the picture
            break
        except CameraError as error:
            log.error("%s; the camera's process ends", error)
            os._exit(1)  # to close such a camera would hang, too
    camera.close()


def _switch_off_flash(settings: Flash) -> None:
    become_child()
    from trapsync.cameras import flash

    try:
        flash.switch_off(settings)
    except CameraError as error:
        log.error("%s", error)
