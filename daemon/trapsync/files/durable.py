"""Writing files that survive a power cut: temporary name, flush, rename, flush the folder.

A file under its final name is complete, whatever happened while it was written. Temporary files start
with a dot and end in `.part`; whoever owns the folder may delete those that a crash left behind.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

try:
    import grp  # now, for an account that root steps down to may not read the interpreter's library
except ModuleNotFoundError:  # Windows
    grp = None  # type: ignore[assignment]

from trapsync.errors import StorageError
from trapsync.files import failpoint

# Bytes of a temporary name. Most file systems take 255, some network folders (encrypted ones) fewer: what fails there
# is the name that the file is to have, and not this one.
_LONGEST_TEMPORARY = 143


def temporary_name(name: str, writer: str = "") -> str:
    """The name that a file has while it is written, beside the one that it will have; always the same for the same two.

    Where the name is too long to be added to, its digest stands for it.
    """
    whole = f".{name}{writer}.part"
    if len(os.fsencode(whole)) <= _LONGEST_TEMPORARY:
        return whole
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{writer}.part"


def write(
    path: Path,
    content: Iterable[bytes],
    *,
    verify: Callable[[Path], None] | None = None,
    replace: bool = True,
    flush: bool = True,
    writer: str = "",
) -> None:
    """Write a whole new file durably; missing folders are made, an existing file is replaced.

    When this returns, the file and its name are on the storage (as far as that honours flushes).
    Raises StorageError, and then nothing stands under the final name that did not stand there before; where only
    the folder could not be flushed, the whole new file may stand there.
    Without `replace` FileExistsError says that the name was taken, at whatever moment before; `writer` then
    keeps apart the temporary files of two who may want one name. Without `flush` the file appears whole under
    its name too, but may not survive a power cut: for what can be made again.
    `verify` is given the flushed temporary file before it gets its name. Whatever `content` or `verify`
    raise goes through (an OSError as StorageError), with the temporary file removed.
    """
    temporary = path.with_name(temporary_name(path.name, writer))
    try:
        make_folder(path.parent)
        temporary.unlink(missing_ok=True)  # what a crash left may be a finished file's other name
        with temporary.open("xb") as file:
            for chunk in content:
                file.write(chunk)
            file.flush()
            failpoint.hit("write: written")
            if flush:
                os.fsync(file.fileno())
        failpoint.hit("write: flushed")
        if verify:
            verify(temporary)
        if replace or not _claim(path, temporary):
            temporary.rename(path)
        failpoint.hit("write: renamed")
        if flush:
            flush_folder(path.parent)
        failpoint.hit("write: done")
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, _NameTaken):
            raise StorageError(explain(error, path)) from error
        raise


class _NameTaken(FileExistsError):
    """Another file has the name."""


def _claim(path: Path, temporary: Path) -> bool:
    """Link the finished file to its name, and remove the temporary one: of two that do so, one fails.

    A rename would replace what the other has just written. Returns False on a card without hard links (FAT),
    where the name was free a moment ago, and a rename has to do.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise _NameTaken(errno.EEXIST, "the name is taken", str(path)) from None
    except OSError:
        if path.exists():
            raise _NameTaken(errno.EEXIST, "the name is taken", str(path)) from None
        return False
    failpoint.hit("write: claimed")
    temporary.unlink()
    return True


# Windows, where operator commands run, has neither these links nor these waits.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class NotPlain(OSError):
    """A folder, a pipe or a device is where a file was expected."""


def open_plain(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a plain file and nothing else, as `os.open`: no link, and no FIFO or device, which might never answer.

    Raises NotPlain, and OSError as `os.open` does.
    """
    descriptor = os.open(path, flags | _PLAIN, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlain(errno.EINVAL, "is no plain file", str(path))
    return descriptor


def read_plain(path: Path, most: int) -> bytes:
    """Read a plain file of at most so many bytes. Raises OSError, for a larger one too."""
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
    return content


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each flushed into the one above it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        failpoint.hit("folder: made")
        flush_folder(new.parent)


def remove(left_over: Path) -> None:
    """Remove what a crash left: a file, a link, or a folder with all that is in it. Raises OSError."""
    if left_over.is_dir() and not left_over.is_symlink():
        shutil.rmtree(left_over)
    else:
        left_over.unlink()


def flush_folder(folder: Path) -> None:
    """Flush a folder's own entries: without this a new name may not survive a power cut."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network folders cannot
            raise
    finally:
        os.close(descriptor)
    failpoint.hit("folder: flushed")


def explain(error: OSError, path: Path) -> str:
    """Explain an error in one line: which file or folder, what is wrong, what to do."""
    advice = {
        errno.ENOSPC: "the card is full; free some space",
        errno.EDQUOT: "the disk quota is used up; free some space",
        errno.EACCES: f"no permission; let the user {user()} write there",
        errno.EPERM: f"no permission; let the user {user()} write there",
        errno.EROFS: "the filesystem is read-only; the card may be failing",
        errno.EIO: "input/output error; the card or the stick may be failing",
        errno.EEXIST: "something that is not a folder is in the way",
        errno.ELOOP: "a link is in the way; remove it",
        errno.ENOTDIR: "something that is not a folder is in the way",
    }
    reason = advice.get(error.errno or 0) or error.strerror or str(error)
    return f"{error.filename or path}: {reason}"


def group() -> str:
    """The group of the account that runs this, by its name."""
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def user() -> str:
    """The account that runs this, by its name."""
    try:
        import pwd
    except ModuleNotFoundError:  # Windows
        return "that runs this"
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
