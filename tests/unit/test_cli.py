"""The commands: what they show, what they do, their exit codes, and one clear line for what is wrong."""

import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import click
import pytest

import drawings
import trap_bench as bench
import without_root
from memory_context import context
from trapsync import __version__, cli, trap
from trapsync.catalog import Catalog
from trapsync.catalog.facts import Name
from trapsync.clock import iso, utc
from trapsync.destinations import directory
from trapsync.destinations.directory import MARK
from trapsync.errors import Failed, Unauthorised, Unreachable
from trapsync.image import Evidence
from trapsync.runtime import config_check
from trapsync.settings.layers import Files

START = "start it: sudo systemctl start trapsync, or trapsync run"
CONFIG = f"""\
[trap]
device = "{drawings.DEVICE}"
clock = "trusted"
[storage]
spool = "spool"
state = "state"
min_free = "0 B"
[camera]
kind = "none"
[prune]
min_age = "0 s"
keep_free = "10000 GB"
[destinations.stick]
kind = "directory"
path = "stick"
"""


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on standard error; there is nothing else, on either."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("trapsync: ")
        return self.err.removeprefix("trapsync: ").rstrip("\n")

    @property
    def json(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture
def folder(trap: bench.Trap, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a trap with a config file and one destination, a stick that is there."""
    (trap.folder / "trap.toml").write_text(CONFIG)
    (trap.folder / "stick").mkdir()
    (trap.folder / "stick" / MARK).touch()
    monkeypatch.chdir(trap.folder)
    monkeypatch.setenv("TRAPSYNC_CONFIG", str(trap.folder / "trap.toml"))
    monkeypatch.setenv("COLUMNS", "80")
    trap.catalog.places.register([("stick", "directory", True)])
    return trap.folder


@pytest.fixture
def call(
    folder: Path, trap: bench.Trap, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Call]:
    """Run a command in this process, at the trap's own time."""
    monkeypatch.setattr("trapsync.trap.system_clock", lambda _settings: trap.time)
    root, ours = logging.getLogger(), logging.getLogger("trapsync")
    before = root.handlers[:], root.level, ours.level

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["trapsync", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = Said(int(exit_.value.code or 0), *capfd.readouterr())
        assert "Traceback" not in said.err
        return said

    yield call
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.fixture
def running(folder: Path) -> Iterator[None]:
    """A daemon is running, as far as its lock can tell."""
    with trap.lock(folder / "state"):
        yield


def set_in(folder: Path, old: str, new: str) -> None:
    """Change a line of the config file."""
    text = (folder / "trap.toml").read_text()
    assert old in text
    (folder / "trap.toml").write_text(text.replace(old, new))


def bring_home(trap: bench.Trap, *paths: str) -> None:
    """Deliver everything, to the stick."""
    table = directory.Settings(kind="directory", path=trap.folder / "stick")
    trap.ingest(*paths)
    stick: Any = directory.connect("stick", table, context(trap.time))
    trap.deliver(stick)


# ── Help ─────────────────────────────────────────────────────────────────────────────────────────────


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it, groups and the program itself too."""
    yield before, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name), command


ALL = list(commands(cli.cli))


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) or "trapsync" for words, _ in ALL])
def test_every_command_explains_itself_and_its_options_within_80_columns(
    call: Call, words: tuple[str, ...], command: click.Command
) -> None:
    said = call(*words, "--help")
    assert (said.code, said.err) == (0, "")
    assert command.help
    assert command.help.splitlines()[0].endswith((".", '".'))
    assert command.help.splitlines()[0] in " ".join(said.out.split())
    assert max(map(len, said.out.splitlines())) <= 80
    for option in command.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None), option.name


PAGE = (Path(__file__).parents[2] / "scripts" / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `trapsync ([^`]+)`(.*?)\|(.*)\|$", PAGE, re.MULTILINE)


def test_the_page_of_commands_has_a_row_for_every_command() -> None:
    rows = {row[0].split()[0] for row in ROWS}
    assert rows == {words[0] for words, _ in ALL if words and not cli.cli.commands[words[0]].hidden}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_option_in_the_row_of_a_command_is_one_of_its_options(row: tuple[str, ...]) -> None:
    first, second, third = (*row[0].split("`")[0].split(), "", "")[:3]
    known = dict(ALL)
    command = known.get((first, second, third)) or known.get((first, second)) or known[(first,)]
    there = {name for option in command.params for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", "".join(row))) <= there


def test_the_commands_are_listed_by_what_they_are_about_each_once(call: Call) -> None:
    said = call("--help").out
    sections = ("Trap:", "Images:", "Remote settings:", "Fleet:", "Hub:", "Help:")
    assert [line for line in said.splitlines() if line in sections] == list(sections)
    listed = re.findall(r"^  ([a-z]+)  ", said, re.MULTILINE)
    assert sorted(listed) == sorted(name for name, one in cli.cli.commands.items() if not one.hidden)


def test_help_is_a_command_too(call: Call) -> None:
    assert call("help") == call("--help")
    assert call("help", "labels", "export") == call("labels", "export", "--help")
    said = call("help", "nonsense")
    assert (said.code, "No such command 'nonsense'" in said.err) == (2, True)


def test_the_version_is_one_line(call: Call) -> None:
    assert re.fullmatch(r"trapsync \d+\.\d+\.\d+\n", call("--version").out)


def test_wrong_usage_is_exit_code_2_and_points_to_the_help(call: Call) -> None:
    for words in (["nonsense"], ["images", "--nonsense"], ["images", "-n", "x"], ["completion", "ksh"]):
        said = call(*words)
        assert said.code == 2
        assert "Try 'trapsync" in said.err or "--help" in said.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_completion_for_each_shell(call: Call, shell: str) -> None:
    said = call("completion", shell)
    assert said.code == 0
    assert f"_TRAPSYNC_COMPLETE={shell}_complete" in said.out


def test_completion_knows_the_commands() -> None:
    code = "import sys; sys.argv[0] = 'trapsync'; from trapsync.cli import main; main()"
    environment = {"_TRAPSYNC_COMPLETE": "bash_complete", "COMP_WORDS": "trapsync ret", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "plain,retry\n"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────


def test_settings_that_are_valid_are_said_to_be(call: Call, folder: Path) -> None:
    assert call("settings", "check") == Said(0, f"{folder}/trap.toml: valid\n", "")


def test_settings_are_shown_so_that_they_can_be_used_again(call: Call, folder: Path) -> None:
    first = call("settings", "show")
    (folder / "again.toml").write_text(first.out)
    assert call("--config", "again.toml", "settings", "show") == first
    assert f'spool = "{folder}/spool"' in first.out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"none"', '"usb"', "trap.toml: camera.kind = 'usb': must be one of: picamera, simulated, none"),
        ("clock =", "clok =", "trap.toml: trap.clok: there is no such setting; did you mean 'clock'?"),
        ("[trap]", "[trap", "trap.toml: is not TOML: "),
        ('"directory"', '"ftp"', "trap.toml: destinations.stick.kind = 'ftp': must be one of: directory, imagekit"),
        ("path =", "pth =", "trap.toml: destinations.stick.pth: there is no such setting; did you mean 'path'?"),
        ("path =", 'windows = []\npath =', "destinations.stick.windows: there is no such setting; known here: kind, "),
        ("[trap]", '[trap]\ntimezone = "Mars"', "trap.timezone = 'Mars': there is no such time zone"),
        ("[trap]", '[capture]\nschedule = ["sunset - sunrise"]\n[trap]', "capture.schedule: the sun needs a place"),
        ("[trap]", '[capture]\nschedule = ["21:00 - 21:00"]\n[trap]', "'21:00 - 21:00' ends when it begins, so no picture"),
        ("[trap]", '[capture]\nschedule = ["sunset+7h - sunrise-7h"]\n[trap]\nlatitude = 1.0', "opens on no day"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_are_one_line(
    call: Call, folder: Path, old: str, new: str, says: str
) -> None:
    set_in(folder, old, new)
    said = call("settings", "check")
    assert said.code == 1
    assert says in said.complaint


@pytest.mark.parametrize("words", ["run", "status", "images", "deliver", "doctor", "settings show"])
def test_no_command_begins_with_settings_that_are_wrong(call: Call, folder: Path, words: str) -> None:
    set_in(folder, "clock =", "clok =")
    said = call(*words.split())
    assert said.code == (2 if words in ("status", "doctor") else 1)  # to a monitor, 1 is a warning
    assert "did you mean 'clock'?" in said.complaint


def test_a_config_file_that_is_not_there_or_a_folder_is_one_line(call: Call, folder: Path) -> None:
    assert (
        "none.toml: there is no such config file; to begin one: trapsync settings example"
        in call("-c", "none.toml", "status").complaint
    )
    assert "spool: is a folder" in call("-c", "spool", "status").complaint


def test_beside_a_broken_file_commands_go_by_the_last_config_that_ran_and_say_so_first(
    folder: Path, trap: bench.Trap, call: Call
) -> None:
    config = folder / "trap.toml"
    config_check.note_running(Files(config), trap.time, lambda _name, _value: None)
    bring_home(trap, trap.put())
    config.write_text(f"{CONFIG}moths =\n")
    said = "the config file is invalid: "
    assert call("status").out.splitlines()[1].strip().startswith(f"- {said}")
    assert call("status").code == 2
    assert call("status", "--json").json["reasons"][0].startswith(said)
    doctor = call("doctor", "--json")
    assert (doctor.code, doctor.json[0]["verdict"], doctor.json[0]["subject"]) == (2, "failing", "config")
    images = call("images", "--json")
    assert (images.code, len(images.json)) == (0, 1)
    assert images.err.startswith(
        f"trapsync: {said}{config}: is not TOML: Invalid value (at line 16, column 8); running on"
    )
    assert images.err.count("\n") == 1
    assert "line 16" in call("settings", "check").complaint
    assert call("settings", "show").out.startswith(f"# {said}")


def test_settings_are_set_in_the_file_only_if_the_result_is_valid(call: Call, folder: Path) -> None:
    file = folder / "trap.toml"
    file.chmod(0o640)
    assert call("settings", "set", "capture.every", "5 min", "trap.name", "42").out.splitlines() == [
        f'{file}: capture.every: "20 min" (the default) → "5 min"',
        f'{file}: trap.name: "" (the default) → "42"',
        "to apply it: sudo systemctl reload trapsync",
    ]
    (folder / "override.toml").write_text('[capture]\nevery = "1 min"\n')
    assert (
        "override.toml sets capture.every too, and takes precedence"
        in call("settings", "set", "capture.every", "6 min").out
    )
    before = file.read_text()
    assert "6 min" in before
    assert (
        "there is no such setting; did you mean 'every'?"
        in call("settings", "set", "capture.evry", "5 min").complaint
    )
    assert "500 is not between 1 and 100" in call("settings", "set", "camera.quality", "500").complaint
    assert "destinations.stick.kind" in call("settings", "set", "destinations.stick.kind", "ftp").complaint
    assert "no value for capture.every" in call("settings", "set", "capture.every").err
    assert file.read_text() == before
    assert file.stat().st_mode & 0o777 == 0o640
    assert '"6 min" → "20 min" (the default)' in call("settings", "unset", "capture.every").out
    said = call("settings", "set", "destinations.stick.every", "1 min").out
    assert 'destinations.stick.every: "5 min" (the default) → "1 min"' in said
    assert not list(folder.glob(".*.part"))


def test_check_tells_what_the_file_names_and_the_account_cannot_read(call: Call, folder: Path) -> None:
    assert call("settings", "check").out == f"{folder / 'trap.toml'}: valid\n"
    more = '[destinations.archive]\nkind = "stickypi"\nurl = "https://a.example.org"\nusername = "u"\n'
    more += 'password_file = "no.password"\n[destinations.usb]\nkind = "directory"\npath = "usb"\nhotplug = true\n'
    set_in(folder, 'path = "stick"\n', f'path = "sticks"\n{more}')
    said = call("settings", "check")
    assert said.code == 0
    first, password, stick = said.out.splitlines()
    assert first.endswith(": valid, but:")
    assert password.startswith("- destinations.archive.password_file: the secret ")
    assert "no.password cannot be read: No such file or directory" in password
    assert stick == f"- destinations.stick.path: {folder}/sticks: No such file or directory"


def test_check_tells_what_goes_without_tls(call: Call, folder: Path) -> None:
    """Finding S20."""
    more = '[hub.mqtt]\nhost = "broker.example.org"\ntls = false\n[destinations.archive]\nkind = "stickypi"\n'
    more += 'url = "http://a.example.org"\nusername = "u"\npassword_file = "stick/.trapsync"\n'
    set_in(folder, 'path = "stick"\n', f'path = "stick"\n{more}')
    (folder / "stick/.trapsync").write_text("horse")
    (folder / "stick/.trapsync").chmod(0o600)
    said = call("settings", "check")
    _, hub, archive = said.out.splitlines()
    assert said.code == 0
    assert hub.startswith("- hub.mqtt: everybody on the way to broker.example.org can read what is sent")
    assert archive.startswith(
        "- destinations.archive: everybody on the way to a.example.org can read its password"
    )


def test_a_wrong_file_can_be_corrected_by_setting_what_is_wrong(call: Call, folder: Path) -> None:
    set_in(folder, '"directory"', '"ftp"')
    assert call("settings", "set", "destinations.stick.kind", "directory").code == 0
    assert call("settings", "check").code == 0


def test_the_example_is_a_file_to_begin_with_and_all_the_complete_one(call: Call, folder: Path) -> None:
    for option in ((), ("--all",)):
        (folder / "trap.toml").write_text(call("settings", "example", *option).out)
        assert call("settings", "check").code == 0
    assert len(call("settings", "example", "--all").out.splitlines()) > 300


def test_settings_show_has_the_defaults_of_destinations_too(call: Call) -> None:
    shown = tomllib.loads(call("settings", "show").out)["destinations"]["stick"]
    assert (shown["path"], shown["every"], shown["hotplug"]) == (
        str(Path("stick").absolute()),
        "5 min",
        False,
    )


# ── status ───────────────────────────────────────────────────────────────────────────────────────────


def test_status_is_ok_when_the_daemon_runs_and_nothing_is_pending(
    call: Call, trap: bench.Trap, running: None
) -> None:
    trap.put()
    bring_home(trap)
    said = call("status", "--json")
    assert (said.code, said.json["verdict"], said.json["reasons"]) == (0, "ok", [])
    assert call("status").out.splitlines()[0].split() == ["ok", "trap", drawings.DEVICE]


def test_status_as_json_holds_every_key_that_was_promised(
    call: Call, trap: bench.Trap, running: None
) -> None:
    path = trap.put()
    bring_home(trap)
    facts = call("status", "--json").json
    assert set(facts) >= {
        *("verdict", "reasons", "ledger", "newest_image", "destinations", "disk", "clock", "daemon"),
    }
    assert facts["ledger"] == {
        "captured": 1,
        "delivered": 1,
        "pending": 0,
        "quarantined": 0,
        "dropped": 0,
        "lost": 0,
    }
    assert facts["newest_image"] == {"name": Path(path).name, "age_s": 0.0}
    assert set(facts["disk"]) == {"free_bytes", "days_left"}
    assert facts["disk"]["free_bytes"] > 0
    assert facts["clock"] == {"trusted": True, "held": 0, "unsure": 0}
    assert facts["daemon"] == {"running": True}
    (stick,) = facts["destinations"].values()
    assert set(stick) - {"required", "depends_on", "hotplug", "delivery_age_s"} == {
        *("kind", "place", "pending", "delivered", "refused", "refused_unseen", "last_delivery"),
        *("next_attempt", "last_error", "failing", "failing_error", "denied"),
    }
    assert (stick["kind"], stick["pending"], stick["delivered"], stick["refused"]) == ("directory", 0, 1, 0)
    assert stick["last_delivery"] == facts["at"]
    assert (stick["next_attempt"], stick["last_error"]) == (None, None)


def test_status_as_json_has_these_keys_in_this_order(
    call: Call, folder: Path, trap: bench.Trap, running: None
) -> None:
    path = trap.put()
    bring_home(trap)
    (folder / "stick" / MARK).unlink()
    trap.time.sleep(5)
    trap.put(5, seed=2)
    bring_home(trap)
    facts: dict[str, Any] = {
        "bug": "a job failed; see the log",
        "thumbnails": "libvips is missing",
        "capture": {"failures": 0, "error": None, "oddity": "the pictures are dark"},
        "not_taken_in": [],
        "times": {"images": 2, "error": "no room"},
        "unpruned": {"stick": "no answer"},
        "stuck": {"images": 1, "error": "read-only"},
    }
    for name, value in facts.items():
        trap.catalog.facts.set(cast("Name", name), value)

    said = call("status", "--json")

    row = trap.catalog.counts.destinations()[0]
    now, newest = trap.time.wall(), trap.catalog.images.newest()
    assert newest is not None
    expected = {
        "device": drawings.DEVICE,
        "name": "",
        "version": __version__,
        "at": iso(utc(now)),
        "clock": {"trusted": True, "held": 0, "unsure": 0},
        "daemon": {"running": True},
        "disk": {"free_bytes": said.json["disk"]["free_bytes"], "days_left": None},
        "ledger": {"captured": 2, "delivered": 1, "pending": 1, "quarantined": 0, "dropped": 0, "lost": 0},
        "newest_image": {"name": newest.name, "age_s": said.json["newest_image"]["age_s"]},
        "deployment": None,
        "battery": said.json["battery"],
        "battery_days": None,
        "destinations": {
            "stick": {
                "kind": "directory",
                "required": True,
                "depends_on": None,
                "hotplug": False,
                "pending": 1,
                "delivered": 1,
                "refused": 0,
                "refused_unseen": 0,
                "place": row["place"],
                "last_delivery": iso(utc(row["delivered_at"])),
                "delivery_age_s": round(now - row["delivered_at"]),
                "next_attempt": said.json["destinations"]["stick"]["next_attempt"],
                "last_error": row["error"],
                "failing": 0,
                "failing_error": None,
                "denied": False,
            }
        },
        "stick": None,
        "joining": None,
        "config": None,
        "hub": {},
        **dict.fromkeys(("conflicts", "vanished", "lost", "missing", "unasked"), 0),
        "old_places": [],
        **facts,
        "remote": {
            "state": "none",
            **dict.fromkeys(
                (
                    "last_received_hash",
                    "effective_hash",
                    "version",
                    "key",
                    "code",
                    "reason",
                    "refused",
                    "damaged",
                    "floor",
                    "groups",
                    "values",
                )
            ),
        },
        "verdict": "warning",
        "reasons": said.json["reasons"],
    }
    assert said.out == json.dumps(expected, indent=2) + "\n"
    assert Path(path).name != newest.name
    assert len(said.json["reasons"]) == 6
    assert row["error"]


def test_status_is_true_when_the_daemon_is_dead(call: Call, trap: bench.Trap) -> None:
    trap.put()
    trap.ingest()
    said = call("status", "--json")
    assert (said.code, said.json["verdict"]) == (2, "failing")
    assert said.json["daemon"] == {"running": False}
    assert said.json["ledger"]["pending"] == 1
    assert "the daemon is not running; start it" in said.json["reasons"][0]


def fail_at_the_stick(trap: bench.Trap, trouble: Exception) -> bench.Memory:
    """An image is pending there, and the first turn ended so."""
    memory = bench.Memory("stick")
    memory.deaf = trouble
    trap.put()
    trap.ingest()
    trap.deliver(memory)
    return memory


def test_status_warns_of_a_destination_out_of_reach_and_says_when_it_tries_again(
    call: Call, trap: bench.Trap, running: None
) -> None:
    fail_at_the_stick(trap, Unreachable("the stick is not there"))
    said = call("status", "--json")
    assert (said.code, said.json["verdict"]) == (1, "warning")
    assert said.json["reasons"] == ["stick is unreachable: the stick is not there"]
    stick = said.json["destinations"]["stick"]
    assert stick["last_error"] == "the stick is not there"
    assert said.json["at"] <= stick["next_attempt"]
    assert "1 pending; nothing delivered yet; next attempt 20:" in call("status").out


def test_a_destination_that_does_not_let_the_trap_in_is_a_failure_from_the_second_time_on(
    call: Call, trap: bench.Trap, running: None
) -> None:
    memory = fail_at_the_stick(trap, Unauthorised("the server rejects the login (401); look at username"))
    assert call("status", "--json").json["verdict"] == "warning"  # it may be the server's mistake
    trap.deliver(memory)
    said = call("status", "--json")
    assert (said.code, said.json["verdict"]) == (2, "failing")
    (reason,) = said.json["reasons"]
    assert reason.startswith("stick does not let this trap in")
    assert reason.endswith("the server rejects the login (401); look at username")
    memory.deaf = None
    trap.deliver(memory)
    assert call("status", "--json").json["verdict"] == "ok"


def test_status_warns_of_a_clock_a_damaged_file_and_an_image_that_somebody_took(
    call: Call, trap: bench.Trap, running: None
) -> None:
    trap.time.is_trusted = False
    trap.settle = 0
    drawings.put(trap.storage.spool, b"no jpeg", "bad.jpg")
    path = trap.put()
    trap.ingest()
    (trap.storage.spool / path).unlink()
    trap.ingest()
    assert "1 pending image not on the card: the destinations are asked" in call("status").out
    bring_home(trap)
    said = call("status", "--json")
    assert said.code == 1
    assert [reason.partition(":")[0] for reason in said.json["reasons"]] == [
        "the clock is not synchronised",
        "1 damaged file in quarantine; see",
        "1 image left the card before being delivered",
        "stick is not proven yet",
    ]
    assert said.json["ledger"] == {
        "captured": 2,
        "delivered": 0,
        "pending": 0,
        "quarantined": 1,
        "dropped": 1,
        "lost": 0,
    }
    assert call("acknowledge").out == "1 acknowledged\n"
    assert "before being delivered" not in call("status").out


@pytest.fixture
def unsure(trap: bench.Trap) -> None:
    """One image of a boot that ended before its clock was set, and one of this boot, which is not set either."""
    trap.time.is_trusted = False
    for second in range(2):
        trap.catalog.times.note_boot()
        wall = drawings.TAKEN.timestamp() + second
        seen = Evidence(trap.time.boot_id(), trap.time.monotonic(), wall, trusted=False)
        picture = drawings.trap(seed=second, taken=utc(wall), evidence=seen)
        drawings.put(trap.storage.spool, picture, f"{drawings.DEVICE}.2026-06-21_20-19-{15 + second}.jpg")
        trap.ingest()
        trap.restart(reboot=not second)
    trap.catalog.times.give_up()


def test_status_says_of_held_images_what_there_is_to_do(
    call: Call, trap: bench.Trap, unsure: None, running: None
) -> None:
    bring_home(trap)
    said = call("status", "--json")
    assert said.code == 1
    assert said.json["clock"] == {"trusted": False, "held": 1, "unsure": 1}
    assert said.json["ledger"]["pending"] == 2
    waiting, unsure_, _stick = said.json["reasons"]
    assert waiting == "the clock is not synchronised: images are held until it is (1 now)"
    assert unsure_.startswith("1 image held, taken before the clock was set and never to be corrected: ")
    assert 'trap.uncertain_times = "deliver"' in unsure_
    assert 'trap.clock = "trusted"' in unsure_
    assert "not synchronised; 2 images held" in call("status").out


def test_a_clock_that_is_believed_and_cannot_be_right_is_told(
    call: Call, trap: bench.Trap, running: None
) -> None:
    trap.time.step_wall(drawings.TAKEN.replace(year=2018).timestamp() - trap.time.wall())
    (text,) = [one for one in call("status", "--json").json["reasons"] if "clock" in one]
    assert text.startswith("the clock says 2018-06-21T20:19:15Z, which cannot be")
    assert 'write trap.clock = "auto"' in text
    (finding,) = [one for one in call("doctor", "--json").json if one["subject"] == "clock"]
    assert (finding["verdict"], finding["text"]) == ("warning", text)


def test_the_doctor_says_of_held_images_what_there_is_to_do(
    call: Call, trap: bench.Trap, unsure: None, running: None
) -> None:
    findings = {finding["subject"]: finding for finding in call("doctor", "--json").json}
    assert "images are held until the network sets it" in findings["clock"]["text"]
    assert 'trap.clock = "trusted"' in findings["clock"]["text"]
    trap.time.is_trusted = True
    findings = {finding["subject"]: finding for finding in call("doctor", "--json").json}
    assert (findings["clock"]["verdict"], findings["catalog"]["verdict"]) == ("warning", "ok")
    assert (
        "1 image held, taken before the clock was set and never to be corrected" in findings["clock"]["text"]
    )
    assert 'trap.uncertain_times = "deliver"' in findings["clock"]["text"]


def test_clock_shows_who_vouches_for_it_the_boots_and_the_images(
    call: Call, trap: bench.Trap, unsure: None
) -> None:
    said = call("clock").out
    assert "not synchronised" in said
    assert "1 held, 1 unsure" in said
    assert "unknown" in said
    trap.time.is_trusted = True
    trap.catalog.times.note_boot()
    facts = call("clock", "--json").json
    assert (facts["trusted"], facts["trusted_by"]) == (True, "the test")
    assert facts["images"] == {"held": 1, "confirmed": 0, "corrected": 0, "unsure": 1, "released": 0}
    first, second = facts["boots"]
    assert (first["offset_s"], first["is_this"], second["is_this"]) == (None, False, True)
    assert first["not_after"] == second["began"]
    assert second["offset_s"] == pytest.approx(trap.time.wall() - trap.time.monotonic(), abs=0.001)
    said = call("clock").out
    assert "synchronised by the test" in said
    began = f"before {datetime.fromisoformat(second['began']).astimezone():%Y-%m-%d %H:%M:%S}"
    assert began in said
    assert f"held, taken {began}" in call("images", "--held").out
    assert "held until the clock is set" in call("images", "--held").out


def test_status_fails_when_the_card_is_full(call: Call, folder: Path, running: None) -> None:
    set_in(folder, 'min_free = "0 B"', 'min_free = "100000000 GB"')
    said = call("status", "--json")
    assert said.code == 2
    assert "the card is full" in said.json["reasons"][0]


def test_status_fails_when_no_picture_comes_though_the_trap_is_awake(
    call: Call, trap: bench.Trap, folder: Path, running: None
) -> None:
    set_in(folder, '"none"', '"simulated"')
    trap.put()
    bring_home(trap)
    assert call("status").code == 0
    trap.time.sleep(2 * 3600)
    said = call("status", "--json")
    assert said.code == 2
    assert "the newest image is 2 h old: does the camera work? see: trapsync doctor" in said.json["reasons"]


def test_status_without_a_catalog_says_that_the_daemon_never_ran(call: Call, folder: Path) -> None:
    set_in(folder, '"state"', '"other"')
    said = call("status", "--json")
    assert (said.code, said.json["ledger"]["captured"]) == (2, 0)
    assert said.json["reasons"] == [
        f"there is no catalog at {folder}/other/catalog.sqlite: the daemon never ran; {START}"
    ]
    assert not (folder / "other").exists()


def test_status_watches_until_it_is_interrupted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.trap, "time", SimpleNamespace(sleep=interrupt))
    said = call("status", "--watch")
    assert said.code == 130
    assert drawings.DEVICE in said.out


def test_colour_is_for_terminals_only(call: Call, folder: Path) -> None:
    assert "\x1b" not in call("status").out
    primary, secondary = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "trapsync", "status"], stdout=secondary, stderr=subprocess.PIPE, check=False
    )
    os.close(secondary)
    assert done.returncode == 2
    assert b"\x1b[31m\x1b[1mfailing" in os.read(primary, 10_000)
    os.close(primary)


# ── images, quarantine ───────────────────────────────────────────────────────────────────────────────


def test_images_are_listed_newest_first_with_their_deliveries(call: Call, trap: bench.Trap) -> None:
    first, second = trap.put(0), trap.put(1)
    bring_home(trap, first)
    trap.ingest(second)
    lines = [line.rstrip() for line in call("images").out.splitlines()]
    assert lines[0].split() == ["image", "size", "pixels", "state"]
    assert lines[1].startswith(f"{Path(second).name}  ")
    assert lines[1].endswith("160×120  pending")
    assert lines[2].endswith("160×120  delivered")
    assert max(map(len, lines)) <= 80


def test_an_image_that_stands_otherwise_at_a_destination_has_a_line_for_each(
    call: Call, trap: bench.Trap
) -> None:
    trap.put()
    trap.catalog.places.register([("stick", "directory", True), ("hub", "stickypi", True)])
    bring_home(trap)
    assert call("images").out.splitlines()[2:] == ["    hub: pending", "    stick: delivered"]


def test_as_json_what_nobody_knows_is_null_and_what_is_so_or_not_is_true_or_false(
    call: Call, trap: bench.Trap
) -> None:
    drawings.put(trap.storage.spool, drawings.trap(temperature=None, humidity=None, battery=None))
    trap.ingest()
    (row,) = call("images", "--json").json
    assert {key: row["metadata"][key] for key in ("temp", "hum", "bat")} == dict.fromkeys(
        ("temp", "hum", "bat")
    )
    assert [row[key] for key in ("conflict", "clock_trusted")] == [False, True]


@pytest.mark.parametrize("limit", ["0", "-5"])
def test_a_number_of_images_that_is_none_is_wrong_usage(call: Call, limit: str) -> None:
    assert call("images", "-n", limit).code == 2


def test_without_images_it_says_whether_there_are_none_yet_or_none_of_that_kind(call: Call) -> None:
    assert call("images").out == "no images yet\n"
    assert call("images", "--pending").out == "no image is pending\n"


def test_images_can_be_asked_for_by_state(call: Call, trap: bench.Trap) -> None:
    first, second = trap.put(0), trap.put(1)
    bring_home(trap, first)
    trap.ingest(second)

    def names(*options: str) -> list[str]:
        return [row["key"] for row in call("images", "--json", *options).json]

    assert names() == [Path(second).name, Path(first).name]
    assert names("--pending") == [Path(second).name]
    assert names("--delivered") == [Path(first).name]
    assert names("--refused") == names("--dropped") == names("--conflicts") == []
    assert names("--limit", "1") == [Path(second).name]
    assert call("images", "--refused").out == "no image is refused\n"


def test_a_damaged_file_is_listed_with_its_reason_and_can_be_put_back(call: Call, trap: bench.Trap) -> None:
    trap.settle = 0
    drawings.put(trap.storage.spool, b"no jpeg", "sub/bad.jpg")
    trap.ingest()
    (row,) = call("quarantine", "--json").json
    listed = call("quarantine").out
    assert row["reason"] in listed
    assert str(trap.storage.quarantine) in listed
    said = call("quarantine", "--release", str(row["id"]))
    assert said == Said(0, "sub/bad.jpg is back in the spool; the next scan examines it again\n", "")
    assert (trap.storage.spool / "sub/bad.jpg").read_bytes() == b"no jpeg"
    assert call("quarantine").out == "nothing is in quarantine\n"
    assert call("quarantine", "--release", "7").complaint.startswith("there is no number 7 in quarantine")


def test_a_file_is_not_put_back_over_another(call: Call, trap: bench.Trap) -> None:
    trap.settle = 0
    drawings.put(trap.storage.spool, b"no jpeg", "bad.jpg")
    trap.ingest()
    (row,) = call("quarantine", "--json").json
    drawings.put(trap.storage.spool, b"another", "bad.jpg")
    assert "is there already" in call("quarantine", "--release", str(row["id"])).complaint
    assert (trap.storage.spool / "bad.jpg").read_bytes() == b"another"
    assert len(call("quarantine", "--json").json) == 1
    (trap.storage.spool / "bad.jpg").unlink()  # "move it away first"
    assert call("quarantine", "--release", str(row["id"])).code == 0


# ── deliver, retry ───────────────────────────────────────────────────────────────────────────────────


def test_without_a_daemon_deliver_finds_examines_and_delivers_by_itself(
    call: Call, trap: bench.Trap, folder: Path
) -> None:
    paths = [trap.put(0), trap.put(1)]
    said = call("deliver", "stick")
    assert (said.code, said.out) == (0, "stick: 2 delivered, 0 refused, 0 postponed\n")
    for path in paths:
        assert (folder / "stick" / path).read_bytes() == (trap.storage.spool / path).read_bytes()
    assert call("deliver").out == "stick: 0 delivered, 0 refused, 0 postponed\n"


def test_a_stick_that_is_not_there_is_trouble_and_the_images_stay_pending(
    call: Call, trap: bench.Trap, folder: Path
) -> None:
    (folder / "stick" / MARK).unlink()
    trap.put()
    trap.ingest()
    said = call("deliver")
    assert said.code == 1
    assert said.out.startswith("stick: 0 delivered, 0 refused, 0 postponed; ")
    assert "stick has no mark: is its disk or stick connected?" in said.out
    assert trap.catalog.counts.ledger().pending == 1


@pytest.mark.parametrize("command", ["deliver", "retry"])
def test_an_unknown_destination_is_answered_with_those_that_there_are(
    call: Call, folder: Path, command: str
) -> None:
    said = call(command, "stik")
    assert said.code == 1
    assert said.complaint == f"{folder}/trap.toml: there is no destination 'stik'; there are: stick"


@pytest.fixture
def woken(trap: bench.Trap, running: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[bench.Memory]:
    """A daemon that delivers to this stick when it is woken, while the command does not really wait."""
    memory = bench.Memory("stick")
    monkeypatch.setattr(cli.deliveries, "time", SimpleNamespace(sleep=trap.time.sleep))

    def wake(*_: object) -> None:
        trap.time.sleep(1)
        trap.catalog.deliveries.end_waits()
        trap.deliver(memory)

    monkeypatch.setattr("trapsync.trap._command_line", lambda _process: b"trapsync run")
    before = signal.signal(signal.SIGUSR1, wake)
    yield memory
    signal.signal(signal.SIGUSR1, before)


def test_a_running_daemon_is_asked_to_deliver(call: Call, trap: bench.Trap, woken: bench.Memory) -> None:
    trap.put()
    trap.ingest()
    assert call("deliver") == Said(0, "everything is delivered or refused\n", "")
    assert len(woken.stored) == 1


def test_what_the_daemon_meets_is_told(call: Call, trap: bench.Trap, woken: bench.Memory) -> None:
    trap.put()
    trap.ingest()
    woken.deaf = Unreachable("no route to host")
    assert call("deliver") == Said(1, "stick: no route to host\n", "")
    woken.deaf = None
    assert call("deliver").code == 0  # the old error is not told again


@pytest.mark.parametrize("draw", [min, max])
def test_the_command_does_not_wait_for_what_must_wait(
    call: Call,
    trap: bench.Trap,
    woken: bench.Memory,
    monkeypatch: pytest.MonkeyPatch,
    draw: Callable[..., float],
) -> None:
    monkeypatch.setattr("trapsync.net.backoff.random.uniform", draw)
    path = trap.put()
    trap.ingest()
    woken.trouble[Path(path).name] = Failed("the disk of the server is full")
    assert call("deliver") == Said(1, "1 still pending; see: trapsync images --pending\n", "")


def test_retry_queues_again_what_was_refused(call: Call, trap: bench.Trap) -> None:
    paths = [trap.put(0), trap.put(1)]
    trap.ingest()
    for image in trap.catalog.deliveries.due("stick", "newest", 10):
        trap.catalog.deliveries.mark_refused("stick", image.id, "it is upside down")
    assert "stick: refused (it is upside down)" in call("images", "--refused").out
    assert call("retry", "--image", Path(paths[0]).name).out == "re-queued 1 refused delivery\n"
    assert call("retry", "stick").out == "re-queued 1 refused delivery\n"
    assert call("images", "--refused").out == "no image is refused\n"
    assert (
        call("retry", "--image", "nosuch.jpg").complaint
        == "there is no image 'nosuch.jpg'; see: trapsync images"
    )


def test_without_a_destination_there_is_nothing_to_deliver_to(call: Call, folder: Path) -> None:
    text = (folder / "trap.toml").read_text()
    (folder / "trap.toml").write_text(text[: text.index("[destinations")])
    said = call("deliver")
    assert (said.code, "there is no destination; add a [destinations.NAME]" in said.complaint) == (1, True)


# ── prune, verify ────────────────────────────────────────────────────────────────────────────────────


def test_prune_removes_only_what_is_safe_and_asks_first(
    call: Call, trap: bench.Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, pending = trap.put(0), trap.put(1)
    bring_home(trap, safe)
    trap.ingest(pending)
    trap.time.sleep(60)
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert call("prune").out == "nothing was removed\n"
    assert (trap.storage.spool / safe).exists()
    assert call("prune", "--yes").out.startswith("1 image removed; ")
    assert not (trap.storage.spool / safe).exists()
    assert (trap.storage.spool / pending).exists()
    assert call("status", "--json").json["ledger"]["captured"] == 2


def test_prune_knows_a_destination_that_the_daemon_does_not_know_yet(
    call: Call, folder: Path, trap: bench.Trap
) -> None:
    path = trap.put(0)
    bring_home(trap, path)
    (folder / "second").mkdir()
    (folder / "second" / MARK).touch()
    set_in(
        folder,
        "[destinations.stick]",
        '[destinations.second]\nkind = "directory"\npath = "second"\n[destinations.stick]',
    )
    assert call("prune", "--yes").out.startswith("0 images removed; ")
    assert (trap.storage.spool / path).exists()


def test_prune_has_nothing_to_do_while_there_is_room(call: Call, folder: Path) -> None:
    set_in(folder, '"10000 GB"', '"0 B"')
    assert call("prune").out.endswith("at least prune.keep_free: nothing to do\n")


def test_verify_agrees_with_a_card_and_a_stick_that_are_well(call: Call, trap: bench.Trap) -> None:
    trap.put()
    call("deliver")
    said = call("verify")
    assert said == Said(0, "card: 1 image compared, 0 wrong\nstick: 1 image compared, 0 wrong\n", "")


def test_verify_finds_changed_bytes_on_the_card_and_a_copy_that_is_gone(
    call: Call, trap: bench.Trap, folder: Path
) -> None:
    first, second = trap.put(0), trap.put(1)
    call("deliver")
    (trap.storage.spool / first).write_bytes(b"other bytes")
    (folder / "stick" / second).unlink()
    said = call("verify")
    assert said.code == 1
    assert f"  {first}: other bytes than were catalogued\n" in said.out
    assert f"  {Path(second).name}: it is not there any more\n" in said.out
    assert trap.catalog.counts.ledger().pending == 1
    assert "not there any more" in call("images", "--pending").out
    call("deliver")
    assert (folder / "stick" / second).exists()


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_doctor_has_a_finding_about_every_part_of_the_trap(call: Call, running: None) -> None:
    findings = {finding["subject"]: finding for finding in call("doctor", "--json").json}
    known = ("device", "camera", "sensors", "schedule", "spool", "state", "card", "card latency", "catalog")
    assert [subject for subject in findings if subject in known] == list(known)
    assert {"thumbnails", "clock", "daemon"} <= set(findings)
    assert findings["daemon"]["verdict"] == "ok"
    assert any(subject.startswith("stick") for subject in findings)
    assert all("\n" not in finding["text"] for finding in findings.values())


def test_the_doctors_exit_code_is_the_worst_finding(call: Call, folder: Path, running: None) -> None:
    said = call("doctor")
    assert said.code == 1, said.out  # camera.kind is none
    (folder / "stick" / MARK).unlink()
    said = call("doctor")
    assert said.code == 1  # a stick that is away may come again
    assert re.search(r"^warning +stick.* has no mark: is its disk", said.out, re.MULTILINE)


def test_the_doctor_goes_on_after_a_destination_and_a_time_zone_that_are_wrong(
    call: Call, folder: Path
) -> None:
    set_in(folder, 'path = "stick"', 'pth = "stick"')
    set_in(folder, "[trap]", '[trap]\ntimezone = "Mars"')
    said = call("doctor")
    assert said.code == 2
    assert "did you mean 'path'?" in said.out
    assert "there is no such time zone" in said.out


def test_the_doctor_does_not_make_what_is_not_there(call: Call, folder: Path) -> None:
    set_in(folder, '"state"', '"other"')
    call("doctor")
    assert not (folder / "other").exists()


# ── What is wrong ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", ["images", "quarantine"])
def test_without_a_catalog_lists_say_that_the_daemon_never_ran(call: Call, folder: Path, words: str) -> None:
    set_in(folder, '"state"', '"other"')
    said = call(words)
    assert said.code == 1
    assert said.complaint.endswith(f"other/catalog.sqlite: the daemon never ran; {START}")


@pytest.fixture
def corrupt(trap: bench.Trap, folder: Path) -> Path:
    """A trap with one image, whose catalog is noise."""
    trap.put()
    trap.ingest()
    trap.catalog.close()
    trap.storage.catalog.write_bytes(b"noise " * 5000)
    trap.catalog = Catalog.open(folder / "another.sqlite", trap.time)  # for the bench to close
    return trap.storage.catalog


def test_a_corrupt_catalog_is_one_line_that_says_what_to_do(call: Call, corrupt: Path) -> None:
    wanted = (
        f"{corrupt}: the catalog cannot be read: file is not a database; restarting the daemon rebuilds it"
    )
    assert wanted in call("images").complaint
    said = call("status", "--json")
    assert said.code == 2
    assert wanted in said.json["reasons"][0]
    assert corrupt.read_bytes().startswith(b"noise")


def test_a_corrupt_catalog_is_kept_aside_and_nothing_is_lost(call: Call, corrupt: Path, folder: Path) -> None:
    said = call("deliver")
    assert (said.code, said.out) == (0, "stick: 1 delivered, 0 refused, 0 postponed\n")
    assert "kept as catalog.damaged-1, and rebuilt from the spool: nothing is lost" in said.err
    assert (corrupt.parent / "catalog.damaged-1").read_bytes().startswith(b"noise")
    assert len(list((folder / "stick").rglob("*.jpg"))) == 1


def test_a_damaged_catalog_is_never_put_aside_under_a_running_daemon(
    call: Call, corrupt: Path, running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)  # the command is not the daemon
    said = call("retry")
    assert said.code == 1
    assert said.complaint.endswith("not a database; restarting the daemon rebuilds it from the spool")
    assert corrupt.read_bytes().startswith(b"noise")


# Root, who could become anybody, does nothing where it cannot be seen whose it is.
UNSEEN = (
    [
        (".", words, 2, "state: its owner cannot be found out .*: Permission denied")
        for words in ("status", "doctor")
    ]
    if os.geteuid() == 0
    else [
        (".", "status", 1, r"spool: no permission; run this as the daemon's user, or with sudo"),
        (".", "doctor", 2, r"spool: no permission to look there; run the doctor as the daemon's user"),
    ]
)


@pytest.mark.parametrize(
    ("closed", "words", "code", "says"),
    [
        ("trap.toml", "settings check", 1, r"trap.toml: no permission to read it; run this as"),
        ("state", "status", 2, r"catalog.sqlite: no permission; run this as the daemon's user"),
        ("state", "images", 1, r"catalog.sqlite: no permission; run this as the daemon's user"),
        ("state", "retry", 1, r"catalog.sqlite: no permission; run this as the daemon's user"),
        (
            "state",
            "deliver",
            1,
            r"lock: no permission; (let the user \w+ write there|run this as the daemon)",
        ),
        ("state", "run", 1, r"lock: no permission; (let the user \w+ write there|run this as the daemon)"),
        *UNSEEN,
    ],
)
def test_a_folder_without_permission_is_one_clear_line(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, closed: str, words: str, code: int, says: str
) -> None:
    config = tmp_path_factory.mktemp("etc") / "trap.toml" if closed == "." else folder / "trap.toml"
    config.write_text(CONFIG.replace('"s', f'"{folder}/s'))
    before = (folder / closed).stat().st_mode
    (folder / closed).chmod(0o000)
    try:
        done = without_root.run(["-m", "trapsync", "-c", str(config), *words.split()])
    finally:
        (folder / closed).chmod(before)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert re.search(says, done.stderr + done.stdout)
    assert done.stderr.count("\n") == (1 if code == 1 or "its owner" in says else 0)


@pytest.fixture
def full_card(folder: Path) -> Iterator[Path]:
    """The state folder on a real filesystem that is full to the last byte, but for the reserve; needs root."""
    card = folder / "card"
    card.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=10m,mode=755", "trapsync-test", str(card)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem: commands on a card that is full are not tested here")
    set_in(folder, '"state"', '"card"')
    try:
        (card / "reserve").write_bytes(b"\0" * 8_000_000)
        with suppress(OSError), (card / "fill").open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
        yield card
    finally:
        subprocess.run(["umount", "--lazy", str(card)], check=False, capture_output=True)


def test_on_a_card_that_is_full_the_reserve_lets_images_be_delivered(
    call: Call, trap: bench.Trap, folder: Path, full_card: Path
) -> None:
    path = trap.put()
    said = call("deliver")
    assert (said.code, said.out) == (0, "stick: 1 delivered, 0 refused, 0 postponed\n")
    assert (folder / "stick" / path).exists()
    assert not (full_card / "reserve").exists()


def test_without_a_reserve_a_full_card_is_one_line(call: Call, trap: bench.Trap, full_card: Path) -> None:
    with (full_card / "fill2").open("wb", buffering=0) as file, suppress(OSError):
        (full_card / "reserve").unlink()
        while file.write(b"\0" * 4096):
            pass
    path = trap.put()
    for command in ("deliver", "retry", "verify"):
        said = call(command)
        assert said.code == 1
        assert "the card is full; free some space" in said.complaint
    assert (trap.storage.spool / path).exists()


def test_a_port_in_use_is_one_line(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = call("hub", "--folder", "hub", "--port", port)
    assert said.code == 1
    assert said.err.splitlines()[-1] == f"trapsync: port {port} is in use; choose another with --port"


def test_a_port_that_cannot_be_is_wrong_usage(call: Call) -> None:
    assert call("hub", "--port", "99999").code == 2


def test_a_hub_that_others_can_reach_needs_a_password(call: Call, folder: Path) -> None:
    said = call("hub", "--folder", "hub", "--host", "0.0.0.0", "--port", "0")
    assert said.code == 1
    assert "first type: trapsync hub users add NAME --role admin --folder " in said.complaint
    said = call("hub", "--folder", "hub", "--password-file", str(folder))
    assert "cannot be read: is no plain file" in said.complaint


def test_without_libvips_images_are_delivered_and_the_doctor_says_what_to_install(
    trap: bench.Trap, folder: Path
) -> None:
    path = trap.put()
    hide = folder / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\nsys.modules['pyvips'] = sys.modules['_libvips'] = None\n"
    )
    environment = os.environ | {"PYTHONPATH": str(hide)}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trapsync", command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    delivered = run("deliver")
    assert (delivered.returncode, delivered.stdout) == (0, "stick: 1 delivered, 0 refused, 0 postponed\n")
    assert (folder / "stick" / path).exists()
    diagnosis = run("doctor")
    assert "disabled: pyvips is missing: run `scripts/install` once more" in diagnosis.stdout
    set_in(folder, '"none"', '"simulated"')
    diagnosis = run("doctor")
    assert diagnosis.returncode == 2
    assert re.search("failing +camera +the simulated camera draws with libvips: pyvips is", diagnosis.stdout)
    assert delivered.stderr + diagnosis.stderr == ""


def test_the_hub_without_its_extra_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "flask" or ".hub" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flask", None)
    assert (
        call("hub").complaint
        == "the hub needs flask: run `pipx inject trapsync apprise flask multipart prometheus-client segno waitress`"
    )


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m trapsync settings show | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
