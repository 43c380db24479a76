"""The process that sends one message by Apprise: what it may take and open is limited, and it ends with its parent.

It reads JSON from its input and writes one line of JSON, in which `why` is empty where the message was taken. Whatever a
service answers stays in this process. It opens no file but the program's, and those by which addresses are looked up and
certificates verified: no database, no picture, no secret.
"""

import base64
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trapsync.errors import one_line
from trapsync.files.parent import end_with
from trapsync.files.private_memory import keep_memory_private
from trapsync.net import foreign_json
from trapsync.runtime import landlock, restricted

MISSING = "Apprise is not installed; run: pipx inject trapsync apprise"
UNKNOWN = "Apprise knows no such address"
REFUSED = "the service did not take it"
TOO_MUCH = "the service answered more than fits into memory"

_MORE_MEMORY = 64 * 2**20  # bytes, beyond what the process has when it has loaded everything
_LARGEST_ORDER = 4 * 2**20  # bytes, with a small copy
_LARGEST_FILE = 64 * 1024  # bytes; its answer is a line
_NICE = 5
_STATUS = re.compile(r"\berror=\d{3}\b")  # as Apprise writes it
_LONGEST_HEARD = (
    4000  # characters: a secret is found whole only, so the rest is cut when there is none any more
)
_SHORTEST_SECRET = 3  # characters of a part of an address that is taken out of a text
_OF_NETWORKS = ("resolv.conf", "hosts", "host.conf", "gai.conf", "services", "ssl", "ca-certificates", "pki")
_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/usr/share/zoneinfo")


def main() -> None:
    """Read an order, do it, answer; for `python -m`."""
    keep_memory_private()
    end_with(int(sys.argv[1]))
    with suppress(OSError):  # which a service may forbid, as the limits below
        os.nice(_NICE)
    order = foreign_json.decode(sys.stdin.buffer.read(), _LARGEST_ORDER)
    # Nothing of a library gets between the answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr = io.StringIO()
    try:
        why = _send(order)
    except MemoryError:
        why = TOO_MUCH
    except Exception as error:  # a plugin's bug: one of a hundred services
        why = f"{REFUSED}: {type(error).__name__}: {error}"
    # Apprise does not tell whether a message was on its way; a status is an answer to it.
    is_unknown = bool(why) and why not in {MISSING, UNKNOWN} and not _STATUS.search(why)
    json.dump({"why": _without_secrets(why, order["url"]), "is_unknown": is_unknown}, answer)
    answer.close()
    os._exit(0)  # without waiting for a thread that hangs


def _send(order: dict[str, Any]) -> str:
    """Send the message; why it was not taken, or nothing."""
    try:
        import apprise
        from apprise.attachment.memory import AttachMemory
    except ModuleNotFoundError:
        return MISSING
    said = _Heard()
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [said], False
    logger.setLevel(logging.WARNING)
    asset = apprise.AppriseAsset(
        app_id="trapsync", app_desc="trapsync hub", app_url="", async_mode=False, plugin_paths=[]
    )
    # What is too long is cut, unless the address says otherwise: most services refuse it, now and ever after.
    apprise.NotifyBase.overflow_mode = apprise.OverflowMode.TRUNCATE
    service = apprise.Apprise(asset=asset)
    if not service.add(order["url"]):
        return UNKNOWN
    attachment = None
    if order.get("picture"):
        picture = base64.b64decode(order["picture"])
        attachment = apprise.AppriseAttachment(AttachMemory(picture, "trap.jpg", "image/jpeg"))  # type: ignore[no-untyped-call]
    _limit()
    kind = apprise.NotifyType.WARNING if order["is_bad"] else apprise.NotifyType.INFO
    is_taken = service.notify(
        order["body"], title=order["subject"], notify_type=kind, body_format="text", attach=attachment
    )
    return "" if is_taken else f"{REFUSED}: {said.texts[-1]}" if said.texts else REFUSED


class _Heard(logging.Handler):
    """Keeps what Apprise logs."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the newest."""
        self.texts = [*self.texts[-2:], one_line(record.getMessage(), _LONGEST_HEARD)]


def _limit() -> None:
    """Give up what is not needed to send, and take little more memory: a service may answer without end."""
    import resource

    with suppress(OSError):
        landlock.restrict(_rules(), keeps_tcp=True)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _MORE_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _rules() -> Iterator[tuple[Path, int]]:
    yield from restricted.of_programs()
    for name in (*_OF_NETWORKS, "mime.types"):
        yield Path("/etc", name), landlock.READ
    for name in _RUN:
        yield Path(name), landlock.READ
    yield Path("/proc/self"), landlock.READ


def _without_secrets(text: str, url: str) -> str:
    """The text without any part of the address: which of them are secrets differs from service to service."""
    pieces = re.split(r"[/:@?&=;,]+", url.partition("://")[2])
    with suppress(ValueError):  # of "[" without "]"
        pieces.append(urlsplit(url).hostname or "")
    for piece in sorted({*pieces, *map(unquote, pieces)}, key=len, reverse=True):
        if len(piece) >= _SHORTEST_SECRET:
            text = re.sub(re.escape(piece), "…", text, flags=re.IGNORECASE)
    return one_line(text)


if __name__ == "__main__":
    main()
