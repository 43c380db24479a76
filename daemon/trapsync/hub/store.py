"""The images of the hub: files in folders, a row for each. Nothing stored is ever overwritten.

::

    images/<device>/<YYYY-MM-DD>/<device>.<stamp>.jpg   a whole image; flushed before it has its row
    images/.incoming/                                   being received; emptied at every start
    conflicts/<device>/…/<device>.<stamp>.<md5>.jpg     other bytes for a device and second that has its image
"""

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from trapsync.errors import StorageError, TrapsyncError
from trapsync.files import durable, failpoint
from trapsync.hub.database import Database
from trapsync.hub.wire import BadRequest
from trapsync.image import TrapName

log = logging.getLogger(__name__)

INCOMING = Path("images", ".incoming")  # below the hub's folder
CONFLICTS = "conflicts"

_MOST_VERSIONS = 10  # of one device and second that are kept in `conflicts`
_COLUMNS = (
    *("device", "datetime", "md5", "device_version", "width", "height"),
    *("lat", "lng", "alt", "temp", "hum", "lum", "bat", "but"),
    *("datetime_created", "api_version", "api_user_id"),
)
_INSERT = (
    f"INSERT INTO images ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{column}' for column in _COLUMNS)})"  # noqa: S608
)
MOST_ROWS = 100_000  # of one answer: 30 traps take so many images in a month
_MOST_PATTERNS = 50  # each is compared with every row of the table

Row = dict[str, Any]


class Wanted(NamedTuple):
    """Which images are asked for, each once: a condition on the table `images`, and its values."""

    condition: str
    values: tuple[str | None, ...]
    at_most: int | None = None  # so many there can be; None: nobody knows


def by_keys(keys: Iterable[tuple[str, str]]) -> Wanted:
    """The images of these devices and moments. One parameter, however many: a client may ask for tens of thousands."""
    return Wanted(
        # Not as a comparison of pairs, for which SQLite looks at all images of the device.
        "images.id IN (SELECT one.id FROM json_each(?) AS asked JOIN images AS one "
        "ON one.device = json_extract(asked.value, '$[0]') AND one.datetime = json_extract(asked.value, '$[1]'))",
        (json.dumps(asked := list(keys)),),
        len(asked),
    )


def by_ranges(ranges: Iterable[tuple[str, str, str]], only: str | None = None) -> Wanted:
    """The images of devices LIKE one, from one moment on and before another; of the device `only`, if it is given.

    Devices that are named are found by the index. Raises BadRequest for too many patterns.
    """
    named, patterns = list[_Range](), list[_Range]()
    for one in _joined(ranges):
        (patterns if {*one[0]} & {"%", "_"} else named).append(one)
    if len({pattern for pattern, _, _ in patterns}) > _MOST_PATTERNS:
        raise BadRequest(f"more than {_MOST_PATTERNS} patterns of devices: name the devices")
    return Wanted(
        f"images.id IN ({_FOUND.format('=')} UNION {_FOUND.format('LIKE')}) AND (? IS NULL OR images.device = ?)",
        (json.dumps(named), json.dumps(patterns), only, only),
    )


_Range = tuple[str, str, str]
# CROSS: what is asked for comes first, so that all images are looked at for patterns only.
_FOUND = (
    "SELECT one.id FROM json_each(?) AS asked CROSS JOIN images AS one ON one.device {} json_extract(asked.value, '$[0]') "
    "AND one.datetime >= json_extract(asked.value, '$[1]') AND one.datetime < json_extract(asked.value, '$[2]')"
)


def _joined(ranges: Iterable[_Range]) -> list[_Range]:
    """The same ranges, those that overlap joined: what is named a hundred times is looked for once."""
    joined: list[_Range] = []
    for device, start, end in sorted((device.lower(), start, end) for device, start, end in ranges):
        if joined and joined[-1][0] == device and start <= joined[-1][2]:
            joined[-1] = (device, joined[-1][1], max(joined[-1][2], end))
        else:
            joined.append((device, start, end))
    return joined


class AlreadyHere(TrapsyncError):
    """The same bytes are stored under this device and second."""


class Conflict(TrapsyncError):
    """Other bytes are stored under this device and second."""


class Store:
    """The images of one hub."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.images = folder / "images"
        self.conflicts = folder / CONFLICTS
        self.incoming = folder / INCOMING
        self._database = database
        # Rows are guarded by the database; this holds a file and its row together (see `delete`).
        self._moving = threading.Lock()
        self._stuck: set[tuple[str, str]] = set()  # deleted images whose files could not be removed
        try:
            durable.make_folder(self.incoming)
            for left_over in self.incoming.iterdir():
                durable.remove(left_over)
                failpoint.hit("hub: incoming emptied")
            self._remove_files()
        except OSError as error:
            raise StorageError(durable.explain(error, self.incoming)) from error

    def path(self, row: Row) -> Path:
        """The path of a row's image."""
        return self.images / place_of(row)

    def keep(self, row: Row, arrival: Path) -> None:
        """Give a flushed, verified file its final name, then its row.

        Raises AlreadyHere or Conflict, with what is stored left as it is; in a conflict the new file
        moves to `conflicts`, if there is room for it. A crash half-way leaves a file without a row; see `_clear`.
        """
        target = self.path(row)
        try:
            with self._moving, self._database.writing() as connection:
                durable.make_folder(target.parent)
                self._refuse_known(connection, row)
                self._clear(target, row)
                arrival.rename(target)
                failpoint.hit("hub: renamed")
                durable.flush_folder(target.parent)
                connection.execute(_INSERT, row)
        except Conflict as error:
            with self._moving:
                raise Conflict(
                    f"{error}; it stays as it is, and {self._keep_version(arrival, row)}"
                ) from None

    def find(self, wanted: Wanted) -> Iterator[Row]:
        """The rows that are wanted, in the order of the table; unknown ones are missing.

        Raises TooMany beyond MOST_ROWS.
        """
        sql = f"SELECT * FROM images WHERE {wanted.condition} ORDER BY id"  # noqa: S608
        return self._database.rows(sql, wanted.values, MOST_ROWS)

    def has_many(self, wanted: Wanted, count: int) -> bool:
        """Whether so many images, or more, are wanted."""
        if wanted.at_most is not None and wanted.at_most < count:
            return False
        return self._database.has(count, f"SELECT 1 FROM images WHERE {wanted.condition}", wanted.values)  # noqa: S608

    def by_id(self, number: int) -> Row | None:
        """The row with this id."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM images WHERE id = ?", (number,)).fetchone()
            return dict(row) if row else None

    def newest(self, devices: Iterable[str], since: str, until: str) -> int | None:
        """The id of the newest image of these devices from a moment on and before another; None if there is none."""
        sql = (
            "SELECT id, datetime FROM images WHERE device = ? AND datetime >= ? AND datetime < ? "
            "ORDER BY datetime DESC LIMIT 1"
        )
        with self._database.reading() as connection:
            found = [connection.execute(sql, (device, since, until)).fetchone() for device in devices]
        newest = max(filter(None, found), key=lambda row: row["datetime"], default=None)
        return newest and int(newest["id"])

    def counts(self, devices: Iterable[str], since: str, until: str) -> dict[str, int]:
        """How many images of each of these devices there are from a moment on and before another."""
        sql = "SELECT count(*) FROM images WHERE device = ? AND datetime >= ? AND datetime < ?"
        with self._database.reading() as connection:
            return {
                device: connection.execute(sql, (device, since, until)).fetchone()[0] for device in devices
            }

    def delete(self, keys: Iterable[tuple[str, str]]) -> list[Row]:
        """Delete images and their annotations, then the files; return the deleted rows.

        A crash in between leaves files without rows, which the next start removes.
        """
        with self._moving:  # or an upload could store its file between the two steps
            with self._database.writing() as connection:
                wanted = by_keys(keys)
                sql = f"DELETE FROM images WHERE {wanted.condition} RETURNING *"  # noqa: S608
                rows = [dict(row) for row in connection.execute(sql, wanted.values).fetchall()]
                connection.executemany(
                    "INSERT OR IGNORE INTO removed_images VALUES (:device, :datetime)", rows
                )
            self._remove_files()
        return rows

    def _remove_files(self) -> None:
        """Remove the files of deleted rows, durably, and then forget these; of an image that came again it stays.

        A file that cannot be removed costs itself: it is told, and the next start tries again.
        """
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT device, datetime, EXISTS (SELECT 1 FROM images WHERE images.device = removed.device "
                "AND images.datetime = removed.datetime) AS is_back FROM removed_images AS removed"
            ).fetchall()
        rows = {key: row for row in found if (key := row[:2]) not in self._stuck}
        paths = {key: self.path(dict(row)) for key, row in rows.items() if not row["is_back"]}
        failed = {key: error for key, path in paths.items() if (error := _why_not_removed(path))}
        for folder in {path.parent for key, path in paths.items() if key not in failed}:
            _remove_if_empty(folder)
        if failed:
            log.error("files of %d deleted images stay: %s", len(failed), next(iter(failed.values())))
            self._stuck |= failed.keys()
        if done := rows.keys() - failed.keys():
            with self._database.writing() as connection:
                connection.executemany("DELETE FROM removed_images WHERE device = ? AND datetime = ?", done)

    def _refuse_known(self, connection: sqlite3.Connection, row: Row) -> None:
        sql = "SELECT md5 FROM images WHERE device = :device AND datetime = :datetime"
        stored = connection.execute(sql, row).fetchone()
        if stored is None:
            return
        name = place_of(row).name
        if stored["md5"] == row["md5"]:
            raise AlreadyHere(f"{name} is stored already, with the same bytes")
        raise Conflict(f"conflict: {name} is stored already with other bytes (md5 {stored['md5']})")

    def _keep_version(self, arrival: Path, row: Row) -> str:
        """Keep other bytes for one second, unless there are many of them; what became of them."""
        place = self.conflicts / place_of(row)
        kept = {path.name for path in place.parent.glob(f"{place.stem}.*.jpg")}
        if len(kept) >= _MOST_VERSIONS and f"{place.stem}.{row['md5']}.jpg" not in kept:
            return f"the new file was not kept: {len(kept)} others are in conflicts"
        self._set_aside(arrival, row, row["md5"])
        return "the new file was moved to conflicts"

    def _clear(self, target: Path, row: Row) -> None:
        """Move a file out of the way whose second has no row.

        A crash left it there, after the rename and before the row, so nobody was told that it is stored. The same
        bytes may be replaced by themselves; others are moved to `conflicts`.
        """
        if not target.exists():
            return
        if (found := md5_of(target)) != row["md5"]:
            self._set_aside(target, row, found)

    def _set_aside(self, path: Path, row: Row, md5: str) -> None:
        target = self.conflicts / version_of(row, md5)
        durable.make_folder(target.parent)
        path.rename(target)
        failpoint.hit("hub: set aside")
        durable.flush_folder(target.parent)
        log.warning("conflict: moved to %s", target)


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _why_not_removed(path: Path) -> str:
    """Remove a file; why that failed, if it did."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return durable.explain(error, path)
    failpoint.hit("hub: deleted")
    return ""


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a day that has no images any more; else flush that some of them are gone."""
    try:
        folder.rmdir()
        failpoint.hit("hub: folder removed")
        durable.flush_folder(folder.parent)
    except FileNotFoundError:
        return
    except OSError:  # there are others
        durable.flush_folder(folder)


def place_of(row: Row) -> Path:
    """`<device>/<date>/<name>`: one spelling of the device, so that one image has one place."""
    return _place(row["device"].lower(), row["datetime"])


def version_of(row: Row, md5: str) -> Path:
    """Where below `conflicts` other bytes for a row's device and second lie."""
    place = place_of(row)
    return place.with_name(f"{place.stem}.{md5}.jpg")


@lru_cache(1000)
def _place(device: str, moment: str) -> Path:
    name = TrapName(device, datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S%z"))
    return Path(name.folder, str(name))
