"""Advice that works: each line of it that the program gives is drawn from the code, and taken as it is written.

A new line of advice fails here until it has a scenario, or a mark that says why it cannot have one.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import click
import pytest

import advice
import drawings
import processes
from advice import ACCOUNT, Site
from trapsync import cli
from trapsync.cli import drop_root
from trapsync.clock import SystemClock
from trapsync.destinations import layouts
from trapsync.destinations.directory import MARK
from trapsync.errors import StorageError
from trapsync.files import durable
from trapsync.remote.in_force import load
from trapsync.runtime import startup
from trapsync.settings.schema import Settings, Trap
from trapsync.spool.scan import scan, why_unreadable
from trapsync.trap import lock, tell_daemon

Scenario = Callable[[Site], None]
SCENARIOS: dict[str, Scenario] = {}
ROOT = Path(__file__).parents[2]


def follows(*words: str) -> Callable[[Scenario], Scenario]:
    """Have a scenario stand for the lines of advice with these words in them."""

    def keep(scenario: Scenario) -> Scenario:
        SCENARIOS.update(dict.fromkeys(words, scenario))
        return scenario

    return keep


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the daemon's account can get to: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="trapsync-advice-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def command(line: str) -> str:
    """The command at the end of a line of advice."""
    return line.rpartition("run: ")[2]


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────

_STICKYPI = """
[destinations.hub]
kind = "stickypi"
url = "http://127.0.0.1:9"
username = "trap"
password_file = "password"
"""


def _secret(site: Site, owner: int, group: int, mode: int, words: str) -> None:
    site.write(site.config.read_text().partition("\n[destinations")[0] + _STICKYPI)
    password = site.config.with_name("password")
    password.write_text("hush")
    password.chmod(mode)
    os.chown(password, owner, group)
    site.type(command(site.line(words)))
    assert site.is_gone("the secret"), site.said()


@follows("the secret {} {} it; run: {}", "; run: {}")
def _secrets_become_readable_by_the_daemon_alone(site: Site) -> None:
    site.to_account()
    for owner, group, mode, words in (
        (0, 0, 0o644, "everybody can read it"),  # written with `sudo tee`
        (0, 0, 0o600, "cannot be read: Permission denied"),
        (0, ACCOUNT, 0o660, "its group can change it"),
        (ACCOUNT, ACCOUNT, 0o606, "everybody can read it"),
        (1000, ACCOUNT, 0o640, "belongs to another user"),
    ):
        _secret(site, owner, group, mode, words)


@follows("{}: the account {} may not read it; run: sudo chmod a+rX {}")
def _a_certificate_can_be_read_by_the_account(site: Site) -> None:
    site.to_account()
    site.write(f'{site.config.read_text()}{_STICKYPI}ca_file = "hub.pem"\n')
    certificate = site.config.with_name("hub.pem")
    certificate.touch(0o600)
    site.type(command(site.line("may not read it")))
    assert site.is_gone("hub.pem")


@follows("{} is not proven yet: nothing was delivered there; before you leave, wait for the first delivery")
def _a_destination_is_proven_by_its_first_delivery(site: Site) -> None:
    copies = site.folder / "copies"
    copies.mkdir()
    (copies / MARK).touch()
    site.write(f'{site.config.read_text()}[destinations.copy]\nkind = "directory"\npath = "{copies}"\n')
    site.type("trapsync deliver")
    assert site.line("copy is not proven yet")
    drawings.put(site.spool, drawings.trap(), drawings.NAME)
    site.type("trapsync deliver")
    assert site.is_gone("not proven yet")


@follows("is open, and {} can change {}; run: sudo chmod go-w {}")
def _settings_that_all_can_change_are_closed(site: Site) -> None:
    for file in (site.config, site.config.parent):
        mode = file.stat().st_mode
        file.chmod(0o777)
        site.type(command(site.line("is open, and everybody can change")))
        assert site.is_gone("everybody")
        file.chmod(mode)


# ── Layouts ──────────────────────────────────────────────────────────────────────────────────────────


@follows("write the time as %Y%m%d%H%M%S, and the id as {device:undated}")
def _a_layout_is_written_as_it_says(_site: Site) -> None:
    trap = Settings(trap=Trap(device="12345678"))
    with pytest.raises(ValueError, match="write"):
        layouts.require("{device}_{local:%Y%m%d_%H%M%S}.jpg", trap)
    layouts.require("{device:undated}_{local:%Y%m%d%H%M%S}.jpg", trap)


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────────


@follows("everybody on this machine can change what is in it; run: sudo chmod o-w {}")
def _a_spool_that_all_can_change_is_closed(site: Site) -> None:
    site.spool.chmod(0o777)
    site.type(command(site.line("everybody on this machine can change what is in it")))
    assert site.is_gone("everybody")


@follows("no permission to write; run: sudo chown -R --reference={} {}", "no permission to write; run: {}")
def _what_root_left_is_given_to_the_daemon(site: Site) -> None:
    site.to_account()
    (site.state / "left").write_text("by root")
    (site.state / "left").chmod(0o600)
    site.type(command(site.line("left: no permission to write")))
    assert site.is_gone("no permission")
    os.chown(site.spool, 0, 0)
    site.type(command(site.line("spool: no permission to write")))
    assert site.is_gone("no permission")


@follows("no permission; let the user {} write there", "no permission; let the daemon's user write there")
def _a_folder_that_is_roots_is_given_to_the_user_that_is_named(site: Site) -> None:
    site.to_account()
    os.chown(site.state, 0, 0)
    with site.at_work():
        with pytest.raises(StorageError, match=f"let the user {ACCOUNT} write there"):
            durable.write(site.state / "new", [b""])
        storage = load(site.config).settings.storage
        with pytest.raises(StorageError, match="let the daemon's user write there"):
            startup.prepare_folders(storage, has_spool=True)
    site.type(f"sudo chown {ACCOUNT} {site.state}")
    with site.at_work():
        startup.prepare_folders(storage, has_spool=True)
        durable.write(site.state / "new", [b""])


@follows("{}: no permission to read it; run: {}")
def _what_root_copied_in_can_be_read(site: Site) -> None:
    site.to_account()

    drawings.put(site.spool, drawings.trap(), "card/in.jpg")
    (site.spool / "card" / "in.jpg").chmod(0o600)
    with site.at_work():
        said = why_unreadable(site.spool, "card/in.jpg")
    assert said
    site.type(command(said))
    with site.at_work():
        assert why_unreadable(site.spool, "card/in.jpg") is None
        assert [path for path, files in scan(site.spool) if files] == ["card"]


@follows("is its disk mounted? if it is meant, run: trapsync spool --accept")
def _another_spool_is_accepted(site: Site) -> None:
    site.type("trapsync verify")
    shutil.rmtree(site.spool)
    site.spool.mkdir()
    site.type(command(site.line("this is not the spool of last time")))
    assert site.is_gone("spool of last time")


@follows(
    "so nothing is done there as root; close it (sudo chmod go-w {})",
    "but to root's group; run: sudo chgrp {} {}",
)
def _what_keeps_root_from_stepping_down_is_closed(site: Site) -> None:
    site.to_account()

    place = site.folder / "roots"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(StorageError) as caught:
        drop_root._first_not_roots(place / "none")
    told = re.search(r"\((sudo chmod .*?)\)", str(caught.value))
    assert told
    site.type(told[1])
    assert drop_root._first_not_roots(place / "none") is None
    os.chown(site.state, ACCOUNT, 0)
    with pytest.raises(StorageError) as caught:
        drop_root._groups(site.state, ACCOUNT, site.state.stat().st_gid)
    site.type(command(str(caught.value)))
    assert drop_root._groups(site.state, ACCOUNT, site.state.stat().st_gid) == (ACCOUNT, [ACCOUNT])


# ── Sticks and folders that are delivered to ─────────────────────────────────────────────────────────


def _with_sticks(site: Site, *names: str) -> list[Path]:
    for name in names:
        (site.trap / name).mkdir()
        table = f'\n[destinations.{name}]\nkind = "directory"\npath = "{site.trap / name}"\n'
        site.write(site.config.read_text() + table)
    return [site.trap / name / MARK for name in names]


@follows(
    "has no mark: is its disk or stick connected? if the right one is mounted there now, run: sudo touch {}",
    "is no regular file; remove it, then run: sudo touch {}",
    "was not written by trapsync; if it is the right folder, run: sudo truncate -s 0 {}",
)
def _a_folder_gets_its_mark(site: Site) -> None:
    (mark,) = _with_sticks(site, "archive")
    site.type(command(site.line("has no mark")))
    assert site.is_gone("mark")
    drawings.put(site.spool, drawings.trap())
    site.type("trapsync deliver")  # it writes its id into the mark
    mark.unlink()
    mark.mkdir()
    line = site.line("is no regular file")
    mark.rmdir()  # "remove it"
    site.type(command(line))
    assert site.is_gone("mark")
    mark.write_text("what somebody wrote")
    site.type(command(site.line("was not written by trapsync")))
    assert site.is_gone("mark")


@follows("have one mark and are one place; if one is a copy of the other, run: sudo truncate -s 0 {}")
def _a_copied_mark_is_emptied(site: Site) -> None:
    marks = _with_sticks(site, "one", "other")
    for mark in marks:
        mark.write_text(f"trapsync destination\nid = {'7' * 32}\n")
    site.type(command(site.line("have one mark")))
    assert site.is_gone("one mark")


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────


@follows('simulated: these are no real pictures; set camera.kind = "picamera"')
def _a_real_camera_is_set(site: Site) -> None:
    assert 'set camera.kind = "picamera"' in site.line("simulated")
    site.change('kind = "simulated"', 'kind = "picamera"')
    assert site.is_gone("simulated")


@follows(
    "there is none: images stay on the card; add a [destinations.NAME]",
    "there is no destination: images stay on the card; add a [destinations.NAME]",
)
def _a_destination_is_added(site: Site) -> None:
    site.type("trapsync verify")
    with lock(site.state):
        site.line("there is none: images stay on the card; add a [destinations.NAME]")
        site.line("there is no destination: images stay on the card; add a [destinations.NAME]")
        (mark,) = _with_sticks(site, "archive")
        mark.touch()
    site.type("trapsync deliver")
    assert site.is_gone("add a [destinations.NAME]"), site.said()


@follows("{}: there is no destination; add a [destinations.NAME]")
def _with_a_destination_deliver_works(site: Site) -> None:
    with pytest.raises(AssertionError, match=r"there is no destination; add a \[destinations.NAME\]"):
        site.type("trapsync deliver")
    (mark,) = _with_sticks(site, "archive")
    mark.touch()
    site.type("trapsync deliver")


def _valid(site: Site, table: str, said: str, *instead: str) -> None:
    """With this in the settings it says so; with each of what it proposes instead, it does not."""
    before = site.config.read_text()
    site.write(f"{before}\n{table}\n")
    line = site.line(said)
    for text in instead:
        old = re.search(r"= (.*)$", table)
        assert old
        assert text in line, line
        site.write(f"{before}\n{table.replace(old[1], f'[{text}]' if old[1].startswith('[') else text)}\n")
        assert site.is_gone(said), site.said()
    site.write(before)


@follows(
    '{} is not a window; write "21:00 - 05:30" or "sunset-30min - sunrise"',
    "ends when it begins, so no picture is taken in it; write",
    'is more than 12 h from the sun; write a time like "21:00"',
    "the sun needs a place; set trap.latitude and trap.longitude",
    "so no picture is ever taken in it; write smaller offsets",
    'there is no such time zone; write "Europe/Zurich", "UTC" or "system"',
)
def _a_schedule_is_written_as_it_is_told(site: Site) -> None:
    table = "[capture]\nschedule = "
    site.change("[trap]", "[trap]\nlatitude = 1.0\nlongitude = 8.5")
    _valid(site, table + '["dusk"]', "is not a window", '"21:00 - 05:30"', '"sunset-30min - sunrise"')
    _valid(site, table + '["21:00 - 21:00"]', "ends when it begins", '"21:00 - 05:30"')
    assert "more than 12 h" in _line_with(site, table + '["sunset-13h - sunrise"]', "more than 12 h")
    assert "write smaller offsets" in _line_with(site, table + '["sunset+7h - sunrise-7h"]', "on no day")
    site.change("latitude = 1.0\nlongitude = 8.5\n", "")
    site.write(site.config.read_text() + table + '["sunset - sunrise"]\n')
    assert "set trap.latitude and trap.longitude" in site.line("the sun needs a place")
    site.change("[trap]", "[trap]\nlatitude = 1.0\nlongitude = 8.5")
    assert site.is_gone("the sun needs a place")
    for zone in ("Europe/Zurich", "UTC", "system"):
        site.change("[trap]", '[trap]\ntimezone = "Mars"')
        assert f'"{zone}"' in site.line("there is no such time zone")
        site.change("Mars", zone)
        assert site.is_gone("there is no such time zone")
        site.change(f'timezone = "{zone}"\n', "")


def _line_with(site: Site, table: str, said: str) -> str:
    before = site.config.read_text()
    site.write(f"{before}\n{table}\n")
    line = site.line(said)
    site.write(before)
    return line


@follows(
    "let each be a folder of its own, outside of the other",
    "are one place ({}); remove one of them",
)
def _folders_that_lie_in_one_another_are_parted(site: Site) -> None:
    (mark,) = _with_sticks(site, "archive")
    mark.touch()
    (site.spool / "archive").mkdir()
    (site.spool / "archive" / MARK).touch()
    site.change(str(site.trap / "archive"), str(site.spool / "archive"))
    assert "let each be a folder of its own" in site.line("lies in")
    site.change(str(site.spool / "archive"), str(site.trap / "archive"))
    assert site.is_gone("folder of its own")
    before = site.config.read_text()
    site.config.with_name("password").write_text("hush")
    site.config.with_name("password").chmod(0o600)
    site.write(f"{before}{_STICKYPI}{_STICKYPI.replace('destinations.hub', 'destinations.copy')}")
    assert site.line("remove one of them")
    site.write(before + _STICKYPI)
    assert site.is_gone("one place")


@follows("{}; if it is none of its own, remove it")
def _a_blank_at_the_end_of_a_secret_is_removed(site: Site) -> None:
    site.write(site.config.read_text() + _STICKYPI)
    password = site.config.with_name("password")
    password.write_text("hush \n")
    password.chmod(0o600)
    assert site.line("begins or ends with a blank")
    password.write_text("hush\n")
    assert site.is_gone("blank")


@follows(
    'relies on one; set it to "auto"',
    "with a real-time clock that you set yourself, set trap.clock =",
    'or write trap.clock = "auto"',
)
def _the_clock_is_trusted_or_not(site: Site) -> None:
    (site.folder / "proc" / "device-tree").mkdir(parents=True)
    (site.folder / "proc" / "device-tree" / "model").write_text("Raspberry Pi Zero 2 W")
    with (
        patch("trapsync.clock._SYNCHRONISED", site.folder / "none"),
        patch("trapsync.clock._kernel_synchronised", bool),
    ):
        assert 'set it to "auto"' in site.line("relies on one")
        site.change('clock = "trusted"', 'clock = "auto"')
        assert site.is_gone("relies on one")
        assert 'set trap.clock = "trusted"' in site.line("not synchronised: images are held")
        site.change('clock = "auto"', 'clock = "trusted"')
        assert site.is_gone("not synchronised")
        with patch.object(SystemClock, "wall", lambda _self: 5.0):
            assert 'write trap.clock = "auto"' in site.line("which cannot be")
            site.change('clock = "trusted"', 'clock = "auto"')
            assert site.is_gone("which cannot be")


@follows(
    "neither serial number nor machine-id to take the trap's id from; set 8 hexadecimal digits of your choice"
)
def _a_trap_without_a_serial_number_is_given_an_id(site: Site) -> None:
    site.change('device = "0a1b2c3d"\n', "")
    module = "trapsync.hardware.device_id"
    with patch(f"{module}._SERIALS", ()), patch(f"{module}._MACHINE_ID", site.folder / "none"):
        line = site.line("serial number")
        told = re.search(r'device = "[0-9a-f]{8}"', line)
        assert told
        site.change("[trap]\n", f"[trap]\n{told[0]}\n")
        assert site.is_gone("serial number")


# ── Who runs it ──────────────────────────────────────────────────────────────────────────────────────


@follows(
    "run this as the daemon's user, or with sudo",
    "run the doctor as the daemon's user, or with sudo",
    "run this as that user, or with sudo",
)
def _root_may_look_where_nobody_else_may(site: Site) -> None:
    site.type("trapsync verify")
    site.to_account()
    os.chown(site.config, 0, 0)
    site.config.chmod(0o600)
    assert "or with sudo" in site.line("no permission to read it")
    site.type("sudo trapsync settings check")
    with site.at_work(), pytest.raises(StorageError, match="run this as that user, or with sudo"):
        tell_daemon(os.getppid(), signal.SIGUSR1)


@follows("the daemon is not running; start it:", "the daemon never ran; start it:")
def _the_daemon_is_started(site: Site) -> None:
    words = ("the daemon never ran; start it:", "the daemon is not running; start it:")
    for said in words:
        assert site.line(said).endswith("start it: sudo systemctl start trapsync, or trapsync run")
        site.type("trapsync verify")  # it makes the catalog
    daemon = ["sh", "-c", "exec trapsync run"]  # systemctl: tests/system/test_system.py does it
    with processes.started(daemon, env=site.environment, stderr=subprocess.DEVNULL):
        deadline = time.monotonic() + 60
        while not all(map(site.is_gone, words)):
            assert time.monotonic() < deadline, site.said()
            time.sleep(0.2)


@follows("images are delivered to this folder of the spool; move it out of there")
def _a_folder_that_is_delivered_to_is_moved_out_of_the_spool(site: Site) -> None:
    (site.spool / "copies").mkdir()
    (site.spool / "copies" / MARK).touch()
    assert ("copies", None) in list(scan(site.spool))
    (site.spool / "copies").rename(site.trap / "copies")
    assert list(scan(site.spool)) == [("", [])]


@follows("or mount it: sudo mount -t tmpfs tmpfs {}")
def _shared_memory_is_mounted(site: Site) -> None:
    advice.needs_root()
    code = "from trapsync.files import mounts; print(mounts.no_shared_memory() or 'all right')"
    ask = f"{sys.executable} -c {shlex.quote(code)}"
    script = (
        f'set -e; mount -t tmpfs -o ro tmpfs /dev/shm; said=$({ask}); eval "${{said##*mount it: }}"; {ask}'
    )
    assert site.type(f"unshare -m sh -c {shlex.quote(script)}") == "all right\n"


@follows(
    "{}: is a folder; name the config file in it",
    "there is no such config file; to begin one: trapsync settings example > trapsync.toml",
)
def _the_config_file_is_named(site: Site) -> None:
    with pytest.raises(AssertionError, match="name the config file in it"):
        site.type(f"trapsync -c {site.config.parent} settings check")
    with pytest.raises(AssertionError, match="there is no such config file"):
        site.type(f"trapsync -c {site.folder}/none settings check")
    site.type(
        f"cd {site.folder} && trapsync settings example > trapsync.toml && "
        "trapsync --config trapsync.toml settings show"
    )


# ── Commands of the program ──────────────────────────────────────────────────────────────────────────

_SEE = re.compile(
    r"(?:see|then|with|run|first|code): (?:sudo )?(trapsync (?:hub (?:users )?)?[a-z]+(?: (?:new|jump|-?-[a-z-]+))*)"
)


def told() -> set[str]:
    """Every command of the program that is told to be typed."""
    return {found for text in advice.drawn() for found in _SEE.findall(text)}


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """A trap whose daemon has run, for commands that only look."""
    folder = Path(tempfile.mkdtemp(prefix="trapsync-advice-", dir="/tmp"))
    site = Site(folder)
    site.type("trapsync verify")  # it makes the catalog
    yield site
    shutil.rmtree(folder)


@pytest.mark.parametrize("words", sorted(told()))
def test_a_command_that_is_told_works_as_it_is_written(
    shared: Site, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if words.endswith(("push", "join")) or words.startswith("trapsync hub"):
        words += " --help"
    arguments = ["--config", str(shared.config), *words.split()[1:]]
    monkeypatch.setattr(sys, "argv", ["trapsync", *arguments])
    monkeypatch.chdir(shared.folder)
    monkeypatch.setenv("TRAPSYNC_OWNER", str(tmp_path / "owner.toml"))
    with pytest.raises(SystemExit) as end:
        cli.main()
    # The verdicts of the doctor are its exit codes; `fleet` has no hub here to ask.
    assert end.value.code == 0 or words in {"trapsync doctor", "trapsync fleet"}


# ── All of it ────────────────────────────────────────────────────────────────────────────────────────

# Needs hands, a shop, a look at the device, or somebody else: who runs the server, or has to decide.
HANDS = (
    *(
        "is no address such as ntfys://",
        "has no address in it; write one",
        "begins with https://; write it there",
    ),
    *(
        "check the cable",
        "stop it (`sudo fuser",
        "power off and check both ends",
        "it hangs; reboot, and see: sudo dmesg",
    ),
    *(
        "uses it, or will: only one program can; stop it",
        "give it shade",
        "sudo hwclock -w; if it forgets again",
    ),
    *(
        "replace the card",
        "copy what is on it",
        "the stick is failing, replace it",
        "is full: put in an empty stick",
    ),
    *("the card is full; free some space", "the disk quota is used up; free some space"),
    *(
        "set it (timedatectl)",
        "set the trap's (timedatectl)",
        "check how the name is written",
        "use another network or server",
    ),
    *("move them away, then retry", "links are not followed; remove it", "a link is in the way; remove it"),
    *(
        "delete or rename that one at ImageKit",
        "delete or rename that one in the bucket",
        "move or rename it on the card",
        "remove the one there, then retry",
    ),
    *(
        "and at the account and its plan",
        "look at {}, and whether it may create tasks",
        "and at the account's credits",
    ),
    *(
        "make it in Scale, or correct `project`",
        "look at the account {}: is it read-only?",
        "look at username ({}) and {}",
    ),
    *(
        "let its operator raise the limit",
        "somebody else pushed in between; look at it",
        "rejects the login (407); check",
    ),
    *("check hub.username and hub.password_file", "check hub.mqtt.username and password_file"),
    *(
        "check the user and the password file",
        "if it is another command: wait for its end",
        "install the newer trapsync again",
    ),
    *(
        "(sudo systemctl stop trapsync), focus, and start it again",
        "end it, then: sudo systemctl start trapsync",
    ),
    *(
        "move the file there yourself, from {}",
        "charge it, change it, or take fewer pictures",
        "use an editor",
    ),
    *("deliver, prune or change it",),
    *("remove it, for the code is in it", "the service sees no homes; copy it", "such as: name = valley-3"),
    *("try again", "ask for shorter ranges of time", "ask again, or for less", "name the devices"),
    *("copy all of it once more", "free some space there"),
    *("ask for a code that begins with https", "copy all of it, in quotes", "check the address in the code"),
    *("takes precedence; remove it there first", "ask its operator for a new code"),
    *("ask its operator for another", "ask the hub's operator for another", "and make a new code"),
    *("make it, or correct the setting path", "put its new key there", "correct it with: rclone config"),
    *(
        "is full; make room there",
        "take the password off with: rclone config",
        "move or rename that one, then retry",
    ),
    *("renews its login in {}, and may not write there",),
)
# Names an option or a setting, whose value a person chooses: that there are these is held below.
CHOICES = (
    *(
        "lower camera.resolution, or reboot",
        "give --hub URL, --folder DIR or --broker HOST",
        "give the code, or --card",
        "or ask the hub's operator for a new code",
        "name another with --out",
    ),
    *("give one of --hub, --folder and --broker", "choose another with --port", "from 1024 on with --port"),
    *(
        "set another with --password-file",
        "choose another folder",
        "choose one of: {}",
    ),
    *(
        "give this destination a `prefix` of its own",
        "set hub.heartbeat_url",
        "write device:ID, group:NAME or all",
    ),
    *(
        "the password of {} is empty; give one",
        "set ca_file, if the server is yours",
        "set proxy_username and",
    ),
    *(
        "if the key was used on another computer, give --above",
        "make another key, and revoke this one with it",
    ),
    *(
        "start it with --password-file",
        "start it with --behind-proxy",
        "is no IP address; give the web server's",
        "give scheme and name only",
    ),
    *(
        "see key and trusted_keys in owner.toml",
        "give --hub URL",
        "see key in {}",
        "write --to device:{}",
        "write the device ({})",
    ),
    *("names and passwords do not belong there; use {}", "remove hub.mqtt.host, or this", "put in what"),
)
# Installs something, which needs a network: that what is named exists is held below.
PACKAGES = ("sudo apt install", "pipx inject", "sudo apt full-upgrade", "scripts/install")
# Says where to look, with a command of the program, which is typed above, or of the system.
SEE = (
    *("see: trapsync", "see the log", "see its log", "see: sudo journalctl", "see: systemctl cat"),
    "Landlock is switched off: see systemd/README.md",
    *("make one first: trapsync", "make a code: trapsync", "add one: trapsync", "and then: trapsync"),
    "trapsync hub forget {}, and make a new code",
    *("make one with: trapsync", "see `rpicam-hello --list-cameras`"),
)
# Taken by a test elsewhere.
ELSEWHERE = {
    'set capture.format = "2020"': "unit/test_stickypi.py::"
    "test_a_server_of_branch_main_is_sent_one_image_of_2022_and_says_what_to_set",
    **dict.fromkeys(
        (
            "does not know this access_key; look at it",
            "rejects the signature; look at secret_file",
            "does not permit this; let the key list the bucket, read and write objects",
            "has no such bucket; look at bucket",
        ),
        "unit/test_s3_answers.py::test_when_advice_is_taken_what_it_is_about_goes_away",
    ),
    **dict.fromkeys(
        (
            "has no bucket of such a name; look at bucket",
            "has no such storage class; look at storage_class",
            "set region, and endpoint to that region's",
            "let the key read objects (s3:GetObject)",
            "let the key list the bucket (s3:ListBucket)",
        ),
        "unit/test_s3_answers.py::test_an_answer_is_the_right_error_and_one_line_and_nothing_is_stored",
    ),
    **dict.fromkeys(
        ("wants another region; look at region", "the bucket's region is {}; set region"),
        "unit/test_s3_answers.py::test_a_region_that_the_store_names_is_taken",
    ),
    **dict.fromkeys(
        (
            'its ETags are no MD5s, so no image would leave the card; set checksum = "sha256"',
            "let the key write objects (s3:PutObject)",
            "the probe may not be removed: delete {} in the bucket",
        ),
        "unit/test_s3.py::test_with_probe_the_doctor_says_what_the_store_promises_and_leaves_nothing",
    ),
    "run: sudo chown root {}": "unit/test_settings.py::test_what_another_user_owns_is_not_believed",
    "move it into a folder of your own": "unit/test_settings.py::test_what_another_user_owns_is_not_believed",
    "set {} = true": "unit/test_proxy.py::test_what_goes_without_tls_is_told",
    "write https:// in {}": "unit/test_proxy.py::test_what_goes_without_tls_is_told",
    "write https:// for the {}": "unit/test_fleet.py::test_what_goes_without_tls_is_told",
    'set proxy = "environment"': "unit/test_proxy.py::test_variables_that_do_not_count_are_told_once",
    "write https:// instead of http://": "unit/test_http.py::test_a_server_that_wants_tls_is_told_as_what_to_write",
    **dict.fromkeys(
        ("set what is missing", "name a folder that is not", "set trap.latitude and trap.longitude"),
        "unit/test_camtrap_dp.py::test_who_does_what_is_asked_for_gets_the_package",
    ),
    **dict.fromkeys(
        ("to begin one: trapsync hub example", "name the file: --config hub.toml"),
        "unit/test_hub_config.py::test_a_file_that_is_not_there_is_one_line_that_says_how_to_begin_one",
    ),
    "a hub ran in this folder; move it away": "daemon/test_hub_backup.py::test_what_can_be_no_backup_is_one_line",
    "the backup of another hub lies there; choose another folder": "daemon/test_hub_backup.py::"
    "test_a_backup_is_not_written_over_by_a_hub_that_begins_anew",
    "name its folder with --folder": "unit/test_hub_packages.py::test_what_no_hub_has_is_one_line",
    "is there already; move it away first": "unit/test_cli.py::test_a_file_is_not_put_back_over_another",
    "no deployment is under way; to begin one: trapsync": "unit/test_deployment_commands.py::"
    "test_where_there_is_none_to_end_the_advice_begins_one",
    "{}; to begin one: trapsync deployment start": "unit/test_deployment_commands.py::"
    "test_pictures_after_its_end_are_a_warning_until_one_is_begun",
    "name a moment that is over": "unit/test_deployment_commands.py::test_a_moment_that_cannot_be_is_one_line",
    "name a later moment": "unit/test_deployment_commands.py::"
    "test_a_later_moment_than_the_newest_picture_is_taken",
    "leave out --at": "unit/test_deployment_commands.py::"
    "test_before_the_clock_is_set_one_begins_now_and_is_told_to_be_corrected",
    "is no moment; write": "unit/test_readable.py::test_a_day_and_a_time_are_read_in_the_machines_zone",
    "to deliver them as they are, set trap.uncertain_times": "daemon/test_clock.py::"
    "test_the_owner_may_have_unsure_images_delivered_as_they_are",
    "{} is the file on the card itself": "unit/test_directory.py::test_the_spool_itself_holds_no_copies",
    "{}; correct it, then: {}": "unit/test_config_check.py::"
    "test_a_running_daemon_says_that_its_file_became_invalid_and_when_it_is_mended_no_more",
}


@pytest.mark.parametrize("name", sorted({one.__name__ for one in SCENARIOS.values()}))
def test_advice_that_is_taken_makes_what_it_is_about_go_away(folder: Path, name: str) -> None:
    scenario = next(one for one in SCENARIOS.values() if one.__name__ == name)
    scenario(Site(folder))


def test_every_line_of_advice_is_taken_by_a_test_or_marked_and_no_mark_is_left_over() -> None:
    known = [*SCENARIOS, *HANDS, *CHOICES, *PACKAGES, *SEE, *ELSEWHERE]
    lines = advice.drawn()
    unknown = {text: where for text, where in lines.items() if not any(words in text for words in known)}
    assert not unknown, "without a scenario:\n" + "\n".join(
        f"{where}: {text}" for text, where in unknown.items()
    )
    assert [words for words in known if not any(words in text for text in lines)] == []


def test_the_tests_that_take_advice_elsewhere_are_there() -> None:
    for words, test in ELSEWHERE.items():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), words


def test_a_package_that_is_told_to_be_installed_is_one_that_the_program_knows() -> None:
    text = "\n".join(advice.drawn())
    known = (ROOT / "pyproject.toml").read_text() + (ROOT / "scripts" / "install").read_text()
    for words in re.findall(r"(?:apt install|pipx inject trapsync) ([a-z0-9 -]+)", text):
        for package in words.split():
            assert package in known, package


def test_every_option_and_every_setting_that_is_named_in_advice_is_there() -> None:
    text = "\n".join(advice.drawn())
    options = {name for command in _commands(cli.cli) for option in command.params for name in option.opts}
    others = {"--system-site-packages", "--list-cameras", "--reference", "--now"}  # of other programs
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", text))
    assert named <= {*options, *others, "--help", "--config"}
    settings = (ROOT / "config" / "trapsync.toml").read_text(encoding="utf-8")
    for table, key in re.findall(
        r"\b(camera|capture|trap|storage|prune|hub|hub\.mqtt|ingest)\.([a-z_]+)\b", text
    ):
        assert f"[{table}]" in settings or table == "hub", table
        assert re.search(rf"(?m)^#? ?{key}\b|\b{key}\b", settings), key


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from _commands(command)
