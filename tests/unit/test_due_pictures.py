"""What status says of the schedule: when the next picture is due, and whether one is missing."""

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import drawings
import statuses
import trap_bench as bench
from trapsync import doctor
from trapsync.cli import show_status
from trapsync.clock import utc
from trapsync.fleet import table
from trapsync.image import Evidence
from trapsync.net import heartbeat as read_heartbeat
from trapsync.net import judgement
from trapsync.remote import heartbeat
from trapsync.settings.schema import Camera, Capture, Settings
from trapsync.settings.schema import Trap as TrapSettings
from trapsync.settings.units import Duration
from trapsync.status import snapshot
from trapsync.status.model import Status
from trapsync.trap import lock

ZURICH = ZoneInfo("Europe/Zurich")
MINUTE, HOUR = 60.0, 3600.0


class Trap:
    """A trap in Zurich on 21 June, whose daemon has run for a month."""

    def __init__(
        self, folder: Path, *schedule: str, every: float = 20 * MINUTE, kind: str = "simulated"
    ) -> None:
        self.bench = bench.Trap(folder)
        self.time = self.bench.time
        self.settings = Settings(
            trap=TrapSettings(device=drawings.DEVICE, timezone="Europe/Zurich", latitude=47.4, longitude=8.5),
            storage=self.bench.storage,
            capture=Capture(every=Duration(every), schedule=schedule),
            camera=Camera(kind="none" if kind == "none" else "simulated"),
        )

    def at(self, clock: str, day: int = 21) -> "Trap":
        """Let the time come at which the clock on the wall shows that."""
        moment = datetime.fromisoformat(f"2026-06-{day:02}T{clock}").replace(tzinfo=ZURICH)
        self.time.sleep(moment.timestamp() - self.time.wall())
        return self

    def picture(self, clock: str, day: int = 21) -> "Trap":
        """It took a picture then."""
        self.at(clock, day)
        wall = self.time.wall()
        seen = Evidence(self.time.boot_id(), self.time.monotonic(), wall, trusted=True)
        name = f"{drawings.DEVICE}.{utc(wall):%Y-%m-%d_%H-%M-%S}.jpg"
        drawings.put(
            self.bench.storage.spool,
            drawings.trap(taken=utc(wall), evidence=seen, seed=int(wall) % 999),
            name,
        )
        self.bench.ingest()
        return self

    def began(self, clock: str, day: int = 21) -> None:
        """The daemon was started then."""
        moment = datetime.fromisoformat(f"2026-06-{day:02}T{clock}").replace(tzinfo=ZURICH).timestamp()
        os.utime(self.bench.storage.state / "daemon.lock", (moment, moment))

    def status(self) -> Status:
        return snapshot(self.settings, self.time, drawings.DEVICE)

    def next_picture(self) -> str:
        """What `trapsync status` shows."""
        return dict(show_status.lines(self.status(), ZURICH)).get("next picture", "")

    def missing(self) -> list[str]:
        """The verdict, and what it says of the newest image."""
        status = self.status()
        return [f"{status.verdict}: {reason}" for reason in status.reasons if "newest image" in reason]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in whose state a daemon runs."""
    with lock(tmp_path / "state"):
        os.utime(tmp_path / "state" / "daemon.lock", (1.0, 1.0))
        yield tmp_path


def test_while_the_schedule_is_closed_status_says_when_the_next_picture_is_due(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("05:20", 22)
    trap.at("18:00", 22)
    assert trap.next_picture() == "21:00 (in 3 h), Europe/Zurich; none until then"
    plain = trap.status().plain()["schedule"]
    assert plain == {
        "timezone": "Europe/Zurich",
        "open": False,
        "open_until": None,
        "next_picture": "2026-06-22T19:00:00Z",
        "ignored": False,
    }


def test_while_it_is_open_the_interval_says_when_and_the_end_of_the_window_that_there_is_none(
    folder: Path,
) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("23:40").at("23:50")
    assert trap.next_picture() == "00:00 (in 10 min), Europe/Zurich"
    assert trap.status().plain()["schedule"]["open_until"] == "2026-06-22T03:30:00Z"
    trap.picture("05:20", 22).at("05:25", 22)
    assert trap.next_picture() == "21:00 (in 16 h), Europe/Zurich"
    trap.at("00:30", 23)
    assert trap.next_picture() == "due now, Europe/Zurich"


def test_an_opening_that_is_days_away_has_its_date(folder: Path) -> None:
    trap = Trap(folder, "sunset+5h - sunrise-4h").picture("22:30")
    assert re.match(r"\w{3} \d\d (Jul|Aug) 0\d:\d\d \(in \d\d days\), Europe/Zurich;", trap.next_picture())


def test_without_a_schedule_the_next_picture_is_an_interval_after_the_newest(folder: Path) -> None:
    assert Trap(folder).picture("23:40").at("23:45").next_picture() == "00:00 (in 15 min), Europe/Zurich"


def test_a_trap_that_takes_no_pictures_has_none_due(folder: Path) -> None:
    assert Trap(folder, kind="none").next_picture() == ""
    assert "schedule" not in Trap(folder / "b", kind="none").status().plain()


def test_a_trap_on_a_timer_takes_its_next_picture_as_it_is_started(tmp_path: Path) -> None:
    trap = Trap(tmp_path, "21:00 - 05:30").picture("23:40")
    assert trap.next_picture() == ""  # no daemon runs
    trap.bench.catalog.facts.set("single_runs", value=True)
    assert trap.next_picture() == "as the trap is started next, Europe/Zurich"
    assert trap.at("12:00", 22).next_picture() == "21:00 (in 9 h), Europe/Zurich; none until then"


# ── A picture that is missing ────────────────────────────────────────────────────────────────────────


def test_no_picture_grows_old_while_the_schedule_is_closed(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("05:20", 22)
    for clock in ("05:31", "12:00", "20:59", "21:04"):
        assert trap.at(clock, 22).missing() == []


def test_a_night_without_a_picture_is_told_by_day_too(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("05:20", 22).at("12:00", 23)
    (said,) = trap.missing()
    assert said.startswith(
        "failing: the newest image is 31 h old, and there is none of the last time for pictures"
    )
    assert "21:00 to 05:30" in said


def test_a_night_that_ended_early_is_told(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("23:00").at("12:00", 22)
    assert len(trap.missing()) == 1
    assert trap.status().verdict == "failing"


def test_a_window_shorter_than_the_interval_that_saw_no_picture_is_told(folder: Path) -> None:
    trap = Trap(folder, "13:00 - 13:15", every=6 * HOUR).picture("13:00", 22)
    assert trap.at("13:04", 23).missing() == []  # it may be on its way
    assert trap.at("13:06", 23).missing() != []
    assert trap.at("20:00", 23).missing() != []
    assert trap.picture("13:00", 24).at("20:00", 24).missing() == []


def test_by_night_three_intervals_without_one_are_too_many_as_ever(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("23:00")
    assert trap.at("00:00", 22).missing() == []
    assert trap.at("00:02", 22).missing() == [
        "failing: the newest image is 62 min old: does the camera work? see: trapsync doctor"
    ]


def test_a_night_in_which_the_trap_was_off_is_a_warning(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("05:20", 22).at("12:00", 23)
    trap.began("08:00", 23)
    (said,) = trap.missing()
    assert said.startswith("warning: ")
    assert said.endswith("was the trap off then, or did it have other settings?")
    assert trap.at("22:00", 23).missing()[0].startswith("failing: ")  # and now it runs, and there is none


def test_while_the_clock_is_not_set_the_schedule_does_not_count_and_status_says_so(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("12:00", 22)
    trap.time.is_trusted = False
    status = trap.at("12:10", 22).status()
    assert any(
        "pictures are taken day and night, whatever capture.schedule says" in one for one in status.reasons
    )
    assert trap.next_picture() == "12:20 (in 10 min), Europe/Zurich"
    assert trap.at("14:00", 22).missing() != []
    trap.time.is_trusted = True  # for a moment: that is enough for this boot
    trap.bench.catalog.times.note_boot()
    trap.time.is_trusted = False
    assert trap.next_picture().startswith("21:00 ")


def test_the_doctor_says_which_schedule_is_in_force_in_which_zone_and_when_it_opens(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30", "sunset - 23:00").at("18:00", 22)
    finding = doctor._schedule(trap.settings, trap.time)
    assert (finding.verdict, finding.text) == (
        "ok",
        "21:00 - 05:30, sunset - 23:00, Europe/Zurich; opens at 21:00 (in 3 h)",
    )
    trap.at("21:30", 22)
    assert doctor._schedule(trap.settings, trap.time).text.endswith("Europe/Zurich; open now")


# ── At home ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_heartbeat_says_when_the_next_picture_is_due_and_the_fleet_shows_it(folder: Path) -> None:
    trap = Trap(folder, "21:00 - 05:30").picture("05:20", 22).at("18:00", 22)
    beat = json.loads(heartbeat.compose(trap.status(), 900))
    assert (beat["schedule_open"], beat["next_picture_s"]) == (False, 3 * 3600)
    assert read_heartbeat.read(beat).next_picture_s == 3 * 3600
    (known,) = judgement.traps({"traps": [{"device": drawings.DEVICE, "age_s": 1800, "heartbeat": beat}]})
    assert "13 h, next in 2 h" in table.cells(known)


def test_a_heartbeat_of_an_older_trap_says_nothing_of_it(folder: Path) -> None:
    beat = json.loads(heartbeat.compose(statuses.status(), 900))
    assert not {"schedule_open", "next_picture_s"} & set(beat)
    (known,) = judgement.traps({"traps": [{"device": drawings.DEVICE, "age_s": 60, "heartbeat": beat}]})
    assert "2 min" in table.cells(known)


def test_a_month_of_nights_by_the_sun_never_says_that_a_picture_is_missing(folder: Path) -> None:
    trap = Trap(folder, "sunset - sunrise", every=2 * HOUR)
    for day in range(22, 29):
        for clock in ("21:31", "23:31", "01:31", "03:31", "05:26"):
            trap.picture(clock, day + (clock < "12:00"))
        for later in range(1, 16):
            trap.time.sleep(HOUR - timedelta(minutes=1).seconds)
            assert trap.missing() == [], later
