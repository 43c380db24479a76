"""The hub's connections, from outside: heads before bodies, deadlines, limits, guessers, and a web server in front."""

import base64
import http.client
import json
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import werkzeug.security

import drawings
import flooded_hub
import hub_server
from fake_time import FakeTime
from hub_server import PASSWORD, RunningHub
from trapsync.hub import accounts, channel
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD
from trapsync.hub.channel import Channel

LARGE = 99_000_000
NAME = f"{drawings.DEVICE}.2026-06-20_20-19-15.jpg"


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """Without the time that a hash takes; all connections are closed afterwards."""
    with hub_server.cheap_passwords():
        yield
    while _LINES:
        _LINES.pop().socket.close()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeTime) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub", clock=clock) as running:
        yield running


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    """The hub's ends of all connections."""
    made, make = list[Channel](), Channel.__init__

    def noted(self: Channel, *arguments: Any, **more: Any) -> None:
        make(self, *arguments, **more)
        made.append(self)

    monkeypatch.setattr(Channel, "__init__", noted)
    return made


def until(claim: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)  # the hub's thread is to come so far


_LINES: list["Line"] = []


class Line:
    """A connection, byte by byte."""

    def __init__(self, hub: RunningHub, address: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", hub.port), 20, (address, 0))
        _LINES.append(self)

    def send(self, data: bytes) -> None:
        """Send."""
        self.socket.sendall(data)

    def ask(self, path: str, *, login: tuple[str, str] | None = None, **headers: object) -> None:
        """Send the head of a POST."""
        if login:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(login).encode()).decode()
        lines = [f"POST {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the next answer."""
        found = http.client.HTTPResponse(self.socket)
        found.begin()
        self.headers = found.headers
        return found.status, found.read()

    def is_open(self) -> bool:
        """Whether the hub has not ended it. Nothing is to be received."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(20)


@contextmanager
def lines(hub: RunningHub, count: int, address: str = "127.0.0.1") -> Iterator[list[Line]]:
    """So many connections, until the end of the block."""
    made = [Line(hub, address) for _ in range(count)]
    yield made
    for line in made:
        line.socket.close()


# ── The head first ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "user", "status"),
    [
        ("/_put_new_images", None, 401),
        ("/_put_new_images", "reader", 403),
        ("/get_images/metadata", "reader", 413),
        ("/nowhere", None, 404),
    ],
)
def test_a_large_body_is_refused_by_its_head_before_a_byte_of_it(
    hub: RunningHub, path: str, user: str | None, status: int
) -> None:
    line = Line(hub)
    line.ask(path, login=hub.auth(user) if user else None, Content_Length=LARGE)

    assert line.answer()[0] == status
    assert line.headers["Connection"] == "close"
    assert line.socket.recv(1) == b""


def test_a_trap_reads_why_its_picture_is_not_taken_although_that_was_on_its_way(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trapsync.files.space.free_bytes", lambda _: 1_000_000)
    line = Line(hub)
    line.ask("/_put_new_images", login=hub.auth(), Content_Length=3_276_800)
    for _ in range(50):
        line.send(b"x" * 65536)
    assert line.answer()[0] == 507


def test_a_body_without_an_account_is_never_kept(hub: RunningHub, channels: list[Channel]) -> None:
    line = Line(hub)
    line.ask("/_put_new_images", Content_Length=LARGE)
    for _ in range(LARGE // 65536):
        try:
            line.send(b"x" * 65536)
        except OSError:
            break
    else:
        pytest.fail("it took all")
    assert channels[0]._moved < 2**20
    assert channels[0].promised == 0


def test_100_continue_comes_after_the_look_at_the_head(hub: RunningHub) -> None:
    stranger, trap = Line(hub), Line(hub)
    stranger.ask("/heartbeats/0a5bb6f4", Content_Length=50, Expect="100-continue")
    trap.ask("/heartbeats/0a5bb6f4", login=hub.auth(), Content_Length=36, Expect="100-continue")

    assert stranger.answer()[0] == 401
    assert trap.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    trap.send(json.dumps({"device": "0a5bb6f4", "verdict": ""}).encode()[:36])
    assert trap.answer()[0] in {200, 400}


def test_a_body_in_chunks_ends_at_the_endpoints_limit(hub: RunningHub) -> None:
    line = Line(hub)
    line.ask("/get_images/metadata", login=hub.auth(), Transfer_Encoding="chunked")
    with suppress(OSError):
        for _ in range(40):
            line.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    assert line.answer()[0] == 413


def test_a_body_that_came_with_its_head_waits_for_the_password(hub: RunningHub) -> None:
    line = Line(hub)
    credentials = base64.b64encode(f"trap:{PASSWORD}".encode())
    body = b'[{"device": "0a5bb6f4", "datetime": "x"}]'
    line.send(
        b"POST /get_images/metadata HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Basic %s\r\nContent-Length: %d\r\n\r\n%s" % (credentials, len(body), body)
    )
    assert line.answer() == (200, b"[]\n")


def test_what_follows_a_request_without_waiting_is_not_taken(hub: RunningHub) -> None:
    line = Line(hub)
    login = base64.b64encode(":".join(hub.auth()).encode())
    head = b"POST /get_token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic %s\r\n\r\n" % login
    line.send(head * 2)
    assert line.answer()[0] == 200
    assert line.socket.recv(1) == b""


def test_every_answer_keeps_browsers_from_guessing_what_it_is(hub: RunningHub) -> None:
    requests_made = (
        b"GET /fleet HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /image/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    )
    seen = []
    for request in requests_made:
        line = Line(hub)
        line.send(request)
        seen.append(line.answer()[0])
        assert line.headers["X-Content-Type-Options"] == "nosniff"
    assert seen == [401, 403, 400, 431]
    good = requests.post(f"{hub.url}/get_token", auth=hub.auth(), timeout=20)
    assert good.headers["X-Content-Type-Options"] == "nosniff"


def test_credentials_with_letters_that_base64_has_not_are_none(hub: RunningHub) -> None:
    line = Line(hub)
    line.send(b"POST /get_token HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\r\n\r\n")
    assert line.answer()[0] == 401


# ── Deadlines ────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_that_is_not_whole_after_ten_seconds_ends_its_connection(
    hub: RunningHub, clock: FakeTime, channels: list[Channel]
) -> None:
    with lines(hub, 3) as (silent, half, drips):
        until(lambda: len(channels) == 3)
        half.send(b"POST /get_token HTTP/1.1\r\n")
        drips.send(b"POST /get_token HTTP/1.1\r\nX: ")
        for _ in range(11):
            clock.sleep(1)
            with suppress(OSError):
                drips.send(b"x")
        until(lambda: not any(one.is_open() for one in (silent, half, drips)))


def test_who_has_logged_in_may_rest_for_a_minute(hub: RunningHub, clock: FakeTime) -> None:
    line = Line(hub)
    for wait in (0, 50, 61):
        clock.sleep(wait)
        if wait < 60:
            line.ask("/get_token", login=hub.auth())
            assert line.answer()[0] == 200
    until(lambda: not line.is_open())


def test_a_body_that_comes_next_to_not_at_all_ends_its_connection(
    hub: RunningHub, clock: FakeTime, channels: list[Channel]
) -> None:
    login = hub.auth()
    with lines(hub, 2) as (stalls, moves):
        for line in (stalls, moves):
            line.ask("/_put_new_images", login=login, Content_Length=LARGE)
        until(lambda: [one.promised for one in channels] == [LARGE, LARGE])
        for _ in range(3):
            moved = channels[1]._moved
            moves.send(b"x" * 13_000)
            until(lambda before=moved: channels[1]._moved >= before + 13_000)  # type: ignore[misc]
            clock.sleep(61)
            until(lambda: channels[1]._window[0] == clock.monotonic())
        assert not stalls.is_open()
        assert moves.is_open()


def test_an_answer_that_nobody_reads_ends_its_connection(
    hub: RunningHub, clock: FakeTime, channels: list[Channel]
) -> None:
    assert hub.upload(NAME, drawings.trap()).status_code == 200
    (row,) = hub.rows()
    hub.store.path(row).write_bytes(b"x" * 20_000_000)
    user = hub.hub.accounts.named("trap")
    assert user
    signed = hub.hub.links.sign(row["id"], "image", user)
    line = Line(hub)
    line.send(f"GET /image/x?signed={signed} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: channels[-1]._moved > 100_000)
    clock.sleep(61)
    until(lambda: channels[-1]._window[0] == clock.monotonic())  # the first window was a good one
    clock.sleep(61)
    until(lambda: not channels[-1].connected)
    line.socket.close()


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────────


def test_at_the_limit_the_oldest_that_has_not_logged_in_goes(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "CONNECTIONS", 6)
    monkeypatch.setattr(channel, "_NEWCOMERS", 1)
    with lines(hub, 1) as (trap,), lines(hub, 3, "127.0.0.2") as first, lines(hub, 2, "127.0.0.3") as second:
        trap.ask("/get_token", login=hub.auth())
        assert trap.answer()[0] == 200
        with lines(hub, 3, "127.0.0.4") as third:
            until(lambda: not any(one.is_open() for one in first))
            assert all(one.is_open() for one in (trap, *second, *third))
            honest = requests.post(f"{hub.url}/get_token", auth=hub.auth(), timeout=20)
            assert honest.status_code == 200


def test_who_has_logged_in_goes_only_where_all_have(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECTIONS", 3)
    with lines(hub, 3) as known:
        for line in known:
            line.ask("/get_token", login=hub.auth())
            assert line.answer()[0] == 200
        with lines(hub, 1, "127.0.0.2") as (newcomer,):
            until(lambda: [one.is_open() for one in known] == [False, True, True])
            assert newcomer.is_open()


def test_one_address_holds_a_hundred_connections_and_a_burst_of_a_second(
    hub: RunningHub, clock: FakeTime, channels: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PER_NETWORK", 3)
    with lines(hub, 5) as many, lines(hub, 2, "127.0.0.2") as others, lines(hub, 1) as (trap,):
        trap.ask("/get_token", login=hub.auth())
        assert trap.answer()[0] == 200
        until(lambda: len(channels) == 8 and all(one._turns > 3 for one in channels))
        assert all(one.is_open() for one in many)
        clock.sleep(2)
        until(lambda: [one.is_open() for one in many] == [False, False, True, True, True])
        assert all(one.is_open() for one in (*others, trap))


def test_traps_behind_one_address_wait_for_a_password_that_takes_long_to_compare(
    hub: RunningHub, clock: FakeTime, channels: list[Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five hundred traps came back at once, on a machine that was busy: some were cut off."""
    go = threading.Event()
    monkeypatch.setattr(channel, "PER_NETWORK", 3)
    monkeypatch.setattr(accounts, "check_password_hash", lambda *_: go.wait(20))
    hub.auth()
    with lines(hub, 9) as traps:
        for line in traps:
            line.ask("/get_token", login=("trap", hub_server.PASSWORD))
        until(lambda: len(channels) == 9 and all(one._login for one in channels))
        clock.sleep(2)
        with lines(hub, 5) as idle:
            until(lambda: len(channels) == 14 and all(one._turns > 3 for one in channels))
            clock.sleep(2)
            until(lambda: [one.is_open() for one in idle] == [False, False, True, True, True])
        go.set()
        assert [one.answer()[0] for one in traps] == [200] * 9


def test_a_trap_holds_no_more_connections_than_it_needs(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PER_TRAP", 2)
    user = accounts.User(7, "0a5bb6f4", "trap")
    monkeypatch.setattr(hub.hub.accounts.__class__, "recognise_at_once", lambda *_: user)
    with lines(hub, 4) as many:
        for line in many:
            line.ask("/_put_new_images", login=("0a5bb6f4", "x"), Content_Length=1000)
        until(lambda: [one.is_open() for one in many] == [False, False, True, True])


def test_bodies_take_neither_more_room_than_there_is_nor_more_than_their_share(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, channels: list[Channel]
) -> None:
    monkeypatch.setattr(channel, "_ALL_BODIES", 150_000_000)
    with lines(hub, 3) as (first, second, third):
        first.ask("/_put_new_images", login=hub.auth(), Content_Length=LARGE)
        until(lambda: channels and channels[0].promised)
        second.ask("/_put_new_images", login=hub.auth(), Content_Length=LARGE)
        assert second.answer()[0] == 503
        assert second.headers["Retry-After"] == "5"
        monkeypatch.setattr("trapsync.files.space.free_bytes", lambda _: LARGE)
        third.ask("/_put_new_images", login=hub.auth(), Content_Length=1_000_000)
        status, body = third.answer()
        assert (status, body[:30]) == (507, b"this hub has 99 MB of room lef")
        small = requests.post(f"{hub.url}/get_images/image", json=[{}], auth=hub.auth(), timeout=20)
        assert small.status_code == 500  # the app's own answer


def test_a_body_waits_in_memory_while_there_are_few_of_them_and_in_a_file_else(
    hub: RunningHub, channels: list[Channel]
) -> None:
    def received_in_files() -> list[bool]:
        return [
            one.request.body_rcv.buf.overflowed
            for one in channels
            if one.request and one.request.body_bytes_received >= 1_000_000
        ]

    with lines(hub, 2) as (first, second):
        for count, line in enumerate((first, second), start=1):
            line.ask("/_put_new_images", login=hub.auth(), Content_Length=10_000_000)
            line.send(b"x" * 1_000_000)
            until(lambda count=count: len(received_in_files()) == count)  # type: ignore[misc]
        assert received_in_files() == [False, True]


# ── Guessers ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_guesser_is_slowed_down_seen_in_the_log_and_costs_no_hash(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compared = list[str]()

    def compare(stored: str, password: str) -> bool:
        compared.append(password)
        return bool(werkzeug.security.check_password_hash(stored, password))

    monkeypatch.setattr(accounts, "check_password_hash", compare)
    url = f"{hub.url}/get_token"
    assert requests.post(url, auth=("trap", PASSWORD), timeout=20).status_code == 200
    answers = [requests.post(url, auth=("trap", f"guess {n}"), timeout=20) for n in range(20)]

    assert [one.status_code for one in answers] == [401, *[429] * 19]
    assert answers[-1].headers["Retry-After"] == "1"
    assert compared == [PASSWORD, "guess 0"]
    assert requests.post(url, auth=("trap", PASSWORD), timeout=20).status_code == 200
    assert [line for line in caplog.messages if "127.0.0.1" in line] == [
        "401 for 127.0.0.1 as trap",
        "429 for 127.0.0.1 as trap",
    ]


def test_nobody_waits_for_the_passwords_of_others(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(accounts, "check_password_hash", lambda *_: go.wait(20) and False)
    token = hub.auth()
    with lines(hub, 20) as guessers:
        for number, line in enumerate(guessers):
            line.ask("/get_token", login=("trap", f"guess {number}"))
        sockets = [one.socket for one in guessers]
        until(lambda: len(select.select(sockets, [], [], 0)[0]) >= 15)
        answered = select.select(sockets, [], [], 0)[0]
        refused = [one for one in guessers if one.socket in answered]
        assert {one.answer()[0] for one in refused} == {503}
        assert refused[0].headers["Retry-After"] == "5"
        assert requests.post(f"{hub.url}/get_token", auth=token, timeout=20).status_code == 200
        go.set()
        assert {one.answer()[0] for one in guessers if one not in refused} == {401}


# ── Behind a web server ──────────────────────────────────────────────────────────────────────────────

FORWARDED = {"X-Forwarded-For": "10.1.1.1, 203.0.113.9", "X-Forwarded-Proto": "https"}


def link(hub: RunningHub) -> str:
    hub.upload(NAME, drawings.trap())
    key = {"device": drawings.DEVICE, "datetime": "2026-06-20T20:19:15Z"}
    answer = requests.post(
        f"{hub.url}/get_images/image",
        json=[key],
        auth=hub.auth(),
        headers={**FORWARDED, "Host": "hub.example.org"},
        timeout=20,
    )
    return re.sub("/image/.*", "", str(answer.json()[0]["url"]))


@pytest.mark.parametrize(
    ("behind_proxy", "url", "seen"),
    [
        ("", "", "http://hub.example.org"),
        ("10.0.0.7", "", "http://hub.example.org"),
        ("127.0.0.1", "", "https://hub.example.org"),
        ("127.0.0.1", "https://moths.example.org", "https://moths.example.org"),
    ],
)
def test_addresses_are_as_the_hub_is_called_from_outside(
    tmp_path: Path, behind_proxy: str, url: str, seen: str
) -> None:
    with hub_server.running(tmp_path / "hub", behind_proxy=behind_proxy, url=url) as hub:
        assert link(hub) == seen


@pytest.mark.parametrize(("behind_proxy", "address"), [("127.0.0.1", "203.0.113.9"), ("", "127.0.0.1")])
def test_a_guesser_is_counted_by_the_address_that_a_trusted_web_server_names(
    tmp_path: Path, behind_proxy: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with hub_server.running(tmp_path / "hub", behind_proxy=behind_proxy) as hub:
        answer = requests.post(f"{hub.url}/get_token", auth=("trap", "wrong"), headers=FORWARDED, timeout=20)
        other = requests.post(
            f"{hub.url}/get_token",
            auth=("trap", "wrong"),
            headers={"X-Forwarded-For": "203.0.113.10"},
            timeout=20,
        )
    assert answer.status_code == 401
    assert other.status_code == (401 if behind_proxy else 429)
    assert f"401 for {address} as trap" in caplog.messages


def test_the_connections_of_a_web_server_rest_for_longer(
    tmp_path: Path, clock: FakeTime, channels: list[Channel]
) -> None:
    with hub_server.running(tmp_path / "hub", clock=clock, behind_proxy="127.0.0.1") as hub:
        web, direct = Line(hub), Line(hub, "127.0.0.2")
        until(lambda: len(channels) == 2)
        clock.sleep(150)
        until(lambda: not direct.is_open())
        assert web.is_open()
        web.ask("/join", Content_Length=100)  # and never the body
        until(lambda: channels[0].promised)
        clock.sleep(11)
        until(lambda: not web.is_open())


def test_a_default_password_is_for_this_machine_only(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        hub.hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
        url, login = f"{hub.url}/get_token", (DEFAULT_NAME, DEFAULT_PASSWORD)
        assert requests.post(url, auth=login, timeout=20).status_code == 200
        for header in ({"X-Forwarded-For": "8.8.8.8"}, {"Host": "hub.example.org"}):
            assert requests.post(url, auth=login, headers=header, timeout=20).status_code == 403


# ── All at once ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what another process has open")
def test_what_is_being_received_lies_in_the_hubs_own_folder(tmp_path: Path) -> None:
    with flooded_hub.running(tmp_path) as (process, port, token):
        line = socket.create_connection(("127.0.0.1", port), 20)
        login = base64.b64encode(":".join(token).encode()).decode()
        head = f"POST /_put_new_images HTTP/1.1\r\nAuthorization: Basic {login}\r\nContent-Length: {LARGE}\r\n\r\n"
        line.sendall(head.encode() + b"x" * 2_000_000)
        folder = str(tmp_path / "hub" / "images" / ".incoming")

        def opened() -> list[str]:
            found = []
            for one in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    found.append(str(one.readlink()))
            return [one for one in found if one.endswith("(deleted)")]

        until(opened)
        assert [one for one in opened() if not one.startswith(folder)] == []
        line.close()
        until(lambda: not opened())
