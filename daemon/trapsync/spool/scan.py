"""Look at files of the spool, and walk through its folders: this finds every file.

Also remembered here: files that cannot be judged yet, since they are still being written or their examiner was killed.
"""

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import destination_mark, durable
from trapsync.image import Found, is_image_name

log = logging.getLogger(__name__)

_MOST_REPORTS = 1000  # links and special files that are named in the log
_MOST_IN_DOUBT = 10_000  # files that are remembered until they can be judged; as many as the inbox holds
_LONG_AGO = (
    3600.0  # seconds: a file in doubt that nobody asked about for so long is gone, or judged elsewhere
)
# Seconds to wait after an examiner was killed, each time longer; killed once more, the file is to blame.
_PAUSES = (60.0, 600.0)
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Reports:
    """What is left alone is named in the log once, however often it is met; so many paths, then no more."""

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


def look(spool: Path, path: str) -> Found | None:
    """One file of the spool as it is now; None if it is gone, or no regular file. Else StorageError.

    Links, named pipes, sockets and devices are other programs' business; they are reported once.
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


def walk(spool: Path) -> Iterator[tuple[str, list[Found] | None]]:
    """Every visible folder of the spool with the files in it that may be images.

    Hidden folders and links to folders are left alone, a folder that vanishes on the way is skipped. A folder
    that images are delivered to (it has their mark) is not gone into: its copies are no new images. One that
    cannot be listed comes with None: what is in it, and below, is not known, which is not nothing. A
    file that cannot be looked at is left out, and told. A spool that cannot be listed itself is a
    StorageError, for it must not look like an empty one.
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
                if not entry.name.startswith("."):
                    below.append(path)
            elif is_image_name(entry.name):
                files += _look_at_one(spool, path)
            elif entry.is_symlink() and not entry.name.startswith("."):  # perhaps to a folder of images
                _reports.left_alone(spool / path, stat.S_IFLNK)
    return below, files


def _look_at_one(spool: Path, path: str) -> list[Found]:
    """One of many: what the card does not show now costs this file, and not its folder."""
    try:
        found = look(spool, path)
    except StorageError as error:
        log.warning("%s", error)
        return []
    return [found] if found else []


@dataclass(slots=True)
class _Doubt:
    """A file that cannot be judged yet; the times are seconds of the monotonic clock."""

    found: Found
    since: float  # when it was first seen as it is
    asked: float  # when it was last asked about
    kills: int = 0  # how often its examiner was killed
    killed: float = 0.0  # when that was, the last time


class Patience:
    """Remembers files that cannot be judged yet, as long as they stay as they are.

    Unfinished ones, to tell one that is still being written from one that was cut off; and those whose
    examiner was killed, to tell a file that is to blame from a machine that is. `now` is in seconds of the
    monotonic clock.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._doubts: dict[str, _Doubt] = {}

    def is_over(self, found: Found, now: float) -> bool:
        """Whether this unfinished file has not changed for `settle` seconds."""
        doubt = self._doubt(found, now)
        return now - doubt.since >= self._settle

    def is_suspect(self, found: Found) -> bool:
        """Whether an examiner was killed at this very file."""
        doubt = self._doubts.get(found.path)
        return doubt is not None and doubt.found == found and doubt.kills > 0

    def is_paused(self, found: Found, now: float) -> bool:
        """Whether its examiner was killed only just, so that it is not to be examined yet."""
        if not self.is_suspect(found):
            return False
        doubt = self._doubt(found, now)
        return now - doubt.killed < _PAUSES[doubt.kills - 1]

    def is_to_blame(self, found: Found, now: float) -> bool:
        """The examiner of this file was killed; whether that was once too often, after all pauses."""
        doubt = self._doubt(found, now)
        doubt.kills += 1
        doubt.killed = now
        return doubt.kills > len(_PAUSES)

    def forget(self, path: str) -> None:
        """The file is judged, or gone."""
        self._doubts.pop(path, None)

    def _doubt(self, found: Found, now: float) -> _Doubt:
        """What is remembered of this file. If there is no room, it is not remembered, and begins anew."""
        doubt = self._doubts.get(found.path)
        if doubt is None or doubt.found != found:
            doubt = _Doubt(found, now, now)
            if found.path in self._doubts or self._has_room(now):
                self._doubts[found.path] = doubt
        doubt.asked = now
        return doubt

    def _has_room(self, now: float) -> bool:
        if len(self._doubts) >= _MOST_IN_DOUBT:
            kept = {path: one for path, one in self._doubts.items() if now - one.asked < _LONG_AGO}
            self._doubts = kept
        return len(self._doubts) < _MOST_IN_DOUBT
