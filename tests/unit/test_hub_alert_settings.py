"""The settings of the hub's alerts, their files of secrets, and the test message."""

from datetime import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import receivers
from trapsync.cli import cli
from trapsync.errors import SettingsError
from trapsync.settings import alert_addresses
from trapsync.settings import hub as hub_settings
from trapsync.settings.alerts import Alerts


def say(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


def secret(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("at", "quiet", "is_quiet"),
    [
        ("23:00", "22:00 - 07:00", True),
        ("07:00", "22:00-07:00", False),
        ("06:59", "22:00-07:00", True),
        ("21:59", "22:00-07:00", False),
        ("13:00", "12:00-14:00", True),
        ("14:00", "12:00-14:00", False),
        ("03:00", "", False),
        ("03:00", "05:00-05:00", True),
    ],
)
def test_quiet_hours_go_over_midnight(at: str, quiet: str, is_quiet: bool) -> None:
    assert Alerts(quiet=quiet).is_quiet(time.fromisoformat(at)) == is_quiet


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('quiet = "at night"', "alerts.quiet: 'at night' is no span of the day such as \"22:00 - 07:00\""),
        ('quiet = "25:00-07:00"', "is no span of the day"),
        ('digest = "8"', "alerts.digest: '8' is no time of day such as \"08:00\""),
        ("most_an_hour = 0", "alerts.most_an_hour: 0 is not between 1 and 60"),
        ("battery = 200", "alerts.battery: 200 is not between 0 and 100"),
        ('rules = ["fire"]', "alerts.rules"),
        ('adresses_file = "x"', "did you mean 'addresses_file'?"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f"[alerts]\n{line}\n")
    with pytest.raises(SettingsError) as caught:
        hub_settings.load(file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zone_that_there_is_not_keeps_the_check_from_passing(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(f'[hub]\nfolder = "{tmp_path}/hub"\n[alerts]\ntimezone = "Europe/Nowhere"\n')
    found = say("hub", "check", "--config", file)
    assert "alerts.timezone = 'Europe/Nowhere': there is no such time zone" in found.output


def test_addresses_stand_one_a_line_and_each_once(tmp_path: Path) -> None:
    file = secret(
        tmp_path / "a", "# mine", "", "ntfys://ntfy.sh/traps", " json://x ", "ntfys://ntfy.sh/traps"
    )
    assert [str(one) for one in alert_addresses.read(file)] == ["line 3 (ntfys)", "line 4 (json)"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["json://ok", "sesame without a scheme"], "line 2 is no address such as"),
        (["mailtos://me:sesame@x y"], "line 1 is no address such as"),
        (["# sesame"], "has no address in it; write one a line"),
        ([f"json://sesame/{number}" for number in range(21)], "has 21 addresses; 20 are the most"),
    ],
)
def test_a_line_that_is_no_address_is_named_and_not_shown(
    tmp_path: Path, lines: list[str], says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        alert_addresses.read(secret(tmp_path / "a", *lines))
    assert says in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused_with_the_command_that_closes_it(tmp_path: Path) -> None:
    file = secret(tmp_path / "a", "json://x")
    file.chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        alert_addresses.read(file)
    assert str(caught.value).endswith(f"chmod 600 {file}")


def test_a_ping_is_an_address_of_the_web(tmp_path: Path) -> None:
    assert alert_addresses.read_ping(secret(tmp_path / "a", "https://hc.example.org/x?y")).endswith("x?y")
    for line in ("ntfy://sesame", "https://[sesame", "https://example.org:sesame/"):
        with pytest.raises(SettingsError) as caught:
            alert_addresses.read_ping(secret(tmp_path / "a", line))
        assert "sesame" not in str(caught.value)


def test_a_test_message_says_of_each_address_how_it_went(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    with receivers.receiving() as receiver:
        secret(tmp_path / "addresses", receiver.address("ok"), receiver.address("refuses"))
        secret(tmp_path / "ping", receiver.address("ping/sesame", "http").replace("user:sesame@", ""))
        config.write_text(
            f'[hub]\nfolder = "{tmp_path}/hub"\n[alerts]\naddresses_file = "addresses"\nping_file = "ping"\n'
        )
        found = say("hub", "notify", "--test", "--config", config)
    lines = found.output.splitlines()
    assert lines[0] == "line 1 (json): ok"
    assert lines[1].startswith("line 2 (json): the service did not take it: ")
    assert lines[2:] == ["ping: ok"]
    assert (found.return_value, receiver.pings) == (1, ["/ping/sesame"])
    assert receiver.bodies("ok")[0]["title"] == "trapsync: a test message"
    assert "sesame" not in found.output


def test_a_test_message_without_addresses_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").touch()
    found = say("hub", "notify", "--test", "--config", tmp_path / "hub.toml")
    assert "names no addresses_file and no ping_file" in str(found.exception)
