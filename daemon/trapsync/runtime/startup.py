"""What the daemon and a single run do before anything else: the lock, the folders, the catalog, the destinations."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trapsync.catalog import Catalog, stop_marks
from trapsync.catalog.runs import Schedule
from trapsync.clock import Clock
from trapsync.destinations import Checked, Destination
from trapsync.errors import StorageError, TrapsyncError
from trapsync.files import durable
from trapsync.runtime.destination_context import connect_all, registered
from trapsync.settings.schema import Settings, Storage
from trapsync.spool import new_files, pruning, spool_mark
from trapsync.trap import Occupied, lock, open_catalog, place

log = logging.getLogger(__name__)

_FOR_THE_LOCK = 5.0  # seconds to wait for a command that holds it
_POLL = 0.1  # seconds


def take_lock(stack: ExitStack, state: Path, clock: Clock, wait: Callable[[float], object]) -> None:
    """Take the trap's lock until the end of `stack`; a command that holds it may end in a moment.

    After a reload that matters most: the old daemon is gone already.
    """
    until, is_said = clock.monotonic() + _FOR_THE_LOCK, False
    while True:
        try:
            stack.enter_context(lock(state))
            return
        except Occupied as error:
            if clock.monotonic() >= until:
                raise
            if not is_said:
                log.warning("%s; waiting a moment for it", error)
                is_said = True
        wait(_POLL)


@contextmanager
def doubting(catalog: Path) -> Iterator[None]:
    """Have the next start check the catalog first if this one ends by a bug: damage may be behind it, at each start anew."""
    try:
        yield
    except TrapsyncError:
        raise
    except Exception:
        stop_marks.mark_doubt(catalog)
        raise


def prepare_folders(storage: Storage, *, has_spool: bool) -> None:
    """Make the folders that are missing; the spool only with `has_spool`, else it is another one than last time."""
    folders = [storage.state, storage.thumbnails, *([storage.spool] if has_spool else [])]
    for folder in folders:
        try:
            durable.make_folder(folder)
        except OSError as error:
            raise StorageError(durable.explain(error, folder)) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(f"{folder}: no permission; let the daemon's user write there")
    if has_spool:
        spool_mark.prepare(storage)


def open_trap(
    settings: Settings,
    checked: Sequence[Checked],
    device: str,
    clock: Clock,
    pause: Callable[[float], None],
    *,
    has_spool: bool,
    is_single_run: bool,
) -> tuple[Catalog, list[Destination]]:
    """Make the folders, open the catalog, connect the destinations, and clear up after captures that were killed."""
    prepare_folders(settings.storage, has_spool=has_spool)
    catalog = open_catalog(settings, clock)
    catalog.facts.set("bug", None)
    catalog.facts.set("jobs", None)
    catalog.facts.set("single_runs", is_single_run or None)
    destinations = connect_all(settings, checked, catalog, clock, pause)
    with catalog.together():
        catalog.places.register(registered(destinations))
        catalog.runs.begin(schedule_of(settings), is_single=is_single_run)
    if has_spool and not settings.prune.enabled:
        pruning.unmark_all(catalog, settings.storage.spool)
    new_files.remove_unfinished(settings.storage.spool, device)
    return catalog, destinations


def schedule_of(settings: Settings) -> Schedule | None:
    """When pictures are due by these settings; None without a camera."""
    if settings.camera.kind == "none":
        return None
    at, capture = place(settings), settings.capture
    return Schedule(capture.every, capture.schedule, at.latitude, at.longitude, str(at.timezone))
