"""The operator's own settings, `~/.config/trapsync/owner.toml`: so that a command needs no options for them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trapsync.errors import SettingsError, StorageError
from trapsync.files import durable
from trapsync.fleet.operator_key import replace_secret
from trapsync.settings import config_file, editing
from trapsync.settings.config_file import changed
from trapsync.settings.schema import HubMqtt, require_proxy
from trapsync.settings.table import Table

ENVIRONMENT_KEY = "TRAPSYNC_OWNER"
DEFAULT_PATH = Path("~/.config/trapsync/owner.toml")
_PASSWORD = "hub.password"  # noqa: S105 - the name of its file


class Operator(Table, frozen=True):
    """owner.toml: where this operator's documents are published, by which account, signed with which key.

    Of `hub`, `folder` and `broker` the first that is set is used. `trusted_keys` are public keys that traps trust besides
    that of `key`: your second one.
    """

    hub: str = ""
    username: str = "trapsync"
    password_file: Path | None = None
    ca_file: Path | None = None
    proxy: str = ""
    proxy_username: str = ""
    proxy_password_file: Path | None = None
    key: Path | None = None
    trusted_keys: tuple[str, ...] = ()
    folder: Path | None = None
    broker: HubMqtt = HubMqtt()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        require_proxy(self)


def where() -> Path:
    """The file."""
    return Path(os.environ.get(ENVIRONMENT_KEY) or DEFAULT_PATH).expanduser().absolute()


def remember(**values: str) -> Path:
    """Write these keys into the file, whose other lines stay as they are; the file. Raises SettingsError or StorageError."""
    path = where()
    text = config_file.read_text(path) if path.exists() else ""
    for key, value in values.items():
        text = editing.with_value(text, (key,), value, path)
    config_file.decode(config_file.tables(text, path), Operator, path)
    durable.write(path, [text.encode()])
    return path


def remember_password(password: str) -> Path:
    """Keep the hub's password beside the file, instead of the one before; its file. Raises StorageError."""
    path = where().with_name(_PASSWORD)
    try:
        durable.make_folder(path.parent)
        replace_secret(path, f"{password}\n")
    except OSError as error:
        raise StorageError(durable.explain(error, path)) from None
    return path


def load() -> Operator:
    """Read the file, if there is one. Raises SettingsError, one line."""
    path = where()
    if not path.exists():
        return Operator()
    return config_file.rooted(config_file.decode(config_file.read(path), Operator, path), path.parent)


@dataclass(frozen=True, slots=True)
class Options:
    """What was given on the command line instead; None where nothing was."""

    hub: str | None
    folder: Path | None
    broker: str | None
    user: str | None
    password_file: Path | None
    ca_file: Path | None
    no_tls: bool


def with_options(given: Options) -> Operator:
    """The operator's settings with these options in their place. Raises SettingsError."""
    operator = load()
    if sum(map(bool, (given.hub, given.folder, given.broker))) > 1:
        raise SettingsError("give one of --hub, --folder and --broker")
    if given.broker:
        return changed(operator, hub="", folder=None, broker=_broker(given, given.broker, operator))
    changes = {"username": given.user, "password_file": given.password_file, "ca_file": given.ca_file}
    operator = changed(operator, **{key: value for key, value in changes.items() if value is not None})
    if given.folder:
        return changed(operator, hub="", folder=given.folder)
    if given.hub:
        if not given.hub.startswith(("https://", "http://")):
            raise SettingsError(f"--hub {given.hub}: is not an address such as https://hub.example.org")
        return changed(operator, hub=given.hub)
    return operator


def _broker(given: Options, address: str, operator: Operator) -> HubMqtt:
    host, _, port = address.partition(":")
    table: dict[str, Any] = {
        "host": host,
        "port": int(port) if port.isdigit() else 8883,
        "tls": not given.no_tls,
    }
    files = {"password_file": given.password_file, "ca_file": given.ca_file}
    table |= {key: str(file.absolute()) for key, file in files.items() if file}
    table |= {"username": given.user or operator.username} if given.password_file else {}
    return config_file.decode(table, HubMqtt, "--broker")
