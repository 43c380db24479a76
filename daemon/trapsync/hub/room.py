"""The floor of free space: below it a hub stores no picture, heartbeat or annotation, and says so (507)."""

import errno
import sqlite3
from pathlib import Path

from trapsync.clock import Clock
from trapsync.errors import StorageError
from trapsync.files import space

_TELL_EVERY = 60.0  # seconds
_FULL = {errno.ENOSPC, errno.EDQUOT}


class NoRoom(StorageError):
    """There is less free space than the hub is to leave."""


class Room:
    """How much room there is in one hub's folder."""

    def __init__(self, folder: Path, min_free: int, clock: Clock) -> None:
        self._folder = folder
        self._min_free = min_free
        self._clock = clock
        self._told = float("-inf")

    def require(self, more: int = 0) -> None:
        """Raise NoRoom below the floor, or where so many bytes more would lead there."""
        free = space.free_bytes(self._folder)
        if free - more < self._min_free:
            raise NoRoom(
                f"this hub has {free / 1e6:.0f} MB of room left, and is to leave {self._min_free / 1e6:.0f} MB free: "
                "nothing more is stored"
            )

    def is_worth_telling(self) -> bool:
        """Whether the log is to have it: once a minute, for each trap tries again and again."""
        now = self._clock.monotonic()
        if now - self._told < _TELL_EVERY:
            return False
        self._told = now
        return True


def is_full(error: BaseException | None) -> bool:
    """Whether an error means that the disk, or the database's share of it, is full."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, NoRoom) or (isinstance(error, StorageError) and is_full(error.__cause__))
