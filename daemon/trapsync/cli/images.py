"""What there is: images, quarantine."""

import json
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import PurePosixPath
from typing import Any

import click

from trapsync.cli.common import Trap, between, destination_names, reading, show_table, with_trap
from trapsync.errors import SettingsError, printable
from trapsync.image import TrapName, parse_name

_MEASURED = ("temp", "hum", "bat")


@click.command(short_help="List images and the state of their deliveries.")
@click.option("--pending", "state", flag_value="pending", help="Only those still to be delivered.")
@click.option("--delivered", "state", flag_value="delivered", help="Only those delivered.")
@click.option("--dropped", "state", flag_value="dropped", help="Only those that left the card undelivered.")
@click.option("--lost", "state", flag_value="lost", help="Only those that exist nowhere any more.")
@click.option("--refused", "state", flag_value="refused", help="Only those that a destination refused.")
@click.option("--held", "state", flag_value="held", help="Only those held until their time is known.")
@click.option(
    "--conflicts", "state", flag_value="conflict", help="Only those with the name of another image."
)
@click.option(
    "--url",
    "source",
    is_flag=False,
    flag_value="",
    metavar="[DESTINATION]",
    shell_complete=destination_names,
    help="Show where they can be fetched, at all destinations or at one.",
)
@click.option("--layout", metavar="LAYOUT", help="Show the names that a layout would give them.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), help="How many, newest first: 20; with --layout 10."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_trap
def images(
    trap: Trap, state: str | None, source: str | None, layout: str | None, limit: int | None, as_json: bool
) -> None:
    """List images, the newest first, with the state of each delivery.

    With --url, the addresses of each at the destinations that have it and give addresses (ImageKit, say).
    Whoever has an address can see the picture, for as long as the address is good.

    With --layout, the names that the next images would have at a destination with that layout: a word (standard, flat,
    antenna, amber, camtrapr) or a template, such as "{trap}/{local:%Y%m%d%H%M%S}-{device}.jpg". Nothing is changed.
    """
    from trapsync.runtime import clock_correction
    from trapsync.settings.time_zone import zone

    if layout is not None:
        _show_names(trap, layout, state, limit or 10, as_json)
        return
    with reading(trap) as catalog:
        rows = catalog.images.listing(state, limit or 20)
        boots = catalog.times.boots() if any(row["timing"] in {"unsure", "released"} for row in rows) else []
    for row in rows:
        if row["timing"] in {"unsure", "released"}:
            row |= clock_correction.bounds_in_words(boots, row["boot_id"], row["monotonic"])
    if source is not None:
        _add_addresses(trap, rows, source or None)
    if as_json:
        click.echo(json.dumps([_plain(row) for row in rows], indent=2))
    elif source is not None:
        _show_addresses(rows)
    elif rows:
        _show_images(rows, zone(trap.settings))
    else:
        click.echo(f"no image is {'in ' if state == 'conflict' else ''}{state}" if state else "no images yet")


def _show_names(trap: Trap, text: str, state: str | None, limit: int, as_json: bool) -> None:
    """Print the names that a layout gives to images of the trap's own; to the next ones, where there are none yet."""
    from trapsync.destinations import layouts
    from trapsync.hardware.device_id import device_id

    try:
        layouts.require(text, trap.settings)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    layout = layouts.of_trap(text, trap.settings)
    rows: list[dict[str, Any]] = []
    if trap.settings.storage.catalog.exists():
        with reading(trap) as catalog:
            rows = catalog.images.listing(state, limit)
    names = [name for row in rows if (name := parse_name(PurePosixPath(row["path"]).name))]
    if not names:
        click.echo("No images of its own yet; the next ones would be named so:", err=True)
        every = timedelta(seconds=trap.settings.capture.every)
        now = datetime.fromtimestamp(int(trap.clock.wall()), UTC)
        names = [TrapName(device_id(trap.settings.trap), now + number * every) for number in range(limit)]
    table = [(str(name), layout.name_of(name)) for name in names]
    if as_json:
        click.echo(json.dumps([dict(zip(("image", "name"), one, strict=True)) for one in table], indent=2))
    else:
        show_table(("image", "its name there"), table, "")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: with null for what was not measured."""
    flags = {
        key: None if row[key] is None else bool(row[key])
        for key in ("conflict", "thumbnails", "clock_trusted")
    }
    return row | flags | {"metadata": dict.fromkeys(_MEASURED) | row["metadata"]}


def _show_images(rows: list[dict[str, Any]], timezone: tzinfo) -> None:
    """Print a line for each image, and below it the destinations where it stands otherwise, or that say why."""
    cells = [
        ("image", "size", "pixels", "state"),
        *(
            (
                printable(row["key"]),
                f"{row['size'] / 1e6:.2f} MB",
                f"{row['width']}×{row['height']}",
                _state(row, timezone),
            )
            for row in rows
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, line in zip([{"deliveries": {}}, *rows], cells, strict=True):
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
        deliveries = row["deliveries"].items()
        if any(delivery["error"] or delivery["state"] != row["state"] for _, delivery in deliveries):
            for name, delivery in deliveries:
                error = f" ({delivery['error']})" if delivery["error"] else ""
                click.echo(printable(f"    {name}: {delivery['state']}{error}"))


def _add_addresses(trap: Trap, rows: list[dict[str, Any]], only: str | None) -> None:
    """Put into each row, as `addresses`, where the image can be fetched."""
    from trapsync.runtime import destination_context

    gone: dict[str, list[int]] = {}
    with reading(trap) as catalog:
        destination_context.require(trap.settings, trap.source, only)
        checked = destination_context.check_all(trap.settings, trap.source)
        connected = destination_context.connect_all(trap.settings, checked, catalog, trap.clock, time.sleep)
        some = [one for one in connected if only in (None, one.name)]
        for row in rows:
            row["addresses"] = destination_context.addresses(
                some, catalog, row, lambda name, image_id: gone.setdefault(name, []).append(image_id)
            )
        for destination in some:
            destination.close()
    if gone:  # the answers showed that these are not there any more
        with trap.opened() as bench:
            for name, image_ids in gone.items():
                bench.catalog.proofs.withdraw_proofs(name, image_ids)


def _show_addresses(rows: list[dict[str, Any]]) -> None:
    """Print one line for each, which no terminal folds."""
    lines = [
        f"{row['key']}  {name}  {what}  {address}"
        for row in rows
        for name, some in row["addresses"].items()
        for what, address in some.items()
    ]
    click.echo("\n".join(lines) or "no destination gives an address for these")


def _state(row: dict[str, Any], timezone: tzinfo) -> str:
    match row["timing"]:
        case "held" if row["state"] == "pending":
            return "held until the clock is set"
        case "corrected":
            return f"{row['state']}, corrected" + (f" from {row['was']}" if row["was"] else "")
        case "unsure" | "released":
            held = (
                "held, " if row["timing"] == "unsure" and row["state"] == "pending" else f"{row['state']}, "
            )
            return f"{held}taken {between(row, timezone)}"
    return "lost" if row["gone_why"] == "lost" else str(row["state"])


@click.command()
@click.option("--release", type=int, metavar="NUMBER", help="Put a file back, to be examined again.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_trap
def quarantine(trap: Trap, release: int | None, as_json: bool) -> None:
    """List damaged files with their reasons, or put one back."""
    from trapsync.spool.quarantine import release as put_back

    if release is not None:
        with trap.opened() as bench:
            path = put_back(bench.catalog, trap.settings.storage, release)
        click.echo(f"{path} is back in the spool; the next scan examines it again")
        return
    with reading(trap) as catalog:
        rows = catalog.quarantine.listing()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [(str(row["id"]), str(row["size"]), row["path"], row["reason"]) for row in rows]
    show_table(("number", "bytes", "file", "reason"), table, "nothing is in quarantine")
    if rows:
        click.echo(f"\nThe files are kept in {trap.settings.storage.quarantine}")


COMMANDS = (images, quarantine)
