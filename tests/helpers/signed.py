"""The owner of traps, for tests: a key, a trap's config file that trusts it, and documents of every kind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import drawings
from trapsync.remote import document
from trapsync.remote.document import Document, PrivateKey, Resend

OWNER, STRANGER = PrivateKey(b"o" * 32), PrivateKey(b"s" * 32)
ISSUED = datetime(2026, 6, 21, 20, 0, tzinfo=UTC)
DOCUMENT = Document(
    kind="settings",
    to=f"device:{drawings.DEVICE}",
    version=1,
    issued=ISSUED,
    expires=ISSUED + timedelta(days=365),
)

TRUSTING = f"""
[remote]
enabled = true
keys = ["{OWNER.public}"]
groups = ["valley"]
"""


def settings(version: int, tables: dict[str, Any], key: PrivateKey = OWNER, **changes: Any) -> bytes:
    """A signed document that pushes these tables."""
    one = replace(DOCUMENT, version=version, settings=tables, **changes)
    return document.sign(document.compose(one), key)


def resend(
    version: int, since: datetime, until: datetime, destination: str | None = None, key: PrivateKey = OWNER
) -> bytes:
    """A signed document that asks for images again."""
    asked = Resend(since, until, destination)
    return document.sign(
        document.compose(replace(DOCUMENT, version=version, kind="resend", resend=asked)), key
    )


def keys(version: int, *revoked: PrivateKey, key: PrivateKey = OWNER, **changes: Any) -> bytes:
    """A signed document about keys: it revokes these, or none, and may jump to any number."""
    ids = tuple(one.public.id for one in revoked)
    one = replace(DOCUMENT, version=version, kind="keys", to="all", revoke=ids, **changes)
    return document.sign(document.compose(one), key)


def prepare(folder: Path, more: str = "", pushed: str = TRUSTING) -> Path:
    """The config file of a trap that takes the owner's settings; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "trapsync.toml"
    source.write_text(
        f'[trap]\ndevice = "{drawings.DEVICE}"\n[storage]\nspool = "spool"\nstate = "state"\n[camera]\nkind = "none"\n'
        f'[destinations.stick]\nkind = "directory"\npath = "stick"\n{pushed}{more}'
    )
    return source
