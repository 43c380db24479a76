"""The marks beside the catalog: that it was found damaged, that it is doubted, and that it was closed in order.

A catalog with the mark of damage is kept aside and rebuilt by the next start. One without the mark of a clean stop
(the process was killed, or the power was cut) is checked in full after the start, in the background. One with the
mark of doubt is checked before it is used: something failed that damage would explain, and may fail again at once.
"""

import os
from contextlib import suppress
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import durable, failpoint


def damage_mark(catalog: Path) -> Path:
    """The file that says that a catalog was found damaged."""
    return catalog.with_suffix(".damaged")


def doubt_mark(catalog: Path) -> Path:
    """The file that says that a catalog is to be checked before it is used."""
    return catalog.with_suffix(".doubted")


def mark_damage(catalog: Path) -> None:
    """Say durably that the catalog is damaged."""
    _mark(damage_mark(catalog))


def mark_doubt(catalog: Path) -> None:
    """Say durably that the next start is to check the catalog before it uses it."""
    _mark(doubt_mark(catalog))


def end_doubt(catalog: Path) -> None:
    """A full check found nothing wrong."""
    with suppress(OSError):  # then it is checked once more
        doubt_mark(catalog).unlink(missing_ok=True)
        failpoint.hit("catalog: mark of doubt removed")


def _mark(path: Path) -> None:
    """Make an empty file, for on a full card there is room for a name, not for a block."""
    with suppress(OSError):  # on a card that takes not even that, the next start checks it again
        os.close(durable.open_plain(path, os.O_WRONLY | os.O_CREAT))
        failpoint.hit("catalog: marked as damaged")
        durable.flush_folder(path.parent)


def mark_closed(catalog: Path, checked_at: float) -> None:
    """Say that the catalog was closed in order, and when (unix seconds) a full check last found nothing wrong."""
    with suppress(OSError, StorageError):  # then it is checked once more
        durable.write(_closed_mark(catalog), [_description(catalog), b"%f\n" % checked_at])
        failpoint.hit("catalog: marked as closed")


def take_closed_mark(catalog: Path) -> float | None:
    """When a catalog that is as it was closed was last checked; None if it is not, or that is unknown.

    Removes the mark durably, before anything is written. Raises OSError.
    """
    Path(f"{catalog}-seals").unlink(
        missing_ok=True
    )  # of an earlier version, which had checksums of pages there
    mark, description = _closed_mark(catalog), _description(catalog)
    try:
        found = durable.read_plain(mark, 200)
    except FileNotFoundError:
        return None
    mark.unlink()
    failpoint.hit("catalog: mark of a clean stop removed")
    durable.flush_folder(catalog.parent)
    with suppress(ValueError):
        return float(found.removeprefix(description)) if found.startswith(description) else None
    return None


def _closed_mark(catalog: Path) -> Path:
    return catalog.with_suffix(".closed")


def _description(catalog: Path) -> bytes:
    """Size and time of the file: another program that wrote to it meanwhile, or put another one there, shows."""
    log = Path(f"{catalog}-wal")
    try:
        status, left = catalog.stat(), log.stat().st_size if log.exists() else 0
    except OSError:
        return b"not there"
    return b"%d bytes, %d bytes of log, written at %d, checked at " % (
        status.st_size,
        left,
        status.st_mtime_ns,
    )
