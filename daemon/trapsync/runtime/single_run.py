"""The daemon on an errand: one picture, what is due to be delivered, and an end by itself.

For a trap that a timer powers up for each picture and cuts off again (Sticky Pi's own does): everything
is as in the running daemon, but it ends as soon as there is nothing more to do, or at its deadline. What
is owed by then stays owed, as after a power cut.
"""

import logging
import math

from trapsync.catalog import Catalog
from trapsync.clock import Clock
from trapsync.destinations import Destination
from trapsync.remote.in_force import InForce
from trapsync.runtime.capture_thread import Wanted
from trapsync.runtime.service import Service

log = logging.getLogger(__name__)

ALL_HOME, OWED, NO_PICTURE = 0, 1, 2
_TRIES = 3
_BREATH = 5.0  # seconds between two tries of a camera that fails


class Errand(Service):
    """The daemon for one picture. `outcome` says how it went, once `run` has returned."""

    _is_errand = True

    def __init__(self, found: InForce, deadline: float) -> None:
        """`deadline` is in seconds from now. SettingsError as for the daemon."""
        super().__init__(found)
        self._calm_after = math.inf  # its end is not to be waited for longer than it takes
        self._wanted = Wanted(1, tries=_TRIES, within=_BREATH)
        self.outcome = NO_PICTURE
        self._over_at = self._clock.monotonic() + deadline
        self._has_delivered = False

    def _start(self) -> None:
        self._due = due_destinations(self._catalog, self._destinations, self._clock)
        self._tried = frozenset(self._due)
        if self.settings.camera.kind == "none":
            self._capturing.give_up()
        self._home.call_now()  # there is no later
        super()._start()

    def _judge(self, overdue: list[str]) -> None:
        """Settings on trial are judged once it is over."""
        if self._is_over():
            self._afar.judge_errand(overdue, self._tried)
            self._stop.set()

    def _begin_again(self) -> None:
        """Settings that came, or came back, are for the next errand: this one has a picture to bring home."""

    def _end(self) -> None:
        self.outcome = self._judged()
        super()._end()

    def _is_over(self) -> bool:
        if self._clock.monotonic() >= self._over_at:
            log.warning("the time for it is over; what is left is done the next time")
            return True
        if not self._spool.is_right():  # nothing can be taken or sent, but the hub is told
            return not self._board.awaits("home")
        if self._capturing.left and not self._capturing.is_time():
            self._capturing.give_up()  # but what waits may go
        if self._capturing.left or not self._ingesting.is_idle():
            return False
        if not self._has_delivered:
            self._has_delivered = True
            self._timetable.run_now("deliver")
            return False
        if self._board.awaits("home"):
            return False
        return not any(self._is_busy(destination) for destination in self._destinations)

    def _is_busy(self, destination: Destination) -> bool:
        """Whether a turn is under way, or there is something that could go now."""
        name, settings = destination.name, destination.settings
        if name not in self._due:
            return False
        return self._board.awaits(f"deliver:{name}") or (
            self._catalog.may_go(name)
            and bool(self._catalog.due(name, settings.order, 1, after=settings.after))
        )

    def _judged(self) -> int:
        if self._capturing.failed or self._capturing.left:
            return NO_PICTURE
        return OWED if self._catalog.ledger().owed or not self._spool.is_right() else ALL_HOME

    def _deliver(self, destination: Destination) -> None:
        if destination.name not in self._due:
            return
        super()._deliver(destination)
        if self._catalog.attempts(destination.name):  # out of reach: the power is not to burn for another try
            self._due.discard(destination.name)


def due_destinations(catalog: Catalog, destinations: list[Destination], clock: Clock) -> set[str]:
    """Those whose `every` has passed since they were last tried; by the wall clock, for each boot is short.

    A clock that went back is no reason to wait for it to catch up.
    """
    tried = {
        row["name"]: max(row["delivered_at"] or 0.0, row["error_at"] or 0.0) for row in catalog.destinations()
    }
    return {
        one.name
        for one in destinations
        if not 0 <= clock.wall() - tried.get(one.name, 0.0) < 0.9 * one.settings.every
    }
