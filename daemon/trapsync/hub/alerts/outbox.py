"""What each address has still to be told, and when it may be: at least once each, gathered, never in quiet hours.

An address that fails waits longer and longer by itself; what is to be told meanwhile is gathered into its next message.
Whatever may have reached a service counts for the limit of an hour.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from trapsync.clock import Clock
from trapsync.errors import NotSent
from trapsync.files import failpoint
from trapsync.hub.alerts.changes import Change
from trapsync.hub.alerts.texts import compose, local
from trapsync.hub.database import Database
from trapsync.net import backoff
from trapsync.settings.alert_addresses import Address
from trapsync.settings.alerts import Alerts

log = logging.getLogger(__name__)

HOUR = 3600.0
# Seconds without another change after which a message is sent, and after which it is sent in any case.
_GATHER, _LONGEST = 120.0, 1200.0
# … where many traps are late: it may be the hub's own link, and all of them are told in one message.
_LONGEST_OF_MANY = 4000.0
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_MOST_KEPT = 20_000  # changes, for an address that takes nothing for months


class Messenger(Protocol):
    """Sends messages to services that may hang, fail or flood back; in the program from a process of its own."""

    def send(self, url: str, subject: str, body: str, *, picture: bytes | None, is_bad: bool) -> None:
        """Send a message to an address, with a picture, a JPEG, if there is one. Raises NotSent, after a bounded time."""


class _Nobody:
    def send(self, url: str, subject: str, body: str, *, picture: bytes | None, is_bad: bool) -> None:
        """Refuse."""
        raise NotSent("nobody here sends messages")


NO_MESSENGER = _Nobody()


@dataclass
class _Standing:
    """How it stands with an address, on the monotonic clock."""

    sent: list[float]
    waits_since: float | None = None
    failures: int = 0
    not_before: float = field(default=float("-inf"))


class Outbox:
    """Tells the addresses. One thread uses it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: Alerts,
        addresses: Sequence[Address],
        messenger: Messenger,
        *,
        url: str = "",
        picture: Callable[[int], bytes | None] = lambda _: None,
    ) -> None:
        """`url` is how the hub is called from outside; `picture` gives the small copy of an image by its id."""
        self._database = database
        self._clock = clock
        self._settings = settings
        self._zone = settings.zone()
        self._addresses = addresses
        self._messenger = messenger
        self._url = url
        self._picture = picture
        self._changed = float("-inf")
        self._enter()
        self._standings = {address.id: _Standing(self._sent(address)) for address in addresses}

    def changed(self) -> None:
        """There is something more to tell."""
        self._changed = self._clock.monotonic()

    def turn(self, *, many_are_late: bool = False) -> None:
        """Tell each address what it may be told now."""
        for address in self._addresses:
            waiting = self._waiting(address)
            standing = self._standings[address.id]
            if not waiting:
                standing.waits_since = None
            elif self._may_send(standing, many_are_late):
                self._tell(address, standing, waiting)
        self._forget_what_all_know()

    def _may_send(self, standing: _Standing, many_are_late: bool) -> bool:
        now = self._clock.monotonic()
        standing.waits_since = now if standing.waits_since is None else standing.waits_since
        waited = now - standing.waits_since
        standing.sent = [at for at in standing.sent if now - at < HOUR]
        is_calm = now - self._changed >= _GATHER and not many_are_late
        is_gathered = is_calm or waited >= (_LONGEST_OF_MANY if many_are_late else _LONGEST)
        is_allowed = now >= standing.not_before and len(standing.sent) < self._settings.most_an_hour
        at = local(self._clock.wall(), self._zone).time()
        return is_gathered and is_allowed and not self._settings.is_quiet(at)

    def _tell(self, address: Address, standing: _Standing, waiting: list[Change]) -> None:
        tried = self._note_try(address, waiting[-1].number)
        standing.sent.append(self._clock.monotonic())
        # After a failure without it, in turns: a service that takes no pictures would take nothing ever again.
        is_shown = standing.failures % 2 == 0
        picture = next(
            (one.picture for one in reversed(waiting) if is_shown and one.picture is not None), None
        )
        message = compose(
            waiting,
            self._zone,
            self._url,
            tried=tried,
            picture=None if picture is None else self._picture(picture),
        )
        failpoint.hit("alerts: before a message")
        try:
            self._messenger.send(
                address.url, message.subject, message.body, picture=message.picture, is_bad=message.is_bad
            )
        except NotSent as error:
            self._failed(address, standing, error, tried)
            return
        except Exception:  # a bug, which costs this address its turn
            log.exception("alerts: %s cannot be told", address)
            self._failed(address, standing, NotSent("a bug in the hub", is_unknown=True), tried)
            return
        failpoint.hit("alerts: message sent")
        if standing.failures:
            log.info("alerts: %s takes messages again", address)
        standing.failures, standing.waits_since = 0, None
        self._set(address, "told", waiting[-1].number)

    def _failed(self, address: Address, standing: _Standing, error: NotSent, tried: int) -> None:
        standing.failures += 1
        pause = backoff.wait(standing.failures, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        standing.not_before = self._clock.monotonic() + pause
        log.warning("alerts: %s took no message: %s", address, error)
        if not error.is_unknown:
            self._set(address, "tried", tried)

    # ── The database ─────────────────────────────────────────────────────────────────────────────────

    def _enter(self) -> None:
        """Know the addresses: a new one is told what happens from now on, one that was taken out nothing more."""
        own = [address.id for address in self._addresses]
        with self._database.writing() as connection:
            known = {row["address"] for row in connection.execute("SELECT address FROM alert_addresses")}
            newest = connection.execute(
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'alert_changes'), 0)"
            ).fetchone()[0]
            for address in known - set(own):
                connection.execute("DELETE FROM alert_addresses WHERE address = ?", (address,))
                connection.execute("DELETE FROM alert_messages WHERE address = ?", (address,))
            for address in own:
                connection.execute(
                    "INSERT OR IGNORE INTO alert_addresses (address, told, tried) VALUES (?, ?, 0)",
                    (address, newest),
                )

    def _sent(self, address: Address) -> list[float]:
        """When messages were sent before this start; one of the future, by a clock that was stepped, counts as of now."""
        wall, monotonic = self._clock.wall(), self._clock.monotonic()
        sql = "SELECT at FROM alert_messages WHERE address = ?"
        with self._database.reading() as connection:
            return [monotonic - max(0.0, wall - row["at"]) for row in connection.execute(sql, (address.id,))]

    def _waiting(self, address: Address) -> list[Change]:
        sql = (
            "SELECT alert_changes.* FROM alert_changes JOIN alert_addresses ON number > told WHERE address = ? "
            "ORDER BY number"
        )
        with self._database.reading() as connection:
            return [_change(row) for row in connection.execute(sql, (address.id,))]

    def _note_try(self, address: Address, number: int) -> int:
        """Note that all up to this one is under way; the number up to which something was before."""
        with self._database.writing() as connection:
            (tried,) = connection.execute(
                "SELECT tried FROM alert_addresses WHERE address = ?", (address.id,)
            ).fetchone()
            connection.execute("UPDATE alert_addresses SET tried = ? WHERE address = ?", (number, address.id))
            connection.execute(
                "INSERT INTO alert_messages (address, at) VALUES (?, ?)", (address.id, self._clock.wall())
            )
            connection.execute(
                "DELETE FROM alert_messages WHERE address = :address AND number <= coalesce((SELECT number FROM "
                "alert_messages WHERE address = :address ORDER BY number DESC LIMIT 1 OFFSET :most), -1)",
                {"address": address.id, "most": self._settings.most_an_hour},
            )
        return int(tried)

    def _set(self, address: Address, column: str, number: int) -> None:
        with self._database.writing() as connection:
            connection.execute(
                f"UPDATE alert_addresses SET {column} = ? WHERE address = ?",  # noqa: S608 - told or tried
                (number, address.id),
            )

    def _forget_what_all_know(self) -> None:
        # What no address waits for; and the oldest, where one takes nothing for months.
        sql = (
            "DELETE FROM alert_changes WHERE number <= max((SELECT coalesce(min(told), 0) FROM alert_addresses), "
            "(SELECT coalesce(max(number), 0) FROM alert_changes) - ?)"
        )
        with self._database.reading() as connection:
            if connection.execute("SELECT 1 FROM alert_changes LIMIT 1").fetchone() is None:
                return
        with self._database.writing() as connection:
            connection.execute(sql, (_MOST_KEPT,))


def _change(row: Any) -> Change:
    return Change(
        number=row["number"],
        device=row["device"],
        name=row["name"],
        rule=row["rule"],
        is_on=bool(row["is_on"]),
        at=row["at"],
        text=row["text"],
        picture=row["picture"],
    )
