"""Destinations as a trap uses them: linked to the catalog, where they keep notes, and to one another."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trapsync.catalog import Catalog
from trapsync.catalog.rows import Registered
from trapsync.destinations import Destination, Tools, check_order, connect
from trapsync.errors import DeliveryError, NotThere, SettingsError
from trapsync.files.space import free_bytes
from trapsync.image import Image, Label
from trapsync.settings.schema import Settings, Storage
from trapsync.spool import overlap
from trapsync.trap import zone

log = logging.getLogger(__name__)

# The catalog is opened when the settings have been found to be well: later than destinations are made.
OpenCatalog = Callable[[], Catalog]


class CatalogNotebook:
    """The notebook of one destination (see `destinations.Notebook`), in the catalog."""

    def __init__(self, catalog: OpenCatalog, destination: str) -> None:
        self._catalog = catalog
        self._destination = destination

    def get(self, key: str) -> Any:
        """The note under this key; None if there is none."""
        return self._catalog().note(self._destination, key)

    def put(self, key: str, note: Any) -> None:
        """Write a note; durable when this returns."""
        self._catalog().put_note(self._destination, key, note)

    def forget(self, key: str) -> None:
        """Remove a note, if there is one."""
        self._catalog().forget_note(self._destination, key)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so, in order."""
        return self._catalog().note_keys(self._destination, prefix)

    def owed(self, since: float, until: float) -> int:
        """How many images of that time (unix seconds) are still to come."""
        return self._catalog().owed_between(self._destination, since, until)


class CatalogLabels:
    """Where one destination writes what it was answered (see `destinations.Labels`), in the catalog."""

    def __init__(self, catalog: OpenCatalog, destination: str) -> None:
        self._catalog = catalog
        self._destination = destination

    def open(self) -> Mapping[str, int]:
        """What is not answered yet: task -> image id."""
        return self._catalog().unlabelled(self._destination)

    def has(self, image_id: int, task: str) -> bool:
        """Whether this task of an image is written down."""
        return (self._catalog().receipt(self._destination, image_id) or {}).get("task") == task

    def put(self, labels: Mapping[int, Label]) -> None:
        """Write answers, by image id; durable when this returns."""
        self._catalog().put_labels(self._destination, labels)


def connect_all(settings: Settings, source: Path, tools: Tools, catalog: OpenCatalog) -> list[Destination]:
    """Connect every destination of the config file, each linked to the one that it comes after.

    Nothing is sent. Raises SettingsError if a table is wrong, their order goes in a circle, or folders lie in one
    another.
    """
    tables = settings.destinations
    check_order(tables, source)
    connected: dict[str, Destination] = {}
    for name, table in tables.items():
        own = replace(
            tools,
            notebook=CatalogNotebook(catalog, name),
            labels=CatalogLabels(catalog, name),
            zone=zone(settings),
            spool=settings.storage.spool,
            thumbnails=thumbnails_of(settings),
            copy_again=lambda image: catalog().copy_again(image.id),
            results=settings.storage.results / name,
            room=partial(_room, settings.storage),
            address=partial(_address, connected, catalog, table.get("after", "")),
        )
        connected[name] = connect(name, table, own, source)
    overlap.require(settings.storage, connected.values(), source)
    return list(connected.values())


def registered(destinations: Iterable[Destination]) -> list[Registered]:
    """The destinations as the catalog knows them."""
    return [Registered(d.name, d.settings.kind, d.settings.required, d.identity) for d in destinations]


def thumbnails_of(settings: Settings) -> Path:
    """The folder of the small copies; no path at all where none are made."""
    return settings.storage.thumbnails if settings.ingest.thumbnails else Path()


def connect_some(
    settings: Settings, source: Path, tools: Tools, catalog: OpenCatalog, only: str | None
) -> list[Destination]:
    """The same, but only the destination named, if one is; SettingsError if there is none of that name."""
    require(settings, source, only)
    return [one for one in connect_all(settings, source, tools, catalog) if only in (None, one.name)]


def addresses(
    destinations: list[Destination],
    catalog: Catalog,
    row: dict[str, Any],
    not_there: Callable[[str, int], object] = lambda _name, _id: None,
) -> dict[str, dict[str, str]]:
    """Where an image of the catalog's listing can be fetched, by destination, and by what the address shows.

    Where a destination could not say, there is an `error` instead. One that has no addresses is left out.
    `not_there` gets the name of one that does not have the image any more, and the image's id.
    """
    plain = {key: row[key] for key in ("id", "path", "size", "md5", "sha256", "width", "height", "metadata")}
    image, found = Image(**plain), {}
    for destination in destinations:
        detail = catalog.receipt(destination.name, image.id)
        try:
            some = {} if detail is None else dict(destination.addresses(image, detail))
        except DeliveryError as error:
            some = {"error": str(error)}
            if isinstance(error, NotThere):
                not_there(destination.name, image.id)
        if some:
            found[destination.name] = some
    return found


def require(settings: Settings, source: Path, only: str | None) -> None:
    """SettingsError if the config file has no destination of that name."""
    if only is not None and only not in settings.destinations:
        known = ", ".join(settings.destinations) or "none"
        raise SettingsError(f"{source}: there is no destination {only!r}; there are: {known}")


def _room(storage: Storage) -> int:
    """How many bytes may still be written beside the catalog before capture would have to stop."""
    return free_bytes(storage.state) - storage.min_free


def _address(
    connected: dict[str, Destination], catalog: OpenCatalog, previous: str, image: Image
) -> str | None:
    """Where an image can be fetched at the destination before; None if that has not confirmed it.

    Should that say that it does not have it any more, its proof is withdrawn.
    """
    detail = catalog().receipt(previous, image.id) if previous else None
    try:
        return None if detail is None else connected[previous].address(image, detail)
    except NotThere as error:
        log.error("%s does not have %s any more: %s; its proof is withdrawn", previous, image.name, error)
        catalog().withdraw_proofs(previous, [image.id])
        return None
