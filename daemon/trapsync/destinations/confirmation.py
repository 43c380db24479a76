"""Ask destinations again what they hold, record their answers, and withdraw proofs that are wrong.

A proof is about the place where a destination is now, and about bytes that are there now. An answer that contradicts
one (met by pruning, by a verification, by the regular question) withdraws it here, at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from trapsync.clock import Clock
from trapsync.destinations import Destination, Receipt
from trapsync.errors import (
    DeliveryError,
    NotThere,
    Refused,
    Unauthorised,
    Unreachable,
    is_refusal,
    unexpected,
)
from trapsync.image import Image
from trapsync.net import backoff

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Done = TypeVar("Done")

_STALE_AFTER = 7 * 86400.0  # seconds after which a destination is asked again about what is on the card
_INTERVAL = 3600.0  # seconds between two such questions
_ALL_FAIL = 3  # images: if asking fails for so many, and for each, none of them is to blame
_MAX_UNSURE = 8  # questions in a row to which it could say nothing, until the next interval


def record_place(catalog: Catalog, destination: Destination) -> str:
    """Record in the catalog which place a destination is now, and return it. Raises Unreachable if it must be asked."""
    place = destination.place()
    if catalog.places.settle_place(destination.name, place):
        log.warning(
            "%s is another place than before (%s): what is on the card is pending there, unless it has it",
            destination.name,
            place,
        )
    return place


def require_place(catalog: Catalog, destination: Destination, place: str) -> None:
    """Raise Unreachable if a destination is another place by now, so that its answers were not about that one.

    A stick may have been changed, or a command run with another address in the config file.
    """
    if not catalog.places.is_place(destination.name, place):
        raise Unreachable(f"it was found to be another place than {place} meanwhile: it is asked again")


def record_places(catalog: Catalog, destinations: Sequence[Destination]) -> None:
    """Record the places of several destinations; one that is unreachable stays the place that it was."""
    for destination in destinations:
        with suppress(Unreachable):
            record_place(catalog, destination)


def back_off(catalog: Catalog, destination: Destination, trouble: Unreachable) -> None:
    """Record that a destination could not be reached, and leave it alone for a while."""
    settings = destination.settings
    attempts = catalog.deliveries.attempts(destination.name) + 1
    wait = backoff.wait(
        attempts, first=settings.retry_initial, longest=settings.retry_max, least=trouble.wait
    )
    is_barred = isinstance(trouble, Unauthorised)
    catalog.deliveries.destination_failed(destination.name, str(trouble), wait, is_barred=is_barred)
    log.warning("%s: %s; next attempt in %.0f s", destination.name, trouble, wait)


def ask_for_each(
    ask: Callable[[Sequence[Image]], Mapping[int, Receipt | Exception]], images: Sequence[Image]
) -> dict[int, Receipt | Exception]:
    """Ask about all images at once; where that fails, about each, so that the error is the answer for that image alone.

    Raises Unreachable, also where our own program fails at each of them.
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
        answers |= ask_for_each(ask, [image])
    # If it fails for every one, it is no image's fault: none is to be given up for it.
    failed = [
        one for one in answers.values() if isinstance(one, Exception) and not isinstance(one, DeliveryError)
    ]
    if len(failed) == len(images) >= _ALL_FAIL:
        log.error("asking about %d images failed for each", len(images), exc_info=failed[0])
        raise Unreachable(f"it cannot be asked: {unexpected(failed[0])}")
    return answers


def proof(image: Image, receipt: Receipt) -> tuple[int, str, Mapping[str, Any], str, bool]:
    """Turn a receipt into the row that the catalog takes (`catalog.rows.Proof`)."""
    return image.id, receipt.digest, receipt.detail, receipt.at, receipt.noted


@dataclass(slots=True)
class Asked:
    """The answers of a destination that was asked again: how many images it confirmed, and which are wrong.

    About the `unsure` ones it could not tell: their proof stays as it was.
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
    """Ask a destination again about images that it confirmed, and record its answers. Raises Unreachable.

    A proof that is found to be wrong is withdrawn before this returns. A destination that turns out to be
    another place than before has said nothing about them.
    """
    place = destination.place()
    if catalog.places.settle_place(destination.name, place):
        return Asked()
    at = catalog.proofs.lies_at(destination.name, [image.id for image in images])
    answers = ask_for_each(lambda some: destination.confirm(some, at, by_bytes=by_bytes), images)

    def unrecorded(image: Image, error: Exception) -> Asked:
        """An answer that cannot be recorded proves nothing: the image is asked for again."""
        log.error("%s: the answer about %r cannot be recorded", destination.name, image.path, exc_info=error)
        return Asked(unsure=[image])

    asked = Asked()
    record = partial(_record, catalog, destination, place, answers)
    for some in all_or_each(record, images, unrecorded):
        asked.confirmed += some.confirmed
        asked.unsure += some.unsure
        asked.absent += some.absent
        asked.refused += some.refused
    if asked.withdrawn:
        log.error(
            "%s no longer has %d images that it had confirmed, %s among them: their proof is withdrawn",
            destination.name,
            asked.withdrawn,
            [*asked.absent, *asked.refused][0][0].name,
        )
    return asked


def all_or_each(
    record: Callable[[Sequence[Item]], Done], items: Sequence[Item], failed: Callable[[Item, Exception], Done]
) -> Iterator[Done]:
    """Record all of these at once; where one of them cannot be recorded, each by itself. What each recording did.

    What `failed` returns stands for an item that cannot be recorded. What the card, the catalog or
    the other side refuses is about no item in particular, and is raised.
    """
    try:
        done = record(items)
    except Exception as error:
        if is_refusal(error):
            raise
    else:
        yield done
        return
    for item in items:
        try:
            done = record([item])
        except Exception as error:
            if is_refusal(error):
                raise
            done = failed(item, error)
        yield done


def _record(
    catalog: Catalog,
    destination: Destination,
    place: str,
    answers: Mapping[int, Receipt | Exception],
    images: Sequence[Image],
) -> Asked:
    """Record the answers about these images in one commit."""
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
        catalog.proofs.confirm(destination.name, proofs)
        catalog.proofs.withdraw_proofs(
            destination.name,
            {image.id: reason for image, reason in asked.absent},
            {image.id: reason for image, reason in asked.refused},
        )
    return asked


def ask_about_some(
    catalog: Catalog, destination: Destination, clock: Clock, progress: Callable[[], object] = lambda: None
) -> int:
    """Ask a destination again about some of what it confirmed long ago; how many proofs were wrong.

    Once an hour, about some that were not confirmed for a week, so that a server which lost images is noticed.
    If it lost some, it is asked about all at once. Raises Unreachable.
    """
    if not destination.keeps:
        return 0
    name, limit = destination.name, destination.confirm_batch
    images = catalog.proofs.to_ask_again(name, limit, older_than=_STALE_AFTER, rest=_INTERVAL)
    began, withdrawn, unsure_answers = clock.wall(), 0, 0
    unsure: set[int] = set()
    while images:
        progress()
        catalog.proofs.note_asked(name)
        asked = ask_again(catalog, destination, images)
        withdrawn += asked.withdrawn
        unsure |= {image.id for image in asked.unsure}
        # Those of which it cannot tell come first each time: they must not keep others from being asked about.
        is_unsure = len(asked.unsure) == len(images)
        unsure_answers += is_unsure
        if not asked.withdrawn and not (is_unsure and unsure_answers < _MAX_UNSURE):
            break
        older_than = clock.wall() - began if withdrawn else _STALE_AFTER
        images = catalog.proofs.to_ask_again(name, limit, older_than=older_than, but=unsure)
    return withdrawn
