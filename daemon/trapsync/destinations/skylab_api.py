"""The protocol of Skylab Studio: small JSON calls with the key in a header, and a PUT to a storage of its own.

What shapes this module: parameters of a GET go into the query (the vendor's Python client puts them into a body,
which proxies drop); errors are JSON with a `message`; the bytes go to a signed address of S3, without the key,
and S3 compares them with Content-MD5. The tagging header is part of the signature, so that it must be there for
jobs of the type "regular" and must not be for others.
"""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from trapsync import __version__
from trapsync.body import FilePiece
from trapsync.errors import DeliveryError, Failed, SettingsError, Unauthorised, Unreachable
from trapsync.http import Answer, Door

_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32})"?')
_UNKNOWN = {404, 422}  # how it says that there is no such thing is not written anywhere
_MOST_DOORS = 4

OpenDoor = Callable[[str], Door]


class Api:
    """The JSON half. Every method asks once, and raises Unreachable, or Failed where it is told no with a message."""

    def __init__(self, door: Door, read_key: Callable[[], str]) -> None:
        self._door = door
        self._read_key = read_key

    def profile(self, number: int) -> dict[str, Any]:
        """The recipe; Failed if there is none of this number."""
        return self._ask("GET", f"profiles/{number}")

    def job(self, number: int) -> dict[str, Any] | None:
        """The job; None if it is not there any more."""
        return self._find(f"jobs/{number}")

    def job_by_name(self, name: str) -> dict[str, Any] | None:
        """The job of this name; None if there is none."""
        return self._find(f"jobs/find_by_name?{urlencode({'name': name})}")

    def create_job(self, name: str, profile: int) -> dict[str, Any]:
        """A new job."""
        return self._ask("POST", "jobs", {"name": name, "profile_id": profile})

    def queue(self, job: int, callback_url: str) -> None:
        """Hand a job in: it is processed, and paid for."""
        self._ask("POST", f"jobs/{job}/queue", {"callback_url": callback_url} if callback_url else {})

    def photos(self, job: int) -> list[dict[str, Any]]:
        """All photos of a job."""
        answer = self._send("GET", f"photos/list_for_job?{urlencode({'job_id': job})}")
        self._minded(answer, Unreachable)
        rows: list[Any] = answer.json(list)
        return [_numbered(row, self._door.host) for row in rows]

    def create_photo(self, job: int, name: str) -> dict[str, Any]:
        """A new photo, still without bytes. Failed if the name is taken in that job."""
        return self._ask("POST", "photos", {"job_id": job, "name": name, "use_cache_upload": False})

    def photo(self, number: int) -> dict[str, Any] | None:
        """The photo, with fresh addresses of its bytes; None if it is not there any more."""
        return self._find(f"photos/{number}")

    def remove_photo(self, number: int) -> None:
        """Remove a photo; that it was not there is well, too."""
        answer = self._send("DELETE", f"photos/{number}")
        if answer.status not in {200, 202, 204, *_UNKNOWN}:
            self._minded(answer)
            raise Unreachable(str(answer))

    def upload_url(self, photo: int, md5: str) -> str:
        """Where the bytes of this photo may be put, for a while. `md5` in hex."""
        query = {"use_cache_upload": "false", "photo_id": photo, "content_md5": _base64(md5)}
        answer = self._send("GET", f"photos/upload_url?{urlencode(query)}")
        self._minded(answer)
        url = answer.json(dict).get("url")
        if not isinstance(url, str):
            raise Unreachable(f"{self._door.host} gave no address to upload to")
        return url

    def _find(self, path: str) -> dict[str, Any] | None:
        answer = self._send("GET", path)
        if answer.kind == "application/json" and answer.status in {200, *_UNKNOWN}:
            content: dict[str, Any] = answer.json(dict, status=answer.status)
            if "id" not in content and isinstance(content.get("message"), str):
                return None
        self._minded(answer, Unreachable)
        return _numbered(answer.json(dict), self._door.host)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._send(method, path, body)
        self._minded(answer)
        status = answer.status if answer.status in {200, 201} else 200
        return _numbered(answer.json(dict, status=status), self._door.host)

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        headers = {"X-SLT-API-KEY": self._key(), "X-SLT-API-CLIENT": f"trapsync-{__version__}"}
        content = b"" if body is None else json.dumps(body).encode()
        return self._door.send(method, f"/{path}", content, kind="application/json", headers=headers)

    def _key(self) -> str:
        """Read anew for each call: the owner can mend it while we run, so it is no reason to stop the trap."""
        try:
            key = self._read_key()
        except SettingsError as error:
            raise Unauthorised(str(error)) from None
        if not (key.isascii() and key.isprintable()):
            raise Unauthorised("key_file: what it holds is no key: a key is one line of plain characters")
        return key

    def _minded(self, answer: Answer, no: type[DeliveryError] = Failed) -> None:
        """Raise what an answer with a status from 400 on means; `no` is what it means to be told no."""
        if answer.status in {401, 403}:
            raise Unauthorised(f"{self._door.host} does not take the key ({answer.status}); look at key_file")
        if answer.status == 402:
            raise Unauthorised(
                f"{self._door.host} asks to be paid first (402); look at the account's credits"
            )
        if 400 <= answer.status < 500 and answer.kind == "application/json":
            raise no(f"{self._door.host} says no ({answer.status}): {_message(answer)}")


class Storage:
    """The other half: bytes, at signed addresses of hosts that the service names. No address is ever in a text."""

    def __init__(self, open_door: OpenDoor, *, must_be_safe: bool) -> None:
        self._open_door = open_door
        self._must_be_safe = must_be_safe
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let connections go."""
        for door in self._doors.values():
            door.close()

    def put(self, url: str, piece: FilePiece, md5: str, *, is_regular: bool) -> Answer:
        """PUT the bytes, once, and give what the storage answered."""
        headers = {"Content-MD5": _base64(md5)}
        if is_regular:
            headers["X-Amz-Tagging"] = "job=photo&api=true"
        door, path = self._at(url)
        return door.send("PUT", path, piece, headers=headers)

    def digest(self, url: str) -> str | None:
        """The MD5 (hex) of what lies there, of which one byte is asked for; "" if it is not told; None: nothing."""
        with self.fetched(url, 60.0, 2**20, {"Range": "bytes=0-0"}) as (answer, pieces):
            if (
                answer.status != 200
            ):  # read to its end it keeps the connection; after 200 all of the image comes
                sum(map(len, pieces))
            if answer.status in {403, 404}:  # S3 says 403 where nothing is and lists may not be read
                return None
            if answer.status not in {200, 206}:
                raise Unreachable(str(answer))
            digest = confirmed_md5(answer)
            if digest is None and answer.kind == "text/html":
                raise Unreachable(f"{answer}: a captive portal?")
            return digest or ""

    @contextmanager
    def fetched(
        self, url: str, deadline: float, largest: int, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """GET what lies there, as `Door.fetch` does."""
        door, path = self._at(url)
        with door.fetch(path, headers=headers, deadline=deadline, largest=largest) as got:
            yield got

    def _at(self, url: str) -> tuple[Door, str]:
        """The door to an address's host, and the way behind it."""
        parts = urlsplit(url)
        if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc:
            raise Unreachable("the service gave an address that is none")
        if self._must_be_safe and parts.scheme != "https":
            raise Unreachable(f"the service gave an address at {parts.hostname} that is not https")
        base = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if base not in self._doors:
                if len(self._doors) >= _MOST_DOORS:
                    self._doors.pop(next(iter(self._doors)))
                self._doors[base] = self._open_door(base)
            return self._doors[base], url[len(base) :]


def address_in(row: Mapping[str, Any] | None, what: str) -> str:
    """An address that a thing of the service's tells; "" if it tells none: before its time there may be other text."""
    told = (row or {}).get(what)
    return told if isinstance(told, str) and told.lower().startswith("http") else ""


def confirmed_md5(answer: Answer) -> str | None:
    """The MD5 of the bytes that the storage has, by its ETag; None if that is none.

    S3's is one for what came in one part, unless it is encrypted with a key of KMS.
    """
    if answer.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        return None
    match = _MD5.fullmatch(answer.headers.get("ETag", "").lower().replace("w/", "W/"))
    return match[1] if match else None


def _base64(md5: str) -> str:
    return base64.b64encode(bytes.fromhex(md5)).decode()


def _numbered(row: Any, host: str) -> dict[str, Any]:
    """A thing of the service's: an object with a number of its own."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), int):
        raise Unreachable(f"{host} answered with something that has no number")
    return row


def _message(answer: Answer) -> str:
    """The service's own words, on one line and not too many."""
    try:
        text = json.loads(answer.body)["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = "no reason given"
    return " ".join(str(text).split())[:200]
