"""The kinds of destinations: those that ship, and those that packages installed beside the program add.

A kind is a module that defines `Settings` and `connect(name, settings, context)`. A package adds one by an entry
point in the group `trapsync.destinations`: its name is the kind, its value the module. A module is imported when a
table of its kind is in the config file, and not before.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from trapsync.errors import SettingsError, one_line
from trapsync.settings.schema import Destination as DestinationSettings

GROUP = "trapsync.destinations"
# Not found by entry points: these are there without the program's metadata, in a copy of its folder.
BUILT_IN = {
    "directory": "trapsync.destinations.directory",
    "imagekit": "trapsync.destinations.imagekit",
    "rclone": "trapsync.destinations.rclone",
    "s3": "trapsync.destinations.s3",
    "scale": "trapsync.destinations.scale",
    "skylab": "trapsync.destinations.skylab",
    "stickypi": "trapsync.destinations.stickypi",
}


class Kind(Protocol):
    """What the module of a kind defines."""

    Settings: type[DestinationSettings]
    connect: Callable[[str, Any, Any], Any]


def names() -> list[str]:
    """All kinds, without importing any."""
    return sorted({*BUILT_IN, *(point.name for point in _added())})


def load(kind: str) -> Kind:
    """Import a kind; SettingsError where there is none of this name, or two, or it is broken."""
    if kind in BUILT_IN:
        return cast("Kind", importlib.import_module(BUILT_IN[kind]))
    found = [point for point in _added() if point.name == kind]
    if not found:
        raise SettingsError(f"must be one of: {', '.join(names())}")
    packages = " and ".join(sorted(_package(point) for point in found))
    if len(found) > 1:
        raise SettingsError(f"{packages} both add this kind; uninstall one")
    try:
        module: Kind = found[0].load()
        is_kind = issubclass(module.Settings, DestinationSettings) and callable(module.connect)
    except Exception as error:
        why = one_line(f"{type(error).__name__}: {error}")
        raise SettingsError(f"{packages}, which adds this kind, cannot be used: {why}") from error
    if not is_kind:
        raise SettingsError(
            f"{packages} cannot be used: its Settings or its connect is none of a destination"
        )
    return module


def shadowed() -> list[str]:
    """The packages that add a kind of a name that the program itself has; theirs is never used."""
    return [f"{point.name} of {_package(point)}" for point in _added() if point.name in BUILT_IN]


def _added() -> list[EntryPoint]:
    return list(entry_points(group=GROUP))


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else point.value
