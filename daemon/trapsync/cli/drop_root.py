"""The service user: root works on a trap as the user that its files belong to, or refuses."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.runtime import seccomp  # now: afterwards nothing of the interpreter's can be read

_MOST_SAID = 4000  # bytes: a pipe holds them
_MOST_LINKS = 40  # in one path, as in the kernel


def is_root() -> bool:
    """Whether this process is root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0  # Windows has no root


def step_down(path: Path) -> None:
    """Become the user that `path` belongs to, if called by root, for the rest of this process.

    So `sudo trapsync retry` leaves no file behind that the daemon may not write, and whatever goes wrong has no
    more powers than the daemon. The account is the owner of the first part of the path, from the top, that is not
    root's: that account cannot move it. What the account keeps below it, links say, decides nothing. Where every
    part is root's, and nobody else may put anything there, this process stays root.

    Raises StorageError where that user is unknown or cannot be become: it never stays root instead.
    """
    if not is_root():
        return
    found = _first_not_roots(path)
    if found is None:
        return
    place, user, folders_group = found
    try:
        group, groups = _groups(place, user, folders_group)
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(user)
    except OSError as error:
        raise StorageError(
            f"{place} belongs to user {user}, who must run this; becoming that user failed: {error.strerror}"
        ) from error
    # A program that is started from here may be traced by the account's other processes, and this is root's terminal.
    with suppress(OSError):
        seccomp.keep_from_typing()


def without_root(work: Callable[[], str]) -> str:
    """Do work that steps down in a child, so that this process stays root; what it returned.

    Raises what it raised, as a SettingsError. The child may be the account's: what it returns is as good as that one's word.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "-the check failed unexpectedly"
        try:
            said = f"+{work()}"
        except TrapsyncError as error:
            said = f"-{error}"
        finally:
            os.write(writing, said.encode()[:_MOST_SAID])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read(_MOST_SAID).decode("utf-8", "replace")
    os.waitpid(child, 0)
    if not said.startswith("+"):
        raise SettingsError(said[1:] or "the process that does this in the account's name was killed")
    return said[1:]


def account_group(path: Path) -> int | None:
    """The group of the user that `step_down` would make of root; None where it would stay root."""
    found = _first_not_roots(path)
    return None if found is None else _groups(*found)[0]


def _first_not_roots(path: Path) -> tuple[Path, int, int] | None:
    """The first part of a path, from the top, that is not root's, with its user and group; None if there is none.

    Root's own links are followed, each part of where they lead being looked at in its turn; nobody else's are.
    """
    place, links = Path("/"), 0
    try:
        rest = _parts(path.absolute())
        while rest:
            name = rest.pop()
            if name == "..":  # `place` has no link in it
                place = place.parent
                continue
            found = _look(place, name)
            if found is None:
                return None
            if found.st_uid != 0:
                return place / name, found.st_uid, found.st_gid
            if not stat.S_ISLNK(found.st_mode):
                place /= name
                continue
            links += 1
            if links > _MOST_LINKS:
                raise StorageError(f"{path}: too many nested links; nothing is done as root")
            target = (place / name).readlink()
            rest += _parts(target)
            place = Path("/") if target.is_absolute() else place
        if stat.S_IMODE(place.lstat().st_mode) & 0o022:
            raise _open_to_others(place)
    except OSError as error:
        raise StorageError(
            f"{path}: its owner cannot be found out ({error.filename}: {error.strerror}); nothing is done as root"
        ) from error
    return None


def _parts(path: Path) -> list[str]:
    """The parts of a path without its root, the first one last."""
    return [part for part in reversed(path.parts) if part != "/"]


def _look(folder: Path, name: str) -> os.stat_result | None:
    """What is there under a name in a folder of root's; None if nothing is, and only root may change that."""
    mode = folder.lstat().st_mode
    is_open = bool(mode & 0o022)
    try:
        found = (folder / name).lstat()
    except FileNotFoundError:
        found = None
    # In a folder like /tmp nobody can replace what is root's, but anybody can be the first.
    if is_open and (found is None or (found.st_uid == 0 and not mode & stat.S_ISVTX)):
        raise _open_to_others(folder)
    return found


def _open_to_others(place: Path) -> StorageError:
    return StorageError(
        f"{place}: it belongs to root, but others may write there, so nothing is done there as root; "
        f"close it (sudo chmod go-w {place}), or give what is in it to the daemon's user"
    )


def _groups(place: Path, user: int, group: int) -> tuple[int, list[int]]:
    """The account's own group, and all of its groups: that of the camera's devices, say."""
    import pwd  # not on Windows

    try:
        account = pwd.getpwuid(user)
    except KeyError:  # a number without a name
        if group == 0:
            raise StorageError(
                f"{place} belongs to user {user}, but to root's group; run: sudo chgrp {user} {place}"
            ) from None
        return group, [group]
    return account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)
