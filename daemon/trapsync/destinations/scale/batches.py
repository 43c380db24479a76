"""A batch for each night: made when its first image comes, submitted when its last one has.

A batch's name says whose night it holds, so that it is found again by asking. Scale works on a batch only
once it is finalised, and a batch that is takes no more tasks: images that come later go to a second one of
the same night. What is noted is only which batches are not submitted yet, and for which night.
"""

import logging
import threading
from datetime import date, datetime

from trapsync.destinations import DestinationContext
from trapsync.destinations.nights import Night, night_of
from trapsync.destinations.scale.wire import Wire
from trapsync.errors import Unauthorised, Unreachable, one_line
from trapsync.files import failpoint

log = logging.getLogger(__name__)

_NOTE = "batch:"
_STAGED = "staging"
# Nobody is late so often; a server that finds them all taken makes no sense.
_MOST = 100
# How long to leave a batch alone that was not taken.
_AGAIN = 6 * 3600.0


class Batches:
    """The batches of one trap in one project."""

    def __init__(self, wire: Wire, prefix: str, context: DestinationContext) -> None:
        self._wire = wire
        self._prefix = prefix
        self._context = context
        self._lock = threading.Lock()
        self._left_alone: dict[str, float] = {}

    def of(self, taken: datetime) -> str:
        """The name of the batch that an image of this moment goes to; it is made if need be."""
        night = night_of(taken, self._context.zone)
        with self._lock:
            noted: str | None = self._context.note(self._key(night))
            if noted:
                return noted
            name = self._open(night)
            self._context.put_note(self._key(night), name)
            return name

    def is_open(self, taken: datetime, name: str) -> bool:
        """Whether a batch still takes tasks; if not, it was submitted or removed elsewhere."""
        batch = self._wire.batch(name)
        if batch and batch.get("status") == _STAGED:
            return True
        key = self._key(night_of(taken, self._context.zone))
        with self._lock:
            if self._context.note(key) == name:
                self._context.forget_note(key)
        return False

    def submit(self) -> bool:
        """Finalise the batches of all nights that are complete; whether anything was asked.

        A night is complete when its noon is past, by a clock that can be trusted, and none of its images
        is still to come.
        """
        if not self._context.clock.trusted():
            return False
        return sum(map(self._submit, self._context.note_keys(_NOTE))) > 0

    def _submit(self, key: str) -> bool:
        night = Night(date.fromisoformat(key.removeprefix(_NOTE).partition(" ")[0]), self._context.zone)
        name, now = self._context.note(key), self._context.clock.monotonic()
        if self._context.clock.wall() < night.until or self._left_alone.get(name, now) > now:
            return False
        if self._context.pending_between(night.since, night.until):
            return False
        if self._wire.finalise(name):
            failpoint.hit("scale: batch submitted")
            log.info("batch %s is complete and submitted", name)
        elif (batch := self._wire.batch(name)) and batch.get("status") == _STAGED:
            log.warning("Scale does not take the batch %s; it is tried again in some hours", name)
            self._left_alone[name] = now + _AGAIN
            return True
        self._context.forget_note(key)
        return True

    def _key(self, night: Night) -> str:
        """With the prefix: one who changes it, or the project, changes to other batches."""
        return f"{_NOTE}{night} {self._prefix}"

    def _open(self, night: Night) -> str:
        """A batch of this night that takes tasks: the first that is staged, or a new one."""
        for number in range(1, _MOST):
            name = f"{self._prefix} {self._context.device} {night}" + (f"-{number}" if number > 1 else "")
            batch = self._wire.batch(name) or self._wire.create_batch(name) or self._wire.batch(name)
            failpoint.hit("scale: batch made")
            if batch is None or batch.get("name") != name:
                raise Unreachable(f"Scale answered without confirming the batch {name!r}")
            if batch.get("project") != self._wire.project:
                theirs = one_line(batch.get("project"), 60)
                raise Unauthorised(
                    f"the batch {name!r} is of another project ({theirs!r}); "
                    f"give this destination a `prefix` of its own"
                )
            if batch.get("status") == _STAGED:
                return name
        raise Unreachable(f"Scale has {_MOST} batches for the night of {night}, and none takes tasks")
