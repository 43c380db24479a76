"""The two kinds of child: the camera's process and the examiners.

What may hang, leak or crash (libcamera, libvips, a hostile JPEG) runs in them, under a deadline that
this side keeps. A child that does not answer is killed and another takes its place. Children die with
the daemon: the kernel sees to it.
"""

import ctypes
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures import TimeoutError as DeadlinePassed
from dataclasses import replace
from datetime import datetime
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from trapsync import cameras, examine, gpio
from trapsync.cameras import Camera, Frame
from trapsync.clock import Clock
from trapsync.errors import CameraError, DamagedImage, ExaminerKilled, StorageError, TrapsyncError
from trapsync.image import UNKNOWN, Correction, Found, Image, Reading
from trapsync.settings import Camera as CameraSettings
from trapsync.settings import Flash, Ingest, Settings, Storage

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)
_TASKS_PER_EXAMINER = 500  # then a fresh one: libvips creeps from 46 to 67 MB in some hundred images
# What befalls an examiner; the last when it was killed in between two files, or at its very start.
_MISFORTUNES = (DeadlinePassed, CancelledError, ProcessExpired, BrokenExecutor)
# How an examiner ends that was killed from outside: by the kernel for want of memory, or as pebble ends at SIGTERM.
_KILLED = {-signal.SIGKILL, -signal.SIGTERM, int(signal.SIGTERM)}
_TO_START = 20.0  # seconds for a new camera process: on a small Pi picamera2 alone takes five to load
_RHYTHM = 10.0  # seconds: a camera whose next picture is further away than this rests until then
_ODD_PICTURES = 3  # in a row, until the camera's process is renewed over them
# Seconds between two looks of the pool's threads at their workers: at work, and with nothing to do.
_AT_WORK, _AT_REST = 0.1, 10.0
_TO_END = 2.0  # seconds for them to end
_spawn = multiprocessing.get_context("spawn")  # libvips and libcamera do not survive a fork


def _become_child() -> None:
    """Leave the keyboard's signals to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent and os.getppid() != parent.pid:  # it died before we asked
        os._exit(0)


class CameraProcess:
    """The camera in its own process. One thread uses it.

    The ladder: a failed capture closes the camera, and the next one opens it again; a second failure in a row,
    or one that passes its deadline, costs the process. Each is a CameraError; whether to give up is the
    caller's business. A picture that looks wrong is kept; `oddity` says what is wrong with the last one, and
    several in a row cost the process once. `make` makes the camera, there.
    """

    def __init__(
        self,
        settings: Settings,
        device: str,
        clock: Clock,
        make: Callable[[CameraSettings, str], Camera] = cameras.make,
    ) -> None:
        self._make = make
        self._settings = settings
        self._device = device
        self._clock = clock
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._started = 0.0
        self._failures = 0
        self._odd_pictures = 0
        self.oddity: str | None = None

    def capture(self, taken: Set[str] = frozenset(), reading: Reading = UNKNOWN) -> str:
        """Have one picture taken and stored; its path in the spool. Raises CameraError, StorageError.

        `taken` are names that it must not get, besides those in the spool; `reading` is what the sensors
        say, which goes into its EXIF.
        """
        camera = self._settings.camera
        if self._process and self._clock.monotonic() - self._started > camera.recycle:
            self.close()  # what leaks in libcamera goes with the process
        self._look_after_rest()
        deadline = cameras.patience(camera) + (0.0 if self._pipe else _TO_START)
        pipe = self._pipe or self._start()
        try:
            pipe.send((taken, reading))
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
        path, self.oddity = answer
        self._taken_well()
        return str(path)

    def _look_after_rest(self) -> None:
        """A process that ended between two pictures costs none."""
        if self._process and not self._process.is_alive():
            end = _describe_exit(self._kill())
            log.warning("the camera's process ended between two pictures (%s); another takes its place", end)

    def _failed(self, error: TrapsyncError) -> None:
        if isinstance(error, CameraError):
            self._failures += 1
            if self._failures > 1:  # to open it again did not help
                self.close()

    def _taken_well(self) -> None:
        self._failures = 0
        self._odd_pictures = self._odd_pictures + 1 if self.oddity else 0
        if self._odd_pictures == _ODD_PICTURES:  # once: it may just be a dark night
            self.close()

    def _start(self) -> Connection:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(
            target=_run_camera,
            args=(theirs, self._settings, self._device, self._clock, self._make),
            name="camera",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._process, self._pipe, self._started = process, ours, self._clock.monotonic()
        return ours

    def _kill(self) -> int | None:
        process, self._process = self._process, None
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if process is None:
            return None
        process.join(0.2)
        code = process.exitcode
        process.kill()
        process.join(0.5)  # a process stuck in the kernel stays; it must not take us with it
        if code != 0:
            self.put_out()
        return code

    def put_out(self) -> None:
        """Switch off a flash that a process may have left burning: one that was killed, or died."""
        flash = self._settings.camera.flash
        if flash.pin is not None:
            process = _spawn.Process(target=_put_out, args=(flash,), daemon=True)
            process.start()
            process.join(6)  # for the next process wants the same pin

    def close(self) -> None:
        """Let the camera go: the process ends by itself when its pipe closes, or is killed."""
        if self._pipe:
            self._pipe.close()
            self._pipe = None
        if self._process:
            self._process.join(2)
            self._kill()


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "no exit code"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class _Observed:
    """A camera, and what looks wrong about its last picture."""

    def __init__(self, camera: Camera, settings: CameraSettings) -> None:
        self._settings = settings
        self._camera = camera
        self.oddity: str | None = None
        self.open, self.ready, self.rest, self.close = camera.open, camera.ready, camera.rest, camera.close

    def capture(self, moment: datetime) -> Frame:
        """Take a picture, and look at it."""
        frame = self._camera.capture(moment)
        self.oddity = cameras.oddity(frame, self._settings)
        return frame


def _run_camera(
    pipe: Connection,
    settings: Settings,
    device: str,
    clock: Clock,
    make: Callable[[CameraSettings, str], Camera],
) -> None:
    """The camera process: wait for the word, take a picture, answer with its path or the error."""
    _become_child()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a picture under way is finished; the pipe says when
    from trapsync import pipeline

    camera = _Observed(make(settings.camera, device), settings.camera)
    button = gpio.Button(settings.sensors.button)
    is_open = False
    rests = settings.capture.every > _RHYTHM
    answer: tuple[str, str | None] | TrapsyncError
    while True:
        try:
            taken, felt = pipe.recv()
        except (EOFError, OSError):  # the daemon is done with us
            break
        try:
            if not is_open:
                camera.open()
                is_open = True
            felt = replace(felt, button=button.is_pressed())
            path = pipeline.capture(camera, settings, device, clock, taken, felt)
            answer = path, camera.oddity
        except StorageError as error:  # no fault of the camera's
            answer = error
        except TrapsyncError as error:
            camera.close()
            is_open = False
            answer = error
        try:
            pipe.send(answer)
            if is_open and (rests or not pipe.poll(_RHYTHM)):
                camera.rest()
        except OSError:  # the daemon died meanwhile; the sweep of the next one finds the picture
            break
        except CameraError as error:
            log.error("%s; the camera's process ends", error)
            os._exit(1)  # to close such a camera would hang, too
    camera.close()


def _put_out(settings: Flash) -> None:
    _become_child()
    from trapsync.cameras import flash

    try:
        flash.put_out(settings)
    except CameraError as error:
        log.error("%s", error)


class Examiners:
    """The worker pool that looks at files, each under a limit of time and memory. One thread uses it.

    `look` is what is done to each file, in a worker: a function of the spool and the path.
    """

    def __init__(
        self, settings: Ingest, storage: Storage, look: Callable[[Path, str], Image] = examine.examine
    ) -> None:
        os.environ.setdefault("MALLOC_ARENA_MAX", "2")
        os.environ.setdefault("VIPS_CONCURRENCY", "1")
        self._settings = settings
        self._storage = storage
        self._look = look
        self._pool = self._make_pool()

    def _make_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._settings.workers,
            max_tasks=_TASKS_PER_EXAMINER,
            initializer=_become_examiner,
            initargs=(int(self._settings.memory),),
            context=_spawn,
        )

    def examine(self, files: Iterable[Found]) -> Iterator[tuple[Found, Image | DamagedImage]]:
        """Examine files, as many at a time as there are workers; each comes back as an image or damaged.

        A file that hangs or crashes its examiner twice is damaged; ExaminerKilled says that somebody else
        killed it. One that the card does not let us read, or on which our own program fails, is left out,
        loudly; the next sweep offers it again.
        """
        waiting = iter(files)
        flying = [(found, self._examine(found)) for found in islice(waiting, 2 * self._settings.workers)]
        while flying:
            found, future = flying.pop(0)
            flying += [(more, self._examine(more)) for more in islice(waiting, 1)]
            outcome = self._outcome(found, future)
            if outcome is not None:
                yield found, outcome

    def _examine(self, found: Found) -> ProcessFuture[Any]:
        return self._schedule(self._look, self._storage.spool, found.path)

    def _schedule(self, work: Callable[..., Any], *arguments: Any) -> ProcessFuture[Any]:
        """Hand out one piece of work. A pool that broke down (a worker killed at a bad moment) is replaced."""
        CONSTS.sleep_unit = _AT_WORK
        try:
            return self._pool.schedule(work, args=arguments, timeout=float(self._settings.timeout))
        except RuntimeError:
            log.warning("the examiners broke down; others take their place")
            self._renew()
            return self._pool.schedule(work, args=arguments, timeout=float(self._settings.timeout))

    def _renew(self) -> None:
        self.close()
        self._pool = self._make_pool()

    def _result(self, future: ProcessFuture[Any]) -> Any:
        """Wait for it. The pool keeps each file's own deadline; if it does not, it is broken itself."""
        try:
            return future.result(timeout=3 * self._settings.timeout + 30)
        except (DeadlinePassed, CancelledError, BrokenExecutor) as error:
            if not future.done() or not isinstance(error, DeadlinePassed):
                self._renew()  # what is tried again is alone in it, so that no other file is to blame
            raise

    def _outcome(
        self, found: Found, future: ProcessFuture[Any], before: Exception | None = None
    ) -> Image | DamagedImage | None:
        try:
            image: Image = self._result(future)
            return image
        except DamagedImage as error:
            return error
        except FileNotFoundError:  # taken away meanwhile
            return None
        except (*_MISFORTUNES, MemoryError) as error:
            if before is None:  # it may have been the machine's fault: once more, in a fresh process
                return self._outcome(found, self._examine(found), before=error)
            if _was_killed(before) or _was_killed(error):
                return ExaminerKilled("its examiner was killed each time: too little memory?")
            return DamagedImage(_describe_failure(error, self._settings))
        except StorageError as error:  # the card does not let it be read
            log.error("%s", error)
            return None
        except Exception:
            log.exception("examining %r failed; it stays in the spool", found.path)
            return None

    def rewrite(
        self, corrections: Iterable[Correction]
    ) -> Iterator[tuple[Correction, Image | DamagedImage | FileExistsError]]:
        """Write images anew with their corrected times; each comes back as it is then, or why it is not.

        Raises StorageError when the card refuses.
        """
        for one in corrections:
            try:
                try:
                    yield one, self._result(self._schedule(examine.rewrite, self._storage.spool, one))
                except _MISFORTUNES:  # which may have been the machine's fault
                    yield one, self._result(self._schedule(examine.rewrite, self._storage.spool, one))
            except (DamagedImage, FileExistsError) as error:
                yield one, error
            except FileNotFoundError:
                yield one, DamagedImage("its file is not on the card")
            except (*_MISFORTUNES, MemoryError) as error:
                yield one, DamagedImage(_describe_failure(error, self._settings))

    def make_thumbnails(self, image: Image, path: str) -> bool:
        """Make the small copies of one image; False if they cannot be made, ExaminerKilled if nobody knows."""
        arguments = (self._storage.spool, path, self._storage.thumbnails)
        try:
            try:
                self._result(self._schedule(examine.thumbnails, *arguments))
            except _MISFORTUNES:  # which may have been the machine's fault
                self._result(self._schedule(examine.thumbnails, *arguments))
        except (TrapsyncError, *_MISFORTUNES, MemoryError, OSError) as error:
            if _was_killed(error):
                raise ExaminerKilled(
                    f"no thumbnails of {image.name} for now: their maker was killed"
                ) from error
            log.warning("no thumbnails of %s: %s", image.name, str(error) or type(error).__name__)
            return False
        except Exception:  # a bug, loud; but without this copy the trap works
            log.exception("no thumbnails of %s", image.name)
            return False
        return True

    def rest(self) -> None:
        """There is nothing to do for now: look after the workers less often. Ended by the next piece of work."""
        CONSTS.sleep_unit = _AT_REST

    def close(self) -> None:
        """End the workers, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        # A pool at rest may not look up for a while. Its workers end with this process in any case.
        ending = threading.Thread(target=self._pool.join, daemon=True)
        ending.start()
        ending.join(_TO_END)


def _become_examiner(memory: int) -> None:
    _become_child()
    examine.prepare(memory)


def _was_killed(error: Exception) -> bool:
    """Whether it was not the examiner that failed, nor our own limit: somebody ended it, or its pool."""
    if isinstance(error, ProcessExpired):
        return error.exitcode in _KILLED
    return isinstance(error, CancelledError | BrokenExecutor)


def _describe_failure(error: Exception, settings: Ingest) -> str:
    if isinstance(error, DeadlinePassed):
        return f"examining it took longer than {settings.timeout:.0f} s, twice"
    if isinstance(error, MemoryError):
        return f"examining it took more than {settings.memory / 1e6:.0f} MB of memory"
    return "examining it crashed the examiner, twice"
