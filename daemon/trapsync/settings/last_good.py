"""The last config that ran, kept in the state folder: for a start whose config file is invalid.

The record belongs to the trap's account. It says which config file it is of, and counts for that one only.
"""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trapsync.errors import SettingsError
from trapsync.files import durable
from trapsync.settings.layers import OVERRIDE, Texts
from trapsync.settings.schema import Storage

_LARGEST = 10**6  # bytes
# Looked for line by line: the file that is read so is not TOML any more.
_STATE = re.compile(r"""^\s*(?:storage\.)?state\s*=\s*["']([^"'\r\n]+)""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LastGood:
    """The texts of a config file, and of the override file beside it, since when (unix seconds) they ran."""

    source: str
    since: float
    config: str
    override: str | None

    @property
    def texts(self) -> Texts:
        """Both texts."""
        return Texts(self.config, self.override)


def path(state: Path) -> Path:
    """The record in a state folder."""
    return state / "last_good_config.json"


def folders(source: Path) -> list[Path]:
    """The state folders that a config file may mean which cannot be read as TOML: what it says, and the default."""
    found = []
    for file in (source.with_name(OVERRIDE), source):
        with suppress(OSError):
            text = (
                file.read_bytes().replace(b"\0", b"").decode("utf-8", "replace")
            )  # UTF-16 can be read so too
            found += [source.absolute().parent / Path(one) for one in _STATE.findall(text)]
    return list(dict.fromkeys([*found, Storage().state]))


def read(state: Path, source: Path) -> LastGood | None:
    """The last config that ran of this config file; None where there is none. SettingsError where it is damaged."""
    file = path(state)
    try:
        found = LastGood(**json.loads(durable.read_plain(file, _LARGEST)))
        float(found.since), *map(str.encode, (found.source, found.config, found.override or ""))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SettingsError(f"{file}: the last config that ran cannot be read: {error}") from None
    return found if found.source == str(source.absolute()) else None


def keep(state: Path, source: Path, texts: Texts, now: float) -> None:
    """Keep what runs now; nothing is written where it is kept already. Durable when this returns. StorageError."""
    with suppress(SettingsError):
        known = read(state, source)
        if known and known.texts == texts:
            return
    record = LastGood(str(source.absolute()), now, texts.config, texts.override)
    durable.write(path(state), [json.dumps(asdict(record), indent=1).encode()])
