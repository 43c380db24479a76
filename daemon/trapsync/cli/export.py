"""What was taken, as files for other programs: export csv."""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli.common import Moment, Trap, reading, with_trap
from trapsync.clock import iso
from trapsync.settings.words import count

if TYPE_CHECKING:
    from trapsync.catalog import Catalog


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


COMMANDS = (export_group,)
