"""Quarantine: where damaged files are kept with their reasons, out of the way of the others.

The folder is the truth here too: a reason lies beside each file, so that the catalog's rows can be made
again. A file that its owner thinks is well is put back by hand, and examined again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trapsync import durable, failpoint
from trapsync.errors import StorageError
from trapsync.image import Found, is_image_name
from trapsync.settings import Storage

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)
_REASON = ".reason"  # what is written beside a file in quarantine is named like it, with this behind


def quarantine(catalog: Catalog, storage: Storage, found: Found, reason: str) -> None:
    """Keep a damaged file with its reason, out of the way: the reason, the row, then the move.

    Killed in between, the next sweep finds the file again and ends in the same row and name. So it does
    where the file cannot be moved (a folder that somebody copied as root): it stays where it lies, and is
    left alone until the daemon begins anew.
    """
    kept_as, path = _name_of(found), _printable(found.path)
    log.warning("quarantined %s: %s", path, reason)
    try:
        durable.write(storage.quarantine / f"{kept_as}{_REASON}", [f"{path}\n{reason}\n".encode()])
    except StorageError as error:  # then it stands in the catalog only
        log.error("its reason cannot be kept beside it: %s", error)
    catalog.add_quarantined(path, kept_as, reason, found.size)
    try:
        (storage.spool / found.path).rename(storage.quarantine / kept_as)
        failpoint.hit("quarantine: moved")
        durable.flush_folder(storage.quarantine)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.error("it cannot be moved: %s", durable.explain(error, storage.quarantine))


def stuck(catalog: Catalog, storage: Storage) -> Callable[[Found], bool]:
    """Whether a file of the spool is damaged, recorded so, and could not be moved: as it was at this moment."""
    names = {row["kept_as"] for row in catalog.quarantined()}
    names -= {name for name in names if os.path.lexists(storage.quarantine / name)}
    return lambda found: bool(names) and _name_of(found) in names


def recall(catalog: Catalog, storage: Storage) -> None:
    """Make the catalog agree with the quarantine folder, which is the truth, at the start of a daemon.

    A row is made for a file that has none, from the reason beside it. One whose file is not there goes:
    that was released or taken away, or never moved; then the sweep finds it where it lies.
    """
    if not storage.spool.is_dir():
        return
    try:
        names = {path.name for path in storage.quarantine.iterdir() if is_image_name(path.name)}
    except FileNotFoundError:
        names = set()
    except OSError as error:
        log.error("%s", durable.explain(error, storage.quarantine))
        return
    known = {row["kept_as"]: row["id"] for row in catalog.quarantined()}
    unknown = sorted(names - known.keys())
    catalog.correct_quarantine(
        add=[_recalled(storage.quarantine / name) for name in unknown],
        remove=[row_id for kept_as, row_id in known.items() if kept_as not in names],
    )
    if unknown:
        log.warning("%d files in quarantine were not in the catalog; they are again", len(unknown))


def _recalled(kept: Path) -> tuple[str, str, str, int]:
    """(path, kept_as, reason, size) of a file in quarantine, from what lies beside it."""
    path, reason = "", ""
    with suppress(OSError, ValueError):
        path, reason = kept.with_name(f"{kept.name}{_REASON}").read_text().splitlines()[:2]
    return path or kept.name, kept.name, reason or "its reason was lost", kept.lstat().st_size


def release(catalog: Catalog, storage: Storage, quarantine_id: int) -> str:
    """Put a quarantined file back where it lay, to be examined again; its path in the spool."""
    for row in catalog.quarantined():
        if row["id"] == quarantine_id:
            break
    else:
        raise StorageError(f"there is no number {quarantine_id} in quarantine; see: trapsync quarantine")
    target = storage.spool / row["path"]
    if target.exists():
        raise StorageError(f"{target} is there already; move it away first")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The opposite order of going in: the file first. Killed in between, it is in both records, and the
    # next sweep examines it.
    (storage.quarantine / row["kept_as"]).rename(target)
    failpoint.hit("release: moved")
    (storage.quarantine / f"{row['kept_as']}{_REASON}").unlink(missing_ok=True)
    catalog.release_quarantined(quarantine_id)
    return str(row["path"])


def is_text(path: str) -> bool:
    """Whether a path can be written down: valid UTF-8 without control characters."""
    return path.isprintable()


def _name_of(found: Found) -> str:
    """The file's own name as far as it is harmless, made unique by what is known of it."""
    mark = hashlib.sha256(os.fsencode(f"{found.path}\0{found.size}\0{found.mtime_ns}")).hexdigest()[:12]
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in found.name)
    return f"{mark}.{safe[-100:].lstrip('.')}"


def _printable(path: str) -> str:
    """The path with bytes that are no text, and control characters, written out."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
