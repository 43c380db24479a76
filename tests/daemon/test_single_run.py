"""One picture, what is due, and an end by itself: for traps that a timer powers."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

import child_faults
import daemon_process
import drawings
import hub_server
import processes
import signed
from fault_server import FaultServer, Original
from trap_bench import Memory, Trap
from trapsync.clock import iso
from trapsync.image import TrapName, parse_name
from trapsync.jpeg import exif
from trapsync.runtime.single_run import due_destinations
from trapsync.settings.schema import Destination
from trapsync.settings.units import Duration


def once(trap: daemon_process.Daemon, deadline: str = "60 s") -> "subprocess.CompletedProcess[str]":
    """Run it to its end, as a process."""
    return trap.run("once", "--deadline", deadline)


def test_one_picture_is_taken_and_all_is_home(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        more = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        trap = daemon_process.Daemon(tmp_path, more, camera="simulated")
        about = (
            '[trap]\ntimezone = "America/Panama"\nname = "Bäume 3"\nowner = "María"\ncopyright = "CC BY 4.0"'
        )
        trap.config.write_text(trap.config.read_text().replace("[trap]", about))
        done = once(trap)
        assert done.returncode == 0, done.stderr
        assert "the time for it is over" not in done.stderr
        (picture,) = trap.spool.rglob("*.jpg")
        assert set(hub.stored()) == {picture.name}
        tags, _ = exif.read(drawings.block_of(picture.read_bytes()))
        moment = datetime.strptime(
            f"{tags['DateTimeOriginal']}{tags['OffsetTimeOriginal']}", "%Y:%m:%d %H:%M:%S%z"
        )
        assert (moment.utcoffset(), TrapName(drawings.DEVICE, moment.astimezone(UTC))) == (
            timedelta(hours=-5),
            parse_name(picture.name),
        )
        assert {tags[tag] for tag in ("ImageDescription", "BodySerialNumber", "Artist", "Copyright")} == {
            *("Bäume 3", drawings.DEVICE, "María", "CC BY 4.0")
        }
        facts = trap.status()
        assert facts["ledger"]["delivered"] == 1
        assert facts["deployment"]["since"] == iso(moment)  # the first one begins with the first picture
        assert (facts["verdict"], facts["reasons"]) == ("ok", [])  # no daemon runs, and none should


def test_one_picture_of_five_megapixels_is_taken_and_delivered_with_hardly_a_pause(tmp_path: Path) -> None:
    """What it takes beyond its own work is below three tenths of that, best of five."""
    with hub_server.running(tmp_path / "hub") as hub:
        more = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        trap = daemon_process.Daemon(tmp_path, more, camera="simulated")
        trap.config.write_text(trap.config.read_text().replace("[320, 240]", "[2592, 1944]"))
        seen = []
        for run in range(1, 6):
            process = subprocess.Popen([sys.executable, "-m", "trapsync", "-c", str(trap.config), "once"])
            idle = processes.IdleTime(process.pid)
            _, status, used = os.wait4(process.pid, 0)
            seen.append((round(idle.stop(), 2), round(used.ru_utime + used.ru_stime, 2)))
            assert (os.waitstatus_to_exitcode(status), len(hub.stored())) == (0, run)
            if seen[-1][0] <= 0.3 * seen[-1][1]:
                return
            time.sleep(1.0)  # the destination's `every`: else it is not due
        pytest.fail(f"idle and CPU time, in seconds: {seen}")


def test_a_trap_of_single_runs_is_asked_for_its_pictures_and_a_daemon_is_missed_again_after_it_ran(
    tmp_path: Path,
) -> None:
    trap = daemon_process.Daemon(tmp_path, camera="simulated")
    once(trap)
    status = trap.run("status").stdout
    assert "not running: this trap makes single runs (trapsync once)" in status
    text = trap.config.read_text().replace("seed = 7", f'seed = 7\nreplay = "{tmp_path / "nowhere"}"')
    trap.config.write_text(text)
    assert once(trap).returncode == 2
    assert any("no pictures" in reason for reason in trap.status()["reasons"])
    with daemon_process.running(tmp_path):
        pass
    assert any("the daemon is not running" in reason for reason in trap.status()["reasons"])


def test_what_earlier_runs_left_goes_with_the_next(tmp_path: Path) -> None:
    nobody = daemon_process.deliver_to(tmp_path, "http://127.0.0.1:9", "trap", "password")
    trap = daemon_process.Daemon(tmp_path, nobody, camera="simulated")
    done = once(trap)
    assert done.returncode == 1, done.stderr
    with hub_server.running(tmp_path / "hub") as hub:
        more = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        done = once(daemon_process.Daemon(tmp_path, more, camera="simulated"))
        assert done.returncode == 0, done.stderr
        assert len(hub.stored()) == 2


def test_without_a_picture_the_rest_is_delivered_all_the_same(tmp_path: Path) -> None:
    drawings.put(tmp_path / "spool", drawings.trap(), f"before/{drawings.NAME}")
    with hub_server.running(tmp_path / "hub") as hub:
        more = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        trap = daemon_process.Daemon(tmp_path, more, camera="simulated")
        text = trap.config.read_text().replace("seed = 7", f'seed = 7\nreplay = "{tmp_path / "nowhere"}"')
        trap.config.write_text(text)
        done = once(trap)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("no picture:") == 3
        assert set(hub.stored()) == {drawings.NAME}


def test_without_the_disk_of_its_spool_it_ends_at_once_and_takes_no_picture(tmp_path: Path) -> None:
    trap = daemon_process.Daemon(
        tmp_path, daemon_process.deliver_to(tmp_path, "http://127.0.0.1:9", "t", "p"), camera="simulated"
    )
    assert once(trap).returncode == 1
    trap.spool.rename(tmp_path / "disk")
    trap.spool.mkdir()
    done = once(trap)
    assert done.returncode == 2, done.stderr
    assert "the time for it is over" not in done.stderr
    assert "is its disk mounted" in done.stderr
    assert list(trap.spool.iterdir()) == []
    assert trap.status()["ledger"]["pending"] == 1
    with closing(sqlite3.connect(tmp_path / "state" / "catalog.sqlite")) as catalog:
        assert [reason for (reason,) in catalog.execute("SELECT reason FROM failures")] == ["card"]
        assert catalog.execute("SELECT count(*), sum(is_single) FROM runs").fetchone() == (1, 1)


def test_at_its_deadline_it_ends(tmp_path: Path) -> None:
    growing = tmp_path / "spool" / "copy" / drawings.NAME
    growing.parent.mkdir(parents=True)
    growing.write_bytes(drawings.trap()[:-100])  # a file that may yet get its end keeps it waiting
    trap = daemon_process.Daemon(tmp_path, camera="none")
    trap.config.write_text(trap.config.read_text().replace('stable_after = "1 s"', 'stable_after = "1 h"'))
    done = once(trap, deadline="2 s")
    assert "the time for it is over" in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("deadline", ["soon", "5"])
def test_a_deadline_that_is_none_is_one_line(tmp_path: Path, deadline: str) -> None:
    done = once(daemon_process.Daemon(tmp_path), deadline)
    assert done.returncode == 3
    assert "must be a quantity with a unit" in done.stderr


def test_where_it_cannot_run_it_says_so_with_a_code_of_its_own(tmp_path: Path) -> None:
    with daemon_process.running(tmp_path) as trap:
        done = once(trap)
    assert (done.returncode, "is running here" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("[capture]\nevry = 3", "did you mean 'every'?"),
        ('[destinations.x]\nkind = "pigeon"', "must be one of: directory, "),
        (None, "trapsync.toml"),
    ],
)
def test_where_its_settings_are_wrong_it_has_the_same_code(
    tmp_path: Path, more: str | None, reason: str
) -> None:
    trap = daemon_process.Daemon(tmp_path)
    if more is None:
        trap.config.unlink()
    else:
        trap.config.write_text(f'[trap]\ndevice = "0a1b2c3d"\n{more}')
    done = once(trap)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert reason in done.stderr


_BUG = "from trapsync.runtime.single_run import SingleRun; del SingleRun.run; from trapsync.cli import main; main()"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("-m", "trapsync", "--konfig", "x", "once"), "--konfig"),
        (("-m", "trapsync", "once", "--dedline", "5 min"), "--dedline"),
        (("-c", _BUG, "once"), "AttributeError"),
    ],
)
def test_what_keeps_it_from_running_has_that_code_too_be_it_a_typing_mistake_or_a_bug(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    config = daemon_process.Daemon(tmp_path).config
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"TRAPSYNC_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, reason in done.stderr) == (3, True), done.stderr


def test_a_short_wait_after_a_failure_is_waited_for_and_a_long_one_is_not(tmp_path: Path) -> None:
    drawings.put(tmp_path / "spool", drawings.trap(), f"before/{drawings.NAME}")
    original = Original()
    account = original.user, original.password
    with FaultServer(original) as server:
        server.plan("/_put_new_images", "portal", "portal")
        trap = daemon_process.Daemon(tmp_path, daemon_process.deliver_to(tmp_path, server.url, *account))
        done = once(trap)
        assert done.returncode == 0, done.stderr
        server.assert_injected()
        drawings.put(
            tmp_path / "spool", drawings.trap(2), f"before/{drawings.NAME.replace('19-15', '19-16')}"
        )
        server.plan("/_put_new_images", "portal")
        text = trap.config.read_text().replace('"100 ms"', '"1 h"').replace('"500 ms"', '"2 h"')
        trap.config.write_text(text)
        assert once(trap).returncode == 1
        assert trap.status()["ledger"]["pending"] == 1


def test_a_file_that_is_still_written_to_keeps_no_other_from_being_delivered(tmp_path: Path) -> None:
    drawings.put(tmp_path / "spool", drawings.trap(), f"before/{drawings.NAME}")
    (tmp_path / "spool" / "before" / "growing.jpg").write_bytes(drawings.trap()[:-100])
    with hub_server.running(tmp_path / "hub") as hub:
        trap = daemon_process.Daemon(
            tmp_path, daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        )
        text = trap.config.read_text().replace('stable_after = "1 s"', 'stable_after = "1 h"')
        trap.config.write_text(text)
        done = once(trap, deadline="20 s")
        assert "the time for it is over" in done.stderr
        assert set(hub.stored()) == {drawings.NAME}


class Timed:
    """A trap that a timer powers, whose owner pushes settings."""

    def __init__(self, folder: Path, timeout: str = "10 s") -> None:
        """`timeout` is the camera's."""
        stick = """
        [destinations.stick]
        kind = "directory"
        path = "stick"
        every = "1 s"
        """
        self.daemon = daemon_process.Daemon(
            folder, signed.TRUSTING + "[remote.limits]\nmin_picture = 0.1\n" + stick, camera="simulated"
        )
        config = self.daemon.config.read_text()
        self.daemon.config.write_text(config.replace("[camera]", f'[camera]\ntimeout = "{timeout}"'))
        self.daemon.program = (child_faults.__file__, "bad")
        (folder / "stick").mkdir()
        (folder / "stick" / ".trapsync-destination").touch()

    def power(self, deadline: str = "80 s") -> int:
        """The timer has the trap make a single run; its exit code."""
        command = [sys.executable, *self.daemon.program, "-c", str(self.daemon.config)]
        command += ["once", "--deadline", deadline]
        return subprocess.run(command, capture_output=True, timeout=100).returncode

    def take(self, data: bytes) -> str:
        """Bring a document; how it stands then."""
        document = self.daemon.folder / "document"
        document.write_bytes(data)
        self.daemon.run("settings", "take", str(document))
        return self.state()

    def state(self) -> str:
        """How it stands with pushed settings, and why."""
        facts = self.daemon.status()["remote"]
        return f"{facts['state']} {facts['code'] or ''}".strip()


def test_pushed_settings_stay_after_a_single_run_that_went_well_with_them(tmp_path: Path) -> None:
    trap = Timed(tmp_path)
    assert trap.power() == 0
    assert trap.take(signed.settings(1, {"camera": {"quality": 80}})) == "validated"
    assert trap.power() == 0
    assert trap.state() == "committed"
    assert trap.daemon.status()["ledger"]["delivered"] == 2


@pytest.mark.parametrize(
    ("tables", "first", "code"),
    [
        (
            {"camera": {"quality": child_faults.HANGING}},
            2,
            "c",
        ),  # camera, or captures: how often it was tried
        ({"destinations": {"stick": {"transfers": child_faults.CLOSING}}}, 1, "link_lost"),
        ({"camera": {"quality": child_faults.CRASHING}}, -9, "starts"),
    ],
)
def test_pushed_settings_go_after_two_single_runs_that_went_badly_with_them(
    tmp_path: Path, tables: dict[str, Any], first: int, code: str
) -> None:
    trap = Timed(tmp_path, "1 s" if code == "c" else "10 s")
    assert trap.power() == 0
    assert trap.take(signed.settings(1, tables)) == "validated"
    deadline = "20 s" if code == "c" else "80 s"  # it hangs until then
    assert trap.power(deadline) == first
    assert trap.state() == "trial"
    trap.power(deadline)
    if code == "starts":  # the power was cut: the next one finds it
        assert trap.state() == "trial"
        trap.power()
    assert trap.state().startswith(f"rolled_back {code}")
    assert trap.power() == 0
    assert trap.daemon.status()["ledger"]["pending"] == 0


def test_settings_that_come_during_a_single_run_do_not_cut_it_short(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        home = f"""
        [hub]
        url = "{hub.url}"
        username = "{hub.user}"
        password_file = "password"
        """
        deliver = daemon_process.deliver_to(tmp_path, hub.url, hub.user, hub.password)
        trap = daemon_process.Daemon(tmp_path, deliver + home + signed.TRUSTING, camera="simulated")
        url = f"{hub.url}/pushed/device-{drawings.DEVICE}.settings"
        document = signed.settings(1, {"camera": {"quality": 80}})
        assert requests.put(url, document, auth=hub.auth("owner"), timeout=30).status_code == 200
        done = once(trap)
        assert done.returncode == 0, done.stderr
        assert trap.status()["remote"]["state"] == "validated"
        time.sleep(1.0)  # the destination's `every`: else it is not due
        done = once(trap)
        assert (done.returncode, len(hub.stored())) == (0, 2)
        assert trap.status()["remote"]["state"] == "committed"


def test_a_destination_is_due_when_its_time_has_passed_or_the_clock_went_back(trap: Trap) -> None:
    home = Memory("home")
    home.settings = Destination(kind="memory", every=Duration(3600))
    trap.register(home)
    trap.put()
    trap.ingest()
    assert due_destinations(trap.catalog, [home], trap.time) == {"home"}
    trap.deliver(home)
    assert due_destinations(trap.catalog, [home], trap.time) == set()
    trap.time.sleep(3600)
    assert due_destinations(trap.catalog, [home], trap.time) == {"home"}
    trap.restart(reboot=True)
    trap.time.step_wall(-90 * 86400)
    assert due_destinations(trap.catalog, [home], trap.time) == {"home"}
