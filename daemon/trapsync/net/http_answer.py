"""The answers of servers: whole, exact, unpacked within limits, and JSON that can be stored."""

import email.utils
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trapsync.errors import Unreachable, one_line

_LONGEST_WAIT = 86400.0
_LONGEST_NUMBER = 20  # digits with a sign
_MOST = 2**63
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")

T = TypeVar("T", list[Any], dict[str, Any])


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are found in any case; the body is already unpacked."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def date(self) -> float | None:
        """The server's own clock in unix seconds, from its Date header."""
        return _moment(self.headers.get("Date", ""))

    def __str__(self) -> str:
        return f"{self.host} answered {self.status} with {one_line(self.kind, 60) or 'no content type'}"

    def json(self, shape: type[T], *, status: int = 200) -> T:
        """The decoded body of an exact answer: of this status, JSON by its type, and of this shape.

        Everything else is Unreachable, whatever the status says: a portal's page comes with 200 too. What
        it holds can be stored: see `_content`.
        """
        if self.status != status or self.kind != "application/json":
            portal = ": a captive portal?" if self.status == 200 and "html" in self.kind else ""
            raise Unreachable(f"{self}{portal}")
        try:
            content = _content(self.body)
        except (ValueError, RecursionError):
            raise Unreachable(f"{self.host} answered {status} with JSON that is cut off or broken") from None
        if not isinstance(content, shape):
            found = type(content).__name__
            raise Unreachable(f"{self.host} answered {status} with JSON of another shape: a {found}")
        return content


def _content(body: bytes) -> Any:
    """JSON, without what SQLite, a log or a strict reader of JSON would not take; ValueError if it is none.

    A number that is none or has no room in 64 bits is null, a character that is none is a question mark: of a
    list of images, one odd value must not cost all the others.
    """
    content = json.loads(
        body.decode("utf-8-sig", "replace"),
        parse_constant=lambda _: None,
        parse_float=lambda text: number if math.isfinite(number := float(text)) else None,
        parse_int=_integer,
    )
    if _HALF.search(body):  # perhaps of a surrogate that lacks its other half: two halves are joined by now
        content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    return content


def _integer(text: str) -> int | None:
    """A number of 64 bits; Python itself refuses those of thousands of digits."""
    number = int(text) if len(text) <= _LONGEST_NUMBER else _MOST
    return number if -_MOST <= number < _MOST else None


def require_final(answer: Answer, asked_to_wait: Callable[[Answer], float]) -> Answer:
    """The answer, unless it is a redirect or asks to come later: Unreachable."""
    if 300 <= answer.status < 400 and answer.status != 304:  # which says: what you have is still so
        place = one_line(_host(answer.headers.get("Location", "")), 100) or "another page"
        raise Unreachable(f"{answer.host} redirected to {place}: a captive portal?")
    if answer.status in {429, 503}:
        # A day at most: a server's slip must not silence a trap for ever.
        wait = min(max(asked_to_wait(answer), 0.0), _LONGEST_WAIT)
        later = f", in {wait:.0f} s" if wait else ""
        raise Unreachable(f"{answer.host} answered {answer.status}: it asks to come later{later}", wait=wait)
    return answer


def _host(address: str) -> str:
    """The host in an address; nothing, if it is none."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def retry_after(answer: Answer) -> float:
    """Seconds to stay away, by the header Retry-After; 0 if it says nothing.

    A moment is taken relative to the server's own Date, for our clock may be years off (RFC 9110,
    10.2.3).
    """
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    moment, now = _moment(text), answer.date
    return moment - now if moment and now else 0.0


def _moment(text: str) -> float | None:
    """Unix seconds of an HTTP date."""
    try:
        return email.utils.parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def unpacked(raw: bytes, encoding: str, largest: int) -> bytes:
    """Undo gzip within a limit, so that a small answer cannot fill the memory. ConnectionError if it is not whole."""
    if encoding.lower() not in {"gzip", "x-gzip"}:
        return raw
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(raw, largest)
    except zlib.error:
        raise ConnectionError("broken gzip") from None
    if not unpacker.eof:
        raise ConnectionError("cut or oversized gzip")
    return content
