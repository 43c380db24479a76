"""A picture in every window of the schedule and none outside, in time that stands still, by the camera's own record."""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from fake_time import FakeTime
from sun_position import LIMIT, height
from trapsync.catalog.facts import Facts
from trapsync.errors import CameraError, StorageError
from trapsync.hardware.sensors import Sensors
from trapsync.runtime.capture_thread import CaptureThread
from trapsync.runtime.context import Context
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Camera, Capture, Settings
from trapsync.settings.schema import Trap as TrapSettings
from trapsync.settings.units import Duration
from trapsync.spool.inbox import Inbox
from trapsync.trap import place

CASES = int(os.environ.get("TRAPSYNC_CASES", "60"))
FIRST = int(os.environ.get("TRAPSYNC_FIRST_CASE", "0"))  # so that several processes can share them
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class FakeCamera:
    """A camera that writes down when it was asked for a picture, by the wall clock; it may take its time, and fail."""

    oddity: str | None = None

    def __init__(self, time: FakeTime, takes: float = 0.0) -> None:
        self.time = time
        self.takes = takes
        self.asked: list[float] = []
        self.failures: dict[int, Exception] = {}

    def capture(self, _taken: object, _reading: object) -> str:
        self.asked.append(self.time.wall())
        self.time.sleep(self.takes)
        if error := self.failures.get(len(self.asked)):
            raise error
        return "a.jpg"

    def switch_off_flash(self) -> None:
        """It has no flash."""


class Stop:
    """Where the word to stop stands: time passes while one waits for it, events happen in it, and in the end it comes."""

    def __init__(
        self, time: FakeTime, seconds: float, events: Sequence[tuple[float, Callable[[], None]]] = ()
    ) -> None:
        self.time = time
        self.end = time.monotonic() + seconds
        self.waits = 0
        self.events = sorted(
            ((time.monotonic() + after, act) for after, act in events), key=lambda one: one[0]
        )

    def is_set(self) -> bool:
        return self.time.monotonic() >= self.end

    def wait(self, seconds: float = 0.0) -> bool:
        self.waits += 1
        until = self.time.monotonic() + seconds
        while self.events and self.events[0][0] <= until:
            at, act = self.events.pop(0)
            self.time.sleep(max(0.0, at - self.time.monotonic()))
            act()
        self.time.sleep(max(0.0, until - self.time.monotonic()))
        return self.is_set()


class Catalog:
    """A catalog that remembers nothing but whether the clock was set in this boot."""

    was_set = False

    @property
    def facts(self) -> "Catalog":
        return self

    images = times = runs = connection = facts

    def read(self) -> Facts:
        return Facts()

    def names_from(self, _device: str, _wall: float) -> set[str]:
        return set()

    def is_known(self) -> bool:
        return self.was_set

    def set(self, _name: str, _value: object) -> None:
        """It is forgotten."""

    def unflushed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def note_failure(self, _reason: str, _error: str) -> None:
        """It is forgotten."""


class Season:
    """A trap whose daemon starts at a moment of the wall clock, and runs for so long."""

    def __init__(
        self, start: datetime, schedule: Sequence[str], every: float, *, takes: float = 0.0, zone: str = "UTC",
        latitude: float = 0.0, longitude: float = 0.0, trusted: bool = True,
    ) -> None:  # fmt: skip
        self.time = FakeTime(start.timestamp(), is_trusted=trusted)
        self.camera, self.catalog = FakeCamera(self.time, takes), Catalog()
        self.settings = Settings(
            trap=TrapSettings(timezone=zone, latitude=latitude, longitude=longitude),
            capture=Capture(every=Duration(every), schedule=tuple(schedule)),
            camera=Camera(kind="simulated"),
        )

    def run(self, seconds: float, *events: tuple[float, Callable[[], None]]) -> list[float]:
        """The moments of the pictures, by the camera's own record."""
        self.thread(seconds, *events).run()
        return self.camera.asked

    def thread(self, seconds: float, *events: tuple[float, Callable[[], None]]) -> CaptureThread:
        self.stop = Stop(self.time, seconds, events)
        liveness = self.liveness = Liveness(self.time)
        stop, catalog = cast("Any", self.stop), cast("Any", self.catalog)
        context = Context(self.settings, "0a1b2c3d", self.time, catalog, Inbox(self.time), liveness, stop)
        context.live.close()
        sensors = Sensors(self.settings.sensors, Path("/nowhere"))
        camera = cast("Any", self.camera)
        return CaptureThread(context, place(self.settings), camera, sensors)


def clock(seconds: float) -> str:
    return f"{int(seconds // 3600) % 24:02}:{int(seconds // 60) % 60:02}"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ── Any interval, any windows, any start ─────────────────────────────────────────────────────────────


def drawn(random: Random) -> tuple[datetime, list[tuple[float, float]], float, float]:
    """A start, windows as seconds of the day (they may overlap, touch, and run over midnight), an interval, an exposure."""
    start = at("2026-01-01") + timedelta(
        minutes=random.randrange(365 * 1440), seconds=random.choice([0, 0, 17.25])
    )
    lengths = [1, 2, 15, 60, 240, 600, 1439]
    windows = []
    for _ in range(random.choice([1, 1, 2, 3])):
        minute = random.randrange(1440)
        windows.append((minute * MINUTE, (minute + random.choice(lengths)) * MINUTE))
    if random.random() < 0.2:  # one that begins where another ends
        begin, end = windows[0]
        if (end - begin) < 1000 * MINUTE:
            windows.append((end, end + 30 * MINUTE))
    every = random.choice([MINUTE, 7 * MINUTE, 20 * MINUTE, HOUR, 6 * HOUR, 23 * HOUR, DAY])
    return start, windows, every, random.choice([0.0, 0.0, 3.7])


def occurrences(windows: list[tuple[float, float]], begin: float, end: float) -> list[tuple[float, float]]:
    """Each window of each day of UTC that opens or is open between two moments."""
    midnight = begin // DAY * DAY
    days = [midnight + n * DAY for n in range(-2, int((end - begin) / DAY) + 2)]
    found = [(day + opens, day + closes) for day in days for opens, closes in windows]
    return [(opens, closes) for opens, closes in found if closes > begin and opens < end]


@pytest.mark.timeout(60 + CASES)
def test_every_window_has_a_picture_and_none_is_outside_whatever_the_interval_and_the_start() -> None:
    total: Counter[str] = Counter()
    for number in range(FIRST, FIRST + CASES):
        random = Random(number)
        start, windows, every, takes = drawn(random)
        season = Season(start, [f"{clock(a)} - {clock(b)}" for a, b in windows], every, takes=takes)
        pictures = season.run(1.3 * DAY)
        begin, end = start.timestamp(), season.time.wall()
        now_open = occurrences(windows, begin, end)
        for opens, closes in now_open:
            if closes - max(begin, opens) >= 1 and end - opens > takes + 1:
                first = bisect_left(pictures, max(begin, opens) - 0.01)
                assert first < len(pictures), (number, opens)
                assert pictures[first] < closes, (number, opens)
                # As soon as it opens, but for the picture that is being taken then.
                assert pictures[first] - max(begin, opens) <= takes + 0.01, (number, opens)
                total["windows"] += 1
        for moment in pictures:
            assert any(opens - 0.001 <= moment < closes for opens, closes in now_open), (number, moment)
        assert all(late - early > 0.5 for early, late in pairwise(pictures)), number
        # Never more often than the interval says, but for windows that open.
        for early, late in pairwise(pictures):
            if late - early < every - takes - 1:
                assert any(abs(late - opens) <= takes + 0.01 for opens, _ in now_open), (number, late)
        total["pictures"] += len(pictures)
        assert season.stop.waits < 40 + 3 * len(pictures) + 1.3 * DAY / 60 + 8 * len(now_open)
    print(CASES, "cases:", dict(total))  # noqa: T201
    assert total["windows"] > 1.5 * CASES


def minutes_after(pictures: Sequence[float], moment: str) -> list[float]:
    return [round((one - at(moment).timestamp()) / MINUTE, 2) for one in pictures]


def test_a_window_shorter_than_the_interval_has_its_picture_each_day() -> None:
    # Every four minutes from 12:02 on would be 12:58 and 13:02.
    pictures = Season(at("2026-06-01T12:02"), ["13:00 - 13:01"], 4 * MINUTE).run(3 * DAY)
    assert minutes_after(pictures, "2026-06-01T13:00") == [0, 1440, 2880]


@pytest.mark.parametrize(
    ("window", "every"),
    [
        ("13:00 - 13:15", 6),
        ("13:00 - 13:15", 1),
        ("12:00 - 12:30", 1),
        ("22:00 - 22:10", 1 / 3),
        ("20:00 - 22:00", 6),
    ],
)
def test_a_window_is_met_whenever_the_daemon_starts(window: str, every: float) -> None:
    for start in range(0, 24 * 60, 5 * 24):
        begin = at("2026-06-01") + timedelta(minutes=start)
        pictures = Season(begin, [window], every * HOUR).run(3 * DAY)
        assert 3 <= len(pictures) <= 4, (start, pictures)


def test_the_interval_counts_from_the_opening() -> None:
    pictures = Season(at("2026-06-01T12:07"), ["21:00 - 22:00"], 25 * MINUTE).run(DAY)
    assert minutes_after(pictures, "2026-06-01T21:00") == [0, 25, 50]


def test_started_inside_a_window_it_takes_a_picture_at_once_and_goes_on_from_there() -> None:
    pictures = Season(at("2026-06-01T21:10"), ["21:00 - 22:00"], 20 * MINUTE).run(12 * HOUR)
    assert minutes_after(pictures, "2026-06-01T21:10") == [0, 20, 40]


def test_each_of_two_windows_that_overlap_has_a_picture_of_its_own() -> None:
    pictures = Season(at("2026-06-01T12:00"), ["20:00 - 23:00", "20:30 - 20:45"], 2 * HOUR).run(DAY)
    assert minutes_after(pictures, "2026-06-01T20:00") == [0, 30, 150]


def test_a_picture_that_fails_as_the_window_opens_is_tried_again_before_it_closes() -> None:
    season = Season(at("2026-06-01T12:00"), ["13:00 - 13:15"], 6 * HOUR)
    season.camera.failures = {1: CameraError("no frame"), 2: CameraError("no frame")}
    assert minutes_after(season.run(DAY), "2026-06-01T13:00") == [0, 0.17, 0.5]


@pytest.mark.parametrize("error", [CameraError("broken"), StorageError("the card is full")])
def test_a_camera_that_never_works_is_not_asked_in_a_loop(error: Exception) -> None:
    season = Season(at("2026-06-01T12:00"), ["13:00 - 17:00"], HOUR)
    season.camera.failures = dict.fromkeys(range(1, 10_000), error)
    assert 10 < len(season.run(DAY)) < 70
    assert season.stop.waits < 2000


def test_a_spool_that_is_another_one_costs_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trapsync.spool.spool_mark.problem", lambda _storage: "it is not mounted")
    season = Season(at("2026-06-01T12:00"), ["13:00 - 17:00"], HOUR)
    assert season.run(DAY) == []
    assert season.stop.waits < 2000


def test_a_trap_that_waits_for_weeks_is_not_taken_for_a_hung_one() -> None:
    season = Season(at("2026-06-01T12:00"), ["11:00 - 11:01"], MINUTE)
    looks: list[list[str]] = []

    def look() -> None:
        looks.append(season.liveness.overdue())

    season.run(10 * DAY, *((n * HOUR + 1, look) for n in range(240)))
    assert len(looks) == 240
    assert not any(looks)


# ── Clocks that are wrong, and are put right ─────────────────────────────────────────────────────────


def test_while_the_clock_is_not_set_pictures_are_taken_day_and_night_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The clock says noon; nobody knows what it is.
    season = Season(at("2026-06-01T12:00"), ["21:00 - 05:00"], HOUR, trusted=False)
    assert len(season.run(DAY)) == 24
    assert caplog.text.count("the clock is not set: pictures are taken day and night") == 1


def test_a_trap_on_a_timer_takes_its_picture_while_the_clock_is_not_set() -> None:
    season = Season(at("2026-06-01T12:00"), ["21:00 - 05:00"], HOUR, trusted=False)
    thread = season.thread(DAY)
    assert thread.is_time()
    season.time.is_trusted = True
    assert not thread.is_time()


def test_a_clock_that_was_set_in_this_boot_counts_after_a_start_of_the_daemon_too() -> None:
    season = Season(at("2026-06-01T12:00"), ["21:00 - 05:00"], HOUR, trusted=False)
    season.catalog.was_set = True
    assert minutes_after(season.run(10 * HOUR), "2026-06-01T21:00") == [0]


def test_once_the_clock_is_set_the_windows_hold() -> None:
    season = Season(at("1970-01-01T01:00"), ["21:00 - 05:00"], HOUR, trusted=False)

    def set_clock() -> None:
        season.time.step_wall((at("2026-06-01T14:00") - at("1970-01-01T02:30")).total_seconds())
        season.time.is_trusted = True

    def loses_trust() -> None:  # a server that is not reached for long: the kernel's error grows
        season.time.is_trusted = False

    pictures = season.run(1.5 * HOUR + DAY, (1.5 * HOUR, set_clock), (4 * HOUR, loses_trust))
    assert minutes_after(pictures[:2], "1970-01-01T01:00") == [0, 60]
    assert minutes_after(pictures[2:], "2026-06-01T21:00") == [0, 60, 120, 180, 240, 300, 360, 420]


@pytest.mark.parametrize(
    ("step", "when", "expected"),
    [
        # Noon is 12:00; after two hours the clock is put: over the opening into the window, …
        (3.1 * HOUR, 2.0, ["17:06", "17:31", "17:56"]),
        # … over the whole window, …
        (6 * HOUR, 2.0, []),
        # … back by a day and an hour; the window comes a day later by the clock, …
        (-25 * HOUR, 2.0, ["17:00", "17:25", "17:50"]),
        # … back out of the window, in which there was a picture; it comes again, …
        (-2 * HOUR, 5.2, ["17:00", "17:00", "17:25", "17:50"]),
        # … back within the window: no picture but by the interval.
        (-10 * MINUTE, 5.5, ["17:00", "17:25", "17:40"]),
        # … a second back, as time servers do, right after the picture
        (-1.0, 5.001, ["17:00", "17:24", "17:49"]),
    ],
)
def test_a_step_of_the_clock_costs_no_window_and_no_loop(
    step: float, when: float, expected: list[str]
) -> None:
    season = Season(at("2026-06-01T12:00"), ["17:00 - 18:00"], 25 * MINUTE)
    length = 8 * HOUR - step if step > 0 else 8 * HOUR + min(-step, 20 * HOUR)
    pictures = season.run(length, (when * HOUR, lambda: season.time.step_wall(step)))
    seen = [f"{datetime.fromtimestamp(one, UTC):%H:%M}" for one in pictures]
    assert [one for one in seen if one[:2] == "17"] == expected
    assert season.stop.waits < length / 60 + 40


def test_the_clock_is_put_back_by_a_day_and_the_windows_that_come_again_have_their_pictures() -> None:
    season = Season(at("2026-06-05T12:00"), ["13:00 - 13:15"], 6 * HOUR)
    pictures = season.run(3 * DAY, (2 * HOUR, lambda: season.time.step_wall(-DAY)))
    assert minutes_after(pictures, "2026-06-05T13:00") == [0, 0, 1440]


def test_a_clock_that_wanders_back_and_forth_makes_no_picture_too_many() -> None:
    season = Season(at("2026-06-05T12:00"), ["13:00 - 15:00"], HOUR)
    ticks = [(n * 600.0 + 5, lambda n=n: season.time.step_wall(3 if n % 2 else -3)) for n in range(140)]
    assert len(season.run(DAY, *ticks)) == 2


# ── Time zones ───────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_is_taken_as_the_window_opens_by_the_clock_on_the_wall_through_both_changes() -> None:
    for day in ("2026-03-27", "2026-10-23"):
        pictures = Season(at(f"{day}T12:00"), ["21:00 - 05:00"], 2.5 * HOUR, zone="Europe/Zurich").run(
            4 * DAY
        )
        local = [datetime.fromtimestamp(one, ZoneInfo("Europe/Zurich")) for one in pictures]
        assert sum(one.strftime("%H:%M") == "21:00" for one in local) == 4
        # The change itself is no opening.
        gaps = {late - early for early, late in pairwise(pictures)}
        assert gaps - {2.5 * HOUR} == {gap for gap in gaps if gap > 12 * HOUR}


@pytest.mark.parametrize(
    "window", ["02:15 - 02:45", "02:30 - 03:00", "02:00 - 03:00", "01:30 - 02:30", "02:30 - 03:30"]
)
def test_a_window_in_the_hour_of_the_change_is_neither_lost_nor_a_day_long(window: str) -> None:
    for day, most in (("2026-03-28T12:00", 2), ("2026-10-24T12:00", 4)):
        pictures = Season(at(day), [window], 20 * MINUTE, zone="Europe/Zurich").run(DAY)
        assert 1 <= len(pictures) <= 2 * most, (day, pictures)


def test_the_machines_own_zone_may_be_changed_while_the_daemon_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    season = Season(at("2026-06-01T12:00"), ["21:00 - 22:00"], 2 * HOUR, zone="system")
    moved = (HOUR, lambda: monkeypatch.setenv("TZ", "America/Lima"))
    assert minutes_after(season.run(DAY, moved), "2026-06-02T02:00") == [0]


# ── By the sun ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone", "start"),
    [
        (39.0, -98.0, "UTC", "2026-10-01T18:00"),
        (39.0, -98.0, "UTC", "2026-01-30T18:00"),
        (64.84, -147.72, "America/Anchorage", "2026-07-05T22:00"),
        (64.1, -21.9, "Atlantic/Reykjavik", "2026-06-25T12:00"),
        (-17.3, 179.99, "UTC", "2026-03-01T00:00"),
    ],
)
def test_each_night_has_its_pictures_and_no_day_has_any(
    latitude: float, longitude: float, zone: str, start: str
) -> None:
    season = Season(at(start), ["sunset - sunrise"], HOUR, zone=zone, latitude=latitude, longitude=longitude)
    pictures = season.run(20 * DAY)
    assert max(height(latitude, longitude, one) for one in pictures) < LIMIT + 0.3
    assert max(late - early for early, late in pairwise(pictures)) < 23.5 * HOUR
    assert pictures[-1] - pictures[0] > 18.9 * DAY
