"""A package's content (`camtrap_dp`) from a hub: its images, what detectors found in them, and what the traps reported."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from trapsync.camtrap_dp import observations
from trapsync.camtrap_dp.records import Deployment, Finding, Gap, Picture, Place
from trapsync.clock import Clock
from trapsync.errors import StorageError
from trapsync.hub.database import Database
from trapsync.hub.holdings import Holdings
from trapsync.hub.nights import Span
from trapsync.hub.reports import Reports
from trapsync.hub.store import place_of
from trapsync.image import without_unknown
from trapsync.net.reports import Night
from trapsync.settings.time_zone import standard_offset

_PAGE = 500  # images of one query: the hub may run meanwhile, and delete some
_MEASURED = ("lat", "lng", "alt", "temp", "hum", "lum", "bat")
_MOST_ROWS = 10**9
_DEVICES = """
    SELECT lower(device) AS device FROM images UNION SELECT device FROM reports WHERE kind = 'deployment' ORDER BY device
"""


def traps(folder: Path, clock: Clock, offset: timezone) -> "HubTraps":
    """All traps of the hub in this folder. `offset` is of local time, for a trap that reported no night.

    Raises StorageError where there is no hub.
    """
    path = folder / "hub.sqlite"
    if not path.is_file():
        raise StorageError(f"{folder}: there is no hub in this folder; name its folder with --folder")
    return HubTraps(folder, Database(path), clock, offset)


def of_one(folder: Path, database: Database, reports: Reports, device: str, within: Span) -> "HubTrap":
    """One trap of the hub in this folder, and of it what lies in that time."""
    sql = "SELECT name FROM traps WHERE device = ?"
    name = next((row["name"] for row in database.rows(sql, (device,), 1)), "")
    offset = standard_offset(Holdings(database).local_time(device).zone)
    trap = HubTrap(folder, database, reports, device, name, offset, None, within=within)
    trap.until = _last(list(trap.nights()))
    return trap


@dataclass(frozen=True)
class HubTraps:
    """All traps of a hub, one after the other."""

    folder: Path
    database: Database
    clock: Clock
    offset: timezone

    def __iter__(self) -> "Iterator[HubTrap]":
        names = {row["device"]: row["name"] for row in self._rows("SELECT device, name FROM traps")}
        reports = Reports(self.database, self.clock)
        for row in self._rows(_DEVICES):
            device = row["device"]
            nights = [night for _, night in reports.nights([device])]
            offset = _offset(nights) or self.offset
            name = names.get(device, "")
            yield HubTrap(self.folder, self.database, reports, device, name, offset, _last(nights))

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return list(self.database.rows(sql, (), _MOST_ROWS))

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def _offset(nights: Sequence[Night]) -> timezone | None:
    """The standard time of the zone that the newest night has."""
    for night in reversed(nights):
        with suppress(ValueError, OSError, LookupError):
            return standard_offset(ZoneInfo(night.timezone))
    return None


def _last(nights: Sequence[Night]) -> float | None:
    """Until when nights were reported."""
    ends = [hour.begin + timedelta(hours=1) for night in nights for hour in night.hours]
    ends += [gap.until for night in nights for gap in night.gaps]
    return max(ends).timestamp() if ends else None


@dataclass
class HubTrap:
    """One trap of a hub. Whether the times of its pictures were sure, the hub does not know.

    `within`: only what lies in that time; None: all.
    """

    folder: Path
    database: Database
    reports: Reports
    device: str
    name: str
    offset: timezone
    until: float | None
    place: Place | None = None
    within: Span | None = None

    def deployments(self) -> Sequence[Deployment]:
        """Those that the trap reported."""
        found = [one for _, one in self.reports.deployments([self.device])]
        known = [
            Deployment(one.id, one.began.timestamp(), one.ended.timestamp() if one.ended else None, one.terms)
            for one in found
        ]
        return sorted(known, key=lambda one: one.since)

    def gaps(self) -> Iterator[Gap]:
        """Those of the nights that the trap reported."""
        for night in self.nights():
            for gap in night.gaps:
                yield Gap(gap.since.timestamp(), gap.until.timestamp(), gap.reason)

    def nights(self) -> Iterator[Night]:
        """Those that the trap reported."""
        since = until = None
        if self.within:  # a night's date is that of its evening, in the zone of the trap
            since, until = (
                one.date() + timedelta(days=more) for one, more in zip(self.within, (-2, 2), strict=True)
            )
        return (night for _, night in self.reports.nights([self.device], since, until))

    def pictures(self) -> Iterator[Picture]:
        """The images that are stored."""
        holdings, last = Holdings(self.database), ""
        while page := holdings.images(self.device, self.within, _PAGE, last):
            annotated = holdings.annotated(page)
            for row in page:
                yield self._picture(row, annotated)
            last = page[-1]["datetime"]

    def _picture(self, row: dict[str, Any], annotated: set[int]) -> Picture:
        path = place_of(row)
        source = self.folder / "images" / path
        measured = {name: row[name] for name in _MEASURED if row[name] is not None}
        return Picture(
            path.name,
            datetime.fromisoformat(row["datetime"]).astimezone(UTC).timestamp(),
            str(path),
            path.name,
            source=source if source.is_file() else None,
            digest=f"md5:{row['md5']}",
            metadata=without_unknown(measured),
            findings=list(self._findings(row)) if row["id"] in annotated else (),
        )

    def _findings(self, image: Mapping[str, Any]) -> Iterator[Finding]:
        """One annotation in memory at a time: its outlines are long."""
        sql = "SELECT * FROM uid_annotations WHERE parent_image_id = ? ORDER BY id"
        for row in self.database.rows(sql, (image["id"],), _MOST_ROWS):
            shapes, odd = observations.of_sticky_pi(
                _annotations(row["json"]), image["width"], image["height"]
            )
            at = datetime.fromisoformat(row["datetime_created"]).timestamp()
            by = f"{row['algo_name']} {row['algo_version']}"
            yield Finding(f"annotation-{row['id']}", "machine", by, at, shapes, odd)


def _annotations(text: str) -> object:
    """What was found; None for what is not as the protocol has it.

    The hub wrote this text itself, of what it had decoded within bounds: to look at each of a million numbers once more
    would take three times as long.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content.get("annotations") if isinstance(content, dict) else None
