"""Whether the file systems that the program needs are there, and take writes."""

import os
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the C library keeps the semaphores of the examiners' pool

_MOUNTS = Path("/proc/self/mountinfo")
# What ext4 is after an error, from Linux 6.15 on: the mount itself does not turn read-only any more.
_TAKES_NO_WRITES = {"ro", "emergency_ro", "shutdown"}


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder takes no writes: mounted so, or turned so by the kernel after an error."""
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return True
        device = folder.stat().st_dev
    except OSError:
        return False
    return bool(_options(f"{os.major(device)}:{os.minor(device)}") & _TAKES_NO_WRITES)


def _options(device: str) -> set[str]:
    """The options of a mounted file system itself, which all its mounts share (proc_pid_mountinfo(5))."""
    options: set[str] = set()
    with suppress(OSError), _MOUNTS.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            mount, _, system = line.rpartition(" - ")
            if mount.split(" ")[2:3] == [device]:
                options |= set(system.split()[-1].split(","))
    return options


def read_only_card(*folders: Path) -> str | None:
    """What to say where one of these folders is on a card that takes no writes; None where all do."""
    for folder in folders:
        if is_read_only(folder):
            return f"{folder}: the card is read-only: it is failing, or damaged; copy what is on it, and replace it"
    return None


def no_shared_memory() -> str | None:
    """What to say where no file can be examined, for want of shared memory; None where there is some."""
    if os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        return None
    return (
        f"no file can be examined: {SHARED_MEMORY} is missing or cannot be written to; restart the machine, or mount it: "
        f"sudo mount -t tmpfs tmpfs {SHARED_MEMORY}"
    )
