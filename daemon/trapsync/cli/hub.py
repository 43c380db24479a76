"""The hub: a small receiver for the lab, for a field station, and for trying things out; and who may use it."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from trapsync.cli import enrolment, fleet_effort, hub_backup, hub_config, packages
from trapsync.cli.common import Quantity, given_password, show_table, start_logging
from trapsync.cli.drop_root import step_down
from trapsync.clock import SystemClock
from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.time_zone import fixed_offset
from trapsync.settings.units import Size

if TYPE_CHECKING:
    from trapsync.hub.accounts import Accounts, Role


_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("trapsync-hub"),
    show_default=True,
    help="The hub's folder, with its images.",
)


@click.group(invoke_without_command=True, short_help="Run a hub, and say who may use it.")
@hub_config.CONFIG
@_FOLDER
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for the whole network.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, readable=False),
    help="Holds the password of the user trapsync, an admin; or: trapsync hub users add.",
)
@click.option(
    "--min-free",
    type=Quantity(Size),
    default="500 MB",
    show_default=True,
    help="With less free space nothing more is stored.",
)
@click.option(
    "--behind-proxy",
    is_flag=False,
    flag_value="127.0.0.1",
    default="",
    metavar="[ADDRESS]",
    help="A web server in front, at 127.0.0.1 if no other address is given: it says who calls, and by which scheme.",
)
@click.option(
    "--url", default="", metavar="URL", help="How the hub is called from outside: https://hub.example.org"
)
@click.option(
    "--owner-key",
    "owner_keys",
    multiple=True,
    metavar="KEY",
    help="Accept only settings that this key signed, ed25519:…; may be given twice.",
)
@click.pass_context
def hub(context: click.Context, /, config: Path | None, **options: Any) -> None:
    """Run a hub: a small receiver that speaks the Sticky Pi upload protocol.

    Without a command it runs, until Ctrl-C. For the lab, for a field station that collects from traps on the local Wi-Fi,
    and behind a web server for traps anywhere. Its commands are for the operator's computer, `users` for the hub's machine.
    """
    if context.invoked_subcommand:
        if any(context.get_parameter_source(name) != ParameterSource.DEFAULT for name in context.params):
            raise click.UsageError(
                "the options of `trapsync hub` itself are for running it, without a command"
            )
        return
    _require_packages()
    from trapsync.hub.server import serve
    from trapsync.hub.store import INCOMING
    from trapsync.hub.thumbnails import MAKING
    from trapsync.runtime import hub_service
    from trapsync.runtime.hub_examiner import HubExaminer

    start_logging()
    given = {name for name in options if context.get_parameter_source(name) != ParameterSource.DEFAULT}
    settings = hub_config.settings(config, options, given)
    verify = hub_config.verify(settings.hub)
    folder = settings.hub.folder
    with closing(HubExaminer(folder / INCOMING, folder / MAKING)) as examiner:
        serve(
            settings.hub,
            project=settings.project,
            verify=verify,
            examiner=examiner,
            beside=partial(hub_service.beside, settings),
            say=logging.getLogger("trapsync.hub").info,
        )


def _require_packages() -> None:
    """Raise SettingsError where the hub cannot run."""
    try:
        import fcntl  # noqa: F401 - the hub locks its folder; Windows has no such module

        import trapsync.hub.server  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "fcntl":
            raise SettingsError("the hub runs on Linux and macOS only") from None
        raise SettingsError(
            f"the hub needs {error.name}: run `pipx inject trapsync apprise flask multipart prometheus-client segno "
            "waitress`"
        ) from None


# ── Accounts of people ───────────────────────────────────────────────────────────────────────────────


@hub.group(short_help="Accounts of people, on the hub's machine.")
def users() -> None:
    """Accounts of people and of the Sticky Pi client; on the hub's machine, in the hub's folder. It may run meanwhile.

    An admin does everything, and alone publishes settings, invites traps and deletes images. A manager uploads images and
    annotations. A viewer reads.
    """


@users.command("add", short_help="Add an account, or change one.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["admin", "manager", "viewer"]),
    default="viewer",
    show_default=True,
    help="What it may do.",
)
@click.option("--password-file", type=click.Path(path_type=Path, readable=False), help="Else it asks.")
@_FOLDER
def add_user(name: str, role: "Role", password_file: Path | None, folder: Path) -> None:
    """Add the account NAME, or give it another password or role."""
    password = given_password(password_file, f"Password for {name}", twice=True)
    with _accounts(folder) as accounts:
        accounts.add(name, password, role)
        click.echo(f"{name} is {'an' if role == 'admin' else 'a'} {role} of the hub in {folder}")
        for known in accounts.with_default_password() if role == "admin" else ():
            accounts.remove(known)
            click.echo(f"{known}, whose password everybody knows, is removed")


@users.command("list", short_help="Show the accounts.")
@_FOLDER
def list_users(folder: Path) -> None:
    """Show the accounts of people; those of the traps are in `trapsync hub devices`."""
    with _accounts(folder) as accounts:
        rows = [(user.name, user.role) for user in accounts.people()]
    show_table(
        ("user", "role"), rows, "there is no user yet; add one: trapsync hub users add NAME --role admin"
    )


@users.command("remove", short_help="Remove an account.")
@click.argument("name")
@_FOLDER
def remove_user(name: str, folder: Path) -> None:
    """Remove the account NAME. What it has logged in to ends at once; images that it stored stay."""
    with _accounts(folder) as accounts:
        accounts.remove(name)
    click.echo(f"{name} is removed from the hub in {folder}")


@contextmanager
def _accounts(folder: Path) -> Iterator["Accounts"]:
    _require_packages()
    from trapsync.hub.accounts import Accounts
    from trapsync.hub.database import Database

    step_down(folder)
    database = Database(folder / "hub.sqlite")
    try:
        yield Accounts(database)
    finally:
        database.close()


# ── What the hub holds, for other programs ───────────────────────────────────────────────────────────


@hub.group(short_help="Write what the hub holds into files for other programs.")
def export() -> None:
    """Write what the hub holds into files for other programs; on the hub's machine. It may run meanwhile."""


@export.command("camtrap-dp", short_help="Write a package of Camtrap DP, the field's exchange standard.")
@packages.ordered
@_FOLDER
@click.pass_context
def camtrap_dp(context: click.Context, order: packages.Order, folder: Path) -> None:
    """Write a package of Camtrap DP 1.0.2 of all traps into the new folder FOLDER.

    As `trapsync export camtrap-dp` on a trap, with the annotations of detectors, and with the deployments and gaps that the
    traps reported. What only people know stands in [project] of a config file: trapsync -c project.toml hub export …
    """
    _require_packages()
    from trapsync.hub.packages import traps

    source = config_file.find(context.find_root().obj)
    settings = config_file.load(source)
    order = order._replace(project=settings.project, source=source)
    order.span()
    order.require_address()
    with closing(traps(folder, SystemClock(), fixed_offset(settings))) as some:
        packages.write(order, some)


for command in (*hub_config.COMMANDS, *hub_backup.COMMANDS, *enrolment.COMMANDS, *fleet_effort.COMMANDS):
    hub.add_command(command)
COMMANDS = (hub,)
