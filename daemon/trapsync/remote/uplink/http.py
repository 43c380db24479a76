"""The link to the hub over HTTPS: signed documents are pulled, heartbeats are posted.

::

    GET  <url>/pushed/<slot>                 device-0123abcd.settings, group-valley.resend, all.settings, key-….keys
    POST <heartbeat_url>/heartbeats/<device>
    POST <heartbeat_url>/reports/<device>    what a hub is to know once: see `reports`

The first needs no program on the other side: a folder on any web server, or a bucket, will do.
"""

import hashlib
from collections.abc import Callable, Sequence
from http import HTTPStatus

from trapsync import __version__
from trapsync.clock import Clock
from trapsync.errors import SettingsError, Unauthorised, Unreachable
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.invitation import NOT_KNOWN
from trapsync.net.proxy import proxy_for
from trapsync.settings.config_file import read_secret
from trapsync.settings.schema import DEVICE, Hub

LARGEST_DOCUMENT = 64 * 1024  # bytes, as `document` has it
_MAGIC = b"trapsync-signed-"
_LARGEST_ANSWER = 2**20
_LONGEST_TAG = 200  # characters
_PATIENCE = 60.0  # seconds of silence
_TAKEN = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT}
_NO_PLACE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}

Receive = Callable[[bytes], object]


class HttpLink:
    """The link to one web server, or to two: one for documents, one for heartbeats."""

    def __init__(
        self, hub: Hub, device: str, slots: Sequence[str], clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        """`slots` are the names to ask for. SettingsError if the certificate's file is missing."""
        if hub.ca_file and not hub.ca_file.is_file():
            raise SettingsError(f"hub.ca_file: there is no file {hub.ca_file}")
        self._hub = hub
        self._device = device
        self._slots = slots if hub.url else ()
        # What was handed over from each slot: its ETag, and the SHA-256 for servers that have none.
        self._seen: dict[str, tuple[str, str]] = {}

        def door(url: str) -> HttpClient:
            agent = f"trapsync/{__version__}"
            proxy = proxy_for(url, hub, "hub")
            return HttpClient(
                url, agent, clock, sleep, timeout=_PATIENCE, authorities=hub.ca_file, proxy=proxy
            )

        self._pulling = door(hub.url)
        self._telling = door(hub.tell_url)

    def close(self) -> None:
        """Close the connections: five hundred traps must not hold five hundred of them in between."""
        self._pulling.close()
        self._telling.close()

    def forget(self) -> None:
        """Ask for every document anew: one that was refused because of the time may be valid by now."""
        self._seen.clear()

    def pull(self, receive: Receive) -> str | None:
        """Ask every slot, and hand over each document that is new; what is wrong with one of them, the others being well.

        A document that was handed over is not asked for again until there is another; if `receive` raises, it is. Raises
        Unreachable, after the last, if nothing that came was any good: then it may be a sign-in page that answers.
        """
        trouble: list[str] = []
        for slot in self._slots:
            trouble += self._pull(slot, receive)
        if trouble and len(trouble) == len(self._slots):
            raise Unreachable(trouble[0])
        return trouble[0] if trouble else None

    def _pull(self, slot: str, receive: Receive) -> list[str]:
        """Ask one slot; return what is wrong with the answer, for the others may be OK."""
        tag, known = self._seen.get(slot, ("", ""))
        headers = {"If-None-Match": tag} if tag else None
        auth = self._auth()
        answer = self._pulling.send(
            "GET", f"/pushed/{slot}", headers=headers, auth=auth, largest=_LARGEST_ANSWER
        )
        if answer.status == HTTPStatus.NOT_MODIFIED and tag:
            return []
        if _is_nothing(answer, auth):
            self._seen.pop(slot, None)
            return []
        if problem := self._problem(answer):
            return [f"{slot}: {problem}"]
        found = hashlib.sha256(answer.body).hexdigest()
        if found != known:
            receive(answer.body)
        self._seen[slot] = (_tag(answer), found)
        return []

    def tell(self, beat: bytes) -> None:
        """Post a heartbeat. Raises Unreachable when it was not taken."""
        path = f"/heartbeats/{self._device}"
        answer = self._telling.send(
            "POST", path, beat, kind="application/json", auth=self._auth(), largest=_LARGEST_ANSWER
        )
        self._require_entry(answer)
        if answer.status in _NO_PLACE:
            raise Unreachable(f"{answer}: it takes no heartbeats; set hub.heartbeat_url")
        if answer.status not in _TAKEN or "html" in answer.kind:
            raise Unreachable(f"{answer} to a heartbeat{answer.portal}")

    def report(self, lines: bytes, since: int) -> Answer:
        """Post reports, one a line; whatever is answered. Raises Unreachable where nothing is. See `net.reports`."""
        path = f"/reports/{self._device}?since={since}"
        return self._telling.send("POST", path, lines, kind="application/x-ndjson", auth=self._auth())

    def _auth(self) -> tuple[str, str] | None:
        hub = self._hub
        if hub.password_file is None:
            return None
        return hub.username, read_secret(hub.password_file, "hub.password_file")

    def _problem(self, answer: Answer) -> str:
        """Why this answer is no signed document; empty if it looks like one. Raises Unauthorised."""
        if answer.status == HTTPStatus.FORBIDDEN and answer.kind == "text/plain":
            return answer.line  # a hub that lets this trap in, and not into this group
        self._require_entry(answer)
        if answer.status != HTTPStatus.OK:
            return str(answer)
        if len(answer.body) > LARGEST_DOCUMENT:
            return (
                f"{answer.host} has a document of {len(answer.body)} bytes; {LARGEST_DOCUMENT} are the most"
            )
        if not answer.body.startswith(_MAGIC):
            return f"{answer}, which is no signed document{answer.portal}"
        return ""

    def _require_entry(self, answer: Answer) -> None:
        if answer.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return
        if DEVICE.fullmatch(self._hub.username):  # it has joined
            raise Unauthorised(f"{answer}: {NOT_KNOWN}")
        raise Unauthorised(f"{answer}: check hub.username and hub.password_file")


def _tag(answer: Answer) -> str:
    """The answer's ETag; "" for one that cannot be sent back as it is, or would cost more than it saves."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.isascii() and tag.isprintable() and len(tag) <= _LONGEST_TAG else ""


def _is_nothing(answer: Answer, auth: object) -> bool:
    """Whether the slot is empty. A bucket that may not be listed says 403 for what it has not."""
    if answer.status == HTTPStatus.FORBIDDEN and auth is None:
        return True
    return answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
