"""Folders that must not lie in one another, and destinations that must not be one place.

A destination in the spool would be images to deliver, without end; a spool in a destination would be its own copy. What
leads where is told by paths without links, by device and inode, and by what the kernel says is mounted where (a bind
mount is the same folder under another path). A folder that is not there yet is judged by those above it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from trapsync.errors import SettingsError, StorageError
from trapsync.files import destination_mark, mounts
from trapsync.files.folder import Folder
from trapsync.settings.schema import Storage
from trapsync.spool import spool_mark

HUB_SIGN = "hub.sqlite"
# What lies in a trap's folders: in its state, its spool, a folder that it delivers to.
_TRAP_SIGNS = {
    "catalog.sqlite": "a trap's state",
    ".quarantine": "a trap's spool",
    spool_mark.MARK: "a trap's spool",
    destination_mark.NAME: "a destination",
}
# Settings by which two destinations of one account keep different things there.
_APART = ("folder", "content", "profile", "deployment")


class Destination(Protocol):
    """The part of a destination that is needed here."""

    @property
    def name(self) -> str:
        """Its name in the settings."""

    @property
    def settings(self) -> Any:
        """The settings of its kind."""

    @property
    def identity(self) -> str | None:
        """Which place it is, as far as the settings tell."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A folder with the name of the setting that it stands in."""

    setting: str
    path: Path


def require(storage: Storage, destinations: Iterable[Destination], source: Path) -> None:
    """Raise SettingsError if folders of a trap lie in one another or in a hub's, or two destinations are one place."""
    every = list(destinations)
    folders = [_Named("storage.spool", storage.spool), _Named("storage.state", storage.state)]
    copies = [_Named(f"destinations.{one.name}.path", path) for one in every if (path := _folder_of(one))]
    for one, other in combinations([*folders, *copies], 2):
        _require_apart(one, other, source)
    for one in [*folders, *copies]:
        if hub := _above(one.path, {HUB_SIGN: "a hub"}):
            raise SettingsError(
                f"{source}: {one.setting} = {str(one.path)!r} lies in {hub}; choose another folder"
            )
    _require_different_marks(copies, source)
    _require_different_places(every, source)


def require_own_folder(folder: Path) -> None:
    """Raise SettingsError if a hub's folder is one of a trap's, or lies in one."""
    if trap := _above(folder, _TRAP_SIGNS):
        raise SettingsError(f"{folder}: a hub's folder must not be or lie in {trap}; choose another folder")


def _folder_of(destination: Destination) -> Path | None:
    path = getattr(destination.settings, "path", None)
    return path if isinstance(path, Path) else None


def _require_apart(one: _Named, other: _Named, source: Path) -> None:
    within, around = is_inside(one.path, other.path), is_inside(other.path, one.path)
    if within and around:
        problem = (
            f"{other.setting} = {str(other.path)!r} is the same folder as {one.setting} = {str(one.path)!r}"
        )
    elif within:
        problem = f"{one.setting} = {str(one.path)!r} lies in {other.setting} = {str(other.path)!r}"
    elif around:
        problem = f"{other.setting} = {str(other.path)!r} lies in {one.setting} = {str(one.path)!r}"
    else:
        return
    raise SettingsError(f"{source}: {problem}; let each be a folder of its own, outside of the other")


def _require_different_marks(folders: list[_Named], source: Path) -> None:
    for one, other in combinations(folders, 2):
        if (found := _id_in(one.path)) and found == _id_in(other.path):
            raise SettingsError(
                f"{source}: {one.setting} and {other.setting} have one mark and are one place; "
                f"if one is a copy of the other, run: sudo truncate -s 0 {other.path / destination_mark.NAME}"
            )


def _id_in(path: Path) -> str:
    with suppress(OSError, StorageError), Folder.open(path) as folder:
        return destination_mark.read(folder)
    return ""


def _require_different_places(destinations: list[Destination], source: Path) -> None:
    for one, other in combinations(destinations, 2):
        is_one_place = one.identity is not None and one.identity == other.identity
        if is_one_place and _kept_apart(one) == _kept_apart(other):
            raise SettingsError(
                f"{source}: destinations.{one.name} and destinations.{other.name} are one place "
                f"({one.identity}); remove one of them"
            )


def _kept_apart(destination: Destination) -> list[Any]:
    return [getattr(destination.settings, name, None) for name in _APART]


def is_inside(inner: Path, outer: Path) -> bool:
    """Whether one folder is the other or lies in it: by path, by inode, or by what is mounted where."""
    inner, outer = _resolved(inner), _resolved(outer)
    if inner.is_relative_to(outer) or mounts.identity(outer) in set(_ids_above(inner)):
        return True
    (disk, place), (other_disk, other_place) = _location(inner), _location(outer)
    return disk != "" and disk == other_disk and place.is_relative_to(other_place)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle: an error follows when it is opened
        return path.absolute()


def _above(path: Path, signs: dict[str, str]) -> str | None:
    """What the nearest folder with such a sign is, of this one and those above it; None if there is none."""
    path = _resolved(path)
    for folder in (path, *path.parents):
        for name, what in signs.items():
            with suppress(OSError):
                (folder / name).lstat()
                return f"{what} ({folder})"
    return None


def _ids_above(folder: Path) -> Iterator[tuple[int, int]]:
    """Device and inode of this folder and of those above it, as far as they exist."""
    for one in (folder, *folder.parents):
        if found := mounts.identity(one):
            yield found


def _location(folder: Path) -> tuple[str, PurePosixPath]:
    """On which file system a folder lies, and where in it; '' where the kernel does not tell it."""
    disk, place, deepest = "", PurePosixPath(), -1
    for one in mounts.mounted():
        depth = len(Path(one.point).parts)
        if folder.is_relative_to(one.point) and depth >= deepest:  # of two on one point the later lies on top
            disk, place, deepest = one.device, PurePosixPath(one.root) / folder.relative_to(one.point), depth
    return disk, place
