"""What an examiner is at its start. It imports this, and what it examines with: no settings, nothing of the daemon's."""

import os

from trapsync.errors import StorageError
from trapsync.files import mounts
from trapsync.jpeg import examination
from trapsync.runtime.child_process import become_child
from trapsync.runtime.restricted import Rights, restrict

# Bytes of address space that one file may take; an image of 12 megapixels was seen to take 51 MB of memory.
MAX_MEMORY = 512 * 10**6


class NoExaminer(StorageError):
    """No worker can be started, which is about no file."""


def set_up() -> None:
    """Have the libraries of examiners that this process starts take few threads and little memory."""
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    os.environ.setdefault("VIPS_CONCURRENCY", "1")


def become_examiner(memory: int, rights: Rights) -> None:
    """Make this process an examiner, which may take so many bytes of address space for a file, and has these rights only."""
    become_child()
    examination.prepare(memory)
    restrict(rights)


def why_none(error: BaseException) -> str:
    """Why no examiner can be started, and what to do."""
    if text := mounts.no_shared_memory():
        return text
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"no file can be examined: no process can be started for it ({str(cause) or repr(cause)})"
