"""What the hub holds of its traps, by trap and time, for pages, exports and metrics.

Each question reads a bounded number of rows by an index, however many images and heartbeats there are. Devices are in lower
case. A row of an image has the columns of the table `images`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from trapsync.hub.database import Database
from trapsync.hub.nights import LocalTime, Span, stored
from trapsync.hub.store import Row
from trapsync.net import foreign_json, heartbeat, reports
from trapsync.net.heartbeat import Heartbeat
from trapsync.net.reports import Night

_MOST = 100_000  # rows of one answer; each question asks for fewer
# Devices one after the other: a search in the index for each, and no look at the images between two.
_NEWEST = """
    WITH RECURSIVE found (device) AS (
        SELECT (SELECT device FROM images ORDER BY device LIMIT 1)
        UNION ALL
        SELECT (SELECT images.device FROM images WHERE images.device > found.device ORDER BY images.device LIMIT 1)
        FROM found WHERE found.device IS NOT NULL)
    SELECT images.* FROM found JOIN images ON images.id = (
        SELECT one.id FROM images AS one WHERE one.device = found.device AND one.datetime < ?
        ORDER BY one.datetime DESC LIMIT 1)
"""
_FIRST_OF_EACH = """
    SELECT * FROM images WHERE id IN (
        SELECT (SELECT one.id FROM images AS one WHERE one.device = ? AND one.datetime >= json_extract(span.value, '$[0]')
                AND one.datetime < json_extract(span.value, '$[1]') ORDER BY one.datetime LIMIT 1)
        FROM json_each(?) AS span)
    ORDER BY datetime
"""
_BEATS_OF_EACH = """
    SELECT received, body FROM heartbeats WHERE id IN (
        SELECT (SELECT one.id FROM heartbeats AS one WHERE one.device = ?
                AND one.received >= json_extract(span.value, '$[0]')
                AND one.received < json_extract(span.value, '$[1]') ORDER BY one.received LIMIT 1)
        FROM json_each(?) AS span)
    ORDER BY received
"""


class Counted(NamedTuple):
    """A night with images, and how many."""

    night: date
    images: int


class Heard(NamedTuple):
    """A heartbeat, and when it came: unix seconds of this machine's clock."""

    at: float
    beat: Heartbeat


@dataclass(frozen=True, slots=True)
class Holdings:
    """The questions about what one hub holds."""

    database: Database

    # ── Images ───────────────────────────────────────────────────────────────────────────────────────────

    def newest(self, before: datetime) -> dict[str, Row]:
        """The newest image of each trap that was taken before a moment, by device."""
        return {row["device"].lower(): row for row in self._rows(_NEWEST, (stored(before),))}

    def newest_of(self, device: str, before: datetime) -> Row | None:
        """The newest image of one trap that was taken before a moment."""
        return self.image_before(device, stored(before))

    def image(self, device: str, at: str) -> Row | None:
        """The image of that second, written as in `images.datetime`."""
        return self._one("device = ? AND datetime = ?", (device, at))

    def image_before(self, device: str, at: str) -> Row | None:
        """The last image before that second."""
        return self._one("device = ? AND datetime < ? ORDER BY datetime DESC LIMIT 1", (device, at))

    def image_after(self, device: str, at: str) -> Row | None:
        """The first image after that second."""
        return self._one("device = ? AND datetime > ? ORDER BY datetime LIMIT 1", (device, at))

    def images(self, device: str, span: Span | None, most: int, after: str = "") -> list[Row]:
        """So many images in a span (None: of all times) and after a second, the oldest first."""
        since, until = span.stored() if span else ("", "9999")
        sql = (
            "SELECT * FROM images WHERE device = ? AND datetime >= ? AND datetime > ? AND datetime < ? "
            "ORDER BY datetime LIMIT ?"
        )
        return self._rows(sql, (device, since, after, until, most))

    def images_before(self, device: str, span: Span, most: int, before: str) -> list[Row]:
        """So many images in a span and before a second: the last ones of them, the oldest first."""
        sql = "SELECT * FROM images WHERE device = ? AND datetime >= ? AND datetime < ? ORDER BY datetime DESC LIMIT ?"
        until = min(before, span.stored()[1])
        return self._rows(sql, (device, span.stored()[0], until, most))[::-1]

    def count(self, device: str, span: Span) -> int:
        """How many images there are in a span."""
        sql = "SELECT count(*) AS number FROM images WHERE device = ? AND datetime >= ? AND datetime < ?"
        return int(self._rows(sql, (device, *span.stored()))[0]["number"])

    def spread(self, device: str, spans: Sequence[Span]) -> list[Row]:
        """The first image of each of these spans, as far as there are any, the oldest first."""
        return self._rows(_FIRST_OF_EACH, (device, json.dumps([span.stored() for span in spans])))

    def extent(self, device: str, span: Span) -> Span | None:
        """From the first image in a span to the second after its last one; None where there is none."""
        first = self.images(device, span, 1)
        last = self.images_before(device, span, 1, span.stored()[1])
        if not first:
            return None
        since, until = (datetime.fromisoformat(rows[0]["datetime"]) for rows in (first, last))
        return Span(since, until + timedelta(seconds=1))

    def annotated(self, rows: Sequence[Row]) -> set[int]:
        """The ids of those of these images in which a detector looked for something."""
        sql = """SELECT DISTINCT parent_image_id AS id FROM uid_annotations
                 WHERE parent_image_id IN (SELECT value FROM json_each(?))"""
        return {row["id"] for row in self._rows(sql, (json.dumps([row["id"] for row in rows]),))}

    # ── Nights ───────────────────────────────────────────────────────────────────────────────────────────

    def local_time(self, device: str) -> LocalTime:
        """The zone that the newest of a trap's nights has that names one; else UTC."""
        sql = "SELECT body FROM reports WHERE kind = 'night' AND device = ? ORDER BY key DESC LIMIT 5"
        for row in self._rows(sql, (device,)):
            with suppress(ValueError, OSError, LookupError):
                night = reports.understood("night", reports.body(row["body"]))
                assert isinstance(night, Night)
                return LocalTime(ZoneInfo(night.timezone), True)
        return LocalTime(ZoneInfo("UTC"), False)

    def nights(self, device: str, local: LocalTime, before: datetime, most: int) -> list[Counted]:
        """So many nights with images that began before a moment, the newest first."""
        found = list[Counted]()
        at = stored(before)
        while len(found) < most and (row := self.image_before(device, at)):
            night = local.night_of(datetime.fromisoformat(row["datetime"]))
            span = local.span_of(night)
            found.append(Counted(night, self.count(device, span)))
            at = stored(span.since)
        return found

    def neighbours(self, device: str, local: LocalTime, night: date) -> tuple[date | None, date | None]:
        """The nights before and after one in which there are images or of which there is a report."""
        since, until = local.span_of(night).stored()
        images = (
            self.image_before(device, since),
            self._one("device = ? AND datetime >= ? ORDER BY datetime LIMIT 1", (device, until)),
        )
        dates = [local.night_of(datetime.fromisoformat(row["datetime"])) if row else None for row in images]
        told = self._told(device, night)
        before, after = ([one for one in pair if one] for pair in zip(dates, told, strict=True))
        return max(before, default=None), min(after, default=None)

    def _told(self, device: str, night: date) -> tuple[date | None, date | None]:
        """The nights before and after one of which there is a report."""
        sql = "SELECT {}(key) AS key FROM reports WHERE kind = 'night' AND device = ? AND key {} ?"
        keys = [
            self._rows(sql.format(*how), (device, str(night)))[0]["key"]
            for how in (("max", "<"), ("min", ">"))
        ]
        first, last = (date.fromisoformat(key) if key else None for key in keys)
        return first, last

    # ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────

    def last_heard(self, device: str) -> Heard | None:
        """The newest heartbeat of a trap."""
        sql = "SELECT received, body FROM heartbeats WHERE device = ? ORDER BY id DESC LIMIT 1"
        return next(_heard(self._rows(sql, (device,))), None)

    def first_heard(self, device: str) -> float | None:
        """When the oldest heartbeat of a trap that is kept came: unix seconds."""
        sql = "SELECT min(received) AS at FROM heartbeats WHERE device = ?"
        at: float | None = self._rows(sql, (device,))[0]["at"]
        return at

    def heartbeats(self, device: str, since: float, until: float, most: int) -> list[Heard]:
        """At most so many heartbeats that came between two moments, in unix seconds: the first in each part of that time."""
        step = (until - since) / most
        bounds = [since + step * at for at in range(most)]
        spans = json.dumps([*zip(bounds, [*bounds[1:], until], strict=True)])
        return list(_heard(self._rows(_BEATS_OF_EACH, (device, spans))))

    def _one(self, condition: str, values: Sequence[object]) -> Row | None:
        return next(iter(self._rows(f"SELECT * FROM images WHERE {condition}", values)), None)  # noqa: S608

    def _rows(self, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
        return list(self.database.rows(sql, values, _MOST))


def _heard(rows: Sequence[Mapping[str, Any]]) -> Iterator[Heard]:
    """Decode what is stored; what an earlier hub took and is no heartbeat is one that says nothing."""
    for row in rows:
        try:
            content = foreign_json.decode(row["body"].encode(errors="replace"), 2 * heartbeat.LARGEST)
            beat = heartbeat.read(content)
        except ValueError as error:
            beat = Heartbeat(odd=str(error))
        yield Heard(row["received"], beat)
