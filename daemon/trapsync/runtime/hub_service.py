"""What runs beside a hub: its background work, and the word to systemd that it is ready and lives."""

import http.client
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from trapsync.errors import TrapsyncError, one_line
from trapsync.hub.alerts import watch as alerts
from trapsync.hub.app import Hub
from trapsync.hub.retention import Retention
from trapsync.runtime import messenger, systemd
from trapsync.settings.hub import HubSettings

log = logging.getLogger(__name__)

# Does a little, and says in how many seconds it is to be called again.
Work = Callable[[], float]

_AFTER_FAILURE = 3600.0  # seconds
_PATIENCE = 60.0  # seconds for an answer to a request of our own
_END = 5.0  # seconds that a work may take when the hub ends; what it does then is safe to cut


@contextmanager
def beside(settings: HubSettings, hub: Hub, address: str) -> Iterator[None]:
    """Do the background work of a hub that listens at this address, until the block ends. Raises SettingsError."""
    works: dict[str, Work] = {}
    if settings.hub.keep.has_any_end:
        keep = settings.hub.keep
        works["retention"] = Retention(hub.database, hub.store, hub.thumbnails, keep, hub.clock).step
    if watch := alerts.prepared(hub, settings.alerts, messenger.prepared(settings.alerts), settings.hub.url):
        works["alerts"] = watch.step
    if limit := systemd.watchdog_seconds():
        works["watchdog"] = lambda: _feed(address, limit)
    with running(works):
        systemd.notify("READY=1")
        yield
        systemd.notify("STOPPING=1")


@contextmanager
def running(works: Mapping[str, Work]) -> Iterator[None]:
    """Do each of these in a thread of its own, until the block ends. A bug costs its own work an hour, and is loud."""
    end = threading.Event()
    threads = [
        threading.Thread(target=_repeat, args=(name, work, end), name=name, daemon=True)
        for name, work in works.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(_END)


def _repeat(name: str, work: Work, end: threading.Event) -> None:
    pause = 0.0
    while not end.wait(pause):
        try:
            pause = work()
        except (TrapsyncError, OSError, sqlite3.Error) as error:  # a full disk, say
            log.error("%s failed, and goes on in an hour: %s", name, one_line(error))
            pause = _AFTER_FAILURE
        except Exception:
            log.exception("%s failed, and goes on in an hour", name)
            pause = _AFTER_FAILURE


def _feed(address: str, limit: float) -> float:
    """Tell systemd that the hub lives, if it answers a request, whatever the answer is."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=min(_PATIENCE, limit / 2)
    )
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        connection.getresponse()
        systemd.notify("WATCHDOG=1")
    connection.close()
    return limit / 4
