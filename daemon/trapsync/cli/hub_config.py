"""The hub's config file on the command line: --config, hub check, hub example."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from trapsync.cli.drop_root import step_down
from trapsync.errors import TrapsyncError, printable
from trapsync.settings import config_file
from trapsync.settings import hub as hub_settings
from trapsync.settings.hub import Hub, HubSettings

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
    for look in looks:
        try:
            look()
        except TrapsyncError as error:
            yield printable(str(error))


@click.command(short_help="Show a config file of a hub.")
def example() -> None:
    """Show a config file with every setting of the hub, what it means, and its default."""
    click.echo(config_file.shipped("hub.toml"), nl=False)


COMMANDS = (check, example)
