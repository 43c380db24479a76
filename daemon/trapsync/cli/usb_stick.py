"""A stick that is connected now and then: what systemd/stick-keeper, as root, asks the daemon."""

import signal
import time
from pathlib import Path

import click

from trapsync.cli.common import Trap, reading, with_trap
from trapsync.errors import StorageError
from trapsync.hardware.usb_stick import FOLDER
from trapsync.settings.units import Duration

_LOOK = 1.0  # seconds
NOT_USED = 3


@click.command(hidden=True)  # people see it in the status, and by the light
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where it is mounted.",
)
@click.option("--check", is_flag=True, help="Only report, by the exit code, whether a destination uses it.")
@click.option(
    "--patience", default="1 min", show_default=True, help="How long an error may last with nothing copied."
)
@with_trap
def stick(trap: Trap, folder: Path, check: bool, patience: str) -> int:
    """Have the daemon deliver to a stick that was just mounted, and wait until nothing more can go there.

    For systemd/stick-keeper, which unmounts it then. Exit code 0: all is on it. 1: not everything could be
    copied, and why. 3: no destination with hotplug = true has this path.
    """
    name = _destination_of(trap, folder)
    if name is None:
        if not check:
            click.echo(f"no destination with hotplug = true has the path {folder}", err=True)
        return NOT_USED
    if check:
        return 0
    try:
        return _wait(trap, name, Duration.parse(patience))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--patience") from None


def _destination_of(trap: Trap, folder: Path) -> str | None:
    """The destination that this folder is for."""
    for name, table in trap.settings.destinations.items():
        if table.get("hotplug") is True and Path(str(table.get("path"))) == folder:
            return name
    return None


def _wait(trap: Trap, name: str, patience: float) -> int:
    from trapsync.trap import holder, tell_daemon

    is_asked, unheard, before, moved = False, "", -1, trap.clock.monotonic()
    while True:
        process = holder(trap.settings.storage.state)
        if process and not is_asked:
            try:
                tell_daemon(process, signal.SIGUSR1)
                is_asked = True
            except StorageError as error:
                unheard = str(error)
        pending, reason = _left(trap, name)
        if reason is None:
            click.echo(f"{name}: all is on it")
            return 0
        if pending != before:
            before, moved = pending, trap.clock.monotonic()
        if not process:
            reason = "the daemon is not running; start it: sudo systemctl start trapsync"
        elif not is_asked:
            reason = unheard
        if reason and trap.clock.monotonic() - moved > patience:
            click.echo(f"{name}: {reason}", err=True)
            return 1
        time.sleep(_LOOK)


def _left(trap: Trap, name: str) -> tuple[int, str | None]:
    """How many are pending, and what stops them: "" where they are under way, None where no more can be copied."""
    table = trap.settings.destinations[name]
    with reading(trap) as catalog:
        row = next((row for row in catalog.counts.destinations() if row["name"] == name), None)
        if row is None:
            return 0, "the daemon does not know it yet; reload it: systemctl reload trapsync"
        pending: int = row["pending"]
        if row["waits"] or catalog.deliveries.due(name, "newest", 1, after=table.get("depends_on", "")):
            return pending, row["error"] or ""
        # Held images can go nowhere yet, nor what is to reach another destination first.
        stuck = 0 if table.get("depends_on") else pending - sum(catalog.times.timings().values())
    return pending, f"{stuck} could not be copied; see: trapsync images --pending" if stuck > 0 else None


COMMANDS = (stick,)
