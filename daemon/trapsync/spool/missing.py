"""Files that are not where the catalog has them: removed by somebody, or moved to another path."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trapsync.errors import StorageError
from trapsync.image import Found, Image
from trapsync.settings.schema import Storage
from trapsync.spool import spool_mark
from trapsync.spool.scan import stat_file

if TYPE_CHECKING:  # as in `pipeline`: the camera's process need not load SQLite
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)


def forget(catalog: Catalog, storage: Storage, folder: str, names: Iterable[str]) -> None:
    """Record that files of a folder are gone, if they are: a scan did not find them.

    One that was ingested after its folder was listed is known and was not found, and is there all the same.
    """
    paths = [f"{folder}/{name}" if folder else name for name in names]
    paths = [path for path in paths if _is_gone(storage.spool, path)]
    if not paths:
        return
    spool_mark.check(storage)  # that they were looked for in the spool, and it was not unmounted meanwhile
    if gone := catalog.images.forget_files(paths):
        log.warning("%d images are not on the card any more: somebody or something removed their files", gone)


def _is_gone(spool: Path, path: str) -> bool:
    """Whether there is no such file. One that the card cannot show now is not gone."""
    try:
        return stat_file(spool, path) is None
    except StorageError:
        return False


def moved_from(catalog: Catalog, spool: Path, found: Found, image: Image) -> list[str]:
    """The paths at which an image of the catalog lay before its file was moved to this one.

    Another file may have the old path by then.
    """
    others = [other for other in catalog.images.files_of(image) if other.path != found.path]
    return [other.path for other in others if not _is_as_it_was(spool, other)]


def _is_as_it_was(spool: Path, found: Found) -> bool:
    """Whether a file is there unchanged, or cannot be shown by the card now."""
    try:
        return stat_file(spool, found.path) == found
    except StorageError:
        return True
