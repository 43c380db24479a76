"""The time zone of the trap: what the settings say, and by default the machine's own."""

import shutil
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest

from trapsync.errors import SettingsError
from trapsync.settings.schema import Capture, Settings, Trap
from trapsync.settings.time_zone import fixed_offset, system_zone, zone
from trapsync.trap import place

ZONES = files("tzdata") / "zoneinfo"


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)


@pytest.mark.parametrize(
    "target", ["/usr/share/zoneinfo/America/Lima", "../usr/share/zoneinfo/posix/America/Lima"]
)
def test_the_machines_zone_is_what_its_localtime_points_to(tmp_path: Path, target: str) -> None:
    (tmp_path / "localtime").symlink_to(target)
    (tmp_path / "timezone").write_text("Europe/Zurich\n")  # Debian 13 does not keep it up to date
    assert system_zone(tmp_path) is ZoneInfo("America/Lima")


def test_where_localtime_is_a_copy_the_name_beside_it_counts_and_else_its_content(tmp_path: Path) -> None:
    shutil.copy(str(ZONES / "America" / "Lima"), tmp_path / "localtime")
    lima = system_zone(tmp_path)
    assert lima.key == "localtime"
    assert lima is system_zone(tmp_path)
    (tmp_path / "timezone").write_text("Europe/Zurich\n")
    assert system_zone(tmp_path).key == "Europe/Zurich"


@pytest.mark.parametrize("text", [b"", b"Mars/Olympus\n", b"/etc/passwd\n", b"../../etc/passwd", b"\xff\xfe"])
def test_where_nothing_says_a_zone_it_is_utc(tmp_path: Path, text: bytes) -> None:
    assert system_zone(tmp_path).key == "UTC"
    (tmp_path / "timezone").write_bytes(text)
    (tmp_path / "localtime").write_bytes(b"rubbish")
    assert system_zone(tmp_path).key == "UTC"


def test_the_variable_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/America/Lima")
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert system_zone(tmp_path).key == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "CET-1CEST")  # no name of a zone
    assert system_zone(tmp_path).key == "America/Lima"


def test_a_trap_whose_settings_name_no_zone_has_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Lima")
    assert place(Settings()).timezone is ZoneInfo("America/Lima")
    assert zone(Settings(trap=Trap(timezone="UTC"))) is ZoneInfo("UTC")


def test_a_window_that_never_opens_at_the_place_is_refused_with_its_text() -> None:
    window = "sunset+7h - sunrise-7h"
    settings = Settings(
        trap=Trap(latitude=1.0, longitude=1.0), capture=Capture(schedule=("21:00 - 05:00", window))
    )
    with pytest.raises(SettingsError, match=r"'sunset\+7h - sunrise-7h' opens on no day of the year"):
        place(settings)


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("America/Panama", -5),
        ("Asia/Kathmandu", 5.75),
        ("Europe/Berlin", 1),
        ("America/St_Johns", -3.5),
        ("Australia/Lord_Howe", 10.5),  # half an hour of summer time
        ("Pacific/Chatham", 12.75),
        ("Pacific/Kiritimati", 14),
        ("Europe/Dublin", 0),  # its law calls the winter's the exception
        ("Africa/Casablanca", 1),  # all year, but for the weeks of Ramadan
        ("Antarctica/Troll", 0),  # two hours of summer time
        ("America/Sao_Paulo", -3),  # had summer time until 2019
        ("America/Nuuk", -2),  # -3 until 2023
        ("Asia/Gaza", 2),
        ("UTC", 0),
    ],
)
def test_local_time_is_written_in_the_zones_standard_time(name: str, hours: float) -> None:
    assert fixed_offset(Settings(trap=Trap(timezone=name))).utcoffset(None) == timedelta(hours=hours)


def test_no_zone_of_the_world_gets_its_summer_time() -> None:
    """Held against what its law calls summer time, of which only Ireland has it the other way round."""
    days = [datetime(2037, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    other = set()
    names = available_timezones()
    for name in names:
        place = ZoneInfo(name)
        offset = fixed_offset(Settings(trap=Trap(timezone=name))).utcoffset(None)
        standard = {at.utcoffset() for day in days if not (at := day.astimezone(place)).dst()}
        assert offset % timedelta(minutes=1) == timedelta(0), name  # EXIF has no room for seconds
        if standard != {offset}:
            other.add(name)
    assert len(names) > 400
    assert other <= {"Europe/Dublin", "Eire"}


def test_an_offset_in_the_settings_goes_before_the_zone() -> None:
    settings = Settings(trap=Trap(timezone="Europe/Berlin", utc_offset="-03:30"))
    assert fixed_offset(settings).utcoffset(None) == timedelta(hours=-3.5)
