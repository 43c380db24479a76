"""Which trap this is: the 8 hex digits that stand in every file name."""

import re
from pathlib import Path

from trapsync.errors import SettingsError
from trapsync.settings.schema import Trap

# The Sticky Pi firmware takes the last 8 digits of the CPU's serial number; so do we.
_SERIALS = (Path("/sys/firmware/devicetree/base/serial-number"), Path("/proc/cpuinfo"))
_SERIAL = re.compile(r"(?:^|Serial\s*:\s*)([0-9a-f]{8,16})\s*\0?$", re.MULTILINE)


def device_id(trap: Trap) -> str:
    """The id from settings, else from the CPU's serial number; SettingsError where there is neither."""
    return trap.device or serial() or _ask_for_one()


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


def _ask_for_one() -> str:
    raise SettingsError(
        "trap.device: this machine has no serial number to take the trap's id from; "
        'set 8 hexadecimal digits of your choice, such as device = "7a3f09c1"'
    )
