"""Whose an error of the folder's file system is: one image's, or the medium's."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

from trapsync.errors import DeliveryError, Failed, Refused, Unreachable
from trapsync.files import durable, failpoint
from trapsync.files.folder import Folder

# Never about one entry only: no trial is needed, nor waited for.
_OF_MEDIUM = frozenset(
    {
        *(errno.EROFS, errno.EDQUOT, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
# Where a trial fails by one of these it may be about the folder's own entries, and those below may go on.
_ONE_ENTRY = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO),
        *(errno.EEXIST, errno.ENOENT, errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG),
    }
)
_NAMES = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})
_DAMAGED = frozenset({errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)})
# Nothing can be written, which says nothing of what can be read.
_NO_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})

# More than two, for odd entries may have some of them.
TRIALS = (".trapsync-trial.part", ".trapsync-trial-done.part", *(f".trapsync-trial-{n}.part" for n in "3456"))
_CHUNK = 256 * 1024


def explained(
    error: OSError, root: Folder, place: str, *, size: int = 0, is_reading: bool = False
) -> DeliveryError:
    """Which of ours an error is that came while `place` was worked on below the folder.

    Failed or Refused: it is this image's. Unreachable: the medium takes no file at all, or is failing. What could be
    either is told by a file with a plain name. `size` is that of the image; `is_reading`: nothing was to be written.
    """
    if error.errno == errno.EFBIG:
        return Refused(f"the file system of {root.path} takes no file so large: {place}")
    if error.errno in _OF_MEDIUM or (error.errno == errno.ENOSPC and not _has_room(root, size)):
        return of_medium(error, root.path)
    failed = _trial(root, size if error.errno == errno.ENOSPC else 0)
    if not failed or (is_reading and failed.errno in _NO_WRITING):
        return _of_image(error, root.path / place)
    # Where the folder itself takes no files but those below may, only the same error says that nothing goes.
    if failed.errno in _ONE_ENTRY and failed.errno != error.errno:
        return _of_image(error, root.path / place)
    return of_medium(failed, root.path)


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
    if error.errno in _DAMAGED:
        return Failed(
            f"{copy}: it cannot be read or written there, other files can: the stick is failing, replace it "
            f"({error.strerror})"
        )
    if error.errno in {errno.ENOSPC, errno.EMLINK}:
        return Failed(f"{copy}: its folder takes no more entries, and the stick has room ({error.strerror})")
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


def _has_room(root: Folder, size: int) -> bool:
    """Whether the file system says that it has room for so large a file."""
    try:
        space = os.fstatvfs(root.descriptor)
    except OSError:
        return False
    has_inodes = space.f_favail > 0 or space.f_files == 0  # FAT counts none
    return has_inodes and space.f_bavail * space.f_frsize > size


def _trial(root: Folder, size: int) -> OSError | None:
    """Write a file with a plain name, flush it, give it another name, and remove it; what went wrong.

    It is as large as the image where it is about room. What other entries are in its way is no fault of the medium.
    """
    try:
        clear(root)
        name, file = root.new_of(TRIALS)
        with file:
            _fill(file, size)
            file.flush()
            os.fsync(file.fileno())
        failpoint.hit("trial: written")
        root.claim_of(name, TRIALS)
    except FileExistsError:
        return None
    except OSError as error:
        return error
    finally:
        clear(root)
    return None


def _fill(file: BinaryIO, size: int) -> None:
    file.write(b"trial")
    chunk = os.urandom(min(size, _CHUNK))  # nothing that a file system could keep in less
    file.writelines(chunk[: size - start] for start in range(0, size, _CHUNK))


def clear(root: Folder) -> None:
    """Remove what a trial leaves, or left when it was cut short. What is no file is not ours. Raises nothing."""
    for name in TRIALS:
        root.discard(name)
