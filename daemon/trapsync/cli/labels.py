"""The labels that services gave to images: labels, labels export."""

import json
from pathlib import Path
from typing import Any

import click

from trapsync.cli.common import Trap, destination_names, reading, show_table, with_trap
from trapsync.settings.words import count

_SHOWN = 20


@click.group(name="labels", invoke_without_command=True, short_help="Show or export what is in the images.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def labels_group(context: click.Context, as_json: bool) -> None:
    """Show the labels of the images; `labels export` writes them to a file.

    Labels come from a destination such as Scale AI, days after an image was delivered there.
    """
    if context.invoked_subcommand is None:
        _show(Trap(context.find_root().obj), as_json)


def _show(trap: Trap, as_json: bool) -> None:
    with reading(trap) as catalog:
        counts = catalog.labels.counts()
        failed = [one for one in catalog.labels.answered() if one.label.state == "error"]
    errors = [
        {"destination": one.destination, "image": one.key, "task": one.label.task, "reason": one.label.reason}
        for one in failed
    ]
    if as_json:
        click.echo(json.dumps({"destinations": counts, "errors": errors}, indent=2))
        return
    rows = [(row["destination"], *(str(row[key]) for key in ("open", "done", "error"))) for row in counts]
    show_table(("destination", "awaited", "done", "in error"), rows, "no image was sent to be labelled")
    for row in errors[-_SHOWN:]:
        click.echo(f"{row['image']}: {row['destination']}: {row['reason']}")
    if len(errors) > _SHOWN:
        click.echo(f"... and {len(errors) - _SHOWN} earlier ones: trapsync labels --json")


@labels_group.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["coco", "plain"]),
    default="coco",
    show_default=True,
    help="COCO JSON, or as they were received.",
)
@click.option(
    "--destination", metavar="NAME", shell_complete=destination_names, help="Only the labels of this one."
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="The file; else the terminal."
)
@with_trap
def export(trap: Trap, form: str, destination: str | None, out: Path | None) -> None:
    """Export the labels, as COCO JSON or as they were received."""
    from trapsync.catalog.label_export import coco, plain
    from trapsync.runtime import destination_context

    destination_context.require(trap.settings, trap.source, destination)
    with reading(trap) as catalog:
        labelled = catalog.labels.answered(destination)
    left_out = 0
    dataset: Any = plain(labelled)
    if form == "coco":
        dataset, left_out = coco(labelled, _asked_for(trap, destination))
    _write(json.dumps(dataset, indent=2, ensure_ascii=False) + "\n", out)
    done = sum(one.label.state == "done" for one in labelled)
    click.echo(f"{count(done, 'image')} with labels", err=True)
    if left_out:
        click.echo(f"left out: {count(left_out, 'shape')} without an area; --format plain has them", err=True)


def _asked_for(trap: Trap, destination: str | None) -> list[str]:
    """The labels in the order of the settings: so a category keeps its number from one export to the next."""
    from trapsync import destinations

    asked: dict[str, None] = {}
    for name, table in trap.settings.destinations.items():
        if destination in (None, name):
            settings = destinations.check(name, table, trap.source).settings
            asked |= dict.fromkeys(getattr(settings, "labels", ()))
    return list(asked)


def _write(text: str, out: Path | None) -> None:
    from trapsync.files import durable

    if out is None:
        click.echo(text, nl=False)
    else:
        durable.write(out.absolute(), [text.encode()])


COMMANDS = (labels_group,)
