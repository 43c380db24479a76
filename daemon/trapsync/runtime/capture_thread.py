"""The capture thread: one picture per interval, and what is done while the camera gives none."""

import logging

from trapsync import cameras
from trapsync.catalog import facts
from trapsync.errors import CameraError, CatalogError, StorageError
from trapsync.hardware.sensors import Sensors
from trapsync.runtime import systemd
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.context import Context
from trapsync.settings import schedule
from trapsync.settings.schedule import Place
from trapsync.spool import spool_mark
from trapsync.trap import local_time

log = logging.getLogger(__name__)

_GRACE = 300.0  # seconds beyond three intervals for a camera, to be tried a few more times
_GIVEN_UP = 3  # failures in a row from which on the camera is tried less often, and not logged each time
_MAX_PAUSE = 300.0  # seconds between two tries of a camera that fails, if the interval is shorter
_CARD_PAUSE = 10.0  # seconds to wait at most when the card refuses
_UNTIL_REBOOT = 1800.0  # seconds of failures until only a reboot may bring the camera back
_ASK_AGAIN = 3600.0  # and until it is asked for again: the guard grants one in six hours


class CaptureThread:
    """Takes one picture per interval, on the monotonic clock."""

    def __init__(
        self,
        context: Context,
        place: Place,
        camera: CameraProcess,
        sensors: Sensors,
        captures: int | None = None,
    ) -> None:
        self.left = captures
        """How many pictures are still to be taken; None is no end of them."""
        self._context = context
        self._settings = context.settings
        self._clock = context.clock
        self._stop = context.stop
        self._place = place
        self._camera = camera
        self._sensors = sensors
        self._failures = 0  # in a row, over restarts
        self._is_told = False  # whether a failure was logged since the last picture, or the start
        self._pause = 0.0
        self._reboot_due: float | None = None
        self._oddity: str | None = None

    def is_time(self) -> bool:
        """Return whether pictures are taken at this time of day."""
        return schedule.is_open(self._settings.capture.schedule, self._place, local_time(self._clock))

    def run(self) -> None:
        """Take a picture per interval, until the end. A missed one is not made up for."""
        every, clock = self._settings.capture.every, self._clock
        due = clock.monotonic() + self._sensors.lead
        self._report()
        self._prepare()
        while self.left != 0 and not self._wait_for_picture(due):
            due = max(due + every, clock.monotonic())
            self._pause = 0.0
            if self.is_time():
                self._take_picture()
            else:
                self._report()
            while due < clock.monotonic() + self._pause - every:
                due += every
        self._context.liveness.finish("capture")
        self._stop.wait()

    def capture_one(self, tries: int, pause: float) -> bool:
        """Take one picture now, with so many tries and seconds between them; return whether there is one."""
        self._prepare()
        for number in range(tries):
            if self._stop.wait(pause if number else 0.0):
                break
            self._sensors.begin()
            if self._stop.wait(self._sensors.lead):
                break
            if self._take_picture():
                return True
        return False

    def _prepare(self) -> None:
        self._failures = self._failures_before()
        self._camera.switch_off_flash()  # the daemon before this one may have been killed in the middle of a picture

    def _report(self) -> None:
        """Report: three intervals without a new image are too many, and a short interval gets some minutes more."""
        patience = 3 * self._settings.capture.every + cameras.timeout(self._settings.camera) + _GRACE
        self._context.liveness.report("capture", patience)

    def _wait_for_picture(self, due: float) -> bool:
        """Wait until a moment of the monotonic clock, and start the sensors a little before; True: stop."""
        lead = min(self._sensors.lead, self._settings.capture.every / 2)
        if self._stop.wait(max(0.0, due - lead - self._clock.monotonic())):
            return True
        self._sensors.begin()
        return self._stop.wait(max(0.0, due - self._clock.monotonic()))

    def _take_picture(self) -> bool:
        """Take one picture; return whether there is one. Only a new image counts for liveness."""
        if spool_mark.problem(self._settings.storage):  # the trap waits on purpose, and its status says why
            self._report()
            return False
        try:
            path = self._camera.capture(self._taken_names(), self._sensors.reading())
        except StorageError as error:
            self._report()  # the trap waits on purpose
            self._no_picture(error)
        except CameraError as error:
            self._no_picture(error)
        else:
            self._report()
            self._new_picture(path)
            return True
        return False

    def _taken_names(self) -> set[str]:
        """Return names of images of this second and the next that have left the card, and must not be used again."""
        try:
            return self._context.catalog.images.names_from(self._context.device, self._clock.wall())
        except CatalogError as error:
            log.error("%s", error)
            return set()

    def _new_picture(self, path: str) -> None:
        if self._failures >= _GIVEN_UP:
            log.warning("there are pictures again, after %d failures", self._failures)
        self._failures, self._is_told = 0, False
        self._reboot_due = None
        self._context.inbox.put(path)
        self.left = self.left and self.left - 1
        log.info("captured %s", path)
        self._tell_oddity(self._camera.oddity)
        self._context.tell("capture", facts.Capture(oddity=self._oddity))

    def _tell_oddity(self, oddity: str | None) -> None:
        """Log once what looks wrong about the pictures, and once that it is over."""
        if oddity != self._oddity:
            log.warning("%s", oddity or "the pictures look right again")
        self._oddity = oddity

    # A camera that gives no picture

    def _failures_before(self) -> int:
        """Return the number of failures in a row at the end of the last run: a broken camera stays broken."""
        try:
            capture = self._context.catalog.facts.read().capture
            return capture.failures if capture else 0
        except CatalogError as error:
            log.error("%s", error)
            return 0

    def _no_picture(self, error: Exception) -> None:
        if self._stop.is_set():  # the camera was taken away from us
            return
        is_news = self._failures < _GIVEN_UP or not self._is_told
        self._failures += 1
        self._is_told = True
        # A camera is tried less and less often; a card may have room again any minute.
        if self._failures >= _GIVEN_UP:
            longest = _MAX_PAUSE if isinstance(error, CameraError) else _CARD_PAUSE
            self._pause = min(longest, 2.0 ** min(self._failures - 1, 30))
        log.log(logging.ERROR if is_news else logging.DEBUG, "no picture: %s", error)
        if self._failures == _GIVEN_UP:
            log.error(
                "%d failures in a row: it is tried less often from here on, and not logged each time",
                _GIVEN_UP,
            )
        self._context.tell("capture", facts.Capture(self._failures, str(error)))
        if isinstance(error, CameraError):
            self._consider_reboot(error)

    def _consider_reboot(self, error: CameraError) -> None:
        """Ask for a reboot as the last resort: nothing else ends what hangs in the kernel."""
        now = self._clock.monotonic()
        if self._reboot_due is None:
            self._reboot_due = now + _UNTIL_REBOOT
        if not self._settings.camera.reboot or self._failures < _GIVEN_UP or now < self._reboot_due:
            return
        self._reboot_due = now + _ASK_AGAIN
        if systemd.ask_for_reboot(f"{self._failures} times in a row the camera gave no picture: {error}"):
            log.error("asked for a reboot, as nothing else brings the camera back: %s", error)
