"""Each trap at its hub: codes, accounts of traps, and what such an account may do."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

import drawings
import hub_server
from fake_time import FakeTime
from hub_server import RunningHub
from trapsync.errors import SettingsError, StorageError
from trapsync.hub.app import Hub
from trapsync.hub.enrolment import BadTerms, JoinedAlready, NotJoined
from trapsync.net.invitation import Code, Terms

OLDER = Path(__file__).parents[1] / "helpers" / "older"
KEY = "ed25519:yG0BrYsvtpSyL/YOPJ2eftkNtWBHcrdEUNQJE7mpy68="
TERMS = Terms(keys=(KEY,), groups=("valley",))
MINE, OTHER = "0a5bb6f4", "deadbeef"
DAY = 86400.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def hub(tmp_path: Path) -> tuple[Hub, FakeTime]:
    clock = FakeTime()
    return Hub.open(tmp_path / "hub", clock), clock


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def invite(hub: Hub, clock: FakeTime, *, uses: int = 1, days: float = 1, terms: Terms = TERMS) -> Code:
    code = Code.new("https://hub.example.org", terms)
    asked = {
        "secret_hash": code.secret_hash,
        "until": clock.wall() + days * DAY,
        "keys": terms.keys,
        "groups": terms.groups,
        "images": terms.images,
        "uses": uses,
    }
    hub.enrolment.invite(json.dumps(asked).encode(), "owner")
    return code


def join(hub: Hub, code: Code, device: str = MINE, token: str = "one") -> dict[str, Any]:
    body = {"secret": code.secret, "fingerprint": code.fingerprint, "device": device, "name": "meadow"}
    body["token_sha256"] = digest(token)
    return hub.enrolment.join(json.dumps(body).encode())


def recognised(hub: Hub, device: str = MINE, token: str = "one") -> bool:
    user = hub.accounts.recognise(device, token)
    assert user is None or (user.role, user.device) == ("trap", device)
    return user is not None


# ── Codes ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trap_joins_with_a_code_and_has_an_account_of_its_own(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    answer = join(home, invite(home, clock))

    assert answer == {"device": MINE, "keys": [KEY], "groups": ["valley"], "images": True}
    assert Terms(tuple(answer["keys"]), tuple(answer["groups"])).fingerprint() == TERMS.fingerprint()
    assert recognised(home)
    assert not recognised(home, token="another")
    assert [(trap["device"], trap["name"], trap["state"]) for trap in home.enrolment.traps()] == [
        (MINE, "meadow", "joined")
    ]


def test_the_same_request_again_has_the_same_answer_and_takes_no_further_use(
    hub: tuple[Hub, FakeTime],
) -> None:
    home, clock = hub
    code = invite(home, clock, uses=2)

    assert join(home, code) == join(home, code) == join(home, code)
    assert [code["used"] for code in home.enrolment.invitations()] == [1]


def test_a_code_is_for_so_many_traps_and_so_long(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    two, late = invite(home, clock, uses=2), invite(home, clock, uses=2)
    join(home, two)
    join(home, two, OTHER)

    with pytest.raises(NotJoined, match="was for 2 and is used up"):
        join(home, two, "00000001")
    assert join(home, two), "a trap whose answer was lost asks again"
    clock.sleep(2 * DAY)
    with pytest.raises(NotJoined, match="ended at"):
        join(home, late, "00000002")
    with pytest.raises(NotJoined, match="does not know the code"):
        join(home, Code.new("https://hub.example.org", TERMS), "00000003")
    assert home.enrolment.invitations() == []


def test_a_slip_in_the_end_of_a_code_costs_no_use_and_makes_no_account(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    code = invite(home, clock)

    with pytest.raises(NotJoined, match="copy all of it once more"):
        join(home, replace(code, fingerprint="A" * 20))
    assert not recognised(home)
    assert join(home, code)


def test_a_code_that_was_withdrawn_lets_nobody_join(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    code = invite(home, clock, uses=9)
    home.enrolment.withdraw(home.enrolment.invitations()[0]["id"])

    with pytest.raises(NotJoined, match="withdrawn"):
        join(home, code)


def test_nobody_takes_the_account_of_a_trap_that_has_joined(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    code = invite(home, clock, uses=9)
    join(home, code)

    with pytest.raises(JoinedAlready, match=f"trapsync hub forget {MINE}"):
        join(home, code, token="a thief's")
    assert recognised(home)


@pytest.mark.parametrize("end", ["revoke", "forget"])
def test_one_that_was_locked_out_joins_again_with_a_later_code_only(
    hub: tuple[Hub, FakeTime], end: str
) -> None:
    home, clock = hub
    before = invite(home, clock, uses=9)
    join(home, before)
    clock.sleep(60)
    getattr(home.enrolment, end)(MINE)

    assert not recognised(home)
    with pytest.raises(NotJoined, match="after this code was made"):
        join(home, before)
    with pytest.raises(NotJoined, match="after this code was made"):
        join(home, before, token="another")
    assert join(home, before, OTHER)
    clock.sleep(60)
    assert join(home, invite(home, clock), token="new")
    assert recognised(home, token="new")
    assert not recognised(home)
    with pytest.raises(JoinedAlready):
        join(home, before)


def test_the_secret_is_not_in_the_hubs_file(hub: tuple[Hub, FakeTime], tmp_path: Path) -> None:
    home, clock = hub
    code = invite(home, clock)
    join(home, code, token="the password of the trap")
    home.database.close()

    held = b"".join(file.read_bytes() for file in (tmp_path / "hub").glob("hub.sqlite*"))
    assert code.secret_hash.encode() in held
    assert code.secret.encode() not in held
    assert b"the password of the trap" not in held


@pytest.mark.parametrize(
    "change",
    [
        {"secret_hash": "x"},
        {"uses": 0},
        {"uses": 10**9},
        {"until": 0},
        {"until": 1e300},
        {"keys": ["ssh-rsa AAAA"]},
        {"groups": ["Valley 1"]},
        {"groups": "valley"},
        {"more": 1},
        {"keys": [KEY] * 100},
        {"keys": [KEY] * 3},
    ],
)
def test_odd_terms_are_refused_in_one_line(hub: tuple[Hub, FakeTime], change: dict[str, Any]) -> None:
    home, clock = hub
    good = {"secret_hash": digest("x"), "until": clock.wall() + 60}
    home.enrolment.invite(json.dumps(good).encode(), "owner")

    with pytest.raises(BadTerms) as refused:
        home.enrolment.invite(json.dumps(good | change).encode(), "owner")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"secret": 1}', b"[" * 10_000, b" " * 9000])
def test_an_odd_request_to_join_is_refused_in_one_line(running: RunningHub, body: bytes) -> None:
    answer = requests.post(f"{running.url}/join", body, timeout=30)

    assert answer.status_code == (413 if len(body) > 8192 else 400)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.count("\n") == 1


def test_whoever_guesses_codes_does_not_fill_the_log(
    running: RunningHub, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"secret": "A" * 16, "fingerprint": "A" * 20, "device": MINE, "token_sha256": digest("x")}
    answers = {requests.post(f"{running.url}/join", json=body, timeout=30).status_code for _ in range(20)}

    told = [record.getMessage() for record in caplog.records if "joins" in record.getMessage()]
    assert answers == {403}
    assert told == [
        (
            "403 for 127.0.0.1 as a trap that joins (this hub does not know the code, or it was withdrawn; "
            "ask its operator for another)"
        )
    ]


# ── What the account of a trap may do ────────────────────────────────────────────────────────────────


@pytest.fixture
def joined(running: RunningHub) -> RunningHub:
    code = Code.new(running.url, TERMS)
    asked = {"secret_hash": code.secret_hash, "until": time.time() + 60, "uses": 2}
    asked |= {"keys": [KEY], "groups": ["valley"]}
    made = requests.post(f"{running.url}/invitations", json=asked, auth=running.auth("owner"), timeout=30)
    assert made.status_code == 200
    for device in (MINE, OTHER):
        body = {"secret": code.secret, "fingerprint": code.fingerprint, "device": device}
        body["token_sha256"] = digest(device)
        assert requests.post(f"{running.url}/join", json=body, timeout=30).status_code == 200
    return running


def ask(hub: RunningHub, method: str, path: str, **more: Any) -> requests.Response:
    """As the trap MINE."""
    return requests.request(method, f"{hub.url}/{path}", auth=(MINE, MINE), timeout=30, **more)


def upload(hub: RunningHub, device: str, moment: str = "2026-06-20_20-19-15") -> requests.Response:
    name = f"{device}.{moment}.jpg"
    return ask(
        hub, "POST", "_put_new_images", files={name: (name, drawings.trap(int(device[:4], 16)), "image/jpeg")}
    )


def test_a_trap_stores_and_reads_its_own_images_alone(joined: RunningHub) -> None:
    others = f"{OTHER}.2026-06-20_20-19-15.jpg"
    assert joined.upload(others, drawings.trap(2)).status_code == 200
    assert upload(joined, MINE).status_code == 200

    for device in (OTHER, OTHER.upper()):
        answer = upload(joined, device, "2026-06-20_20-20-15")
        assert (answer.status_code, f"stores images of {MINE} only" in answer.text) == (500, True)
    keys = [{"device": one, "datetime": "2026-06-20T20:19:15Z"} for one in (MINE, OTHER)]
    whole = {"start_datetime": "2020", "end_datetime": "2099"}
    patterns = [{"device": one, **whole} for one in ("%", OTHER, "________")]
    for what in ("metadata", "image", "thumbnail"):
        assert _devices(ask(joined, "POST", f"get_images/{what}", json=keys)) == {MINE}
        assert _devices(ask(joined, "POST", f"get_image_series/{what}", json=patterns)) == {MINE}
    assert len(joined.stored()) == 2


def _devices(answer: requests.Response) -> set[str]:
    assert answer.status_code == 200
    return {row["device"] for row in answer.json()}


def test_a_trap_annotates_and_reads_annotations_of_its_own_images_alone(joined: RunningHub) -> None:
    moment = "2026-06-20T20:19:15Z"
    for device in (MINE, OTHER):
        joined.upload(f"{device}.2026-06-20_20-19-15.jpg", drawings.trap(int(device[:4], 16)))
    about = {"algo_name": "a", "algo_version": "1", "datetime": moment}
    stored = {name[:8]: md5 for name, md5 in joined.stored().items()}

    def annotation(device: str) -> list[dict[str, Any]]:
        return [{"annotations": [], "metadata": {**about, "device": device, "md5": stored[device]}}]

    refused = ask(joined, "POST", "put_uid_annotations", json=annotation(OTHER))
    assert (refused.status_code, "there is no image" in refused.text) == (500, True)
    assert ask(joined, "POST", "put_uid_annotations", json=annotation(MINE)).status_code == 200
    assert joined.ask("put_uid_annotations", annotation(OTHER)).status_code == 200
    keys = [{"device": one, "datetime": moment} for one in (MINE, OTHER)]
    ranges = [{"device": "%", "start_datetime": "2020", "end_datetime": "2099"}]
    for path, body in (("get_uid_annotations/data", keys), ("get_uid_annotations_series/data", ranges)):
        answer = ask(joined, "POST", path, json=body).json()
        assert [json.loads(row["json"])["metadata"]["device"] for row in answer] == [MINE]


@pytest.mark.parametrize(
    ("slot", "status"),
    [
        (f"device-{MINE}.settings", 404),
        ("group-valley.resend", 404),
        ("all.settings", 404),
        ("key-0123456789abcdef.keys", 404),
        (f"device-{OTHER}.settings", 403),
        ("group-ridge.settings", 403),
        ("group-valley2.resend", 403),
    ],
)
def test_a_trap_reads_the_slots_that_are_meant_for_it(joined: RunningHub, slot: str, status: int) -> None:
    assert ask(joined, "GET", f"pushed/{slot}").status_code == status
    assert ask(joined, "PUT", f"pushed/{slot}", data=b"x").status_code == 403


def test_the_hub_says_how_a_trap_gets_into_a_group(joined: RunningHub) -> None:
    refused = ask(joined, "GET", "pushed/group-ridge.settings").text
    assert f"trapsync hub groups {MINE} valley ridge" in refused

    groups = requests.put(
        f"{joined.url}/traps/{MINE}/groups", json={"groups": ["ridge"]}, auth=joined.auth("owner"), timeout=30
    )
    assert groups.json() == {"device": MINE, "groups": ["ridge"]}
    assert ask(joined, "GET", "pushed/group-ridge.settings").status_code == 404
    assert ask(joined, "GET", "pushed/group-valley.settings").status_code == 403


def test_nobody_but_a_trap_itself_sends_its_heartbeats(joined: RunningHub) -> None:
    def tell(device: str, auth: tuple[str, str]) -> int:
        url = f"{joined.url}/heartbeats/{device}"
        return requests.post(url, json={"device": device}, auth=auth, timeout=30).status_code

    assert tell(MINE, (MINE, MINE)) == 200
    assert [tell(OTHER, (MINE, MINE)), tell("00000001", (MINE, MINE))] == [403, 403]
    assert [tell(MINE, joined.auth()), tell(MINE, joined.auth("owner"))] == [403, 403]
    assert tell("00000001", joined.auth()) == 200, "a trap without an account, by another one"
    joined.hub.enrolment.revoke("00000001")
    assert tell("00000001", joined.auth()) == 403
    assert ask(joined, "GET", f"heartbeats/{MINE}").status_code == 200
    assert ask(joined, "GET", f"heartbeats/{OTHER}").status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "fleet"),
        ("GET", "traps"),
        ("GET", "invitations"),
        ("POST", "invitations"),
        ("DELETE", "invitations/1"),
        ("POST", f"traps/{OTHER}/revoke"),
        ("POST", f"traps/{MINE}/forget"),
        ("PUT", f"traps/{MINE}/groups"),
        ("POST", "delete_images"),
    ],
)
def test_what_is_the_operators_is_not_for_traps_nor_for_viewers(
    joined: RunningHub, method: str, path: str
) -> None:
    assert ask(joined, method, path, json={}).status_code == 403
    if path not in {"fleet", "traps"}:
        viewer = requests.request(
            method, f"{joined.url}/{path}", json={}, auth=joined.auth("reader"), timeout=30
        )
        assert viewer.status_code == 403
    assert requests.request(method, f"{joined.url}/{path}", json={}, timeout=30).status_code == 401


def test_a_trap_that_was_revoked_is_a_stranger_with_its_token_of_the_day_too(joined: RunningHub) -> None:
    token = ask(joined, "POST", "get_token").json()["token"]
    own = f"{joined.url}/pushed/all.settings"
    assert requests.get(own, auth=(token, ""), timeout=30).status_code == 404

    revoked = requests.post(f"{joined.url}/traps/{MINE}/revoke", auth=joined.auth("owner"), timeout=30)
    assert revoked.status_code == 200
    assert requests.get(own, auth=(token, ""), timeout=30).status_code == 401
    assert ask(joined, "GET", "pushed/all.settings").status_code == 401
    assert requests.get(own, auth=(OTHER, OTHER), timeout=30).status_code == 404


def test_a_trap_that_was_forgotten_is_not_shown_any_more_and_its_images_stay(joined: RunningHub) -> None:
    upload(joined, MINE)
    ask(joined, "POST", f"heartbeats/{MINE}", json={"device": MINE})
    joined.hub.enrolment.forget(MINE)

    fleet = requests.get(f"{joined.url}/fleet", auth=joined.auth("owner"), timeout=30).json()
    traps = requests.get(f"{joined.url}/traps", auth=joined.auth("owner"), timeout=30).json()
    assert MINE not in json.dumps([fleet, traps])
    assert len(joined.stored()) == 1
    again = requests.post(f"{joined.url}/traps/{MINE}/forget", auth=joined.auth("owner"), timeout=30)
    assert (again.status_code, again.text) == (
        404,
        f"there is no trap {MINE} here; see: trapsync hub devices\n",
    )


# ── Accounts of people, and a hub of before ──────────────────────────────────────────────────────────


def test_a_person_cannot_be_called_like_a_trap_nor_have_its_role(hub: tuple[Hub, FakeTime]) -> None:
    home, _ = hub
    for name, role in ((MINE, "admin"), ("mia", "trap")):
        with pytest.raises(SettingsError):
            home.accounts.add(name, "x", role)  # type: ignore[arg-type]


def test_an_account_that_was_removed_is_gone_with_its_tokens(hub: tuple[Hub, FakeTime]) -> None:
    home, clock = hub
    home.accounts.add("mia", "secret", "viewer")
    join(home, invite(home, clock))
    mia = home.accounts.named("mia")
    assert mia
    token, _ = home.accounts.token(mia)
    home.accounts.remove("mia")

    assert home.accounts.recognise(token, "") is home.accounts.recognise("mia", "secret") is None
    for name in ("mia", MINE):
        with pytest.raises(SettingsError, match="trapsync hub users list"):
            home.accounts.remove(name)
    assert recognised(home)


def test_a_hub_of_before_keeps_its_images_accounts_and_heartbeats(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "hub.sqlite")) as connection:
        connection.executescript((OLDER / "hub-13fe5f4.sql").read_text())
    home = Hub.open(folder)

    roles = {user.name: user.role for user in home.accounts.people()}
    assert roles == {"trapsync": "admin", "trap": "manager", "reader": "viewer"}
    assert home.accounts.recognise("trap", "known to all")
    with home.database.reading() as connection:
        for table in ("images", "uid_annotations"):
            assert connection.execute(f"SELECT api_user_id FROM {table}").fetchone()[0] == 2
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    (trap,) = home.enrolment.traps()
    assert (trap["device"], trap["name"], trap["state"]) == (MINE, "valley-1", "shared")
    assert len(home.fleet.history(MINE)) == 1
    assert home.reports.take(MINE, b"", 0)["newest"] == 0
    assert Hub.open(folder).accounts.names() == ["reader", "trap", "trapsync"]


def test_a_hub_that_a_newer_program_has_written_is_left_alone(tmp_path: Path) -> None:
    Hub.open(tmp_path).database.close()
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")

    with pytest.raises(StorageError, match="a newer trapsync has written it"):
        Hub.open(tmp_path)
