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
_MOST = 4096  # bytes that are read of a mark
# The last two stand for a link, and for a socket or a device without a driver.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
_DAMAGED = ""  # the id of a mark that is there and cannot be read: whose disk it is, nothing else says


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
    """StorageError with that line, if there is one."""
    if text := problem(storage):
        raise StorageError(text)


def prepare(storage: Storage) -> None:
    """Check the spool, and see to it that it is known the next time; what that lacks is made.

    On first use that is the mark and what is remembered of it. A mark that is there is adopted where the state
    folder was lost. A card that takes no file now is no reason not to begin: then the next start does it.
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
    """The owner says that this is the spool from here on: remember its mark, or give it one; its id."""
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
    """The id of the spool of last time; None when there was none, or nobody knows any more."""
    try:
        return _read(storage.state / _REMEMBERED) or None
    except OSError:  # to go on without it is the lesser evil
        return None


class SpoolWatch:
    """The spool as the running daemon sees it: that it is another one is said once, and once that it is back."""

    def __init__(self, storage: Storage, when_back: Callable[[], object]) -> None:
        self._storage = storage
        self._when_back = when_back
        self._lock = threading.Lock()
        self._problem: str | None = None

    def is_right(self) -> bool:
        """Look at it now. `when_back` is called by whoever finds it right again."""
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
    """After the mark, never before it: killed in between, the mark is adopted."""
    durable.write(storage.state / _REMEMBERED, [_TEXT.format(spool_id).encode()])
    failpoint.hit("spool: remembered")


def _read(path: Path) -> str | None:
    """The id in a mark. No link is followed, and nothing waited for: whoever writes into the spool could lay one there."""
    try:
        with Folder.open(path.parent) as folder, folder.file(path.name) as file:
            match = _ID.search(_beginning(file))
    except OSError as error:
        if isinstance(error, NotRegular) or error.errno in _ABSENT:
            return None
        raise
    return match[1].decode() if match else _DAMAGED


def _beginning(file: FileIO) -> bytes:
    """As much of a file as a mark has at most; nothing where the medium does not give it back."""
    try:
        return file.read(_MOST)
    except OSError:
        return b""
