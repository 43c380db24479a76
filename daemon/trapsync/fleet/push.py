"""A document on its way to traps: checked by the traps' own parser, compared, numbered and signed.

Whoever holds the connection (a hub, a bucket, a broker) may put anything there, and anybody with a trap's account says what
he likes in a heartbeat. So only documents that this key signed count, for numbers and for what changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from trapsync.clock import Clock, iso, utc
from trapsync.errors import RefusedDocument, SettingsError, TrapsyncError, one_line
from trapsync.fleet.audience import Audience
from trapsync.fleet.connection import Connection
from trapsync.fleet.operator_key import OperatorKey
from trapsync.net.slots import slot_of
from trapsync.remote import document as envelope
from trapsync.remote import policy
from trapsync.remote.document import Document, PublicKey, Resend
from trapsync.remote.record import FARTHEST, LARGEST_NUMBER
from trapsync.settings import config_file, layers
from trapsync.settings.schema import Destination, Settings

GOOD_FOR = timedelta(days=90)  # a trap may be out of reach for a season
KEYS_GOOD_FOR = timedelta(days=3650)  # what is revoked stays so
_OWN = "the trap's own"
_KINDS = {"settings": "settings", "resend": "resend", "revoke": "keys"}  # of what is signed


@dataclass(frozen=True, slots=True)
class Push:
    """A signed document, where it belongs, and what was there before. `own` is that, if this key signed it."""

    document: Document
    data: bytes
    slot: str
    before: bytes | None
    own: Document | None
    audience: Audience

    def changes(self) -> list[tuple[str, str, str]]:
        """Which keys change, from what, to what; against this key's document before it, or a trap's own settings.

        A document replaces the one before it, all of it: a key that is no longer in it is the trap's own again.
        """
        was, becomes = (dict(_values(one.settings if one else {})) for one in (self.own, self.document))
        keys = sorted(was.keys() | becomes.keys())
        return [
            (key, was.get(key, _OWN), becomes.get(key, _OWN))
            for key in keys
            if was.get(key) != becomes.get(key)
        ]

    @property
    def is_foreign(self) -> bool:
        """Whether there lies what this key has not signed: another operator's, or nobody's."""
        return self.before is not None and self.own is None


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
    connection: Connection,
    audience: Audience,
    key: OperatorKey,
    clock: Clock,
    *,
    note: str = "",
    above: int = 0,
    **what: Any,
) -> Push:
    """Sign `settings=`, `resend=` or `revoke=` for an audience, under the key's next number. Nothing is put anywhere yet.

    The number is above the last one in the key's file and above that of each document in this connection which the key
    signed, for it may have been used on another computer. `above` skips numbers; far only in a document about keys. Raises
    SettingsError.
    """
    (kind,) = (_KINDS[name] for name in what)
    documents, slot = connection.documents(), _slot(audience.to, kind, key.id)
    own = _signed_by(documents, key.private.public)
    last = max([key.last, *(one.version for one in own.values())])
    version = max(last, above) + 1
    if version > last + FARTHEST and kind != "keys":
        raise SettingsError(
            f"--above {above}: the last number of this key is {last}, and a trap takes {FARTHEST:,} more at the most; "
            f"see: trapsync keys jump --help"
        )
    if version > LARGEST_NUMBER:
        raise SettingsError(
            f"number {version} is beyond all bounds: make another key, and revoke this one with it"
        )
    now = utc(clock.wall()).replace(microsecond=0)
    if kind == "keys" and (before := own.get(slot)):  # one slot holds all that this key has revoked
        what["revoke"] = tuple(dict.fromkeys((*before.revoke, *what["revoke"])))
    document = Document(
        kind=kind,
        to=audience.to,
        version=version,
        issued=now,
        expires=now + (KEYS_GOOD_FOR if kind == "keys" else GOOD_FOR),
        note=note,
        **what,
    )
    data = envelope.sign(envelope.compose(document), key.private)
    return Push(document, data, slot, documents.get(slot), own.get(slot), audience)


def request(since: datetime, until: datetime, destination: str | None) -> Resend:
    """Ask for images again, from one moment until before another."""
    if until <= since:
        raise SettingsError("--until must be after --from")
    return Resend(since, until, destination)


def publish(connection: Connection, push: Push, key: OperatorKey, clock: Clock) -> None:
    """Write down that the number is used, put the document where the traps ask, and note it. Raises TrapsyncError."""
    key.keep(push.document.version)
    connection.put(push.slot, push.data, push.before)
    if connection.documents().get(push.slot) != push.data:
        raise TrapsyncError(f"{connection.name}: {push.slot} does not hold what was put there")
    key.note(push.document, push.data, connection.name, iso(utc(clock.wall())))


def published(documents: Mapping[str, bytes], key: OperatorKey | None) -> Iterator[tuple[str, ...]]:
    """For each document in a connection: for whom, kind, number, when it was issued, whose it is, and its note."""
    own = _signed_by(documents, key.private.public) if key else {}
    for slot, data in sorted(documents.items()):
        whom, _, kind = slot.rpartition(".")
        try:
            one = own.get(slot) or envelope.parse(data.partition(b"\n")[2])
        except RefusedDocument:
            yield whom.replace("-", ":", 1), kind, "-", "-", "nobody's: it is no document", ""
            continue
        signer = envelope.signer(data) or "nobody"
        whose = "this key" if slot in own else f"{signer}, not verified"
        issued = f"{one.issued:%Y-%m-%d %H:%M} UTC"
        yield whom.replace("-", ":", 1), kind, str(one.version), issued, whose, one_line(one.note)


def _signed_by(documents: Mapping[str, bytes], key: PublicKey) -> dict[str, Document]:
    """What this key signed, by its slot, and for that slot: a document that lies elsewhere is no document."""
    found = {}
    for slot, data in documents.items():
        try:
            one = envelope.parse(envelope.verify(data, [key]))
        except RefusedDocument:
            continue
        if _slot(one.to, one.kind, key.id) == slot:
            found[slot] = one
    return found


def _slot(to: str, kind: str, key: str) -> str:
    """Where a document of this key lies: what it says about keys has a place of its own."""
    return slot_of(f"key:{key}" if kind == "keys" else to, kind)


def _values(tables: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in layers.keys(tables):
        yield one_line(".".join(key)), one_line(layers.value_at(tables, key))
