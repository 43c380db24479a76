"""What a person's command does in the daemon's place, or asks the running daemon to do."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trapsync import pipeline, trap
from trapsync.catalog import Catalog
from trapsync.catalog.deployments import Deployment
from trapsync.clock import Clock
from trapsync.destinations import Destination
from trapsync.destinations.outcomes import Turn
from trapsync.hardware.device_id import device_id
from trapsync.remote.in_force import InForce
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.runtime import clock_correction
from trapsync.runtime.destination_context import check_all, connect_all, registered, require
from trapsync.runtime.examiners import Examiners
from trapsync.runtime.jobs import take_turn
from trapsync.settings.deployment import terms
from trapsync.settings.schema import Settings
from trapsync.spool import spool_mark
from trapsync.spool.inbox import Inbox
from trapsync.spool.not_taken_in import NotTakenIn, Seen
from trapsync.spool.undecided import UndecidedFiles


@dataclass(frozen=True, slots=True)
class Bench:
    """An opened trap: the catalog and the destinations that were asked for."""

    settings: Settings
    catalog: Catalog
    destinations: list[Destination]
    clock: Clock
    sleep: Callable[[float], None]


@contextmanager
def opened(
    settings: Settings, source: Path, clock: Clock, sleep: Callable[[float], None], only: str | None = None
) -> Iterator[Bench]:
    """Open the catalog and connect destinations (all, or the one named); for writing beside a daemon too.

    Each write is a short transaction of its own, so a command and the daemon do not get in each other's way.
    StorageError when the spool is another one than last time.
    """
    spool_mark.check(settings.storage)
    require(settings, source, only)
    checked = check_all(settings, source)
    catalog = trap.open_catalog(settings, clock)
    connected = connect_all(settings, checked, catalog, clock, sleep)
    destinations = [one for one in connected if only in (None, one.name)]
    spool_mark.prepare(settings.storage)
    try:
        yield Bench(settings, catalog, destinations, clock, sleep)
    finally:
        for destination in destinations:
            destination.close()
        catalog.close()


def deliver(bench: Bench, progress: Callable[[int], None], only: str | None = None) -> dict[str, Turn]:
    """Without a daemon: find and examine what is new, then one turn to each destination, or the one named.

    The caller holds the trap's lock. `progress` gets the number of images still pending for all of them.
    """
    bench.catalog.places.register(registered(bench.destinations))
    ingest(bench)
    return {
        destination.name: take_turn(
            *(bench.catalog, destination, bench.settings.storage.spool, bench.clock),
            lambda _silence: progress(pending(bench.catalog)),
            bench.sleep,
        )
        for destination in bench.destinations
        if only in (None, destination.name)
    }


def ingest(bench: Bench) -> None:
    """Sweep the spool, examine what the catalog does not know, and put right what times can be."""
    storage = bench.settings.storage
    inbox = Inbox(bench.clock)
    examiners = Examiners(bench.settings.ingest, storage)
    undecided, failures = (
        UndecidedFiles(bench.settings.ingest.stable_after),
        clock_correction.Failures(bench.clock),
    )
    try:
        seen = pipeline.sweep(bench.catalog, storage, inbox.put)
        found = seen.offered
        while paths := inbox.take():
            pipeline.ingest(bench.catalog, storage, paths, examiners.examine, undecided, bench.clock)
            if inbox.is_empty() and inbox.overflowed():  # the rest of a long backlog, as long as it shrinks
                before, found = found, pipeline.sweep(bench.catalog, storage, inbox.put).offered
                if found >= before:
                    break
        while clock_correction.correct_times(
            bench.catalog, storage, bench.settings.trap, examiners.rewrite, failures
        ):
            pass
        _tell_not_taken_in(bench, seen, undecided)
    finally:
        examiners.close()


def _tell_not_taken_in(bench: Bench, seen: Seen, undecided: UndecidedFiles) -> None:
    """Note for `status` what was found in the spool and is not taken in."""
    found, now = NotTakenIn(), bench.clock.wall()
    found.remember(bench.catalog.facts.read().not_taken_in)
    found.told("sweep", seen.tallies(), now)
    bench.catalog.facts.set("not_taken_in", found.told("ingest", undecided.tallies(), now) or None)


def start_deployment(found: InForce, clock: Clock, at: float | None) -> Deployment:
    """Begin a deployment by a person's word, beside a daemon too. Raises CatalogError for a moment that cannot be."""
    settings = RemoteSettings(found.files, clock).previous() if found.is_trial else found.settings
    with closing(trap.open_catalog(found.settings, clock)) as catalog:
        catalog.times.note_boot()
        return catalog.deployments.start(device_id(settings.trap), terms(settings), at)


def end_deployment(found: InForce, clock: Clock, at: float | None) -> Deployment:
    """End the deployment that is under way, as above."""
    with closing(trap.open_catalog(found.settings, clock)) as catalog:
        catalog.times.note_boot()
        return catalog.deployments.end(device_id(found.settings.trap), at)


def pending(catalog: Catalog) -> int:
    """How many deliveries are pending, to all destinations together."""
    return sum(int(row["pending"]) for row in catalog.counts.destinations())


def wake_daemon(process: int) -> None:
    """Ask the running daemon to deliver now (SIGUSR1); StorageError if that is no daemon of this trap's."""
    trap.tell_daemon(process, signal.SIGUSR1)
