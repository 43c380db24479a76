"""Home: when the trap calls, what it tells, and the ways there: a hub, a plain web server, a portal in between."""

import hashlib
import heapq
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

import heartbeat_schema
import hub_server
from fake_time import FakeTime
from fault_server import PORTAL
from statuses import status
from trapsync.catalog.facts import Facts, Link
from trapsync.errors import CatalogError, SettingsError, Unauthorised, Unreachable
from trapsync.net.slots import slots_of_trap
from trapsync.remote import heartbeat
from trapsync.remote.uplink.calls import Callbacks, Uplink
from trapsync.remote.uplink.http import LARGEST_DOCUMENT, HttpLink
from trapsync.remote.uplink.pacing import FIRST, CallTimer
from trapsync.settings.config_file import decode
from trapsync.settings.schema import Hub as HubSettings
from trapsync.settings.units import Duration
from trapsync.status.model import RemoteSettings, Status
from trapsync.status.reasons import of_silence

DEVICE = "0a5bb6f4"
HEAD = b"trapsync-signed-1 0123456789abcdef " + b"ab" * 64 + b"\n"
ONE, TWO = HEAD + b"version = 1\n", HEAD + b"version = 2\n"
OWN, GROUP, ALL = f"device-{DEVICE}.settings", "group-valley.settings", "all.settings"
SLOTS = slots_of_trap(DEVICE, ["valley"], ["0" * 16])


# ── When ─────────────────────────────────────────────────────────────────────────────────────────────


def visits_per_minute(
    starts: list[float], down: tuple[float, float], until: float, wait: float = 0.0
) -> Counter[int]:
    """Let 500 traps live in time that is made up; how many reached the hub in each minute."""
    random.seed(7)
    time, seen = FakeTime(), Counter[int]()
    zero, traps, due = time.monotonic(), [], list[tuple[float, int]]()
    for number, start in enumerate(sorted(starts)):
        time.sleep(zero + start - time.monotonic())
        traps.append(CallTimer(900, time))
        due.append((traps[-1].due, number))
    heapq.heapify(due)
    while due[0][0] - zero < until:
        at, number = heapq.heappop(due)
        time.sleep(max(0.0, at - time.monotonic()))
        if down[0] <= at - zero < down[1]:
            traps[number].failed(wait)
        else:
            traps[number].succeeded()
            seen[int((at - zero) // 60)] += 1
        heapq.heappush(due, (traps[number].due, number))
    return seen


@pytest.mark.parametrize(
    ("what", "starts", "down", "wait"),
    [
        ("the power of the valley comes back", [0.0] * 500, (0, 0), 0),
        ("the hub comes back after five minutes", [i * 1.8 for i in range(500)], (7200, 7500), 0),
        ("the hub comes back after an hour", [i * 1.8 for i in range(500)], (7200, 10800), 0),
        ("the hub comes back after a week", [i * 1.8 for i in range(500)], (7200, 7200 + 7 * 86400), 0),
        ("it told all of them to come in ten minutes", [i * 1.8 for i in range(500)], (7200, 10800), 600),
    ],
)
def test_five_hundred_traps_come_back_with_a_peak_of_at_most_twice_the_mean(
    what: str, starts: list[float], down: tuple[float, float], wait: float
) -> None:
    back = down[1]

    seen = visits_per_minute(starts, down, back + 7200, wait)

    for first in (back // 60 + shift for shift in range(0, 60, 10)):  # each ten minutes of the first hour
        minutes = [seen[int(first) + minute] for minute in range(10)]
        assert max(minutes) <= 2 * sum(minutes) / 10, f"{what}: {minutes}"
    assert sum(seen[int(back // 60) + minute] for minute in range(75)) >= 500


def test_after_the_start_it_calls_within_a_quarter_of_an_hour_or_one_interval() -> None:
    random.seed(3)
    time = FakeTime()
    longest = [
        max(CallTimer(every, time).due - time.monotonic() for _ in range(300)) for every in (10, 900, 86400)
    ]
    assert [
        round(seconds / least, 1) for seconds, least in zip(longest, (10, FIRST, FIRST), strict=True)
    ] == [1, 1, 1]


def test_failures_make_it_call_less_often_up_to_four_intervals_and_a_success_ends_that() -> None:
    random.seed(3)
    time = FakeTime()
    timer, waits = CallTimer(900, time), list[float]()
    for _ in range(200):
        timer.failed()
        waits.append(timer.due - time.monotonic())
    timer.succeeded()

    assert max(waits) <= 3600
    assert sum(waits[10:]) / 190 > 1500
    assert 810 <= timer.due - time.monotonic() <= 990


def test_news_goes_home_within_a_minute_but_what_flutters_only_three_times_in_an_interval() -> None:
    time = FakeTime()
    timer = CallTimer(900, time)
    timer.succeeded()
    timer.hasten()
    assert timer.due - time.monotonic() == 300
    time.sleep(400)
    timer.hasten()
    assert timer.due - time.monotonic() <= 60


def test_news_does_not_hurry_a_trap_that_cannot_reach_home() -> None:
    time = FakeTime()
    timer = CallTimer(900, time)
    timer.failed(wait=5000)
    time.sleep(1000)
    timer.hasten()
    assert timer.due - time.monotonic() > 3999


def test_a_hub_cannot_silence_a_trap_for_a_day() -> None:
    time = FakeTime()
    timer = CallTimer(900, time)
    timer.failed(wait=86400)
    assert 6 * 3600 <= timer.due - time.monotonic() <= 6 * 3600 + 3600


# ── What is told ─────────────────────────────────────────────────────────────────────────────────────


def test_a_heartbeat_holds_what_a_table_of_traps_needs() -> None:
    report = {"state": "trial", "last_received_hash": "a" * 64, "effective_hash": "b" * 64}

    beat = json.loads(heartbeat.compose(status(battery=81, remote=report), 900.0))
    heartbeat_schema.require(beat)

    assert (beat["newest_delivery"], beat["newest_delivery_age_s"]) == ("2026-06-21T20:00:00Z", 1155)
    assert (beat["battery"], beat["refused"], beat["capture_failures"], beat["every_s"]) == (81, 2, 0, 900)
    assert {key: beat["remote"][key] for key in report} == report
    assert "battery" not in json.loads(heartbeat.compose(status(), 900.0))


@pytest.mark.parametrize("letter", ["x", "é", "🦋", '"', "\x00", "\ud800"])
def test_a_heartbeat_is_small_whatever_went_wrong_and_keeps_its_hashes(letter: str) -> None:
    long = letter * 5000
    report = {"state": "none", "reason": long, "last_received_hash": "a" * 64, "effective_hash": "b" * 64}

    data = heartbeat.compose(status(reasons=[long] * 40, name=long, verdict="failing", remote=report), 900.0)

    beat = json.loads(data)
    assert len(data) < 2000
    assert (beat["verdict"], beat["remote"]["effective_hash"]) == ("failing", "b" * 64)
    assert len(beat["reasons"]) == 6
    assert len(beat["reasons"][0]) > 10


# ── By HTTPS ─────────────────────────────────────────────────────────────────────────────────────────


class Scripted(BaseHTTPRequestHandler):
    """Answers each path as it is told: status, headers, body. What it was asked is kept."""

    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, dict[str, str], bytes]]

    def do_GET(self) -> None:
        """The same for each method."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.path, dict(self.headers), body))
        status, headers, content = self.answers.get(self.path, (404, {}, b"nothing"))
        if "ETag" in headers and headers["ETag"] == self.headers.get("If-None-Match"):
            status, content = 304, b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """The same."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A client that goes away is part of the game."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def script() -> Iterator[tuple[type[Scripted], str]]:
    class Here(Scripted):
        answers: dict[str, Any] = {}  # noqa: RUF012 - one class for each test
        asked: list[Any] = []  # noqa: RUF012

    with serving(Here) as url:
        yield Here, url


def web(url: str, folder: Path | None = None, **more: Any) -> HttpLink:
    """The way to it; with a password if there is a folder to keep it in."""
    if folder:
        secret = folder / "password"
        secret.write_text(more.pop("password", hub_server.PASSWORD))
        secret.chmod(0o600)
        more |= {"username": "trap", "password_file": secret}
    time = FakeTime()
    settings = HubSettings(url=url, **more)
    return HttpLink(settings, DEVICE, SLOTS, time, time.sleep)


def pulled(way: HttpLink) -> list[bytes]:
    got = list[bytes]()
    way.pull(got.append)
    return got


def test_the_hub_hands_out_what_is_for_this_trap_once_and_takes_its_heartbeat(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        hub.hub.fleet.put(OWN, ONE, "owner")
        hub.hub.fleet.put(ALL, TWO, "owner")
        hub.hub.fleet.put("device-ffffffff.settings", TWO, "owner")
        way = web(hub.url, tmp_path)

        assert pulled(way) == [ONE, TWO]
        assert pulled(way) == []
        hub.hub.fleet.put(OWN, TWO, "owner")
        assert pulled(way) == [TWO]
        way.tell(heartbeat.compose(status(verdict="failing"), 900.0))
        way.close()

        (trap,) = hub.hub.fleet.snapshot()["traps"]
        assert (trap["device"], trap["heartbeat"]["verdict"]) == (DEVICE, "failing")


def test_a_folder_on_any_web_server_will_do(tmp_path: Path) -> None:
    place = tmp_path / "pushed" / GROUP
    place.parent.mkdir()
    place.write_bytes(ONE)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(partial(Quiet, directory=str(tmp_path))) as url:
        way = web(url, heartbeat_url="none")
        assert pulled(way) == [ONE]
        assert pulled(way) == []
        place.write_bytes(TWO)
        assert pulled(way) == [TWO]
        with pytest.raises(Unreachable, match="takes no heartbeats"):
            web(url).tell(b"{}")
        way.close()


def test_who_has_a_document_is_sent_nothing_but_304(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers[f"/pushed/{OWN}"] = (200, {"ETag": '"a"'}, ONE)
    way = web(url)

    assert (pulled(way), pulled(way)) == ([ONE], [])
    asked = [headers.get("If-None-Match") for path, headers, _ in server.asked if path.endswith(OWN)]
    assert asked == [None, '"a"']


@pytest.mark.parametrize("tag", ['"\x1b[2J"', '"é"', '"' + "x" * 500 + '"'])
def test_a_tag_that_cannot_be_sent_back_keeps_no_document_away(
    script: tuple[type[Scripted], str], tag: str
) -> None:
    server, url = script
    server.answers[f"/pushed/{OWN}"] = (200, {"ETag": tag}, ONE)
    way = web(url)
    assert pulled(way) == [ONE]
    server.answers[f"/pushed/{OWN}"] = (200, {"ETag": tag}, TWO)
    assert pulled(way) == [TWO]
    assert not any("If-None-Match" in headers for _, headers, _ in server.asked)


def test_a_document_that_could_not_be_handed_over_comes_again(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers[f"/pushed/{OWN}"] = (200, {"ETag": '"a"'}, ONE)
    way = web(url)

    def refuse(_data: bytes) -> None:
        raise CatalogError("the card is full")

    with pytest.raises(CatalogError):
        way.pull(refuse)
    assert pulled(way) == [ONE]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, {"Content-Type": "text/html"}, PORTAL), "captive portal"),
        ((302, {"Location": "http://portal.example/"}, PORTAL), "captive portal"),
        ((200, {"Content-Type": "text/plain"}, b""), "no signed document"),
        ((200, {}, ONE + b"#" * LARGEST_DOCUMENT), "are the most"),
        ((200, {}, ONE + b"#" * 2**21), "longer than"),
        ((500, {}, b"oh"), "answered 500"),
        ((401, {}, b"who?"), "answered 401"),
        ((503, {"Retry-After": "77"}, b""), "in 77 s"),
        ((507, {"Content-Type": "text/plain"}, b"full"), "has no room left (507)"),
        ((304, {}, b""), "answered 304"),
    ],
)
def test_what_is_no_document_is_none_and_says_why(
    script: tuple[type[Scripted], str], answer: tuple[int, dict[str, str], bytes], complaint: str
) -> None:
    server, url = script
    server.answers[f"/pushed/{OWN}"] = answer
    got = list[bytes]()

    try:
        said = web(url).pull(got.append)
    except Unreachable as error:
        said = str(error)

    assert said
    assert complaint in said
    assert got == []


def test_where_nothing_that_comes_is_a_document_the_hub_is_not_reached(
    script: tuple[type[Scripted], str],
) -> None:
    """As where a sign-in page answers to everything."""
    server, url = script
    page = (200, {"Content-Type": "text/html"}, PORTAL)
    server.answers = {f"/pushed/{slot}": page for slot in SLOTS}
    with pytest.raises(Unreachable, match="captive portal"):
        web(url).pull(print)


def test_rubbish_for_all_does_not_keep_a_trap_from_its_own(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers[f"/pushed/{OWN}"] = (200, {}, b"rubbish")
    server.answers[f"/pushed/{ALL}"] = (200, {}, ONE)
    got = list[bytes]()

    said = web(url).pull(got.append)

    assert said
    assert "no signed document" in said
    assert got == [ONE]


def test_rubbish_in_one_place_is_told_and_the_hub_is_reached_all_the_same(
    script: tuple[type[Scripted], str],
) -> None:
    """Settings on trial ask whether the hub is reached: one unsigned file must not undo all that is signed."""
    server, url = script
    server.answers = {f"/pushed/{OWN}": (200, {}, b"rubbish")}
    bench = Bench(url, heartbeat_url="none")
    bench.live(3 * 3600)
    link = bench.memory["hub"]["web"]
    assert "no signed document" in link.error
    assert (link.works, link.reached > link.since) == (True, True)
    server.answers = dict.fromkeys([f"/pushed/{slot}" for slot in SLOTS], (500, {}, b""))
    bench.live(3 * 3600)
    assert bench.memory["hub"]["web"].works is False


def test_a_bucket_that_says_403_for_what_it_has_not_is_empty_but_a_hub_that_does_knows_us_not(
    script: tuple[type[Scripted], str], tmp_path: Path
) -> None:
    server, url = script
    server.answers = {f"/pushed/{slot}": (403, {}, b"<Error>AccessDenied") for slot in SLOTS}

    assert pulled(web(url)) == []
    with pytest.raises(Unauthorised, match="username"):
        web(url, tmp_path).pull(print)


def test_a_group_that_the_hub_does_not_give_this_trap_is_told_in_the_hubs_words_and_costs_nothing_else(
    script: tuple[type[Scripted], str], tmp_path: Path
) -> None:
    server, url = script
    line = (
        b"trap 0a5bb6f4 is not in the group valley at this hub; the operator types: trapsync hub groups ..."
    )
    server.answers = {f"/pushed/{GROUP}": (403, {"Content-Type": "text/plain; charset=utf-8"}, line)}
    server.answers[f"/pushed/{ALL}"] = (200, {}, ONE)
    taken = list[bytes]()

    assert web(url, tmp_path).pull(taken.append) == f"{GROUP}: {line.decode()}"
    assert taken == [ONE]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_server_that_takes_a_post_takes_heartbeats(
    script: tuple[type[Scripted], str], status: int
) -> None:
    server, url = script
    server.answers[f"/heartbeats/{DEVICE}"] = (status, {}, b"")
    web("", heartbeat_url=url).tell(b'{"a": 1}')
    ((_, headers, body),) = server.asked
    assert (headers["Content-Type"], body) == ("application/json", b'{"a": 1}')


@pytest.mark.parametrize(
    "answer", [(200, {"Content-Type": "text/html"}, PORTAL), (302, {}, b""), (500, {}, b"")]
)
def test_a_portals_page_is_no_receipt_for_a_heartbeat(
    script: tuple[type[Scripted], str], answer: tuple[int, dict[str, str], bytes]
) -> None:
    server, url = script
    server.answers[f"/heartbeats/{DEVICE}"] = answer
    with pytest.raises(Unreachable):
        web(url).tell(b"{}")


# ── A turn ───────────────────────────────────────────────────────────────────────────────────────────


class Bench:
    """A home with its callbacks in hand."""

    def __init__(self, url: str, **more: Any) -> None:
        self.time = FakeTime()
        self.status = status()
        self.got: list[bytes] = []
        self.memory: dict[str, Any] = {}
        self.state = "none"
        callbacks = Callbacks(self.got.append, self.snapshot, self.remember)
        settings = HubSettings(url=url, every=Duration(900), **more)
        self.home = Uplink(settings, DEVICE, SLOTS, callbacks, self.time, self.time.sleep)

    def snapshot(self) -> Status:
        """As `status.snapshot` would."""
        last = hashlib.sha256(self.got[-1]).hexdigest() if self.got else None
        report = RemoteSettings(state=self.state, last_received_hash=last, effective_hash=None)
        return msgspec.structs.replace(self.status, remote=report)

    def remember(self, fact: str, value: Any) -> None:
        """As the catalog would."""
        self.memory[fact] = value

    def live(self, seconds: float) -> None:
        """Tick through so much time."""
        for _ in range(int(seconds // self.home.tick_every)):
            self.time.sleep(self.home.tick_every)
            self.home.tick()


def beats(server: type[Scripted]) -> list[dict[str, Any]]:
    return [json.loads(body) for path, _, body in server.asked if path.startswith("/heartbeats")]


def test_a_turn_asks_before_it_tells_so_that_what_came_is_confirmed_at_once(
    script: tuple[type[Scripted], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One turn, in the middle of the 900 s.
    monkeypatch.setattr("random.uniform", lambda low, high: (low + high) / 2)
    server, url = script
    server.answers = {f"/pushed/{ALL}": (200, {}, ONE), f"/heartbeats/{DEVICE}": (200, {}, b"{}")}
    bench = Bench(url)

    bench.live(900)

    assert bench.got == [ONE]
    assert [beat["remote"]["last_received_hash"] for beat in beats(server)] == [
        hashlib.sha256(ONE).hexdigest()
    ]
    assert bench.memory["hub"]["web"].error is None


def test_documents_come_again_once_a_day_and_when_the_clock_was_set_for_they_may_be_valid_by_then(
    script: tuple[type[Scripted], str],
) -> None:
    server, url = script
    server.answers = {
        f"/pushed/{ALL}": (200, {"ETag": '"a"'}, ONE),
        f"/heartbeats/{DEVICE}": (200, {}, b"{}"),
    }
    bench = Bench(url)
    bench.live(3 * 3600)
    assert bench.got == [ONE]
    bench.time.step_wall(-70 * 365 * 86400)
    bench.live(3600)
    assert bench.got == [ONE] * 2
    bench.live(26 * 3600)
    assert bench.got == [ONE] * 3


def test_it_tells_every_interval_and_soon_after_a_change_of_verdict(
    script: tuple[type[Scripted], str],
) -> None:
    server, url = script
    server.answers = {f"/heartbeats/{DEVICE}": (200, {}, b"{}")}
    bench = Bench("", heartbeat_url=url)
    bench.live(5 * 3600)
    told = len(beats(server))
    assert 18 <= told <= 23
    while len(beats(server)) == told:
        bench.live(10)
    bench.live(350)  # the third of an interval that must lie between two

    bench.status = status(verdict="failing", reasons=["no pictures"])
    bench.live(130)

    assert [beat["verdict"] for beat in beats(server)[told + 1 :]] == ["failing"]


def test_a_start_with_settings_on_trial_is_news(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers = {f"/heartbeats/{DEVICE}": (200, {}, b"{}")}
    random.seed(2)  # neither would call by itself so soon
    before, same, other = (Bench("", heartbeat_url=url) for _ in range(3))
    before.live(1000)
    same.home.recall(Facts(**before.memory))
    other.home.recall(Facts(**before.memory))
    other.state = "trial"
    server.asked.clear()

    same.live(80)
    assert beats(server) == []
    other.live(80)
    assert [beat["remote"]["state"] for beat in beats(server)] == ["trial"]


def test_at_most_one_heartbeat_waits_and_it_is_the_newest(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers = {f"/heartbeats/{DEVICE}": (500, {}, b"")}
    bench = Bench("", heartbeat_url=url)
    for number in range(20):
        bench.status = status(at=f"before {number}", verdict="failing" if number % 2 else "ok")
        bench.live(3600)
    assert len(beats(server)) > 20
    server.asked.clear()
    server.answers = {f"/heartbeats/{DEVICE}": (200, {}, b"{}")}
    bench.status = status(at="now")

    bench.live(4 * 900)

    assert {beat["at"] for beat in beats(server)} == {"now"}
    assert len(beats(server)) <= 5


def test_silence_at_home_is_a_fact_and_a_warning_when_it_is_old_but_no_error(
    script: tuple[type[Scripted], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench = Bench("http://127.0.0.1:9")

    bench.live(2 * 3600)
    early = of_silence(bench.memory["hub"], 900, bench.time.wall() - 3600)
    late = of_silence(bench.memory["hub"], 900, bench.time.wall())

    assert early is None
    assert late is not None
    assert "no heartbeat reached the hub for 2 h: 127.0.0.1:9: connection refused" in late
    assert [record.levelname for record in caplog.records if record.name.startswith("trapsync")] == ["INFO"]


def test_a_hub_that_rejects_the_trap_is_a_warning_at_once(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    refused: tuple[int, dict[str, str], bytes] = (401, {}, b"Unauthorized Access")
    server.answers = {f"/pushed/{slot}": refused for slot in SLOTS} | {f"/heartbeats/{DEVICE}": refused}
    bench = Bench(url)

    bench.live(1000)
    now = of_silence(bench.memory["hub"], 900, bench.time.wall())

    assert now is not None
    assert now.startswith("the hub rejects this trap: 127.0.0.1:")
    server.answers = {f"/heartbeats/{DEVICE}": (200, {}, b"{}")}
    bench.live(2 * 3600)
    assert of_silence(bench.memory["hub"], 900, bench.time.wall()) is None


def test_one_way_that_works_is_enough() -> None:
    bad = Link(since=0.0, error="no")
    good = Link(reached=0.0)
    assert of_silence({"web": bad, "mqtt": good}, 900, 10**6) is None
    assert of_silence({"web": bad}, 900, 10**6) is not None
    assert of_silence({}, 900, 10**6) is None


def test_somebody_on_site_need_not_wait(script: tuple[type[Scripted], str]) -> None:
    server, url = script
    server.answers = {f"/heartbeats/{DEVICE}": (500, {}, b"")}
    bench = Bench("", heartbeat_url=url)
    bench.live(3600)
    server.asked.clear()
    bench.home.call_now()
    bench.live(10)
    assert len(beats(server)) == 1


def test_without_an_address_there_is_no_home() -> None:
    bench = Bench("")
    bench.live(3600)
    assert not HubSettings().is_set
    assert bench.memory == {}


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"url": "hub.example.org"}, "hub.url: 'hub.example.org' is not an address"),
        ({"url": "https://me:secret@hub.example.org"}, "passwords do not belong there"),
        ({"heartbeat_url": "ftp://x"}, "hub.heartbeat_url: 'ftp://x' is not"),
        ({"username": "trap"}, "goes with a password_file"),
        ({"password_file": "p"}, "goes with a password_file"),
        ({"every": "0 s"}, "hub.every: 0 s is not between 1 s and 7 days"),
        ({"mqtt": {"host": "mqtt://broker"}}, "hub.mqtt.host: 'mqtt://broker' is no name"),
        ({"mqtt": {"topic_prefix": "a/#"}}, "hub.mqtt.topic_prefix: 'a/#' is no beginning"),
        ({"mqtt": {"port": 0}}, "hub.mqtt.port: 0 is not between"),
        ({"ur": "x"}, "did you mean 'url'?"),
    ],
)
def test_a_wrong_address_is_one_line(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        decode(table, HubSettings, "trapsync.toml", "hub")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)
