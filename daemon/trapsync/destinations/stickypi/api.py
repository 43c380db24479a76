"""The protocol of the Sticky Pi API: settings, tokens, the question for rows, and how rows are read.

A row that cannot be read costs the image that it is of, and not the others: see `Rows`.
"""

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trapsync.clock import Clock
from trapsync.destinations import DestinationContext, http_service
from trapsync.errors import Unreachable
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.http_body import Pieces
from trapsync.net.invitation import NOT_KNOWN
from trapsync.settings.schema import DEVICE
from trapsync.settings.table import require_address, within
from trapsync.settings.units import Duration

_TOKEN_LIFE = 86400.0 - 1800.0
_LARGEST_TOKEN = 64 * 1024  # bytes of the answer that holds one
# What a token may be: it goes into the head of each request, of which servers take some thousand bytes.
_TOKEN = re.compile(r"[!-9;-~]{1,4096}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
# Dates as servers of branch main write them; those of branch develop read them too.
_DATE_FORM = "%Y-%m-%d_%H-%M-%S"
# As servers of branch develop write them, and prefer them; then as its database does.
_NEWER_FORM = "%Y-%m-%dT%H:%M:%SZ"
_DATE_FORMS = (_NEWER_FORM, _DATE_FORM, "%Y-%m-%d %H:%M:%S")
_FIELDS = {"device", "datetime", "md5"}  # of each row

Key = tuple[str, datetime]
Row = dict[str, Any]
# A body that can be sent once, and its content type.
MakeBody = Callable[[], tuple[Pieces, str]]


class Settings(http_service.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "stickypi"."""

    url: str
    username: str
    password_file: Path
    ca_file: Path | None = None
    timeout: Duration = Duration(120)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        example = "https://api.example.org"
        require_address("url", self.url, example, instead="username and password_file")
        if ":" in self.username or not self.username:
            raise ValueError("username: must not be empty, and holds no colon")
        within(self, timeout=(0.1, 3600))

    @property
    def identity(self) -> str:
        """The server and the account on it."""
        return http_service.identity("stickypi", self.url, f"as {self.username}")

    def require(self, _settings: object) -> None:
        """The file of authorities must be there."""
        if self.ca_file and not self.ca_file.is_file():
            raise ValueError(f"ca_file: there is no file {self.ca_file}")


@dataclass(frozen=True, slots=True)
class Rows:
    """A server's rows by the keys that were asked for. Not `is_all`: there was a row besides that cannot be read
    or was not asked for, and it may be of any of the images that have none here."""

    by_key: Mapping[Key, Sequence[Row]]
    is_all: bool

    def row(self, key: Key, md5: str) -> Row:
        """The row of this key that has this digest; if none has, any."""
        rows = self.by_key[key]
        return next((row for row in rows if md5_of(row) == md5), rows[0])


class Api:
    """One account on one server. Raises Unreachable, and Unauthorised where it is not let in."""

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self._username = settings.username
        self._client = open_client(settings.url, settings, context)
        self._tokens = _Tokens(self._client, settings, f"destinations.{name}.password_file", context.clock)

    @property
    def host(self) -> str:
        """The server, for texts."""
        return self._client.host

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    @property
    def reads_2020_only(self) -> bool:
        """Whether it is a server of branch main, which fails at images of the format of 2022: its tokens tell."""
        return self._tokens.are_signed_json

    def log_in(self) -> Answer:
        """Fetch a new token, whatever there is, and give the server's answer."""
        return self._tokens.fetch()

    def post(self, path: str, make_body: MakeBody) -> Answer:
        """POST with a token, and once more with a new one if the server no longer takes it."""
        for attempt in (1, 2):
            token = self._tokens.get()
            body, kind = make_body()
            answer = self._client.send("POST", path, body, kind=kind, auth=(token, ""))
            if answer.status != 401 or attempt == 2:
                break
            self._tokens.drop(token)
        return http_service.admitted(answer, f"look at the account {self._username!r}: is it read-only?")

    def rows(self, keys: Sequence[Key], what: str = "metadata") -> Rows:
        """The server's rows of these keys; `what` = "image" with addresses."""
        if not keys:  # an empty list would be answered with 500
            return Rows({}, is_all=True)
        # A 500 gives no reason: perhaps the server does not read this form of dates.
        forms = (_DATE_FORM, _NEWER_FORM)
        answer = self._client.insist(lambda failed: self._ask(keys, what, forms[failed % len(forms)]))
        rows: list[Any] = answer.json(list)
        if rows and not any(isinstance(row, dict) and row.keys() >= _FIELDS for row in rows):
            raise Unreachable(f"{self.host} answered with rows that are not a Sticky Pi server's")
        asked, wanted = set(keys), dict[Key, list[Row]]()
        for row in rows:
            if (key := self.key_of(row)) and key in asked:
                wanted.setdefault(key, []).append(row)
        return Rows(wanted, is_all=sum(map(len, wanted.values())) == len(rows))

    def key_of(self, row: Any) -> Key | None:
        """The key of one row of an answer. None: it has none."""
        try:
            return row["device"].lower(), _parse_date(row["datetime"])
        except (TypeError, KeyError, AttributeError, ValueError):
            return None

    def _ask(self, keys: Sequence[Key], what: str, form: str) -> Answer:
        """Ask for the rows of these keys, with dates in this form."""
        asked = [{"device": device, "datetime": taken.strftime(form)} for device, taken in keys]
        body = json.dumps(asked).encode()
        return self.post(f"/get_images/{what}", lambda: (Pieces(body), "application/json"))


def open_client(url: str, settings: Settings, context: DestinationContext) -> HttpClient:
    """A client to the server, or to the storage that it names: both have the same authority, if it is their own."""
    patience, authorities = settings.timeout, settings.ca_file
    return http_service.client(url, settings, context, timeout=patience, authorities=authorities)


def md5_of(row: Row) -> str:
    """The digest in a row; '' where that is none: then it says nothing about any bytes."""
    text = str(row.get("md5")).lower()
    return text if _DIGEST.fullmatch(text) else ""


@dataclass(slots=True)
class _Token:
    text: str
    ends: float


class _Tokens:
    """The token of one account: fetched once for all threads, its life counted on the monotonic clock.

    The answer also says when it expires, but on the server's clock, and ours may be years off.
    """

    def __init__(self, client: HttpClient, settings: Settings, secret: str, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._secret = secret
        self._clock = clock
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def get(self) -> str:
        """A token that should still be good."""
        with self._lock:
            if self._token is None or self._clock.monotonic() >= self._token.ends:
                self._fetch()
            assert self._token is not None
            return self._token.text

    @property
    def are_signed_json(self) -> bool:
        """Whether the token is a JSON Web Signature: it begins with a header that names its algorithm.

        So does itsdangerous 1 and 2.0 (TimedJSONWebSignatureSerializer), which branch main uses. Branch develop's
        begin with what was signed.
        """
        head = self._token.text.partition(".")[0] if self._token else ""
        try:
            return b'"alg"' in base64.urlsafe_b64decode(f"{head}==")
        except ValueError:
            return False

    def drop(self, text: str) -> None:
        """The server refused this token; another thread may have fetched a newer one meanwhile."""
        with self._lock:
            if self._token and self._token.text == text:
                self._token = None

    def fetch(self) -> Answer:
        """Fetch a new one, whatever there is, and give the server's answer."""
        with self._lock:
            return self._fetch()

    def _fetch(self) -> Answer:
        password = http_service.secret(self._settings.password_file, self._secret)
        received = self._clock.monotonic()
        account = (self._settings.username, password)
        answer = self._client.insist(
            lambda _: self._client.send("POST", "/get_token", auth=account, largest=_LARGEST_TOKEN)
        )
        user = self._settings.username
        advice = f"look at username ({user!r}) and {self._settings.password_file}"
        if DEVICE.fullmatch(user):  # it has joined
            advice = NOT_KNOWN
        http_service.admitted(answer, advice)
        text = answer.json(dict).get("token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise Unreachable(f"{self._client.host} answered /get_token without a token")
        self._token = _Token(text, received + _TOKEN_LIFE)
        return answer


def _parse_date(text: str) -> datetime:
    """The moment that a server means; ValueError where it is in none of the forms."""
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise ValueError(text)
