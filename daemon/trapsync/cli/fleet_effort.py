"""What all traps watched, at the hub: hub effort."""

import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from trapsync.cli.common import Moment, show_table
from trapsync.cli.fleet import connected
from trapsync.errors import SettingsError

if TYPE_CHECKING:
    from trapsync.fleet.connection import Connection
    from trapsync.fleet.effort import Nights
    from trapsync.fleet.operator_settings import Operator


@click.command(short_help="Show which pictures the traps took of those that were due.")
@click.option(
    "--from", "since", type=Moment(), default="14 days ago", show_default=True, help="The first night."
)
@click.option("--until", type=Moment(), help="The night after the last.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--csv", "as_csv", is_flag=True, help="For R and spreadsheets.")
@connected
def effort(
    connection: "Connection",
    _operator: "Operator",
    since: datetime,
    until: datetime | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show how many pictures were due in each night of each trap, how many were taken, and why others were not.

    The nights with the largest share missed come first. A night is from noon to noon at the trap, and is named by the
    date of its evening; it is here some hours after it has ended, or when the trap has a network again. A trap with no
    such night is named below. For one trap in more detail, on the trap: trapsync effort
    """
    from trapsync.fleet import effort as efforts
    from trapsync.fleet.connection import HubConnection

    if as_json and as_csv:
        raise click.UsageError("only one of --json and --csv")
    if not isinstance(connection, HubConnection):
        raise SettingsError(
            "traps report their nights to a hub, neither to a folder nor to a broker; give --hub URL"
        )
    found = efforts.nights(connection, since.date(), until.date() if until else None)
    if as_json:
        click.echo(json.dumps(found.plain(), indent=2))
    elif as_csv:
        click.echo(efforts.csv_text(found.watched), nl=False)
    else:
        _show(found)


def _show(found: "Nights") -> None:
    from trapsync.fleet import effort as efforts

    rows = [
        (
            efforts.called(one),
            str(one.night),
            *map(str, (one.expected, one.taken, one.expected - one.taken)),
            efforts.why(one) or "-",
        )
        for one in found.watched
    ]
    show_table(
        ("trap", "night", "expected", "taken", "missed", "why"), rows, "no night of this time has come yet"
    )
    if found.watched:
        click.echo(efforts.summary(found.watched))
    if found.without:
        click.echo(f"no night yet from: {', '.join(found.without)}")


COMMANDS = (effort,)
