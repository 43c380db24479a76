"""Whose files these are: what root is asked to do to a trap is done in the name of the account that owns it."""

import os
import pwd
from pathlib import Path

from trapsync.errors import StorageError


def step_down(state: Path) -> None:
    """Called by root, become the owner of the state folder for the rest of this process; else do nothing.

    So `sudo trapsync retry` leaves no file behind that the daemon may not write, and whatever goes wrong has no
    more powers than the daemon. If the folder is not there yet, the one that it will be made in decides.
    Raises StorageError where this cannot be done.
    """
    owner = _owner(state)
    if os.geteuid() != 0 or owner is None or owner[0] == 0:
        return
    user, group = owner
    try:
        os.setgroups(_groups(user, group))
        os.setgid(group)
        os.setuid(user)
    except OSError as error:
        raise StorageError(
            f"{state} belongs to user {user}, who must run this; taking his place failed: {error.strerror}"
        ) from error


def _owner(folder: Path) -> tuple[int, int] | None:
    """The user and group of the folder, or of the nearest above it that exists; None if that is not to be seen."""
    for place in (folder, *folder.parents):
        try:
            found = place.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return found.st_uid, found.st_gid
    return None


def _groups(user: int, group: int) -> list[int]:
    """His groups: that of the camera's devices, say."""
    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:  # a number without a name
        return [group]
