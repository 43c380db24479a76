"""The config in force: that of the file, or, where this is invalid, the last one that ran, but never its accounts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import signed
from fake_time import FakeTime
from trapsync.errors import SettingsError
from trapsync.remote.in_force import InForce
from trapsync.runtime import config_check
from trapsync.runtime.config_check import ConfigWatch, load
from trapsync.settings import last_good
from trapsync.settings.layers import Files, Texts
from trapsync.settings.units import Duration

RAN_AT = 1_795_899_780.0  # 2026-11-28 21:03 UTC
MORE = """
[destinations.archive]
kind = "stickypi"
url = "https://archive.example.org"
username = "trap"
password_file = "archive.password"
[hub]
url = "https://hub.example.org"
username = "trap"
password_file = "hub.password"
[capture]
every = "7 min"
[prune]
enabled = true
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The config file of a trap that ran with it."""
    source = signed.prepare(tmp_path / "trap", more=MORE)
    source.write_text(source.read_text().replace("[trap]\n", '[trap]\ntimezone = "UTC"\n'))
    ran(source)
    return source


def ran(source: Path) -> None:
    """A daemon has started with the files as they are now."""
    config_check.note_running(Files(source), FakeTime(RAN_AT), lambda _name, _value: None)


def edit(source: Path, old: str, new: str) -> InForce:
    """Change the file; what is in force at the next start."""
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    return load(source)


def problem(found: InForce) -> str:
    """What is said of the config file."""
    return config_check.shown(found.files) or ""


BROKEN = {
    "not TOML": lambda text: text + "\nmoths = \n",
    "unknown table": lambda text: text + "\n[camra]\n",
    "no number": lambda text: text.replace('every = "7 min"', 'every = "seven"'),
    "out of range": lambda text: text.replace("[prune]", "[ingest]\nworkers = 100\n[prune]"),
    "unknown zone": lambda text: text.replace('timezone = "UTC"', 'timezone = "Europe/Zürich"'),
    "bad destination": lambda text: text.replace('kind = "directory"', 'kind = "direktory"'),
    "twice": lambda text: text + "\n[hub]\n",
    "not text": lambda text: text.encode("utf-16").decode("latin-1"),
    "empty key": lambda text: text.replace('keys = ["', 'keys = ["x'),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_start_with_an_invalid_file_goes_on_with_the_last_config_that_ran(source: Path, how: str) -> None:
    before = load(source).settings
    source.write_text(BROKEN[how](source.read_text()), encoding="latin-1")
    found = load(source)
    assert found.settings.capture.every == Duration(7 * 60)
    assert found.settings.storage == before.storage
    assert found.settings.destinations["archive"] == before.destinations["archive"]
    assert problem(found).startswith(f"the config file is invalid: {source}: ")
    assert "; running on the one of 2026-11-28 21:03" in problem(found)


def test_a_file_that_is_gone_is_as_an_invalid_one(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_good, "Storage", lambda: type("", (), {"state": source.parent / "state"}))
    source.unlink()
    assert "there is no such config file" in problem(load(source))


def test_the_override_file_is_kept_too_and_falls_back_alone(source: Path) -> None:
    override = source.with_name("override.toml")
    override.write_text('[capture]\nevery = "9 min"\n')
    ran(source)
    override.write_text('[capture]\nevery = "nine"\n')
    found = load(source)
    assert found.settings.capture.every == Duration(9 * 60)
    assert found.files.has_override
    assert f"{override}: capture.every" in problem(found)


def test_where_none_ran_the_error_is_one_line_as_it_was(tmp_path: Path) -> None:
    source = signed.prepare(tmp_path, more="[camra]\n")
    with pytest.raises(
        SettingsError, match=r"^\S+trapsync.toml: camra: there is no such setting; did you mean 'camera'\?$"
    ):
        load(source)


def test_what_can_be_read_and_not_run_is_in_force_for_commands_and_named_invalid(tmp_path: Path) -> None:
    source = signed.prepare(tmp_path, more='[destinations.x]\nkind = "y"\n')
    found = load(source)
    assert found.files.fallback
    assert found.files.fallback.since is None
    assert "destinations.x.kind" in problem(found)
    assert "running on" not in problem(found)


def test_the_config_of_another_file_is_none(source: Path) -> None:
    other = source.with_name("other.toml")
    other.write_text(source.read_text() + "[camra]\n")
    with pytest.raises(SettingsError, match="camra"):
        load(other)


DAMAGED: dict[str, Callable[[dict[str, Any]], str]] = {
    "cut off": lambda record: json.dumps(record)[:-20],
    "another key": lambda record: json.dumps(record | {"more": 1}),
    "of another type": lambda record: json.dumps(record | {"config": 5}),
    "a list": lambda record: json.dumps([record]),
    "half a surrogate": lambda record: json.dumps(record | {"config": "\ud800"}),
    "too large": lambda record: json.dumps(record) + " " * 10**6,
    "of another version": lambda record: json.dumps(record | {"config": record["config"] + "[of_then]\n"}),
    "no moment": lambda record: json.dumps(record | {"since": "yesterday"}),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_one_that_cannot_be_used_is_none_and_one_line_says_so(source: Path, how: str) -> None:
    file = last_good.path(source.parent / "state")
    file.write_text(DAMAGED[how](json.loads(file.read_text())))
    with pytest.raises(
        SettingsError, match=r"^[^\n]*camra: [^\n]*the last config that ran cannot be [^\n]*$"
    ):
        edit(source, "[camera]", "[camra]\n[camera]")


def test_what_runs_is_written_once_and_again_only_when_it_changed(source: Path) -> None:
    file = last_good.path(source.parent / "state")
    before = file.stat().st_ino
    ran(source)
    assert file.stat().st_ino == before
    edit(source, "7 min", "8 min")
    ran(source)
    assert json.loads(file.read_text())["config"] == source.read_text()


def test_a_start_on_the_last_config_does_not_keep_the_invalid_one(source: Path) -> None:
    told: list[object] = []
    found = edit(source, "[camera]", "[camra]\n[camera]")
    config_check.note_running(found.files, FakeTime(0.0), lambda _name, value: told.append(value))
    assert told == ["2026-11-28 21:03"]
    assert load(source).settings.capture.every == Duration(7 * 60)


# ── Keys and accounts ────────────────────────────────────────────────────────────────────────────────


def with_typo(source: Path, old: str, new: str) -> InForce:
    """What is in force after this edit, and a typing mistake elsewhere in the same file."""
    source.write_text(source.read_text() + "\n[camra]\n")
    return edit(source, old, new)


def test_a_key_that_the_file_does_not_name_any_more_is_trusted_no_more(source: Path) -> None:
    found = with_typo(source, str(signed.OWNER.public), str(signed.STRANGER.public))
    assert found.settings.remote.keys == (str(signed.STRANGER.public),)
    found = edit(source, f'keys = ["{signed.STRANGER.public}"]', "keys = []")
    assert not found.settings.remote.enabled
    assert found.settings.capture.every == Duration(7 * 60)


def test_accounts_and_destinations_are_those_of_the_file_as_far_as_it_can_be_read(source: Path) -> None:
    found = with_typo(source, "https://hub.", "https://new-hub.")
    assert found.settings.hub.url == "https://new-hub.example.org"
    found = edit(source, "[destinations.archive]", "[destinations.store]")
    assert set(found.settings.destinations) == {"stick", "store"}
    assert "without destinations.archive, which the file names otherwise" in problem(found)


def test_where_destinations_are_others_nothing_leaves_the_card(source: Path) -> None:
    assert with_typo(source, '"7 min"', '"8 min"').settings.prune.enabled
    assert not edit(source, "[destinations.archive]", "[destinations.store]").settings.prune.enabled


def test_pruning_that_the_file_switches_off_is_off(source: Path) -> None:
    assert not with_typo(source, "enabled = true\n\n", "enabled = false\n").settings.prune.enabled


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ('kind = "stickypi"\n', 'kind = "stickypi"\nevrey = "1 min"\n', {"stick", "archive"}),
        ('kind = "stickypi"\n', 'kind = "stickypi"\nevery = "often"\n', {"stick", "archive"}),
        ("https://archive.", "archive.", {"stick"}),
        (
            'username = "trap"\npassword_file = "archive',
            'usrname = "trap"\npassword_file = "archive',
            {"stick"},
        ),
        ('kind = "directory"', 'kind = "direktory"', {"archive"}),
    ],
)
def test_a_destination_with_the_mistake_in_it_is_used_if_its_account_is_the_same(
    source: Path, old: str, new: str, left: set[str]
) -> None:
    source.write_text(source.read_text().replace("https://hub.", "https://new-hub."))
    found = edit(source, old, new)
    assert set(found.settings.destinations) == left
    assert found.settings.hub.url in {"", "https://new-hub.example.org"}
    assert found.settings.capture.every == Duration(7 * 60)


def test_of_files_that_contradict_each_other_no_account_is_used(source: Path) -> None:
    text = source.read_text()
    source.write_text(
        text.replace('path = "stick"', 'path = "spool/stick"').replace("[hub]", "[hub]\nevery = 5")
    )
    found = load(source)
    assert "stick" not in found.settings.destinations
    source.write_text(text.replace("[destinations.stick]", "[destinations]\nx = 5\n[destinations.stik]"))
    assert set(load(source).settings.destinations) <= {"archive"}


# ── What is said while it runs ───────────────────────────────────────────────────────────────────────


def test_a_running_daemon_says_that_its_file_became_invalid_and_when_it_is_mended_no_more(
    source: Path,
) -> None:
    watch = ConfigWatch(load(source).files)
    assert watch.problem() is None
    text = source.read_text()
    source.write_text(f"{text}\n[camra]\n")
    said = watch.problem()
    assert said is not None
    assert "camra" in said
    assert "running on the one of 2026-11-28 21:03" in said
    source.write_text(text)
    assert watch.problem() is None


def test_the_folders_that_a_file_may_mean_are_found_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    source = tmp_path / "trapsync.toml"
    source.write_bytes(
        b'[storage\nstate = "/one/state\n  storage.state = \'/two\'\n#state = "/no"\n\xff\nstate = "near"'
    )
    found = last_good.folders(source)
    assert found == [Path("/one/state"), Path("/two"), tmp_path / "near", Path("/var/lib/trapsync/state")]


def test_texts_are_what_stands_in_the_files(source: Path) -> None:
    assert Texts.read(source) == Texts(source.read_text(), None)
