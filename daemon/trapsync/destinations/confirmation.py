"""What destinations hold today: asked again, written down, and withdrawn where it is not so any more.

A proof is about the place where a destination is now, and about bytes that are there now. Whoever meets an answer
that contradicts one (a pruning, a verification, a question in passing) takes it back here, at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trapsync.clock import Clock
from trapsync.destinations import Destination, Receipt
from trapsync.errors import NotThere, Refused, Unauthorised, Unreachable
from trapsync.image import Image
from trapsync.net import backoff

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

_OLD_WORD = 7 * 86400.0  # seconds after which a destination is asked again about what is on the card
_BETWEEN_SLICES = 3600.0  # seconds between two slices of that
_MOST_UNSURE = 8  # slices of which it could say nothing, in one hour


def settle_place(catalog: Catalog, destination: Destination) -> str:
    """Let the catalog know which place a destination is now, and say it.

    Raises Unreachable where only the place can tell.
    """
    place = destination.place()
    if catalog.settle_place(destination.name, place):
        log.warning(
            "%s is another place than before (%s): what is on the card is pending there, unless it has it",
            destination.name,
            place,
        )
    return place


def require_place(catalog: Catalog, destination: Destination, place: str) -> None:
    """Unreachable when a destination is another place than this by now: what was answered is not about that one.

    The stick was changed meanwhile, or a command was run with another address in the config file.
    """
    if not catalog.is_place(destination.name, place):
        raise Unreachable(f"it was found to be another place than {place} meanwhile: it is asked again")


def settle_places(catalog: Catalog, destinations: Sequence[Destination]) -> None:
    """The same for several; one that is out of reach stays the place that it was."""
    for destination in destinations:
        with suppress(Unreachable):
            settle_place(catalog, destination)


def back_off(catalog: Catalog, destination: Destination, trouble: Unreachable) -> None:
    """It could not be reached: leave it alone for a while, which the catalog remembers."""
    settings = destination.settings
    attempts = catalog.attempts(destination.name) + 1
    wait = backoff.wait(
        attempts, first=settings.retry_first, longest=settings.retry_longest, least=trouble.wait
    )
    is_barred = isinstance(trouble, Unauthorised)
    catalog.destination_failed(destination.name, str(trouble), wait, is_barred=is_barred)
    log.warning("%s: %s; next attempt in %.0f s", destination.name, trouble, wait)


def one_by_one(
    ask: Callable[[Sequence[Image]], Mapping[int, Receipt | Exception]], images: Sequence[Image]
) -> dict[int, Receipt | Exception]:
    """The answers of a destination; an image with which it cannot even be asked costs itself, as its answer.

    Raises Unreachable.
    """
    try:
        return dict(ask(images))
    except Unreachable:
        raise
    except Exception as error:
        if len(images) == 1:
            return {images[0].id: error}
    # Which of them it is, only asking one by one can tell.
    answers: dict[int, Receipt | Exception] = {}
    for image in images:
        answers |= one_by_one(ask, [image])
    return answers


def proof(image: Image, receipt: Receipt) -> tuple[int, str, Mapping[str, Any], str, bool]:
    """A receipt as the catalog takes it (see `catalog.rows.Proof`)."""
    return image.id, receipt.digest, receipt.detail, receipt.at, receipt.noted


@dataclass(slots=True)
class Asked:
    """What a destination said when it was asked again: how many it confirmed, and what is wrong, by image.

    Of the `unsure` ones it said neither: their proof stands as it was.
    """

    confirmed: int = 0
    unsure: list[Image] = field(default_factory=list)
    absent: list[tuple[Image, str]] = field(default_factory=list)
    refused: list[tuple[Image, str]] = field(default_factory=list)

    @property
    def withdrawn(self) -> int:
        """How many proofs were found to be wrong."""
        return len(self.absent) + len(self.refused)


def ask_again(
    catalog: Catalog, destination: Destination, images: Sequence[Image], *, by_bytes: bool = False
) -> Asked:
    """Ask a destination about images that it confirmed once, and write down what it says: a proof that is
    found to be wrong is withdrawn before this returns. Raises Unreachable.

    A destination that turns out to be another place than before has said nothing about them.
    """
    place = destination.place()
    if catalog.settle_place(destination.name, place):
        return Asked()
    at = catalog.lies_at(destination.name, [image.id for image in images])
    answers = one_by_one(lambda some: destination.confirm(some, at, by_bytes=by_bytes), images)
    asked, proofs = Asked(), []
    for image in images:
        match answers.get(image.id):
            case None:
                asked.absent.append((image, "it is not there any more"))
            case NotThere() as reason:
                asked.absent.append((image, str(reason)))
            case Receipt() as receipt:
                proofs.append(proof(image, receipt))
            case Refused() as reason:
                asked.refused.append((image, str(reason)))
            case doubt:  # it says nothing against the proof, and nothing for it
                asked.unsure.append(image)
                log.warning("%s could not say whether it has %s: %s", destination.name, image.name, doubt)
    asked.confirmed = len(proofs)
    with catalog.together():
        require_place(catalog, destination, place)
        catalog.confirm(destination.name, proofs)
        catalog.withdraw_proofs(
            destination.name,
            {image.id: reason for image, reason in asked.absent},
            {image.id: reason for image, reason in asked.refused},
        )
    if asked.withdrawn:
        log.error(
            "%s does not have %d images any more that it confirmed once, %s among them: their proof is withdrawn",
            destination.name,
            asked.withdrawn,
            [*asked.absent, *asked.refused][0][0].name,
        )
    return asked


def ask_a_slice(
    catalog: Catalog, destination: Destination, clock: Clock, progress: Callable[[], object] = lambda: None
) -> int:
    """Ask a destination again about some of what it confirmed long ago; how many proofs were wrong.

    A slice an hour, of what was not confirmed for a week: so that a server which lost images is noticed before
    anybody asks. If it lost some, it is asked about all at once. Raises Unreachable.
    """
    if not destination.keeps:
        return 0
    name, limit = destination.name, destination.confirm_batch
    images = catalog.to_ask_again(name, limit, older_than=_OLD_WORD, rest=_BETWEEN_SLICES)
    began, withdrawn, told_nothing = clock.wall(), 0, 0
    unsure: set[int] = set()
    while images:
        progress()
        catalog.note_asked(name)
        asked = ask_again(catalog, destination, images)
        withdrawn += asked.withdrawn
        unsure |= {image.id for image in asked.unsure}
        # Of which it cannot say, those come first each time: they must not keep it from being asked about others.
        is_told_nothing = len(asked.unsure) == len(images)
        told_nothing += is_told_nothing
        if not asked.withdrawn and not (is_told_nothing and told_nothing < _MOST_UNSURE):
            break
        older_than = clock.wall() - began if withdrawn else _OLD_WORD
        images = catalog.to_ask_again(name, limit, older_than=older_than, but=unsure)
    return withdrawn
