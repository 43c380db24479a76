"""The time zone of the trap: what the settings say, and by default the machine's own."""

import shutil
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from trapsync.errors import SettingsError
from trapsync.settings.schema import Capture, Settings, Trap
from trapsync.settings.time_zone import system_zone, zone
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
