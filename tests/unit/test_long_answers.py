"""Long answers of the hub: each row once, of bounded length and memory, and nobody waits for a slow reader."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import requests

import hub_server
from hub_server import RunningHub
from trapsync.clock import iso
from trapsync.hub import annotations, fleet, long_answers, store
from trapsync.hub.store import by_ranges

DEVICES = ("0a5bb6f4", "0a5bb6f5", "1b74105a")
ROWS = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = {"device": "%", "start_datetime": "2000", "end_datetime": "3000"}
OWN = {"device": "0a5bb6f4", "datetime": iso(START)}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub with many rows, of which nobody asks for the files."""
    with hub_server.running(tmp_path_factory.mktemp("hub")) as hub:
        with hub.hub.database.writing() as connection:
            connection.executemany(
                "INSERT INTO images (device, datetime, md5, width, height, lat, datetime_created, api_version) "
                "VALUES (?, ?, ?, 4056, 3040, 46.2, '2026-06-21T00:00:00Z', '1')",
                (
                    (DEVICES[n % len(DEVICES)], iso(START + timedelta(minutes=5 * n)), f"{n:032x}")
                    for n in range(ROWS)
                ),
            )
            connection.executemany(
                "INSERT INTO uid_annotations (parent_image_id, algo_name, algo_version, n_objects, json, "
                "datetime_created, api_version) VALUES (?, 'a', '1', 0, ?, '2026-06-21T00:00:00Z', '1')",
                ((n, json.dumps({"contour": [n] * 20_000})) for n in range(1, 400)),
            )
        yield hub


def ask(
    hub: RunningHub, path: str, body: Any, encoding: str = "identity", user: str = "reader"
) -> requests.Response:
    """POST without keeping what is answered."""
    headers = {"Accept-Encoding": encoding}
    return requests.post(
        f"{hub.url}/{path}", json=body, auth=hub.auth(user), headers=headers, timeout=60, stream=True
    )


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_long_answer_is_written_as_a_short_one_is(full: RunningHub, encoding: str) -> None:
    with ask(full, "get_image_series/metadata", [EVERYTHING], encoding) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        assert int(answer.headers["Content-Length"]) > 50_000
        rows = [{**row, "url": ""} for row in full.rows()]
        assert len(rows) == ROWS
        assert answer.content.decode() == json.dumps(rows, separators=(",", ":")) + "\n"


def peak_of(act: Any) -> int:
    """How much more memory than before this process takes at most, in bytes, meanwhile."""

    def memory(key: str) -> int:
        return int(Path("/proc/self/status").read_text().partition(key)[2].split()[0]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS:")
    act()
    return memory("VmHWM:") - before


@pytest.mark.parametrize(
    ("path", "body", "size"),
    [
        ("get_image_series/metadata", [EVERYTHING] * 100, 3e6),
        ("get_image_series/image", [{**EVERYTHING, "start_datetime": f"20{n:02}"} for n in range(26)], 4e6),
        ("get_uid_annotations_series/data", [EVERYTHING] * 100, 20e6),
    ],
)
def test_what_is_named_a_hundred_times_is_answered_once_and_takes_little_memory(
    full: RunningHub, path: str, body: Any, size: float
) -> None:
    full.auth("reader")

    def act() -> None:
        with ask(full, path, body) as answer:
            assert answer.status_code == 200
            received = sum(map(len, answer.iter_content(2**16)))
        assert size < received < 2 * size + 20e6

    assert peak_of(act) < 20e6


def test_ranges_name_what_each_of_them_would(full: RunningHub) -> None:
    chance = random.Random(17)
    rows = full.rows()[:900]

    def moment() -> str:
        return iso(START + timedelta(minutes=5 * chance.randrange(len(rows))))

    for _ in range(30):
        asked = [
            (chance.choice(["0a5bb6f4", "0A5BB6F5", "0a5bb6f_", "%5a", "none"]), moment(), moment())
            for _ in range(chance.randrange(1, 9))
        ]
        expected = [
            row["id"]
            for row in rows
            if any(
                start <= row["datetime"] < end
                and fnmatchcase(row["device"], device.lower().replace("_", "?").replace("%", "*"))
                for device, start, end in asked
            )
        ]
        assert [row["id"] for row in full.store.find(by_ranges(asked))] == expected
        own = [row["id"] for row in rows if row["id"] in {*expected} and row["device"] == DEVICES[1]]
        assert [row["id"] for row in full.store.find(by_ranges(asked, DEVICES[1]))] == own


def test_a_question_for_too_much_is_refused_in_one_line(
    full: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = [{**EVERYTHING, "device": f"%{number}"} for number in range(51)]
    assert "more than 50 patterns" in ask(full, "get_image_series/metadata", patterns).text
    for module in (store, annotations):
        monkeypatch.setattr(module, "MOST_ROWS", 300)
    for path in ("get_image_series/metadata", "get_uid_annotations_series/metadata"):
        answer = ask(full, path, [EVERYTHING])
        assert answer.status_code == 500
        assert "more than 300 rows: ask for shorter ranges" in answer.text
    monkeypatch.undo()
    monkeypatch.setattr(long_answers, "_LARGEST", 10**6)
    for path in ("get_image_series/metadata", "get_uid_annotations_series/data"):
        assert "ask for shorter ranges" in ask(full, path, [EVERYTHING], "gzip").text


def test_ten_thousand_ranges_of_named_devices_are_answered(full: RunningHub) -> None:
    ranges = [
        {"device": f"{n:08x}", "start_datetime": "2026-01", "end_datetime": "2026-02"} for n in range(10_000)
    ]
    named = {"device": DEVICES[0], "start_datetime": iso(START), "end_datetime": "2026-01-01T01"}
    assert len(ask(full, "get_image_series/metadata", [*ranges, named]).json()) == 4


def asking(hub: RunningHub, stack: ExitStack) -> socket.socket:
    """A client that asks for everything and reads nothing."""
    token = ":".join(hub.auth("reader"))
    body = json.dumps([EVERYTHING]).encode()
    url = f"{hub.url}/get_uid_annotations_series/data"
    head = requests.Request("POST", url, auth=tuple(token.split(":")), data=body).prepare()
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.headers.items())
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", hub.port))
    text = f"POST /get_uid_annotations_series/data HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{lines}\r\n"
    client.sendall(text.encode() + body)
    return client


def test_nobody_waits_for_those_who_ask_and_do_not_read(
    full: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answers, "_MOST_UNSENT", 6)
    full.auth()
    with ExitStack() as stack:
        for _ in range(6):  # more than the hub has threads
            assert asking(full, stack).recv(12) == b"HTTP/1.1 200"
        assert full.ask("get_images/metadata", [OWN]).status_code == 200
        with full.hub.database.reading() as connection:  # no reader holds the log
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        answer = ask(full, "get_image_series/metadata", [EVERYTHING])
        assert (answer.status_code, answer.text) == (
            503,
            "6 long answers wait for their readers: ask again, or for less\n",
        )
    for _ in range(600):  # until the hub knows that they are gone
        if ask(full, "get_image_series/metadata", [EVERYTHING]).status_code == 200:
            break
        time.sleep(0.1)
    else:
        pytest.fail("whoever has gone counts for ever")


def test_two_long_answers_are_made_at_once_and_whoever_wants_a_third_comes_again(
    full: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    write = long_answers._write

    def slowly(*arguments: Any) -> None:
        begun.release()
        assert go_on.wait(60)
        write(*arguments)

    monkeypatch.setattr(long_answers, "_write", slowly)
    full.auth("reader")
    full.auth()
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(ask, full, "get_image_series/metadata", [EVERYTHING]) for _ in range(2)]
        assert all(begun.acquire(timeout=30) for _ in made)
        answer = ask(full, "get_image_series/metadata", [EVERYTHING])
        assert answer.status_code == 503
        assert answer.text == "other long answers are being made: ask again, or for less\n"
        assert int(answer.headers["Retry-After"]) > 0
        assert full.ask("get_images/metadata", [OWN]).status_code == 200  # what a trap asks for is short
        go_on.set()
        assert [len(one.result().json()) for one in made] == [ROWS, ROWS]


def test_of_large_annotations_one_body_is_read_at_a_time(
    full: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*_: Any) -> list[Any]:
        begun.set()
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(annotations.Annotations, "put", slowly)
    full.auth()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(full.ask, "put_uid_annotations", ["x" * 2**20])
        assert begun.wait(60)
        assert full.ask("put_uid_annotations", ["x" * 2**20]).status_code == 503
        go_on.set()
        assert full.ask("put_uid_annotations", []).status_code == 200
        assert first.result().status_code == 200
    assert full.ask("put_uid_annotations", ["x" * 2**20]).status_code == 200


def test_the_fleet_of_as_many_traps_as_there_can_be_takes_little_memory(tmp_path: Path) -> None:
    with hub_server.running(tmp_path) as hub:
        with hub.hub.database.writing() as connection:
            devices = [(f"{n:08x}",) for n in range(fleet.MOST_TRAPS)]
            connection.executemany("INSERT INTO traps (device) VALUES (?)", devices)
            connection.executemany(
                "INSERT INTO heartbeats (device, received, body) VALUES (?, 0, ?)",
                (
                    (f"{n:08x}", json.dumps({"device": f"{n:08x}", "more": "x" * 4000}))
                    for n in range(fleet.MOST_TRAPS)
                ),
            )
        auth = hub.auth("owner")

        def act() -> None:
            with requests.get(f"{hub.url}/fleet", auth=auth, timeout=60, stream=True) as answer:
                assert answer.status_code == 200
                for _ in answer.iter_content(2**16):
                    pass

        assert peak_of(act) < 20e6
        found = requests.get(f"{hub.url}/fleet", auth=auth, timeout=60).json()
        assert found["at"].startswith("20")
        assert len(found["traps"]) == fleet.MOST_TRAPS
