"""What is done with images: deliver, retry, acknowledge, prune, verify."""

import time
from typing import Any

import click

from trapsync.cli.common import (
    Trap,
    counter,
    destination_names,
    progress_bar,
    reading,
    start_logging,
    with_trap,
)
from trapsync.errors import SettingsError, TrapsyncError
from trapsync.settings.words import count


@click.command(short_help="Deliver now what is pending.")
@click.argument("destination", required=False, shell_complete=destination_names)
@with_trap
def deliver(trap: Trap, destination: str | None) -> int:
    """Deliver now what is pending, to all destinations or to one.

    A running daemon is asked to do it; without one it is done here.
    """
    from trapsync.runtime import destination_context, local_actions
    from trapsync.trap import holder

    destination_context.require(trap.settings, trap.source, destination)
    if not trap.settings.destinations:
        raise SettingsError(f"{trap.source}: there is no destination; add a [destinations.NAME]")
    process = holder(trap.settings.storage.state)
    if process:
        since, began = trap.clock.wall(), trap.clock.monotonic()
        local_actions.wake_daemon(process)
        return _follow_daemon(trap, destination, since, began)
    return _deliver_here(trap, destination)


def _deliver_here(trap: Trap, destination: str | None) -> int:
    from trapsync.runtime import local_actions
    from trapsync.trap import lock

    start_logging()
    with (
        lock(trap.settings.storage.state),
        trap.opened() as bench,
        progress_bar("delivering") as progress,
    ):
        turns = local_actions.deliver(bench, progress, destination)
    for name, turn in turns.items():
        trouble = f"; {turn.trouble}" if turn.trouble else ""
        click.echo(
            f"{name}: {turn.delivered} delivered, {turn.refused} refused, {turn.postponed} postponed{trouble}"
        )
    return int(any(turn.trouble or turn.refused or turn.postponed for turn in turns.values()))


def _follow_daemon(trap: Trap, destination: str | None, since: float, began: float) -> int:
    """Show the daemon's progress; end when all that is due was tried, or an error occurs.

    `since` and `began` are the same moment by the wall clock and by the monotonic one: what failed after it may be
    due again already, but the daemon's next turn is minutes away.
    """
    from trapsync.trap import holder

    with progress_bar("the daemon delivers") as progress:
        time.sleep(2)  # it takes up a signal within one tick
        while True:
            with reading(trap) as catalog:
                rows = [row for row in catalog.counts.destinations() if destination in (None, row["name"])]
                is_due = any(catalog.deliveries.has_due(row["name"], began) for row in rows)
            pending = sum(row["pending"] for row in rows)
            progress(pending)
            trouble = [f"{row['name']}: {row['error']}" for row in rows if _failed(row, since)]
            if holder(trap.settings.storage.state) is None:
                trouble.append("the daemon has stopped")
            if trouble or not is_due:
                break
            time.sleep(1)
    waiting = f"{pending} still pending; see: trapsync images --pending" if pending else ""
    click.echo("; ".join(trouble) or waiting or "everything is delivered or refused")
    return int(bool(trouble or pending))


def _failed(row: dict[str, Any], since: float) -> bool:
    """Whether a destination with pending images could not be reached since then."""
    return bool(row["pending"] and row["error"] and row["error_at"] >= since)


@click.command(short_help="Retry refused and failed deliveries.")
@click.argument("destination", required=False, shell_complete=destination_names)
@click.option("--image", metavar="NAME", help="Only this image.")
@with_trap
def retry(trap: Trap, destination: str | None, image: str | None) -> None:
    """Make pending again what a destination refused, and end all waits after failures.

    Destinations are asked once more for an image that left the card; what nobody has stays lost or dropped.
    """
    from trapsync.runtime import local_actions
    from trapsync.trap import holder

    with trap.opened(destination) as bench:
        if image and not bench.catalog.images.is_there(image):
            raise TrapsyncError(f"there is no image {image!r}; see: trapsync images")
        retried = bench.catalog.deliveries.retry(destination, image)
    click.echo(f"re-queued {count(retried, 'refused delivery')}")
    if process := holder(trap.settings.storage.state):
        local_actions.wake_daemon(process)


@click.command(short_help="Confirm that you have seen what was lost or refused.")
@with_trap
def acknowledge(trap: Trap) -> None:
    """Confirm that you have seen which images were lost, dropped, refused or in conflict, and are off the card.

    They stay counted, and `status` no longer warns of them. What is on the card is not acknowledged: retry it.
    """

    with trap.opened() as bench:
        seen = bench.catalog.deliveries.acknowledge()
    click.echo(f"{seen} acknowledged")


@click.command(short_help="Remove delivered images from the card.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_trap
def prune(trap: Trap, yes: bool) -> None:
    """Remove delivered images from the card, as far as [prune] allows.

    Only images whose digest every required destination confirmed, and confirms once more now, older than
    prune.min_age, and only until prune.keep_free bytes are free. Works also when prune.enabled is false.
    """
    from trapsync import pipeline
    from trapsync.files.space import free_bytes
    from trapsync.runtime.destination_context import registered

    settings = trap.settings
    free = free_bytes(settings.storage.spool)
    if free >= settings.prune.keep_free:
        click.echo(f"{free / 1e9:.1f} GB are free, at least prune.keep_free: nothing to do")
        return
    if not yes and not click.confirm("Remove images that are safe at their destinations from this card?"):
        click.echo("nothing was removed")
        return
    with trap.opened() as bench:
        # The config file may name others than the daemon knows yet: those must have the images too.
        bench.catalog.places.register(registered(bench.destinations))
        removed = pipeline.prune(
            bench.catalog, settings.storage, settings.prune, trap.clock, bench.destinations
        )
        troubles = bench.catalog.facts.read().unpruned or {}
    for name, trouble in troubles.items():
        click.echo(f"{name} cannot be asked, so the images that it must have stay: {trouble}")
    click.echo(
        f"{count(removed, 'image')} removed; {free_bytes(settings.storage.spool) / 1e9:.1f} GB are free"
    )


@click.command(short_help="Check the images on the card and at the destinations.")
@click.option("--bytes", "by_bytes", is_flag=True, help="Have servers check the stored bytes of each image.")
@click.option("--resend", is_flag=True, help="Deliver at once what is pending again.")
@with_trap
def verify(trap: Trap, by_bytes: bool, resend: bool) -> int:
    """Hash every image on the card again, and ask the destinations what they hold.

    Copies in folders are read again. What a destination does not hold any more loses its proof at once: it is
    pending again if it is on the card, and is lost if nobody else has it.
    """
    from trapsync.runtime import local_actions, verification
    from trapsync.trap import holder

    code = 0
    with trap.opened() as bench:
        with counter("reading the card") as progress:
            result = verification.verify_card(bench.catalog, trap.settings.storage.spool, progress)
        code |= _show_verified("card", result)
        for destination in bench.destinations:
            code |= _verify_destination(bench, destination, by_bytes)
        if resend:
            bench.catalog.deliveries.end_waits()
    if resend and (process := holder(trap.settings.storage.state)):
        local_actions.wake_daemon(process)
    return code


def _verify_destination(bench: Any, destination: Any, by_bytes: bool) -> int:
    from trapsync.errors import Unreachable
    from trapsync.runtime import verification

    if not destination.keeps:
        click.echo(f"{destination.name}: not asked: it keeps images for a limited time, or no full copies")
        return 0
    try:
        with counter(f"asking {destination.name}") as progress:
            result = verification.verify_destination(bench.catalog, destination, progress, by_bytes=by_bytes)
    except Unreachable as error:
        click.echo(f"{destination.name}: {error}")
        return 1
    return _show_verified(destination.name, result)


def _show_verified(where: str, result: Any) -> int:
    click.echo(f"{where}: {count(result.compared, 'image')} compared, {len(result.wrong)} wrong")
    for name, problem in result.wrong:
        click.echo(f"  {name}: {problem}")
    return int(bool(result.wrong))


COMMANDS = (deliver, retry, acknowledge, prune, verify)
