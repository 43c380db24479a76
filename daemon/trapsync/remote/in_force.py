"""The settings in force: the config file, the remote settings over it, the local override over both.

The files are read once, by `load`, and what was read is handed on: a change of a file counts from the next reload.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trapsync.clock import iso, utc
from trapsync.errors import RefusedDocument
from trapsync.remote import policy
from trapsync.remote import record as records
from trapsync.remote.record import Record, Taken
from trapsync.settings.layers import OVERRIDE, Files, Key
from trapsync.settings.schema import Settings


@dataclass(frozen=True, slots=True)
class InForce:
    """The settings in force, the files they come from, and which keys are not from the config file."""

    files: Files
    settings: Settings
    record: Record = field(default_factory=Record)
    origins: dict[Key, str] = field(default_factory=dict)
    taken: Taken | None = None
    """The remote settings among them."""
    overridden: str = ""
    """Why the remote settings are not in force, or not all of them."""

    @property
    def source(self) -> Path:
        """The config file."""
        return self.files.source

    @property
    def is_trial(self) -> bool:
        """Whether these settings are on trial."""
        return self.taken is not None and self.record.state == "trial"


def load(source: Path) -> InForce:
    """Read the files, and lay them over one another. Raises SettingsError.

    Remote settings that no longer fit the local files are left out: they never keep the trap from starting.
    """
    return lay(Files(source))


def lay(files: Files, record: Record | None = None) -> InForce:
    """Lay remote settings between the local files; without a record, those that are remembered now."""
    local = files.local
    if record is None:
        record = _remembered(files)
    alone = InForce(files, local, record, files.origins({}, ""))
    taken = record.in_force
    if taken is None and record.candidate is None:
        return alone
    if not local.remote.enabled:
        return replace(alone, overridden="remote.enabled is false")
    if files.has_override:
        alone = replace(alone, overridden=f"{OVERRIDE} goes before them")
    if taken is None:
        return alone
    try:
        settings = policy.with_remote(files, taken.tables)
    except RefusedDocument as error:
        return replace(alone, overridden=f"they do not fit this trap's own files any more: {error}")
    origins = files.origins(taken.tables, f"remote {taken.version}")
    return replace(alone, settings=settings, taken=taken, origins=origins)


def _remembered(files: Files) -> Record:
    """The record; of a trap that takes no remote settings, and never did, there is none."""
    state = files.local.storage.state
    if not files.local.remote.enabled and not records.is_kept(state):
        return Record()
    return records.read(state)


def report(found: InForce) -> dict[str, Any]:
    """The state of the remote settings by now, for `status` and the heartbeat. Keys: see scripts/README.md."""
    record = _remembered(found.files)
    last, refused, is_on = record.guard.last, record.refused, found.files.local.remote.enabled
    is_overridden = last is not None and bool(found.overridden)
    code, reason = (refused.code, refused.reason) if refused else (record.code, record.reason)
    facts: dict[str, Any] = {
        "state": "overridden" if is_overridden else record.state,
        "last_received_hash": record.received,
        "effective_hash": found.taken.hash if found.taken else None,
        "version": last.version if last else None,
        "key": (last.key or None) if last else None,
        "code": "override" if is_overridden else code,
        "reason": found.overridden if is_overridden else reason,
        "refused": refused.version if refused else None,
        "damaged": record.damaged,
        "floor": iso(utc(record.guard.floor)) if is_on else None,
        "groups": list(found.settings.remote.groups) if is_on else None,
        "values": policy.values(found.settings) if is_on else None,
    }
    if record.asked:
        facts["resend"] = {key: getattr(record.asked, key) for key in ("hash", "again", "gone")}
    return facts
