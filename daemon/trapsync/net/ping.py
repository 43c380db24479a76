"""A plain GET that tells a dead-man's service that somebody works, within bounds of time and memory."""

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from trapsync.clock import Clock
from trapsync.errors import Unreachable
from trapsync.net.http import HttpClient

_WITHIN = 10.0  # seconds
_LARGEST = 64 * 1024  # bytes of an answer


def ping(url: str, clock: Clock, sleep: Callable[[float], None]) -> None:
    """Ask for an address, logged in by Basic authentication if it names a user.

    Raises Unreachable, which names the server only: the rest of the address is a secret.
    """
    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    user, _, password = map(unquote, login.partition(":"))
    auth = (user, password) if login else None
    client = HttpClient(f"{parts.scheme}://{place}", "trapsync-hub", clock, sleep, timeout=_WITHIN)
    path = f"{parts.path or '/'}?{parts.query}".removesuffix("?")
    try:
        status = client.send("GET", path, auth=auth, deadline=_WITHIN, largest=_LARGEST).status
    finally:
        client.close()
    if not 200 <= status < 300:
        raise Unreachable(f"{parts.hostname} answered with status {status}")
