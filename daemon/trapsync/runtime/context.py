"""What the threads of the running daemon share."""

import logging
import threading
from dataclasses import dataclass

from trapsync.catalog import Catalog, facts
from trapsync.clock import Clock
from trapsync.errors import CatalogError
from trapsync.runtime.liveness import Liveness
from trapsync.settings.schema import Settings
from trapsync.spool.inbox import Inbox

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

    def tell(self, fact: facts.Name, value: object) -> None:
        """Note a fact for `status`. A catalog that refuses must not cost a picture or a delivery."""
        try:
            self.catalog.facts.set(fact, value)
        except CatalogError as error:
            log.error("%s", error)
