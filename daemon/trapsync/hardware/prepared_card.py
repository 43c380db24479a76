"""A card that was prepared to join a hub: the file on its boot partition, and what root's helper says of it.

::

    https://hub.example.org/join#7KXQ4M-2CP5ZT-…
    name = valley-3

The boot partition is FAT: any computer can write there. systemd/trapsync-join.service runs `trapsync join --card` until that
has succeeded, which removes the file. What keeps it from that it leaves in `REASON`, for the status.
"""

import re
from contextlib import suppress
from pathlib import Path

from trapsync.errors import SettingsError, one_line
from trapsync.files import durable

NAME = "trapsync-join.txt"
FOLDERS = (Path("/boot/firmware"), Path("/boot"))  # of newer systems, and of older ones
REASON = Path("/run/trapsync-join/reason")
_LARGEST = 4096  # bytes of either file
_TRAP_NAME = re.compile(r"name\s*=\s*(.*)")


def find() -> Path | None:
    """Where the file is; None where there is none."""
    for folder in FOLDERS:
        with suppress(OSError):
            (folder / NAME).lstat()
            return folder / NAME
    return None


def read(path: Path) -> tuple[str, str]:
    """The code in it, and the trap's name, "" for none. SettingsError where it holds no such thing."""
    try:
        text = durable.read_plain(path, _LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    code, *others = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if not code:
        raise SettingsError(f"{path}: is empty; its first line is the code")
    found = [_TRAP_NAME.fullmatch(line) for line in others]
    if len(found) > 1 or None in found:
        raise SettingsError(f"{path}: behind the code stands one line at most, such as: name = valley-3")
    return code, found[0][1].strip("\"' ") if found and found[0] else ""


def waiting() -> str | None:
    """That this trap has not joined as its card says, and why; None where no file says so."""
    path = find()
    if path is None:
        return None
    reason = ""
    with suppress(OSError):
        reason = one_line(durable.read_plain(REASON, _LARGEST).decode("utf-8", "replace"), 500)
    return f"{reason or 'not joined yet: no attempt was made so far'} ({path})"
