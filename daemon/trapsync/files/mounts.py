"""Whether the file systems that the program needs are there, and take writes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the C library keeps the semaphores of the examiners' pool

_MOUNTS = Path("/proc/self/mountinfo")
# What ext4 is after an error, from Linux 6.15 on: the mount itself does not turn read-only any more.
_TAKES_NO_WRITES = {"ro", "emergency_ro", "shutdown"}


class Mount(NamedTuple):
    """A line of proc_pid_mountinfo(5).

    The device as major:minor, the folder in that file system, where it is mounted, and the options of the file system
    itself, which all its mounts share.
    """

    device: str
    root: str
    point: str
    options: frozenset[str]


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what is at a path now; None if nothing can be found there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder takes no writes: mounted so, or turned so by the kernel after an error."""
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return True
        device = folder.stat().st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(one.options & _TAKES_NO_WRITES for one in mounted() if one.device == number)


def mounted() -> Iterator[Mount]:
    """Every mount that this process sees, in their order; none where the kernel does not tell them."""
    with suppress(OSError), _MOUNTS.open("rb") as lines:
        for line in lines:
            mount, _, system = line.rpartition(b" - ")
            device, root, point = (os.fsdecode(_unescaped(word)) for word in mount.split(b" ")[2:5])
            yield Mount(device, root, point, frozenset(os.fsdecode(system).split()[-1].split(",")))


def _unescaped(word: bytes) -> bytes:
    for escaped, plain in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        word = word.replace(escaped, plain)
    return word


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
