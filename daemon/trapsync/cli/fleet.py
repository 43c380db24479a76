"""The operator's commands: keys, push, resend, fleet. For a laptop; none of them needs a trap's config file."""

import functools
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli.common import COLOURS, Moment, giving_a_verdict
from trapsync.errors import SettingsError

if TYPE_CHECKING:
    from trapsync.fleet.connection import Connection
    from trapsync.fleet.operator_settings import Operator
    from trapsync.fleet.push import Push
    from trapsync.remote.document import PrivateKey

_EVERY = 10.0  # seconds between two looks of --watch
_PATH = click.Path(path_type=Path, readable=False)


def _connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where, and pass the connection and the operator's settings first."""

    @click.option("--hub", metavar="URL", envvar="TRAPSYNC_HUB", help="A hub: https://hub.example.org")
    @click.option("--user", envvar="TRAPSYNC_USER", help="The account there.")
    @click.option(
        "--password-file", type=_PATH, envvar="TRAPSYNC_PASSWORD_FILE", help="The file with its password."
    )
    @click.option("--ca-file", type=_PATH, help="The CA certificate, if it is not a public one.")
    @click.option("--folder", type=_PATH, help="A folder instead, served by any web server.")
    @click.option("--broker", metavar="HOST[:PORT]", help="An MQTT broker instead.")
    @click.option("--no-tls", is_flag=True, help="The broker does not use TLS.")
    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        from trapsync.fleet.operator_settings import Options, with_options

        given = Options(**{key: options.pop(key) for key in Options.__dataclass_fields__})
        operator = with_options(given)
        return command(_connect(operator), operator, *arguments, **options)

    return wrapped


def _connect(operator: "Operator") -> "Connection":
    from trapsync.clock import SystemClock
    from trapsync.fleet.connection import FolderConnection, HubConnection
    from trapsync.fleet.mqtt import BrokerConnection

    _warn_without_tls(operator)
    if operator.hub:
        return HubConnection(operator, SystemClock(), time.sleep)
    if operator.folder:
        return FolderConnection(operator.folder)
    if operator.broker.host:
        return BrokerConnection(operator.broker, SystemClock())
    raise SettingsError(
        "give --hub URL, --folder DIR or --broker HOST, or write it into ~/.config/trapsync/owner.toml"
    )


def _warn_without_tls(operator: "Operator") -> None:
    """Tell of a hub, a proxy or a broker that everybody on the way can read, or answer for."""
    from trapsync.settings import open_links
    from trapsync.settings.config_file import plain

    is_broker = not operator.hub and not operator.folder
    for key, text in open_links.told(plain(operator.broker if is_broker else operator)):
        fix = (
            "leave --no-tls away, or set broker.tls = true"
            if key == "tls"
            else f"write https:// for the {key}"
        )
        click.echo(f"trapsync: warning: {text}; {fix}", err=True)


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────


@click.group()
def keys() -> None:
    """Make the keys that sign remote settings."""


@keys.command()
@click.option("--out", type=_PATH, default=Path("trapsync.key"), show_default=True, help="The secret file.")
def new(out: Path) -> None:
    """Make a key. The secret half stays in a file on this machine; the public half is for every trap's config file."""
    from trapsync.fleet.operator_settings import keep_secret
    from trapsync.remote import document

    secret, public = document.new_key()
    keep_secret(out, secret)
    click.echo(
        f"the secret key is in {out}: keep a copy in a safe connection, and never put it on a trap", err=True
    )
    click.echo(f'[remote]\nenabled = true\nkeys = ["{public}"]')


# ── Push ─────────────────────────────────────────────────────────────────────────────────────────────


def _signed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what is signed and sent."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--note", default="", help="A note that is kept with it."),
        click.option("--key", type=_PATH, envvar="TRAPSYNC_KEY", help="The secret key that signs."),
        click.option(
            "--to", required=True, metavar="WHOM", help="device:ID, a trap's name, group:NAME, all."
        ),
    ):
        command = option(command)
    return command


@click.command(short_help="Publish settings for traps.")
@click.argument("settings", type=click.Path(path_type=Path, readable=False))
@_signed
@_connected
def push(
    connection: "Connection",
    operator: "Operator",
    settings: Path,
    to: str,
    key: Path | None,
    note: str,
    yes: bool,
) -> int:
    """Publish SETTINGS, a TOML file, for traps.

    They replace the remote settings from before. What can be set remotely: capture every and windows; camera exposure,
    gain, white_balance, lens_position, quality, zoom, rotation and resolution; ingest thumbnails; prune min_age
    and keep_free; of a destination every, order, parallel, bandwidth, retry_initial and retry_max.
    """
    from trapsync.fleet import push as pushes

    tables = pushes.read_settings(settings)
    signer = _key(operator, key)
    ready = pushes.prepare(
        connection, pushes.addressee(to, connection), signer, _clock(), note=note, settings=tables
    )
    changes = ready.changes()
    for name, was, becomes in changes:
        click.echo(f"  {name}: {was} → {becomes}")
    if not changes:
        click.echo("  nothing changes: these settings were published before")
    return _publish(connection, ready, yes)


@click.command(short_help="Ask traps to deliver images again.")
@click.option("--from", "since", required=True, type=Moment(), help="The first moment.")
@click.option("--until", required=True, type=Moment(), help="The moment after the last.")
@click.option("--destination", metavar="NAME", help="Only to this destination; else to all.")
@_signed
@_connected
def resend(
    connection: "Connection",
    operator: "Operator",
    since: datetime,
    until: datetime,
    destination: str | None,
    to: str,
    key: Path | None,
    note: str,
    yes: bool,
) -> int:
    """Have traps ask their destinations about the images of a time, and send again what is not there.

    An image that is not on the card any more either is lost, and reported as such. A moment is written
    "2026-11-28", "2026-11-28 21:00", "3 days ago" or "now", in this computer's time zone.
    """
    from trapsync.fleet import push as pushes

    asked = pushes.request(since, until, destination)
    signer = _key(operator, key)
    ready = pushes.prepare(
        connection, pushes.addressee(to, connection), signer, _clock(), note=note, resend=asked
    )
    first, last = (f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in (since, until))
    click.echo(f"  images from {first} until {last}, to {destination or 'every destination'}")
    return _publish(connection, ready, yes)


def _key(operator: "Operator", option: Path | None) -> "PrivateKey":
    from trapsync.remote import document

    path = option or operator.key
    if path is None:
        raise SettingsError("give the key that signs: --key FILE; make one with: trapsync keys new")
    return document.read_private(path)


def _clock() -> Any:
    from trapsync.clock import SystemClock

    return SystemClock()


def _audience(ready: "Push") -> str:
    """Whom it is for: `all traps`, `group valley`, `device 0123abcd`."""
    kind, _, name = ready.document.to.partition(":")
    return f"{kind} {name}" if name else "all traps"


def _publish(connection: "Connection", ready: "Push", yes: bool) -> int:
    from trapsync.fleet.push import publish

    if not yes and not click.confirm(f"Publish version {ready.number} for {_audience(ready)}?"):
        click.echo("nothing was published")
        return 1
    publish(connection, ready)
    click.echo(
        f"published version {ready.number} for {_audience(ready)} at {connection.name}; see: trapsync fleet"
    )
    return 0


# ── Fleet ────────────────────────────────────────────────────────────────────────────────────────────


@click.command(short_help="Show the state of all traps.")
@click.argument("watch", required=False, type=click.Choice(["watch"]))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", "watches", is_flag=True, help="Show it again every ten seconds, until Ctrl-C.")
@giving_a_verdict
@_connected
def fleet(
    connection: "Connection", _operator: "Operator", watch: str | None, as_json: bool, watches: bool
) -> int:
    """Show the state of all traps, the worst first. Exit code 0 ok, 1 warning, 2 failing, of the worst.

    A trap that has been silent for longer than three heartbeats is failing, whatever it reported last.
    """
    from trapsync.fleet import table as fleets

    while True:
        answer = connection.fleet()
        found = fleets.traps(answer)
        verdict = fleets.worst(found)
        if watch or watches:
            click.clear()
        if as_json:
            plain = {"verdict": verdict, "traps": [trap.plain() for trap in found], "slots": answer["slots"]}
            click.echo(json.dumps(plain, indent=2))
        else:
            _show_fleet(found)
        if not (watch or watches):
            return fleets.VERDICTS.index(verdict)
        time.sleep(_EVERY)


def _show_fleet(found: list[Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trapsync.fleet import table as fleets

    if not found:
        click.echo("no trap has sent a heartbeat yet")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in fleets.HEADER:
        right = title in {"heard", "image", "sent", "pending", "disk", "bat"}
        table.add_column(
            title, justify="right" if right else "left", no_wrap=title != "trap", overflow="fold"
        )
    for trap in found:
        name, verdict, *rest = trap.cells()
        table.add_row(name, Text(verdict, style=COLOURS[verdict]), *rest)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 400)
    console.print(table)
    for name, verdict, reason in fleets.complaints(found):
        console.print(Text.assemble((f"{name}: ", COLOURS[verdict]), reason))
    console.print(fleets.summary(found))


COMMANDS = (keys, push, resend, fleet)
