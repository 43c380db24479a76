"""The owner's own settings, `~/.config/trapsync/owner.toml`, so that a command need not be told them each time."""

import os
from pathlib import Path
from typing import Any

from trapsync.errors import SettingsError, StorageError
from trapsync.files.durable import explain
from trapsync.settings import config_file
from trapsync.settings.config_file import changed
from trapsync.settings.schema import HomeMqtt, Table

ENVIRONMENT_KEY = "TRAPSYNC_OWNER"
DEFAULT_PATH = Path("~/.config/trapsync/owner.toml")


class Owner(Table, frozen=True):
    """owner.toml: where this owner's documents go, by which account, and signed with which key.

    Of `hub`, `folder` and `broker` the first that is set is used.
    """

    hub: str = ""
    username: str = "trapsync"
    password_file: Path | None = None
    ca_file: Path | None = None
    key: Path | None = None
    folder: Path | None = None
    broker: HomeMqtt = HomeMqtt()


def load() -> Owner:
    """Read the file, if there is one. Raises SettingsError, one line."""
    path = Path(os.environ.get(ENVIRONMENT_KEY) or DEFAULT_PATH).expanduser()
    if not path.exists():
        return Owner()
    return config_file.rooted(config_file.decode(config_file.read(path), Owner, path), path.absolute().parent)


def chosen(
    hub: str | None,
    folder: Path | None,
    broker: str | None,
    user: str | None,
    password_file: Path | None,
    ca_file: Path | None,
    *,
    tls: bool = True,
) -> Owner:
    """The owner's settings with what was said on the command line instead. Raises SettingsError."""
    owner = load()
    if sum(map(bool, (hub, folder, broker))) > 1:
        raise SettingsError("say one of --hub, --folder and --broker")
    if broker:
        host, _, port = broker.partition(":")
        table: dict[str, Any] = {"host": host, "port": int(port) if port.isdigit() else 8883, "tls": tls}
        files = {"password_file": password_file, "ca_file": ca_file}
        table |= {key: str(file.absolute()) for key, file in files.items() if file}
        table |= {"username": user or owner.username} if password_file else {}
        return changed(owner, hub="", folder=None, broker=config_file.decode(table, HomeMqtt, "--broker"))
    changes: dict[str, Any] = {"username": user, "password_file": password_file, "ca_file": ca_file}
    owner = changed(owner, **{key: value for key, value in changes.items() if value is not None})
    if folder:
        return changed(owner, hub="", folder=folder)
    if hub:
        if not hub.startswith(("https://", "http://")):
            raise SettingsError(f"--hub {hub}: is not an address such as https://hub.example.org")
        return changed(owner, hub=hub)
    return owner


def keep_secret(path: Path, text: str) -> None:
    """Write a new file that nobody else may read; one that is there is never overwritten. Raises StorageError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StorageError(
            f"{path}: is there already, and is not overwritten; name another with --out"
        ) from None
    except OSError as error:
        raise StorageError(explain(error, path)) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
