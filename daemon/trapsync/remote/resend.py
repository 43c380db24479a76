"""The owner asks for images again, because the server lost them: what is still on the card is owed again."""

from collections.abc import Container
from dataclasses import replace

from trapsync.catalog import Catalog
from trapsync.remote.record import Asked

_HANDFUL = 500  # images in one commit


def owe_again(catalog: Catalog, asked: Asked, keeping: Container[str] | None = None) -> Asked:
    """Owe again every image of that time which the destination (or each of them) had confirmed.

    Says how many that were, and how many are not on the card any more. Done twice it is as if done once: a
    destination is asked before anything is sent, and what it holds is not sent. `keeping` are the names of those that
    keep images until somebody deletes them; no other is sent anything again. None: all of them do.
    """
    again: set[int] = set()
    span = asked.since, asked.until
    gone = catalog.gone_between(*span)
    for row in catalog.destinations():
        if asked.destination in (None, row["name"]) and (keeping is None or row["name"] in keeping):
            last = 0
            while ids := catalog.confirmed_between(row["name"], *span, after=last, limit=_HANDFUL):
                catalog.owe_again(row["name"], ids)
                last = ids[-1]
                again |= set(ids)
    return replace(asked, again=len(again), gone=gone)
