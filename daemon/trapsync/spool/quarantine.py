"""Quarantine: a folder where damaged files are kept with their reasons, away from the others.

The folder is the truth here too: a reason lies beside each file, so that the catalog's rows can be made
again. An operator who thinks that a file is good puts it back manually, and it is examined again. One that has
changed since, because a slow writer finished it, is put back by the next sweep.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trapsync.errors import StorageError
from trapsync.files import durable, failpoint
from trapsync.image import UNWRITABLE, Found, is_image_name, is_others_folder
from trapsync.settings.schema import Storage
from trapsync.spool import spool_mark
from trapsync.spool.not_taken_in import skip_on_bug
from trapsync.spool.scan import found_as

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)
_REASON = ".reason"  # what is written beside a file in quarantine is named like it, with this behind
_MAX_REASON = 20_000  # bytes of it: a path has 4,096, of which each may be written as four
_MAX_PER_SWEEP = 100  # files that one sweep puts back: each costs some flushes

NO_TEXT = "its name holds characters that are no text"


def quarantine(catalog: Catalog, storage: Storage, found: Found, reason: str) -> None:
    """Move a damaged file to quarantine: write the reason, add the row, then move the file.

    Killed in between, the next sweep finds the file again and ends in the same row and name. So it does
    where the file cannot be moved (a folder that somebody copied as root): it stays where it lies, and is
    left alone until the daemon restarts.
    """
    kept_as, path = _name_of(found), _printable(found.path)
    log.warning("quarantined %s: %s", path, reason)
    try:
        durable.write(storage.quarantine / f"{kept_as}{_REASON}", [f"{path}\n{reason}\n".encode()])
    except StorageError as error:  # then it stands in the catalog only
        log.error("its reason cannot be kept beside it: %s", error)
    catalog.quarantine.add(path, kept_as, reason, found.size)
    try:
        (storage.spool / found.path).rename(storage.quarantine / kept_as)
        failpoint.hit("quarantine: moved")
        durable.flush_folder(storage.quarantine)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.error("it cannot be moved: %s", durable.explain(error, storage.quarantine))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row of quarantine, whether its file is there, and whether that has changed since it was moved there."""

    id: int
    path: str
    kept_as: str
    is_there: bool
    has_changed: bool


def inspect(catalog: Catalog, storage: Storage) -> list[Quarantined]:
    """List the files in quarantine as they are now. One that cannot be looked up counts as not there."""
    unknown: list[OSError] = []
    found = [_inspected(storage, row, unknown.append) for row in catalog.quarantine.listing()]
    for error in unknown[:1]:  # it is most likely about the folder, and so about each file
        log.error("%s", durable.explain(error, storage.quarantine))
    return found


def _inspected(storage: Storage, row: dict[str, Any], note: Callable[[OSError], object]) -> Quarantined:
    path, kept_as, is_there, has_changed = row["path"], row["kept_as"], True, False
    try:
        status = (storage.quarantine / kept_as).lstat()
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    except OSError as error:
        is_there = False
        note(error)
    else:
        # Its name says what it was like. Not if its path was written out, or is not known any more.
        is_readable = row["reason"] != NO_TEXT and path != kept_as and stat.S_ISREG(status.st_mode)
        has_changed = is_readable and _name_of(found_as(path, status)) != kept_as
    return Quarantined(row["id"], path, kept_as, is_there, has_changed)


def put_back_changed(catalog: Catalog, storage: Storage, kept: Iterable[Quarantined]) -> None:
    """Put files that have changed in quarantine back where they lay, to be examined again.

    A slow writer may have finished one here. One whose path is taken stays.
    """
    changed = [one for one in kept if one.has_changed]
    for one in changed[:_MAX_PER_SWEEP]:
        with skip_on_bug(one.path, lambda _reason: None):
            try:
                _put_back(catalog, storage, one)
            except StorageError as error:
                log.warning("%s has changed in quarantine, and stays there: %s", one.path, error)
            else:
                log.info("%s has changed in quarantine: it is examined again", one.path)


def stuck(kept: Iterable[Quarantined]) -> Callable[[Found], bool]:
    """A test whether a file of the spool is in quarantine by its row, but could not be moved there."""
    names = {one.kept_as for one in kept if not one.is_there}
    return lambda found: bool(names) and _name_of(found) in names


def reconcile(catalog: Catalog, storage: Storage) -> None:
    """Make the catalog agree with the quarantine folder, which is the truth, at the start of a daemon.

    A row is made for a file that has none, from the reason beside it. A row whose file is not there is removed:
    that was released, removed, or never moved; then the sweep finds it where it lies.
    """
    if not storage.spool.is_dir() or spool_mark.problem(storage):
        return
    try:
        names = {path.name for path in storage.quarantine.iterdir() if is_image_name(path.name)}
    except FileNotFoundError:
        names = set()
    except OSError as error:
        log.error("%s", durable.explain(error, storage.quarantine))
        return
    known = {row["kept_as"]: row["id"] for row in catalog.quarantine.listing()}
    unknown = sorted(names - known.keys())
    catalog.quarantine.correct(
        add=[_row_of(storage.quarantine / name) for name in unknown],
        remove=[row_id for kept_as, row_id in known.items() if kept_as not in names],
    )
    if unknown:
        log.warning("%d files in quarantine were missing from the catalog and were added again", len(unknown))


def _row_of(kept: Path) -> tuple[str, str, str, int]:
    """The row (path, kept_as, reason, size) of a file in quarantine, from the reason beside it."""
    path, reason = "", ""
    with suppress(OSError, ValueError):
        beside = durable.read_plain(kept.with_name(f"{kept.name}{_REASON}"), _MAX_REASON)
        path, reason = beside.decode().split("\n")[:2]
    if not _is_images_path(path):  # anybody may have written that
        path = kept.name
    return path, kept.name, _printable(reason) or "its reason was lost", kept.lstat().st_size


def release(catalog: Catalog, storage: Storage, quarantine_id: int) -> str:
    """Put a quarantined file back where it lay, to be examined again, and return its path in the spool."""
    for one in inspect(catalog, storage):
        if one.id == quarantine_id:
            _put_back(catalog, storage, one)
            return one.path
    raise StorageError(f"there is no number {quarantine_id} in quarantine; see: trapsync quarantine")


def _put_back(catalog: Catalog, storage: Storage, one: Quarantined) -> None:
    """Move a file back, then remove its reason and its row. Raises StorageError.

    Killed in between, it is recorded in both places, and the next sweep examines it. The path comes from
    the catalog and is checked.
    """
    target = storage.spool / one.path
    try:
        if not (_is_images_path(one.path) and _is_images_path(one.kept_as) and "/" not in one.kept_as):
            raise StorageError(
                f"{_printable(one.path)}: is no path of an image in the spool; "
                f"move the file there yourself, from {storage.quarantine}"
            )
        # Where a link took a folder's place, or the path leads out of the spool, it would end up elsewhere.
        if target.parent.resolve() != (storage.spool.resolve() / one.path).parent:
            raise StorageError(f"{target.parent} is not a folder of the spool")
        if os.path.lexists(target):
            raise StorageError(f"{target} is there already; move it away first")
        durable.make_folder(target.parent)
        (storage.quarantine / one.kept_as).rename(target)
        failpoint.hit("release: moved")
        durable.flush_folder(target.parent)
        (storage.quarantine / f"{one.kept_as}{_REASON}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(durable.explain(error, target)) from error
    except RuntimeError as error:  # Path.resolve, of a link that leads to itself
        raise StorageError(f"{target.parent}: a link is in the way; remove it") from error
    catalog.quarantine.release(one.id)


def _is_images_path(path: str) -> bool:
    """Whether an image of the spool may lie under this path: in a folder that the sweep enters, named as images are."""
    *folders, name = path.split("/")
    return is_text(path) and is_image_name(name) and not any(p == "" or is_others_folder(p) for p in folders)


def is_text(path: str) -> bool:
    """Whether a path can be written down: valid UTF-8 without control characters."""
    return UNWRITABLE.search(path) is None


def _name_of(found: Found) -> str:
    """The name of a file in quarantine: its own without unsafe characters, with a hash of path, size and date before it."""
    mark = hashlib.sha256(os.fsencode(f"{found.path}\0{found.size}\0{found.mtime_ns}")).hexdigest()[:12]
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in found.name)
    return f"{mark}.{safe[-100:].lstrip('.')}"


def _printable(path: str) -> str:
    """The path as text: bytes that are no UTF-8 and control characters are written as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return UNWRITABLE.sub(lambda control: control[0].encode("unicode_escape").decode(), text)
