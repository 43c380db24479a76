"""A note that a running process leaves for others, in memory: it needs no card, and ends with the process.

On a card that turned read-only nothing can be written into the catalog any more, and that is what `status` has to say.
"""

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

_MOST = 64 * 1024  # bytes of a note that are read


class ProcessNote:
    """The note of this process about one folder. Any thread may write it."""

    def __init__(self, folder: Path) -> None:
        self._name = _name(folder)
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def write(self, content: bytes) -> None:
        """Replace what it says. Nothing is raised: where the system gives no memory for it, there is no note."""
        with self._lock, suppress(OSError):
            if self._descriptor is None:
                self._descriptor = os.memfd_create(self._name)
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))

    def close(self) -> None:
        """Take it away."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def read(process: int, folder: Path) -> bytes:
    """What the note of another process about this folder says; empty if it has none, or is another account's."""
    wanted = f"/memfd:{_name(folder)} "
    with suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()).startswith(wanted):
                    with entry.open("rb") as file:
                        return file.read(_MOST)
    return b""


def _name(folder: Path) -> str:
    return f"trapsync-{hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]}"
