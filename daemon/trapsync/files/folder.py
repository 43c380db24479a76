"""Work below an open folder: names are looked up step by step from its descriptor, not by a path.

What is done in a `Folder` happens there, wherever its path leads meanwhile. No link is followed below it, no other
file system is entered (nor the same one by another mount), and nothing but regular files is opened: a link, a pipe
or a device is never read or written. All methods raise OSError.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

from trapsync.files import failpoint

# Windows has none of these, nor `dir_fd`: there this is only imported, when an operator's settings are checked.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

Done = TypeVar("Done")


class NotRegular(OSError):
    """A folder, a link, a pipe, a socket or a device is where a file was expected."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EEXIST, "it is no regular file", name)


class Folder:
    """An open folder. `path` is for messages; only the topmost folder is opened by it."""

    def __init__(self, descriptor: int, path: Path, mount: tuple[int, int]) -> None:
        self.descriptor = descriptor
        self.path = path
        self._mount = mount

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the topmost folder by its path, in which links are allowed."""
        descriptor = os.open(path, _FOLDER)
        return cls(descriptor, path, _mount_of(descriptor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def device(self) -> int:
        """The number of the file system that it is on."""
        return self._mount[0]

    def below(self, parts: Sequence[str], *, make: bool = False) -> "Folder":
        """Open the folder that these names lead to, one below another; with `make`, missing ones are made durably."""
        assert all(part not in {"", ".", ".."} and "/" not in part for part in parts)
        here = Folder(os.dup(self.descriptor), self.path, self._mount)
        for part in parts:
            with here as above:
                here = above._next(part, make)
        return here

    def _next(self, name: str, make: bool) -> "Folder":
        try:
            descriptor = os.open(name, _FOLDER | _NO_LINK, dir_fd=self.descriptor)
        except FileNotFoundError:
            if not make:
                raise
            self._make(name)
            descriptor = os.open(name, _FOLDER | _NO_LINK, dir_fd=self.descriptor)
        if _mount_of(descriptor) != self._mount:
            os.close(descriptor)
            raise OSError(errno.EXDEV, "another file system is mounted there", name)
        return Folder(descriptor, self.path / name, self._mount)

    def _make(self, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.descriptor)
        failpoint.hit("below: folder made")
        self.flush()

    def status(self, name: str) -> os.stat_result:
        """The status of a regular file; links are not followed. Raises NotRegular for anything else."""
        status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegular(name)
        return status

    def file(self, name: str, flags: int = os.O_RDONLY) -> FileIO:
        """Open a regular file that is there, without a buffer. Raises NotRegular for anything else."""
        self.status(name)  # what is no file is not even opened: that alone may do something to a device
        descriptor = os.open(name, flags | _FILE, dir_fd=self.descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotRegular(name)
        is_read = flags & os.O_ACCMODE == os.O_RDONLY
        return FileIO(descriptor, "rb" if is_read else "rb+")

    def new(self, name: str) -> BinaryIO:
        """Make a new file to write to. Raises FileExistsError if anything has the name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        return os.fdopen(os.open(name, flags, 0o666, dir_fd=self.descriptor), "wb")

    def new_of(self, names: Iterable[str]) -> tuple[str, BinaryIO]:
        """Make a new file under the first of these names that takes one; an older file of that name is removed.

        For temporary names: whatever is odd about one of them, another does. Raises FileExistsError if all are taken.
        """

        def make(name: str) -> tuple[str, BinaryIO]:
            self.discard(name)
            return name, self.new(name)

        return self._first_of(names, make)

    def claim_of(self, old: str, names: Iterable[str]) -> None:
        """Rename a file to the first of these names that it can get. Raises FileExistsError if all are taken."""
        self._first_of(names, partial(self.claim, old))

    def _first_of(self, names: Iterable[str], attempt: Callable[[str], Done]) -> Done:
        failed: OSError = FileExistsError(errno.EEXIST, "other entries have all names", str(self.path))
        for name in names:
            try:
                return attempt(name)
            except FileExistsError:
                continue
            except OSError as error:
                failed = error
        raise failed

    def discard(self, name: str) -> None:
        """Remove a file, if it is there and lets itself be removed. Raises nothing."""
        with suppress(OSError):
            if self.is_file(name):
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)
            failpoint.hit("below: removed")

    def replace(self, old: str, new: str) -> None:
        """Rename a file, replacing what has the new name."""
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        failpoint.hit("below: renamed")

    def claim(self, old: str, new: str) -> None:
        """Rename a file to a name that nothing has. Raises FileExistsError otherwise; of two that do so, one fails.

        Without hard links (FAT), the name is checked first and then given.
        """
        try:
            os.link(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            if self.has(new):
                raise FileExistsError(errno.EEXIST, "the name is taken", new) from None
            self.replace(old, new)
        else:
            failpoint.hit("below: claimed")
            self.remove(old)

    def has(self, name: str) -> bool:
        """Whether anything has this name."""
        try:
            os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def is_file(self, name: str) -> bool:
        """Whether a regular file has this name."""
        try:
            self.status(name)
        except (FileNotFoundError, NotRegular):
            return False
        return True

    def flush(self) -> None:
        """Flush its own entries: without this a new name may not survive a power cut."""
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network folders cannot
                raise
        failpoint.hit("below: flushed")


def _mount_of(descriptor: int) -> tuple[int, int]:
    """The file system of an open folder, and by which mount it was reached (0 where the kernel does not tell)."""
    device, mount = os.fstat(descriptor).st_dev, 0
    with suppress(OSError, ValueError), Path(f"/proc/self/fdinfo/{descriptor}").open() as lines:
        mount = next((int(line.split()[1]) for line in lines if line.startswith("mnt_id:")), 0)
    return device, mount
