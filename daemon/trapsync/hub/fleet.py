"""What the hub stores for the fleet: the operator's signed documents in their slots, and the traps' heartbeats.

It holds no private key: a trap trusts a document's signature, never the hub. A slot
is a name that a trap asks for, `device-0123abcd.settings` say, and holds the newest document or nothing.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trapsync.clock import Clock, iso, utc
from trapsync.errors import TrapsyncError
from trapsync.hub.database import Database
from trapsync.hub.heartbeat_history import Thinning
from trapsync.net import foreign_json, heartbeat
from trapsync.net.slots import SLOT
from trapsync.settings.schema import DEVICE

LARGEST_DOCUMENT = 64 * 1024  # bytes, as every trap has it
MOST_TRAPS = 5000
SHOWN = 100  # heartbeats of one trap: a day's at one in a quarter of an hour
_FIRST_LINE = re.compile(rb"trapsync-signed-1 [0-9a-f]{16} [0-9a-f]{128}\n")

# Raises TrapsyncError for a document that no trusted key has signed.
Verify = Callable[[bytes], object]


class NoSuchSlot(TrapsyncError):
    """There is no slot of that name."""


class NotTaken(TrapsyncError):
    """A document or a heartbeat that is not valid."""


class NotYours(TrapsyncError):
    """What a trap's account may neither read nor write: it is about another device, or about a group that is not its."""


class Overtaken(TrapsyncError):
    """Somebody else published in between: the slot holds another document than the sender expected."""


@dataclass(frozen=True, slots=True)
class Held:
    """The document in a slot."""

    data: bytes
    hash: str  # SHA-256 of all of it, in hex


class Fleet:
    """The slots and the heartbeats of one hub."""

    def __init__(self, database: Database, clock: Clock, verify: Verify | None = None) -> None:
        """`verify` checks signatures; without one only the form of a document is checked."""
        self._database = database
        self._clock = clock
        self._verify = verify
        self._thinning = Thinning(clock)
        # When each trap was heard last, and since when this process could hear one: on the monotonic clock.
        self._heard: dict[str, float] = {}
        self._began = clock.monotonic()

    def held(self, slot: str) -> Held | None:
        """The document in a slot; None when there is none. Raises NoSuchSlot."""
        _check_slot(slot)
        with self._database.reading() as connection:
            row = connection.execute("SELECT data, hash FROM slots WHERE name = ?", (slot,)).fetchone()
        return Held(row["data"], row["hash"]) if row else None

    def put(self, slot: str, data: bytes, user: str, *, instead_of: str | None = None) -> str:
        """Put a signed document into a slot, instead of what it holds; the document's hash.

        `instead_of` is the hash that the sender believes to be there, "" for nothing and None for
        anything: of two operators who publish at once only one may win. Raises NoSuchSlot, NotTaken, Overtaken.
        """
        _check_slot(slot)
        if len(data) > LARGEST_DOCUMENT:
            raise NotTaken(f"the document has {len(data)} bytes; {LARGEST_DOCUMENT} are the most")
        if not _FIRST_LINE.match(data):
            raise NotTaken("this is not a signed document; make one with: trapsync push")
        self._verify_signature(data)
        found = hashlib.sha256(data).hexdigest()
        with self._database.writing() as connection:
            row = connection.execute("SELECT hash FROM slots WHERE name = ?", (slot,)).fetchone()
            if instead_of is not None and instead_of != (row["hash"] if row else ""):
                raise Overtaken(f"{slot}: somebody else pushed in between; look at it, and push again")
            connection.execute(
                "INSERT OR REPLACE INTO slots (name, data, hash, stored, user) VALUES (?, ?, ?, ?, ?)",
                (slot, data, found, iso(utc(self._clock.wall())), user),
            )
        return found

    def take(self, device: str, data: bytes, sender: str | None = None) -> str:
        """Store a trap's heartbeat, and thin out its oldest; return when it was received, as UTC text.

        `sender` is the trap that sends it; None for somebody else, who may speak for traps without an account only.
        Raises NotYours, and NotTaken for anything but a small JSON object of that device. One in which a known key holds
        what it cannot hold is not taken either; that it came is stored in its place, for the operator to see.
        """
        if not DEVICE.fullmatch(device):
            raise NotTaken(f"{device[:40]!r} is not a device: 8 hexadecimal digits in lower case")
        require_sender(self._database, device, sender)
        content = _content(device, data)
        try:
            heartbeat.read(content)
        except ValueError as error:
            self._keep(device, {"device": device, "odd": str(error)})
            raise NotTaken(f"the heartbeat makes no sense: {error}") from None
        return self._keep(device, content)

    def _keep(self, device: str, content: dict[str, Any]) -> str:
        text, now = json.dumps(content, ensure_ascii=False), self._clock.wall()
        with self._database.writing() as connection:
            _enter(connection, device, content.get("name"), now)
            connection.execute(
                "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)", (device, now, text)
            )
            self._thinning.added(connection, device)
        self._heard[device] = self._clock.monotonic()
        return iso(utc(now))

    def snapshot(self) -> dict[str, Any]:
        """The newest heartbeat of every trap with its age in seconds, who has joined and not been heard, and the slots.

        `named_s`: for how long it has said its name.

        `at` and every `received` are this machine's time: a trap's own clock may be years off.
        """
        sql = (  # a search in the index for each trap, however many heartbeats it has
            "SELECT heartbeats.*, traps.named FROM traps JOIN heartbeats ON heartbeats.id = "
            "(SELECT max(id) FROM heartbeats AS one WHERE one.device = traps.device) ORDER BY traps.device"
        )
        newest = self._database.rows(sql, (), 2 * MOST_TRAPS)
        with self._database.reading() as connection:
            unheard = connection.execute(
                "SELECT * FROM traps WHERE joined IS NOT NULL AND NOT EXISTS "
                "(SELECT 1 FROM heartbeats WHERE heartbeats.device = traps.device)"
            ).fetchall()
            slots = connection.execute("SELECT name, hash, stored, user FROM slots ORDER BY name").fetchall()
        return {
            "at": iso(utc(self._clock.wall())),
            "traps": ({**self._entry(row), "named_s": self._since(row["named"])} for row in newest),
            "unheard": [self._unheard(row) for row in unheard],
            "slots": {row["name"]: {key: row[key] for key in ("hash", "stored", "user")} for row in slots},
        }

    def of_trap(self, device: str) -> dict[str, Any]:
        """What `snapshot` says of one trap, without the slots."""
        newest = "SELECT * FROM heartbeats WHERE device = ? ORDER BY id DESC LIMIT 1"
        with self._database.reading() as connection:
            row = connection.execute(newest, (device,)).fetchone()
            trap = connection.execute("SELECT * FROM traps WHERE device = ?", (device,)).fetchone()
        if row:
            return {"traps": [{**self._entry(row), "named_s": self._since(trap["named"] if trap else None)}]}
        is_unheard = trap is not None and trap["joined"] is not None
        return {"traps": [], "unheard": [self._unheard(trap)] if is_unheard else []}

    def published(self, slots: Sequence[str]) -> list[dict[str, Any]]:
        """What is in these slots, without the documents: `name`, `hash`, `stored` (UTC text) and `user` of each."""
        sql = "SELECT name, hash, stored, user FROM slots WHERE name IN (SELECT value FROM json_each(?)) ORDER BY name"
        with self._database.reading() as connection:
            return [dict(row) for row in connection.execute(sql, (json.dumps([*slots]),))]

    def history(self, device: str) -> list[dict[str, Any]]:
        """The latest heartbeats of one trap, the newest first."""
        sql = "SELECT * FROM heartbeats WHERE device = ? ORDER BY id DESC LIMIT ?"
        with self._database.reading() as connection:
            return [self._entry(row) for row in connection.execute(sql, (device, SHOWN))]

    def _verify_signature(self, data: bytes) -> None:
        if self._verify:
            try:
                self._verify(data)
            except TrapsyncError as error:
                raise NotTaken(f"this hub does not accept it: {error}") from None

    def _unheard(self, row: sqlite3.Row) -> dict[str, Any]:
        return {"device": row["device"], "name": row["name"], "joined_s": self._since(row["joined"])}

    def _since(self, moment: float | None) -> int | None:
        return None if moment is None else max(0, round(self._clock.wall() - moment))

    def _age(self, device: str, received: float) -> int:
        """Seconds since a heartbeat was received; if that lies ahead, by a clock that was set back since: at the least."""
        age = self._clock.wall() - received
        return round(age if age >= 0 else self._clock.monotonic() - self._heard.get(device, self._began))

    def _entry(self, row: Mapping[str, Any] | sqlite3.Row) -> dict[str, Any]:
        return {
            "device": row["device"],
            "received": iso(utc(row["received"])),
            "age_s": self._age(row["device"], row["received"]),
            "heartbeat": _stored(row["body"]),
        }


def require_sender(database: Database, device: str, sender: str | None) -> None:
    """Raise NotYours unless `sender`, a trap or None for somebody else, may speak for this trap."""
    if sender not in {device, None}:
        raise NotYours(f"the account of trap {sender} speaks for {sender} only")
    if sender is None:
        with database.reading() as connection:
            row = connection.execute("SELECT * FROM traps WHERE device = ?", (device,)).fetchone()
        if row and row["joined"] is not None:
            raise NotYours(f"trap {device} has an account of its own, and speaks with that alone")
        if row and row["ended"] is not None:
            raise NotYours(f"trap {device} was revoked")


def _enter(connection: sqlite3.Connection, device: str, name: object, now: float) -> None:
    """Know the trap, and since when it says this name: whom a push reaches may depend on it."""
    (known,) = connection.execute("SELECT count(*) FROM traps WHERE device != ?", (device,)).fetchone()
    if known >= MOST_TRAPS:
        raise NotTaken(f"this hub knows {known} traps, and takes no more")
    connection.execute(
        "INSERT INTO traps (device, name, named) VALUES (:device, :name, :now) ON CONFLICT (device) DO UPDATE "
        "SET name = :name, named = :now WHERE name != :name OR named IS NULL",
        {"device": device, "name": name if isinstance(name, str) else "", "now": now},
    )


def _check_slot(name: str) -> None:
    if not SLOT.fullmatch(name):
        raise NoSuchSlot(f"{name[:80]!r} is not a slot: device-0123abcd.settings, group-valley.settings, …")


def _content(device: str, data: bytes) -> dict[str, Any]:
    """The object in a heartbeat, with whatever keys it has."""
    if len(data) > heartbeat.LARGEST:
        raise NotTaken(f"the heartbeat has {len(data)} bytes; {heartbeat.LARGEST} are the most")
    try:
        content = heartbeat.decode(data)
    except ValueError as error:
        raise NotTaken(f"the heartbeat is not JSON, or {error}") from None
    if content.get("device") != device:
        raise NotTaken(f"the heartbeat is not from {device}")
    return content


def _stored(text: str) -> Any:
    """A heartbeat as it lies in the database; an earlier hub took what is none."""
    try:
        return foreign_json.decode(text.encode(errors="replace"), 2 * heartbeat.LARGEST)
    except ValueError as error:
        return {"odd": f"JSON that is {error}"}
