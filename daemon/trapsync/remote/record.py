"""The record of remote settings: small files beside the catalog, each replaced as a whole.

At any moment `remote_settings.json` says that the old settings are in force, or the new ones; never some of each. What
keeps an old document from being accepted again (`ReplayGuard`) stands in it and in `replay_guard.json` too, and of the
two the higher counts: one damaged file forgets nothing. `pushed.json` is what commit 13fe5f4 wrote, whose numbers were not
told apart by key: it is read and never written, so that that version finds its own again if an upgrade is undone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from trapsync.clock import WRITTEN
from trapsync.errors import SettingsError, StorageError, one_line
from trapsync.files import durable
from trapsync.files.locks import locked

log = logging.getLogger(__name__)

LARGEST_NUMBER = 2**53  # what every reader of TOML and JSON holds exactly
FARTHEST = 10**6  # that a number may be above the last one of its key
BELIEVED_AHEAD = 3 * 365.25 * 86400  # seconds beyond the floor that a moment alone may raise it

_FILE, _GUARD, _OLDER, _LOCK = (
    "remote_settings.json",
    "replay_guard.json",
    "pushed.json",
    "remote_settings.lock",
)
_LARGEST = 10**6  # bytes: more than two documents of 64 kB and a line for each one that was rolled back
_ANY_KEY = ""  # whose numbers an older record has
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, msgspec.MsgspecError)

_Number = Annotated[int, Meta(ge=0, le=LARGEST_NUMBER)]
_Moment = Annotated[float, Meta(ge=0.0, le=2.5e11)]  # unix seconds up to the year 9892
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest document of one kind by one key: its number and its hash."""

    version: _Number
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Last:
    """The settings that were accepted last: by which key, their number, and when they were issued (unix seconds)."""

    key: str
    version: _Number
    issued: _Moment


@dataclass(frozen=True, slots=True)
class ReplayGuard:
    """What a new document is compared with.

    `floor`: it is later than this; `since`: what was issued before is refused, whatever its number (both unix seconds).
    `numbers`: of each key's id and each kind of document, what was accepted last; above it a document is new.
    `revoked`: the ids of keys that another one revoked, each with that one's.
    """

    floor: _Moment = WRITTEN
    since: _Moment = 0.0
    numbers: dict[str, dict[str, Seen]] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    last: Last | None = None

    def had(self, key: str) -> dict[str, Seen]:
        """What this key's numbers must be above, for each kind."""
        return _higher(self.numbers.get(_ANY_KEY, {}), self.numbers.get(key, {}))

    def with_document(self, key: str, kind: str, seen: Seen, trusted: Iterable[str]) -> "ReplayGuard":
        """The same after a document was accepted. A key that is not trusted any more takes its numbers along."""
        numbers = {one: had for one in trusted if (had := self.had(one))}
        numbers[key] = {**numbers.get(key, {}), kind: seen}
        return replace(self, numbers=numbers)

    def raised(self, other: "ReplayGuard") -> "ReplayGuard":
        """The higher of both in each thing."""
        keys = {*self.numbers, *other.numbers}
        numbers = {key: _higher(self.numbers.get(key, {}), other.numbers.get(key, {})) for key in keys}
        lasts = [last for last in (self.last, other.last) if last]
        return ReplayGuard(
            floor=max(self.floor, other.floor),
            since=max(self.since, other.since),
            numbers=numbers,
            revoked=other.revoked | self.revoked,
            last=max(lasts, key=lambda last: last.issued, default=None),
        )


def _higher(some: Mapping[str, Seen], others: Mapping[str, Seen]) -> dict[str, Seen]:
    found = dict(some)
    for kind, seen in others.items():
        if kind not in found or seen.version >= found[kind].version:
            found[kind] = seen
    return found


@dataclass(frozen=True, slots=True)
class Taken:
    """A settings document that was accepted: `tables` as in the config file; `key` is "" in an older record."""

    hash: str
    version: _Number
    tables: dict[str, Any]
    key: str = ""


@dataclass(frozen=True, slots=True)
class ResendRequest:
    """A request to send images again (unix seconds).

    `again`: how many deliveries are pending again, `gone`: how many images the card has no more; None until it is
    done. `progress`: how far each destination was asked, as the id of the last image, and its two counts.
    """

    hash: str
    since: float
    until: float
    destination: str | None = None
    again: int | None = None
    gone: int | None = None
    progress: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document of a trusted key that was refused: its number, and why."""

    hash: str
    version: _Number
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is in the file.

    `state` is that of the newest settings that were accepted; `code` and `reason` say why they were rolled back, `refused`
    what came after them. `before`: how the trap was when the settings came, see `trial.Before`. `damaged` says what was
    lost of the record, until settings are accepted again. `older` is the SHA-256 of the `pushed.json` that was read.
    `unknown`: keys that a newer version wrote.
    """

    guard: ReplayGuard = field(default_factory=ReplayGuard)
    received: str | None = None
    committed: Taken | None = None
    candidate: Taken | None = None
    starts: int = 0
    before: dict[str, Any] | None = None
    state: str = "none"
    code: str | None = None
    reason: str | None = None
    refused: Refusal | None = None
    rejected: tuple[str, ...] = ()
    asked: ResendRequest | None = None
    damaged: str | None = None
    older: str = ""
    unknown: dict[str, Any] = field(default_factory=dict)

    @property
    def in_force(self) -> Taken | None:
        """The document whose settings are to be applied now."""
        return self.candidate if self.state == "trial" else self.committed


def path(state: Path) -> Path:
    """The file in the state folder."""
    return state / _FILE


def is_kept(state: Path) -> bool:
    """Whether there is a record at all."""
    return any(
        os.path.lexists(state / name) for name in (_FILE, _GUARD, _OLDER)
    )  # False for whoever may not look


def read(state: Path) -> Record:
    """Read the record of a state folder; an empty one if there is no file.

    Of damaged files what another one holds too counts, `damaged` says what is lost, and it is logged.
    """
    return _read(state)[0]


def change(state: Path, make: Callable[[Record], Record]) -> None:
    """Replace what is remembered by what `make` makes of it, alone among all processes.

    Durable when this returns; nothing is changed when `make` raises. Raises StorageError.
    """
    durable.make_folder(state)
    try:
        with locked(state / _LOCK, mode=0o644):
            before, damaged, is_lost = _read(state)
            after = make(before)
            if damaged and not is_lost:  # both are written anew
                after = replace(after, damaged=None)
            if after != before or damaged:
                for file in damaged:
                    _keep_aside(file)
                # First what only ever refuses: a crash in between costs nothing but a push.
                if after.guard != before.guard or damaged or not (state / _GUARD).exists():
                    _write(state / _GUARD, after.guard)
                _write(path(state), after)
    except OSError as error:
        raise StorageError(durable.explain(error, state)) from error


def _write(file: Path, content: ReplayGuard | Record) -> None:
    plain = msgspec.to_builtins(content)
    plain |= plain.pop("unknown", {})
    durable.write(file, [json.dumps(plain, indent=1).encode()])


def _keep_aside(file: Path) -> None:
    """Keep a damaged file for whoever wants to know; a folder or a link in its place goes aside as well."""
    with suppress(FileNotFoundError):
        file.replace(file.with_name(f"{file.name}.damaged"))


def _read(state: Path) -> tuple[Record, list[Path], bool]:
    """The record, which of its files are damaged, and whether anything is lost that no other one holds."""
    damaged: list[Path] = []
    record = _decoded(path(state), _record, damaged)
    guard = _decoded(state / _GUARD, _guard, damaged)
    known = record or Record()
    if guard:
        known = replace(known, guard=known.guard.raised(guard))
    if older := _decoded(state / _OLDER, partial(_of_13fe5f4, known.older), damaged):
        guarded = older.guard.raised(known.guard)
        if path(state) in damaged:  # its settings may have been replaced since, by those that are lost
            known = replace(known, guard=guarded, older=older.older)
        else:
            known = record = replace(older, guard=guarded, unknown=known.unknown)
    if record and guard is None and not damaged:  # its second place is to be there before the first one fails
        damaged.append(state / _GUARD)
    if record:
        text = f"{damaged[0]} was damaged or lost; its copy counts" if damaged else known.damaged
        return replace(known, damaged=text), damaged, False
    if not (guard or damaged):
        return known, [], False
    if guard is None:
        known = replace(known, guard=replace(known.guard, since=_last_written(damaged)))
    what = "is damaged" if damaged else "is missing"
    text = f"{path(state)} {what}: the settings that were sent to this trap are lost; push them again"
    return replace(known, damaged=text), damaged or [path(state)], True


def _decoded(file: Path, decode: Callable[[bytes], Kept], damaged: list[Path]) -> Kept | None:
    try:
        return decode(durable.read_plain(file, _LARGEST))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise SettingsError(f"{file}: no permission; run this as the daemon's user, or with sudo") from None
    except _UNREADABLE as error:
        log.error("%s: cannot be read: %s", file, one_line(error))
        damaged.append(file)
        return None


def _last_written(files: Iterable[Path]) -> float:
    """When the damaged files were written last, as far as that can be believed: what was issued before may have been had."""
    found = WRITTEN
    for file in files:
        with suppress(OSError):
            written = file.lstat().st_mtime
            found = max(found, written if written < WRITTEN + BELIEVED_AHEAD else WRITTEN)
    return found


def _guard(data: bytes) -> ReplayGuard:
    plain = json.loads(data)
    if not {"floor", "numbers", "revoked"} <= plain.keys():
        raise ValueError("it is not whole")
    return msgspec.convert(plain, ReplayGuard)


def _record(data: bytes) -> Record:
    plain = json.loads(data)
    if not {"guard", "state"} <= plain.keys():
        raise ValueError("it is not whole")
    record = msgspec.convert(plain, Record)
    known = {*Record.__dataclass_fields__} - {"unknown"}
    return replace(record, unknown={key: value for key, value in plain.items() if key not in known})


def _of_13fe5f4(known: str, data: bytes) -> Record | None:
    """The record that commit 13fe5f4 wrote: one number for each kind of document, whichever key signed it.

    None if this is what was read before, by its SHA-256: since then that version has not run.

    An epoch other than 0 can only have come from a forged heartbeat, after which no number would be new: then the moment
    when the last document was accepted stands for the numbers.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest == known:
        return None
    plain = json.loads(data)
    highest = {"settings": plain["highest"], "resend": plain["highest_resend"]}
    is_forged = any(epoch > 0 for epoch, _ in highest.values())
    accepted = [plain[key] for key in ("candidate", "committed") if plain[key]]
    hashes = {(one["epoch"], one["version"]): one["hash"] for one in accepted}
    numbers = {
        kind: {"version": version, "hash": hashes.get((epoch, version), "")}
        for kind, (epoch, version) in highest.items()
        if version and not is_forged
    }
    floor = plain["floor"]
    if not WRITTEN <= floor <= WRITTEN + BELIEVED_AHEAD:
        floor = WRITTEN
    version = min(max(0, highest["settings"][1]), LARGEST_NUMBER)
    guard = {
        "floor": floor,
        "since": floor if is_forged else 0.0,
        "numbers": {_ANY_KEY: numbers} if numbers else {},
        "last": {"key": "", "version": version, "issued": 0.0} if version else None,
    }
    kept = (
        "received",
        "committed",
        "candidate",
        "starts",
        "before",
        "state",
        "code",
        "reason",
        "rejected",
        "asked",
    )
    record = {key: plain[key] for key in kept} | {"guard": guard, "older": digest}
    for key in ("committed", "candidate"):
        if record[key]:
            record[key] = {**record[key], "version": min(record[key]["version"], LARGEST_NUMBER)}
    if record["code"] and record["state"] != "rolled_back":  # it was about a document that came later
        refused = {
            "hash": record["received"],
            "version": 0,
            "code": record["code"],
            "reason": record["reason"],
        }
        record |= {"refused": refused, "code": None, "reason": None}
    return msgspec.convert(record, Record)
