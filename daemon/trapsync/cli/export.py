"""What was taken, as files for other programs: export csv, export camtrap-dp."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli import packages
from trapsync.cli.common import Moment, Trap, reading, with_trap
from trapsync.clock import iso
from trapsync.settings.words import count

if TYPE_CHECKING:
    from trapsync.camtrap_dp.records import Gap, Span
    from trapsync.camtrap_dp.trap import CatalogTrap
    from trapsync.catalog import Catalog

Address = Callable[[Mapping[str, Any]], str | None]


@click.group(name="export", short_help="Write what was taken into files for other programs.")
def export_group() -> None:
    """Write what was taken into files for other programs."""


@export_group.command(name="csv", short_help="Write a table of the images, for R and spreadsheets.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--from", "since", type=Moment(), help="The first moment.")
@click.option("--until", type=Moment(), help="The moment after the last.")
@with_trap
def csv_(trap: Trap, file: Path, since: datetime | None, until: datetime | None) -> None:
    """Write a table of the images with all that was measured, for R and spreadsheets.

    A row for each image, the oldest first, also of those that have left the card. CSV in UTF-8; what is not known is
    empty. FILE is written whole or not at all; - is standard output.
    """
    from trapsync.catalog import image_export
    from trapsync.files import durable

    with reading(trap) as catalog, catalog.connection.one_moment():
        some = _Some(_rows(trap, catalog), since, until)
        if str(file) == "-":
            sys.stdout.buffer.writelines(image_export.lines(some))
            sys.stdout.flush()
        else:
            durable.write(file.absolute(), image_export.lines(some))
    click.echo(count(some.taken, "image"), err=True)
    if some.left_out:
        click.echo(f"left out: {count(some.left_out, 'image')} of unknown time", err=True)


class _Some:
    """The rows of a span of time, and how many those are; rows of unknown time are among them only without a span."""

    def __init__(
        self, rows: Iterator[dict[str, Any]], since: datetime | None, until: datetime | None
    ) -> None:
        self._rows = rows
        self._since, self._until = iso(since) if since else "", iso(until) if until else "~"
        self._is_all = since is until is None
        self.taken = self.left_out = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            at = row.get("time_utc", "")
            if self._is_all or (at and self._since <= at < self._until):
                self.taken += 1
                yield row
            else:
                self.left_out += not at


def _rows(trap: Trap, catalog: "Catalog") -> Iterator[dict[str, Any]]:
    from trapsync.catalog import image_export
    from trapsync.runtime import clock_correction
    from trapsync.settings.time_zone import fixed_offset

    boots, offset = catalog.times.boots(), fixed_offset(trap.settings)

    def bounds(image: Mapping[str, Any]) -> Mapping[str, str | None]:
        return clock_correction.bounds_in_words(boots, image["boot_id"], image["monotonic"])

    for image in catalog.images.oldest_first():
        yield image_export.row(image, trap.settings.trap.name, offset, bounds)


# ── Camtrap DP ───────────────────────────────────────────────────────────────────────────────────────


@export_group.command(
    name="camtrap-dp", short_help="Write a package of Camtrap DP, the field's exchange standard."
)
@packages.ordered
@click.option(
    "--source",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Of the pictures in this folder, of a stick say, and not of the trap's.",
)
@with_trap
def camtrap_dp(trap: Trap, order: packages.Order, source: Path | None) -> None:
    """Write a package of Camtrap DP 1.0.2 into the new folder FOLDER.

    Tables of the deployments, of the pictures, of what was seen in them, and of when pictures were due and were not taken,
    in local time. What only people know stands in [project] of the config file. The pictures themselves are in it with
    --copy or --link. FOLDER is written whole or not at all.
    """
    order = order._replace(project=trap.settings.project, source=trap.source)
    order.span()  # before anything is opened
    if source:
        _of_folder(trap, order, source)
        return
    with (
        reading(trap) as catalog,
        catalog.connection.one_moment(),
        _addresses(trap, catalog, order) as address,
    ):
        packages.write(order, [_of_catalog(trap, catalog, order, address)])


def _of_catalog(trap: Trap, catalog: "Catalog", order: packages.Order, address: Address) -> "CatalogTrap":
    from trapsync.camtrap_dp.trap import CatalogTrap
    from trapsync.hardware.device_id import device_id
    from trapsync.runtime import clock_correction

    boots = catalog.times.boots()
    now = trap.clock.wall() if trap.clock.trusted() else None
    return CatalogTrap(
        catalog,
        trap.settings,
        device_id(trap.settings.trap),
        now,
        bounds=lambda row: clock_correction.bounds(boots, row["boot_id"], row["monotonic"]),
        gaps=lambda: _gaps(trap, catalog, order.span()),
        address=address,
        with_files=bool(order.way),
    )


def _gaps(trap: Trap, catalog: "Catalog", span: "Span") -> "Iterator[Gap]":
    from trapsync.camtrap_dp.records import Gap
    from trapsync.effort.ledger import gaps, ledger

    bounds = {"since": span.since, "until": span.until}
    slots = ledger(catalog, trap.settings).slots(**{key: at for key, at in bounds.items() if at is not None})
    return (Gap(one.since, one.until, one.reason) for one in gaps(slots))


@contextmanager
def _addresses(trap: Trap, catalog: "Catalog", order: packages.Order) -> Iterator[Address]:
    """What says where an image can be fetched at the destination that was named; nothing, without one."""
    if order.destination is None:
        yield lambda _row: None
        return
    from trapsync.runtime import destination_context

    destination_context.require(trap.settings, trap.source, order.destination)
    checked = destination_context.check_all(trap.settings, trap.source)
    connected = destination_context.connect_all(trap.settings, checked, catalog, trap.clock, time.sleep)
    try:
        (one,) = (one for one in connected if one.name == order.destination)
        yield lambda row: destination_context.address(one, catalog, row)
    finally:
        for destination in connected:
            destination.close()


def _of_folder(trap: Trap, order: packages.Order, source: Path) -> None:
    from trapsync.camtrap_dp.folder import FolderTraps

    order.require_address()
    traps = FolderTraps(source, trap.settings)
    packages.write(order, traps)
    if traps.damaged:
        click.echo(
            f"left out: {count(traps.damaged, 'file')} that cannot be read, or are not whole", err=True
        )


COMMANDS = (export_group,)
