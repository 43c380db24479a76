"""Settings and the shell: settings check, show, set, unset, example and take, completion."""

import json
import os
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click

from trapsync.cli.common import Trap, load_settings, with_trap
from trapsync.errors import SettingsError, printable
from trapsync.remote.document import LARGEST
from trapsync.settings import config_file, editing
from trapsync.settings.layers import OVERRIDE, Files, Key, Texts
from trapsync.settings.schema import Settings


@click.group(name="settings")
def settings_group() -> None:
    """Show, check or change the settings, or apply signed ones from a file."""


@settings_group.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check the config file, and override.toml beside it. Changes nothing.

    Exit code 0 if it is valid. Passwords, files and folders that it names and that the trap's account cannot read are told
    then, for the trap starts without them; and addresses at which everybody on the way can read what is sent. Whether a
    destination works, status says.
    """
    from trapsync.doctor import network

    found = load_settings(context.find_root().obj)
    if found.files.fallback:
        raise SettingsError(found.files.fallback.problem)
    wrong = [
        *network.secrets(found.settings, found.source),
        *network.named_files(found.settings, found.source),
        *network.without_tls(found.settings),
    ]
    wrong = [one for one in wrong if one.verdict != "ok"]
    click.echo(f"{found.source}: valid{', but:' if wrong else ''}")
    for one in wrong:
        click.echo(f"- {printable(one.text)}")
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
    click.echo(config_file.to_text(_complete(found.settings, found.source)), nl=False)


def _complete(settings: Settings, source: Path) -> Settings:
    """The same settings with the defaults of destinations, too; a table that is wrong stays as it is."""
    from trapsync import destinations

    tables = dict(settings.destinations)
    for name, table in tables.items():
        with suppress(SettingsError):
            tables[name] = config_file.plain(destinations.check(name, table, source).settings)
    return config_file.changed(settings, destinations=tables)


@settings_group.command(name="set")
@click.argument("pairs", metavar="KEY VALUE [KEY VALUE]...", nargs=-1, required=True)
@click.pass_context
def set_(context: click.Context, pairs: tuple[str, ...]) -> None:
    """Set values in the config file, if the result is valid.

    For example: trapsync settings set capture.every "5 min". Comments and everything else in the file stay.
    """
    if len(pairs) % 2:
        raise click.UsageError(f"there is no value for {pairs[-1]}")
    keys = [editing.key_of(key) for key in pairs[::2]]
    choices = [_meanings(text) for text in pairs[1::2]]
    changes = [partial(_with_values, keys, values) for values in product(*choices)]
    _edit(context, keys, changes)


def _with_values(keys: Sequence[Key], values: Sequence[Any], text: str, source: Path) -> str:
    for key, value in zip(keys, values, strict=True):
        text = editing.with_value(text, key, value, source)
    return text


def _meanings(text: str) -> list[Any]:
    """What a value may mean that was typed in a shell, which takes quotes away: as TOML has it, or text."""
    found: list[Any] = []
    with suppress(ValueError):
        found = [
            one
            for one in tomllib.loads(f"x = {text}").values()
            if isinstance(one, bool | int | float | str | list)
        ]
    return [*found, text]


@settings_group.command()
@click.argument("key", metavar="KEY")
@click.pass_context
def unset(context: click.Context, key: str) -> None:
    """Make a line of the config file a comment, if the result is valid: its default is in force again."""
    path = editing.key_of(key)
    _edit(context, [path], [lambda text, source: editing.without_value(text, path, source)])


def _edit(context: click.Context, keys: Sequence[Key], changes: Sequence[Callable[[str, Path], str]]) -> None:
    """Make the first of these changes whose result is valid, and say what it changed; the error of the first if none is.

    Root stays root, to write its own file, and reads nothing that the trap's account may write: the check, which does, is
    made in the account's name.
    """
    from trapsync.cli import drop_root
    from trapsync.runtime import config_check

    source = config_file.find(context.find_root().obj)
    for file in (source, source.with_name(OVERRIDE)):
        drop_root.step_down(file)
    before, problem = Texts.read(source), None

    def check(texts: Texts) -> str:
        files = Files(source, texts)
        drop_root.step_down(files.local.storage.state)
        config_check.check(files)
        return ""

    for change in changes:
        after = replace(before, config=change(before.config, source))
        try:
            drop_root.without_root(partial(check, after)) if drop_root.is_root() else check(after)
        except SettingsError as error:
            problem = problem or error
            continue
        config_file.replace(source, after.config)
        _tell_changes(source, keys, before, after)
        return
    assert problem
    raise problem


def _tell_changes(source: Path, keys: Sequence[Key], before: Texts, after: Texts) -> None:
    override = {} if after.override is None else config_file.tables(after.override, OVERRIDE)
    for key in keys:
        old, new = (
            _shown(config_file.tables(texts.config, source), key, source) for texts in (before, after)
        )
        click.echo(f"{source}: {'.'.join(key)}: {old} → {new}")
        if editing.value_at(override, key) is not None:
            click.echo(f"{source.with_name(OVERRIDE)} sets {'.'.join(key)} too, and takes precedence")
    click.echo("to apply it: sudo systemctl reload trapsync")


def _shown(tables: dict[str, Any], key: Key, source: Path) -> str:
    """A value as the file has it, else its default."""
    value, is_default = editing.value_at(tables, key), ""
    if value is None:
        with suppress(SettingsError):
            complete = config_file.plain(_complete(config_file.from_tables(tables, source), source))
            value, is_default = editing.value_at(complete, key), " (the default)"
    return "not set" if value is None else f"{json.dumps(value, ensure_ascii=False)}{is_default}"


@settings_group.command()
@click.option("--all", "complete", is_flag=True, help="Every setting, with its default and what it does.")
def example(complete: bool) -> None:
    """Print a config file to begin with: what a trap needs, as comments."""
    click.echo(config_file.example(complete=complete), nl=False)


@settings_group.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_trap
def take(trap: Trap, file: Path) -> int:
    """Apply signed remote settings from a file, a USB stick's, say.

    They are checked and tried as if they had come over the network: the daemon restarts with them.
    """
    import signal

    from trapsync.files import durable
    from trapsync.remote.remote_settings import RemoteSettings
    from trapsync.runtime.trial import before_now
    from trapsync.trap import holder, tell_daemon

    try:
        with os.fdopen(durable.open_plain(file, os.O_RDONLY), "rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
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
