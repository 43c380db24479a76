"""What the board says of itself: whether its supply is too weak, and how hot it is. Files of the kernel, which never wait.

Only of a board that has a device tree, such as a Raspberry Pi: other computers are hot by design.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Bits of the firmware's get_throttled (Raspberry Pi's documentation of vcgencmd); 16 higher: it happened since the start.
UNDER_VOLTAGE, CAPPED, THROTTLED, CLOSE_TO_LIMIT = (1 << bit for bit in range(4))
SINCE_START = 16
# °C from which the firmware slows the processor down, and from which it does so as far as it can (the same documentation,
# "frequency management and thermal control").
SLOWED, LIMIT = 80.0, 85.0


@dataclass(frozen=True, slots=True)
class Board:
    """The bits of get_throttled, and the temperature of the hottest part in °C; None where it is not told."""

    throttled: int | None = None
    temperature: float | None = None


def read(root: Path = Path("/")) -> Board:
    """What the board says now; `root` is where the kernel's files are."""
    if not (root / "proc/device-tree/model").exists():
        return Board()
    bits = _numbers(root, "sys/devices/platform/soc*/*firmware/get_throttled", 16)
    degrees = _numbers(root, "sys/class/thermal/thermal_zone*/temp", 10)
    return Board(bits[0] if bits else None, max(degrees) / 1000 if degrees else None)


def _numbers(root: Path, pattern: str, base: int) -> list[int]:
    found = []
    for path in sorted(root.glob(pattern)):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text(), base))
    return found
