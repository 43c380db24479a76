"""Whether the right medium is in its place, and which one it is: by the mark in its folder, or by being mounted."""

import os
from pathlib import Path

from trapsync.errors import Unreachable
from trapsync.files import destination_mark
from trapsync.files.folder import Folder


class Away(Unreachable):
    """Nothing is there that could be the medium."""


def opened(path: Path) -> Folder:
    """The folder at this path, whatever it is. Raises Away."""
    try:
        return Folder.open(path)
    except OSError as error:
        raise Away(f"the folder {path} is not there: {error.strerror}") from None


def prove(root: Folder, *, by_mark: bool) -> str:
    """What the id in its mark is, '' if it has none yet. Raises Away, or StorageError for an odd mark.

    `by_mark`: it must have a mark. Otherwise something must be mounted there.
    """
    # On a mounted file system, ".." leads out of it.
    others = {Path("/").stat().st_dev, os.stat("..", dir_fd=root.descriptor).st_dev}
    if not by_mark and root.device in others:
        raise Away(f"nothing is mounted at {root.path}: is its disk or stick connected?")
    try:
        return destination_mark.read(root)
    except FileNotFoundError:
        if by_mark:
            raise Away(
                f"{root.path} has no mark: is its disk or stick connected? "
                f"if the right one is mounted there now, run: sudo touch {root.path / destination_mark.NAME}"
            ) from None
        return ""
