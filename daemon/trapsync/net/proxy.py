"""The proxy that leads out of a network: which one a client uses, and its account there.

Only a setting says so: what the environment says of proxies counts where the setting is "environment", and nowhere else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import requests

from trapsync.errors import SettingsError, Unauthorised
from trapsync.settings.config_file import read_secret
from trapsync.settings.schema import ENVIRONMENT
from trapsync.settings.table import require_address

EXAMPLE = "http://proxy.example.org:3128"


class Keys(Protocol):
    """A table of settings that has a proxy."""

    @property
    def proxy(self) -> str:
        """Its address, "environment", or none."""

    @property
    def proxy_username(self) -> str:
        """The account there."""

    @property
    def proxy_password_file(self) -> Path | None:
        """The file of its password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. `url` is `http://host:port` and holds no password; `key` is how errors call the file of the password."""

    url: str
    username: str = ""
    password_file: Path | None = None
    key: str = ""
    password: str = ""  # one that the environment says

    @property
    def host(self) -> str:
        """Host and port, for texts."""
        return urlsplit(self.url).netloc

    def login(self) -> tuple[str, str] | None:
        """User and password, read anew: the operator can fix the file while the trap runs. Unauthorised where it is bad."""
        try:
            password = read_secret(self.password_file, self.key) if self.password_file else self.password
        except SettingsError as error:
            raise Unauthorised(str(error)) from None
        return (self.username, password) if self.username else None

    def denial(self) -> Unauthorised:
        """What it means that the proxy answered 407, and what to do."""
        if self.username:
            return Unauthorised(f"the proxy {self.host} rejects the login (407); check user and password")
        return Unauthorised(
            f"the proxy {self.host} wants a login (407): set proxy_username and proxy_password_file"
        )


def proxy_for(url: str, keys: Keys, table: str) -> Proxy | None:
    """The proxy on the way to a server, by the settings of this table; None: there is none.

    SettingsError if the environment names one that cannot be used.
    """
    if keys.proxy != ENVIRONMENT:
        key = f"{table}.proxy_password_file"
        return Proxy(keys.proxy, keys.proxy_username, keys.proxy_password_file, key) if keys.proxy else None
    named = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    return _from_environment(named, table) if named else None


def _from_environment(named: str, table: str) -> Proxy:
    """The proxy that a variable names, with the password in it, which is never shown."""
    parts = urlsplit(named if "://" in named else f"http://{named}")
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        require_address(f"{table}.proxy", address, EXAMPLE)
    except ValueError as error:
        raise SettingsError(f"{error}; it is what the environment says") from None
    return Proxy(address, unquote(parts.username or ""), password=unquote(parts.password or ""))
