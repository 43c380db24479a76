"""The protocol of Skylab Studio: small JSON calls with the key in a header, and a PUT to a storage of its own.

What shapes this module: parameters of a GET go into the query (the vendor's Python client puts them into a body,
which proxies drop); errors are JSON with a `message`; the bytes go to a signed address of S3 (`storage`), without
the key, and S3 compares them with Content-MD5.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from trapsync import __version__
from trapsync.destinations import http_service
from trapsync.destinations.object_storage import in_base64
from trapsync.errors import DeliveryError, Failed, Unauthorised, Unreachable, one_line
from trapsync.net.http import LARGEST_ANSWER, HttpClient
from trapsync.net.http_answer import Answer, reason

# Bytes of the list of a job's photos, a thousand at the most, each with signed addresses: no list of it has pages.
_LARGEST_LIST = 3 * 2**20
_UNKNOWN = {404, 422}  # how it says that there is no such thing is not written anywhere


class Api:
    """The JSON half. Every method asks once, and raises Unreachable, or Failed where it is told no with a message."""

    def __init__(self, client: HttpClient, key_file: Path, key_name: str) -> None:
        self._client = client
        self._key_file = key_file
        self._key_name = key_name

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

    def queue(self, job: int) -> None:
        """Submit a job: it is processed, and paid for."""
        self._ask("POST", f"jobs/{job}/queue", {})

    def photos(self, job: int) -> list[dict[str, Any]]:
        """All photos of a job; a row that has no number of its own is none of ours."""
        question = f"photos/list_for_job?{urlencode({'job_id': job})}"
        answer = self._send("GET", question, largest=_LARGEST_LIST)
        self._minded(answer, Unreachable)
        rows: list[Any] = answer.json(list)
        photos = [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), int)]
        if rows and not any(isinstance(row, dict) and "id" in row for row in rows):
            raise Unreachable(f"{self._client.host} answered with a list that is not one of photos")
        return photos

    def create_photo(self, job: int, name: str) -> dict[str, Any]:
        """A new photo, still without bytes. Failed if the name is taken in that job."""
        return self._ask("POST", "photos", {"job_id": job, "name": name, "use_cache_upload": False})

    def photo(self, number: int) -> dict[str, Any] | None:
        """The photo, with fresh addresses of its bytes; None if it is not there any more."""
        return self._find(f"photos/{number}", Failed)

    def remove_photo(self, number: int) -> None:
        """Remove a photo; that it was not there is well, too."""
        answer = self._send("DELETE", f"photos/{number}")
        if answer.status not in {200, 202, 204, *_UNKNOWN}:
            self._minded(answer)
            raise Unreachable(str(answer))

    def upload_url(self, photo: int, md5: str) -> str:
        """Where the bytes of this photo may be put, for a while. `md5` in hex."""
        query = {"use_cache_upload": "false", "photo_id": photo, "content_md5": in_base64(md5)}
        answer = self._send("GET", f"photos/upload_url?{urlencode(query)}")
        self._minded(answer)
        url = answer.json(dict).get("url")
        if not isinstance(url, str):
            raise Unreachable(f"{self._client.host} gave no address to upload to")
        return url

    def _find(self, path: str, no: type[DeliveryError] = Unreachable) -> dict[str, Any] | None:
        answer = self._send("GET", path)
        if answer.kind == "application/json" and answer.status in {200, *_UNKNOWN}:
            content: dict[str, Any] = answer.json(dict, status=answer.status)
            if "id" not in content and isinstance(content.get("message"), str):
                return None
        self._minded(answer, no)
        return _numbered(answer.json(dict), self._client.host)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._send(method, path, body)
        self._minded(answer)
        status = answer.status if answer.status in {200, 201} else 200
        return _numbered(answer.json(dict, status=status), self._client.host)

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, largest: int = LARGEST_ANSWER
    ) -> Answer:
        key = self._key()
        headers = {"X-SLT-API-KEY": key, "X-SLT-API-CLIENT": f"trapsync-{__version__}"}
        content = b"" if body is None else json.dumps(body).encode()
        answer = self._client.request(
            method, f"/{path}", content, kind="application/json", headers=headers, largest=largest
        )
        return http_service.admitted(answer, "look at key_file, and at the account's credits", hide=key)

    def _key(self) -> str:
        key = http_service.secret(self._key_file, self._key_name)
        if not (key.isascii() and key.isprintable()):
            raise Unauthorised("key_file: what it holds is no key: a key is one line of plain characters")
        return key

    def _minded(self, answer: Answer, no: type[DeliveryError] = Failed) -> None:
        """Raise what an answer with a status from 400 on means; `no` is what it means to be told no."""
        if 400 <= answer.status < 500 and answer.kind == "application/json":
            why = reason(answer, "message") or "no reason given"
            raise no(f"{self._client.host} says no ({answer.status}): {why}")


def address_in(row: Mapping[str, Any] | None, what: str) -> str:
    """An address that a thing of the service's tells; "" if it tells none: before its time there may be other text."""
    told = (row or {}).get(what)
    return told if isinstance(told, str) and told.lower().startswith("http") else ""


def _numbered(row: dict[str, Any], host: str) -> dict[str, Any]:
    """A thing of the service's: an object with a number of its own. Failed if the number is none."""
    if "id" not in row:
        raise Unreachable(f"{host} answered with something that has no number")
    if not isinstance(row["id"], int):
        raise Failed(f"{host} answered with a number that is none: {one_line(row['id'], 40)}")
    return row
