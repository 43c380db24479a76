"""What destinations that are HTTP services share: settings, identity, secrets, answers that deny access, absences."""

import ipaddress
import re
import threading
from collections.abc import Hashable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trapsync import __version__
from trapsync.clock import Clock
from trapsync.destinations import DestinationContext, Finding
from trapsync.errors import SettingsError, Unauthorised, printable
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer, reason
from trapsync.net.proxy import proxy_for
from trapsync.settings.config_file import read_secret
from trapsync.settings.schema import Destination, require_proxy
from trapsync.settings.table import within
from trapsync.settings.units import Size

_DENIED = {401: "rejects the login", 402: "asks for payment", 403: "does not permit this"}
_CLOCK_TOLERANCE = 60.0
_ABSENCE_LIFE = 3600.0
_MOST_ABSENCES = 4096
_LONGEST_ID, _LONGEST_URL = 200, 8000  # characters; a signed address has some 1,500


class Settings(Destination, frozen=True, kw_only=True):
    """The keys of every destination that is a server, besides those of all destinations."""

    min_rate: Size = Size(2000)
    proxy: str = ""
    proxy_username: str = ""
    proxy_password_file: Path | None = None

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        within(self, min_rate=(1, 10**9))
        require_proxy(self)

    def slowest(self) -> float:
        """The setting min_rate."""
        return float(self.min_rate)


def identity(kind: str, url: str, *account: str) -> str:
    """Which place a server and an account on it are: the same, however its address is written.

    `account` is what the account is called, with a word before it: "as trap". Another scheme or port is
    another place: what answers without TLS need not be what answers with it. To take one place for two costs
    a question for each batch of images; to take two for one could cost the images.
    """
    return ", ".join([f"{kind} {address(url)}", *account])


def address(url: str) -> str:
    """The address in its one spelling: scheme, host, a port that is not the scheme's own, path."""
    parts = urlsplit(url)
    host, port = _host(parts.hostname or ""), parts.port
    if port and port != {"http": 80, "https": 443}.get(parts.scheme):
        host = f"{host}:{port}"
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return f"{parts.scheme}://{host}{path}"


def _host(host: str) -> str:
    """A host in lower case and ASCII, without the dot at the end; an address of version 6 in its short form."""
    try:
        address = ipaddress.ip_address(host)
        return f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        pass
    name = host.rstrip(".").lower()
    try:
        return name.encode("idna").decode()
    except UnicodeError:  # no name that can be looked up; said when it is
        return name


def client(url: str, settings: Settings, context: DestinationContext, **more: Any) -> HttpClient:
    """Make the client of a server with these settings; `more` goes to `HttpClient` as it is."""
    limits = {
        "bandwidth": settings.bandwidth,
        "transfers": settings.transfers,
        "min_rate": settings.min_rate,
        "proxy": proxy_for(url, settings, f"destinations.{context.name}"),
    }
    return HttpClient(url, f"trapsync/{__version__}", context.clock, context.sleep, **{**limits, **more})


def secret(path: Path, key: str) -> str:
    """Read a secret at each use: the operator can fix it while the trap runs, so Unauthorised where it is bad."""
    try:
        return read_secret(path, key)
    except SettingsError as error:
        raise Unauthorised(str(error)) from None


def admitted(answer: Answer, advice: str, *, hide: str = "") -> Answer:
    """The answer, without the secret `hide`; Unauthorised, with this advice, where it denies access."""
    if hide:
        answer = replace(answer, body=answer.body.replace(hide.encode(), b"..."))
    if denied := _DENIED.get(answer.status):
        why = reason(answer, "message", "error")
        raise Unauthorised(f"{answer.host} {denied} ({answer.status}{why and f': {why}'}); {advice}")
    return answer


def clock_finding(name: str, answer: Answer, clock: Clock) -> Finding:
    """For the doctor: whether our clock agrees with the server's, by its answer."""
    if answer.date is None:
        return Finding("ok", name, "the server does not tell its time")
    ahead = clock.wall() - answer.date
    if abs(ahead) <= _CLOCK_TOLERANCE:
        return Finding("ok", name, "the server's clock and ours agree")
    amount = timedelta(seconds=round(abs(ahead)))
    side = "ahead of" if ahead > 0 else "behind"
    return Finding("warning", name, f"our clock is {amount} {side} the server's; set it (timedatectl)")


def identifier(value: object) -> int | str | None:
    """What a service calls a thing of its own, fit to be kept and asked for: a number or a short text; None for others."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    is_fit = isinstance(value, int) or (len(value) <= _LONGEST_ID and printable(value) == value)
    return value if is_fit else None


def location(value: object) -> str | None:
    """An address that a service gave, fit to be kept and asked for; None for anything else."""
    is_fit = (
        isinstance(value, str) and "://" in value and len(value) <= _LONGEST_URL and printable(value) == value
    )
    return str(value) if is_fit else None


class Absences:
    """What a service lately said it does not have: believed for an hour, or so long. May be used from several threads."""

    def __init__(self, clock: Clock, life: float = _ABSENCE_LIFE) -> None:
        self._clock = clock
        self._life = life
        self._lock = threading.Lock()
        self._noted: dict[Hashable, float] = {}

    def note(self, keys: Iterable[Hashable]) -> None:
        """Remember that the service has just said that it does not have these."""
        now = self._clock.monotonic()
        with self._lock:
            if len(self._noted) > _MOST_ABSENCES:
                self._noted.clear()
            self._noted.update(dict.fromkeys(keys, now))

    def __contains__(self, key: Hashable) -> bool:
        noted = self._noted.get(key)
        return noted is not None and self._clock.monotonic() - noted < self._life

    def take(self, key: Hashable) -> bool:
        """Whether this is absent, for one upload: from then on it may be there."""
        with self._lock:
            is_absent = key in self
            self._noted.pop(key, None)
        return is_absent
