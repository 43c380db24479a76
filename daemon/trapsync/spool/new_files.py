"""What a capture needs to store a picture: room on the card, a free name, and no remains of killed captures."""

import logging
import os
from collections.abc import Container
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trapsync.errors import StorageError
from trapsync.files import durable, failpoint
from trapsync.files.space import free_bytes
from trapsync.image import TrapName
from trapsync.settings.schema import Storage

log = logging.getLogger(__name__)


def require_space(storage: Storage) -> None:
    """StorageError when less than `storage.min_free` is left on the spool's filesystem."""
    free = free_bytes(storage.spool)
    if free < storage.min_free:
        raise StorageError(
            f"only {free / 1e6:.0f} MB are free on the card and {storage.min_free / 1e6:.0f} MB must stay "
            f"free (storage.min_free): no pictures are taken until images are delivered and pruned"
        )


def free_name(spool: Path, device: str, wall: float, taken: Container[str]) -> TrapName:
    """The name for a picture of that unix second, or of the first later one that no other image has."""
    name = TrapName(device, datetime.fromtimestamp(int(wall), UTC))
    while str(name) in taken or os.path.lexists(spool / name.folder / str(name)):
        name = TrapName(device, name.taken + timedelta(seconds=1))
    return name


def remove_unfinished(spool: Path, device: str) -> int:
    """Remove temporary files of captures that were killed, and return how many. To be called before the camera starts."""
    removed = 0
    try:
        for left_over in (spool / device).glob(f"*/.{device}.*.part"):
            left_over.unlink(missing_ok=True)
            failpoint.hit("capture: unfinished removed")
            removed += 1
    except OSError as error:
        log.error("%s", durable.explain(error, spool))
    return removed
