"""The hub's config file: how it is reached and where it keeps things ([hub]), how long ([hub.keep]), and of which study."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trapsync.errors import SettingsError
from trapsync.settings import config_file
from trapsync.settings.alerts import Alerts
from trapsync.settings.open_links import is_address
from trapsync.settings.project import Project
from trapsync.settings.table import Table, within
from trapsync.settings.units import Keeping, Size

_DAY = 86400.0
_MISSING = "there is no such config file; to begin one: trapsync hub example > hub.toml, and name it: --config hub.toml"
_FOR_EVER = Keeping(math.inf)


class Keep(Table, frozen=True):
    """[hub.keep]: how long the hub keeps what it has; what is older is deleted, for good."""

    images: Keeping = _FOR_EVER
    annotations: Keeping = _FOR_EVER
    reports: Keeping = _FOR_EVER
    heartbeats: Keeping = _FOR_EVER

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, **dict.fromkeys(self.__struct_fields__, (30 * _DAY, math.inf)))

    def has_end(self, what: str) -> bool:
        """Whether this is ever deleted."""
        return bool(getattr(self, what) != _FOR_EVER)

    @property
    def has_any_end(self) -> bool:
        """Whether anything is ever deleted."""
        return any(map(self.has_end, self.__struct_fields__))


class Hub(Table, frozen=True):
    """[hub]: the receiver. Its keys are the options of `trapsync hub`."""

    folder: Path = Path("/var/lib/trapsync-hub")
    host: str = "127.0.0.1"
    port: int = 8080
    password_file: Path | None = None
    min_free: Size = Size(500_000_000)
    behind_proxy: str = ""
    url: str = ""
    owner_keys: tuple[str, ...] = ()
    keep: Keep = Keep()

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, port=(0, 65535))
        if self.behind_proxy and not is_address(self.behind_proxy):
            raise ValueError(
                f"behind_proxy: {self.behind_proxy!r} is no IP address; give the web server's, as 127.0.0.1"
            )
        if self.url and not _is_origin(self.url):
            raise ValueError(f"url: {self.url!r}: give scheme and name only, as https://hub.example.org")


class HubSettings(Table, frozen=True):
    """The whole file."""

    hub: Hub = Hub()
    project: Project = Project()
    alerts: Alerts = Alerts()


def load(path: Path) -> HubSettings:
    """Read a hub's config file. Paths in it are relative to its own folder. Raises SettingsError, one line."""
    text = config_file.read_text(path, _MISSING)
    found = config_file.decode(config_file.tables(text, path), HubSettings, path)
    return config_file.rooted(found, path.absolute().parent)


def with_options(hub: Hub, options: dict[str, Any]) -> Hub:
    """The same table with what was given on the command line. Raises SettingsError, which names the option."""
    try:
        return config_file.changed(hub, **options)
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        raise SettingsError(f"--{key.replace('_', '-')}: {reason}") from None


def _is_origin(text: str) -> bool:
    """Whether a text is scheme, name and perhaps port, and nothing else: no password, say."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # what is no number is a ValueError here
    except ValueError:
        return False
    origin = f"{parts.scheme}://{parts.netloc}".lower()
    is_web = parts.scheme in {"http", "https"} and host is not None
    return is_web and "@" not in origin and text.lower().rstrip("/") == origin
