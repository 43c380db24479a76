"""Addresses that are reached without TLS over a network of others: everybody on the way can read and change what is sent."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

_SENT = ("password_file", "key_file", "private_key_file", "api_key_file")
SECRETS = (*_SENT, "proxy_password_file", "config_file", "secret_file")
"""The keys that name a file with a secret, in whatever table. The last one only signs, and is never sent."""


def is_open_to_all(url: str) -> bool:
    """Whether everybody on the way there can read what is sent: without TLS, and out of the own network.

    A name without a dot, or in `.local` (RFC 6762), is of the own network, as private addresses are.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # no address at all, which is told where it is checked
        return False
    try:
        is_near = ip_address(host).is_private
    except ValueError:
        is_near = "." not in host.rstrip(".") or host.rstrip(".").endswith(".local")
    return parts.scheme == "http" and not is_near


def is_address(text: str) -> bool:
    """Whether a text is an address of IPv4 or IPv6."""
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address. A name other than localhost is taken for open."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def told(table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Of a table of settings each key whose address is open to all, and what that means.

    Of a broker the key is `tls`. What goes through a proxy says so by its own address; of the proxy only the login matters.
    """
    addresses = {key: value for key, value in table.items() if isinstance(value, str)}
    if table.get("host") and table.get("tls", True) is False:
        addresses["tls"] = f"http://{table['host']}"
    if not table.get("proxy_password_file"):
        addresses.pop("proxy", None)
    own = any(table.get(key) for key in _SENT)
    for key, url in addresses.items():
        if is_open_to_all(url):
            what = "its password" if own or key == "proxy" else "what is sent, and answer in its place"
            yield key, f"everybody on the way to {urlsplit(url).hostname} can read {what}"
