"""A child process that ends with the one that started it, whatever ends that."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # prctl(2)


def _found() -> Callable[[int, int], object]:
    """The system's prctl. Where there is none, operators work and no trap: nothing is started there."""
    try:
        call: Callable[[int, int], object] = ctypes.CDLL(None).prctl
    except (OSError, AttributeError, TypeError):
        return lambda _option, _value: None
    return call


# Looked up beforehand, for between fork and exec a child does as little as it can.
_prctl = _found()


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; `parent` is the id of its process."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
