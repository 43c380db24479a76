"""What was watched and what was not: effort."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from trapsync.cli.common import Moment, Trap, reading, show_table, with_trap
from trapsync.settings.words import count

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from trapsync.catalog import Catalog
    from trapsync.effort.ledger import Ledger
    from trapsync.effort.tables import Row, Span

_LETTERS = {
    "off": "o",
    "no_power": "n",
    "battery": "b",
    "card": "d",
    "camera": "c",
    "clock": "t",
    "paused": "p",
    "settings": "s",
    "unknown": "?",
}
_WORDS = {"no_power": "no power", "battery": "battery empty"}
_HOURS = [hour % 24 for hour in range(12, 36)]  # of a night, from noon on


@click.command(short_help="Show when pictures were due, which were taken, and why others were not.")
@click.option("--from", "since", type=Moment(), help="The first moment.")
@click.option("--until", type=Moment(), help="The moment after the last.")
@click.option(
    "--by",
    "unit",
    type=click.Choice(["night", "hour", "deployment"]),
    default="night",
    show_default=True,
    help="A row for each of these.",
)
@click.option("--calendar", is_flag=True, help="Draw nights and hours.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--csv", "as_csv", is_flag=True, help="For R and spreadsheets.")
@with_trap
def effort(
    trap: Trap,
    since: datetime | None,
    until: datetime | None,
    unit: str,
    calendar: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show when pictures were due by the schedule, which were taken, and why others were not.

    A night is from noon to noon, and is named by the date of its evening. Reasons: off (an orderly shutdown), no power (a
    start without one), battery empty (the same after a low reading), card, camera, clock (the time of what was taken then
    is not known), paused (the daemon was stopped), settings (it began again with others), unknown.
    """
    _require_span(trap, since, until, [calendar, as_json, as_csv])
    if calendar and unit != "night":
        raise click.UsageError("--calendar draws nights and hours: without --by")
    from trapsync.effort import tables
    from trapsync.effort.ledger import ledger
    from trapsync.settings.time_zone import zone

    here = zone(trap.settings)
    with reading(trap) as catalog, catalog.connection.one_moment():
        found = ledger(catalog, trap.settings)
        span_of = tables.hour_of(here) if calendar else _spans(catalog, unit, here, found.now)
        rows = _rows(found, catalog, span_of, since, until)
        unsure = catalog.runs.unsure_pictures()
    if as_json:
        click.echo(json.dumps({"by": unit, "rows": [row.plain() for row in rows]}, indent=2))
    elif as_csv:
        click.echo(tables.csv_text(rows, unit), nl=False)
    elif not rows:
        click.echo(
            "no picture was due: the daemon has not run with a camera yet, or not in this span of time"
        )
    elif calendar:
        _draw(rows, here)
    else:
        _show(rows, unit)
    if unsure:
        click.echo(f"not counted: {count(unsure, 'picture')} of unknown time: trapsync clock", err=True)


def _require_span(trap: Trap, since: datetime | None, until: datetime | None, forms: Sequence[bool]) -> None:
    if sum(forms) > 1:
        raise click.UsageError("only one of --calendar, --json and --csv")
    if since and since.timestamp() > trap.clock.wall():
        raise click.BadParameter("this is in the future", param_hint="--from")
    if since and until and since >= until:
        raise click.BadParameter("this is not after --from", param_hint="--until")


def _spans(catalog: "Catalog", unit: str, here: "ZoneInfo", now: float) -> "Callable[[float], Span | None]":
    from trapsync.effort import tables

    if unit == "hour":
        return tables.hour_of(here)
    if unit == "night":
        return tables.night_of(here)
    known = catalog.deployments.all()
    return tables.within([tables.Span(one.id, one.began, one.ended or now + 1) for one in known])


def _rows(
    found: "Ledger",
    catalog: "Catalog",
    span_of: "Callable[[float], Span | None]",
    since: datetime | None,
    until: datetime | None,
) -> "list[Row]":
    from trapsync.effort.tables import added_up

    begin = since.timestamp() if since else -1e11
    end = min(until.timestamp() if until else 1e11, found.now)
    return added_up(found.slots(begin, end), catalog.runs.counts_by_quarter(begin, end), span_of)


def _show(rows: "list[Row]", unit: str) -> None:
    from trapsync.effort.tables import total

    shown = [*rows, total(rows)] if len(rows) > 1 else rows
    counts = ("expected", "taken", "missed", "pictures")
    cells = [
        (row.name, *_right(counts, (row.expected, row.taken, row.missed.total(), row.pictures)), _why(row))
        for row in shown
    ]
    show_table((unit, *counts, "why"), cells, "")


def _right(titles: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """Numbers below the ends of their titles."""
    return [f"{number:{len(title)}}" for title, number in zip(titles, numbers, strict=True)]


def _why(row: "Row") -> str:
    return ", ".join(f"{_WORDS.get(reason, reason)} {number}" for reason, number in row.missed.most_common())


# The calendar


def _draw(rows: "list[Row]", here: "ZoneInfo") -> None:
    """Draw a line for each night, with a field for each hour of the clock in which pictures were due on any."""
    from trapsync.effort.tables import evening_of

    nights: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        if row.expected:
            hour = datetime.fromtimestamp(row.since, here).hour
            nights.setdefault(evening_of(row.since, here).isoformat(), {}).setdefault(hour, []).append(row)
    used = [hour for hour in _HOURS if any(hour in night for night in nights.values())]
    if not used:
        click.echo("no picture was due")
        return
    shown = _HOURS[_HOURS.index(used[0]) : _HOURS.index(used[-1]) + 1]
    click.echo(f"{'':10}  {' '.join(f'{hour:02}' for hour in shown)}")
    for night, hours in nights.items():
        click.echo(f"{night}  {' '.join(_field(hours.get(hour, [])) for hour in shown)}")
    _explain({row.missed.most_common(1)[0][0] for row in rows if row.expected and not row.taken})


def _field(rows: "list[Row]") -> str:
    """One hour of one night; two rows where the clock is put back."""
    from trapsync.effort.tables import total

    if not rows:
        return "  "
    row = total(rows)
    if row.taken == row.expected:
        return click.style("██", fg="green")
    if row.taken:
        return click.style("▓▓" if 2 * row.taken >= row.expected else "░░", fg="yellow")
    return click.style(f"{_LETTERS[row.missed.most_common(1)[0][0]]} ", fg="red", bold=True)


def _explain(reasons: set[str]) -> None:
    letters = [f"{letter} {_WORDS.get(one, one)}" for one, letter in _LETTERS.items() if one in reasons]
    click.echo(
        "\n██ all taken  ▓▓ half or more  ░░ less" + (f"\nnone: {'  '.join(letters)}" if letters else "")
    )


COMMANDS = (effort,)
