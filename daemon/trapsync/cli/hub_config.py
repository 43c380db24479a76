"""The hub's config file on the command line: --config, hub check, hub example."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli.drop_root import step_down
from trapsync.clock import SystemClock
from trapsync.errors import SettingsError, TrapsyncError, printable
from trapsync.settings import alert_addresses, config_file
from trapsync.settings import hub as hub_settings
from trapsync.settings.alerts import Alerts
from trapsync.settings.hub import Hub, HubSettings

if TYPE_CHECKING:
    from trapsync.runtime.messenger import Messenger

_TEST = ("trapsync: a test message", "This hub can tell you when something is wrong at your traps.")

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path, readable=False),
    help="The hub's config file; what else is given here counts more.",
)


def settings(config: Path | None, options: Mapping[str, Any], given: Collection[str]) -> HubSettings:
    """What the hub runs with. Of `options` those count that were given, and all of them where there is no file.

    Raises SettingsError.
    """
    found = hub_settings.load(config) if config else HubSettings()
    wanted = {key: value for key, value in options.items() if key in given or not config}
    hub = hub_settings.with_options(found.hub, wanted)
    return config_file.changed(found, hub=config_file.changed(hub, folder=hub.folder.absolute()))


def verify(hub: Hub) -> Callable[[bytes], object] | None:
    """Checks the signature of a published document; None where any key will do. Raises SettingsError."""
    if not hub.owner_keys:
        return None
    from trapsync.remote import document

    trusted = [document.public_from_text(key, "hub.owner_keys") for key in hub.owner_keys]
    return lambda data: document.verify(data, trusted)


@click.command(short_help="Check the hub's config file.")
@CONFIG
def check(config: Path | None) -> int:
    """Check the hub's config file, and what it names. Changes nothing, and the hub may run meanwhile.

    Exit code 0 if the hub can start with it. Called by root, it looks as the owner of the hub's folder.
    """
    if config is None:
        raise click.UsageError("name the file: --config hub.toml")
    found = hub_settings.load(config)
    step_down(found.hub.folder)
    wrong = list(_problems(found))
    click.echo(f"{config}: {'the hub cannot start with it:' if wrong else 'valid'}")
    for one in wrong:
        click.echo(f"- {one}")
    return int(bool(wrong))


def _problems(found: HubSettings) -> Iterator[str]:
    """What keeps the hub from starting, a line each."""
    from trapsync.spool import overlap

    hub = found.hub
    looks: list[Callable[[], object]] = [
        partial(verify, hub),
        partial(overlap.require_own_folder, hub.folder),
    ]
    if hub.password_file:
        looks.append(partial(config_file.read_secret, hub.password_file, "hub.password_file"))
    alerts = found.alerts
    looks += [alerts.zone, partial(_messenger, alerts)]
    if alerts.addresses_file:
        looks.append(partial(alert_addresses.read, alerts.addresses_file))
    if alerts.ping_file:
        looks.append(partial(alert_addresses.read_ping, alerts.ping_file))
    for look in looks:
        try:
            look()
        except TrapsyncError as error:
            yield printable(str(error))


@click.command(short_help="Show a config file of a hub.")
def example() -> None:
    """Show a config file with every setting of the hub, what it means, and its default."""
    click.echo(config_file.shipped("hub.toml"), nl=False)


@click.command(short_help="Send a test message to each address.")
@CONFIG
@click.option("--test", is_flag=True, help="Send one now.")
def notify(config: Path | None, test: bool) -> int:
    """Send a test message to each address of [alerts], and the ping, and say of each how that went.

    Exit code 0 if all of them took it. The hub may run meanwhile. Called by root, it works as the owner of the hub's folder.
    """
    if config is None or not test:
        raise click.UsageError("say: trapsync hub notify --test --config hub.toml")
    found = hub_settings.load(config)
    if not found.alerts.are_on:
        raise SettingsError(f"{config}: [alerts] names no addresses_file and no ping_file")
    step_down(found.hub.folder)
    failed = [_shown(name, send) for name, send in _tests(found)]
    return int(any(failed))


def _messenger(alerts: Alerts) -> "Messenger | None":
    from trapsync.runtime import messenger

    return messenger.prepared(alerts)


def _tests(found: HubSettings) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each address as it may be shown, and what sends something there."""
    alerts, sender = found.alerts, _messenger(found.alerts)
    if alerts.addresses_file and sender:
        for address in alert_addresses.read(alerts.addresses_file):
            yield str(address), partial(sender.send, address.url, *_TEST, picture=None, is_bad=False)
    if alerts.ping_file:
        from trapsync.net.ping import ping

        url = alert_addresses.read_ping(alerts.ping_file)
        yield "ping", partial(ping, url, SystemClock(), time.sleep)


def _shown(name: str, send: Callable[[], object]) -> bool:
    """Whether it failed, after saying so."""
    try:
        send()
    except TrapsyncError as error:
        click.echo(printable(f"{name}: {error}"))
        return True
    click.echo(f"{name}: ok")
    return False


COMMANDS = (check, example, notify)
