"""What every table of the settings is made with: its type, and the checks that several tables share."""

from urllib.parse import urlsplit

import msgspec

from trapsync.settings.units import shown


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the config file. Its fields are the keys, their defaults the defaults."""


def within(table: Table, **bounds: tuple[float, float]) -> None:
    """Refuse a value out of bounds; for `__post_init__`. The text starts with the key."""
    for key, (least, most) in bounds.items():
        value = getattr(table, key)
        if value is not None and not least <= value <= most:
            raise ValueError(
                f"{key}: {shown(value)} is not between {shown(least, value)} and {shown(most, value)}"
            )


def require_address(key: str, url: str, example: str, *, instead: str = "") -> None:
    """Refuse what is not the address of a server; for `__post_init__`.

    `example` is one that is. Names and passwords do not belong in it; `instead` says where they do.
    """
    parts = urlsplit(url)
    if instead and (parts.username or parts.password):
        raise ValueError(f"{key}: names and passwords do not belong there; use {instead}")
    try:
        is_plain = not (parts.query or parts.fragment or "@" in parts.netloc or parts.port == 0)
    except ValueError:  # its port is no number of one
        is_plain = False
    if parts.scheme not in {"https", "http"} or not parts.hostname or not is_plain:
        raise ValueError(f'{key}: {url!r} is not an address such as "{example}"')
