"""The code with which a trap joins a hub, and what it promises. The hub, the operator's computer and the trap share this.

::

    https://hub.example.org/join#7KXQ4M-2CP5ZT-A3WDHN-6RB2VQ-E4YJK7-SDQX2A

An address, a secret of 80 bits, and the first 100 bits of the SHA-256 of the terms. The operator's command makes it and
gives the hub the secret's hash. What the hub answers to a trap that joins has to have this fingerprint, so that a hub
that was taken over can name neither keys nor groups of its own. Behind the `#` a browser sends nothing.
"""

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from trapsync.errors import SettingsError
from trapsync.settings.open_links import is_loopback

DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
PUBLIC_KEY = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=", re.ASCII)
# What it means that a hub rejects the login of a trap that has joined.
NOT_KNOWN = "the hub does not know this trap, or no more; ask its operator for a new code, and then: sudo trapsync join CODE"
_SECRET, _FINGERPRINT = (
    16,
    20,
)  # characters of base32: 80 bits that are only guessed online, 100 that can be ground for
_LETTERS = re.compile(r"[A-Z2-7]{36}", re.ASCII)
_PATH = "/join"
_ADDRESS = re.compile(
    rf"https?://(?:[^\s/?#@\[\]]+|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?)(?:/[^\s?#]*)?{_PATH}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a trap gets that joins: the operator's public keys (`ed25519:…`), groups, whether it delivers images there."""

    keys: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    images: bool = True

    def fingerprint(self) -> str:
        """20 characters of base32; the order of keys and groups does not matter."""
        said = json.dumps([sorted(set(self.keys)), sorted(set(self.groups)), self.images])
        return _base32(hashlib.sha256(f"trapsync-join-1 {said}".encode()).digest())[:_FINGERPRINT]


@dataclass(frozen=True, slots=True)
class Code:
    """A code: the hub's address without a slash at its end, a secret, and the fingerprint of the terms."""

    hub: str
    secret: str = field(repr=False)
    fingerprint: str

    @classmethod
    def new(cls, hub: str, terms: Terms) -> "Code":
        """A new one, with a secret that nobody has."""
        return cls(hub.rstrip("/"), _base32(secrets.token_bytes(10)), terms.fingerprint())

    @classmethod
    def parse(cls, text: str) -> "Code":
        """Read what was typed or pasted; case, spaces and hyphens do not matter. SettingsError, one line, for no code."""
        address, _, rest = text.strip().partition("#")
        letters = re.sub(r"[\s-]", "", rest).upper()
        if not _ADDRESS.fullmatch(address):
            raise SettingsError("this is no code to join with: one begins like https://hub.example.org/join#")
        if not _LETTERS.fullmatch(letters):
            raise SettingsError(
                f"the code is not whole: behind the # stand {_SECRET + _FINGERPRINT} letters and digits (A to Z, 2 to 7), "
                f"and here are {len(letters)}; copy all of it, in quotes"
            )
        return cls(address.removesuffix(_PATH), letters[:_SECRET], letters[_SECRET:])

    @property
    def leads_here(self) -> bool:
        """Whether its address is that of this computer itself, which no other can reach."""
        return is_loopback(urlsplit(self.hub).hostname or "")

    @property
    def secret_hash(self) -> str:
        """What the hub keeps of the secret: its SHA-256, in hex."""
        return hash_of(self.secret)

    def __str__(self) -> str:
        """The code as it is pasted: no character of it means anything to a shell."""
        letters = self.secret + self.fingerprint
        return f"{self.hub}{_PATH}#{'-'.join(letters[at : at + 6] for at in range(0, len(letters), 6))}"


def hash_of(secret: str) -> str:
    """The SHA-256 of a secret that was drawn at random, in hex: it needs neither salt nor time."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")
