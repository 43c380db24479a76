"""Deployments: deployment start, end, show."""

import json
from datetime import datetime, tzinfo
from typing import Any

import click

from trapsync.cli.common import Moment, Trap, reading, show_table, with_trap
from trapsync.clock import iso, utc
from trapsync.settings.words import full

_AT = click.option("--at", type=Moment(), help="When that was, if not now: '2026-06-21 21:00', '2 h ago'.")
_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group(name="deployment", short_help="Show, begin or end a deployment.")
def deployment_group() -> None:
    """Show, begin or end a deployment, as Camtrap DP calls it: the time in which the trap stands at one place.

    One begins by itself when the trap starts with other coordinates, another location, or another interval or schedule.
    What people know of it stands in [deployment] of the config file.
    """


@deployment_group.command(short_help="Show the deployments of this trap.")
@_JSON
@with_trap
def show(trap: Trap, as_json: bool) -> None:
    """Show the deployments of this trap, the oldest first, with what was known of each."""
    from trapsync.settings.time_zone import zone

    with reading(trap) as catalog:
        known = catalog.deployments.all()
    if as_json:
        click.echo(json.dumps([one.plain() for one in known], indent=2))
        return
    timezone = zone(trap.settings)
    rows = [
        (one.id, _when(one.began, timezone, one.is_sure), _end(one.ended, timezone), _place(one.terms))
        for one in known
    ]
    show_table(("deployment", "began", "ended", "place"), rows, "there is no deployment yet")


def _when(at: float, timezone: tzinfo, is_sure: bool) -> str:
    return full(iso(utc(at)), timezone) + ("" if is_sure else ", not sure: the clock was not set")


def _end(at: float | None, timezone: tzinfo) -> str:
    return "goes on" if at is None else full(iso(utc(at)), timezone)


def _place(terms: dict[str, Any]) -> str:
    """The location and the coordinates, as far as they are known."""
    place = (
        f"{terms['latitude']:.5f}, {terms['longitude']:.5f}"
        if {"latitude", "longitude"} <= terms.keys()
        else ""
    )
    names = (terms.get("location_id"), terms.get("location_name"), place)
    return ", ".join(name for name in names if name) or "unknown"


@deployment_group.command(short_help="Begin a deployment.")
@_AT
@with_trap
def start(trap: Trap, at: datetime | None) -> None:
    """Begin a deployment, with what the settings say; it ends the one before.

    After a visit, say, at which the card was changed, or the trap turned. A moment of the past must be after the newest
    picture, since each picture says to which deployment it belongs.
    """
    from trapsync.runtime import local_actions

    one = local_actions.start_deployment(trap.found, trap.clock, _unix(at))
    click.echo(
        f"the deployment {one.id} began at {full(iso(utc(one.began)), _zone(trap))}{_correction(one.is_sure)}"
    )


@deployment_group.command(short_help="End the deployment that is under way.")
@_AT
@with_trap
def end(trap: Trap, at: datetime | None) -> None:
    """End the deployment that is under way, before the trap is taken down, say.

    Pictures that are taken from then on belong to none, until `trapsync deployment start`.
    """
    from trapsync.runtime import local_actions

    one = local_actions.end_deployment(trap.found, trap.clock, _unix(at))
    click.echo(f"the deployment {one.id} ended at {full(iso(utc(one.ended or 0.0)), _zone(trap))}")


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _correction(is_sure: bool) -> str:
    return "" if is_sure else "; the clock is not set, so that is corrected once it is"


def _zone(trap: Trap) -> tzinfo:
    from trapsync.settings.time_zone import zone

    return zone(trap.settings)


COMMANDS = (deployment_group,)
