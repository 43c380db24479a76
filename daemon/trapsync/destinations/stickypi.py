"""The Sticky Pi API: where sticky-card traps have always sent their images.

The protocol is what the Sticky Pi server does (branch develop of 2023, and main where it differs). What
shapes this module: every failure is a bare 500 that gives no reason; a second upload under a taken name
answers 500 *and overwrites the stored file*; the name of the multipart part, not its file name, says
which image it is. So: look at the image before it is sent, ask before sending, send one at a time, and
after anything but an exact echo of name and digest ask again.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trapsync import failpoint
from trapsync.body import FilePiece, Pieces, multipart, opened
from trapsync.clock import Clock, iso
from trapsync.destinations import Alone, Finding, Receipt, Tools, server, settled
from trapsync.errors import (
    DeliveryError,
    Failed,
    Held,
    Refused,
    SettingsError,
    TrapsyncError,
    Unauthorised,
    Unreachable,
)
from trapsync.http import Answer, Door
from trapsync.image import Image
from trapsync.quantities import Duration
from trapsync.settings import read_secret, require_address, within
from trapsync.stickypi_rules import FIRST_DAY, problem

_TOKEN_LIFE = 86400.0 - 1800.0
# How long "it is not there" is believed before an upload; nobody else sends under this trap's name.
_ABSENCE_LIFE = 3600.0
_CLOCK_TOLERANCE = 60.0
_DATE_FORMS = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d_%H-%M-%S", "%Y-%m-%d %H:%M:%S")
_OLD_FORM = _DATE_FORMS[1]  # what servers of branch main write, and all that they read

Key = tuple[str, datetime]


class Settings(server.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "stickypi"."""

    url: str
    username: str
    password_file: Path
    ca_file: Path | None = None
    patience: Duration = Duration(120)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        example = "https://api.example.org"
        require_address("url", self.url, example, instead="username and password_file")
        if ":" in self.username or not self.username:
            raise ValueError("username: must not be empty, and holds no colon")
        within(self, patience=(0.1, 3600))


def connect(name: str, settings: Settings, tools: Tools) -> "StickyPi":
    """Make the destination; nothing is sent yet."""
    if settings.ca_file and not settings.ca_file.is_file():
        raise SettingsError(f"destinations.{name}.ca_file: there is no file {settings.ca_file}")
    return StickyPi(name, settings, tools)


class StickyPi(Alone):
    """One Sticky Pi server and one account on it."""

    # Hundreds of keys cost the server some 20 ms and a slow link 30 kB.
    batch = 512

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.settings = settings
        self._clock = tools.clock
        self.identity = f"stickypi {settings.url} as {settings.username}"
        self._door = server.door(
            settings.url, settings, tools, patience=settings.patience, authorities=settings.ca_file
        )
        self._tokens = _Tokens(self._door, settings, tools.clock)
        self._absences = _Absences(tools.clock)
        # How this server writes dates; None until the first that is seen.
        self._date_form: str | None = None

    def close(self) -> None:
        """Let connections go."""
        self._door.close()

    # --- Asking -----------------------------------------------------------------------------------------

    def known(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask for all of them in one request; those that the server could never hold are not asked for."""
        by_key: dict[Key, list[Image]] = {}
        for image in images:
            if (key := _key(image)) and key[1] >= FIRST_DAY:
                by_key.setdefault(key, []).append(image)
        if not by_key:  # an empty list would be answered with 500
            return {}
        found: dict[int, Receipt | Exception] = {}
        for row in self._rows(list(by_key)):
            for image in by_key.get(self._row_key(row), ()):
                if not isinstance(found.get(image.id), Receipt):
                    found[image.id] = _compare(image, row)
        self._absences.note(key for key, some in by_key.items() if not any(i.id in found for i in some))
        return found

    def address(self, image: Image, _detail: Mapping[str, Any]) -> str | None:
        """The presigned address of its bytes, asked for anew each time: it is good for seven days."""
        key = _key(image)
        for row in self._rows([key], "image") if key else ():
            url = row.get("url")
            if self._row_key(row) == key and row.get("md5") == image.md5 and isinstance(url, str) and url:
                return url
        return None

    def _rows(self, keys: Sequence[Key], what: str = "metadata") -> list[dict[str, Any]]:
        """The server's rows of these keys; `what` = "image" with addresses.

        A server of branch main knows only its own form of dates and finds nothing by the newer one, which
        branch develop prefers. As long as no date of this server has been seen, each key is spelt both
        ways in the one request; should a server choke on the newer spelling, the older one is asked alone.
        """
        forms = [[self._date_form]] if self._date_form else [[_DATE_FORMS[0], _OLD_FORM], [_OLD_FORM]]
        for spellings in forms:
            answer = self._lookup(keys, spellings, what)
            if answer.status != 500:
                break
        rows: list[dict[str, Any]] = answer.json(list)
        return rows

    def _lookup(self, keys: Sequence[Key], forms: Sequence[str], what: str = "metadata") -> Answer:
        asked = [
            {"device": device, "datetime": taken.strftime(form)} for device, taken in keys for form in forms
        ]
        body = json.dumps(asked).encode()
        return self._authorised(f"/get_images/{what}", lambda: (Pieces(body), "application/json"))

    def _row_key(self, row: object) -> Key:
        """The key of one row of an answer; its date tells how this server writes them."""
        try:
            device, text = row["device"].lower(), row["datetime"]  # type: ignore[index]
            taken, self._date_form = _parse_date(text)
        except (TypeError, KeyError, AttributeError, ValueError):
            raise Unreachable(
                f"{self._door.host} answered with rows that are not a Sticky Pi server's"
            ) from None
        return device, taken

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image in one request; whatever is not its exact echo is settled by asking."""
        if reason := problem(image):
            raise Refused(reason)
        key = _key(image)
        if key is None or key[1] < FIRST_DAY:
            raise Held(
                f"the clock was not set when it was taken: it says {iso(key[1]) if key else 'nothing'}"
            )
        # A second upload would overwrite what is stored: so never without having asked.
        if not self._absences.take(key) and (there := self._ask(image)):
            return there
        try:
            answer = self._upload(image, path)
            failpoint.hit("stickypi: answered")
        except Unauthorised:
            raise
        except Unreachable as lost:
            return self._settle(image, lost)
        return self._judge(image, answer)

    def _upload(self, image: Image, path: Path) -> Answer:
        with opened(image, path) as file:

            def form() -> tuple[Pieces, str]:
                name = str(image.trap_name)
                content = FilePiece(file, image.size)
                digest = image.md5.encode()
                return multipart((name, name, "image/jpeg", content), (f"{name}.md5", "", "", digest))

            return self._authorised("/_put_new_images", form)

    def _judge(self, image: Image, answer: Answer) -> Receipt:
        if answer.status == 413:
            raise Refused(
                f"{self._door.host} takes no image of {image.size} bytes (413); "
                f"let its owner raise the limit (nginx: client_max_body_size), then retry"
            )
        if answer.status == 500:
            return self._settle(image, Failed(f"{self._door.host} did not take it (500, no reason given)"))
        try:
            rows = answer.json(list)
            if len(rows) == 1 and self._row_key(rows[0]) == _key(image):
                if rows[0].get("md5") == image.md5:
                    return Receipt(f"md5:{image.md5}")
                raise Unreachable(f"{self._door.host} confirmed another digest: {rows[0].get('md5')}")
            raise Unreachable(f"{self._door.host} answered 200 without confirming the image")
        except Unreachable as unconfirmed:
            return self._settle(image, unconfirmed)

    def _settle(self, image: Image, doubt: DeliveryError) -> Receipt:
        """After a failure, ask what became of the image; if it is not there, the failure stands."""
        return settled(lambda: self._ask(image), doubt)

    def _ask(self, image: Image) -> Receipt | None:
        """The receipt if the server holds it, None if it does not. Raises Refused on a conflict.

        What it says is good for the caller's next step only: a request that we have given up may still
        be at work on the server.
        """
        outcome = self.known([image]).get(image.id)
        if key := _key(image):
            self._absences.take(key)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _authorised(self, path: str, make_body: Callable[[], tuple[Pieces, str]]) -> Answer:
        """POST with a token, and once more with a new one if the server no longer takes it."""
        for attempt in (1, 2):
            token = self._tokens.get()
            body, kind = make_body()
            answer = self._door.post(path, body, kind=kind, auth=(token, ""))
            if answer.status == 403:
                raise Unauthorised(
                    f"{self._door.host} does not let {self.settings.username!r} do this (403): "
                    f"is the account read-only?"
                )
            if answer.status != 401:
                return answer
            self._tokens.drop(token)
            if attempt == 2:
                break
        raise Unauthorised(f"{self._door.host} refuses even a new token of {self.settings.username!r} (401)")

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the account is let in and may read, and whether our clock agrees with the server's."""
        nobody: Key = ("00000000", FIRST_DAY)
        try:
            answer = self._tokens.fetch()
            self._lookup([nobody], self._date_form or _DATE_FORMS[0]).json(list)
        except TrapsyncError as error:
            return [Finding("failing", self.name, str(error))]
        text = (
            f"{self.settings.url} lets {self.settings.username!r} in and answers; "
            f"whether it may write shows only with an image (403 if not)"
        )
        return [Finding("ok", self.name, text), self._clock_finding(answer)]

    def _clock_finding(self, answer: Answer) -> Finding:
        if answer.date is None:
            return Finding("ok", self.name, "the server does not tell its time")
        ahead = self._clock.wall() - answer.date
        if abs(ahead) <= _CLOCK_TOLERANCE:
            return Finding("ok", self.name, "the server's clock and ours agree")
        amount = timedelta(seconds=round(abs(ahead)))
        side = "ahead of" if ahead > 0 else "behind"
        return Finding(
            "warning", self.name, f"our clock is {amount} {side} the server's; set it (timedatectl)"
        )


@dataclass(slots=True)
class _Token:
    text: str
    ends: float


class _Tokens:
    """The token of one account: fetched once for all threads, its life counted on the monotonic clock.

    The answer also says when it expires, but on the server's clock, and ours may be years off.
    """

    def __init__(self, door: Door, settings: Settings, clock: Clock) -> None:
        self._door = door
        self._settings = settings
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
        try:
            password = read_secret(self._settings.password_file, "password_file")
        except SettingsError as error:
            # The owner can mend this while we run, so it is no reason to stop the trap.
            raise Unauthorised(str(error)) from None
        received = self._clock.monotonic()
        answer = self._door.post("/get_token", auth=(self._settings.username, password))
        if answer.status in {401, 403}:
            raise Unauthorised(
                f"{self._door.host} does not know {self._settings.username!r} with this password "
                f"({answer.status}); look at username and {self._settings.password_file}"
            )
        text = answer.json(dict).get("token")
        if not isinstance(text, str) or not text:
            raise Unreachable(f"{self._door.host} answered /get_token without a token")
        self._token = _Token(text, received + _TOKEN_LIFE)
        return answer


class _Absences:
    """The keys that the server lately said it does not hold. Each is good for one upload."""

    def __init__(self, clock: Clock, most: int = 4096) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._noted: dict[Key, float] = {}

    def note(self, keys: Iterable[Key]) -> None:
        """The server has just said that it does not hold these."""
        now = self._clock.monotonic()
        with self._lock:
            if len(self._noted) > self._most:
                self._noted.clear()
            self._noted.update(dict.fromkeys(keys, now))

    def take(self, key: Key) -> bool:
        """Whether this key was found absent not long ago; asking uses it up."""
        with self._lock:
            noted = self._noted.pop(key, float("-inf"))
        return self._clock.monotonic() - noted < _ABSENCE_LIFE


def _key(image: Image) -> Key | None:
    name = image.trap_name
    return (name.device, name.taken) if name else None


def _parse_date(text: str) -> tuple[datetime, str]:
    """The moment and the form that it is written in; ValueError for any other."""
    for form in _DATE_FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC), form
        except ValueError:
            continue
    raise ValueError(text)


def _compare(image: Image, row: dict[str, Any]) -> Receipt | Refused:
    if str(row.get("md5")).lower() == image.md5:
        return Receipt(f"md5:{image.md5}", {"id": row["id"]} if row.get("id") is not None else {})
    return Refused(
        f"another image is there under this name (md5 {row.get('md5')}, ours {image.md5}): both are kept; "
        f"an admin of the server can delete its one, then retry"
    )
