"""Answer a request to send images again: ask the destinations about every image of that time.

What a destination does not have any more is pending again, and so sent again; what it has is not. Where a request
has come to is remembered after each slice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from trapsync.catalog import Catalog
from trapsync.destinations import Destination
from trapsync.destinations.confirmation import ask_again
from trapsync.errors import Unreachable
from trapsync.remote.record import ResendRequest
from trapsync.remote.remote_settings import RemoteSettings


def answer_request(
    remote: RemoteSettings,
    catalog: Catalog,
    destinations: Sequence[Destination],
    progress: Callable[[], object] = lambda: None,
) -> bool:
    """Answer the request that is not done yet, if there is one; whether anything is pending again."""
    request = remote.request()
    if request is None:
        return False
    return bool(answer(catalog, destinations, request, remote.note_request, progress).again)


def answer(
    catalog: Catalog,
    destinations: Sequence[Destination],
    asked: ResendRequest,
    remember: Callable[[ResendRequest], object],
    progress: Callable[[], object] = lambda: None,
) -> ResendRequest:
    """Ask each destination that keeps images, as far as it can be reached now; `again` says when all is done."""
    is_done = True
    for destination in destinations:
        name = destination.name
        if not destination.keeps or asked.destination not in (None, name):
            continue
        if not catalog.deliveries.may_go(name):
            is_done = False
            continue
        last, again, gone = asked.progress.get(name, (0, 0, 0))
        span = asked.since, asked.until
        try:
            while images := catalog.proofs.delivered_to(name, last, destination.confirm_batch, *span):
                progress()
                found = ask_again(catalog, destination, images)
                lost = catalog.deliveries.off_card(image.id for image, _ in (*found.absent, *found.refused))
                last = images[-1].id
                again += sum(image.id not in lost for image, _ in found.absent)
                gone += len(lost)
                asked = replace(asked, progress={**asked.progress, name: (last, again, gone)})
                remember(asked)
        except Unreachable:  # the next turn of deliveries says so
            is_done = False
    if is_done:
        counts = asked.progress.values()
        asked = replace(asked, again=sum(one[1] for one in counts), gone=sum(one[2] for one in counts))
        remember(asked)
    return asked
