"""The work that is repeated: find files, deliver, prune, ask again, check the catalog. Each is safe to end at any point."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from trapsync import pipeline
from trapsync.catalog import Catalog
from trapsync.clock import Clock
from trapsync.destinations import Destination, confirmation
from trapsync.destinations.outcomes import Turn
from trapsync.errors import Unreachable, is_refusal
from trapsync.remote import resend
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.runtime import catalog_check
from trapsync.runtime.context import Context
from trapsync.runtime.upload_pool import UploadPool

log = logging.getLogger(__name__)

# The names under which they report.
DELIVER, PRUNE, ASK_AGAIN, CHECK = "deliver:", "prune", "ask again", "check catalog"


class Jobs:
    """The jobs of one trap.

    `go_on` is called along the way with the job's name, and the seconds that it may now be silent beyond the usual;
    what it raises ends the job. `pause` waits so many seconds, or raises.
    """

    def __init__(
        self,
        context: Context,
        destinations: Sequence[Destination],
        go_on: Callable[[str, float], object],
        pause: Callable[[float], object],
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        """`settle` is called when a sweep finds nothing new: all that there is, is in the catalog."""
        self._settle = settle
        self._context = context
        self._settings = context.settings
        self._catalog = context.catalog
        self._clock = context.clock
        self._inbox = context.inbox
        self._destinations = destinations
        self._go_on = go_on
        self._pause = pause

    def sweep(self) -> None:
        """Offer every file of the spool that the catalog does not know to the inbox."""
        seen = pipeline.sweep(self._catalog, self._settings.storage, self._inbox.put)
        self._context.tell_not_taken_in("sweep", seen.tallies())
        if not seen.offered:
            self._settle()

    def prune(self) -> None:
        """Free space on the card."""
        settings = self._settings
        removed = pipeline.prune(
            *(self._catalog, settings.storage, settings.prune, self._clock, self._destinations),
            soon=self._next_hour(),
            progress=partial(self._go_on, PRUNE, 0.0),
        )
        if removed:
            log.info("pruned: %d, safe at their destinations", removed)

    def _next_hour(self) -> int:
        """Return how many bytes of pictures the next hour will bring, at the present rate."""
        if self._settings.camera.kind == "none":
            return 0
        return int(3600 / self._settings.capture.every * self._catalog.images.mean_size())

    def ask_again(self, remote: RemoteSettings) -> bool:
        """Ask destinations about what the operator asked for, and about a slice of what they confirmed long ago.

        Returns whether the operator's request has made images pending.
        """
        progress, is_more = partial(self._go_on, ASK_AGAIN, 0.0), False
        if self._settings.remote.enabled:
            remote.note_time()
            is_more = resend.answer_request(remote, self._catalog, self._destinations, progress)
        for destination in self._destinations:
            if not self._catalog.deliveries.may_go(destination.name):
                continue
            try:
                confirmation.ask_about_some(self._catalog, destination, self._clock, progress)
            except Unreachable as trouble:  # the next turn of deliveries says so
                log.info("%s cannot be asked again now: %s", destination.name, trouble)
            except Exception as error:  # a bug, loud; but the other destinations need not wait for it
                if is_refusal(error):
                    raise
                log.exception("asking %s again failed", destination.name)
                self._context.tell("bug", f"asking {destination.name} again failed; see the log")
        return is_more

    def check_catalog(self) -> None:
        """Check the catalog in full, which takes a while; cut short, it is due again the next time."""
        progress = partial(self._go_on, CHECK, 0.0)
        catalog_check.check(self._catalog, self._settings.storage.catalog, progress)

    def deliver(self, destination: Destination) -> float | None:
        """Deliver what is due to one destination, unless it is to be left alone for now.

        Returns the seconds until something that waits may be tried again; None if nothing waits.
        """
        if not self._catalog.deliveries.may_go(destination.name):
            return self._catalog.deliveries.next_attempt(destination.name)
        progress = partial(self._go_on, f"{DELIVER}{destination.name}")
        spool = self._settings.storage.spool
        turn = take_turn(self._catalog, destination, spool, self._clock, progress, self._pause)
        if turn.bugs:
            self._context.tell("bug", f"delivering to {destination.name} failed unexpectedly; see the log")
        if turn.delivered:
            log.info("delivered to %s: %d", destination.name, turn.delivered)
        return self._catalog.deliveries.next_attempt(destination.name)


def take_turn(
    catalog: Catalog,
    destination: Destination,
    spool: Path,
    clock: Clock,
    progress: Callable[[float], object],
    pause: Callable[[float], object],
) -> Turn:
    """Deliver what is due to one destination, and wait for its uploads when an error ends that.

    `progress` as in `pipeline.deliver`; `pause` waits so many seconds, or raises.
    """
    uploads = UploadPool(destination.settings, clock)
    try:
        return pipeline.deliver(catalog, destination, spool, clock, uploads, progress)
    finally:  # else the next turn would begin beside the uploads of this one
        uploads.drain(pause)
