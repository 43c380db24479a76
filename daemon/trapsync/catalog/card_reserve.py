"""A few megabytes kept back on the card, so that the catalog can go on when everything else is full.

Other programs may fill a card to its last byte. Then the reserve is given up, and what it held is enough
for the marks of many thousand deliveries, which are what frees the card in the end.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import durable, failpoint

SIZE = 8 * 10**6
_FULL = 2 * 10**6  # bytes free: nearly nothing


class Reserve:
    """The file that takes up the room. Made again when there is plenty."""

    def __init__(self, state: Path) -> None:
        self._path = state / "reserve"

    def give_up(self) -> bool:
        """Give it up if the card is full; True if that was done now."""
        with suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < _FULL and self._path.exists():
                self._path.unlink()
                failpoint.hit("reserve: given up")
                return True
        return False

    def tend(self) -> bool:
        """Give the reserve up if the card is full, make it if there is room; True if it was given up now.

        StorageError when the state folder is no longer there.
        """
        if self.give_up():
            return True
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            raise StorageError(durable.explain(error, self._path.parent)) from error
        if free > 4 * SIZE and not self._is_whole():
            with suppress(OSError), os.fdopen(self._opened(), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE)
                failpoint.hit("reserve: made")
        return False

    def _opened(self) -> int:
        return durable.open_plain(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def _is_whole(self) -> bool:
        """Whether it holds what it should: killed while it was made, it is there and empty."""
        return self._path.exists() and self._path.stat().st_size >= SIZE
