"""Who may send what: decided on the head of a request, before its body is received. No sockets, no threads.

A page is for who is logged in by a browser (`sessions`), all else for who shows a password or a token.
"""

import functools
import ipaddress
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, Protocol

from flask import Flask
from werkzeug.datastructures import Authorization
from werkzeug.exceptions import HTTPException

from trapsync.clock import Clock
from trapsync.errors import one_line
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD, Accounts, User
from trapsync.hub.sessions import Session
from trapsync.settings.open_links import is_loopback
from trapsync.settings.schema import DEVICE

log = logging.getLogger(__name__)

USER = "trapsync.user"  # where the app finds the user in the environment of a request
REALM = 'Basic realm="Authentication Required"'
_LONGEST_WAIT = 60  # seconds after a wrong password
_FORGIVEN_AFTER = 900.0
_MOST_GUESSERS = 10_000
_MOST_LINES = 200  # of refusals in the log, in a minute

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a request before its body. `headers` are named as waitress does it: CONTENT_LENGTH."""

    address: str  # of the client; behind a proxy the one that the proxy names
    method: str
    path: str  # in the spelling of WSGI
    headers: Mapping[str, str]
    length: int | None  # None: in chunks, of any length
    query: str = ""


class Admitted(NamedTuple):
    """It may send its body, of so many bytes at most. `user` is None where no account is needed."""

    user: User | None
    largest: int
    is_page: bool = False


class Login(NamedTuple):
    """A name and a password. As the answer to a head: the two must be compared first, which takes its time."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class Denied:
    """It is answered with this, and the connection ends. `headers`: those of a page, instead of those for programs."""

    status: int
    text: str
    retry_after: int = 0
    headers: tuple[tuple[str, str], ...] | None = None

    def to_response(self, _ident: object = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body, as waitress asks its errors for them."""
        body = self.text.encode()
        headers = [*(self._for_programs() if self.headers is None else self.headers)]
        headers.append(("Content-Length", str(len(body))))
        if self.retry_after:
            headers.append(("Retry-After", str(self.retry_after)))
        return f"{self.status} {HTTPStatus(self.status).phrase}", headers, body

    def _for_programs(self) -> tuple[tuple[str, str], ...]:
        if self.status in {401, 403}:
            return ("Content-Type", "text/html; charset=utf-8"), ("WWW-Authenticate", REALM)
        return (("Content-Type", "text/plain; charset=utf-8"),)


class Endpoint(NamedTuple):
    """Who may use it (None: everybody, without an account), and the longest body that it takes.

    `is_page`: it is for browsers, and knows who asks by the cookie alone; `is_part`: it is a part of a page, a picture say.
    """

    roles: frozenset[str] | None
    largest: int
    is_page: bool = False
    is_part: bool = False


class Doors(Protocol):
    """What pages answer to who may not come in."""

    def session(self, cookies: str) -> Session | None:
        """The session of this Cookie header."""

    def login_first(self, head: Head) -> Denied:
        """Lead to the page for logging in."""

    def refuse(self, status: int, text: str) -> Denied:
        """A page that says why not."""


class Admission:
    """Decides on heads; asked by one thread."""

    def __init__(
        self, accounts: Accounts, app: Flask, guesses: "Guesses", refusals: "Refusals", *, only_here: bool
    ) -> None:
        """`app.extensions["endpoints"]` has the app's endpoints by name, `app.extensions["doors"]` is what its pages answer.

        `only_here`: nobody but this machine is meant to reach the hub, so that an account may have a default password.
        """
        self._accounts = accounts
        self._routes = app.url_map.bind("")
        # Those without a part that differs: an upload among them.
        self._plain_routes = {
            (method, rule.rule): rule.endpoint
            for rule in app.url_map.iter_rules()
            if not rule.arguments
            for method in rule.methods or ()
        }
        self._endpoints: Mapping[str, Endpoint] = app.extensions["endpoints"]
        self._doors: Doors = app.extensions["doors"]
        self._guesses = guesses
        self._only_here = only_here
        self._told: set[str] = set()
        demo = only_here and DEFAULT_NAME in accounts.names()
        # The users that have, as far as it is known: hashes cannot be asked at each request.
        self._default = (
            {DEFAULT_NAME} if demo and accounts.recognise(DEFAULT_NAME, DEFAULT_PASSWORD) else set()
        )
        self.refusals = refusals

    def decide(self, head: Head) -> Admitted | Denied | Login:
        """Look at a head. After a Login `decide_hashed` has the last word."""
        try:
            endpoint = self._endpoint(head)
        except HTTPException as error:  # 308: a path with // in it
            return self._nowhere(head, HTTPStatus(error.code if error.code in {404, 405} else 404))
        if endpoint.roles is None:
            return _within(head, None, endpoint)
        if self._only_here and _is_forwarded(head.headers):
            self._tell_once("a web server passes requests on to this hub: start it with --behind-proxy, too")
        if endpoint.is_page:
            return self._look_at_cookie(head, endpoint)
        login = _login(head.headers)
        if login is None:
            return self._refuse(head, 401, "nobody")
        if user := self._accounts.recognise_at_once(*login):
            return self._may(head, endpoint, user, login)
        # An old token, or a trap's own password, which needs no slow hash: nobody can guess it.
        if not login.password or DEVICE.fullmatch(login.name):
            return self._refuse(head, 401, login.name if login.password else "the owner of an old token")
        if wait := self._guesses.wait((network(head.address), login.name)):
            return self._refuse(head, 429, login.name, wait)
        return login

    def decide_hashed(self, head: Head, tried: Login, user: User | None) -> Admitted | Denied:
        """Look at a head again when the password has been compared; `user` is None where it was wrong."""
        key = (network(head.address), tried.name)
        if user is None:
            self._guesses.wrong(key)
            return self._refuse(head, 401, tried.name)
        self._guesses.right(key)
        return self._may(head, self._endpoint(head), user, tried)

    def _endpoint(self, head: Head) -> Endpoint:
        name = self._plain_routes.get((head.method, head.path))
        if name is None:
            path = head.path.encode("latin-1").decode(errors="replace")
            name, _ = self._routes.match(path, head.method)
        return self._endpoints[name]

    def _nowhere(self, head: Head, status: HTTPStatus) -> Denied:
        if "text/html" in head.headers.get("ACCEPT", ""):  # a person with a browser
            return self._doors.refuse(status, "There is no such page at this hub.")
        return Denied(status, f"{status.phrase}\n")

    def _look_at_cookie(self, head: Head, endpoint: Endpoint) -> Admitted | Denied:
        """Let in who is logged in; what his role may see, the page says."""
        session = self._doors.session(head.headers.get("COOKIE", ""))
        if session is None:
            can_go = head.method in {"GET", "HEAD"} and not endpoint.is_part
            return self._doors.login_first(head) if can_go else self._doors.refuse(403, "Log in first.")
        if self._only_here and session.has_default_password and _is_from_elsewhere(head.headers):
            self._tell_of_default(session.user.name)
            self.refusals.note(403, head.address, one_line(session.user.name, 40))
            return self._doors.refuse(
                403, "This account has a default password, which counts on the hub's machine only."
            )
        return _within(head, session.user, endpoint)

    def _may(self, head: Head, endpoint: Endpoint, user: User, login: Login) -> Admitted | Denied:
        if login.name == user.name:  # no token
            known = login.password in {DEFAULT_PASSWORD, user.name}
            (self._default.add if known else self._default.discard)(user.name)
        if self._only_here and user.name in self._default and _is_from_elsewhere(head.headers):
            self._tell_of_default(user.name)
            return self._refuse(head, 403, user.name)
        if endpoint.roles is not None and user.role not in endpoint.roles:
            return self._refuse(head, 403, user.name)
        return _within(head, user, endpoint)

    def _tell_of_default(self, name: str) -> None:
        self._tell_once(
            f"{one_line(name, 40)!r} has a default password, and others than this machine reach the hub: "
            "start it with --password-file, and with --behind-proxy if there is a web server in front"
        )

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def _refuse(self, head: Head, status: int, name: str, wait: int = 0) -> Denied:
        self.refusals.note(status, head.address, one_line(name, 40))
        text = f"too many wrong passwords: try again in {wait} s\n" if wait else "Unauthorized Access"
        return Denied(status, text, wait)


def _login(headers: Mapping[str, str]) -> Login | None:
    try:
        given = Authorization.from_header(headers.get("AUTHORIZATION"))
    except ValueError:  # werkzeug lets letters beyond ASCII through to base64
        return None
    if given is None or given.type != "basic" or not given.username:
        return None
    return Login(given.username, given.password or "")


def _within(head: Head, user: User | None, endpoint: Endpoint) -> Admitted | Denied:
    if head.length is None and user is None:
        return Denied(411, "send a Content-Length\n")
    if head.length is not None and head.length > endpoint.largest:
        return Denied(413, f"the body is longer than {endpoint.largest} bytes\n")
    return Admitted(user, endpoint.largest, endpoint.is_page)


def _is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a request has come through a proxy, or was meant for another name than this machine's."""
    host = headers.get("HOST", "localhost").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return _is_forwarded(headers) or not is_loopback(name)


def _is_forwarded(headers: Mapping[str, str]) -> bool:
    return any(key in {"FORWARDED", "X_REAL_IP", "VIA"} or key.startswith("X_FORWARDED_") for key in headers)


@functools.lru_cache(10_000)
def network(address: str) -> str:
    """What one attacker has of addresses: one of IPv4, but a network of 64 bits of IPv6."""
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))


class Guesses:
    """How long somebody waits after wrong passwords for a name: 1 s, 2 s, 4 s … a minute. For any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: dict[_Key, tuple[int, float]] = {}

    def wait(self, key: _Key) -> int:
        """The seconds that are left."""
        return max(0, math.ceil(self._wrong.get(key, (0, 0.0))[1] - self._clock.monotonic()))

    def wrong(self, key: _Key) -> None:
        """Count one."""
        now = self._clock.monotonic()
        with self._lock:
            count, until = self._wrong.pop(key, (0, now))
            if now > until + _FORGIVEN_AFTER:
                count = 0
            self._wrong[key] = (count + 1, now + min(2**count, _LONGEST_WAIT))
            if len(self._wrong) > _MOST_GUESSERS:
                del self._wrong[next(iter(self._wrong))]

    def right(self, key: _Key) -> None:
        """Forget the wrong ones."""
        self._wrong.pop(key, None)


class Refusals:
    """Logs who was refused: the first at once, more of the same once a minute with their number. For any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[tuple[int, str, str], tuple[float, int]] = {}

    def note(self, status: int, address: str, name: str) -> None:
        """Somebody was refused; `address` and `name` are one line."""
        key = (status, address, name)
        with self._lock:
            if key not in self._noted and len(self._noted) >= _MOST_LINES:
                key = (status, "many addresses", "many names")
            if key in self._noted:
                since, more = self._noted[key]
                self._noted[key] = (since, more + 1)
            else:
                log.warning("%d for %s as %s", status, address, name)
                self._noted[key] = (self._clock.monotonic(), 0)

    def tell(self) -> None:
        """Log the numbers of the minutes that have passed."""
        now = self._clock.monotonic()
        with self._lock:
            for key, (since, more) in list(self._noted.items()):
                if now < since + 60:
                    continue
                if more:
                    log.warning("%d for %s as %s: %d times more in a minute", *key, more)
                    self._noted[key] = (now, 0)
                else:
                    del self._noted[key]
