"""What the threads of the running daemon share."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from trapsync.catalog import Catalog, facts
from trapsync.clock import Clock
from trapsync.errors import CatalogError
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Settings
from trapsync.spool.inbox import Inbox
from trapsync.spool.not_taken_in import NotTakenIn, Tally

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What every thread of the daemon uses. `stop` is set once, when all of them are to end."""

    settings: Settings
    device: str
    clock: Clock
    catalog: Catalog
    inbox: Inbox
    liveness: Liveness
    stop: threading.Event
    live: facts.LiveFacts = field(init=False)
    not_taken_in: NotTakenIn = field(init=False, default_factory=NotTakenIn)

    def __post_init__(self) -> None:
        object.__setattr__(self, "live", facts.LiveFacts(self.settings.storage.state))

    def tell_not_taken_in(self, source: str, tallies: Mapping[facts.Kind, Tally]) -> None:
        """Note for `status` what a source (a sweep, the ingest thread) finds that is not taken in, all of it."""
        self.tell("not_taken_in", self.not_taken_in.told(source, tallies, self.clock.wall()) or None)

    def tell(self, fact: facts.Name, value: object) -> None:
        """Note a fact for `status`. A catalog that refuses must not cost a picture or a delivery."""
        self.live.set(fact, value)
        if fact == "bug" and value:  # or a catalog whose rows are not as they were written
            self.catalog.connection.doubt()
        try:
            self.catalog.facts.set(fact, value)
        except CatalogError as error:
            log.error("%s", error)
