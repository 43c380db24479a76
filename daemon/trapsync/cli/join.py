"""Join a hub: `trapsync join`, typed by a person, or by root's helper for a card that was prepared."""

import os
import signal
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from trapsync.cli import drop_root
from trapsync.cli.common import show_lines
from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.files import durable, failpoint
from trapsync.settings import config_file
from trapsync.settings.layers import OVERRIDE, Files, Texts

_HOMES = {"home", "root"}  # which the service cannot see


@click.command(short_help="Join a hub with a code of its operator's.")
@click.argument("code", required=False)
@click.option("--name", default="", help="A name of this trap for people.")
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, readable=False),
    help="The CA certificate of the hub, if it is not a public one.",
)
@click.option("--replace", is_flag=True, help="Even if this trap trusts another operator's keys.")
@click.option("--no-restart", is_flag=True, help="Leave the daemon as it is.")
@click.option("--card", is_flag=True, help="With the code in trapsync-join.txt on the boot partition.")
@click.pass_context
def join(
    context: click.Context,
    code: str | None,
    name: str,
    ca_file: Path | None,
    replace: bool,
    no_restart: bool,
    card: bool,
) -> None:
    """Join the hub that CODE is of: it gives this trap an account of its own, the operator's keys, and groups.

    The operator makes the code: trapsync hub invite. The config file is changed only once the hub has answered what the code
    promises; as it was before it stays beside, as .before-join. The same command may be given again.
    """
    if card == bool(code):
        raise click.UsageError("give the code, or --card")
    config = config_file.find(context.find_root().obj).absolute()
    if code:
        _join(config, code, name, ca_file=ca_file, replace=replace, no_restart=no_restart)
    else:
        _join_with_card(config, name, ca_file=ca_file, replace=replace, no_restart=no_restart)


def _join_with_card(config: Path, name: str, **options: Any) -> None:
    """Join with the file on the boot partition, and remove it; why not is left for the status."""
    from trapsync.hardware import prepared_card

    path = prepared_card.find()
    if path is None:
        click.echo(f"there is no {prepared_card.NAME} on the boot partition")
        return
    try:
        drop_root.step_down(path)
        code, named = prepared_card.read(path)
        _join(config, code, name or named, **options)
    except TrapsyncError as error:
        _leave_word(f"not joined yet: {error}")
        raise
    try:
        path.unlink()
        durable.flush_folder(path.parent)
        failpoint.hit("join: code removed")
    except OSError as error:
        word = f"{path} cannot be removed ({error.strerror}); remove it, for the code is in it"
        _leave_word(f"joined, but {word}")
        click.echo(f"trapsync: {word}", err=True)


def _leave_word(text: str) -> None:
    """Leave for the status what became of it: in the folder that systemd made for that."""
    if folder := os.environ.get("RUNTIME_DIRECTORY"):
        word = Path(folder) / "reason"
        word.write_text(f"{text}\n", encoding="utf-8")
        word.chmod(0o644)
        failpoint.hit("join: word left")


def _join(
    source: Path, text: str, name: str, *, ca_file: Path | None, replace: bool, no_restart: bool
) -> None:
    """Ask the hub, write what follows, and say so. Raises TrapsyncError, and then the config file is as it was."""
    # All of it now: once this is the account, the interpreter's library may not be readable.
    import encodings.idna  # noqa: F401

    from trapsync.hardware.device_id import device_id
    from trapsync.net.invitation import Code
    from trapsync.remote import document, joining
    from trapsync.runtime import config_check
    from trapsync.trap import system_clock

    code = Code.parse(text)
    token = joining.token_file(source, code)
    for file in (source, source.with_name(OVERRIDE), token):
        drop_root.step_down(file)
    files = Files(source, _texts(source))
    device = device_id(files.local.trap)
    hub = joining.connection(files.local.hub, code, device, token, _authorities(ca_file))
    _warn_without_tls(hub)
    state = files.local.storage.state
    group = _group(source, state)
    if not token.exists():
        _write(token, f"{joining.new_password()}\n", group)

    clock = system_clock(files.local)
    called = name or files.local.trap.name
    try:
        said = _asked(state, partial(joining.ask, hub, code, called, clock, time.sleep))
        terms = joining.read(said, code)
    except joining.Refusal:
        if files.local.hub.password_file != token:
            token.unlink()
            failpoint.hit("join: password removed")
        raise
    after, destination = joining.with_terms(files, hub, terms, name, replace=replace)
    _as_account(state, partial(_check, config_check.check, Files(source, after)))
    _put(source, files.texts.config, after.config, group)
    _tidy(source, after.config, files.texts.config, after.override or "")
    is_told = not no_restart and bool(_as_account(state, partial(_tell_daemon, state)))

    named = f", named {called}" if called else ""
    show_lines(
        [
            ("hub", code.hub),
            ("device", f"{device}{named}"),
            ("groups", ", ".join(terms.groups) or "none"),
            ("keys", document.key_ids(terms.keys) or "none: no settings can be sent to this trap"),
            (
                "images",
                f"delivered there: [destinations.{destination}]" if destination else "not delivered there",
            ),
            ("next", _next(is_told=is_told)),
        ]
    )


def _texts(source: Path) -> Texts:
    """The texts of the config; where there is no file, of one to begin with."""
    if source.exists():
        return Texts.read(source)
    override = source.with_name(OVERRIDE)
    return Texts(
        config_file.example(complete=False), config_file.read_text(override) if override.exists() else None
    )


def _authorities(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = path.absolute()
    if drop_root.is_root() and _HOMES & {*path.parts[1:2]}:
        raise SettingsError(f"{path}: the service sees no homes; copy it to /etc/trapsync, and name it there")
    return path


def _warn_without_tls(hub: Any) -> None:
    from trapsync.settings import open_links

    for _, text in open_links.told(config_file.plain(hub)):
        click.echo(f"trapsync: warning: {text}; ask for a code that begins with https://", err=True)


def _asked(state: Path, ask: Callable[[], str]) -> str:
    """Ask the hub in the name of the trap's account."""
    try:
        return _as_account(state, ask)
    except TrapsyncError as error:
        raise SettingsError(f"{error}; nothing was changed, and it can be tried again") from None


# ── In whose name ────────────────────────────────────────────────────────────────────────────────────


def _as_account(state: Path, work: Callable[[], str]) -> str:
    """Do something in the name of the trap's account; root stays root, to write its own files."""
    if not drop_root.is_root():
        return work()

    def as_account() -> str:
        drop_root.step_down(state)
        return work()

    return drop_root.without_root(as_account)


def _check(check: Callable[[Files], None], files: Files) -> str:
    check(files)
    return ""


def _tell_daemon(state: Path) -> str:
    """Have the daemon restart with the config file, if it runs."""
    from trapsync.trap import holder, tell_daemon

    process = holder(state)
    if not process:
        return ""
    try:
        tell_daemon(process, signal.SIGHUP)
    except StorageError:  # the lock names some other process
        return ""
    return "told"


def _next(*, is_told: bool) -> str:
    if is_told:
        return "the daemon restarts with this; at the operator's computer: trapsync fleet"
    return "this applies from the next start on; now: sudo systemctl reload-or-restart trapsync"


# ── Files of root's, or of whoever types this ────────────────────────────────────────────────────────


def _group(source: Path, state: Path) -> int | None:
    """The group that reads what root writes: the account's; None where this is not root."""
    if not drop_root.is_root():
        return None
    group = drop_root.account_group(state)
    return source.parent.stat().st_gid if group is None and source.parent.exists() else group


def _write(path: Path, text: str, group: int | None) -> None:
    """Write a new file durably, for this user alone, or for root and the account's group."""
    before = os.umask(0o077)
    try:
        if group is None:
            durable.make_folder(path.parent)
            config_file.write_as(path, text, os.geteuid(), os.getegid(), 0o600)
            return
        if not path.parent.exists():
            durable.make_folder(path.parent)
            os.chown(path.parent, 0, group)
            path.parent.chmod(0o750)
        config_file.write_as(path, text, 0, group, 0o640)
    finally:
        os.umask(before)


def _put(source: Path, before: str, after: str, group: int | None) -> None:
    """Put the new config file in the place of the old one, which stays beside it."""
    if not source.exists():
        _write(source, after, group)
    elif after != before:
        now = source.stat()
        kept = source.with_name(f"{source.name}.before-join")
        config_file.write_as(kept, before, now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode))
        config_file.replace(source, after)


def _tidy(source: Path, *texts: str) -> None:
    """Remove the passwords of codes that led to nothing: those that no text of the config names."""
    from trapsync.remote import joining

    for token in source.parent.glob(joining.TOKENS):
        if not any(token.name in text for text in texts):
            token.unlink()
            failpoint.hit("join: password removed")


COMMANDS = (join,)
