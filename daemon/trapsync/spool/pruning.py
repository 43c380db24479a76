"""Choose images that may leave the card, after asking their destinations once more, and remove their files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trapsync.destinations import Destination
from trapsync.destinations.confirmation import ask_again, back_off, record_place
from trapsync.errors import StorageError, Unauthorised, Unreachable
from trapsync.files import durable, failpoint
from trapsync.image import Found, Image, place_of
from trapsync.jpeg.examination import thumbnail_paths
from trapsync.settings.schema import Storage
from trapsync.spool.scan import stat_file

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

_BATCH = 16  # images that are marked in one commit


class Candidates:
    """The images that may leave the card now; their destinations are asked as far as that is needed.

    `unasked` are the servers whose last confirmation counts, `troubles` says of others why they could not be asked.
    """

    def __init__(
        self, catalog: Catalog, destinations: Sequence[Destination], older_than: float, is_urgent: bool
    ) -> None:
        self._catalog = catalog
        self._older_than = older_than
        self._is_urgent = is_urgent
        self._to_ask = [one for one in destinations if one.settings.required and one.keeps]
        self._is_blocked = False
        self.troubles: dict[str, str] = {}
        # What keeps images for a while only is not asked again: its receipt counts.
        self._trusted = [one.name for one in destinations if not one.keeps]
        self._excused: set[str] = set()
        self.unasked: set[str] = set()
        self.stuck: set[int] = set()
        self._unsure: set[int] = set()
        for destination in list(self._to_ask):
            self._record_place(destination)

    def _record_place(self, destination: Destination) -> None:
        """Let no confirmation of another place count, though it is from today."""
        try:
            record_place(self._catalog, destination)
        except Unreachable as trouble:
            self._to_ask.remove(destination)
            self._is_blocked |= not self._counts_unasked(destination, trouble)

    def next_images(self) -> list[Image]:
        """The next batch that may go; destinations are asked as long as there is none. Empty: there are no more."""
        if self._is_blocked:
            return []
        while not (images := self._prunable()):
            if not self._ask():
                return []
        return images

    def _prunable(self) -> list[Image]:
        return self._catalog.proofs.prunable(
            self._older_than, _BATCH, self._excused | self.unasked, self._trusted, self.stuck
        )

    def _ask(self) -> bool:
        """Ask each destination about the oldest images that it has not confirmed today; False if there is nothing to ask."""
        has_asked = False
        for destination in list(self._to_ask):
            images = self._catalog.proofs.unconfirmed(
                destination.name, self._older_than, destination.confirm_batch, self._unsure
            )
            if not images:
                continue
            if not self._may_ask(destination):
                self._note(destination, "it could not be reached, and is left alone for now")
                continue
            try:
                asked = ask_again(self._catalog, destination, images)
                self._unsure |= {image.id for image in asked.unsure}
                has_asked = True
            except Unreachable as trouble:
                back_off(self._catalog, destination, trouble)
                has_asked |= self._counts_unasked(destination, trouble)
                self._to_ask.remove(destination)
        return has_asked

    def _may_ask(self, destination: Destination) -> bool:
        """Whether a destination may be asked now: before capture would stop also one that waits, unless it bars us."""
        name = destination.name
        return self._catalog.deliveries.may_go(name) or (
            self._is_urgent and not self._catalog.deliveries.is_barred(name)
        )

    def _counts_unasked(self, destination: Destination, trouble: Unreachable) -> bool:
        """Whether the last confirmation of a destination that cannot be asked now counts all the same."""
        if destination.while_away == "last re-reading":  # removed on purpose, unmounted when it was done
            self._excused.add(destination.name)
            return True
        is_away = destination.while_away == "last confirmation" and not isinstance(trouble, Unauthorised)
        if self._is_urgent and is_away:
            self.unasked.add(destination.name)
            return True
        self._note(destination, str(trouble))
        return False

    def _note(self, destination: Destination, trouble: str) -> None:
        self.troubles.setdefault(destination.name, trouble)


def report_unasked(catalog: Catalog, troubles: Mapping[str, str]) -> None:
    """Report to `status`, and to the log once, why delivered images stay on a card that should have more room."""

    before = catalog.facts.read().unpruned
    for name, trouble in troubles.items():
        if not before or name not in before:
            log.warning("nothing is pruned, because %s cannot be asked: %s", name, trouble)
    catalog.facts.set("unpruned", dict(troubles) or None)


@dataclass(slots=True)
class Removed:
    """What became of marked files: how many were removed, the bytes that freed, and which could not be removed."""

    removed: int = 0
    freed: int = 0
    stuck: list[str] = field(default_factory=list)


def unmark_withdrawn(catalog: Catalog, spool: Path) -> None:
    """Take back marks that were made by proofs which were withdrawn since, as far as the files are still there.

    After a kill the file may be gone already: then it was removed by the proofs of that time, and its image
    stays delivered, or is lost.
    """
    _take_back(catalog, spool, catalog.proofs.withdrawn_marks())


def unmark_all(catalog: Catalog, spool: Path) -> None:
    """Take back every mark that a kill has left: pruning is switched off now, and who finished it would never come."""
    corrected = set(catalog.images.leaving_files(only_corrected=True))
    marked = [found for found in catalog.images.leaving_files() if found not in corrected]
    _take_back(catalog, spool, marked)


def _take_back(catalog: Catalog, spool: Path, marked: Iterable[Found]) -> None:
    there: list[str] = []
    gone: list[str] = []
    for found in marked:
        try:
            (there if stat_file(spool, found.path) == found else gone).append(found.path)
        except StorageError as error:  # whether it is there, the card does not tell now: its mark waits
            log.error("%s", error)
    if there:
        catalog.proofs.unmark_pruned(there)
    if gone:
        catalog.images.forget_pruned(gone)


def remove_marked(catalog: Catalog, storage: Storage, *, only_corrected: bool = False) -> Removed:
    """Remove the marked files that still are the bytes that were proven, or corrected.

    With `only_corrected` none that a pruning has marked: pruning finishes its own work, after it has checked again
    which places its destinations are. One that cannot be removed delays no other, and its mark is taken
    back: its image is on the card.
    """
    unmark_withdrawn(catalog, storage.spool)
    result, gone, reason = Removed(), [], ""
    for found in catalog.images.leaving_files(only_corrected=only_corrected):
        try:
            result.freed += _remove(storage, found)
        except (OSError, StorageError) as error:
            result.stuck.append(found.path)
            reason = reason or f"{found.path}: {error}"
        else:
            gone.append(found.path)
    if gone:
        catalog.images.forget_pruned(gone)
    if result.stuck:
        catalog.proofs.unmark_pruned(result.stuck)
    result.removed = len(gone)
    if result.stuck or gone:
        _report_stuck(catalog, len(result.stuck), reason)
    return result


def _remove(storage: Storage, found: Found) -> int:
    """Remove one file, if it has not changed, and its small copies; the bytes that this freed."""
    path, freed = storage.spool / found.path, 0
    if stat_file(storage.spool, found.path) == found:
        status = path.lstat()
        path.unlink(missing_ok=True)
        failpoint.hit("prune: removed")
        freed = found.size if status.st_nlink == 1 else 0
        log.debug("removed %s, which is delivered", found.path)
        for thumbnail in thumbnail_paths(storage.thumbnails, place_of(found.path)):
            with _staying(thumbnail):
                thumbnail.unlink(missing_ok=True)
            failpoint.hit("prune: small copy removed")
    return freed


@contextmanager
def _staying(thumbnail: Path) -> Iterator[None]:
    """Log that a small copy cannot be removed: it stays, but its image is gone, and counts as that."""
    try:
        yield
    except OSError as error:
        log.warning("a small copy stays on the card: %s", durable.explain(error, thumbnail))


def _report_stuck(catalog: Catalog, count: int, reason: str) -> None:
    """Report files that cannot be removed to `status`, and to the log once."""
    from trapsync.catalog import facts

    before = catalog.facts.read().stuck
    if count and (before is None or before.error != reason):
        log.error("%d delivered images cannot be removed from the card: %s", count, reason)
    catalog.facts.set("stuck", facts.Stopped(count, reason) if count else None)
