"""Whether the spool is the one of last time: a mark in it holds an id, and the state folder remembers which.

A spool can be a disk of its own, and a disk can fail to be mounted. The folder below the mount point looks like an
empty spool: pictures would be stored there, out of sight once the disk is back, and those on the disk would
be reported as lost. So nothing is stored, forgotten or removed while the spool lacks the mark that it had.
"""

import errno
import logging
import os
import re
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import durable, failpoint
from trapsync.files.folder import Folder, NotRegular
from trapsync.settings.schema import Storage

log = logging.getLogger(__name__)

MARK = ".trapsync-spool"
_REMEMBERED = "spool-id"  # its name in the state folder; the content is the same

_TEXT = "trapsync spool\nid = {}\n"
_ID = re.compile(rb"^id = ([0-9a-f]{32})$", re.MULTILINE)
_MAX_BYTES = 4096  # of a mark
# The last two stand for a link, and for a socket or a device without a driver.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
_DAMAGED = ""  # the id of a mark that is there and cannot be read


def problem(storage: Storage) -> str | None:
    """Why the spool must be left alone for now, in one line with what to do; None when it is that of last time."""
    known = remembered(storage)
    try:
        if not known or _marked(storage) in {known, _DAMAGED}:
            return None
    except OSError as error:
        return durable.explain(error, storage.spool / MARK)
    return (
        f"{storage.spool}: this is not the spool of last time: is its disk mounted? "
        "if it is meant, run: trapsync spool --accept"
    )


def check(storage: Storage) -> None:
    """Raise StorageError with that line, if there is one."""
    if text := problem(storage):
        raise StorageError(text)


def prepare(storage: Storage) -> None:
    """Check the spool, and mark and remember it as far as that is missing, so that it is known the next time.

    A mark that is there is adopted if the state folder was lost. A card that takes no file now does not keep the
    daemon from starting: then the next start does it.
    """
    check(storage)
    try:
        if not storage.spool.is_dir():
            return
        known, found = remembered(storage), _marked(storage)
        if not found:
            found = known or _new_id()
            _mark(storage, found)
        if found != known:
            _remember(storage, found)
    except (OSError, StorageError) as error:
        log.error("the spool is not marked as this trap's: %s", error)


def accept(storage: Storage) -> str:
    """Accept this as the spool from now on: remember its mark, or give it one. Returns its id."""
    try:
        if not storage.spool.is_dir():
            raise StorageError(f"{storage.spool}: there is no such folder; is its disk mounted?")
        found = _marked(storage)
    except OSError as error:
        raise StorageError(durable.explain(error, storage.spool / MARK)) from error
    if not found:
        found = _new_id()
        _mark(storage, found)
    _remember(storage, found)
    return found


def remembered(storage: Storage) -> str | None:
    """The id of the spool of last time; None when there was none, or it is unknown."""
    try:
        match = _ID.search(durable.read_plain(storage.state / _REMEMBERED, _MAX_BYTES))
    except OSError:  # to stop the trap would be worse
        return None
    return match[1].decode() if match else None


def read_for_check(storage: Storage) -> list[Path]:
    """The files outside the spool that a check reads."""
    return [storage.state / _REMEMBERED]


class SpoolWatch:
    """Check the spool while the daemon runs, and log once that it is another one, and once that it is back."""

    def __init__(self, storage: Storage, when_back: Callable[[], object]) -> None:
        self._storage = storage
        self._when_back = when_back
        self._lock = threading.Lock()
        self._problem: str | None = None

    def is_right(self) -> bool:
        """Check it now. Calls `when_back` if it is right again."""
        with self._lock:
            before, self._problem = self._problem, problem(self._storage)
            now = self._problem
        if now and now != before:
            log.error("%s; until then no image is taken, sent or removed", now)
        if before and not now:
            log.warning("%s: the spool of last time is back", self._storage.spool)
            self._when_back()
        return now is None


def _marked(storage: Storage) -> str | None:
    """The id that stands in the spool's mark; None without one, _DAMAGED for one that cannot be read."""
    return _read(storage.spool / MARK)


def _new_id() -> str:
    return os.urandom(16).hex()


def _mark(storage: Storage, spool_id: str) -> None:
    durable.write(storage.spool / MARK, [_TEXT.format(spool_id).encode()])
    failpoint.hit("spool: marked")


def _remember(storage: Storage, spool_id: str) -> None:
    """Remember the id; after the mark, never before it: killed in between, the mark is adopted."""
    durable.write(storage.state / _REMEMBERED, [_TEXT.format(spool_id).encode()])
    failpoint.hit("spool: remembered")


def _read(path: Path) -> str | None:
    """Read the id in a mark. No link is followed and no pipe waited for: anybody could have put one into the spool."""
    try:
        with Folder.open(path.parent) as folder, folder.file(path.name) as file:
            match = _ID.search(_beginning(file))
    except OSError as error:
        if isinstance(error, NotRegular) or error.errno in _ABSENT:
            return None
        raise
    return match[1].decode() if match else _DAMAGED


def _beginning(file: FileIO) -> bytes:
    """The first bytes of a file, as many as a mark has at most; none where the medium cannot be read."""
    try:
        return file.read(_MAX_BYTES)
    except OSError:
        return b""
