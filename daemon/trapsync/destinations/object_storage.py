"""Object storage behind a service: bytes at signed addresses, on hosts that the service names.

An address carries its own right, for a while: nothing else that lets us in is ever sent there, and no address is
ever in a text. S3 tells the MD5 of what it has as ETag, where it came in one part.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from trapsync.errors import Failed, Unreachable
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.http_body import FilePiece

_MD5 = re.compile(r'(?:W/)?"?([0-9a-f]{32})"?')
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")
_MOST_CLIENTS = 4
_ONE_BYTE = {"Range": "bytes=0-0"}

OpenClient = Callable[[str], HttpClient]


class Storage:
    """The storage of one service. May be used from several threads."""

    def __init__(self, open_client: OpenClient, *, must_be_safe: bool) -> None:
        self._open_client = open_client
        self._must_be_safe = must_be_safe
        self._clients: dict[str, HttpClient] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close connections."""
        for client in self._clients.values():
            client.close()

    def put(self, url: str, piece: FilePiece, headers: Mapping[str, str]) -> Answer:
        """PUT the bytes, once, and give what the storage answered."""
        client, path = self._at(url)
        return client.send("PUT", path, piece, headers=headers)

    def look(self, url: str) -> Answer:
        """Ask for one byte of what lies there: the answer's status and headers, without its body."""
        with self.fetched(url, 60.0, 2**20, _ONE_BYTE) as (answer, pieces):
            # Read to its end it keeps the connection; but after a 200 all of the image would come.
            if answer.status != 200:
                sum(map(len, pieces))
            if answer.status == 200 and answer.kind == "text/html" and confirmed_md5(answer) is None:
                raise Unreachable(f"{answer}{answer.portal}")
            return answer

    def digest(self, url: str) -> str | None:
        """The MD5 (hex) of what lies there; "" if it is not told; None: nothing. Failed: this address is no good."""
        if fault := self.fault(url):
            raise Failed(fault)
        answer = self.look(url)
        if answer.status in {403, 404}:  # S3 says 403 where nothing is and lists may not be read
            return None
        if answer.status not in {200, 206}:
            raise (Failed if 400 <= answer.status < 500 else Unreachable)(str(answer))
        return confirmed_md5(answer) or ""

    @contextmanager
    def fetched(
        self, url: str, deadline: float, largest: int, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """GET what lies there, as `HttpClient.fetch` does."""
        client, path = self._at(url)
        with client.fetch(path, headers=headers, deadline=deadline, largest=largest) as got:
            yield got

    def fault(self, url: object) -> str | None:
        """What is wrong with an address that the service gave; None if it can be asked."""
        base = _base(url) if isinstance(url, str) else None
        if base is None:
            return "the service gave an address that is none"
        if self._must_be_safe and not base.startswith("https:"):
            return f"the service gave an address at {base.removeprefix('http://')} that is not https"
        return None

    def _at(self, url: str) -> tuple[HttpClient, str]:
        """The client to an address's host, and the way behind it."""
        if fault := self.fault(url):
            raise Unreachable(fault)
        base = _base(url) or ""
        with self._lock:
            if base not in self._clients:
                if len(self._clients) >= _MOST_CLIENTS:
                    self._clients.pop(next(iter(self._clients)))
                self._clients[base] = self._open_client(base)
            return self._clients[base], url[len(base) :]


def confirmed_md5(answer: Answer) -> str | None:
    """The MD5 of the bytes that the storage has, by its ETag; None if that is none.

    S3's is one for what came in one part, unless it is encrypted with a key of KMS.
    """
    if answer.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        return None
    match = _MD5.fullmatch(answer.headers.get("ETag", "").lower().replace("w/", "W/"))
    return match[1] if match else None


def in_base64(md5: str) -> str:
    """A digest as Content-MD5 has it."""
    return base64.b64encode(bytes.fromhex(md5)).decode()


def _base(url: str) -> str | None:
    """`https://host:port` of an address, as it is written there; None if it is no address."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where it is none
    except ValueError:
        return None
    if parts.scheme not in {"https", "http"} or not _HOST.fullmatch(parts.netloc) or not url.isprintable():
        return None
    return url[: len(parts.scheme) + 3 + len(parts.netloc)]
