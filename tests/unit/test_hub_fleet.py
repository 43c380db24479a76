"""The hub's part in steering and seeing: slots of signed documents, heartbeats, and five hundred traps at once."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

import hub_server
import processes
from fake_time import FakeTime
from hub_server import PASSWORD, RunningHub
from trapsync.errors import TrapsyncError
from trapsync.hub import fleet as fleet_module
from trapsync.hub.app import Hub
from trapsync.hub.fleet import LARGEST_DOCUMENT, SHOWN, NotTaken
from trapsync.hub.heartbeat_history import DAY, MOST
from trapsync.net import heartbeat
from trapsync.net.judgement import traps
from trapsync.remote import document

DEVICE = "0a5bb6f4"
SLOT = f"device-{DEVICE}.settings"
HEAD = b"trapsync-signed-1 0123456789abcdef " + b"ab" * 64 + b"\n"
DOCUMENT = HEAD + b"schema = 1\n"
OTHER = HEAD + b"schema = 1\nversion = 2\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path_factory.mktemp("hub")) as running:
        yield running


def put(hub: RunningHub, slot: str, data: bytes, user: str = "owner", **headers: str) -> requests.Response:
    url = f"{hub.url}/pushed/{slot}"
    return requests.put(url, data, headers=headers, auth=hub.auth(user), timeout=30)


def get(hub: RunningHub, path: str, user: str = "trap", **headers: str) -> requests.Response:
    return requests.get(f"{hub.url}/{path}", headers=headers, auth=hub.auth(user), timeout=30)


def tell(hub: RunningHub, device: str, body: Any, user: str = "trap") -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"{hub.url}/heartbeats/{device}", data, auth=hub.auth(user), timeout=30)


# ── Slots ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pushed_document_comes_back_byte_for_byte_with_its_hash_as_etag(hub: RunningHub) -> None:
    pushed = put(hub, SLOT, DOCUMENT)
    answer = get(hub, f"pushed/{SLOT}")

    digest = hashlib.sha256(DOCUMENT).hexdigest()
    assert pushed.json() == {"slot": SLOT, "hash": digest}
    assert (answer.status_code, answer.content) == (200, DOCUMENT)
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_who_has_it_is_told_304_without_a_body_until_there_is_another(hub: RunningHub) -> None:
    put(hub, SLOT, DOCUMENT)
    tag = get(hub, f"pushed/{SLOT}").headers["ETag"]

    same = get(hub, f"pushed/{SLOT}", **{"If-None-Match": tag})
    put(hub, SLOT, OTHER)
    other = get(hub, f"pushed/{SLOT}", **{"If-None-Match": tag})

    assert (same.status_code, same.content) == (304, b"")
    assert (other.status_code, other.content) == (200, OTHER)


def test_an_empty_slot_is_an_empty_404(hub: RunningHub) -> None:
    answer = get(hub, "pushed/device-ffffffff.resend")
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize(
    "slot", ["all.settings", "all.resend", "group-valley.settings", f"device-{DEVICE}.resend"]
)
def test_each_kind_of_slot_is_one(hub: RunningHub, slot: str) -> None:
    assert put(hub, slot, DOCUMENT).status_code == 200
    assert get(hub, f"pushed/{slot}").content == DOCUMENT


@pytest.mark.parametrize(
    "slot", ["x.settings", "device-ABCDEF01.settings", "device-0a5bb6f4", "group-.resend", "all.toml"]
)
def test_what_is_no_slot_is_404_also_for_the_owner(hub: RunningHub, slot: str) -> None:
    assert put(hub, slot, DOCUMENT).status_code == 404
    assert get(hub, f"pushed/{slot}").status_code == 404


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"schema = 1\n",
            b"<html>Welcome</html>",
            HEAD[:-1],
            HEAD.replace(b"ab", b"AB"),
            b" " + DOCUMENT,
        ),
        DOCUMENT + b"#" * LARGEST_DOCUMENT,
    ],
    ids=["empty", "unsigned", "page", "cut", "capitals", "shifted", "large"],
)
def test_what_has_not_the_shape_of_a_signed_document_is_refused_in_one_line(
    hub: RunningHub, data: bytes
) -> None:
    answer = put(hub, "group-refused.settings", data)

    assert (answer.status_code, answer.text.count("\n")) == (400, 1)
    assert get(hub, "pushed/group-refused.settings").status_code == 404


def test_only_the_owner_may_push_and_a_stranger_sees_nothing(hub: RunningHub) -> None:
    assert put(hub, SLOT, DOCUMENT, user="trap").status_code == 403
    assert put(hub, SLOT, DOCUMENT, user="reader").status_code == 403
    for path in (f"pushed/{SLOT}", "fleet", f"heartbeats/{DEVICE}"):
        assert requests.get(f"{hub.url}/{path}", timeout=30).status_code == 401


def test_of_two_owners_who_push_at_once_one_is_told(hub: RunningHub) -> None:
    slot = "group-two.settings"
    first = put(hub, slot, DOCUMENT, **{"If-None-Match": "*"})
    late = put(hub, slot, OTHER, **{"If-None-Match": "*"})
    seen = get(hub, f"pushed/{slot}").headers["ETag"]
    second = put(hub, slot, OTHER, **{"If-Match": seen})
    later = put(hub, slot, DOCUMENT, **{"If-Match": seen})

    assert [a.status_code for a in (first, late, second, later)] == [200, 412, 200, 412]
    assert "somebody else pushed" in late.text
    assert get(hub, f"pushed/{slot}").content == OTHER


def test_a_hub_that_knows_the_owners_keys_refuses_what_they_did_not_sign(tmp_path: Path) -> None:
    def verify(data: bytes) -> None:
        if data != DOCUMENT:
            raise TrapsyncError("no trusted key signed it")

    fleet = Hub.open(tmp_path, verify=verify).fleet

    fleet.put(SLOT, DOCUMENT, "owner")
    with pytest.raises(NotTaken, match="no trusted key"):
        fleet.put(SLOT, OTHER, "owner")
    held = fleet.held(SLOT)
    assert held is not None
    assert held.data == DOCUMENT


def test_the_hub_of_the_command_line_knows_the_owners_key(tmp_path: Path) -> None:
    key = document.new_key()
    (tmp_path / "password").write_text(PASSWORD)
    (tmp_path / "password").chmod(0o600)
    options = ["--port", "0", "--folder", str(tmp_path / "hub"), "--owner-key", str(key.public)]
    options += ["--password-file", str(tmp_path / "password")]
    command = [sys.executable, "-m", "trapsync", "hub", *options]
    with processes.started(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        try:
            url = re.search(r"http://\S+", program.stderr.readline())
            assert url
            mine = document.sign(b"schema = 1\n", key)
            codes = [
                requests.put(
                    f"{url[0]}/pushed/{SLOT}", data, auth=("trapsync", PASSWORD), timeout=30
                ).status_code
                for data in (DOCUMENT, mine)
            ]
        finally:
            program.terminate()
    assert codes == [400, 200]


# ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────


def test_the_fleet_shows_the_newest_heartbeat_of_every_trap_by_the_hubs_own_clock(tmp_path: Path) -> None:
    clock = FakeTime()
    with hub_server.running(tmp_path / "hub", clock=clock) as hub:
        tell(hub, DEVICE, {"device": DEVICE, "verdict": "ok", "at": "1970-01-01T00:00:07Z"})
        clock.sleep(600)
        received = tell(hub, DEVICE, {"device": DEVICE, "verdict": "failing"}).json()
        tell(hub, "00000001", {"device": "00000001", "verdict": "ok"})
        put(hub, SLOT, DOCUMENT)
        clock.sleep(60)
        fleet = get(hub, "fleet", user="reader").json()

        assert received == {"device": DEVICE, "received": "2026-06-21T20:29:15Z"}
        assert [(t["device"], t["age_s"], t["heartbeat"]["verdict"]) for t in fleet["traps"]] == [
            ("00000001", 60, "ok"),
            (DEVICE, 60, "failing"),
        ]
        assert fleet["traps"][1]["received"] == received["received"]
        assert fleet["slots"][SLOT]["hash"] == hashlib.sha256(DOCUMENT).hexdigest()
        assert [h["heartbeat"]["verdict"] for h in get(hub, f"heartbeats/{DEVICE}").json()] == [
            "failing",
            "ok",
        ]


def test_the_latest_heartbeats_of_a_trap_are_shown(tmp_path: Path) -> None:
    fleet = Hub.open(tmp_path, FakeTime()).fleet
    fleet.take("00000001", b'{"device": "00000001"}')
    for number in range(SHOWN + 5):
        fleet.take(DEVICE, json.dumps({"device": DEVICE, "n": number}).encode())

    shown = [entry["heartbeat"]["n"] for entry in fleet.history(DEVICE)]

    assert shown == list(range(SHOWN + 4, 4, -1))
    assert len(fleet.history("00000001")) == 1


def received(hub: Hub, device: str) -> list[float]:
    with hub.database.reading() as connection:
        rows = connection.execute("SELECT received FROM heartbeats WHERE device = ? ORDER BY id", (device,))
        return [row["received"] for row in rows]


def filled(hub: Hub, device: str, since: float, every: float, count: int) -> None:
    """As if a trap had called that often."""
    with hub.database.writing() as connection:
        connection.executemany(
            "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, '{}')",
            [(device, since + every * number) for number in range(count)],
        )


def test_heartbeats_are_kept_for_a_season_ever_fewer_of_them(tmp_path: Path) -> None:
    time = FakeTime()
    hub = Hub.open(tmp_path, time)
    filled(hub, DEVICE, time.wall() - 200 * DAY, 900, 200 * 96)
    filled(hub, "00000001", time.wall() - 200 * DAY, 900, 96)

    hub.fleet.take(DEVICE, json.dumps({"device": DEVICE}).encode())

    ages = [time.wall() - at for at in received(hub, DEVICE)]
    assert sum(age <= 2 * DAY for age in ages) == 2 * 96 + 1
    assert 88 * 24 <= sum(2 * DAY < age <= 90 * DAY for age in ages) <= 88 * 24 + 1
    assert 110 <= sum(age > 90 * DAY for age in ages) <= 111
    assert len(received(hub, "00000001")) == 96
    time.sleep(30 * DAY)
    hub.fleet.take(DEVICE, json.dumps({"device": DEVICE}).encode())
    assert 140 <= sum(time.wall() - at > 90 * DAY for at in received(hub, DEVICE)) <= 141


def test_a_trap_that_calls_without_end_does_not_fill_the_hub(tmp_path: Path) -> None:
    time = FakeTime()
    hub = Hub.open(tmp_path, time)
    filled(hub, DEVICE, time.wall() - 4000, 0.1, 40_000)
    hub.fleet.take(DEVICE, json.dumps({"device": DEVICE}).encode())
    assert len(received(hub, DEVICE)) <= MOST + 3


@pytest.mark.parametrize(
    ("device", "body"),
    [
        *(
            ("0A5BB6F4", {"device": "0A5BB6F4"}),
            ("trap", {"device": "trap"}),
            (DEVICE, {"device": "00000001"}),
        ),
        *(
            (DEVICE, {}),
            (DEVICE, []),
            (DEVICE, b""),
            (DEVICE, b"{"),
            (DEVICE, b"\xff\xfe"),
            (DEVICE, b"[" * 3000),
        ),
        (DEVICE, f'{{"device": "{DEVICE}", "bat": NaN}}'.encode()),
        (DEVICE, {"device": DEVICE, "more": "x" * heartbeat.LARGEST}),
    ],
)
def test_what_is_no_small_heartbeat_of_that_trap_is_refused(
    tmp_path: Path, hub: RunningHub, device: str, body: Any
) -> None:
    before = get(hub, "fleet").json()["traps"]

    answer = tell(hub, device, body)

    assert (answer.status_code, answer.text.count("\n")) == (400, 1)
    assert get(hub, "fleet").json()["traps"] == before


@pytest.mark.parametrize(
    "odd", [{"battery": "full"}, {"disk": {"days_left": []}}, {"name": "x" * 1001}, {"verdict": "fine"}]
)
def test_a_heartbeat_that_makes_no_sense_is_refused_and_shown(tmp_path: Path, odd: dict[str, Any]) -> None:
    fleet = Hub.open(tmp_path, FakeTime()).fleet
    fleet.take("00000001", b'{"device": "00000001", "verdict": "ok"}')
    fleet.take(DEVICE, json.dumps({"device": DEVICE, "verdict": "ok"}).encode())

    with pytest.raises(NotTaken, match=rf"makes no sense: .*\$\.{next(iter(odd))}"):
        fleet.take(DEVICE, json.dumps({"device": DEVICE, **odd}).encode())

    well, shown = traps(fleet.snapshot())[::-1]
    assert (well.device, well.verdict, well.reasons) == ("00000001", "ok", [])
    assert (shown.device, shown.verdict) == (DEVICE, "failing")
    assert [reason.startswith("its heartbeat makes no sense: ") for reason in shown.reasons] == [True]


@pytest.mark.parametrize("body", ["{", '{"battery": 1e999}', "[" * 4000, '{"battery": ' + "9" * 4000 + "}"])
def test_what_an_earlier_hub_took_is_an_answer_all_the_same(tmp_path: Path, body: str) -> None:
    hub = Hub.open(tmp_path, FakeTime())
    with hub.database.writing() as connection:
        connection.execute("INSERT INTO traps (device) VALUES (?)", (DEVICE,))
        connection.execute("INSERT INTO heartbeats (device, received, body) VALUES (?, 0, ?)", (DEVICE, body))

    answer = hub.fleet.snapshot()

    answer["traps"] = list(answer["traps"])
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert [trap.verdict for trap in traps(answer)] == ["failing"]


def test_the_newest_heartbeats_are_found_by_the_index_however_many_there_are(tmp_path: Path) -> None:
    hub = Hub.open(tmp_path, FakeTime())
    asked = list[str]()
    with hub.database.reading() as connection:
        connection.set_trace_callback(asked.append)  # it rests, and serves the next question
    list(hub.fleet.snapshot()["traps"])
    questions = [sql for sql in asked if "heartbeats" in sql]
    assert len(questions) == 2
    with hub.database.reading() as connection:
        plans = [
            row["detail"] for sql in questions for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
    assert any("heartbeats_by_device" in step for step in plans)
    assert [step for step in plans if step.startswith("SCAN") and "traps" not in step] == []


def test_more_traps_than_a_hub_knows_are_refused_and_the_others_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "MOST_TRAPS", 2)
    fleet = Hub.open(tmp_path, FakeTime()).fleet
    for number in (1, 2):
        fleet.take(f"{number:08x}", json.dumps({"device": f"{number:08x}"}).encode())
    with pytest.raises(NotTaken, match="knows 2 traps, and takes no more"):
        fleet.take("00000003", b'{"device": "00000003"}')
    fleet.take("00000001", b'{"device": "00000001"}')
    assert len(list(fleet.snapshot()["traps"])) == 2


def test_a_reader_cannot_speak_for_a_trap(hub: RunningHub) -> None:
    assert tell(hub, DEVICE, {"device": DEVICE}, user="reader").status_code == 403


# ── Who may, quickly ─────────────────────────────────────────────────────────────────────────────────


def test_a_password_that_was_right_is_known_again_until_it_is_changed(tmp_path: Path) -> None:
    accounts = Hub.open(tmp_path).accounts
    accounts.add("trap", "the old one")
    assert accounts.recognise("trap", "the old one")

    begun = time.thread_time()
    assert all(accounts.recognise("trap", "the old one") for _ in range(100))
    assert time.thread_time() - begun < 2  # hashed anew each time: five seconds and more
    assert accounts.recognise("trap", "another") is None
    accounts.add("trap", "the new one")
    assert accounts.recognise("trap", "the old one") is None
    assert accounts.recognise("trap", "the new one")


# ── Five hundred traps ───────────────────────────────────────────────────────────────────────────────


def test_the_hub_answers_five_hundred_traps_that_come_at_once(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        put(hub, "all.settings", DOCUMENT)
        devices = [f"{number:08x}" for number in range(500)]
        body = {"verdict": "ok", "reasons": ["x" * 1000]}

        def visit(device: str) -> tuple[list[int], float]:
            """One turn of a trap: three slots and a heartbeat over one connection, by name and password."""
            begun = time.perf_counter()
            with requests.Session() as trap:
                trap.auth = ("trap", PASSWORD)
                slots = (f"device-{device}.settings", "group-valley.settings", "all.settings")
                asked = [trap.get(f"{hub.url}/pushed/{slot}", timeout=60).status_code for slot in slots]
                told = trap.post(
                    f"{hub.url}/heartbeats/{device}", json={**body, "device": device}, timeout=60
                )
            return [*asked, told.status_code], time.perf_counter() - begun

        begun = time.perf_counter()
        with ThreadPoolExecutor(500) as pool:
            visits = list(pool.map(visit, devices))
        took = time.perf_counter() - begun

        assert [codes for codes, _ in visits] == [[404, 404, 200, 200]] * 500
        assert [trap["device"] for trap in get(hub, "fleet").json()["traps"]] == devices
    slowest = max(seconds for _, seconds in visits)
    sys.stdout.write(f"500 traps, 2000 requests in {took:.1f} s; the slowest trap waited {slowest:.1f} s\n")
