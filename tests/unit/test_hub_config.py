"""The hub's config file, as the command line takes it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import processes
from trapsync.cli import cli, hub_config
from trapsync.cli.hub import hub as command
from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings import hub as hub_settings
from trapsync.settings.hub import Hub, HubSettings
from trapsync.settings.units import Keeping


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hub.toml"


def say(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


def complaint(file: Path, text: str) -> str:
    file.write_text(text)
    error = say("hub", "check", "--config", file).exception
    assert isinstance(error, SettingsError), error
    assert "\n" not in str(error)
    return str(error).removeprefix(f"{file}: ")


def defaults() -> dict[str, Any]:
    """The options of `trapsync hub` with what each is where nothing is given."""
    found = command.make_context("hub", [], resilient_parsing=True).params
    return {name: value for name, value in found.items() if name != "config"}


def test_the_options_of_the_command_have_the_names_and_defaults_of_the_file() -> None:
    assert defaults().keys() == set(Hub.__struct_fields__) - {"keep"}
    plain = hub_config.settings(None, defaults(), ()).hub
    assert config_file.changed(plain, folder=Hub().folder) == Hub()


def test_what_is_given_on_the_command_line_counts_more_than_the_file(file: Path) -> None:
    file.write_text('[hub]\nport = 1\nhost = "::1"\nfolder = "moths"\n')
    options = {**defaults(), "port": 2}
    found = hub_config.settings(file, options, {"port"}).hub
    assert (found.port, found.host, found.folder) == (2, "::1", file.parent / "moths")
    assert hub_config.settings(None, options, {"port"}).hub.folder == Path.cwd() / "trapsync-hub"


def test_a_hub_runs_as_its_file_says(tmp_path: Path, file: Path) -> None:
    file.write_text('[hub]\nport = 0\nfolder = "moths"\nmin_free = "0 B"\n')
    words = [sys.executable, "-m", "trapsync", "hub", "--config", str(file)]
    with processes.started(words, stderr=subprocess.PIPE, text=True, cwd="/", env=os.environ) as program:
        assert program.stderr
        assert "made a user" in program.stderr.readline()
        assert re.search(r"the hub listens on http://127\.0\.0\.1:\d+ ", program.stderr.readline())
        program.terminate()
        assert program.wait(10) == 0
    assert (tmp_path / "moths" / "hub.sqlite").is_file()


WRONG = {
    "[hub]\nprot = 1\n": "hub.prot: there is no such setting; did you mean 'port'?",
    "[hub.keep]\nimage = '1 day'\n": "hub.keep.image: there is no such setting; did you mean 'images'?",
    "[hub.keep]\nimages = '20 min'\n": "hub.keep.images: 20 min is not between 30 days and for ever",
    "[hub.keep]\nimages = 400\n": "hub.keep.images = 400: must be a quantity with a unit",
    "[hub]\nport = '80'\n": "hub.port = '80': must be a whole number",
    "[hub]\nport = 70000\n": "hub.port: 70000 is not between 0 and 65535",
    "[hub]\nbehind_proxy = 'caddy'\n": "hub.behind_proxy: 'caddy' is no IP address; give the web server's",
    "[hub]\nurl = 'hub.example.org'\n": "hub.url: 'hub.example.org': give scheme and name only",
    "[hub]\nurl = 'https://mia:secret@hub'\n": "hub.url: 'https://mia:secret@hub': give scheme and name only",
    "[hub]\nurl = 'https://hub:port'\n": "hub.url: 'https://hub:port': give scheme and name only",
    "[hub]\nurl = 'https://[hub'\n": "hub.url: 'https://[hub': give scheme and name only",
    "[hub]\nurl = 'https://hub?trap=1'\n": "hub.url: 'https://hub?trap=1': give scheme and name only",
    "[trap]\n": "trap: there is no such setting",
    "hub": "is not TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_in_the_file_is_one_line_with_its_key(file: Path, text: str) -> None:
    assert complaint(file, text).startswith(WRONG[text])


def test_a_mistake_on_the_command_line_names_its_option(tmp_path: Path) -> None:
    error = say("hub", "--folder", tmp_path / "hub", "--behind-proxy", "caddy").exception
    assert str(error) == "--behind-proxy: 'caddy' is no IP address; give the web server's, as 127.0.0.1"
    error = say("hub", "--folder", tmp_path / "hub", "--url", "caddy").exception
    assert str(error) == "--url: 'caddy': give scheme and name only, as https://hub.example.org"
    assert not (tmp_path / "hub").exists()


def test_a_file_that_is_not_there_is_one_line_that_says_how_to_begin_one(file: Path) -> None:
    error = str(say("hub", "--config", file).exception)
    assert error.startswith(
        f"{file}: there is no such config file; to begin one: trapsync hub example > hub.toml"
    )
    assert "name the file: --config hub.toml" in str(say("hub", "check").exception)
    file.write_text(say("hub", "example").output)
    assert hub_settings.load(file) == HubSettings()


def test_the_check_tells_everything_that_keeps_the_hub_from_starting(file: Path) -> None:
    file.write_text('[hub]\nfolder = "spool/hub"\npassword_file = "none"\nowner_keys = ["key"]\n')
    (file.parent / "spool" / ".quarantine").mkdir(parents=True)
    said = say("hub", "check", "--config", file)
    assert said.return_value == 1
    first, *wrong = said.output.splitlines()
    assert first == f"{file}: the hub cannot start with it:"
    assert [line.split(":")[0] for line in wrong] == [
        "- hub.owner_keys",
        f"- {file.parent / 'spool' / 'hub'}",
        "- hub.password_file",
    ]


def test_the_check_of_a_good_file_says_so_and_makes_nothing(file: Path) -> None:
    file.write_text('[hub]\nfolder = "moths"\n')
    said = say("hub", "check", "--config", file)
    assert (said.return_value, said.output) == (0, f"{file}: valid\n")
    assert [path.name for path in file.parent.iterdir()] == ["hub.toml"]


def test_how_long_things_are_kept_is_written_as_it_is_read() -> None:
    text = config_file.to_text(HubSettings(hub=Hub()))
    assert 'images = "for ever"' in text
    assert config_file.decode(config_file.tables(text, "text"), HubSettings, "text") == HubSettings()
    assert Keeping.parse("400 days") == Keeping(400 * 86400)
