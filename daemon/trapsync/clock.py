"""Time: the wall clock, the monotonic clock, and whether the wall clock can be trusted.

A trap has no battery for its clock: it boots days in the past and steps hours later. So intervals and waits
run on the monotonic clock, and each time that is kept says whether the wall clock was trusted then.
"""

import ctypes
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

from trapsync.image import Evidence

# systemd-timesyncd touches this file once it has set the clock from a server.
_SYNCHRONISED = Path("/run/systemd/timesync/synchronized")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Unix seconds, 2026-06-01: this program was written later, so no clock is right that says less.
WRITTEN = 1_780_272_000.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Clock(Protocol):
    """The clocks that the program uses. Tests have their own."""

    def monotonic(self) -> float:
        """Seconds since boot, never stepped; the same for all processes of one boot."""

    def wall(self) -> float:
        """Unix seconds of the system clock, right or wrong."""

    def boot_id(self) -> str:
        """The kernel's random id of this boot."""

    def trusted(self) -> bool:
        """Whether the wall clock is known to be synchronised."""


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own clock. `always_trusted` is for traps with a real-time clock of their own."""

    always_trusted: bool = False

    def monotonic(self) -> float:
        """Seconds since boot (CLOCK_MONOTONIC)."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()

    def boot_id(self) -> str:
        """Linux's boot id; empty where there is none."""
        try:
            return _read_boot_id()
        except OSError:
            return ""

    def trusted(self) -> bool:
        """Synchronised by timesyncd, or by another daemon that told the kernel so."""
        return bool(self.trusted_by())

    def trusted_by(self) -> str:
        """What says that it is right: the settings, timesyncd or the kernel; empty if nothing does."""
        if self.always_trusted:
            return "trap.clock"
        if _SYNCHRONISED.exists():
            return "systemd-timesyncd"
        return "the kernel" if _kernel_synchronised() else ""


@cache
def _read_boot_id() -> str:
    """Read it once: it stays, and the camera's process sees no such file later."""
    return _BOOT_ID.read_text().strip()


def _kernel_synchronised() -> bool:
    """Ask adjtimex(2), which chrony and ntpd set. Under ProtectClock=yes it may not be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # struct timex is 208 bytes on 64-bit Linux and 128 on 32-bit; zeroed, it is a query.
        answer = libc.adjtimex(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return False
    return 0 <= int(answer) < _TIME_ERROR


def evidence(clock: Clock) -> Evidence:
    """Note the present time by all clocks."""
    # Trust comes first: a clock that is set in between must not count for what it showed before.
    trusted = clock.trusted()
    return Evidence(clock.boot_id(), clock.monotonic(), clock.wall(), trusted)


def utc(unix_seconds: float) -> datetime:
    """The UTC datetime of unix seconds, with its time zone."""
    return datetime.fromtimestamp(unix_seconds, UTC)


def iso(at: datetime) -> str:
    """Format a time as `2022-05-17T18:46:57Z`, as on the wire and in the catalog."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
