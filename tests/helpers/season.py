"""A season of a trap in which something goes wrong again and again, and time stands still in between.

The real catalog, start and capture thread; a camera that takes what it is told. Each trouble is written down here as it
happens, outside of the program: `Trouble` says from when until when, and which reason is right.
"""

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from fake_time import FakeTime
from trapsync.catalog import Catalog
from trapsync.catalog.runs import Ending
from trapsync.clock import evidence, utc
from trapsync.errors import CameraError, StorageError
from trapsync.hardware.sensors import Sensors
from trapsync.image import Found, Image, Reading, TrapName
from trapsync.runtime.capture_thread import CaptureThread
from trapsync.runtime.context import Context
from trapsync.runtime.liveness import Liveness
from trapsync.runtime.startup import schedule_of
from trapsync.settings import schedule
from trapsync.settings.schema import Camera, Capture, Settings, Storage, Trap
from trapsync.settings.units import Duration
from trapsync.spool.inbox import Inbox
from trapsync.trap import place

DEVICE = "0a1b2c3d"
REASONS = ("off", "no_power", "battery", "card", "camera", "clock", "paused", "settings", "unknown")


class Trouble(NamedTuple):
    """From when until when (true unix seconds) something kept pictures from being taken."""

    reason: str
    since: float
    until: float


@dataclass
class ToldCamera:
    """A camera that takes pictures into the catalog, or fails as it is told."""

    season: "Season"
    error: Exception | None = None
    oddity: str | None = None

    def capture(self, _taken: object, _reading: Reading) -> str:
        """Take a picture."""
        if self.error:
            raise self.error
        return self.season.picture()

    def switch_off_flash(self) -> None:
        """It has none."""


class _Passing:
    """Where the word to stop stands: time passes while one waits for it, and at its moment it comes."""

    def __init__(self, season: "Season", until: float) -> None:
        self._season = season
        self._until = until

    def is_set(self) -> bool:
        return self._season.true >= self._until

    def wait(self, seconds: float = 0.0) -> bool:
        self._season.pass_(min(seconds, max(0.0, self._until - self._season.true)))
        return self.is_set()


class Season:
    """One trap over some weeks. `true` is the time as it is, whatever the trap's clock says."""

    def __init__(
        self, folder: Path, windows: tuple[str, ...], every: float, zone: str = "Europe/Vienna"
    ) -> None:
        self.random = random.Random(1)
        self.time = FakeTime()
        self.true = self.time.wall()
        self.settings = Settings(
            trap=Trap(device=DEVICE, latitude=47.1, longitude=13.2, timezone=zone),
            storage=Storage(spool=folder / "spool", state=folder / "state"),
            camera=Camera(kind="simulated"),
            capture=Capture(every=Duration(every), schedule=windows),
        )
        self.camera = ToldCamera(self)
        self.battery = 90.0
        self.taken: list[float] = []  # of each picture whose time the trap knows, the true time
        self.unsure = 0
        self.troubles: list[Trouble] = []
        self._number = itertools.count()
        self._open()

    # What happens to the trap

    def start(self) -> None:
        """The daemon starts."""
        self.catalog.times.note_boot()
        self.catalog.runs.begin(schedule_of(self.settings), is_single=False)

    def watch(self, seconds: float) -> None:
        """The daemon runs for a while."""
        stop = cast("Any", _Passing(self, self.true + seconds))
        context = Context(
            *(self.settings, DEVICE, self.time, self.catalog, Inbox(self.time)), Liveness(self.time), stop
        )
        sensors = Sensors(self.settings.sensors, Path("/nowhere"))
        CaptureThread(context, place(self.settings), cast("Any", self.camera), sensors).run()
        context.live.close()  # a file in memory for each, and paho waits for no file beyond the 1,024th

    def stop(self, ending: Ending) -> None:
        """The daemon ends in order."""
        self.catalog.runs.end(ending)
        self._close()
        self._open()

    def kill(self) -> None:
        """The daemon ends in the middle of whatever it does."""
        self._close()
        self._open()

    def reboot(self, *, is_trusted: bool = True, wrong_by: float = 0.0) -> None:
        """The trap starts again; its clock may be wrong, and known to be so."""
        self.time.reboot()
        self.time.step_wall(self.true - self.time.wall() - wrong_by)
        self.time.is_trusted = is_trusted

    def pass_(self, seconds: float) -> None:
        """Time passes."""
        self.time.sleep(seconds)
        self.true += seconds

    def picture(self) -> str:
        """A picture is taken, and taken in."""
        self.pass_(self.random.uniform(0.5, 4.0))
        seen, moment = evidence(self.time), self.true
        name = TrapName(DEVICE, utc(int(seen.wall)))
        self.pass_(self.random.uniform(0.5, 2.0))
        number = next(self._number)
        image = Image(str(name), 1, "0" * 32, f"{number:064}", 160, 120, {"bat": self.battery}, seen)
        self.catalog.images.add([(Found(str(name), 1, number), image)])
        if seen.trusted:
            self.taken.append(moment)
        else:
            self.unsure += 1
        return str(name)

    # Troubles

    def trouble(self, reason: str, seconds: float) -> None:
        """Let this keep pictures from being taken for a while."""
        since = self.true
        getattr(self, f"_{reason}")(seconds)
        self.troubles.append(Trouble(reason, since, self.true))

    def _off(self, seconds: float) -> None:
        self.stop("stopped")
        self._without_power(seconds)

    def _no_power(self, seconds: float) -> None:
        self.kill()
        self._without_power(seconds)

    def _battery(self, seconds: float) -> None:
        self.battery = 7.0
        self.kill()
        self._without_power(seconds)
        self.battery = 90.0

    def _card(self, seconds: float) -> None:
        self._failing(StorageError("the card is full"), seconds)

    def _camera(self, seconds: float) -> None:
        self._failing(CameraError("the cable is loose"), seconds)

    def _clock(self, seconds: float) -> None:
        self.stop("stopped")
        self.reboot(is_trusted=False, wrong_by=86_400.0 * self.random.uniform(-3, 3))
        self.start()
        self.watch(seconds)
        self._without_power(60.0)

    def _paused(self, seconds: float) -> None:
        self.stop("stopped")
        self.pass_(seconds)
        self.start()

    def _settings(self, seconds: float) -> None:
        self.stop("settings")
        self.pass_(seconds)
        self.start()

    def _unknown(self, seconds: float) -> None:
        self.kill()
        self.pass_(seconds)
        self.start()

    def _failing(self, error: Exception, seconds: float) -> None:
        self.camera.error = error
        self.watch(seconds)
        self.camera.error = None

    def _without_power(self, seconds: float) -> None:
        self.pass_(seconds)
        self.reboot()
        self.start()

    # The whole of it

    def live(self, nights: int, times: int) -> None:
        """Live through so many nights, with each trouble so many times."""
        todo = [reason for reason in REASONS for _ in range(times)]
        self.random.shuffle(todo)
        every = float(self.settings.capture.every)
        self.start()
        for night in range(nights):
            for reason in todo[night * len(todo) // nights : (night + 1) * len(todo) // nights]:
                self._until_open(8 * every)
                self.watch(every * self.random.uniform(3, 6))
                if reason == "battery":  # which the pictures before it tell
                    self.battery = 12.0
                    self.watch(every * 2)
                self.trouble(reason, every * self.random.uniform(1.5, 5))
                self.watch(every * self.random.uniform(3, 6))
            self._until_open(0.0, is_open=False)

    def _until_open(self, least: float, *, is_open: bool = True) -> None:
        """Run until a window is open, for so long at least, or until it is closed."""
        windows, at = self.settings.capture.schedule, place(self.settings)
        while bool(schedule.open_at(windows, at, self.true)) != is_open or (
            is_open and schedule.closes(windows, at, self.true) - self.true < least
        ):
            self.watch(600.0)

    def _open(self) -> None:
        self.catalog = Catalog.open(self.settings.storage.catalog, self.time)

    def _close(self) -> None:
        self.catalog.close()


def right_reasons(troubles: list[Trouble], slot: Any) -> Counter[str]:
    """For how many seconds of a slot each trouble was there."""
    seconds: Counter[str] = Counter()
    for one in troubles:
        common = min(one.until, slot.end) - max(one.since, slot.begin)
        if common > 0:
            seconds[one.reason] += round(common)
    return seconds
