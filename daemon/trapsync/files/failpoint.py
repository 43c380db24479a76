"""Places where tests kill the program on purpose.

Whatever is done to the card, the catalog, or a destination has a name, and passes it to `hit` just before or
after: `hit("write: renamed")`. Armed through the environment, the process kills itself there as a power cut
would (SIGKILL: no cleaning up)::

    TRAPSYNC_FAILPOINT="write: renamed#3" trapsync run     dies at the third hit, in the process that gets there

Otherwise `hit` does nothing, which takes some thirty nanoseconds. `tests/test_failpoints.py` kills at each
name, and fails when something durable has none.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "TRAPSYNC_FAILPOINT"


def _pass(name: str) -> None:
    """Do nothing: not armed."""


class _Armed:
    """Kill the process at the n-th hit of one name; each process counts for itself."""

    def __init__(self, order: str) -> None:
        self._name, _, number = order.rpartition("#")
        self._left = int(number)

    def __call__(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


hit: Callable[[str], None] = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _pass
