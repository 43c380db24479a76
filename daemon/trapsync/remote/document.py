"""A signed document: what an operator sends to traps, and how a trap knows who sent it.

::

    trapsync-signed-1 <key id> <signature>      one line of ASCII: which key, and Ed25519 over the rest
    schema = 1                                  … which is TOML, UTF-8: what, for whom, which version
    kind = "settings"                           or "resend", or "keys": which keys are revoked, and how far numbers are

Each key counts its documents by itself (`version`); what a trap makes of a number: `remote.remote_settings`.

The signature is over a domain prefix and the exact bytes of the body, and is verified before anybody
parses them. What a document may change on a trap is not decided here: `remote_settings`, `policy`.

PyNaCl rather than cryptography: on x86 (2026-11) both are there in 20 to 35 ms, but it takes 3.7 MB of memory
instead of 10.7 MB, and 4 MB on the card instead of 16 MB; libsodium is strict about signatures. PyPI has wheels
of it for aarch64; for armv7 it is in Debian (python3-nacl) and built by piwheels. It is an extra, `pushed`,
and loaded when the first key is.
"""

import base64
import binascii
import hashlib
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from trapsync.errors import RefusedDocument, SettingsError
from trapsync.remote.record import LARGEST_NUMBER
from trapsync.settings.schema import DEVICE, GROUP

LARGEST = 64 * 1024  # bytes, of the whole document
_DOMAIN = b"trapsync signed document 1\0"
_FIRST_LINE = re.compile(rb"trapsync-signed-1 ([0-9a-f]{16}) ([0-9a-f]{128})\n")
KEY_ID = re.compile(r"[0-9a-f]{16}")
_ADDRESSEE = re.compile(rf"device:{DEVICE.pattern}|group:{GROUP.pattern}|all")
_DEEPEST = 8  # tables in one another
_MOST_REVOKED = 32
KINDS = ("settings", "resend", "keys")


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a trap holds of its operator; 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """The 16 hexadecimal digits by which a document names its key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def __str__(self) -> str:
        return f"ed25519:{base64.b64encode(self.raw).decode()}"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What signs: its place is the operator's own computer, never a trap or a server. The 32 bytes of the seed."""

    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(bytes(_nacl().SigningKey(self.seed).verify_key))

    def __str__(self) -> str:
        return f"ed25519-private:{base64.b64encode(self.seed).decode()}"


def new_key() -> PrivateKey:
    """Make a key."""
    return PrivateKey(bytes(_nacl().SigningKey.generate()))


def private_from_text(text: str, where: object) -> PrivateKey:
    """Read the written form, `ed25519-private:…`; SettingsError says how it is written."""
    return PrivateKey(_decoded(text, "ed25519-private:", where))


def public_from_text(text: str, where: object = "remote.keys") -> PublicKey:
    """Read the written form, `ed25519:…`; SettingsError says how it is written."""
    return PublicKey(_decoded(text, "ed25519:", where))


def key_ids(keys: Iterable[str]) -> str:
    """The ids of written keys, each once, as the operator's commands show them. Raises SettingsError for what is none."""
    return ", ".join(sorted({public_from_text(key).id for key in keys}))


def _decoded(text: str, prefix: str, where: object) -> bytes:
    try:
        raw = base64.b64decode(text.strip().removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(prefix) or len(raw) != 32:
        raise SettingsError(f'{where}: must be a key as "trapsync keys new" writes it, {prefix}…')
    return raw


def require() -> None:
    """SettingsError that says what to install, if signatures cannot be verified on this machine."""
    _nacl()


def _nacl() -> Any:
    try:
        from nacl import signing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"signed documents need {error.name}: run `sudo apt install python3-nacl` or `pipx inject trapsync pynacl`"
        ) from None
    return signing


# ── The envelope ─────────────────────────────────────────────────────────────────────────────────────


def document_hash(data: bytes) -> str:
    """What a document is called in reports: the SHA-256 of all its bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sign(body: bytes, key: PrivateKey) -> bytes:
    """Put a body into its envelope: the whole document."""
    signature = _nacl().SigningKey(key.seed).sign(_DOMAIN + body).signature
    data = b"trapsync-signed-1 %s %s\n" % (key.public.id.encode(), signature.hex().encode()) + body
    if len(data) > LARGEST:
        raise RefusedDocument("too_large", f"the document has {len(data)} bytes; {LARGEST} are the most")
    return data


def signer(data: bytes) -> str | None:
    """The id of the key that a document says it is signed by; None if it has no line that says so."""
    line = _FIRST_LINE.match(data)
    return line[1].decode() if line else None


def verify(data: bytes, trusted: Sequence[PublicKey]) -> bytes:
    """The body of a document that one of these keys signed; RefusedDocument, and nothing was parsed."""
    if len(data) > LARGEST:
        raise RefusedDocument("too_large", f"it has {len(data)} bytes; {LARGEST} are the most")
    line = _FIRST_LINE.match(data)
    if line is None:
        raise RefusedDocument("malformed", "it does not begin with the line of a signed document")
    key = next((key for key in trusted if key.id.encode() == line[1]), None)
    if key is None:
        raise RefusedDocument(
            "key", f"it is signed by the key {line[1].decode()}, which is not in remote.keys"
        )
    signing = _nacl()
    body = data[line.end() :]
    try:
        signing.VerifyKey(key.raw).verify(_DOMAIN + body, bytes.fromhex(line[2].decode()))
    except signing.exc.CryptoError:
        raise RefusedDocument("signature", f"its signature is not of the key {key.id}") from None
    return body


# ── The body ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Resend:
    """Which images the operator asks for again: from one moment until before another, by their names' time."""

    since: datetime
    until: datetime
    destination: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What is in a body. `settings` are tables as in the config file; moments have their zone, UTC."""

    kind: str  # one of KINDS
    to: str  # "device:0123abcd", "group:valley" or "all"
    version: int
    issued: datetime
    expires: datetime
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    resend: Resend | None = None
    revoke: tuple[str, ...] = ()
    key: str = ""
    """The id of the key that signed it, once that was verified; not part of the body."""


def compose(document: Document) -> bytes:
    """Write a document's body; RefusedDocument if no trap would read it back."""
    import tomli_w

    tables: dict[str, Any] = {"schema": 1, "kind": document.kind, "to": document.to}
    tables["epoch"] = 0  # commit 13fe5f4 counts by it as well
    tables |= {key: getattr(document, key) for key in ("version", "issued", "expires")}
    if document.note:
        tables["note"] = document.note
    if document.resend:
        asked = document.resend
        tables["resend"] = {"from": asked.since, "until": asked.until}
        if asked.destination is not None:
            tables["resend"]["destination"] = asked.destination
    if document.kind == "settings":
        tables["settings"] = document.settings
    if document.kind == "keys":
        tables["keys"] = {"revoke": list(document.revoke)}
    body = tomli_w.dumps(tables).encode()
    parse(body)
    return body


_KNOWN = {"schema", "kind", "to", "epoch", "version", "issued", "expires", "note", *KINDS}


def parse(body: bytes) -> Document:
    """Read a body whose signature was verified; RefusedDocument if it is not one."""
    try:
        tables = tomllib.loads(body.decode())
    except RecursionError:
        raise RefusedDocument("schema", "it is not TOML: too many brackets in one another") from None
    except ValueError as error:  # not UTF-8, not TOML, a key twice, a number of thousands of digits
        raise RefusedDocument("schema", f"it is not TOML: {error}") from None
    _require_plain(tables)
    if tables.get("schema") != 1:
        raise RefusedDocument("schema", f"its schema is {tables.get('schema')!r}; this trap knows 1")
    if unknown := sorted(tables.keys() - _KNOWN):
        raise RefusedDocument("schema", f"there is no such key: {', '.join(unknown)}")
    return _document(tables)


def _document(tables: dict[str, Any]) -> Document:
    kind = _text(tables, "kind")
    if kind not in KINDS or set(KINDS) & tables.keys() != {kind}:
        raise RefusedDocument(
            "schema", f"kind: must be one of {', '.join(KINDS)}, with the table of that name"
        )
    to = _text(tables, "to")
    if not _ADDRESSEE.fullmatch(to):
        raise RefusedDocument("schema", f'to = {to!r}: must be "device:0123abcd", "group:valley" or "all"')
    if kind == "keys" and to != "all":
        raise RefusedDocument("schema", 'to: a document about keys must be for "all"')
    if tables.get("epoch") != 0 or isinstance(tables["epoch"], bool):
        raise RefusedDocument("schema", f"epoch = {tables.get('epoch')!r}: must be 0")
    issued, expires = _moment(tables, "issued"), _moment(tables, "expires")
    if expires <= issued:
        raise RefusedDocument("schema", "expires: must be after issued")
    return Document(
        kind=kind,
        to=to,
        version=_whole(tables, "version", 1),
        issued=issued,
        expires=expires,
        note=_text(tables, "note") if "note" in tables else "",
        settings=_table(tables, "settings") if kind == "settings" else {},
        resend=_resend(_table(tables, "resend")) if kind == "resend" else None,
        revoke=_revoked(_table(tables, "keys")) if kind == "keys" else (),
    )


def _revoked(table: dict[str, Any]) -> tuple[str, ...]:
    if unknown := sorted(table.keys() - {"revoke"}):
        raise RefusedDocument("schema", f"there is no such key: {', '.join(unknown)}")
    ids = table.get("revoke", [])
    is_list = isinstance(ids, list) and len(ids) <= _MOST_REVOKED
    if not is_list or not all(isinstance(one, str) and KEY_ID.fullmatch(one) for one in ids):
        raise RefusedDocument(
            "schema", f"keys.revoke: must be at most {_MOST_REVOKED} ids of keys, 16 hexadecimal digits"
        )
    return tuple(ids)


def _resend(table: dict[str, Any]) -> Resend:
    if unknown := sorted(table.keys() - {"from", "until", "destination"}):
        raise RefusedDocument("schema", f"there is no such key: {', '.join(unknown)}")
    since, until = _moment(table, "from"), _moment(table, "until")
    if until <= since:
        raise RefusedDocument("schema", "until: must be after from")
    return Resend(since, until, _text(table, "destination") if "destination" in table else None)


def _text(table: dict[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or len(value) > 1000:
        raise RefusedDocument("schema", f"{key}: must be text of at most 1000 characters")
    return value


def _whole(table: dict[str, Any], key: str, least: int) -> int:
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RefusedDocument("schema", f"{key}: must be a whole number from {least} on")
    return value


def _moment(table: dict[str, Any], key: str) -> datetime:
    value = table.get(key)
    if not isinstance(value, datetime) or value.utcoffset() != timedelta():
        raise RefusedDocument("schema", f"{key}: must be a moment in UTC, such as 2026-05-17T18:00:00Z")
    return value


def _table(tables: dict[str, Any], key: str) -> dict[str, Any]:
    value = tables[key]
    if not isinstance(value, dict):
        raise RefusedDocument("schema", f"{key}: must be a table")
    return value


def _require_plain(tables: dict[str, Any]) -> None:
    """Refuse what TOML has and no setting needs: depth, NaN, infinity, numbers beyond all bounds."""
    for depth, value in _walk(tables):
        if depth > _DEEPEST:
            raise RefusedDocument("schema", f"tables or lists in one another more than {_DEEPEST} deep")
        if isinstance(value, float) and not math.isfinite(value):
            raise RefusedDocument("schema", f"{value} is no number for a setting")
        if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
            raise RefusedDocument("schema", "a number beyond all bounds")


def _walk(tables: dict[str, Any]) -> Iterator[tuple[int, object]]:
    """Every value with its depth; without recursion, whatever the depth."""
    waiting: list[tuple[int, object]] = [(0, tables)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(depth + 1, one) for one in inner]
