"""The operator's commands: keys, push, resend, fleet. For a laptop; none of them needs a trap's config file."""

import functools
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli.common import COLOURS, Moment, giving_a_verdict, show_table
from trapsync.errors import SettingsError

if TYPE_CHECKING:
    from trapsync.fleet.connection import Connection
    from trapsync.fleet.operator_key import OperatorKey
    from trapsync.fleet.operator_settings import Operator
    from trapsync.fleet.push import Push

_EVERY = 10.0  # seconds between two looks of --watch
_PATH = click.Path(path_type=Path, readable=False)


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
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
        return command(connect(operator), operator, *arguments, **options)

    return wrapped


def connect(operator: "Operator", password: str = "") -> "Connection":
    """The connection that these settings mean. What goes without TLS is told first."""
    from trapsync.clock import SystemClock
    from trapsync.fleet.connection import FolderConnection, HubConnection
    from trapsync.fleet.mqtt import BrokerConnection

    _warn_without_tls(operator)
    if operator.hub:
        return HubConnection(operator, SystemClock(), time.sleep, password=password)
    if operator.folder:
        return FolderConnection(operator.folder)
    if operator.broker.host:
        return BrokerConnection(operator.broker, SystemClock())
    raise SettingsError(
        "give --hub URL, --folder DIR or --broker HOST, or log in at a hub: trapsync hub login URL --user NAME"
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
    """Make the keys that sign remote settings, and revoke them."""


@keys.command()
@click.option(
    "--out", type=_PATH, help="The secret file; else trapsync.key beside owner.toml, and used from now on."
)
def new(out: Path | None) -> None:
    """Make a key. The secret half stays in a file on this machine; traps get the public half when they join.

    For traps that do not join a hub, it prints what stands in their config file.
    """
    from trapsync.files import durable
    from trapsync.fleet import operator_settings
    from trapsync.fleet.operator_key import keep_secret
    from trapsync.remote import document

    key = document.new_key()
    path = out or operator_settings.where().with_name("trapsync.key")
    if out is None:
        durable.make_folder(path.parent)
    keep_secret(path, f"{key}\n")
    click.echo(
        f"the secret key is in {path}: keep a copy in a safe place, and never put it on a trap", err=True
    )
    if out is None and operator_settings.load().key is None:
        kept = operator_settings.remember(key=path.name)
        click.echo(f"it signs what you publish from now on: see key in {kept}", err=True)
    click.echo(f'[remote]\nenabled = true\nkeys = ["{key.public}"]')


@keys.command(short_help="Show a key's public half, id and last number.")
@click.argument("file", type=_PATH)
def show(file: Path) -> None:
    """Show what is public of a key's FILE, its id, and the number of the last document that it signed."""
    from trapsync.fleet.operator_key import OperatorKey

    key = OperatorKey.read(file)
    click.echo(f"public  {key.private.public}\nid      {key.id}\nlast    {key.last or '-'}")


def _signing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of whatever is signed."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--note", default="", help="A note that is kept with it."),
        click.option("--key", type=_PATH, envvar="TRAPSYNC_KEY", help="The secret key that signs."),
    ):
        command = option(command)
    return command


@keys.command(short_help="Have all traps refuse a key from now on.")
@click.argument("ids", metavar="KEY...", nargs=-1, required=True)
@_signing
@connected
def revoke(connection: "Connection", operator: "Operator", ids: tuple[str, ...], **signing: Any) -> int:
    """Have all traps refuse what the key KEY signs, for good: a stolen one, say. Signed by another key that they trust.

    KEY is its id, 16 hexadecimal digits, or the public key as it stands in a trap's config file. Settings of that key
    that are committed stay in force until the next push; those that are on trial are rolled back.
    """
    from trapsync.remote.document import KEY_ID, public_from_text

    found = tuple(one if KEY_ID.fullmatch(one) else public_from_text(one, "KEY").id for one in ids)
    signer = _key(operator, signing["key"])
    if signer.id in found:
        raise SettingsError(f"{signer.path}: a key cannot revoke itself; sign with the other one: --key FILE")
    click.echo(f"  revoked: {', '.join(found)}")
    return _send(connection, signer, "all", signing, revoke=found)


@keys.command(short_help="Have the numbers of a key go on far above its last one.")
@click.option(
    "--above", type=click.IntRange(1), required=True, metavar="NUMBER", help="The number to begin above."
)
@_signing
@connected
def jump(connection: "Connection", operator: "Operator", above: int, **signing: Any) -> int:
    """Have the numbers of a key go on above NUMBER, for a copy of a key whose last number is not known any more.

    Traps refuse a document whose number is more than 1,000,000 above the last one, unless the key announced it so. A
    number cannot be taken back. For less than that: trapsync push --above NUMBER
    """
    return _send(connection, _key(operator, signing["key"]), "all", signing, revoke=(), above=above)


# ── Push ─────────────────────────────────────────────────────────────────────────────────────────────


def _addressed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what is signed for some traps."""
    for option in (
        click.option(
            "--above",
            type=click.IntRange(0),
            default=0,
            metavar="NUMBER",
            help="Skip the numbers up to it.",
        ),
        click.option("--anyway", is_flag=True, help="Even if no trap has that device or group."),
        click.option("--to", metavar="WHOM", help="device:ID, a trap's name, group:NAME, all."),
    ):
        command = option(command)
    return _signing(command)


@click.command(short_help="Publish settings for traps.")
@click.argument("settings", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--list", "lists", is_flag=True, help="Show what is published for whom, and what was before.")
@_addressed
@connected
def push(
    connection: "Connection",
    operator: "Operator",
    settings: Path | None,
    lists: bool,
    to: str | None,
    anyway: bool,
    above: int,
    **signing: Any,
) -> int:
    """Publish SETTINGS, a TOML file, for traps.

    They replace the remote settings from before. What can be set remotely: capture every and windows; camera exposure,
    gain, white_balance, lens_position, quality, zoom, rotation and resolution; ingest thumbnails; prune min_age
    and keep_free; of a destination every, order, parallel, bandwidth, retry_initial and retry_max.
    """
    from trapsync.fleet import push as pushes

    if lists:
        return _list(connection, operator, signing["key"])
    if settings is None:
        raise click.UsageError("there is no file with settings")
    tables = pushes.read_settings(settings)
    return _send(
        connection, _key(operator, signing["key"]), to, signing, anyway=anyway, above=above, settings=tables
    )


@click.command(short_help="Ask traps to deliver images again.")
@click.option("--from", "since", required=True, type=Moment(), help="The first moment.")
@click.option("--until", required=True, type=Moment(), help="The moment after the last.")
@click.option("--destination", metavar="NAME", help="Only to this destination; else to all.")
@_addressed
@connected
def resend(
    connection: "Connection",
    operator: "Operator",
    since: datetime,
    until: datetime,
    destination: str | None,
    to: str | None,
    anyway: bool,
    above: int,
    **signing: Any,
) -> int:
    """Have traps ask their destinations about the images of a time, and send again what is not there.

    An image that is not on the card any more either is lost, and reported as such. A moment is written
    "2026-11-28", "2026-11-28 21:00", "3 days ago" or "now", in this computer's time zone.
    """
    from trapsync.fleet import push as pushes

    asked = pushes.request(since, until, destination)
    signer = _key(operator, signing["key"])
    first, last = (f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in (since, until))
    text = f"  images from {first} until {last}, to {destination or 'every destination'}"
    return _send(connection, signer, to, signing, text, anyway=anyway, above=above, resend=asked)


def _key(operator: "Operator", option: Path | None) -> "OperatorKey":
    from trapsync.fleet.operator_key import OperatorKey

    path = option or operator.key
    if path is None:
        raise SettingsError("give the key that signs: --key FILE; make one with: trapsync keys new")
    return OperatorKey.read(path)


def _clock() -> Any:
    from trapsync.clock import SystemClock

    return SystemClock()


def _send(
    connection: "Connection",
    key: "OperatorKey",
    to: str | None,
    signing: dict[str, Any],
    text: str = "",
    *,
    anyway: bool = False,
    above: int = 0,
    **what: Any,
) -> int:
    """Show what changes for whom, ask, sign and publish."""
    from trapsync.fleet import audience, push

    if to is None:
        raise click.UsageError("say for whom: --to device:ID, a trap's name, group:NAME or all")
    reached = audience.find(to, connection, anyway=anyway)
    ready = push.prepare(connection, reached, key, _clock(), note=signing["note"], above=above, **what)
    if text:
        click.echo(text)
    _show_changes(ready)
    version = ready.document.version
    for trap in reached.heard_above(key.id, version - 1)[:1]:
        said = trap.beat.remote.version
        click.echo(
            f"trapsync: warning: {trap.name} says that it has had number {said} of this key, and then refuses {version}; "
            f"if the key was used on another computer, give --above {said}",
            err=True,
        )
    if not signing["yes"] and not click.confirm(f"Publish number {version} for {reached}?"):
        click.echo("nothing was published")
        return 1
    push.publish(connection, ready, key, _clock())
    click.echo(f"published number {version} for {reached} at {connection.name}; see: trapsync fleet")
    return 0


def _show_changes(ready: "Push") -> None:
    """Which values change, and the traps that it reaches with what they do now."""
    changes = ready.changes()
    for name, was, becomes in changes:
        click.echo(f"  {name}: {was} → {becomes}")
    if ready.document.kind == "settings" and not changes:
        click.echo("  nothing changes: these settings were published before")
    if ready.is_foreign:
        click.echo(
            "  in its place lies a document that this key has not signed: another operator's, or a forged one"
        )
    click.echo(ready.audience.reach)
    names = [name for name, _, _ in changes]
    if rows := ready.audience.rows(names):
        show_table(("trap", "device", "heard", *names), rows, "")


def _list(connection: "Connection", operator: "Operator", option: Path | None) -> int:
    """Show what lies there, and what this key has published from this computer."""
    from trapsync.fleet import push

    key = _key(operator, option) if option or operator.key else None
    header = ("for", "kind", "number", "issued", "signed by", "note")
    show_table(
        header,
        list(push.published(connection.documents(), key)),
        f"nothing is published at {connection.name}",
    )
    if key is None:
        return 0
    click.echo(f"\nPublished with {key.path} from this computer, the newest first:")
    show_table(("at", "number", "for", "kind", "place", "note"), key.history(), "nothing yet")
    return 0


# ── Fleet ────────────────────────────────────────────────────────────────────────────────────────────


@click.command(short_help="Show the state of all traps.")
@click.argument("watch", required=False, type=click.Choice(["watch"]))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", "watches", is_flag=True, help="Show it again every ten seconds, until Ctrl-C.")
@giving_a_verdict
@connected
def fleet(
    connection: "Connection", _operator: "Operator", watch: str | None, as_json: bool, watches: bool
) -> int:
    """Show the state of all traps, the worst first. Exit code 0 ok, 1 warning, 2 failing, of the worst.

    A trap that has been silent for longer than three heartbeats is failing, whatever it reported last.
    """
    from trapsync.net import judgement

    while True:
        answer = connection.fleet()
        found = judgement.traps(answer)
        verdict = judgement.worst(found)
        if watch or watches:
            click.clear()
        if as_json:
            plain = {"verdict": verdict, "traps": [trap.plain() for trap in found], "slots": answer["slots"]}
            click.echo(json.dumps(plain, indent=2))
        else:
            _show_fleet(found)
        if not (watch or watches):
            return judgement.VERDICTS.index(verdict)
        time.sleep(_EVERY)


def _show_fleet(found: list[Any]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trapsync.fleet import table as rows
    from trapsync.net import judgement

    if not found:
        click.echo("no trap has sent a heartbeat yet")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title in rows.HEADER:
        right = title in {"heard", "image", "sent", "pending", "disk", "bat"}
        table.add_column(
            title, justify="right" if right else "left", no_wrap=title != "trap", overflow="fold"
        )
    for trap in found:
        name, verdict, *rest = rows.cells(trap)
        table.add_row(name, Text(verdict, style=COLOURS[verdict]), *rest)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 400)
    console.print(table)
    for name, verdict, reason in rows.complaints(found):
        console.print(Text.assemble((f"{name}: ", COLOURS[verdict]), reason))
    console.print(judgement.summary(found))


COMMANDS = (keys, push, resend, fleet)
