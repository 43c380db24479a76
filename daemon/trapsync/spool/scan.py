"""The files of the spool as they are on the card: one by its path, or all of them, folder by folder."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import destination_mark, durable
from trapsync.image import Found, is_image_name, is_others_folder

log = logging.getLogger(__name__)

_MOST_REPORTS = 1000  # links and special files that are named in the log
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Reports:
    """Log each link and special file once, up to a number of paths."""

    def __init__(self, most: int = _MOST_REPORTS) -> None:
        self._most = most
        self._paths: set[str] = set()

    def left_alone(self, path: Path, mode: int) -> None:
        """Report a link or special file."""
        if str(path) in self._paths or len(self._paths) >= self._most:
            return
        self._paths.add(str(path))
        log.warning("%r is %s: it is left alone", str(path), _KINDS.get(stat.S_IFMT(mode), "no file"))
        if len(self._paths) == self._most:
            log.warning("further links and special files in the spool are left alone without being named")


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
        raise StorageError(durable.explain(error, spool / path)) from error
    if stat.S_ISREG(status.st_mode):
        return found_as(path, status)
    if not stat.S_ISDIR(status.st_mode):
        _reports.left_alone(spool / path, status.st_mode)
    return None


def found_as(path: str, status: os.stat_result) -> Found:
    """A file with this status. Its date is bounded to what SQLite can hold: the years 1678 to 2262."""
    return Found(path, status.st_size, max(-(2**63), min(status.st_mtime_ns, 2**63 - 1)))


def scan(spool: Path) -> Iterator[tuple[str, list[Found] | None]]:
    """List every visible folder of the spool with the files in it that may be images.

    Hidden folders, those of other systems (`@eaDir`, `$RECYCLE.BIN`) and links to folders are left alone, a folder
    that vanishes on the way is skipped. A folder that images are delivered to (it has their mark) is not entered: its
    copies are no new images. One that cannot be listed comes with None: what is in it, and below, is unknown. A file
    that cannot be looked up is left out, and logged. A spool that cannot be listed itself is a StorageError: it must
    not look empty.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            below, files = _list(spool, folder)
        except StorageError as error:
            log.warning("%s", error)
            yield folder, None
        except OSError as error:
            if not folder:
                raise StorageError(
                    f"{spool}: the spool cannot be listed; is it mounted? ({error.strerror})"
                ) from error
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                log.warning("%s", durable.explain(error, spool / folder))
                yield folder, None
        else:
            folders += below
            yield folder, files


def _list(spool: Path, folder: str) -> tuple[list[str], list[Found]]:
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
            elif is_image_name(entry.name):
                files += _stat_listed(spool, path)
            elif entry.is_symlink() and not entry.name.startswith("."):  # perhaps to a folder of images
                _reports.left_alone(spool / path, stat.S_IFLNK)
    return below, files


def _stat_listed(spool: Path, path: str) -> list[Found]:
    """Look up one file of a folder. An error costs this file, and not its folder."""
    try:
        found = stat_file(spool, path)
    except StorageError as error:
        log.warning("%s", error)
        return []
    return [found] if found else []
