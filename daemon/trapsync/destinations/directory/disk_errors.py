"""Whose an error of the folder's file system is: one image's, or the medium's."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from trapsync.errors import DeliveryError, Failed, Refused, Unreachable
from trapsync.files import durable, failpoint
from trapsync.files.folder import Folder

# They may be about one name or one entry only: what is in the way, or cannot be opened, or cannot be so called.
ONE_ENTRY = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO),
        *(errno.EEXIST, errno.ENOENT, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG),
    }
)
_NAMES = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})
_ONE_FILE = ONE_ENTRY | {errno.EIO}

_TRIAL, _TRIED = ".trapsync-trial.part", ".trapsync-trial-done.part"


def explained(error: OSError, root: Folder, place: str) -> DeliveryError:
    """Which of ours an error is that came while `place` was worked on below the folder.

    Failed or Refused: it is this image's. Unreachable: the medium takes no file at all, or is failing. What could be
    either is told by a file with a plain name.
    """
    if error.errno == errno.EFBIG:
        return Refused(f"the file system of {root.path} takes no file so large: {place}")
    if error.errno not in _ONE_FILE:
        return of_medium(error, root.path)
    failed = _trial(root)
    # Where the folder itself takes no files but those below may, only the same error says that nothing goes.
    if failed and (failed.errno not in ONE_ENTRY or failed.errno == error.errno):
        return of_medium(failed, root.path)
    return _of_image(error, root.path / place)


def of_medium(error: OSError, path: Path) -> Unreachable:
    """Nothing can be written or read there."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return Unreachable(f"{path} is full: put in an empty stick, or free some space")
        case errno.EROFS:
            return Unreachable(f"{path} is read-only: the stick is locked, or it is failing")
        case errno.EACCES | errno.EPERM | errno.ENOTDIR:
            return Unreachable(durable.explain(OSError(error.errno, error.strerror), path))
        case _:
            return Unreachable(f"{path}: the stick was pulled out or is failing: {error.strerror or error}")


def _of_image(error: OSError, copy: Path) -> DeliveryError:
    if error.errno in _NAMES:
        return Refused(
            f'{copy}: the file system takes no such name ({error.strerror}); FAT has no : ? * " < > | in names, and '
            f"other letters than English ones only if it is mounted with utf8"
        )
    if error.errno == errno.EIO:
        return Failed(
            f"{copy}: it cannot be read or written there, other files can: the stick is failing, replace it"
        )
    if error.errno == errno.EXDEV:
        return Failed(
            f"{copy}: another file system is mounted in {error.filename}; only the folder's own is written to"
        )
    if error.errno == errno.ELOOP:
        return Failed(f"{copy}: {error.filename} is a link, and links are not followed; remove it")
    if error.errno == errno.ENOENT:
        return Failed(f"{copy}: the file system does not take this name, or the folder was just removed")
    name = str(error.filename or "")
    in_the_way = "" if name in {"", copy.name, str(copy)} else f" ({name})"
    return Failed(f"{durable.explain(OSError(error.errno, error.strerror), copy)}{in_the_way}")


def _trial(root: Folder) -> OSError | None:
    """Write a file with a plain name, flush it, give it another name, and remove it; what went wrong."""
    try:
        clear(root)
        with root.new(_TRIAL) as file:
            file.write(b"trial")
            file.flush()
            os.fsync(file.fileno())
        failpoint.hit("trial: written")
        root.replace(_TRIAL, _TRIED)
        clear(root)
    except OSError as error:
        with suppress(OSError):
            clear(root)
        return error
    return None


def clear(root: Folder) -> None:
    """Remove what a trial leaves, or left when it was cut short; what is no file is not ours."""
    for name in (_TRIAL, _TRIED):
        if root.is_file(name):
            root.remove(name)
