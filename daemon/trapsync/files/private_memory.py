"""The memory of a process that holds secrets is its own."""

import ctypes
from contextlib import suppress

_SET_DUMPABLE = 4  # PR_SET_DUMPABLE, prctl(2)


def keep_memory_private() -> None:
    """Leave no core dump, and close this process's memory, environment and descriptors to other processes of the account.

    Root still sees them. It passes on to a fork, and not to another program. Where a system has nothing of the kind,
    nothing happens.
    """
    with suppress(ImportError, OSError, ValueError):  # Windows, where operators work, has none of it
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
