"""What the operator's computer believes: its own numbers, documents of its own key, and nothing that a heartbeat says."""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import signed
from hub_server import RunningHub
from operator_desk import Say, hub_of, typing
from statuses import status
from trapsync.errors import StorageError
from trapsync.fleet.connection import FolderConnection
from trapsync.fleet.operator_key import OperatorKey, keep_secret
from trapsync.remote import document, heartbeat
from trapsync.remote.record import FARTHEST, LARGEST_NUMBER

VALLEY, RIDGE = "0a5bb6f4", "0a5bb6f5"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop with two keys, settings to push, and a folder to push to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAPSYNC_OWNER", str(tmp_path / "owner.toml"))
    for name in ("key", "second"):
        keep_secret(tmp_path / name, f"{document.new_key()}\n")
    (tmp_path / "one.toml").write_text('[capture]\nevery = "5 min"\n')
    (tmp_path / "www").mkdir()
    return tmp_path


@pytest.fixture
def say(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    call = typing(monkeypatch, capfd)
    return lambda words, *more: call(*words.split(), *more)


@pytest.fixture
def hub(desk: Path) -> Iterator[RunningHub]:
    with hub_of(desk) as running:
        yield running


def beat(device: str, name: str, **remote: Any) -> bytes:
    facts = {"state": "committed", "groups": ["valley"], "values": {}} | remote
    return heartbeat.compose(status(device=device, name=name, remote=facts), 900.0)


def of_key(desk: Path) -> str:
    """The slot of what the key says about keys."""
    return f"key-{OperatorKey.read(desk / 'key').id}.keys"


def signed_number(desk: Path, slot: str) -> int:
    """The number of what lies there, as a trap reads it that trusts the key."""
    data = FolderConnection(desk / "www").documents()[slot]
    return document.parse(document.verify(data, [OperatorKey.read(desk / "key").private.public])).version


PUSH = "push one.toml --to all --key key --folder www --yes"


# ── S2 ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [41, 2**53 - 1, 2**53])
@pytest.mark.parametrize("epoch", [0, 2**53])
def test_no_heartbeat_raises_the_operators_number(
    say: Say, desk: Path, hub: RunningHub, version: int, epoch: int
) -> None:
    mine = OperatorKey.read(desk / "key").id
    content = json.loads(beat("deadbeef", "x", version=version, key=mine))
    content["remote"]["epoch"] = epoch
    content["pushed"] = {"epoch": epoch, "version": version}
    hub.hub.fleet.take("deadbeef", json.dumps(content).encode())
    code, out, err = say("push one.toml --to all --yes")
    assert (code, "published number 1 for all traps" in out) == (0, True)
    assert f"x says that it has had number {version} of this key" in err
    held = hub.hub.fleet.held("all.settings")
    assert held
    assert document.parse(held.data.partition(b"\n")[2]).version == 1


@pytest.mark.parametrize("version", [41, 2**53 - 1, 2**53])
@pytest.mark.parametrize("how", ["unsigned", "of another key", "elsewhere"])
def test_no_document_that_this_key_has_not_signed_for_that_place_raises_the_number(
    say: Say, desk: Path, version: int, how: str
) -> None:
    one = replace(signed.DOCUMENT, to="all", version=version, settings={"capture": {"every": "9 min"}})
    body = document.compose(one)
    key = OperatorKey.read(desk / "key").private
    data = {
        "unsigned": b"trapsync-signed-1 %s %s\n" % (key.public.id.encode(), b"0" * 128) + body,
        "of another key": document.sign(body, signed.STRANGER),
        "elsewhere": document.sign(document.compose(replace(one, to="group:valley")), key),
    }[how]
    (desk / "www/pushed").mkdir()
    (desk / "www/pushed/all.settings").write_bytes(data)
    code, out, _ = say(PUSH)
    assert (code, signed_number(desk, "all.settings")) == (0, 1)
    assert "capture.every: the trap's own → 5 min" in out
    assert "this key has not signed" in out


def test_the_number_is_kept_in_the_keys_file_whatever_becomes_of_what_was_published(
    say: Say, desk: Path
) -> None:
    for number in (1, 2):
        assert say(PUSH)[0] == 0
        (desk / "www/pushed/all.settings").unlink()
        assert OperatorKey.read(desk / "key").last == number
    assert stat.S_IMODE((desk / "key").stat().st_mode) == 0o600
    assert (desk / "key").read_text().splitlines()[1] == "last-number:2"


def test_a_copy_of_the_key_goes_on_above_what_it_has_signed_elsewhere(say: Say, desk: Path) -> None:
    copy = (desk / "key").read_text()
    for _ in range(3):
        say(PUSH)
    (desk / "key").write_text(copy)
    assert say(PUSH)[1].endswith("published number 4 for all traps at www; see: trapsync fleet\n")


def test_requests_and_settings_share_one_number(say: Say, desk: Path) -> None:
    assert say(PUSH)[0] == 0
    asked = "resend --from 2026-06-01 --until 2026-06-02 --to all --key key --folder www --yes"
    assert "published number 2 for all traps" in say(asked)[1]
    assert "published number 3 for all traps" in say(PUSH)[1]


def test_numbers_are_skipped_within_bounds_and_farther_in_a_document_of_its_own(say: Say, desk: Path) -> None:
    assert "published number 41 " in say(f"{PUSH} --above 40")[1]
    code, _, err = say(f"{PUSH} --above {41 + FARTHEST}")
    assert (code, err.count("\n"), "see: trapsync keys jump --help" in err) == (1, 1, True)
    far = 10**12
    where = "--key key --folder www --yes"
    assert f"published number {far + 1} " in say(f"keys jump --above {far} {where}")[1]
    assert f"published number {far + 2} " in say(PUSH)[1]
    assert signed_number(desk, of_key(desk)) == far + 1
    code, _, err = say(f"keys jump --above {LARGEST_NUMBER} {where}")
    assert (code, "beyond all bounds: make another key" in err) == (1, True)


@pytest.mark.parametrize("line", ["last-number:x", "last-number:-1", "7", f"last-number:{2**60}"])
def test_a_key_file_with_another_second_line_is_an_error_that_says_so(
    say: Say, desk: Path, line: str
) -> None:
    (desk / "key").write_text((desk / "key").read_text() + line)
    code, out, err = say(PUSH)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "last-number" in err


def test_where_the_number_cannot_be_kept_nothing_is_published(
    say: Say, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("trapsync.fleet.operator_key.keep_secret", full)
    code, _, err = say(PUSH)
    assert (code, err) == (1, "trapsync: the disk is full\n")
    assert not (desk / "www/pushed").exists()


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_revoked_with_the_other_by_its_id_or_as_the_config_has_it(say: Say, desk: Path) -> None:
    stolen, other = OperatorKey.read(desk / "second"), document.new_key()
    where = "--key key --folder www --yes"
    assert say(f"keys revoke {stolen.id} {where}")[0] == 0
    assert say(f"keys revoke {other.public} {where}")[0] == 0
    data = FolderConnection(desk / "www").documents()[of_key(desk)]
    found = document.parse(document.verify(data, [OperatorKey.read(desk / "key").private.public]))
    assert found.revoke == (stolen.id, other.public.id), "one slot holds all of them"
    assert (found.expires - found.issued).days > 3000
    code, _, err = say(f"keys revoke {OperatorKey.read(desk / 'key').id} {where}")
    assert (code, "a key cannot revoke itself; sign with the other one" in err) == (1, True)
    assert say(f"keys revoke nonsense {where}")[0] == 1


def test_a_key_is_shown_with_its_last_number(say: Say, desk: Path) -> None:
    say(PUSH)
    key = OperatorKey.read(desk / "key")
    assert say("keys show key")[1].splitlines() == [
        f"public  {key.private.public}",
        f"id      {key.id}",
        "last    1",
    ]


# ── B5: for whom ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("to", ["group:nosuch", "device:0a5bb6ff"])
@pytest.mark.parametrize("command", ["push one.toml", "resend --from 2026-06-01 --until 2026-06-02"])
def test_an_address_that_no_trap_has_is_refused(
    say: Say, desk: Path, hub: RunningHub, to: str, command: str
) -> None:
    hub.hub.fleet.take(VALLEY, beat(VALLEY, "valley-1"))
    code, out, err = say(f"{command} --to {to} --yes")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"trapsync: {to}: no trap at {hub.url} has that" in err
    assert ("valley" if "group" in to else VALLEY) in err
    assert "--anyway" in err
    assert say(f"{command} --to {to} --yes --anyway")[0] == 0


def test_a_push_says_which_traps_it_reaches_and_what_they_do_now(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    hub.hub.fleet.take(VALLEY, beat(VALLEY, "valley-1", values={"capture.every": "20 s"}))
    hub.hub.fleet.take(RIDGE, beat(RIDGE, "valley-2"))
    hub.hub.fleet.take("00000001", beat("00000001", "hill", groups=["hill"]))
    code, out, _ = say("push one.toml --to group:valley --yes")
    lines = out.splitlines()
    assert (code, lines[:2]) == (0, ["  capture.every: the trap's own → 5 min", "reaches 2 traps"])
    assert lines[2].split() == ["trap", "device", "heard", "capture.every"]
    assert re.fullmatch(rf"valley-1 +{VALLEY} +\d+ s +20 s *", lines[3])
    assert re.fullmatch(rf"valley-2 +{RIDGE} +\d+ s +default \(20 min\) *", lines[4])
    assert lines[5].startswith("published number 1 for group valley at ")
    assert say("push one.toml --to device:00000001 --yes")[1].splitlines()[1] == "reaches 1 trap"


def test_traps_of_an_older_program_may_have_a_group_that_they_do_not_say(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    content = json.loads(beat(VALLEY, "valley-1", version=3))
    del content["remote"]["groups"], content["remote"]["values"]
    hub.hub.fleet.take(VALLEY, json.dumps(content).encode())
    code, out, _ = say("push one.toml --to group:valley --yes")
    assert (code, out.splitlines()[1]) == (
        0,
        "reaches no trap that was heard; 1 more may have that group, and do not say so",
    )


# ── B6: what is published ────────────────────────────────────────────────────────────────────────────


def test_what_is_published_and_what_was_is_listed_with_numbers_and_notes(say: Say, desk: Path) -> None:
    say(PUSH, "--note", "spring")
    say(PUSH, "--note", "summer \x1b[31m")
    say("resend --from 2026-06-01 --until 2026-06-02 --to group:valley --key key --folder www --yes")
    (desk / "www/pushed/device-0a5bb6f4.settings").write_bytes(
        document.sign(document.compose(replace(signed.DOCUMENT, note="not mine")), signed.STRANGER)
    )
    code, out, _ = say("push --list --key key --folder www")
    published, _, history = out.partition("\n\n")
    rows = [line.split() for line in published.splitlines()]
    assert (code, rows[0]) == (0, ["for", "kind", "number", "issued", "signed", "by", "note"])
    assert [row[:3] for row in rows[1:]] == [
        ["all", "settings", "2"],
        ["device:0a5bb6f4", "settings", "1"],
        ["group:valley", "resend", "3"],
    ]
    assert f"{signed.STRANGER.public.id}, not verified" in published
    assert [line.split()[1] for line in history.splitlines()[2:]] == ["3", "2", "1"]
    assert "spring" in history
    assert "\x1b" not in out
    assert say("push --list --folder www")[0] == 0


@pytest.mark.parametrize("content", ["{", "[1]\n", "\0\n", '{"version": "' + "9" * 300_000 + '"}\n'])
def test_a_history_that_is_damaged_costs_its_damaged_lines_only(say: Say, desk: Path, content: str) -> None:
    say(PUSH)
    with (desk / "key.history").open("a") as file:
        file.write(content)
    code, out, err = say("push --list --key key --folder www")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split()[1] == "1"


def test_it_is_known_whatever_is_missing_in_the_command(say: Say, desk: Path) -> None:
    assert "there is no file with settings" in say("push --to all --key key --folder www")[2]
    assert "say for whom" in say("push one.toml --key key --folder www")[2]
