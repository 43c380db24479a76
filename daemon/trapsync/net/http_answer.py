"""The answers of servers: whole, exact, unpacked within limits, and JSON that can be stored."""

import email.utils
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trapsync.errors import Unreachable, one_line
from trapsync.net import foreign_json

# What may be between a trap and a server, and what to do.
PORTAL = "a sign-in page (captive portal) may be in between: sign in, or use another network"
_LONGEST_WAIT = 86400.0
_ADDRESS = re.compile(r"\S+://\S+")
_TOLD_AS = ("message", "error", "detail", "description")  # where servers say in JSON what is wrong

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

    @property
    def portal(self) -> str:
        """What a page for people, where none was expected, may mean; as the end of a line."""
        return f": {PORTAL}" if self.status == 200 and "html" in self.kind else ""

    @property
    def line(self) -> str:
        """What the body says, as one line: for answers that are plain text."""
        return one_line(self.body[:1000].decode(errors="replace")) or str(self)

    def __str__(self) -> str:
        return f"{self.host} answered {self.status} with {one_line(self.kind, 60) or 'no content type'}"

    def json(self, shape: type[T], *, status: int = 200, most_values: int = foreign_json.MOST_VALUES) -> T:
        """The decoded body of an exact answer: of this status, JSON by its type, and of this shape.

        Everything else is Unreachable, whatever the status says: a portal's page comes with 200 too. What
        it holds can be stored: see `foreign_json`.
        """
        if self.status != status or self.kind != "application/json":
            told = reason(self, *_TOLD_AS) if self.status != status else ""
            raise Unreachable(f"{self}{told and f': {told}'}{self.portal}")
        try:
            content = foreign_json.decode(  # whose length `largest` bounded as it came
                self.body, len(self.body), most_values=most_values
            )
        except ValueError as error:
            raise Unreachable(f"{self.host} answered {status} with JSON that is {error}") from None
        if not isinstance(content, shape):
            found = type(content).__name__
            raise Unreachable(f"{self.host} answered {status} with JSON of another shape: a {found}")
        return content


def reason(answer: Answer, *keys: str) -> str:
    """The reason that a service gives in its JSON under the first of these keys; "" if it gives none."""
    try:
        content = answer.json(dict, status=answer.status)
    except Unreachable:
        return ""
    return quoted(next((content[key] for key in keys if content.get(key)), ""))


def quoted(text: object) -> str:
    """A service's text for our log: one short line without addresses, which may be secrets."""
    return one_line(_ADDRESS.sub("...", str(text)[:1000]))  # the pattern takes the square of its length


def require_final(answer: Answer, asked_to_wait: Callable[[Answer], float], *, is_plain: bool) -> Answer:
    """The answer, unless it is a redirect or asks to come later: Unreachable. `is_plain`: it came without TLS."""
    if 300 <= answer.status < 400 and answer.status != 304:  # which says: what you have is still so
        scheme, host = _place(answer.headers.get("Location", ""))
        if is_plain and scheme == "https" and _name(host) == _name(answer.host):
            text = "takes no connections without TLS; write https:// instead of http:// in its address"
            raise Unreachable(f"{answer.host} {text}")
        place = one_line(host, 100) or "another page"
        raise Unreachable(f"{answer.host} redirected to {place}: {PORTAL}")
    if answer.status in {429, 503}:
        # A day at most: a server's slip must not silence a trap for ever.
        wait = min(max(asked_to_wait(answer), 0.0), _LONGEST_WAIT)
        later = f", in {wait:.0f} s" if wait else ""
        raise Unreachable(f"{answer.host} answered {answer.status}: it asks to come later{later}", wait=wait)
    if answer.status == 507:
        raise Unreachable(f"{answer.host} has no room left (507): free some space there")
    return answer


def _place(address: str) -> tuple[str, str]:
    """Scheme and host in an address; nothing, if it is none."""
    try:
        return urlsplit(address).scheme, urlsplit(address).netloc
    except ValueError:
        return "", ""


def _name(host: str) -> str:
    """A host without its port."""
    return re.sub(r":\d*$", "", host).lower()


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
    """Undo gzip, as far as a byte beyond the limit: a small answer may not fill the memory. ConnectionError if it is cut."""
    if encoding.lower() not in {"gzip", "x-gzip"}:
        return raw
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(raw, largest + 1)
    except zlib.error:
        raise ConnectionError("broken gzip") from None
    if not unpacker.eof and len(content) <= largest:
        raise ConnectionError("cut gzip")
    return content
