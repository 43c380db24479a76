"""What became of deliveries: how each kind of outcome is recorded, and whether an image or its server is to blame."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from trapsync.destinations import Destination, Receipt, confirmation
from trapsync.errors import (
    DeliveryError,
    Failed,
    Held,
    Refused,
    TrapsyncError,
    Unreachable,
    Unresolved,
    Unstorable,
    one_line,
    unexpected,
)
from trapsync.image import Image
from trapsync.net import backoff

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)
Outcome: TypeAlias = Receipt | Exception
# Sends images as one upload: what became of each, by its id.
Send: TypeAlias = Callable[[Sequence[Image]], Mapping[int, Outcome]]

# Who is to blame when a server answers, and takes no image? So many images in a row: the server, which is
# then left alone for a while. One that failed so often while others passed: the image, which is then refused.
_IMAGES_IN_A_ROW = 3
_ATTEMPTS_WHILE_OTHERS_PASS = 5
# Where a server says nothing but that it failed, it may be one of its many processes: of uWSGI's, each fails once after
# its database was restarted. So often an image is sent in one turn, and so many seconds such failures in a row may
# last, until they are judged as any other: quick ones on a quick link, and over a slow link no more images than ever.
_TRIES_IN_A_TURN = 4
_PATIENCE = 20.0


@dataclass(slots=True)
class Turn:
    """What one turn of deliveries to one destination did, at which `place`; `trouble` is why it ended early.

    `bugs` counts the images at which our own program failed: they are postponed. `is_patient`: it was well the last
    time that it was tried. `tries` counts for each image (by its id) how often it was sent and not resolved.
    """

    delivered: int = 0
    refused: int = 0
    postponed: int = 0
    bugs: int = 0
    failed_in_a_row: int = 0
    failing_since: float = 0.0
    is_patient: bool = False
    tries: Counter[int] = field(default_factory=Counter)
    place: str = ""
    trouble: Unreachable | None = None


def note_trouble(turn: Turn, outcome: Outcome, now: float) -> None:
    """End the turn early where the destination is unreachable, or takes no image. `now` is of the monotonic clock."""
    if isinstance(outcome, Unreachable):
        turn.trouble = turn.trouble or outcome
    elif isinstance(outcome, Receipt):
        turn.failed_in_a_row, turn.is_patient = 0, True
    elif isinstance(outcome, Failed) or _is_bug(outcome):
        if not turn.failed_in_a_row:
            turn.failing_since = now
        turn.failed_in_a_row += 1
        is_patient = turn.is_patient and isinstance(outcome, Unresolved)
        lasts = now - turn.failing_since
        if turn.failed_in_a_row >= _IMAGES_IN_A_ROW and not (is_patient and lasts < _PATIENCE):
            turn.trouble = turn.trouble or Unreachable(f"it takes no image: {str(outcome) or repr(outcome)}")


def trouble(catalog: Catalog, destination: Destination, turn: Turn, error: Exception) -> Unreachable:
    """Why a turn ended, where it ended by this error. Raises it where the card, the catalog or a setting is to blame.

    A bug beyond single images (`place`, say) leaves its destination alone for a while, as if that were unreachable.
    """
    if isinstance(error, Unreachable):
        return error
    if _is_not_its_own(error):
        raise error
    turn.bugs += 1
    if not catalog.deliveries.attempts(destination.name):  # loud once; then the warnings of the back-off
        log.error("a turn of %s failed", destination.name, exc_info=error)
    return Unreachable(unexpected(error))


def follow_up(catalog: Catalog, destination: Destination, turn: Turn) -> bool:
    """Do what follows beyond single images, as `Destination.follow_up`; where it fails, it alone is left for a while.

    Raises Unreachable, and what is no error of the destination's own.
    """
    attempts = catalog.facts.failed_follow_ups(destination.name)
    if attempts is None:
        return False
    try:
        has_asked = destination.follow_up()
    except Exception as error:
        if isinstance(error, Unreachable) or _is_not_its_own(error):
            raise
        settings, reason = destination.settings, one_line(unexpected(error))
        wait = backoff.wait(attempts + 1, first=settings.retry_initial, longest=settings.retry_max)
        text = "%s: what follows its deliveries failed: %s; next attempt in %.0f s"
        log.error(text, destination.name, reason, wait, exc_info=None if attempts else error)  # loud once
        catalog.facts.note_failed_follow_up(destination.name, reason, wait)
        turn.bugs += 1
        return False
    if attempts:
        catalog.facts.forget_failed_follow_ups(destination.name)
    return has_asked


def _is_not_its_own(error: Exception) -> bool:
    """Whether the card, the catalog or a setting is to blame, and not the program of one destination."""
    return isinstance(error, TrapsyncError) and not isinstance(error, DeliveryError | Unstorable)


def _is_bug(outcome: Outcome) -> bool:
    """Whether this is no answer and no error of the destination's: our own program failed."""
    return not isinstance(outcome, Receipt | DeliveryError | FileNotFoundError)


def record(
    catalog: Catalog,
    destination: Destination,
    turn: Turn,
    outcomes: Sequence[tuple[Image, Outcome]],
) -> None:
    """Record in one commit what became of some deliveries: proofs first, then each failure by its kind.

    One that is not resolved is left as it is, until it was sent often enough. What is no error of the destination's is a
    bug. It is loud, but costs this one image: it is tried again later. So it is
    where one of them cannot be recorded: then each is, in a commit of its own.
    """
    outcomes = [one for one in outcomes if not _is_sent_again(turn, *one)]
    for image, outcome in outcomes:
        if _is_bug(outcome):
            log.error("%s: delivering %r failed", destination.name, image.path, exc_info=_of(outcome))

    def unrecorded(one: tuple[Image, Outcome], error: Exception) -> Turn:
        """What cannot be recorded failed, and is tried again later."""
        text = "%s: what became of %r cannot be recorded"
        log.error(text, destination.name, one[0].path, exc_info=error)
        failed = Failed(f"what became of it cannot be recorded: {unexpected(error)}")
        done = _record(catalog, destination, turn.place, [(one[0], failed)])
        done.bugs += 1
        return done

    recorder = partial(_record, catalog, destination, turn.place)
    for done in confirmation.all_or_each(recorder, outcomes, unrecorded):
        turn.delivered += done.delivered
        turn.refused += done.refused
        turn.postponed += done.postponed
        turn.bugs += done.bugs


def _is_sent_again(turn: Turn, image: Image, outcome: Outcome) -> bool:
    """Whether an image stays due, so that its destination is asked about it within this turn, and sent it again."""
    if not isinstance(outcome, Unresolved):
        return False
    turn.tries[image.id] += 1
    return turn.tries[image.id] < _TRIES_IN_A_TURN


def _of(outcome: Outcome) -> Exception | None:
    return outcome if isinstance(outcome, Exception) else None


def _record(
    catalog: Catalog, destination: Destination, place: str, outcomes: Sequence[tuple[Image, Outcome]]
) -> Turn:
    """Record these in one commit; what that did."""
    done = Turn()
    if not outcomes:
        return done
    proofs = [confirmation.proof(image, one) for image, one in outcomes if isinstance(one, Receipt)]
    with catalog.together():
        confirmation.require_place(catalog, destination, place)
        catalog.deliveries.mark_delivered(destination.name, proofs)
        for image, outcome in outcomes:
            match outcome:
                case Receipt() | Unreachable():  # the latter says nothing about the image
                    pass
                case Refused():
                    _refuse(catalog, destination, done, image, str(outcome))
                case Held() | FileNotFoundError():
                    _hold(catalog, destination, done, image, outcome)
                case Failed():
                    _try_again(catalog, destination, done, image, str(outcome))
                case bug:
                    _try_again(catalog, destination, done, image, str(Failed(unexpected(bug))))
                    done.bugs += 1
    done.delivered = len(proofs)
    return done


def _refuse(catalog: Catalog, destination: Destination, turn: Turn, image: Image, reason: str) -> None:
    log.warning("%s refused %s: %s", destination.name, image.name, reason)
    catalog.deliveries.mark_refused(destination.name, image.id, reason)
    turn.refused += 1


def _hold(
    catalog: Catalog, destination: Destination, turn: Turn, image: Image, cause: Held | FileNotFoundError
) -> None:
    """Let an image wait for something on our side that is not there yet; this is no attempt.

    One whose file left the card does not wait: its destination was asked, and does not have it.
    """
    is_dropped = catalog.deliveries.let_go(destination.name, image.id)
    if is_dropped is not None:
        if is_dropped:
            log.warning("%s left the card before it was delivered: who removed it?", image.path)
        return
    is_missing = not isinstance(cause, Held)
    reason = "its file is not on the card" if is_missing else str(cause)
    longest = destination.settings.retry_max
    wait = cause.wait if isinstance(cause, Held) and cause.wait else longest
    # A folder may have been moved meanwhile, and the file been found where it lies now.
    path = image.path if is_missing else None
    catalog.deliveries.postpone(destination.name, image.id, reason, min(wait, longest), path=path)
    turn.postponed += 1


def _try_again(catalog: Catalog, destination: Destination, turn: Turn, image: Image, reason: str) -> None:
    """Let an image that failed at the destination wait, or refuse it once it is clear that it is to blame."""
    attempts, while_others_passed = catalog.deliveries.count_attempt(destination.name, image.id)
    if while_others_passed >= _ATTEMPTS_WHILE_OTHERS_PASS:
        _refuse(catalog, destination, turn, image, f"{reason} ({attempts} attempts)")
        return
    settings = destination.settings
    wait = backoff.wait(attempts, first=settings.retry_initial, longest=settings.retry_max)
    catalog.deliveries.postpone(destination.name, image.id, reason, wait)
    turn.postponed += 1
