"""The capture thread: one picture as a window opens, one per interval from there, and what is done without any.

Windows go by the wall clock, which may be stepped at any moment; waiting goes by the monotonic one. So no moment of a window
is remembered: each look asks anew what is open, and whether there was a picture since it opened, as the clock stands now.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from trapsync import cameras
from trapsync.catalog import facts
from trapsync.catalog.runs import FailureReason
from trapsync.errors import CameraError, CatalogError, StorageError
from trapsync.hardware.sensors import Sensors
from trapsync.runtime import systemd
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.context import Context
from trapsync.settings import schedule
from trapsync.settings.schedule import Place, Window
from trapsync.settings.time_zone import system_zone
from trapsync.spool import spool_mark

log = logging.getLogger(__name__)

_GRACE = 300.0  # seconds beyond three intervals for a camera, to be tried a few more times
_GIVEN_UP = 3  # failures in a row from which on the camera is tried less often, and not logged each time
_MAX_PAUSE = 300.0  # seconds between two tries of a camera that fails, if the interval is shorter
_CARD_PAUSE = 10.0  # seconds to wait at most when the card refuses
_UNTIL_REBOOT = 1800.0  # seconds of failures until only a reboot may bring the camera back
_ASK_AGAIN = 3600.0  # and until it is asked for again: the guard grants one in six hours
_LOOK = 60.0  # seconds between two looks at the wall clock: so soon a step is noticed
_SHORTEST = 0.001  # seconds to wait at least: what is left to an opening may be less than a clock can tell
_LATE = 1.0  # seconds behind its moment from which on a picture counts as taken later
_DRIFT = 60.0  # seconds by which a clock may be put back without opening the same window again
_TRY_AGAIN = 10.0  # seconds until another try, twice as many each time, in a window without a picture
_DAYS_AHEAD = 2  # in which the next opening is looked for: until then there is another look


class CaptureThread:
    """Takes a picture as a window opens and one per interval from there, on the monotonic clock."""

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
        # Moments of the monotonic clock: the next picture by the interval, the earliest try, the last picture.
        self._due = self._earliest = self._pictured = -math.inf
        self._window = -math.inf  # when the last window opened that had a picture, by the wall clock of then
        self._tries = 0  # in a row without a picture, in whatever window
        self._knows_time: bool | None = None

    def is_time(self) -> bool:
        """Return whether pictures are taken at this time of day."""
        return bool(schedule.open_at(self._windows(), self._place, self._clock.wall()))

    def run(self) -> None:
        """Take the pictures, until the end. A missed one is not made up for."""
        every, clock = self._settings.capture.every, self._clock
        self._due = self._earliest = clock.monotonic() + self._sensors.lead
        self._report()
        self._prepare()
        while self.left != 0 and (turn := self._wait_for_turn()) is not None:
            self._due, self._pause = max(turn + every, clock.monotonic()), 0.0
            self._take_turn()
            while self._due < clock.monotonic() + self._pause - every:
                self._due += every
        self._context.liveness.finish("capture")
        self._stop.wait()

    def _take_turn(self) -> None:
        """Take a picture, and remember for which window; without one, there is another try soon if that has none yet."""
        began, wall = self._clock.monotonic(), self._clock.wall()
        opened = _opened(schedule.open_at(self._windows(), self._place, wall))
        if self._take_picture():
            self._pictured, self._window, self._tries = began, opened, 0
            return
        pause = max(self._pause, min(_MAX_PAUSE, _TRY_AGAIN * 2.0 ** min(self._tries, 30)))
        self._earliest = self._clock.monotonic() + pause
        self._tries += 1

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

    # When the next picture is due

    def _wait_for_turn(self) -> float | None:
        """Wait until a picture is due, and start the sensors a little before; return since when it is. None: stop."""
        lead, are_read = min(self._sensors.lead, self._settings.capture.every / 2), False
        while True:
            now, wall = self._clock.monotonic(), self._clock.wall()
            now_open = schedule.open_at(self._windows(), self._place, wall)
            turn = self._next_turn(now, wall, now_open)
            if turn <= now:
                return turn if now - turn < _LATE else now
            left = turn - now
            if left > lead:
                left, are_read = left - lead, False
            elif not are_read:
                self._sensors.begin()
                are_read = True
            if not now_open:
                self._report()  # the trap waits on purpose
            if self._stop.wait(max(_SHORTEST, min(left, _LOOK))):
                return None

    def _next_turn(self, now: float, wall: float, now_open: Sequence[Window]) -> float:
        """Return when the next picture is due, by the monotonic clock and by the wall clock as it is; inf: none in sight."""
        ahead, windows, turns = wall - now, self._windows(), [math.inf]
        opened = _opened(now_open)
        if opened > self._pictured + ahead + (_DRIFT if opened == self._window else 0.0):
            turns.append(max(opened - ahead, self._earliest))
        due = max(self._due, now)
        if schedule.open_at(windows, self._place, due + ahead):
            turns.append(due)
        opening = schedule.next_opening(windows, self._place, wall, _DAYS_AHEAD)
        if opening is not None:
            turns.append(max(opening - ahead, now + _SHORTEST))  # not before it is open by the wall clock
        return min(turns)

    def _windows(self) -> tuple[str, ...]:
        """Return the schedule; none, which is day and night, while the clock was never trusted in this boot.

        It may be days wrong then: rather a picture too many than a night too few.
        """
        windows = self._settings.capture.schedule
        if not windows:
            return ()
        if self._settings.trap.timezone == "system":  # which may be changed while the daemon runs
            self._place = replace(self._place, timezone=system_zone())
        if not self._knows_time and (self._clock.trusted() or (self._knows_time is None and self._was_set())):
            if self._knows_time is False:
                log.warning("the clock is set: pictures are taken in the windows of capture.schedule only")
            self._knows_time = True
        if self._knows_time is None:
            self._knows_time = False
            log.warning(
                "the clock is not set: pictures are taken day and night, whatever capture.schedule says"
            )
        return windows if self._knows_time else ()

    def _was_set(self) -> bool:
        try:
            return self._context.catalog.times.is_known()
        except CatalogError as error:
            log.error("%s", error)
            return False

    # One picture

    def _take_picture(self) -> bool:
        """Take one picture; return whether there is one. Only a new image counts for liveness."""
        if problem := spool_mark.problem(
            self._settings.storage
        ):  # the trap waits on purpose; its status says why
            self._report()
            self._remember_failure("card", problem)
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
        self._remember_failure("camera" if isinstance(error, CameraError) else "card", str(error))
        self._context.tell("capture", facts.Capture(self._failures, str(error)))
        if isinstance(error, CameraError):
            self._consider_reboot(error)

    def _remember_failure(self, reason: FailureReason, error: str) -> None:
        """Remember why pictures are missing. Not flushed by itself: one more than the fact of each failure would cost."""
        try:
            with self._context.catalog.connection.unflushed():
                self._context.catalog.runs.note_failure(reason, error)
        except CatalogError as problem:
            log.error("%s", problem)

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


def _opened(now_open: Sequence[Window]) -> float:
    """When the latest of them opened; -inf for none, and for one that is always open."""
    return max((window.begin for window in now_open), default=-math.inf)
