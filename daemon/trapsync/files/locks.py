"""Locks between processes: on a file, and gone with the process that holds them, however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trapsync.files import durable


@contextmanager
def locked(path: Path, flags: int = os.O_RDONLY, *, wait: bool = True, mode: int = 0o666) -> Iterator[int]:
    """Hold the lock of a plain file, which is made if it is missing; yields its descriptor, opened as `flags` say.

    Raises OSError; without `wait` a BlockingIOError when another process holds it.
    """
    import fcntl  # not on Windows, where operator commands run and nothing is locked

    descriptor = durable.open_plain(path, flags | os.O_CREAT, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)
