"""The config that is in force: that of the config file, or, where this is invalid, the last one that ran.

A start with an invalid file goes on with the last config that ran. Keys, accounts and addresses of that one are never
used against a newer file that can be read: what such a file does not name any more, or names otherwise, is not used.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from trapsync.clock import Clock
from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.remote.in_force import InForce, lay
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.remote.uplink.calls import Callbacks, Uplink
from trapsync.runtime.destination_context import check_all
from trapsync.settings import config_file, last_good
from trapsync.settings.layers import OVERRIDE, Fallback, Files, merge
from trapsync.settings.schema import Destination, Settings
from trapsync.settings.time_zone import zone
from trapsync.trap import place, system_clock

log = logging.getLogger(__name__)

Tables = dict[str, Any]

_ACCOUNTS = ("remote", "hub", "destinations")
_NONE: Tables = {name: {} for name in _ACCOUNTS}
# Keys that name no place, account or key.
_HARMLESS = {*Destination.__struct_fields__, "min_rate", "timeout"} - {"kind"}
APPLY = "sudo systemctl reload trapsync"


def check(files: Files) -> None:
    """Raise SettingsError, which names the file, if no daemon could be made with these; nothing is touched."""
    settings, clock, source = files.local, system_clock(files.local), files.source
    try:
        place(settings)
        remote = RemoteSettings(files, clock)
        check_all(settings, source)
        callbacks = Callbacks(_never, _never, _never)
        Uplink(settings.hub, settings.trap.device, remote.slots, callbacks, clock, _never)
    except SettingsError as error:
        text = str(error)
        raise SettingsError(text if text.startswith(f"{source}: ") else f"{source}: {text}") from None


def _never(*_: object) -> NoReturn:
    raise AssertionError("this is only checked")


def load(source: Path, step_down: Callable[[Path], None] = lambda _folder: None) -> InForce:
    """Read the settings in force. Raises SettingsError where the file is invalid and no config ever ran.

    `step_down` gets each state folder before anything in it is read. Where the files can be read, and only no daemon could
    be made with them, and no other config ran, these are the settings: `files.fallback` says what is wrong with them.
    """
    try:
        files = Files(source)
        step_down(files.local.storage.state)
    except SettingsError as error:
        return lay(_last_good(source, str(error), step_down))
    try:
        check(files)
    except SettingsError as error:
        try:
            files = _last_good(source, str(error), step_down)
        except SettingsError as reason:
            files = Files(source, files.texts, Fallback(str(reason)))
    return lay(files)


def _last_good(source: Path, problem: str, step_down: Callable[[Path], None]) -> Files:
    """The files of the last config that ran; SettingsError, which begins with the problem, if there is none to be used."""
    for state in last_good.folders(source):
        step_down(state)
        try:
            kept = last_good.read(state, source)
        except SettingsError as error:
            raise SettingsError(f"{problem}; {error}") from None
        if kept:
            break
    else:
        raise SettingsError(problem)
    fallback = Fallback(problem, kept.since)
    try:
        files = Files(source, kept.texts, fallback)
        step_down(files.local.storage.state)
        check(files)
    except SettingsError as error:
        raise SettingsError(f"{problem}; the last config that ran cannot be used either: {error}") from None
    return _with_newer_accounts(files, fallback)


def _with_newer_accounts(files: Files, fallback: Fallback) -> Files:
    """The last config that ran, without what the files on the card name otherwise, as far as they can be read."""
    kept = merge(files.tables, files.override)
    override = files.source.with_name(OVERRIDE)
    there = _readable(override, files.override) if override.exists() else {}
    newest = merge(_readable(files.source, files.tables), there)
    if all(kept.get(name) == newest.get(name) for name in (*_ACCOUNTS, "prune")):
        return files
    # Other destinations must let no image leave the card that would stay on it by either config.
    for accounts in ({name: newest.get(name, {}) for name in _ACCOUNTS}, _in_both(kept, newest), _NONE):
        with suppress(SettingsError):
            unused = tuple(_unused(kept, accounts))
            found = Files(
                files.source, files.texts, replace(fallback, unused=unused), accounts | {"prune": {}}
            )
            check(found)
            return found
    raise SettingsError(fallback.problem)


def _readable(path: Path, otherwise: Tables) -> Tables:
    try:
        return config_file.read(path)
    except SettingsError:
        return otherwise


def _in_both(kept: Tables, newest: Tables) -> Tables:
    """The tables of the one config that name nothing which the other does not name as well."""
    there = newest.get("destinations")
    tables = {name: one for name, one in kept.get("destinations", {}).items() if _names(there, name, one)}
    hub = kept.get("hub", {})
    return {
        "remote": kept.get("remote", {}) if kept.get("remote") == newest.get("remote") else {},
        "hub": hub if _names(newest, "hub", hub) else {},
        "destinations": tables,
    }


def _names(tables: object, name: str, kept: Tables) -> bool:
    """Whether the table of this name has all that names a place, an account or a key in the other one."""
    table = tables.get(name) if isinstance(tables, dict) else None
    return isinstance(table, dict) and all(
        key in _HARMLESS or (key in table and table[key] == value) for key, value in kept.items()
    )


def _unused(kept: Tables, accounts: Tables) -> Iterator[str]:
    """What the kept config has and that is not used."""
    yield from (name for name in ("remote", "hub") if kept.get(name) and not accounts[name])
    yield from (
        f"destinations.{name}"
        for name in kept.get("destinations", {})
        if name not in accounts["destinations"]
    )


def note_running(files: Files, clock: Clock, tell: Callable[[Literal["config"], object], None]) -> None:
    """Note that this config runs: keep it for a start with an invalid one, or tell `status` that it is such a start.

    A card that refuses costs nothing else.
    """
    since = files.fallback.since if files.fallback else None
    tell("config", None if since is None else moment(files.local, since))
    if since is None:
        try:
            last_good.keep(files.local.storage.state, files.source, files.texts, clock.wall())
        except StorageError as error:
            log.warning("the config cannot be kept for a start with an invalid one: %s", error)


def shown(files: Files) -> str | None:
    """What is wrong with the config file and what is in force, for people; None where it is in force."""
    return _shown(files, files.fallback) if files.fallback else None


def _shown(files: Files, fallback: Fallback) -> str:
    text = f"the config file is invalid: {fallback.problem}"
    if fallback.since is not None:
        text += f"; running on the one of {moment(files.local, fallback.since)}"
    if fallback.unused:
        text += f", without {', '.join(fallback.unused)}, which the file names otherwise"
    return f"{text}; correct it, then: {APPLY}"


def moment(settings: Settings, at: float) -> str:
    """A moment as a person at the trap would write it."""
    return f"{datetime.fromtimestamp(at, zone(settings)):%Y-%m-%d %H:%M}"


class ConfigWatch:
    """Says what is wrong with the config file by now, which may have been edited since the start. Any thread may ask."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._stamp = self._look()
        self._text = shown(files)

    def problem(self) -> str | None:
        """What is wrong, and what is in force; None where nothing is."""
        if (stamp := self._look()) != self._stamp:
            self._text, self._stamp = self._judged(), stamp
        return self._text

    def _look(self) -> list[object]:
        return [_stamp(path) for path in (self._files.source, self._files.source.with_name(OVERRIDE))]

    def _judged(self) -> str | None:
        try:
            check(Files(self._files.source))
            return None
        except TrapsyncError as error:
            fallback = self._files.fallback or self._running()
            return _shown(self._files, replace(fallback, problem=str(error)))

    def _running(self) -> Fallback:
        """Since when the settings that this process began with are kept."""
        kept = None
        with suppress(SettingsError):
            kept = last_good.read(self._files.local.storage.state, self._files.source)
        return Fallback("", kept.since if kept else None)


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
