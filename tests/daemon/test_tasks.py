"""The unit's TasksMax holds whatever valid settings lead to: its parts are measured, the bounds asked of the settings."""

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import daemon_process
import drawings
from processes import children
from trapsync import destinations
from trapsync.clock import SystemClock
from trapsync.destinations import directory
from trapsync.destinations.rclone import child
from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.schema import Destination, Ingest

ROOT = Path(__file__).parents[2]

# What no daemon of a test has: libcamera's and picamera2's threads beside the simulated camera's one, the check of the
# catalog, switching the flash off, a battery's command, sensors, uplink, LED, button, the thread that ends what hangs.
REST = {
    "camera": 10,
    "check": 1,
    "flash": 1,
    "battery": 1,
    "sensors": 4,
    "uplink": 2,
    "led": 2,
    "button": 2,
    "end": 2,
}


def largest(make: Callable[[int], object]) -> int:
    """The largest number that is taken."""
    number = 1
    while number < 1000:
        try:
            make(number + 1)
        except (ValueError, SettingsError):
            return number
        number += 1
    raise AssertionError("there is no bound")


def checked(tmp_path: Path, count: int, transfers: int) -> object:
    """Check a config file with so many destinations of so many transfers each."""
    tables = "".join(
        f'[destinations.d{n}]\nkind = "directory"\npath = "{tmp_path}/{n}"\ntransfers = {transfers}\n'
        for n in range(count)
    )
    return destinations.check_all(config_file.parse(tables, "trap.toml"), Path("trap.toml"))


def tasks(process: int) -> int:
    """How many threads a process has."""
    return int(re.findall(r"(?m)^Threads:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0])


def test_more_destinations_or_transfers_than_the_service_can_have_are_one_line(tmp_path: Path) -> None:
    assert largest(lambda count: checked(tmp_path, count, 1)) == destinations.MOST_DESTINATIONS
    assert largest(lambda count: checked(tmp_path, count, 16)) * 16 == destinations.MOST_TRANSFERS
    with pytest.raises(SettingsError, match=r"destinations\.d4\.transfers: 80 of all destinations together"):
        checked(tmp_path, 5, 16)


def test_rclone_counts_with_the_threads_that_it_has(tmp_path: Path) -> None:
    table = '[destinations.d{}]\nkind = "rclone"\nremote = "lab"\nconfig_file = "rclone.conf"\n'
    checked = "".join(map(table.format, range(4)))
    with pytest.raises(SettingsError, match=r"destinations\.d3\.transfers: 80 of .* \(d0 counts as 20\)"):
        destinations.check_all(config_file.parse(checked, "trap.toml"), tmp_path / "trap.toml")
    (tmp_path / "from").mkdir()
    for number in range(4):
        (tmp_path / "from" / f"{number}.jpg").write_bytes(os.urandom(500_000))
    seen = 0

    def look(_seconds: float) -> None:
        nonlocal seen
        copying = [process for process, line in children(os.getpid()).items() if f"{tmp_path}/to" in line]
        seen = max([seen, *map(tasks, copying)])

    arguments = ["copy", f"{tmp_path}/from", f"{tmp_path}/to", "--bwlimit", "500k"]
    for program in ("/usr/bin/rclone", shutil.which("rclone", path=sysconfig.get_path("scripts"))):
        assert program
        done = child.run(program, arguments, b"", SystemClock(), look, within=60, most=1000)
        assert done.code == 0, done
        shutil.rmtree(tmp_path / "to")
    assert 1 < seen <= 10


def test_the_largest_number_of_tasks_that_settings_lead_to_fits_the_unit(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / directory.MARK).touch()
    for second in range(4):
        name = f"{drawings.DEVICE}.2026-06-22_00-00-0{second}.jpg"
        drawings.put(tmp_path / "trap" / "spool", drawings.trap(seed=second), name)
    more = f'[destinations.stick]\nkind = "directory"\npath = "{stick}"\nevery = "1 s"\ntransfers = 1\n'
    examiner = measured = 0
    with daemon_process.running(tmp_path / "trap", more, camera="simulated") as trap:
        trap.until(lambda f: f["ledger"]["delivered"] >= 5)
        for _ in range(20):
            every = [trap.pid, *children(trap.pid)]
            counts = [tasks(process) for process in every]
            measured, examiner = max(measured, sum(counts)), max(examiner, *counts[1:])
    # The measured daemon has one destination with one transfer, and one examiner.
    workers = largest(lambda number: Ingest(workers=number))
    assert largest(lambda number: Destination(kind="x", transfers=number)) <= destinations.MOST_TRANSFERS
    threads = destinations.MOST_DESTINATIONS + 6 + destinations.MOST_TRANSFERS
    most = measured + threads + (workers - 1) * examiner + sum(REST.values())
    unit = (ROOT / "systemd" / "trapsync.service").read_text()
    allowed = int(re.findall(r"(?m)^TasksMax=(\d+)$", unit)[0])
    sys.stdout.write(f"measured {measured}, an examiner {examiner} at most, in all {most} of {allowed}\n")
    assert most <= allowed
