"""The operator's commands about a hub: log in, invite traps, see them, lock one out. By HTTP, from any computer."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trapsync.cli.common import Moment, given_password, show_table
from trapsync.cli.fleet import connect, connected
from trapsync.errors import SettingsError

if TYPE_CHECKING:
    from trapsync.fleet.connection import Connection
    from trapsync.fleet.enrolment import Registry
    from trapsync.fleet.operator_settings import Operator
    from trapsync.net.invitation import Code, Terms


@click.command(short_help="Keep a hub's address and your password on this computer.")
@click.argument("url")
@click.option("--user", required=True, help="The account there.")
@click.option("--password-file", type=click.Path(path_type=Path, readable=False), help="Else it asks.")
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="The CA certificate, if it is not a public one."
)
def login(url: str, user: str, password_file: Path | None, ca_file: Path | None) -> None:
    """Try the account at the hub URL, and keep address, name and password in owner.toml, for all other commands."""
    from trapsync.fleet import operator_settings

    password = given_password(password_file, f"Password of {user} at {url}")
    given = operator_settings.Options(url, None, None, user, None, ca_file and ca_file.absolute(), False)
    operator = operator_settings.with_options(given)
    connect(operator, password).fleet()
    kept = operator_settings.remember_password(password)
    more = {"ca_file": str(ca_file.absolute())} if ca_file else {}
    path = operator_settings.remember(hub=url.rstrip("/"), username=user, password_file=kept.name, **more)
    click.echo(f"logged in at {url} as {user}; that is kept in {path}")


@click.command(short_help="Make a code with which traps join.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME", help="The group of these traps; may be given twice."
)
@click.option(
    "--uses", type=click.IntRange(1, 1000), default=1, show_default=True, help="For how many traps it is."
)
@click.option("--until", type=Moment(), default="in 7 days", show_default=True, help="When it ends.")
@click.option("--trust", multiple=True, metavar="KEY", help="Another public key that they trust, ed25519:…")
@click.option("--no-images", is_flag=True, help="They send heartbeats only, and deliver elsewhere.")
@click.option("--list", "lists", is_flag=True, help="Show the codes that can still be used.")
@click.option("--withdraw", type=int, metavar="NUMBER", help="Have nobody join with that code from now on.")
@connected
def invite(
    connection: "Connection",
    operator: "Operator",
    groups: tuple[str, ...],
    uses: int,
    until: datetime,
    trust: tuple[str, ...],
    no_images: bool,
    lists: bool,
    withdraw: int | None,
) -> None:
    """Make a code with which traps join this hub: on each of them, `sudo trapsync join CODE`.

    Each gets an account of its own, and trusts your keys: the code carries their fingerprint, so that the hub cannot put
    others in their place. Who has the code can let a trap of his own join, so give it to nobody else.
    """
    from trapsync.net.invitation import Terms

    registry = _registry(connection)
    if lists:
        for one in registry.codes():
            click.echo(str(one))
        return
    if withdraw is not None:
        registry.withdraw(withdraw)
        click.echo(f"nobody joins with code {withdraw} any more")
        return
    terms = Terms(keys=_public_keys(operator, trust), groups=groups, images=not no_images)
    number, code = registry.invite(terms, uses=uses, until=until)
    _show(number, code, terms, uses, until)


def _public_keys(operator: "Operator", trust: tuple[str, ...]) -> tuple[str, ...]:
    """The public halves of the operator's keys: of the one that signs, and of those that are only named."""
    from trapsync.fleet.operator_key import OperatorKey
    from trapsync.remote.document import public_from_text
    from trapsync.settings.schema import MOST_KEYS

    named = [*operator.trusted_keys, *trust]
    keys = [str(public_from_text(text, "trusted_keys")) for text in named]
    if operator.key:
        keys.insert(0, str(OperatorKey.read(operator.key).private.public))
    if not keys:
        raise SettingsError("there is no key that these traps could trust; make one first: trapsync keys new")
    if len(different := tuple(dict.fromkeys(keys))) > MOST_KEYS:
        raise SettingsError(
            f"a trap trusts {MOST_KEYS} keys at most, and here are {len(different)}: see key and trusted_keys in "
            "owner.toml, and --trust"
        )
    return different


def _show(number: int, code: "Code", terms: "Terms", uses: int, until: datetime) -> None:
    from trapsync.fleet.enrolment import group_names
    from trapsync.remote import document
    from trapsync.settings.words import count

    whom = ", ".join(filter(None, [f"for {count(uses, 'trap')}", group_names(terms.groups)]))
    ids = document.key_ids(terms.keys)
    click.echo(f"code {number}, {whom}, until {until:%Y-%m-%d %H:%M %Z}. On each trap type:\n")
    click.echo(f"sudo trapsync join {code}\n")
    click.echo("or write the code into the file trapsync-join.txt on the boot partition of its card.")
    click.echo(f"The traps will trust the key {ids}, and no other.")
    if code.leads_here:
        click.echo(
            f"trapsync: warning: {code.hub} is this computer itself: a trap elsewhere cannot use the code; log in at the "
            "address that the traps call: trapsync hub login URL --user NAME",
            err=True,
        )
    if sys.stdout.isatty():
        _show_as_picture(str(code))


def _show_as_picture(text: str) -> None:
    """Show it as a QR code, where the package for it is there."""
    try:
        import segno
    except ImportError:
        return
    click.echo("")
    segno.make(text, error="l").terminal(compact=True, border=2)


@click.command(short_help="Show which traps belong to the hub.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@connected
def devices(connection: "Connection", _operator: "Operator", as_json: bool) -> None:
    """Show which traps belong to the hub: whether each has an account of its own, and the codes that are open.

    joined: it has. shared: it uses an account of people. revoked: it is locked out.
    """
    registry = _registry(connection)
    found, codes = registry.traps(), registry.codes()
    if as_json:
        plain = {"traps": [trap.plain() for trap in found], "codes": [code.plain() for code in codes]}
        click.echo(json.dumps(plain, indent=2))
        return
    rows = [
        (trap.device, trap.called, trap.state, trap.ended or trap.joined or "-", " ".join(trap.groups) or "-")
        for trap in found
    ]
    empty = "no trap has joined yet; make a code: trapsync hub invite"
    show_table(("device", "trap", "state", "since", "groups"), rows, empty)
    for one in codes:
        click.echo(f"open: {one}")


@click.command(short_help="Lock a trap out: a stolen one.")
@click.argument("trap")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def revoke(connection: "Connection", _operator: "Operator", trap: str, yes: bool) -> int:
    """Lock TRAP out, a device or a name: its account is gone at once. Its images and its row in the fleet stay.

    It joins again only with a code that is made afterwards.
    """
    return _end(connection, trap, yes, "revoke")


@click.command(short_help="Lock a trap out, and show it no more: one that is retired.")
@click.argument("trap")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def forget(connection: "Connection", _operator: "Operator", trap: str, yes: bool) -> int:
    """Take TRAP, a device or a name, out of the fleet: its account and its heartbeats go. Its images stay.

    It joins again only with a code that is made afterwards.
    """
    return _end(connection, trap, yes, "forget")


def _end(connection: "Connection", text: str, yes: bool, word: str) -> int:
    registry = _registry(connection)
    trap = registry.find(text)
    if not yes and not click.confirm(f"{word.capitalize()} trap {trap.called} ({trap.device})?"):
        click.echo("nothing was changed")
        return 1
    registry.end(trap.device, word)
    click.echo(f"trap {trap.called} ({trap.device}) is locked out; its images stay")
    for one in registry.codes():
        click.echo(
            f"still open: {one}; if the code was lost with the trap: trapsync hub invite --withdraw {one.id}"
        )
    return 0


@click.command(short_help="Give a trap other groups.")
@click.argument("trap")
@click.argument("names", metavar="[GROUP]...", nargs=-1)
@connected
def groups(connection: "Connection", _operator: "Operator", trap: str, names: tuple[str, ...]) -> None:
    """Give TRAP the groups GROUP...: whose settings it may fetch here.

    On the trap they stand in `remote.groups` of its config file, which this does not change.
    """
    from trapsync.fleet.enrolment import group_names

    registry = _registry(connection)
    found = registry.find(trap)
    registry.regroup(found.device, names)
    click.echo(
        f"trap {found.called} ({found.device}) is in {group_names(names) or 'no group'} at {connection.name}"
    )


def _registry(connection: "Connection") -> "Registry":
    from trapsync.fleet.connection import HubConnection
    from trapsync.fleet.enrolment import Registry

    if not isinstance(connection, HubConnection):
        raise SettingsError("traps join a hub, neither a folder nor a broker; give --hub URL")
    return Registry(connection)


COMMANDS = (login, invite, devices, revoke, forget, groups)
