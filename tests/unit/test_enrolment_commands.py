"""What an operator types about a hub: log in, make codes, see the traps, lock one out; and the accounts on its machine."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import hub_server
from hub_server import PASSWORD, RunningHub
from operator_desk import Say, typing
from trapsync.fleet.operator_key import OperatorKey
from trapsync.net.invitation import Code, Terms, hash_of

DEVICE, OTHER = "0a5bb6f4", "deadbeef"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer on which nothing of trapsync stands yet, but a password in a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAPSYNC_OWNER", str(tmp_path / "config" / "owner.toml"))
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    return tmp_path


@pytest.fixture
def say(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    return typing(monkeypatch, capfd)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub") as running:
        running.auth("owner")
        yield running


def logged_in(say: Say, hub: RunningHub) -> None:
    assert say("hub", "login", hub.url, "--user", "owner", "--password-file", "password")[0] == 0
    assert say("keys", "new")[0] == 0


def code_in(out: str) -> Code:
    found = re.search(r"trapsync join (\S+)", out)
    assert found
    return Code.parse(found[1])


def joins(hub: RunningHub, code: Code, device: str, name: str = "") -> requests.Response:
    body = {"secret": code.secret, "fingerprint": code.fingerprint, "device": device, "name": name}
    body["token_sha256"] = hash_of(device)
    return requests.post(f"{hub.url}/join", json=body, timeout=30)


def test_a_login_is_tried_and_kept_and_a_new_key_signs_from_then_on(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    (desk / "wrong").write_text("wrong")
    (desk / "wrong").chmod(0o600)
    code, _, err = say("hub", "login", hub.url, "--user", "mia", "--password-file", "wrong")
    assert (code, "login rejected (401)" in err, (desk / "config").exists()) == (1, True, False)

    logged_in(say, hub)
    kept = desk / "config" / "owner.toml"
    assert tomllib.loads(kept.read_text()) == {
        "hub": hub.url,
        "username": "owner",
        "password_file": "hub.password",
        "key": "trapsync.key",
    }
    assert (kept.with_name("hub.password").stat().st_mode & 0o777) == 0o600
    kept.write_text(f"# mine\n{kept.read_text()}[broker]\nport = 1883\n")
    logged_in_again = say("hub", "login", hub.url, "--user", "owner", "--password-file", "password")
    assert logged_in_again[0] == 0
    assert (kept.read_text().startswith("# mine\n"), kept.read_text().count("hub =")) == (True, 1)
    assert say("fleet")[1] == "no trap has sent a heartbeat yet\n"
    assert say("keys", "new")[0] == 1, "a key is never overwritten"


def test_a_code_carries_the_fingerprint_of_the_keys_and_the_group(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    logged_in(say, hub)
    say("keys", "new", "--out", "second.key")
    second = str(OperatorKey.read(desk / "second.key").private.public)
    code, out, err = say("hub", "invite", "--group", "valley", "--uses", "2", "--trust", second)
    assert f"{hub.url} is this computer itself: a trap elsewhere cannot use the code" in err
    own = str(OperatorKey.read(desk / "config" / "trapsync.key").private.public)

    found = code_in(out)
    assert (code, found.hub) == (0, hub.url)
    assert found.fingerprint == Terms(keys=(own, second), groups=("valley",)).fingerprint()
    answer = joins(hub, found, DEVICE).json()
    assert (
        Terms(tuple(answer["keys"]), tuple(answer["groups"]), answer["images"]).fingerprint()
        == found.fingerprint
    )
    assert found.secret not in (desk / "hub" / "hub.sqlite").read_bytes().decode("latin-1")


def test_a_code_of_more_keys_than_a_trap_trusts_is_refused_before_it_is_made(
    say: Say, desk: Path, hub: RunningHub
) -> None:
    logged_in(say, hub)
    more = []
    for name in ("second.key", "third.key"):
        say("keys", "new", "--out", name)
        more += ["--trust", str(OperatorKey.read(desk / name).private.public)]
    assert say("hub", "invite", *more[:2], *more[:2])[0] == 0, "one key named twice is one"
    code, _, err = say("hub", "invite", *more)

    assert (code, "a trap trusts 2 keys at most, and here are 3" in err) == (1, True)
    assert len(hub.hub.enrolment.invitations()) == 1


def test_without_a_key_there_is_no_code(say: Say, hub: RunningHub) -> None:
    say("hub", "login", hub.url, "--user", "owner", "--password-file", "password")
    code, _, err = say("hub", "invite")

    assert code == 1
    assert err.splitlines()[-1] == (
        "trapsync: there is no key that these traps could trust; make one first: trapsync keys new"
    )


def test_traps_are_listed_revoked_and_forgotten(say: Say, hub: RunningHub) -> None:
    logged_in(say, hub)
    found = code_in(say("hub", "invite", "--group", "valley", "--uses", "3")[1])
    assert [joins(hub, found, DEVICE, "meadow").status_code, joins(hub, found, OTHER).status_code] == [
        200,
        200,
    ]

    rows = [line.split() for line in say("hub", "devices")[1].splitlines()]
    assert [(row[0], row[1], row[2], row[4]) for row in rows[1:3]] == [
        (DEVICE, "meadow", "joined", "valley"),
        (OTHER, OTHER, "joined", "valley"),
    ]
    assert " ".join(rows[3]).startswith("open: code 1, group valley: 2 of 3 used, until ")
    code, out, _ = say("fleet")
    assert (code, "joined" in out, "has not been heard yet" in out) == (1, True, True)

    out = say("hub", "revoke", "meadow", "--yes")[1]
    assert out.splitlines()[0] == f"trap meadow ({DEVICE}) is locked out; its images stay"
    assert "trapsync hub invite --withdraw 1" in out
    assert joins(hub, found, DEVICE).status_code == 403
    assert say("hub", "forget", OTHER, "--yes")[0] == 0
    shown = json.loads(say("hub", "devices", "--json")[1])
    assert [(trap["device"], trap["state"]) for trap in shown["traps"]] == [(DEVICE, "revoked")]
    assert say("hub", "groups", DEVICE, "hill", "lake")[1].startswith(
        f"trap meadow ({DEVICE}) is in groups hill and lake at "
    )
    assert say("hub", "invite", "--withdraw", "1")[0] == 0
    assert say("hub", "invite", "--list")[1] == ""
    assert say("hub", "revoke", "meadows", "--yes")[2].splitlines()[-1] == (
        f"trapsync: {hub.url} knows no trap meadows; see: trapsync hub devices"
    )


def test_two_traps_of_one_name_are_told_apart_by_their_devices(say: Say, hub: RunningHub) -> None:
    logged_in(say, hub)
    found = code_in(say("hub", "invite", "--uses", "2")[1])
    for device in (DEVICE, OTHER):
        joins(hub, found, device, "meadow")

    code, _, err = say("hub", "revoke", "meadow", "--yes")
    assert (code, f"write the device ({DEVICE}, {OTHER})" in err) == (1, True)


def test_a_person_without_the_role_is_told_so(say: Say, hub: RunningHub) -> None:
    logged_in(say, hub)
    hub.auth("reader")
    code, _, err = say("hub", "invite", "--list", "--user", "reader")

    assert (code, "(403); it takes an admin's" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("hub", "devices", "--folder", "."), "neither a folder nor a broker"),
        (("hub", "--port", "9", "devices"), "are for running it, without a command"),
        (("hub", "invite", "--uses", "0"), "1<=x<=1000"),
        (("hub", "invite", "--until", "soon"), "'in 3 days'"),
        (("hub", "users", "add", "mia", "--role", "trap"), "'admin', 'manager', 'viewer'"),
        (("hub", "users", "remove", "mia"), "there is no user 'mia'"),
        (("hub", "users", "add", DEVICE, "--password-file", "password"), "like the id of a trap"),
    ],
)
def test_what_cannot_be_done_is_told(say: Say, words: tuple[str, ...], says: str) -> None:
    code, _, err = say(*words)

    assert code != 0
    assert says in err
    assert "Traceback" not in err


def test_root_works_on_accounts_as_the_owner_of_the_hubs_folder(
    say: Say, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Path] = []
    monkeypatch.setattr("trapsync.cli.hub.step_down", became.append)
    assert say("hub", "users", "list", "--folder", str(desk / "hub"))[0] == 0
    assert became == [desk / "hub"]


def test_accounts_are_added_listed_and_removed_while_the_hub_runs(say: Say, hub: RunningHub) -> None:
    folder = ("--folder", str(hub.folder))
    added = say("hub", "users", "add", "mia", "--role", "admin", "--password-file", "password", *folder)
    assert added[:2] == (0, f"mia is an admin of the hub in {hub.folder}\n")
    assert requests.get(f"{hub.url}/fleet", auth=("mia", PASSWORD), timeout=30).status_code == 200
    listed = {tuple(line.split()) for line in say("hub", "users", "list", *folder)[1].splitlines()[1:]}
    assert listed == {("mia", "admin"), ("owner", "admin"), ("trap", "manager")}

    hub.hub.accounts.add("trapsync", "trapsync", "admin")
    added = say("hub", "users", "add", "mia", "--role", "admin", "--password-file", "password", *folder)
    assert added[1].endswith("trapsync, whose password everybody knows, is removed\n")
    assert say("hub", "users", "remove", "mia", *folder)[0] == 0
    assert requests.get(f"{hub.url}/fleet", auth=("mia", PASSWORD), timeout=30).status_code == 401
