"""Slots added up: by hour, night or deployment. Hours and nights are local ones, in the trap's time zone."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from trapsync.clock import iso, utc
from trapsync.effort.ledger import Slot
from trapsync.net.reports import REASONS, Reason

_NOON = 12 * 3600.0  # seconds
COLUMNS = ("since", "until", "expected", "taken", "pictures", "missed", *REASONS)


class Row:
    """What was expected and taken in a span of time, and why the rest was missed.

    `expected` are slots, `taken` those with a picture, `pictures` all that were taken, also those that no slot expected.
    """

    def __init__(self, name: str, since: float, until: float) -> None:
        self.name = name
        self.since, self.until = since, until
        self.expected = self.taken = self.pictures = 0
        self.missed: Counter[Reason] = Counter()

    def add(self, slot: Slot) -> None:
        """Add a slot."""
        self.expected += 1
        self.taken += slot.is_taken
        if slot.reason:
            self.missed[slot.reason] += 1

    def plain(self) -> dict[str, Any]:
        """As JSON has it. Moments are UTC text,"""
        return {
            "name": self.name,
            "since": iso(utc(self.since)),
            "until": iso(utc(self.until)),
            "expected": self.expected,
            "taken": self.taken,
            "pictures": self.pictures,
            "missed": self.reasons(),
        }

    def reasons(self) -> dict[str, int]:
        """How many were missed for each reason; those without a miss are left out."""
        return {reason: self.missed[reason] for reason in REASONS if self.missed[reason]}


class Span(NamedTuple):
    """A span of time to add up, and what people call it."""

    name: str
    since: float
    until: float


def added_up(
    slots: Iterable[Slot], pictures: Iterable[tuple[float, int]], span_of: Callable[[float], Span | None]
) -> list[Row]:
    """A row for each span that `span_of` finds for a moment, in order; moments of which it says None are left out.

    `pictures` are counts with the moment at which each begins.
    """
    rows: dict[Span, Row] = {}

    def row_at(moment: float) -> Row | None:
        span = span_of(moment)
        return rows.setdefault(span, Row(*span)) if span else None

    for slot in slots:
        if row := row_at(slot.begin):
            row.add(slot)
    for begin, number in pictures:
        if row := row_at(begin):
            row.pictures += number
    return sorted(rows.values(), key=lambda row: row.since)


def hour_of(zone: ZoneInfo) -> Callable[[float], Span]:
    """The local hour of a moment."""

    def hour(at: float) -> Span:
        ahead = _ahead(at, zone)
        begin = (at + ahead) // 3600 * 3600 - ahead
        return Span(datetime.fromtimestamp(begin, zone).strftime("%Y-%m-%d %H:%M"), begin, begin + 3600)

    return hour


def night_of(zone: ZoneInfo) -> Callable[[float], Span]:
    """The night of a moment: from local noon to local noon, named by the date of its evening."""

    def night(at: float) -> Span:
        evening = evening_of(at, zone)
        return Span(evening.isoformat(), noon(evening, zone), noon(evening + timedelta(days=1), zone))

    return night


def evening_of(at: float, zone: ZoneInfo) -> date:
    """The date of the evening of the night in which a moment lies."""
    return (datetime.fromtimestamp(at, zone).replace(tzinfo=None) - timedelta(hours=12)).date()


def noon(day: date, zone: ZoneInfo) -> float:
    """Local noon of a day in unix seconds."""
    return datetime(day.year, day.month, day.day, 12, tzinfo=zone).timestamp()


def within(spans: Sequence[Span]) -> Callable[[float], Span | None]:
    """The span of a list in which a moment lies."""

    def span(at: float) -> Span | None:
        return next((one for one in spans if one.since <= at < one.until), None)

    return span


def total(rows: Iterable[Row]) -> Row:
    """All of them together."""
    found = list(rows)
    sum_ = Row("total", min(row.since for row in found), max(row.until for row in found))
    for row in found:
        sum_.expected += row.expected
        sum_.taken += row.taken
        sum_.pictures += row.pictures
        sum_.missed += row.missed
    return sum_


def csv_text(rows: Iterable[Row], what: str) -> str:
    """A table for R and spreadsheets; `what` heads its first column. Moments are UTC text."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow((what, *COLUMNS))
    for row in rows:
        misses = (row.missed[reason] for reason in REASONS)
        counts = (row.expected, row.taken, row.pictures, row.missed.total())
        writer.writerow((row.name, iso(utc(row.since)), iso(utc(row.until)), *counts, *misses))
    return out.getvalue()


def _ahead(at: float, zone: ZoneInfo) -> float:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    return offset.total_seconds() if offset else 0.0
