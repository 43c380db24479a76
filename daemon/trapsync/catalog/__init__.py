"""The catalog: the SQLite record of every image, and every query in the program.

The folder is the truth: whatever is lost here is found again by the sweep and by asking the destinations. Each part
has the queries of one subject; what follows from what for an image is in `states`, and SQLite is behind `connection`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from trapsync.catalog.connection import Connection
from trapsync.catalog.counts import Counts
from trapsync.catalog.deliveries import Deliveries
from trapsync.catalog.deployments import Deployments
from trapsync.catalog.facts import FactTable
from trapsync.catalog.images import Images
from trapsync.catalog.labels import Labels
from trapsync.catalog.notes import Notes
from trapsync.catalog.places import Places
from trapsync.catalog.proofs import Proofs
from trapsync.catalog.quarantine import Quarantine
from trapsync.catalog.reports import Reports
from trapsync.catalog.runs import Runs
from trapsync.catalog.times import Times
from trapsync.clock import Clock


class Catalog:
    """The catalog, open. Safe to use from several threads; one process writes.

    - `images`: images and their files, as they are taken in and as they leave the card
    - `deliveries`: what is pending at each destination, and what came of sending it
    - `proofs`: what destinations confirmed, and what may leave the card for it
    - `places`: the destinations of the settings, and the places that they are
    - `times`: boots, and the images whose time they hold up
    - `deployments`: where the trap stood, from when until when
    - `reports`: what the hub holds of that which it is to be told once
    - `runs`: runs of the daemon, and captures that failed
    - `quarantine`, `labels`, `notes` (of destinations), `facts` (for `status`), `counts`
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.images = Images(connection)
        self.deliveries = Deliveries(connection)
        self.proofs = Proofs(connection)
        self.places = Places(connection)
        self.times = Times(connection)
        self.deployments = Deployments(connection)
        self.runs = Runs(connection)
        self.quarantine = Quarantine(connection)
        self.labels = Labels(connection)
        self.notes = Notes(connection)
        self.facts = FactTable(connection)
        self.counts = Counts(connection)
        self.reports = Reports(connection)

    @classmethod
    def open(cls, path: Path, clock: Clock, *, beside: bool = False) -> Self:
        """Open the catalog for writing; make or migrate it. `beside` a daemon: see `Connection.open`.

        Raises CatalogDamaged and CatalogError.
        """
        return cls(Connection.open(path, clock, beside=beside))

    @classmethod
    def open_to_read(cls, path: Path, clock: Clock) -> Self:
        """Open the catalog for reading only, beside a daemon or without one. Close it soon. Raises CatalogError."""
        return cls(Connection.open_to_read(path, clock))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Put several writes, of any part, into one commit, since a card is slow at flushes."""
        with self.connection.together():
            yield

    def close(self) -> None:
        """Close it, in order if it was open for writing."""
        self.connection.close()
