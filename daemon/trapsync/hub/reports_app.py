"""The endpoints of reports: nights and deployments from the traps, and for people what was watched.

::

    POST /reports/<device>?since=16            a trap sends reports, a line each (`net.reports`)
    GET  /effort?from=2026-06-01&until=…       what was expected, taken and missed: a row for each trap and night
"""

import json
from datetime import date
from typing import Any

from flask import Response, g, request

from trapsync.errors import one_line
from trapsync.hub.fleet import NotTaken
from trapsync.hub.long_answers import LongAnswers
from trapsync.hub.reports import Reports
from trapsync.net.reports import LARGEST_BATCH


class ReportEndpoints:
    """One method per route. The caller is logged in and has the role."""

    def __init__(self, reports: Reports, answers: LongAnswers) -> None:
        self._reports = reports
        self._answers = answers

    def put_reports(self, device: str) -> Any:
        """Store what a trap reports; answer with what is held of it."""
        given = request.args.get("since", "0")
        if not (given.isascii() and given.isdigit() and len(given) <= 16):
            raise NotTaken(f"since: {one_line(given, 40)!r} is no number")
        return self._reports.take(device, request.stream.read(LARGEST_BATCH + 1), int(given), g.user.device)

    def get_effort(self) -> Response:
        """What the traps watched in the nights from `from` on and before `until`; a trap's `name` may be empty.

        `without` names the traps of which no such night has come.
        """
        span = _day("from"), _day("until")
        rows, without = (row.plain() for row in self._reports.effort(*span)), self._reports.without(*span)
        return self._answers.send(rows, f'{{"without": {json.dumps(without)}, "nights": [', "]}\n")


def _day(name: str) -> date | None:
    text = request.args.get(name)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise NotTaken(f"{name}: {one_line(text, 40)!r} is no day of the form 2026-06-21") from None
