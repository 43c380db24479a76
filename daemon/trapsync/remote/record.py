"""The record of remote settings: one small file beside the catalog, replaced as a whole.

At any moment it says that the old settings are in force, or the new ones; never some of each.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trapsync.errors import SettingsError, StorageError
from trapsync.files import durable
from trapsync.files.locks import locked

log = logging.getLogger(__name__)

_FILE, _LOCK = "pushed.json", "pushed.lock"
_LARGEST = 10**6  # bytes: more than two documents of 64 kB and a line for each one that was rolled back


@dataclass(frozen=True, slots=True)
class Taken:
    """A settings document that was accepted: `tables` as in the config file."""

    hash: str
    epoch: int
    version: int
    tables: dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Record:
    """What is in the file.

    `floor`: it is later than this, in unix seconds. `highest`, `highest_resend`: the (epoch, version) above which
    a document of that kind is new. `state` is that of the newest settings; `code` and `reason` say why it is so, or
    why `received` was refused. `before`: how the trap was when the settings came, see `trial.Before`.
    """

    floor: float = 0.0
    highest: tuple[int, int] = (-1, 0)
    highest_resend: tuple[int, int] = (-1, 0)
    received: str | None = None
    committed: Taken | None = None
    candidate: Taken | None = None
    starts: int = 0
    before: dict[str, Any] | None = None
    state: str = "none"
    code: str | None = None
    reason: str | None = None
    rejected: tuple[str, ...] = ()
    asked: ResendRequest | None = None

    @property
    def in_force(self) -> Taken | None:
        """The document whose settings are to be applied now."""
        return self.candidate if self.state == "trial" else self.committed


def path(state: Path) -> Path:
    """The file in the state folder."""
    return state / _FILE


def read(state: Path) -> Record:
    """Read the record of a state folder; an empty one if there is no file, or a damaged one (which is logged)."""
    file = path(state)
    try:
        return _record(json.loads(durable.read_plain(file, _LARGEST)))
    except FileNotFoundError:
        return Record()
    except PermissionError:
        raise SettingsError(f"{file}: no permission; run this as the daemon's user, or with sudo") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.error("%s: cannot be read (%s): no remote settings are in force", file, error)
        return Record()


def _record(plain: dict[str, Any]) -> Record:
    for key in ("highest", "highest_resend", "rejected"):
        plain[key] = tuple(plain[key])
    for key in ("committed", "candidate"):
        plain[key] = plain[key] and Taken(**plain[key])
    if asked := plain["asked"]:
        progress = {name: tuple(counts) for name, counts in asked.get("progress", {}).items()}
        plain["asked"] = ResendRequest(**asked | {"progress": progress})
    return Record(**plain)


def change(state: Path, make: Callable[[Record], Record]) -> None:
    """Replace what is remembered by what `make` makes of it, alone among all processes.

    Durable when this returns; nothing is changed when `make` raises. Raises StorageError.
    """
    durable.make_folder(state)
    try:
        with locked(state / _LOCK, mode=0o644):
            before = read(state)
            after = make(before)
            if after != before:
                durable.write(path(state), [json.dumps(asdict(after), indent=1).encode()])
    except OSError as error:
        raise StorageError(durable.explain(error, state)) from error
