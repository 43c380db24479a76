"""Nights as the hub is told them, once each: what was expected and taken in each hour, and the gaps with their reasons."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from trapsync.catalog import Catalog
from trapsync.clock import iso, utc
from trapsync.effort.ledger import Ledger, gaps, ledger
from trapsync.effort.tables import Row, added_up, evening_of, hour_of, night_of, noon
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import zone

_AGAIN = 14  # nights that are looked at again: a time that was corrected changes what they say
_MOST_GAPS = 200  # of a night; further ones are put together


def nights(catalog: Catalog, settings: Settings, known: date | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nights that are over: the evening's date as text, and the report. The oldest first.

    `known` is the last night that the hub knows; two weeks before it are looked at again. None: all nights.
    """
    found, here = ledger(catalog, settings), zone(settings)
    if found.began is None:
        return
    first = evening_of(found.began, here)
    if known:
        first = max(first, known - timedelta(days=_AGAIN))
    last = evening_of(found.now, here)
    for number in range((last - first).days):
        evening = first + timedelta(days=number)
        yield evening.isoformat(), report(catalog, found, settings, evening)


def report(catalog: Catalog, found: Ledger, settings: Settings, evening: date) -> dict[str, Any]:
    """What is known of one night. Moments are UTC text."""
    here = zone(settings)
    since, until = noon(evening, here), noon(evening + timedelta(days=1), here)
    slots = list(found.slots(since, until))
    hours = added_up(slots, catalog.runs.counts_by_quarter(since, until), hour_of(here))
    return {
        "schema": 1,
        "night": evening.isoformat(),
        "timezone": str(here),
        "hours": [[iso(utc(row.since)), row.expected, row.taken, row.pictures] for row in hours],
        "gaps": [[iso(utc(gap.since)), iso(utc(gap.until)), gap.missed, gap.reason] for gap in gaps(slots)][
            :_MOST_GAPS
        ],
    }


def last_night(catalog: Catalog, settings: Settings) -> Row | None:
    """The night before the present one, added up; None before there was one."""
    found, here = ledger(catalog, settings), zone(settings)
    night = night_of(here)
    since = night(night(found.now).since - 1).since
    rows = added_up(found.slots(since, night(found.now).since), [], night)
    return rows[0] if rows else None
