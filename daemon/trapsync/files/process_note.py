"""A note that a running process leaves for others of its account, in shared memory: it needs no card.

On a card that turned read-only nothing can be written into the catalog any more, and that is what `status` has to say.
"""

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from trapsync.files import durable, mounts

_MOST = 64 * 1024  # bytes of a note that are read


class ProcessNote:
    """The note of this process about one folder. Any thread may write it.

    What a process that was killed leaves counts as nobody's: its number stands in it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = _path(folder)
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def write(self, content: bytes) -> None:
        """Replace what it says. Nothing is raised: where the system gives no memory for it, there is no note."""
        content = b"%d\n%b" % (os.getpid(), content)
        with self._lock, suppress(OSError):
            if self._descriptor is None:
                self._descriptor = durable.open_plain(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))

    def close(self) -> None:
        """Take it away."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                with suppress(OSError):
                    self._path.unlink()


def read(process: int, folder: Path) -> bytes:
    """What the note of another process about this folder says; empty if it has none, or is another account's."""
    with suppress(OSError):
        if _path(folder).lstat().st_uid == os.geteuid():
            writer, _, content = durable.read_plain(_path(folder), _MOST).partition(b"\n")
            if writer == b"%d" % process:
                return content
    return b""


def _path(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return mounts.SHARED_MEMORY / f"trapsync-{name}"
