"""Look at the traps once a minute, and tell people what changed: in a thread of its own, so that nothing waits for it."""

import logging
import sqlite3
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trapsync.errors import TrapsyncError, one_line
from trapsync.hub.alerts.changes import Changes
from trapsync.hub.alerts.digest import Digest
from trapsync.hub.alerts.listening import Listening
from trapsync.hub.alerts.outbox import NO_MESSENGER, Messenger, Outbox
from trapsync.hub.alerts.pings import Pings
from trapsync.hub.room import NoRoom
from trapsync.net.judgement import Trap, traps
from trapsync.settings import alert_addresses
from trapsync.settings.alert_addresses import Address
from trapsync.settings.alerts import Alerts

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

log = logging.getLogger(__name__)

EVERY = 60.0  # seconds from one turn to the next
_LARGEST_PICTURE = 500_000  # bytes; a small copy has a tenth of that
# Traps that are late, and their share of those that are not silent, from which on it may be the hub's own link. Of a fleet
# with bad links a good part is late at any time.
_MANY, _SHARE = 3, 0.7


class Watch:
    """The alerts of one hub."""

    def __init__(
        self,
        hub: "Hub",
        settings: Alerts,
        addresses: Sequence[Address],
        messenger: Messenger,
        *,
        url: str = "",
        pings: Pings | None = None,
    ) -> None:
        """`url` is how the hub is called from outside."""
        self._hub = hub
        self._listening = Listening(hub.database, hub.clock)
        self._changes = Changes(hub.database, hub.clock, settings)
        self._digest = Digest(hub.database, hub.clock, settings, self._changes, hub.store)
        self._outbox = Outbox(
            hub.database, hub.clock, settings, addresses, messenger, url=url, picture=self._picture
        )
        self._tells = bool(addresses)
        self._pings = pings

    def turn(self) -> None:
        """Judge the traps, note what changed, and tell what may be told."""
        self._listening.turn()
        has_room = self._has_room()
        if not has_room:
            self._listening.restart()
        found = self._note(has_room) if self._tells else []
        self._listening.note()  # a hub whose database takes nothing fails here, before it pings
        if self._pings and has_room:
            self._pings.turn()
        self._outbox.turn(many_are_late=_are_many_late(found))

    def step(self) -> float:
        """A turn; in how many seconds the next one is due. One that fails is logged, and costs nothing else."""
        try:
            self.turn()
        except (TrapsyncError, OSError, sqlite3.Error) as error:  # a full disk, say
            log.error("alerts: %s", one_line(error))
        except Exception:
            log.exception("alerts: this turn failed")
        return EVERY

    def _has_room(self) -> bool:
        """Whether the hub stores what it is sent: else it does not work."""
        try:
            self._hub.room.require()
        except NoRoom:
            return False
        return True

    def _note(self, has_room: bool) -> list[Trap]:
        snapshot = self._hub.fleet.snapshot()
        entries = list(snapshot["traps"])
        received = {entry["device"]: entry["received"] for entry in entries}
        found = traps({**snapshot, "traps": entries})
        is_new = self._changes.note(found, received, self._listening.seconds(), has_room=has_room)
        if self._digest.turn(found) or is_new:
            self._outbox.changed()
        return found

    def _picture(self, number: int) -> bytes | None:
        """The small copy of an image; None if there is none that can be sent."""
        row = self._hub.store.by_id(number)
        if row is None:
            return None
        try:
            image = self._hub.store.path(row)
            copy = self._hub.thumbnails.get(image, "thumbnail")
            # Never the image itself, in which its place may stand.
            is_fit = copy != image and copy.stat().st_size <= _LARGEST_PICTURE
            return copy.read_bytes() if is_fit else None
        except OSError:
            return None


def _are_many_late(found: list[Trap]) -> bool:
    heard = [trap for trap in found if trap.silent is None and trap.joined is None]
    late = sum(trap.is_late for trap in heard)
    return late >= _MANY and late >= _SHARE * len(heard)


def prepared(hub: "Hub", settings: Alerts, messenger: Messenger | None, url: str) -> Watch | None:
    """The alerts as they are set, ready to turn; None where there is nothing to do.

    Raises SettingsError where a file of addresses cannot be read.
    """
    if not settings.are_on:
        return None
    addresses = alert_addresses.read(settings.addresses_file) if settings.addresses_file else ()
    pings = _pings(hub, settings.ping_file, settings.ping_every) if settings.ping_file else None
    return Watch(hub, settings, addresses, messenger or NO_MESSENGER, url=url, pings=pings)


def _pings(hub: "Hub", file: Path, every: float) -> Pings:
    from trapsync.net.ping import ping  # with requests, which a hub needs for nothing else

    never = threading.Event()

    def rest(seconds: float) -> None:
        never.wait(seconds)

    asked = partial(ping, clock=hub.clock, sleep=rest)
    return Pings(alert_addresses.read_ping(file), every, hub.clock, asked)
