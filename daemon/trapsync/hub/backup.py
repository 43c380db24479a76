"""A copy of a hub, made while it runs: its database, its images, the other versions in `conflicts`.

The database is copied first, to a name of its own, then each image that the copy has a row of, and only then the copy gets
its name: so an image whose row is in a backup lies there, whole, whatever happens meanwhile. What lies there
already is not copied again, and nothing is ever removed or written over. A backup has the form of a hub's folder, and
so it is restored by the same way back. Small copies are made again when somebody asks for them.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trapsync.errors import StorageError, one_line
from trapsync.files import durable, failpoint
from trapsync.files.locks import locked
from trapsync.hub.database import FILE
from trapsync.hub.store import Row, place_of

_AT_ONCE = 1 << 20  # bytes of a file that are read and written at a time
_ROWS_AT_ONCE = 1000


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
            copied = target / f"{FILE}.copied"
            _copy_database(source / FILE, copied)
            for row in _rows(copied):
                _copy_image(source, target, row, outcome, verify=verify)
                tell(outcome)
            _copy_versions(source, target)
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


def _rows(database: Path) -> Iterator[Row]:
    """Its images, oldest rows first."""
    sql = "SELECT id, device, datetime, md5 FROM images WHERE id > ? ORDER BY id LIMIT ?"
    last = 0
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        while found := connection.execute(sql, (last, _ROWS_AT_ONCE)).fetchall():
            yield from map(dict, found)
            last = found[-1]["id"]


def _copy_image(source: Path, target: Path, row: Row, outcome: Outcome, *, verify: bool) -> None:
    place = Path("images", place_of(row))
    outcome.images += 1
    there = target / place
    if there.exists() and (not verify or _digest(there) == row["md5"]):
        return
    try:
        durable.make_folder(there.parent)
        outcome.bytes += _copy_file(source / place, there, row["md5"])
        outcome.new += 1
    except FileNotFoundError:
        outcome.missing.append(row)
    except _Damaged as error:
        outcome.problems.append(f"{place}: {error}")


class _Damaged(Exception):
    """A file that is not what its row says."""


def _copy_file(source: Path, target: Path, md5: str) -> int:
    """Copy a file under a temporary name, durably, and give it its name if it is what its row says; its size."""
    temporary = target.with_name(f".{target.name}.part")
    digest = hashlib.md5(usedforsecurity=False)
    with source.open("rb") as reading, temporary.open("wb") as writing:
        while data := reading.read(_AT_ONCE):
            digest.update(data)
            writing.write(data)
        writing.flush()
        os.fsync(writing.fileno())
        size = writing.tell()
    if md5 and digest.hexdigest() != md5:
        temporary.unlink()
        raise _Damaged(f"is damaged: its md5 is {digest.hexdigest()}, not {md5}")
    temporary.replace(target)
    failpoint.hit("backup: image copied")
    durable.flush_folder(target.parent)
    return size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _copy_versions(source: Path, target: Path) -> None:
    """Copy what lies in `conflicts`."""
    for path in sorted((source / "conflicts").rglob("*.jpg")):
        there = target / path.relative_to(source)
        if not there.exists():
            durable.make_folder(there.parent)
            _copy_file(path, there, "")


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
