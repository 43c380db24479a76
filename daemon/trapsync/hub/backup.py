"""A copy of a hub, made while it runs: its database, its images, the other versions in `conflicts`.

The database is copied first, to a name of its own, then each image that the copy has a row of, and only then the copy gets
its name: so an image whose row is in a backup lies there, whole, whatever happens meanwhile. What lies there
already is not copied again, and no image is ever removed: where another one has its name now, it moves to `conflicts`. A
backup has the form of a hub's folder, and so it is restored by the same way back. Small copies are made again when
somebody asks for them.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from trapsync.errors import StorageError, one_line
from trapsync.files import durable, failpoint
from trapsync.files.locks import locked
from trapsync.hub.database import FILE
from trapsync.hub.store import CONFLICTS, Row, md5_of, place_of, version_of

_AT_ONCE = 1 << 20  # bytes of a file that are read and written at a time
_ROWS_AT_ONCE = 1000
_KEY = "SELECT value FROM secrets WHERE name = 'key'"  # made at a hub's first start: each has its own
_ROWS = "SELECT id, device, datetime, md5, {} AS is_known FROM images WHERE id > ? ORDER BY id LIMIT ?"
_KNOWN = (
    "EXISTS (SELECT 1 FROM before.images AS one "
    "WHERE one.device = images.device AND one.datetime = images.datetime AND one.md5 = images.md5)"
)


@dataclass(slots=True)
class Outcome:
    """What became of a backup: numbers, and a line for each image that could not be copied. `missing`: no file."""

    images: int = 0
    new: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)


def copy(source: Path, target: Path, tell: Callable[[Outcome], None], *, verify: bool = False) -> Outcome:
    """Copy the hub in the folder `source` to `target`; `tell` hears of it image by image.

    With `verify` what lies there already is read, too, and compared with its row. Raises StorageError where nothing can be
    copied. An image that is missing or damaged is a problem, and costs the others nothing.
    """
    if not (source / FILE).is_file():
        raise StorageError(f"{source}: there is no hub in this folder; name its folder with --folder")
    if (target / "hub.lock").exists():
        raise StorageError(f"{target}: a hub ran in this folder; move it away, or choose another one")
    outcome = Outcome()
    try:
        durable.make_folder(target)
        target.chmod(0o700)  # of this account alone: it holds what logs in and signs
        with locked(target / "backup.lock", wait=False, mode=0o600):
            before = _before(source, target)
            copied = target / f"{FILE}.copied"
            _copy_database(source / FILE, copied)
            for row in _rows(copied, before):
                _copy_image(source, target, row, outcome, verify=verify)
                tell(outcome)
            _copy_versions(source, target, outcome)
            _forget_deleted(source / FILE, copied, outcome)
            copied.replace(target / FILE)
            failpoint.hit("backup: complete")
            durable.flush_folder(target)
    except BlockingIOError:
        raise StorageError(f"{target}: another backup is being made there") from None
    except sqlite3.Error as error:
        raise StorageError(f"{source / FILE}: the hub's database cannot be copied: {error}") from error
    except OSError as error:
        raise StorageError(durable.explain(error, target)) from error
    return outcome


def _before(source: Path, target: Path) -> Path | None:
    """The database of the backup that lies there; None where there is none that can be read.

    Raises StorageError for that of another hub. A hub that is begun anew after its disk broke is another one: a backup of it
    would take the place of the only one that names the pictures.
    """
    path = target / FILE
    if not path.is_file():
        return None
    try:
        with closing(_reading(path)) as connection:
            if connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                return None
            key = connection.execute(_KEY).fetchone()
    except sqlite3.Error:
        return None
    with closing(_reading(source / FILE)) as connection:
        if key != connection.execute(_KEY).fetchone():
            raise StorageError(f"{target}: the backup of another hub lies there; choose another folder")
    return path


def _copy_database(source: Path, copied: Path) -> None:
    """Copy one state of the database, in one step: writers go on meanwhile."""
    copied.unlink(missing_ok=True)
    with closing(_reading(source)) as one, closing(sqlite3.connect(copied)) as other:
        copied.chmod(0o600)
        one.backup(other)
        other.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
        if (said := other.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise StorageError(f"{source}: the hub's database is damaged: {one_line(said)}")
    with copied.open("rb") as file:
        os.fsync(file.fileno())
    failpoint.hit("backup: database copied")


def _rows(database: Path, before: Path | None) -> Iterator[Row]:
    """Its images, oldest rows first; `is_known`: the backup from before has the same row."""
    sql, last = _ROWS.format(_KNOWN if before else "0"), 0
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        if before:
            connection.execute("ATTACH ? AS before", (str(before),))
        while found := connection.execute(sql, (last, _ROWS_AT_ONCE)).fetchall():
            yield from map(dict, found)
            last = found[-1]["id"]


def _copy_image(source: Path, target: Path, row: Row, outcome: Outcome, *, verify: bool) -> None:
    place = Path("images", place_of(row))
    outcome.images += 1
    there = target / place
    if there.exists():
        found = row["md5"] if row["is_known"] and not verify else _digest(there)
        if found == row["md5"]:
            return
        if not row["is_known"]:  # an image that the hub had before, and has another one in its place
            _move(there, target / CONFLICTS / version_of(row, found))
    try:
        durable.make_folder(there.parent)
        outcome.bytes += _copy_file(source / place, there, row["md5"])
        outcome.new += 1
    except _Missing:
        outcome.missing.append(row)
    except _Damaged as error:
        outcome.problems.append(f"{place}: {error}")


class _Missing(Exception):
    """A file of the hub that is not there."""


class _Damaged(Exception):
    """A file of the hub that cannot be read, or is not what its row says."""


def _copy_file(source: Path, target: Path, md5: str) -> int:
    """Copy a file under a temporary name, durably, and give it its name if it is what its row says; its size."""
    temporary = target.with_name(f".{target.name}.part")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with temporary.open("wb") as writing:
            for data in _content(source):
                digest.update(data)
                writing.write(data)
            writing.flush()
            os.fsync(writing.fileno())
            size = writing.tell()
        if md5 and digest.hexdigest() != md5:
            raise _Damaged(f"is damaged: its md5 is {digest.hexdigest()}, not {md5}")
    except (_Missing, _Damaged):
        temporary.unlink()
        raise
    temporary.replace(target)
    failpoint.hit("backup: image copied")
    durable.flush_folder(target.parent)
    return size


def _content(path: Path) -> Iterator[bytes]:
    """A file of the hub, in parts. One that a failing disk does not give costs itself: _Damaged."""
    try:
        with path.open("rb") as file:
            while data := file.read(_AT_ONCE):
                yield data
    except FileNotFoundError:
        raise _Missing from None
    except OSError as error:
        raise _Damaged(f"cannot be read: {error.strerror}") from None


def _digest(path: Path) -> str:
    """The MD5 of a file of the backup."""
    try:
        return md5_of(path)
    except OSError:
        return "unreadable"


def _move(path: Path, place: Path) -> None:
    durable.make_folder(place.parent)
    path.replace(place)
    failpoint.hit("backup: version set aside")
    durable.flush_folder(place.parent)


def _copy_versions(source: Path, target: Path, outcome: Outcome) -> None:
    """Copy what lies in `conflicts`."""
    for path in sorted((source / CONFLICTS).rglob("*.jpg")):
        place = path.relative_to(source)
        if (target / place).exists():
            continue
        durable.make_folder((target / place).parent)
        try:
            with suppress(_Missing):  # somebody has looked through them meanwhile
                _copy_file(path, target / place, "")
        except _Damaged as error:
            outcome.problems.append(f"{place}: {error}")


def _forget_deleted(source: Path, copied: Path, outcome: Outcome) -> None:
    """What was deleted at the hub while its images were copied is no problem: its row goes from the copy, too."""
    known = "SELECT 1 FROM images WHERE device = :device AND datetime = :datetime"
    with closing(_reading(source)) as live, closing(sqlite3.connect(copied, isolation_level=None)) as copy_:
        for row in outcome.missing:
            if live.execute(known, row).fetchone():
                outcome.problems.append(f"{Path('images', place_of(row))}: is missing")
            else:
                copy_.execute("PRAGMA foreign_keys = ON")  # with its annotations
                copy_.execute("DELETE FROM images WHERE id = :id", row)
                outcome.images -= 1


def _reading(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
