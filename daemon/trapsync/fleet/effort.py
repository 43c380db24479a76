"""What the traps watched and what not, night by night, as the hub knows it from their reports."""

import csv
import io
from collections.abc import Iterator
from datetime import date
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

from trapsync.errors import TrapsyncError, one_line
from trapsync.fleet.connection import HubConnection
from trapsync.net import reports
from trapsync.net.reports import REASONS, Watched

_LARGEST, _MOST_VALUES = 32 * 2**20, 2_000_000  # of an answer: 300 traps for a year


class Nights(NamedTuple):
    """The nights that have come, and the traps of which none has."""

    watched: list[Watched]
    without: list[str]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"nights": [one.plain() for one in self.watched], "without": self.without}


def nights(hub: HubConnection, since: date | None, until: date | None) -> Nights:
    """The nights from the date `since` on and before `until`, of all traps, those with the largest share missed first.

    Raises TrapsyncError.
    """
    span = {name: day.isoformat() for name, day in (("from", since), ("until", until)) if day}
    answer = hub.ask("GET", f"/effort?{urlencode(span)}", largest=_LARGEST)
    if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        raise TrapsyncError(f"{hub.name}: this hub is older, and keeps no nights: upgrade it")
    content = answer.json(dict, most_values=_MOST_VALUES)
    try:
        watched = reports.watched(content.get("nights"))
    except ValueError as error:
        raise TrapsyncError(f"{hub.name}: its answer makes no sense: {error}") from None
    watched.sort(key=lambda one: (-_share_missed(one), -one.night.toordinal(), one.device))
    return Nights(watched, list(_names(content.get("without"))))


def called(one: Watched) -> str:
    """What people call the trap of a night: its name, else its device."""
    return one_line(one.name, 60) or one_line(one.device, 20)


def why(one: Watched) -> str:
    """The reasons of what was missed: `camera 12, off 3`."""
    found = sorted(one.missed.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{reason.replace('_', ' ')} {number}" for reason, number in found if number)


def summary(watched: list[Watched]) -> str:
    """All of it in a line."""
    expected, taken = (
        sum(numbers) for numbers in zip(*((one.expected, one.taken) for one in watched), strict=True)
    )
    share = f", {100 * taken / expected:.1f} %" if expected else ""
    return f"all: {taken} of {expected} expected pictures were taken{share}"


def csv_text(watched: list[Watched]) -> str:
    """A table for R and spreadsheets, a row for each trap and night."""
    more = sorted({reason for one in watched for reason in one.missed} - set(REASONS))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("device", "trap", "night", "expected", "taken", "missed", *REASONS, *more))
    for one in watched:
        missed = [one.missed.get(reason, 0) for reason in (*REASONS, *more)]
        counts = (one.expected, one.taken, one.expected - one.taken)
        writer.writerow((one_line(one.device, 20), _no_formula(called(one)), one.night, *counts, *missed))
    return out.getvalue()


def _no_formula(text: str) -> str:
    """The text with something before it, if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _share_missed(one: Watched) -> float:
    return 1 - one.taken / one.expected if one.expected else 0.0


def _names(without: object) -> Iterator[str]:
    for one in without if isinstance(without, list) else ():
        if isinstance(one, dict):
            yield one_line(one.get("name") or one.get("device"), 60)
