"""What destinations that are servers have in common: how slow they may be, which place they are, the door to them."""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from trapsync import __version__
from trapsync.destinations import Tools
from trapsync.net.http import Door
from trapsync.settings.schema import Destination, within
from trapsync.settings.units import Size


class Settings(Destination, frozen=True, kw_only=True):
    """The keys of every destination that is a server, besides those of all destinations."""

    least_rate: Size = Size(2000)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        within(self, least_rate=(1, 10**9))

    def slowest(self) -> float:
        """As the owner says."""
        return float(self.least_rate)


def identity(kind: str, url: str, *account: str) -> str:
    """Which place a server and an account on it are: the same, however the owner writes its address.

    `account` is what the account is called, with a word before it: "as trap". Another scheme or port is
    another place: what answers without TLS need not be what answers with it. To take one place for two costs
    a question for each batch of images; to take two for one could cost the images.
    """
    return ", ".join([f"{kind} {_address(url)}", *account])


def _address(url: str) -> str:
    """The address in its one spelling: scheme, host, a port that is not the scheme's own, path."""
    parts = urlsplit(url)
    host, port = _host(parts.hostname or ""), parts.port
    if port and port != {"http": 80, "https": 443}.get(parts.scheme):
        host = f"{host}:{port}"
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return f"{parts.scheme}://{host}{path}"


def _host(host: str) -> str:
    """A host in lower case and ASCII, without the dot at the end; an address of version 6 in its short form."""
    try:
        address = ipaddress.ip_address(host)
        return f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        pass
    name = host.rstrip(".").lower()
    try:
        return name.encode("idna").decode()
    except UnicodeError:  # no name that can be looked up; said when it is
        return name


def door(url: str, settings: Settings, tools: Tools, **more: Any) -> Door:
    """The door to a server, as the owner's settings have it; `more` goes to `Door` as it is."""
    limits = {
        "bandwidth": settings.bandwidth,
        "parallel": settings.parallel,
        "least_rate": settings.least_rate,
    }
    return Door(url, f"trapsync/{__version__}", tools.clock, tools.sleep, **{**limits, **more})
