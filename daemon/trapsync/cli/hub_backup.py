"""trapsync hub backup: a copy of a hub, and the way back from one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trapsync.cli.drop_root import step_down
from trapsync.clock import SystemClock
from trapsync.errors import printable

if TYPE_CHECKING:
    from trapsync.hub.backup import Outcome

_MOST_SHOWN = 20
_TELL_EVERY = 5.0  # seconds


@click.command(short_help="Copy a hub to another disk, while it runs.")
@click.argument("target", metavar="TARGET", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("trapsync-hub"),
    show_default=True,
    help="The hub's folder; to restore, the backup's.",
)
@click.option(
    "--verify", is_flag=True, help="Read what the backup has already, too, and replace what is damaged."
)
def backup(target: Path, folder: Path, verify: bool) -> int:
    """Copy a hub into the folder TARGET: its database, its images, other versions; on the hub's machine.

    The hub may run meanwhile. What TARGET has already is not copied again, and nothing there is removed. To restore, name
    the backup as --folder, and as TARGET a folder in which no hub ever ran. Exit code 1 where an image could not be copied.
    """
    from trapsync.hub import backup as backups

    step_down(folder)
    clock = SystemClock()
    told = [clock.monotonic()]

    def tell(outcome: "Outcome") -> None:
        if clock.monotonic() - told[0] > _TELL_EVERY:
            told[0] = clock.monotonic()
            click.echo(f"{outcome.images} images so far, {outcome.new} of them copied", err=True)

    outcome = backups.copy(folder.absolute(), target.absolute(), tell, verify=verify)
    click.echo(
        f"{target}: {outcome.images} images, {outcome.new} of them new ({outcome.bytes / 1e6:.1f} MB); "
        f"{len(outcome.problems) or 'none'} could not be copied"
    )
    for problem in outcome.problems[:_MOST_SHOWN]:
        click.echo(f"- {printable(problem)}")
    if more := len(outcome.problems[_MOST_SHOWN:]):
        click.echo(f"- and {more} others")
    if folder.stat().st_dev == target.stat().st_dev:
        click.echo(f"{target} is on the same disk as {folder}: what breaks it takes both", err=True)
    return int(bool(outcome.problems))


COMMANDS = (backup,)
