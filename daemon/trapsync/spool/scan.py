"""The files of the spool as they are on the card: one by its path, or all of them, folder by folder."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trapsync.errors import StorageError
from trapsync.files import destination_mark, durable
from trapsync.image import Found, is_image_name, is_others_folder
from trapsync.spool.not_taken_in import Seen

log = logging.getLogger(__name__)

_MOST_REPORTS = 1000  # entries that are named in the log
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Reports:
    """Log what is left alone, and what cannot be read, once for each path, up to a number of paths."""

    def __init__(self, most: int = _MOST_REPORTS) -> None:
        self._most = most
        self._paths: set[str] = set()

    def left_alone(self, path: Path, mode: int) -> None:
        """Report a link or special file."""
        self.once(path, f"{str(path)!r} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}: it is left alone")

    def once(self, path: Path, text: str) -> None:
        """Report this path, if that was not done before."""
        if str(path) in self._paths or len(self._paths) >= self._most:
            return
        self._paths.add(str(path))
        log.warning("%s", text)
        if len(self._paths) == self._most:
            log.warning("further entries of the spool that are not taken in are not named in the log")


_reports = _Reports()


def stat_file(spool: Path, path: str) -> Found | None:
    """Look up one file of the spool: its size and date now; None if it is gone or no regular file.

    Links, named pipes, sockets and devices are other programs' business; they are reported once. Raises
    StorageError when the card does not tell.
    """
    try:
        status = (spool / path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(_explain(error, spool, path)) from error
    if stat.S_ISREG(status.st_mode):
        return found_as(path, status)
    if not stat.S_ISDIR(status.st_mode):
        _reports.left_alone(spool / path, status.st_mode)
    return None


def found_as(path: str, status: os.stat_result) -> Found:
    """A file with this status. Its date is bounded to what SQLite can hold: the years 1678 to 2262."""
    return Found(path, status.st_size, max(-(2**63), min(status.st_mtime_ns, 2**63 - 1)))


def scan(spool: Path, seen: Seen | None = None) -> Iterator[tuple[str, list[Found] | None]]:
    """List every visible folder of the spool with the files in it that may be images.

    Hidden folders, those of other systems (`@eaDir`, `$RECYCLE.BIN`) and links to folders are left alone, a folder
    that vanishes on the way is skipped. A folder that images are delivered to (it has their mark) is not entered: its
    copies are no new images. One that cannot be listed comes with None: what is in it, and below, is unknown. A file
    that cannot be looked up is left out. What is left alone or cannot be read is counted in `seen`. A spool that cannot
    be listed itself is a StorageError: it must not look empty.
    """
    seen = seen or Seen()
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            below, files = _list(spool, folder, seen)
        except StorageError as error:
            _count_unreadable(spool, folder, str(error), seen)
            yield folder, None
        except OSError as error:
            if not folder:
                raise StorageError(
                    f"{spool}: the spool cannot be listed; is it mounted? ({error.strerror})"
                ) from error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                _count_unreadable(spool, folder, _explain(error, spool, folder), seen)
                yield folder, None
        else:
            folders += below
            yield folder, files


def _count_unreadable(spool: Path, path: str, reason: str, seen: Seen) -> None:
    seen.unreadable.add(path, reason)
    _reports.once(spool / path, reason)


def _explain(error: OSError, spool: Path, path: str) -> str:
    """What keeps a file or folder of the spool from being read, and what to do."""
    if error.errno in {errno.EACCES, errno.EPERM}:
        return _no_permission(spool, path)
    return durable.explain(error, spool / path)


def why_unreadable(spool: Path, path: str) -> str | None:
    """Why this file cannot be read, as far as its permissions say that without opening it; None if it can."""
    if os.access(spool / path, os.R_OK) or not os.path.lexists(spool / path):
        return None
    reason = _no_permission(spool, path)
    _reports.once(spool / path, reason)
    return reason


def _no_permission(spool: Path, path: str) -> str:
    """What to say of what the daemon may not read: another account, root say, copied it there."""
    right = f"sudo chown -R --reference={spool} {spool} && sudo chmod -R u+rwX {spool}"
    return f"{spool / path}: no permission to read it; run: {right}"


def _list(spool: Path, folder: str, seen: Seen) -> tuple[list[str], list[Found]]:
    """The visible folders in a folder, and the files that may be images."""
    if folder and os.path.lexists(spool / folder / destination_mark.NAME):
        raise StorageError(
            f"{spool / folder}: images are delivered to this folder of the spool; move it out of there"
        )
    prefix = f"{folder}/" if folder else ""
    below, files = [], []
    with os.scandir(spool / folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not is_others_folder(entry.name):
                    below.append(path)
                elif not entry.name.startswith("."):
                    seen.left_alone.add_what(path, "folders of other systems")
            elif is_image_name(entry.name):
                files += _stat_listed(spool, path, entry, seen)
            elif not entry.name.startswith("."):
                _leave_alone(spool, path, entry, seen)
    return below, files


def _leave_alone(spool: Path, path: str, entry: os.DirEntry[str], seen: Seen) -> None:
    """Count a visible entry that is no image by its name, and no folder."""
    if entry.is_symlink():  # perhaps to a folder of images
        _reports.left_alone(spool / path, stat.S_IFLNK)
        seen.left_alone.add_what(path, "links")
    else:
        suffix = PurePosixPath(entry.name).suffix.lower()
        seen.left_alone.add_what(path, suffix or "without a suffix")


def _stat_listed(spool: Path, path: str, entry: os.DirEntry[str], seen: Seen) -> list[Found]:
    """Look up one file of a folder. An error costs this file, and not its folder."""
    try:
        found = stat_file(spool, path)
    except StorageError as error:
        _count_unreadable(spool, path, str(error), seen)
        return []
    if found is None and not entry.is_file(follow_symlinks=False):  # else it is gone by now
        seen.left_alone.add_what(path, "links or special files")
    return [found] if found else []
