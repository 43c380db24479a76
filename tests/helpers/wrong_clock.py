"""`python tests/helpers/wrong_clock.py ...`: trapsync on a machine whose clock is not the world's.

In the folder $CLOCK stands by how many seconds it is wrong (`wrong_by`), and once `set` is there, it is
synchronised: that stands where timesyncd's own file does. The children are spawned, and come by here too.
"""

import os
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import apscheduler.executors.base
import apscheduler.schedulers.base

from trapsync import clock
from trapsync.cli import main
from trapsync.runtime import scheduler

FOLDER = Path(os.environ["CLOCK"])
# Opened now, as the camera's process opens no file later that is not its own.
_wrong_by = (FOLDER / "wrong_by").open("rb", buffering=0)
_right_wall = clock.SystemClock.wall


def wrong_by() -> float:
    """Seconds that the wall clock is ahead of the world's."""
    return float(os.pread(_wrong_by.fileno(), 64, 0))


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + timedelta(seconds=wrong_by())


def _wall(self: clock.SystemClock) -> float:
    return _right_wall(self) + wrong_by()


clock._SYNCHRONISED = FOLDER / "set"
clock._kernel_synchronised = lambda: False
clock.SystemClock.wall = _wall  # type: ignore[method-assign]
for module in (apscheduler.executors.base, apscheduler.schedulers.base, scheduler):
    vars(module)["datetime"] = _Datetime

if __name__ == "__main__":
    main()
