"""Settings and the shell: settings check, show and take, completion."""

from functools import partial
from pathlib import Path

import click

from trapsync.cli.common import Trap, load_settings, with_trap
from trapsync.errors import SettingsError
from trapsync.remote.document import LARGEST
from trapsync.settings import config_file


@click.group(name="settings")
def settings_group() -> None:
    """Show or check the settings, or apply signed ones from a file."""


@settings_group.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check the config file, and override.toml beside it. Changes nothing."""
    found = load_settings(context.find_root().obj)
    if found.files.fallback:
        raise SettingsError(found.files.fallback.problem)
    click.echo(f"{found.source}: valid")
    if found.overridden:
        click.echo(f"remote settings: {found.overridden}")


@settings_group.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the settings in force, defaults included. Secrets are not shown: they are in files.

    Keys that are not from the config file come first, as comments that say who set them.
    """
    from trapsync.runtime import config_check

    found = load_settings(context.find_root().obj)
    if problem := config_check.shown(found.files):
        click.echo(f"# {problem}")
    if found.overridden:
        click.echo(f"# remote settings: {found.overridden}")
    for key, origin in sorted(found.origins.items()):
        click.echo(f"# {'.'.join(key)}: {origin}")
    click.echo(config_file.to_text(found.settings), nl=False)


@settings_group.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@with_trap
def take(trap: Trap, file: Path) -> int:
    """Apply signed remote settings from a file, a USB stick's, say.

    They are checked and tried as if they had come over the network: the daemon restarts with them.
    """
    import signal

    from trapsync.remote.remote_settings import RemoteSettings
    from trapsync.runtime.trial import before_now
    from trapsync.trap import holder, tell_daemon

    with file.open("rb") as opened:
        data = opened.read(LARGEST + 1)
    before = partial(before_now, trap.settings, trap.clock)
    outcome = RemoteSettings(trap.found.files, trap.clock).accept(data, before)
    click.echo(f"{outcome.code}: {outcome.text}")
    if outcome.is_accepted and (process := holder(trap.settings.storage.state)):
        tell_daemon(process, signal.SIGHUP)
    return 0 if outcome.code in {"accepted", "known"} else 1


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
