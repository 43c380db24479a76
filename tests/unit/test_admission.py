"""Who may send what, decided on the head of a request; guesses; what is logged of refusals; passwords in their queue."""

import base64
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hub_server
from fake_time import FakeTime
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD, User
from trapsync.hub.admission import (
    Admission,
    Admitted,
    Denied,
    Guesses,
    Head,
    Login,
    Refusals,
    network,
)
from trapsync.hub.app import Hub, make_app
from trapsync.hub.password_queue import PasswordQueue

PASSWORD = "a long and secret one"
LARGE = 99_000_000


class Desk:
    """An admission, without a server."""

    def __init__(self, folder: Path, *, only_here: bool = True) -> None:
        self.clock = FakeTime()
        self.hub = Hub.open(folder / "hub", self.clock)
        self.only_here = only_here

    def open(self) -> Admission:
        """Made when the accounts are there."""
        self.admission = Admission(
            self.hub.accounts,
            make_app(self.hub),
            Guesses(self.clock),
            Refusals(self.clock),
            only_here=self.only_here,
        )
        return self.admission

    def decide(self, path: str, *login: str, length: int | None = 0, **headers: Any) -> Any:
        """POST with this login."""
        if login:
            given = base64.b64encode(":".join(login).encode()).decode()
            headers["AUTHORIZATION"] = f"Basic {given}"
        self.head = Head("203.0.113.9", "POST", path, {"HOST": "localhost:8080", **headers}, length)
        return self.admission.decide(self.head)

    def token(self, name: str) -> str:
        """A token of that user."""
        user = self.hub.accounts.named(name)
        assert user
        return self.hub.accounts.token(user)[0]


@pytest.fixture(autouse=True)
def quickly() -> Iterator[None]:
    """Without the time that a hash takes."""
    with hub_server.cheap_passwords():
        yield


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.hub.accounts.add("moth", PASSWORD, "viewer")
    made.open()
    return made


# ── Heads ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "login", "length", "status"),
    [
        ("/_put_new_images", (), LARGE, 401),
        ("/_put_new_images", ("moth", ""), LARGE, 401),  # an old token
        ("/_put_new_images", ("0a5bb6f4", "not its own password"), LARGE, 401),
        ("/_put_new_images", ("token", ""), LARGE, 403),
        ("/get_images/metadata", ("token", ""), LARGE, 413),
        ("/nowhere", ("token", ""), LARGE, 404),
        ("/fleet", ("token", ""), LARGE, 405),
        ("/get_images//", ("token", ""), LARGE, 404),
        ("/join", (), None, 411),
        ("/join", (), LARGE, 413),
    ],
)
def test_a_head_alone_is_enough_for_a_refusal(
    desk: Desk, path: str, login: tuple[str, ...], length: int | None, status: int
) -> None:
    given = (desk.token("moth"), "") if login[:1] == ("token",) else login

    verdict = desk.decide(path, *given, length=length)

    assert isinstance(verdict, Denied)
    assert verdict.status == status


def test_a_token_is_admitted_at_once_with_the_endpoints_largest_body(desk: Desk) -> None:
    verdict = desk.decide("/get_images/metadata", desk.token("moth"), "")

    assert isinstance(verdict, Admitted)
    assert verdict.user == desk.hub.accounts.named("moth")
    assert verdict.largest == 2**20


def test_where_no_account_is_needed_nobody_is_asked_for_one(desk: Desk) -> None:
    assert desk.decide("/join", length=100) == Admitted(None, 8192)


@pytest.mark.parametrize("header", ["Basic", "Basic !!", "Basic Og==", "Bearer x", "Basic \xff", ""])
def test_credentials_that_make_no_sense_are_none(desk: Desk, header: str) -> None:
    verdict = desk.decide("/get_token", AUTHORIZATION=header)

    assert (verdict.status, verdict.text) == (401, "Unauthorized Access")


def test_an_unknown_password_is_to_be_compared_and_a_right_one_is_remembered(desk: Desk) -> None:
    asked = desk.decide("/get_token", "moth", PASSWORD)
    assert asked == Login("moth", PASSWORD)

    user = desk.hub.accounts.recognise(*asked)

    assert isinstance(desk.admission.decide_hashed(desk.head, asked, user), Admitted)
    assert isinstance(desk.decide("/get_token", "moth", PASSWORD), Admitted)
    refused = desk.decide("/_put_new_images", "moth", PASSWORD)
    assert refused.status == 403


# ── Guesses ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_password_delays_the_next_one_for_this_name_from_there_only(desk: Desk) -> None:
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        asked = desk.decide("/get_token", "moth", "wrong")
        assert desk.admission.decide_hashed(desk.head, asked, None).status == 401  # type: ignore[union-attr]
        denied = desk.decide("/get_token", "moth", PASSWORD)
        assert (denied.status, denied.retry_after) == (429, wait)
        assert ("Retry-After", str(wait)) in denied.to_response()[1]
        assert isinstance(desk.decide("/get_token", "owner", "wrong"), Login)
        assert isinstance(desk.decide("/get_token", desk.token("moth"), ""), Admitted)
        desk.clock.sleep(wait)
    asked = desk.decide("/get_token", "moth", PASSWORD)
    desk.admission.decide_hashed(desk.head, asked, desk.hub.accounts.recognise(*asked))
    asked = desk.decide("/get_token", "moth", "wrong")
    desk.admission.decide_hashed(desk.head, asked, None)
    assert desk.decide("/get_token", "moth", "wrong").retry_after == 1


def test_a_right_password_or_a_quarter_of_an_hour_ends_the_delays() -> None:
    clock = FakeTime()
    guesses = Guesses(clock)
    key = ("203.0.113.9", "moth")
    for _ in range(5):
        guesses.wrong(key)
    guesses.right(key)
    assert guesses.wait(key) == 0
    for _ in range(5):
        guesses.wrong(key)
    assert guesses.wait(key) == 16
    clock.sleep(16 + 901)
    guesses.wrong(key)
    assert guesses.wait(key) == 1


def test_guessers_without_number_take_little_memory() -> None:
    guesses = Guesses(FakeTime())
    for number in range(10_100):
        guesses.wrong((str(number), "moth"))
    assert len(guesses._wrong) == 10_000
    assert guesses.wait(("10099", "moth")) == 1


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_addresses_of_one_hand_count_as_one(address: str, counted: str) -> None:
    assert network(address) == counted


# ── The default password ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "header",
    [
        {"X_FORWARDED_FOR": "8.8.8.8"},
        {"X_FORWARDED_PROTO": "https"},
        {"X_REAL_IP": "8.8.8.8"},
        {"FORWARDED": "for=8.8.8.8"},
        {"VIA": "1.1 caddy"},
        {"HOST": "hub.example.org"},
        {"HOST": "192.168.1.5:8080"},
    ],
)
@pytest.mark.parametrize("by", ["password", "token", "token after a start"])
def test_a_default_password_is_for_this_machine_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header: dict[str, Any], by: str
) -> None:
    desk = Desk(tmp_path)
    desk.hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
    desk.open()
    login = (DEFAULT_NAME, DEFAULT_PASSWORD) if by == "password" else (desk.token(DEFAULT_NAME), "")
    assert isinstance(desk.decide("/get_token", *login), Admitted)
    if by == "token after a start":
        desk.open()

    for _ in range(3):
        assert desk.decide("/get_token", *login, **header).status == 403

    assert caplog.text.count("start it with --password-file, and with --behind-proxy") == 1


def test_another_password_or_a_proxy_that_was_named_is_for_everybody(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hub.accounts.add(DEFAULT_NAME, PASSWORD, "admin")
    desk.open()
    token = desk.token(DEFAULT_NAME)
    assert isinstance(desk.decide("/get_token", token, "", VIA="1.1 caddy"), Admitted)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_names_of_this_machine_are_not_from_elsewhere(tmp_path: Path, host: str) -> None:
    desk = Desk(tmp_path)
    desk.hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
    desk.open()
    assert isinstance(desk.decide("/get_token", DEFAULT_NAME, DEFAULT_PASSWORD, HOST=host), Admitted)


def test_a_web_server_in_front_that_was_not_named_is_told_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        desk.decide("/get_token", desk.token("moth"), "", X_FORWARDED_FOR="203.0.113.10")
    assert caplog.messages == [
        "a web server passes requests on to this hub: start it with --behind-proxy, too"
    ]


# ── The log ──────────────────────────────────────────────────────────────────────────────────────────


def test_refusals_are_logged_with_address_and_name_and_once_a_minute_with_their_number(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(38):
        desk.decide("/get_token", "moth\x1b[31m\nx", "")
        desk.decide("/get_token", desk.token("moth") + "x", "")
        desk.decide("/get_token")
    desk.admission.refusals.tell()
    assert [one.getMessage() for one in caplog.records] == [
        "401 for 203.0.113.9 as the owner of an old token",
        "401 for 203.0.113.9 as nobody",
    ]
    caplog.clear()
    desk.decide("/get_token", "0a5bb6f4", "no")
    desk.clock.sleep(60)
    desk.admission.refusals.tell()
    assert [one.getMessage() for one in caplog.records] == [
        "401 for 203.0.113.9 as 0a5bb6f4",
        "401 for 203.0.113.9 as the owner of an old token: 75 times more in a minute",
        "401 for 203.0.113.9 as nobody: 37 times more in a minute",
    ]


def test_names_that_are_logged_are_one_printable_line(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    asked = desk.decide("/get_token", "moth\x1b[31m\nx" + "y" * 1000, "wrong")
    desk.admission.decide_hashed(desk.head, asked, None)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].isprintable()
    assert len(caplog.messages[0]) < 100


def test_attackers_without_number_make_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeTime()
    refusals = Refusals(clock)
    for number in range(5000):
        refusals.note(401, f"10.0.{number // 256}.{number % 256}", "moth")
    clock.sleep(61)
    refusals.tell()
    assert len(caplog.messages) == 202
    assert caplog.messages[-1] == "401 for many addresses as many names: 4799 times more in a minute"


# ── The queue ────────────────────────────────────────────────────────────────────────────────────────


class SlowAccounts:
    """Compares passwords when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Semaphore(0)

    def recognise(self, name: str, password: str) -> User | None:
        """A user whose password is his name."""
        self.asked.append(name)
        assert self.go.acquire(timeout=20)
        if name == "bug":
            raise RuntimeError("a bug")
        return User(1, name, "viewer") if name == password else None


def test_passwords_are_compared_one_after_another_and_networks_in_turn() -> None:
    accounts, answered = SlowAccounts(), list[User | None]()
    done = threading.Semaphore(0)
    queue = PasswordQueue(accounts)  # type: ignore[arg-type]

    def put(network: str, name: str, password: str = "wrong") -> bool:
        def answer(user: User | None) -> None:
            answered.append(user)
            done.release()

        return queue.put(network, Login(name, password), answer)

    assert put("a", "first")
    while not accounts.asked:
        done.acquire(timeout=0.01)  # its thread is to come so far
    assert [put("a", f"a{number}") for number in range(6)] == [True] * 4 + [False] * 2
    assert put("a", "a0")  # the same again costs nothing
    assert put("b", "bug")
    assert put("c", "c", "c")
    accounts.go.release(20)
    for _ in range(8):
        assert done.acquire(timeout=20)
    assert accounts.asked == ["first", "a0", "bug", "c", "a1", "a2", "a3"]
    assert answered == [None] * 4 + [User(1, "c", "viewer")] + [None] * 3


def test_the_queue_is_bounded_and_works_again_after_a_rest() -> None:
    accounts, done = SlowAccounts(), threading.Semaphore(0)
    queue = PasswordQueue(accounts)  # type: ignore[arg-type]
    for _ in range(2):
        taken = [
            queue.put(str(number), Login("moth", "wrong"), lambda _: done.release()) for number in range(70)
        ]
        assert taken.count(True) in {64, 65}  # one may be under way already
        accounts.go.release(taken.count(True))
        for _ in range(taken.count(True)):
            assert done.acquire(timeout=20)
