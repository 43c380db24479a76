"""Places where the program can be killed on purpose: a device of the tests, and of nobody else.

Whatever is done to the card, the catalog, or a destination has a name here, and says it just before or
after: `hit("write: renamed")`. Armed through the environment, and only so, the process kills itself there
as a power cut would (SIGKILL: no cleaning up, no last word)::

    TRAPSYNC_FAILPOINT="write: renamed#3" trapsync run     dies at the third hit, in the process that gets there

Otherwise `hit` does nothing, which takes some thirty nanoseconds. `tests/test_failpoints.py` kills at each
name, and fails when something durable has none.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "TRAPSYNC_FAILPOINT"


def _pass(name: str) -> None:
    """Not armed."""


class _Armed:
    """Dies at the n-th hit of one name; counted in each process by itself."""

    def __init__(self, order: str) -> None:
        self._name, _, number = order.rpartition("#")
        self._left = int(number)

    def __call__(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


hit: Callable[[str], None] = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else _pass
