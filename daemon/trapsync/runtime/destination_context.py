"""Destinations connected to a trap: to its clock, its folders, its catalog, and to one another."""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timezone, tzinfo
from pathlib import Path
from typing import Any

from trapsync import destinations
from trapsync.catalog import Catalog
from trapsync.catalog.rows import Registered
from trapsync.clock import Clock
from trapsync.destinations import Checked, Destination
from trapsync.errors import CatalogError, DeliveryError, NotThere, SettingsError, Unreachable
from trapsync.files.space import free_bytes
from trapsync.hardware.device_id import device_id
from trapsync.image import Image, Label
from trapsync.jpeg.examination import thumbnail_paths
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import fixed_offset, zone
from trapsync.spool import overlap

log = logging.getLogger(__name__)


class TrapContext:
    """What one destination is given by this trap (see `destinations.DestinationContext`).

    `others` are the connected destinations by name. Without a catalog there are no records: CatalogError.
    """

    def __init__(
        self,
        destination: Checked,
        settings: Settings,
        catalog: Catalog | None,
        clock: Clock,
        sleep: Callable[[float], None],
        others: Mapping[str, Destination],
    ) -> None:
        self.clock = clock
        self.sleep = sleep
        self.device = device_id(settings.trap)
        self.trap_name = settings.trap.name
        self.zone: tzinfo = zone(settings)
        self.offset: timezone = fixed_offset(settings)
        self.format: str = settings.capture.format
        self.spool = settings.storage.spool
        self.state = settings.storage.state
        self.results = settings.storage.results / destination.name
        self.name = destination.name
        self._after = destination.settings.depends_on
        self._storage = settings.storage
        self._opened = catalog
        self._others = others

    @property
    def _catalog(self) -> Catalog:
        if self._opened is None:
            raise CatalogError("there is no catalog here")
        return self._opened

    def note(self, key: str) -> Any:
        """The note under this key; None if there is none."""
        return self._catalog.notes.get(self.name, key)

    def put_note(self, key: str, note: Any) -> None:
        """Write a note; durable when this returns."""
        self._catalog.notes.put(self.name, key, note)

    def forget_note(self, key: str) -> None:
        """Remove a note, if there is one."""
        self._catalog.notes.forget(self.name, key)

    def note_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so, in order."""
        return self._catalog.notes.keys(self.name, prefix)

    def pending_between(self, since: float, until: float) -> int:
        """How many images of that time (unix seconds) are still to come."""
        return self._catalog.deliveries.pending_between(self.name, since, until)

    def unanswered(self) -> Mapping[str, int]:
        """What is not answered yet: task -> image id."""
        return self._catalog.labels.unlabelled(self.name)

    def has_task(self, image_id: int, task: str) -> bool:
        """Whether this task of an image is recorded."""
        return (self._catalog.deliveries.receipt(self.name, image_id) or {}).get("task") == task

    def put_answers(self, labels: Mapping[int, Label]) -> None:
        """Write answers, by image id; durable when this returns."""
        self._catalog.labels.put(self.name, labels)

    def address_of(self, image: Image) -> str | None:
        """Where an image can be fetched at the destination before; None if that has not confirmed it.

        Should that say that it does not have it any more, its proof is withdrawn.
        """
        previous = self._after
        detail = self._catalog.deliveries.receipt(previous, image.id) if previous else None
        try:
            return None if detail is None else self._others[previous].address(image, detail)
        except NotThere as error:
            log.error("%s no longer has %s: %s; its proof is withdrawn", previous, image.name, error)
            self._catalog.proofs.withdraw_proofs(previous, [image.id])
            return None

    def thumbnail_of(self, image: Image) -> Path:
        """Where the image's small copy is, if it has been made."""
        return thumbnail_paths(self._storage.thumbnails, image.place)[0]

    def make_thumbnail(self, image: Image) -> bool:
        """Have the image's small copies made; False: that was tried, and failed."""
        return self._catalog.images.copy_again(image.id)

    def room(self) -> int:
        """How many bytes may still be written beside the catalog before capture would have to stop."""
        return free_bytes(self._storage.state) - self._storage.min_free


def check_all(settings: Settings, source: Path) -> list[Checked]:
    """Check all destinations of the config file, and that no folders lie in one another; SettingsError if not."""
    checked = destinations.check_all(settings, source)
    overlap.require(settings.storage, checked, source)
    return checked


def connect_all(
    settings: Settings,
    checked: Iterable[Checked],
    catalog: Catalog | None,
    clock: Clock,
    sleep: Callable[[float], None],
) -> list[Destination]:
    """Connect destinations, each with the one that it comes after. Nothing is sent."""
    connected: dict[str, Destination] = {}
    for one in checked:
        connected[one.name] = one.connect(TrapContext(one, settings, catalog, clock, sleep, connected))
    return list(connected.values())


def registered(destinations: Iterable[Destination]) -> list[Registered]:
    """The destinations as the catalog knows them."""
    return [Registered(d.name, d.settings.kind, d.settings.required, d.identity) for d in destinations]


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
    image, found = _image(row), {}
    for destination in destinations:
        detail = catalog.deliveries.receipt(destination.name, image.id)
        try:
            some = {} if detail is None else dict(destination.addresses(image, detail))
        except DeliveryError as error:
            some = {"error": str(error)}
            if isinstance(error, NotThere):
                not_there(destination.name, image.id)
        if some:
            found[destination.name] = some
    return found


def address(destination: Destination, catalog: Catalog, row: Mapping[str, Any]) -> str | None:
    """Where an image of the catalog's can be fetched at a destination; None where it does not have it, or does not say.

    Raises Unreachable.
    """
    detail = catalog.deliveries.receipt(destination.name, row["id"])
    try:
        return None if detail is None else destination.address(_image(row), detail)
    except Unreachable:
        raise
    except DeliveryError:
        return None


def _image(row: Mapping[str, Any]) -> Image:
    """The image that a row stands for, without its evidence."""
    plain = ("id", "path", "size", "md5", "sha256", "width", "height", "metadata")
    return Image(**{key: row[key] for key in plain})


def require(settings: Settings, source: Path, only: str | None) -> None:
    """SettingsError if the config file has no destination of that name, where one is named."""
    if only is not None and only not in settings.destinations:
        known = ", ".join(settings.destinations) or "none"
        raise SettingsError(f"{source}: there is no destination {only!r}; there are: {known}")
