"""What may leave the card, after its destinations were asked once more, and how it goes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trapsync.destinations import Destination
from trapsync.destinations.confirmation import ask_again, back_off, settle_place
from trapsync.errors import StorageError, Unauthorised, Unreachable
from trapsync.files import failpoint
from trapsync.image import Found, Image, place_of
from trapsync.jpeg.examination import thumbnail_paths
from trapsync.settings.schema import Storage
from trapsync.spool.scan import stat_file

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

_HANDFUL = 16  # images that are marked in one commit


class Choice:
    """One look for images that may go: which of them, after their destinations were asked.

    `unasked` are the servers whose last word counts; `troubles` says of others why they could not be asked.
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
            self._look_where_it_is(destination)

    def _look_where_it_is(self, destination: Destination) -> None:
        """What was confirmed within the day was so by the place of then: nothing counts for another one."""
        try:
            settle_place(self._catalog, destination)
        except Unreachable as trouble:
            self._to_ask.remove(destination)
            self._is_blocked |= not self._excuse(destination, trouble)

    def next_images(self) -> list[Image]:
        """A handful that may go; their destinations are asked as long as there is none. Empty: no more."""
        if self._is_blocked:
            return []
        while not (images := self._prunable()):
            if not self._ask():
                return []
        return images

    def _prunable(self) -> list[Image]:
        return self._catalog.prunable(
            self._older_than, _HANDFUL, self._excused | self.unasked, self._trusted, self.stuck
        )

    def _ask(self) -> bool:
        """Ask each destination about the oldest that it has not confirmed today; False: there is nothing to ask."""
        has_asked = False
        for destination in list(self._to_ask):
            images = self._catalog.unconfirmed(
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
                has_asked |= self._excuse(destination, trouble)
                self._to_ask.remove(destination)
        return has_asked

    def _may_ask(self, destination: Destination) -> bool:
        """Where capture would stop otherwise, one that is left alone for now is asked too, unless it bars us."""
        name = destination.name
        return self._catalog.may_go(name) or (self._is_urgent and not self._catalog.is_barred(name))

    def _excuse(self, destination: Destination, trouble: Unreachable) -> bool:
        """It cannot be asked now: whether its last word counts all the same."""
        if destination.while_away == "last re-reading":  # away on purpose, unmounted when it was done
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


def tell_unasked(catalog: Catalog, troubles: Mapping[str, str]) -> None:
    """Let `status` know why delivered images stay on a card that should have more room, and the log once."""
    from trapsync.catalog import facts

    before = facts.read(catalog).unpruned
    for name, trouble in troubles.items():
        if not before or name not in before:
            log.warning("nothing is pruned, because %s cannot be asked: %s", name, trouble)
    facts.note(catalog, "unpruned", dict(troubles) or None)


@dataclass(slots=True)
class Removed:
    """What became of the files that were to go: how many went, the bytes that freed, and which did not go."""

    removed: int = 0
    freed: int = 0
    stuck: list[str] = field(default_factory=list)


def take_back_marks(catalog: Catalog, spool: Path) -> None:
    """What was marked as pruned by proofs that do not count any more, stays: if it is still there.

    What a kill left half done may be: the mark is there, and the file is not. Then it left the card by the proofs
    of then, and stays delivered, or is lost.
    """
    there: list[str] = []
    gone: list[str] = []
    for found in catalog.withdrawn_marks():
        (there if stat_file(spool, found.path) == found else gone).append(found.path)
    if there:
        catalog.unmark_pruned(there)
    if gone:
        catalog.forget_pruned(gone)


def remove_leaving(catalog: Catalog, storage: Storage, *, only_corrected: bool = False) -> Removed:
    """Remove the files that are marked, if they still are the bytes that were proven, or corrected.

    With `only_corrected`, none that a pruning has marked: that finishes its own work, when it has looked again which
    places its destinations are. One that cannot be removed keeps no other back, and its mark is taken back: its
    image is on the card.
    """
    take_back_marks(catalog, storage.spool)
    result, gone, reason = Removed(), [], ""
    for found in catalog.leaving_files(only_corrected=only_corrected):
        try:
            result.freed += _remove(storage, found)
        except (OSError, StorageError) as error:
            result.stuck.append(found.path)
            reason = reason or f"{found.path}: {error}"
        else:
            gone.append(found.path)
    if gone:
        catalog.forget_pruned(gone)
    if result.stuck:
        catalog.unmark_pruned(result.stuck)
    result.removed = len(gone)
    if result.stuck or gone:
        _tell_stuck(catalog, len(result.stuck), reason)
    return result


def _remove(storage: Storage, found: Found) -> int:
    """Remove one file if it is what was looked at, and its small copies; the bytes that this freed."""
    path, freed = storage.spool / found.path, 0
    if stat_file(storage.spool, found.path) == found:
        status = path.lstat()
        path.unlink(missing_ok=True)
        failpoint.hit("prune: removed")
        freed = found.size if status.st_nlink == 1 else 0
        log.debug("removed %s: it is safe", found.path)
        for thumbnail in thumbnail_paths(storage.thumbnails, place_of(found.path)):
            thumbnail.unlink(missing_ok=True)
            failpoint.hit("prune: small copy removed")
    return freed


def _tell_stuck(catalog: Catalog, count: int, reason: str) -> None:
    """Let `status` know of files that cannot be removed, and the log once."""
    from trapsync.catalog import facts

    before = facts.read(catalog).stuck
    if count and (before is None or before.error != reason):
        log.error("%d delivered images cannot be removed from the card: %s", count, reason)
    facts.note(catalog, "stuck", facts.Stopped(count, reason) if count else None)
