"""Which trap this is: the 8 hex digits that stand in every file name."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from trapsync.errors import SettingsError
from trapsync.settings.schema import Trap

# The Sticky Pi firmware takes the last 8 digits of the CPU's serial number; so do we.
_SERIALS = (Path("/sys/firmware/devicetree/base/serial-number"), Path("/proc/cpuinfo"))
_MACHINE_ID = Path("/etc/machine-id")
_SERIAL = re.compile(r"(?:^|Serial\s*:\s*)([0-9a-f]{8,16})\s*\0?$", re.MULTILINE)


def device_id(trap: Trap) -> str:
    """The id from settings, else from the CPU's serial number, else from the system's id; SettingsError without any."""
    return trap.device or serial() or _of_system() or _ask_for_one()


def serial() -> str | None:
    """The last 8 hex digits of the Raspberry Pi's serial number; None on other machines."""
    for path in _SERIALS:
        try:
            match = _SERIAL.search(path.read_text(errors="replace"))
        except OSError:
            continue
        if match and int(match[1], 16):  # zeros: a board that was never given one
            return match[1][-8:]
    return None


def _of_system() -> str | None:
    """An id made from the system's own, which is not to be told to anybody; None where there is none."""
    with suppress(OSError, UnicodeError):
        name = _MACHINE_ID.read_text(encoding="ascii").strip()
        if re.fullmatch("[0-9a-f]{32}", name):
            return hashlib.sha256(f"trapsync {name}\n".encode()).hexdigest()[:8]
    return None


def _ask_for_one() -> str:
    raise SettingsError(
        "trap.device: this machine has neither serial number nor machine-id to take the trap's id from; "
        'set 8 hexadecimal digits of your choice, such as device = "7a3f09c1"'
    )
