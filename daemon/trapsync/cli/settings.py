"""The config file, and the shell: settings check, settings show, completion."""

import click

from trapsync import settings as config
from trapsync.errors import SettingsError


@click.group(name="settings")
def settings_group() -> None:
    """Show or check the config file."""


@settings_group.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check the config file; nothing is touched."""
    from trapsync import destinations
    from trapsync.trap import place

    source = config.find(context.find_root().obj)
    settings = config.load(source)
    place(settings)
    for name, table in settings.destinations.items():
        destinations.check(name, table, source)
    destinations.check_order(settings.destinations, source)
    click.echo(f"{source}: well")


@settings_group.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the settings in force, defaults included. Secrets are not among them: they are in files."""
    source = config.find(context.find_root().obj)
    click.echo(config.to_text(config.load(source)), nl=False)


@click.command(short_help="Print the script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script for shell completion: eval "$(trapsync completion bash)"."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise SettingsError(f"there is no completion for {shell}")
    click.echo(completion_class(context.find_root().command, {}, "trapsync", "_TRAPSYNC_COMPLETE").source())


COMMANDS = (settings_group, completion)
