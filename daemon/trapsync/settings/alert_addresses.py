"""Whom the hub tells, and what it pings: the addresses of two files, which are secrets."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trapsync.errors import SettingsError
from trapsync.settings import config_file

_MOST = 20
_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30})://\S+")
_KEY, _PING_KEY = "alerts.addresses_file", "alerts.ping_file"


@dataclass(frozen=True, slots=True)
class Address:
    """One address, and the line that it stands in. Only `url` is a secret."""

    url: str
    line: int

    @property
    def id(self) -> str:
        """By what the database knows it."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    def __str__(self) -> str:
        """What people may see of it: `line 3 (mailtos)`."""
        return f"line {self.line} ({self.url.partition('://')[0].lower()})"

    def __repr__(self) -> str:
        """The same: it may come into a traceback."""
        return str(self)


def read(path: Path) -> tuple[Address, ...]:
    """The addresses of a file, one a line; empty lines and those with a # in front do not count.

    SettingsError where the file is missing, open to others, or has a line that is no address.
    """
    found = dict[str, Address]()
    for number, line in enumerate(config_file.read_secret(path, _KEY).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not _ADDRESS.fullmatch(text):
            raise SettingsError(
                f"{_KEY}: {path}: line {number} is no address such as ntfys://ntfy.sh/my-traps "
                "(spaces are written %20); correct it"
            )
        found.setdefault(text, Address(text, number))
    if not found:
        raise SettingsError(f"{_KEY}: {path} has no address in it; write one a line, or take the setting out")
    if len(found) > _MOST:
        raise SettingsError(f"{_KEY}: {path} has {len(found)} addresses; {_MOST} are the most")
    return tuple(found.values())


def read_ping(path: Path) -> str:
    """The address in a file that is pinged; SettingsError where there is none, without showing it."""
    url = config_file.read_secret(path, _PING_KEY).strip()
    if not _is_of_the_web(url):
        raise SettingsError(
            f"{_PING_KEY}: {path} holds no address that begins with https://; write it there alone"
        )
    return url


def _is_of_the_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for one that is no number
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and len(url.split()) == 1
