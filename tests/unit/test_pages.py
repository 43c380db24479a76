"""Pages of the hub: who gets in, by which cookie; forms; headers; pictures. See tests/browser for what a browser shows."""

import errno
import json
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import requests

import drawings
import hub_server
from fake_time import FakeTime
from hub_server import PASSWORD, RunningHub
from pages_visitor import Visitor
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD
from trapsync.hub.database import Database
from trapsync.hub.pages import pictures
from trapsync.hub.sessions import COOKIE, LIFE

NAME = drawings.NAME
PICTURE = f"/picture/full/{NAME}"


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """Without the time that a hash takes."""
    with hub_server.cheap_passwords():
        yield


@pytest.fixture
def clock() -> FakeTime:
    return FakeTime()


@pytest.fixture
def hub(tmp_path: Path, clock: FakeTime) -> Iterator[RunningHub]:
    with hub_server.running(tmp_path / "hub", clock=clock) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One for tests that change nothing."""
    with (
        hub_server.cheap_passwords(),
        hub_server.running(tmp_path_factory.mktemp("shared") / "hub") as running,
    ):
        running.upload(NAME, drawings.trap())
        yield running


# ── Who gets in ──────────────────────────────────────────────────────────────────────────────────────


def test_who_is_not_logged_in_is_led_to_the_form_and_from_there_to_the_page(hub: RunningHub) -> None:
    visitor = Visitor(hub)

    led = visitor.get("/?verdict=failing")
    assert (led.status_code, led.headers["Location"]) == (303, "/login?next=%2F%3Fverdict%3Dfailing")
    assert 'value="/?verdict=failing"' in visitor.get(led.headers["Location"]).text
    there = visitor.log_in("reader", next="/?verdict=failing")
    assert (there.status_code, there.headers["Location"]) == (303, "/?verdict=failing")
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize(
    ("name", "password", "status"),
    [
        ("reader", "wrong", 401),
        ("nobody", PASSWORD, 401),
        ("", "", 401),
        ("0a1b2c3d", "wrong", 401),
        ("0a1b2c3d", "its own", 403),
        ("\u202e<script>", "\0", 401),
    ],
)
def test_a_wrong_password_and_a_traps_account_get_no_cookie(
    hub: RunningHub, name: str, password: str, status: int
) -> None:
    hub.join("0a1b2c3d", "its own")

    answer = Visitor(hub).log_in(name, password)

    assert (answer.status_code, "Set-Cookie" in answer.headers) == (status, False)
    assert "<script>" not in answer.text


def test_a_long_password_is_taken_whole(hub: RunningHub) -> None:
    hub.hub.accounts.add("reader", "x" * 300, "viewer")
    assert [Visitor(hub).log_in("reader", "x" * size).status_code for size in (300, 200)] == [303, 401]


def test_a_token_of_the_api_is_no_name_for_the_form(shared: RunningHub) -> None:
    answer = Visitor(shared).log_in(shared.auth("owner")[0], "x")
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (401, False)


def test_a_guesser_waits_and_is_counted_together_with_one_at_the_api(hub: RunningHub) -> None:
    visitor = Visitor(hub)
    assert visitor.log_in("owner", "guess 1").status_code == 401
    assert visitor.log_in("owner", "guess 2").status_code == 429
    assert requests.get(f"{hub.url}/fleet", auth=("owner", "guess 3"), timeout=10).status_code == 429


def test_one_waits_for_a_password_and_a_second_is_told_to_come_again(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, may_end, answers = threading.Event(), threading.Event(), list[int]()

    def slowly(*_: str) -> None:
        compared.set()
        may_end.wait(20)

    monkeypatch.setattr(hub.hub.accounts, "recognise_slowly", slowly)
    first = threading.Thread(target=lambda: answers.append(Visitor(hub).log_in("owner", "1").status_code))
    first.start()
    assert compared.wait(20)
    assert Visitor(hub).log_in("reader", "2").status_code == 503
    may_end.set()
    first.join(20)
    assert answers == [401]


@pytest.mark.parametrize(
    "place",
    ["//evil.example", "/\\evil.example", "https://evil.example/", "javascript:x", "/\t/evil.example", ""],
)
def test_after_logging_in_nobody_is_led_to_another_host(shared: RunningHub, place: str) -> None:
    assert Visitor(shared).log_in("reader", next=place).headers["Location"] == "/"


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_cookie_that_was_there_before_is_not_the_one_after(hub: RunningHub) -> None:
    thief = Visitor(hub, "reader")
    victim = Visitor(hub, secret=thief.secret)
    victim.log_in("owner")

    assert victim.secret != thief.secret
    assert thief.get("/").status_code == 303


def test_a_cookie_cannot_be_read_by_scripts_nor_sent_by_other_sites(shared: RunningHub) -> None:
    cookie = Visitor(shared).log_in("reader").headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {*cookie.split("; ")}
    assert "Secure" not in cookie


def test_a_cookie_stays_with_tls_where_the_hub_is_called_so(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub", url="https://hub.example.org") as hub:
        hub.auth("reader")
        assert "Secure" in Visitor(hub).log_in("reader").headers["Set-Cookie"].split("; ")


def _log_out(hub: RunningHub, visitor: Visitor, _clock: FakeTime) -> None:
    assert visitor.post("/logout", form=visitor.token()).status_code == 303


ENDS: dict[str, Callable[[RunningHub, Visitor, FakeTime], object]] = {
    "logged out": _log_out,
    "another password": lambda hub, _visitor, _clock: hub.hub.accounts.add("reader", "another", "viewer"),
    "removed": lambda hub, _visitor, _clock: hub.hub.accounts.remove("reader"),
    "unused": lambda _hub, _visitor, clock: clock.sleep(LIFE + 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_session_ends(hub: RunningHub, clock: FakeTime, end: str) -> None:
    visitor = Visitor(hub, "reader")
    assert visitor.get("/").status_code == 200

    ENDS[end](hub, visitor, clock)

    assert visitor.get("/").status_code == 303
    assert visitor.get(PICTURE).status_code == 403


@pytest.mark.parametrize("cookie", ["\xff=;", f"{COOKIE}=\xff", f"{COOKIE}={'x' * 43}", f"{COOKIE}=", "=;;="])
def test_an_odd_cookie_is_none(shared: RunningHub, cookie: str) -> None:
    given = {"Cookie": cookie.encode("latin-1")}
    answers = [requests.get(shared.url + path, headers=given, timeout=10) for path in ("/", "/login")]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_session_that_is_used_goes_on(hub: RunningHub, clock: FakeTime) -> None:
    visitor = Visitor(hub, "reader")
    for _ in range(3):
        clock.sleep(LIFE - 1)
        assert visitor.get("/").status_code == 200


def test_a_browser_keeps_the_cookie_of_a_session_that_goes_on(shared: RunningHub) -> None:
    cookie = Visitor(shared).log_in("reader").headers["Set-Cookie"]
    (seconds,) = re.findall(r"Max-Age=(\d+)", cookie)
    assert int(seconds) > 10 * LIFE


def test_somebody_has_fifty_sessions_at_most(hub: RunningHub, clock: FakeTime) -> None:
    first, user = Visitor(hub, "reader"), hub.hub.accounts.named("reader")
    assert user
    for _ in range(50):
        clock.sleep(1)
        hub.hub.sessions.begin(user, "x")
    assert first.get("/").status_code == 303


def test_where_the_disk_is_full_pages_are_shown_and_who_logs_in_is_told_that(
    hub: RunningHub, clock: FakeTime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    visitor = Visitor(hub, "reader")
    clock.sleep(7200)  # so that its use would be written down

    def full(_: Database) -> NoReturn:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(Database, "writing", full)
    answers = [visitor.get("/"), visitor.log_in("reader")]
    monkeypatch.undo()

    assert [answer.status_code for answer in answers] == [200, 507]
    assert "The disk of this hub is full." in answers[1].text
    assert not any(record.exc_info for record in caplog.records)


def test_the_database_holds_no_secret_of_a_cookie(hub: RunningHub) -> None:
    secret = Visitor(hub, "reader").secret
    with hub.hub.database.reading() as connection:
        rows = connection.execute("SELECT * FROM sessions").fetchall()
    assert secret not in str([tuple(row) for row in rows])


def test_a_default_password_is_for_this_machine_only(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        hub.hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
        visitor = Visitor(hub)
        visitor.log_in(DEFAULT_NAME, DEFAULT_PASSWORD)
        assert visitor.get("/").status_code == 200
        assert visitor.get("/", Host="hub.example.org").status_code == 403
        assert visitor.get("/", X_Forwarded_For="203.0.113.9").status_code == 403


# ── The API beside them ──────────────────────────────────────────────────────────────────────────────


def test_a_cookie_is_nothing_at_the_api_and_a_password_nothing_at_a_page(hub: RunningHub) -> None:
    visitor = Visitor(hub, "owner")
    assert visitor.get("/fleet").status_code == 401
    assert visitor.post("/delete_images").status_code == 401
    assert visitor.post(f"/traps/{drawings.DEVICE}/forget").status_code == 401
    assert requests.get(hub.url, auth=hub.auth("owner"), allow_redirects=False, timeout=10).status_code == 303


def test_a_program_that_asks_for_what_is_not_there_gets_a_line_and_a_browser_a_page(
    shared: RunningHub,
) -> None:
    assert Visitor(shared).get("/nowhere").text == "Not Found\n"
    page = Visitor(shared).get("/nowhere", Accept="text/html,*/*")
    assert (page.status_code, "There is no such page at this hub." in page.text) == (404, True)


# ── Forms ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_from_another_site_is_not_taken(hub: RunningHub, headers: dict[str, str]) -> None:
    visitor = Visitor(hub, "reader")
    assert visitor.post("/logout", headers, form=visitor.token()).status_code == 403
    assert visitor.get("/").status_code == 200
    assert Visitor(hub).post("/login", headers, name="reader", password=PASSWORD).status_code == 403


def test_who_calls_the_hub_by_another_address_than_its_own_is_told_that_one(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub", url="https://hub.example.org") as hub:
        answer = Visitor(hub).post("/login", {"Origin": hub.url}, name="reader", password=PASSWORD)
    assert (answer.status_code, "Open https://hub.example.org/ and" in answer.text) == (403, True)


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin", "Origin": "https://hub"}, {}])
def test_a_form_of_the_hub_is_taken(hub: RunningHub, headers: dict[str, str]) -> None:
    visitor = Visitor(hub, "reader")
    assert visitor.post("/logout", {"Origin": hub.url, **headers}, form=visitor.token()).status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 80, "\u202e", "another session's"])
def test_a_form_without_the_token_of_its_session_is_not_taken(hub: RunningHub, token: str) -> None:
    visitor = Visitor(hub, "reader")
    token = Visitor(hub, "reader").token() if token == "another session's" else token

    assert visitor.post("/logout", form=token).status_code == 403
    assert visitor.get("/").status_code == 200


def test_the_token_of_a_form_is_another_one_each_time(hub: RunningHub) -> None:
    visitor = Visitor(hub, "reader")
    first, second = visitor.token(), visitor.token()
    assert first != second
    assert visitor.post("/logout", form=first).status_code == 303


def test_a_body_that_is_longer_than_any_form_is_refused_by_its_head(shared: RunningHub) -> None:
    assert Visitor(shared).post("/login", name="x" * 20_000).status_code == 413


# ── Headers ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/login", "/nowhere", f"/picture/full/{'x' * 9}", "/assets/style.css"])
@pytest.mark.parametrize("name", ["", "reader"])
def test_every_page_keeps_others_from_framing_it_and_itself_from_asking_others(
    shared: RunningHub, path: str, name: str
) -> None:
    headers = Visitor(shared, name).get(path, Accept="text/html").headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ("no-store" in headers["Cache-Control"]) == (path != "/assets/style.css")
    assert "WWW-Authenticate" not in headers


def test_a_browser_that_knows_no_texts_beside_shapes_shows_the_shapes(shared: RunningHub) -> None:
    sheet = Visitor(shared).get("/assets/style.css").text
    named = re.findall(r'content: ("[^"]+") / ""', sheet)
    assert named
    assert re.findall(r'content: ("[^"]+"); content: \1 / ""', sheet) == named


# ── Pictures ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_is_for_who_is_logged_in_and_kept_by_his_browser(hub: RunningHub) -> None:
    hub.upload(NAME, drawings.trap())
    visitor = Visitor(hub, "reader")

    full, small, mini = (visitor.get(f"/picture/{size}/{NAME}") for size in ("full", "small", "mini"))

    assert full.content == drawings.trap()
    assert [one.headers["Content-Type"] for one in (full, small, mini)] == ["image/jpeg"] * 3
    assert len(mini.content) < len(small.content)
    assert full.headers["Cache-Control"].startswith("private")
    assert len({one.headers["ETag"] for one in (full, small, mini)}) == 3
    assert Visitor(hub).get(PICTURE).status_code == 403
    assert requests.get(hub.url + PICTURE, auth=hub.auth("owner"), timeout=10).status_code == 403


def test_a_card_says_how_old_its_picture_is_where_the_trap_has_newer_ones(
    hub: RunningHub, clock: FakeTime
) -> None:
    hub.upload(NAME, drawings.trap())
    visitor, shown = Visitor(hub, "reader"), list[bool]()
    for passed, newest in ((0, {"age_s": 60}), (7200, {"age_s": 60}), (0, None)):
        clock.sleep(passed)
        beat = {"device": drawings.DEVICE, "newest_image": newest}
        hub.hub.fleet.take(drawings.DEVICE, json.dumps(beat).encode())
        shown.append("<dt>Picture shown<dd>2 h ago" in visitor.get("/").text)
    assert shown == [False, True, True]


def test_a_picture_that_has_not_changed_is_not_sent_again(shared: RunningHub) -> None:
    visitor = Visitor(shared, "reader")
    tag = visitor.get(PICTURE).headers["ETag"]
    again = visitor.get(PICTURE, If_None_Match=tag)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "full/..%2f..%2fhub.sqlite",
        "full/%2e%2e",
        "full/hub.sqlite",
        f"huge/{NAME}",
        f"full/{NAME}%00",
        f"full/x{NAME}",
        "full/0a1b2c3d.2026-02-31_00-00-00.jpg",
        "full/0a1b2c3d.2026-06-21_20-19-16.jpg",
        "full/%ff",
    ],
)
def test_a_name_that_is_no_picture_of_this_hub_is_not_found(shared: RunningHub, path: str) -> None:
    assert Visitor(shared, "reader").get(f"/picture/{path}").status_code == 404


def test_a_picture_whose_file_is_gone_is_not_found(hub: RunningHub) -> None:
    hub.upload(NAME, drawings.trap())
    (row,) = hub.rows()
    hub.store.path(row).unlink()
    assert [
        Visitor(hub, "reader").get(f"/picture/{size}/{NAME}").status_code for size in ("full", "mini")
    ] == [404] * 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_the_disk_takes_no_small_copy_the_picture_itself_is_sent(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    hub.upload(NAME, drawings.trap())
    visitor = Visitor(hub, "reader")

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    answers = [visitor.get(f"/picture/small/{NAME}") for _ in range(2)]
    monkeypatch.undo()

    assert [answer.content for answer in answers] == [drawings.trap()] * 2
    assert not any(record.exc_info for record in caplog.records)
    assert visitor.get(f"/picture/small/{NAME}").content != drawings.trap()


def test_a_picture_that_the_disk_does_not_give_is_no_bug(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.upload(NAME, drawings.trap())
    visitor = Visitor(hub, "reader")

    def fail(path: Path, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(pictures, "send_file", fail)
    answer = visitor.get(PICTURE)

    assert (answer.status_code, "input/output error" in answer.text) == (503, True)
    assert not any(record.exc_info for record in caplog.records)


def test_small_copies_are_made_once_where_the_clock_went_back_since_the_picture_came(hub: RunningHub) -> None:
    hub.upload(NAME, drawings.trap())
    (row,) = hub.rows()
    os.utime(hub.store.path(row), (4e9, 4e9))
    visitor, made = Visitor(hub, "reader"), list[list[int]]()
    for _ in range(2):
        assert visitor.get(f"/picture/small/{NAME}").content != drawings.trap()
        made.append([path.stat().st_ino for path in sorted((hub.folder / "thumbnails").rglob("*.jpg"))])
    assert made[0] == made[1] != []
