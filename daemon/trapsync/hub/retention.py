"""Deletes what is older than [hub.keep] of the hub's config file says: once a day, in small steps.

Older is what is so by its own time and by the time at which it came: neither a trap nor this machine with a wrong clock
makes a picture old; and what the time is, `believed_time` says. Nothing is deleted where nothing is set.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trapsync.clock import Clock, iso, utc
from trapsync.errors import one_line
from trapsync.hub.believed_time import DAY, LOOK_EVERY, BelievedTime
from trapsync.hub.database import Database
from trapsync.hub.holdings import Holdings
from trapsync.hub.store import Row, Store
from trapsync.hub.thumbnails import Thumbnails
from trapsync.net import reports
from trapsync.net.reports import Deployment
from trapsync.settings.hub import Keep

log = logging.getLogger(__name__)

_AT_ONCE = 50  # rows of one transaction: an upload waits for some twenty milliseconds
_PAUSE = 0.25  # seconds between two steps
_Counts = tuple[str, int]


class _Report(NamedTuple):
    number: int
    kind: str
    key: str
    body: str


class Retention:
    """Deletes what is old at one hub."""

    def __init__(
        self, database: Database, store: Store, thumbnails: Thumbnails, keep: Keep, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._thumbnails = thumbnails
        self._keep = keep
        self._clock = clock
        self._time = BelievedTime(database, clock)
        self._day = 0.0  # the last one of which everything was looked at
        self._under_way: Iterator[_Counts] | None = None
        self._deleted: Counter[str] = Counter()

    def step(self) -> float:
        """Delete a little, if it is time to; the seconds until the next step."""
        if self._under_way is None:
            now = self._time.look()
            if now is None or self._day == now // DAY:
                return LOOK_EVERY
            self._under_way = self._everything(now)
        try:
            what, count = next(self._under_way, (None, 0))
        except Exception:  # a full disk, say: it is begun again at the next look
            self._under_way = None
            raise
        if what is None:
            self._tell()
            self._under_way = None
            return LOOK_EVERY
        self._deleted[what] += count
        return _PAUSE

    def _tell(self) -> None:
        if self._deleted.total():
            counts = ", ".join(f"{count} {what}" for what, count in self._deleted.items() if count)
            log.info("deleted what is older than [hub.keep] says: %s", counts)
        self._deleted.clear()

    def _everything(self, now: float) -> Iterator[_Counts]:
        """Delete what is old at this time; after each step, of what and how many."""
        works: dict[str, Callable[[float], Iterator[int]]] = {
            "images": self._images,
            "annotations": self._annotations,
            "reports": self._reports,
            "heartbeats": self._heartbeats,
        }
        for what, work in works.items():
            if self._keep.has_end(what):
                for count in work(now - getattr(self._keep, what)):
                    yield what, count
        self._day = now // DAY

    def _images(self, before: float) -> Iterator[int]:
        for device in Holdings(self._database).newest(utc(before)):
            yield from self._images_of(device, iso(utc(before)))

    def _images_of(self, device: str, before: str) -> Iterator[int]:
        sql = (
            "SELECT device, datetime, datetime_created FROM images WHERE device = ? AND datetime > ? AND datetime < ? "
            "ORDER BY datetime LIMIT ?"
        )
        last = ""
        while rows := self._some(sql, (device, last, before, _AT_ONCE)):
            last = rows[-1]["datetime"]
            old = [row for row in rows if row["datetime_created"] < before]
            for row in old:
                self._thumbnails.delete(self._store.path(row))
            yield len(self._store.delete([(row["device"], row["datetime"]) for row in old]) if old else ())

    def _annotations(self, before: float) -> Iterator[int]:
        """The oldest first; the first that is not old ends it: one row each is all that is read of a large table."""
        sql = "SELECT id, datetime_created FROM uid_annotations ORDER BY id LIMIT ?"
        while True:
            rows = self._some(sql, (_AT_ONCE,))
            old = [row["id"] for row in rows if row["datetime_created"] < iso(utc(before))]
            if not old:
                return
            yield self._delete("uid_annotations", "id", old)

    def _reports(self, before: float) -> Iterator[int]:
        """Of each trap all that are old but the newest: by its number the trap knows that this is the hub it told them."""
        sql = (
            "SELECT number, kind, key, body FROM reports AS one WHERE number > ? AND received < ? AND number < "
            "(SELECT max(number) FROM reports WHERE reports.device = one.device) ORDER BY number LIMIT ?"
        )
        last = 0
        while rows := self._some(sql, (last, before, _AT_ONCE)):
            last = rows[-1]["number"]
            old = [row["number"] for row in rows if _is_old(_Report(**row), before)]
            yield self._delete("reports", "number", old) if old else 0

    def _heartbeats(self, before: float) -> Iterator[int]:
        """Of each trap all that are old but the newest: by that one it is known."""
        sql = (
            "SELECT id FROM heartbeats WHERE device = :device AND received < :before "
            "AND id < (SELECT max(id) FROM heartbeats WHERE device = :device) ORDER BY id LIMIT :most"
        )
        for trap in self._some("SELECT device FROM traps", ()):
            values = {"device": trap["device"], "before": before, "most": _AT_ONCE}
            while rows := self._some(sql, values):
                yield self._delete("heartbeats", "id", [row["id"] for row in rows])

    def _some(self, sql: str, values: Any) -> list[Row]:
        with self._database.reading() as connection:
            return [dict(row) for row in connection.execute(sql, values)]

    def _delete(self, table: str, key: str, numbers: list[int]) -> int:
        sql = f"DELETE FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))"  # noqa: S608 - names of ours
        with self._database.writing() as connection:
            return connection.execute(sql, (json.dumps(numbers),)).rowcount


def _is_old(report: _Report, before: float) -> bool:
    """Whether a report is about something that was over before then, by its own word."""
    try:
        found = reports.understood(report.kind, reports.body(report.body))
    except ValueError as error:
        log.warning("the %s %s cannot be read, and stays: %s", report.kind, report.key, one_line(error))
        return False
    if isinstance(found, Deployment):
        return found.ended is not None and found.ended.timestamp() < before
    return str(found.night) < str(utc(before - DAY).date())
