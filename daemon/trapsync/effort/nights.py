"""Nights as the hub is told them, once each: what was expected and taken in each hour, and the gaps with their reasons."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from trapsync.catalog import Catalog
from trapsync.clock import iso, utc
from trapsync.effort.ledger import Slot, gaps, ledger
from trapsync.effort.tables import Row, added_up, evening_of, hour_of, night_of, noon
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import zone

Report = dict[str, Any]

_AGAIN = timedelta(days=14)  # in which times of pictures may be corrected, and so what a night says
_DAY = 86400.0
_MOST_GAPS = 300  # of a night, which is 20 kB: of further ones only their number is told


def reports(
    catalog: Catalog, settings: Settings, is_known: Callable[[str], bool]
) -> Iterator[tuple[str, Report]]:
    """The nights that are over, oldest first: the date of the evening as text, and what is told of it.

    Those that the hub knows are left out, unless they are of the last two weeks and the catalog knows as much as it did
    then: what was told before it was lost is better than what its images still say.
    """
    found, here = ledger(catalog, settings), zone(settings)
    if found.began is None or found.known_from is None:
        return
    tonight, first = evening_of(found.now, here), evening_of(found.began, here)
    whole_from = found.known_from if found.began < found.known_from else found.began - _DAY
    while first < tonight - _AGAIN and is_known(first.isoformat()):
        first += timedelta(days=1)
    slots = found.slots(noon(first, here), noon(tonight, here))
    coming = groupby(slots, lambda slot: evening_of(slot.begin, here))
    known = next(coming, None)
    for evening in _evenings(first, tonight):
        # A night without a slot, in polar day say, is told too: else it would be looked for each time.
        some: list[Slot] = []
        if known and known[0] == evening:
            some, known = list(known[1]), next(coming, None)
        may_change = evening >= tonight - _AGAIN and noon(evening, here) >= whole_from
        if may_change or not is_known(evening.isoformat()):
            yield evening.isoformat(), _report(catalog, settings, evening, some)


def _evenings(first: date, end: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range((end - first).days))


def _report(catalog: Catalog, settings: Settings, evening: date, slots: list[Slot]) -> Report:
    """What is known of one night. Moments are UTC text."""
    here = zone(settings)
    since, until = noon(evening, here), noon(evening + timedelta(days=1), here)
    hours = added_up(slots, catalog.runs.counts_by_quarter(since, until), hour_of(here))
    missed = list(gaps(slots))[:_MOST_GAPS]
    return {
        "schema": 1,
        "night": evening.isoformat(),
        "timezone": str(here),
        "hours": [[iso(utc(row.since)), row.expected, row.taken, row.pictures] for row in hours],
        "gaps": [[iso(utc(gap.since)), iso(utc(gap.until)), gap.missed, gap.reason] for gap in missed],
    }


def last_night(catalog: Catalog, settings: Settings) -> Row | None:
    """The night before the present one, added up; None where no picture was due in it."""
    found, here = ledger(catalog, settings), zone(settings)
    night = night_of(here)
    now = night(found.now)
    rows = added_up(found.slots(night(now.since - 1).since, now.since), [], night)
    return rows[0] if rows else None
