"""Packages of Camtrap DP, as `trapsync export` and `trapsync hub export` write them."""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from trapsync.cli.common import Moment
from trapsync.clock import SystemClock, utc
from trapsync.errors import SettingsError, printable
from trapsync.settings.project import Project
from trapsync.settings.words import count

if TYPE_CHECKING:
    from trapsync.camtrap_dp.files import Files, Way
    from trapsync.camtrap_dp.package import Package
    from trapsync.camtrap_dp.records import Span, Trap

_ADDRESSES = ("https://", "http://")
_NAMED = 5  # labels and deployments that are named in a line


class Order(NamedTuple):
    """What is wanted: the new folder, of which time and deployment, and how the pictures come along.

    `url` is an address, or the name of a destination; `source` what errors call the config file.
    """

    folder: Path
    since: datetime | None
    until: datetime | None
    deployment: str | None
    way: "Way | None"
    url: str | None
    project: Project
    source: Path

    @property
    def base(self) -> str:
        """The address under which all pictures lie; "" if none was given."""
        return self.url if self.url and self.url.startswith(_ADDRESSES) else ""

    @property
    def destination(self) -> str | None:
        """The destination that knows the address of each picture."""
        return None if self.base else self.url

    def require_address(self) -> None:
        """Raise SettingsError where a destination is named, and there is none."""
        if self.destination:
            raise SettingsError(f"--url: {self.url!r} is no address such as https://pictures.example.org")

    def span(self) -> "Span":
        """Which pictures are wanted. Raises SettingsError for what only people know and is missing, and for an odd span."""
        from trapsync.camtrap_dp import package
        from trapsync.camtrap_dp.records import Span

        since, until = (None if at is None else at.timestamp() for at in (self.since, self.until))
        span = Span(since, until, self.deployment)
        package.require(self.project, span, self.source)
        return span


def ordered(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments of a command that writes a package. It gets an `order`, without project and source, in their place."""

    @wraps(command)
    def wrapped(
        *arguments: Any,
        package: Path,
        since: datetime | None,
        until: datetime | None,
        deployment: str | None,
        way: "Way | None",
        url: str | None,
        **others: Any,
    ) -> Any:
        if way and url:
            raise click.UsageError("--url says where the pictures are: without --copy and --link")
        order = Order(package.absolute(), since, until, deployment, way, url, Project(), Path())
        return command(*arguments, order=order, **others)

    for option in (
        click.option(
            "--url",
            metavar="DESTINATION",
            help="The pictures are there: an address, https://…; on a trap also the name of a destination.",
        ),
        click.option("--link", "way", flag_value="link", help="Link the pictures into it."),
        click.option("--copy", "way", flag_value="copy", help="Copy the pictures into it."),
        click.option("--deployment", metavar="ID", help="Only this deployment."),
        click.option("--until", type=Moment(), help="The moment after the last."),
        click.option("--from", "since", type=Moment(), help="The first moment."),
        click.argument("package", metavar="FOLDER", type=click.Path(path_type=Path)),
    ):
        wrapped = option(wrapped)
    return wrapped


def write(order: Order, traps: "Iterable[Trap]") -> None:
    """Write the package, and say on standard error what is in it and what is not."""
    from trapsync.camtrap_dp import package
    from trapsync.camtrap_dp.files import Files, is_path

    if order.base and not is_path(order.base):
        raise SettingsError(
            f"--url: {order.base!r} holds two dots in a row, which Camtrap DP has in no address"
        )
    files = Files(order.way or "none", base=order.base, by_address=bool(order.destination))
    now = utc(SystemClock().wall())
    written = package.write(order.folder, traps, order.project, files, order.span(), now, order.source)
    for line in (*_contents(written), *_left_out(written), *_pictures(order, files)):
        click.echo(printable(line), err=True)
    if not order.project.data_license:
        click.echo(
            "no licence is given; before you publish: project.data_license, project.media_license", err=True
        )


def _contents(written: "Package") -> list[str]:
    names = {"deployments": "deployment", "media": "picture", "observations": "observation"}
    names["sampling-gaps"] = "gap"
    return [", ".join(count(written.rows(table), noun) for table, noun in names.items())]


def _left_out(written: "Package") -> list[str]:
    lines = []
    for why, number in written.left_out.items():
        if number:
            noun = "shape" if why == "shapes" else "picture"
            lines.append(
                f"left out: {count(number, noun)} {'of an unknown form' if why == 'shapes' else why}"
            )
    if written.unplaced:
        lines.append(f"left out, for their place is not known: {_some(written.unplaced)}")
    if written.untold_labels:
        lines.append(
            f"labels without a scientific name in project.taxa: {_some(sorted(written.untold_labels))}"
        )
    return lines


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _pictures(order: Order, files: "Files") -> list[str]:
    if order.way is None and order.url is None:
        return ["the pictures are not in it; for that: --copy, --link, or --url for where they are"]
    lacking = "address" if order.url else "file"
    return [f"in the tables without {lacking}: {count(files.missing, 'picture')}"] if files.missing else []
