"""What a child process may still do once it works on what others wrote: a picture, or what a camera's driver says.

An examiner has the folders that it works on, the program and the libraries; no other file, no socket, no other program, and
no other process. The camera has its devices too, and may start programs, which are as restricted as it is. Files are
Landlock's part and the rest is seccomp's, each as far as this kernel has it: without one of them, or both, a child works as
ever, and `lacking` says so.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import mounts
from trapsync.runtime import landlock, seccomp

# Programs and libraries; where the loader finds these, the names of accounts, and the time zone.
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/opt/vc", "/bin", "/sbin")
_SYSTEM_FILES = ("ld.so.cache", "localtime", "passwd", "group", "nsswitch.conf")
# What libcamera and gpiozero look at: the kernel's and udev's accounts of devices, libcamera's own settings; and fonts, for
# what the simulated camera writes. Nothing of /proc: there, Landlock leaves other processes' environment readable.
_OF_CAMERAS = ("/sys", "/run/udev", "/etc/libcamera", "/etc/fonts", "/var/cache/fontconfig")
_NO_DEVICES = {"shm", "mqueue", "pts"}

_NO_PERMISSION = "no permission"  # what `durable.explain` and an examiner say of EACCES

_lacking: str | None = None


@dataclass(frozen=True, slots=True)
class Rights:
    """What one child needs: files and folders that it reads, folders in which it writes, and whether it is the camera.

    `pipes` is a folder for pipes.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    pipes: Path | None = None
    is_camera: bool = False

    def identity(self) -> list[tuple[int, int] | None]:
        """Device and inode of each now: a right is about these, and not about what gets the path later.

        So whoever was started before a disk was mounted at its folder has no right to that.
        """
        return [mounts.identity(path) for path in (*self.read, *self.write)]

    def are_stale(self, error: StorageError, *files: Path) -> bool:
        """Whether a child was refused what this process may do: the same disk was mounted anew, which has one identity."""
        return _NO_PERMISSION in str(error) and all(
            [*(os.access(file, os.R_OK) for file in files), *(os.access(one, os.W_OK) for one in self.write)]
        )


def restrict(rights: Rights) -> None:
    """Give up everything else, for good. For a process that has one thread, and is to have no more rights than these."""
    global _lacking
    lacking = []
    try:
        landlock.restrict(_rules(rights))
    except OSError as error:
        lacking.append(f"they can open all files of the account ({error.strerror})")
    try:
        seccomp.restrict(programs=rights.is_camera, netlink=rights.is_camera)
    except OSError as error:
        lacking.append(f"they can use the network and other processes ({error.strerror})")
    _lacking = "; ".join(lacking)


def lacking() -> str:
    """What this process was to give up and could not, and why, in words; empty where it gave up everything."""
    return "nothing was given up" if _lacking is None else _lacking


def probe() -> str:
    """Give up everything in this process, as an examiner does; returns `lacking`."""
    restrict(Rights())
    return lacking()


def of_programs() -> Iterator[tuple[Path, int]]:
    """What a process reads that runs this program, for one whose other rights are not an examiner's."""
    for path in _code(Rights()):
        yield path, landlock.READ
    for name in _SYSTEM_FILES:
        yield Path("/etc", name), landlock.READ
    yield Path("/dev/null"), landlock.USE
    yield Path("/dev/urandom"), landlock.READ


def _rules(rights: Rights) -> Iterator[tuple[Path, int]]:
    for path in _code(rights):
        yield path, landlock.RUN if rights.is_camera else landlock.READ
    for name in _SYSTEM_FILES:
        yield Path("/etc", name), landlock.READ
    for path in rights.read:
        yield path, landlock.READ
    for path in rights.write:
        yield path, landlock.CHANGE
    if rights.pipes:
        yield rights.pipes, landlock.MAKE_PIPES
    if rights.is_camera:
        for name in _OF_CAMERAS:
            yield Path(name), landlock.READ
        for path in Path("/dev").iterdir():
            if path.name not in _NO_DEVICES:
                yield path, landlock.USE
    else:
        yield Path("/dev/null"), landlock.USE
        yield Path("/dev/urandom"), landlock.READ


def _code(rights: Rights) -> Iterator[Path]:
    """Where programs, libraries and modules are, some of which are loaded late; not a folder that holds the images too."""
    yield from map(Path, _SYSTEM)
    yield from (Path(sys.prefix), Path(sys.base_prefix))
    for path in map(Path, filter(None, sys.path)):
        if not any(folder.is_relative_to(path) for folder in rights.write):
            yield path
