"""What the traps reported once, and the hub keeps: the effort of their nights, their deployments; see `net.reports`.

A report under a kind and key that the trap has sent before takes the place of that one. It is stored as it came, and
decoded each time that it is read: nothing unchecked gets to an export or a page.
"""

import json
import logging
import sqlite3
from collections.abc import Collection, Iterator
from datetime import date, datetime
from functools import cached_property
from typing import Any

from trapsync.clock import Clock
from trapsync.errors import one_line
from trapsync.hub.database import Database
from trapsync.hub.fleet import NotTaken, require_sender
from trapsync.net import reports
from trapsync.net.reports import Deployment, Line, Night, Watched

log = logging.getLogger(__name__)

MOST_KEPT = 10_000  # reports of one kind and trap: 27 years of nights
_MOST_ROWS = 1_000_000  # of one reading: 1,000 traps for three years

_PUT = """
    INSERT OR REPLACE INTO reports (device, kind, key, sha256, received, body)
    SELECT :device, :kind, :key, :sha256, :received, :body
    WHERE NOT EXISTS (SELECT 1 FROM reports WHERE device = :device AND kind = :kind AND key = :key AND sha256 = :sha256)
"""


class Reports:
    """The reports at one hub."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @cached_property
    def id(self) -> str:
        """This hub's name for traps, which tells it from another one: 16 hexadecimal digits."""
        return self._database.secret("id")[:16]

    def take(self, device: str, data: bytes, since: int, sender: str | None = None) -> dict[str, Any]:
        """Store the reports of a trap, each by itself; what is held of that trap with a higher number than `since`.

        `sender` is the trap that sends them; None for somebody else, who may speak for traps without an account only.
        A report that is not taken costs itself, and is named with its reason. Raises NotYours; NotTaken for a trap that has
        sent no heartbeat, and for more than a request may hold.
        """
        require_sender(self._database, device, sender)
        if not self._is_known(device):
            raise NotTaken(f"{one_line(device, 20)} has sent this hub no heartbeat yet")
        lines = [line for line in data.split(b"\n") if line]
        if len(data) > reports.LARGEST_BATCH or len(lines) > reports.MOST_AT_ONCE:
            raise NotTaken(
                f"{len(lines)} reports of {len(data)} bytes: {reports.MOST_AT_ONCE} and {reports.LARGEST_BATCH} are the most"
            )
        refused = self._store(device, lines) if lines else []
        return {"device": device, "hub": self.id, **self._held(device, since), "refused": refused}

    def nights(
        self, devices: Collection[str] | None = None, since: date | None = None, until: date | None = None
    ) -> Iterator[tuple[str, Night]]:
        """The nights from the date `since` on and before `until`, each with its device; by device, oldest first.

        `devices`: of these alone.
        """
        first, last = str(since or date.min), str(until or date.max)
        for device, found in self._read("night", devices, "key >= ? AND key < ?", (first, last)):
            if isinstance(found, Night):
                yield device, found

    def deployments(
        self,
        devices: Collection[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[tuple[str, Deployment]]:
        """The deployments that lie in this span, or in a part of it, each with its device; by device, oldest first.

        `devices`: of these alone. Texts are one line each.
        """
        for device, found in self._read("deployment", devices, "TRUE", ()):
            is_before = until is not None and isinstance(found, Deployment) and found.began >= until
            if isinstance(found, Deployment) and not is_before and not _is_over(found, since):
                yield device, found.cleaned()

    def effort(self, since: date | None = None, until: date | None = None) -> Iterator[Watched]:
        """What was expected, taken and missed in the nights from `since` on and before `until`, of all traps."""
        names = self._names()
        for device, night in self.nights(None, since, until):
            expected, taken = night.sums()
            yield Watched(device, names.get(device, ""), night.night, expected, taken, night.missed())

    def without(self, since: date | None = None, until: date | None = None) -> list[dict[str, str]]:
        """The traps of which there is none of these nights: `device` and `name`."""
        sql = (
            "SELECT device FROM traps WHERE NOT forgotten AND device NOT IN "
            "(SELECT device FROM reports WHERE kind = 'night' AND key >= ? AND key < ?) ORDER BY device"
        )
        names, span = self._names(), (str(since or date.min), str(until or date.max))
        with self._database.reading() as connection:
            devices = [row["device"] for row in connection.execute(sql, span)]
        return [{"device": device, "name": names[device]} for device in devices]

    def _names(self) -> dict[str, str]:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT device, name FROM traps").fetchall()
        return {row["device"]: one_line(row["name"], 60) for row in rows}

    def _is_known(self, device: str) -> bool:
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM traps WHERE device = ?", (device,)).fetchone()
        return found is not None

    def _store(self, device: str, lines: list[bytes]) -> list[tuple[str, str]]:
        """Store them in one transaction; the digests of those that are not taken, and why not."""
        good, refused = dict[str, Line](), list[tuple[str, str]]()
        for data in lines:
            digest = reports.digest(data)
            try:
                good[digest] = reports.read(data)
                reports.decode(good[digest], device)
            except ValueError as error:
                good.pop(digest, None)
                refused.append((digest, str(error)))
        with self._database.writing() as connection:
            for digest, report in good.items():
                if self._is_room(connection, device, report):
                    self._put(connection, device, digest, report)
                else:
                    refused.append((digest, f"this hub keeps {MOST_KEPT} reports of a kind for each trap"))
        if refused:
            log.warning("of trap %s, %d reports are not taken: %s", device, len(refused), refused[0][1])
        return refused

    def _is_room(self, connection: sqlite3.Connection, device: str, report: Line) -> bool:
        sql = "SELECT count(*) FROM reports WHERE device = ? AND kind = ? AND key != ?"
        (count,) = connection.execute(sql, (device, report.kind, report.key)).fetchone()
        return bool(count < MOST_KEPT)

    def _put(self, connection: sqlite3.Connection, device: str, digest: str, report: Line) -> None:
        body = {**report.body, **self._better_terms(connection, device, report)}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        values = {"device": device, "kind": report.kind, "key": report.key, "sha256": digest, "body": text}
        connection.execute(_PUT, {**values, "received": self._clock.wall()})

    def _better_terms(self, connection: sqlite3.Connection, device: str, report: Line) -> dict[str, Any]:
        """Of a deployment whose trap lost its catalog: the terms that are known here from before, if they are."""
        if report.kind != "deployment" or report.body.get("is_whole") is not False:
            return {}
        sql = "SELECT body FROM reports WHERE device = ? AND kind = 'deployment' AND key = ?"
        row = connection.execute(sql, (device, report.key)).fetchone()
        try:
            known = reports.understood(report.kind, reports.body(row["body"] if row else ""))
        except ValueError:  # there is none, or an earlier hub took it
            return {}
        return {"terms": known.terms, "is_whole": known.is_whole} if isinstance(known, Deployment) else {}

    def _held(self, device: str, since: int) -> dict[str, Any]:
        sql = "SELECT kind, key, sha256, number FROM reports WHERE device = ? AND number > ? ORDER BY number LIMIT ?"
        with self._database.reading() as connection:
            newest = connection.execute(
                "SELECT max(number) FROM reports WHERE device = ?", (device,)
            ).fetchone()
            rows = connection.execute(sql, (device, since, reports.MOST_HELD)).fetchall()
        return {"newest": newest[0] or 0, "held": [list(row) for row in rows]}

    def _read(
        self, kind: str, devices: Collection[str] | None, condition: str, values: tuple[str, ...]
    ) -> Iterator[tuple[str, Night | Deployment]]:
        """Decode what is stored. What an earlier hub took and is none any more is passed over, and told."""
        some = "TRUE" if devices is None else "device IN (SELECT value FROM json_each(?))"
        asked = () if devices is None else (json.dumps(sorted(devices)),)
        sql = (
            f"SELECT device, key, body FROM reports WHERE kind = ? AND {condition} "  # noqa: S608
            f"AND {some} ORDER BY device, key"
        )
        for row in self._database.rows(sql, (kind, *values, *asked), _MOST_ROWS):
            try:
                body = reports.body(row["body"])
                yield row["device"], reports.understood(kind, body)
            except ValueError as error:
                log.warning("the %s %s of %s cannot be used: %s", kind, row["key"], row["device"], error)


def _is_over(deployment: Deployment, since: datetime | None) -> bool:
    return since is not None and deployment.ended is not None and deployment.ended <= since
