"""A document on its way to traps: checked by the traps' own parser, compared, numbered and signed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from trapsync.clock import Clock, utc
from trapsync.errors import RefusedDocument, SettingsError, TrapsyncError, one_line
from trapsync.fleet.connection import Connection, slot_of
from trapsync.fleet.table import traps
from trapsync.remote import document as envelope
from trapsync.remote import policy
from trapsync.remote.document import Document, PrivateKey, Resend
from trapsync.settings import config_file, layers
from trapsync.settings.schema import Destination, Settings

GOOD_FOR = timedelta(days=90)  # a trap may be out of reach for a season


@dataclass(frozen=True, slots=True)
class Push:
    """A signed document, where it belongs, and what was there before."""

    document: Document
    data: bytes
    slot: str
    before: bytes | None

    @property
    def number(self) -> str:
        """Its number as people and `trapsync fleet` write it."""
        return f"{self.document.epoch}.{self.document.version}"

    def changes(self) -> list[tuple[str, str, str]]:
        """Which keys change, from what, to what; against the document before it, or a trap's own settings.

        A document replaces the one before it, all of it: a key that is no longer in it is the trap's own again.
        """
        old, new = _settings_in(self.before), self.document.settings
        was, becomes = dict(_values(old)), dict(_values(new))
        own = "the trap's own"
        keys = sorted(was.keys() | becomes.keys())
        return [
            (key, was.get(key, own), becomes.get(key, own))
            for key in keys
            if was.get(key) != becomes.get(key)
        ]


def read_settings(path: Path) -> dict[str, Any]:
    """Read the tables to push, and check all of them that can be checked far from the trap. Raises SettingsError."""
    if not path.exists():
        raise SettingsError(f"{path}: there is no such file")
    tables = config_file.read(path)
    destinations = tables.get("destinations", {})
    config_file.decode({key: value for key, value in tables.items() if key != "destinations"}, Settings, path)
    for key in layers.keys(tables):
        if not policy.can_be_remote(key):
            raise SettingsError(
                f"{path}: {'.'.join(key)}: can never be set remotely; see: trapsync push --help"
            )
    for name, table in destinations.items() if isinstance(destinations, dict) else ():
        config_file.decode({"kind": "", **table}, Destination, path, f"destinations.{name}")
    if not any(True for _ in layers.keys(tables)):
        raise SettingsError(f"{path}: there is no setting in it")
    return tables


def prepare(
    connection: Connection, to: str, key: PrivateKey, clock: Clock, *, note: str = "", **what: Any
) -> Push:
    """Sign `settings=` or `resend=` for an addressee, under the next number. Nothing is put anywhere yet.

    The number is above that of every document of the kind in this connection, and of all that the traps say they
    have had: a trap in two groups counts across both.
    """
    kind = "resend" if "resend" in what else "settings"
    documents, slot = connection.documents(), slot_of(to, kind)
    epoch, version = max([(0, 0), *_numbers(documents, kind), *_numbers_heard(connection, kind)])
    now = utc(clock.wall()).replace(microsecond=0)
    document = Document(
        kind=kind,
        to=to,
        epoch=epoch,
        version=version + 1,
        issued=now,
        expires=now + GOOD_FOR,
        note=note,
        **what,
    )
    return Push(document, envelope.sign(envelope.compose(document), key), slot, documents.get(slot))


def addressee(text: str, connection: Connection) -> str:
    """What was typed after --to as an addressee: `device:0123abcd`, `group:valley`, `all`; or a trap's name."""
    if text == "all" or text.startswith(("device:", "group:")):
        return text
    named = [trap.device for trap in traps(connection.fleet()) if text in (trap.device, trap.name)]
    if len(named) != 1:
        found = "no trap is" if not named else f"{len(named)} traps are"
        raise SettingsError(
            f"{found} called {text!r} in {connection.name}; write device:ID, group:NAME or all"
        )
    return f"device:{named[0]}"


def request(since: datetime, until: datetime, destination: str | None) -> Resend:
    """Ask for images again, from one moment until before another."""
    if until <= since:
        raise SettingsError("--until must be after --from")
    return Resend(since, until, destination)


def _numbers(documents: Mapping[str, bytes], kind: str) -> Iterator[tuple[int, int]]:
    for slot, data in documents.items():
        if slot.endswith(f".{kind}") and (document := _opened(data)):
            yield document.epoch, document.version


def _numbers_heard(connection: Connection, kind: str) -> Iterator[tuple[int, int]]:
    """The highest that each trap says it has had; of requests to send again it says nothing."""
    for trap in traps(connection.fleet()) if kind == "settings" else ():
        report = trap.beat.remote
        if report.epoch is not None and report.version is not None:
            yield report.epoch, report.version


def _opened(data: bytes | None) -> Document | None:
    """What is in a document, whoever signed it: it is only counted and shown."""
    try:
        return envelope.parse(data.partition(b"\n")[2]) if data else None
    except RefusedDocument:
        return None


def _settings_in(data: bytes | None) -> dict[str, Any]:
    document = _opened(data)
    return document.settings if document else {}


def _values(tables: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in layers.keys(tables):
        value: Any = tables
        for part in key:
            value = value[part]
        yield one_line(".".join(key)), one_line(value)  # of a document that nobody may have signed


def publish(connection: Connection, push: Push) -> None:
    """Put it where the traps ask. Raises TrapsyncError."""
    connection.put(push.slot, push.data, push.before)
    if connection.documents().get(push.slot) != push.data:
        raise TrapsyncError(f"{connection.name}: {push.slot} does not hold what was put there")
