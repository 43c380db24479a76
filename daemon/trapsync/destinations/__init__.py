"""Where images go: one protocol, a module for each kind, and what all of them promise.

A destination is idempotent: delivering an image that it already holds ends with the same single copy
and a receipt. It decides which error a failure is (`trapsync.errors`): *Unreachable* when there was no
exact answer, *Failed* when it lives but did not take this image, *Held* when the image must wait,
*Refused* when it never will. It keeps nothing on the card: what is owed stands in the catalog.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trapsync.clock import Clock
from trapsync.errors import SettingsError
from trapsync.image import Image
from trapsync.settings import Destination as DestinationSettings
from trapsync.settings import decode, rooted

# A kind is a module that defines `Settings` and `connect(name, settings, tools)`; it is imported when a
# table of that kind is in the config file, and not before.
KINDS = {
    "directory": "trapsync.destinations.directory",
    "stickypi": "trapsync.destinations.stickypi",
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The positive proof: the destination confirmed this digest for this image.

    `digest` is what was confirmed (`md5:…` or `sha256:…`, hex), `detail` what the destination wants
    remembered with it (an id, a URL).
    """

    digest: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: how it is, and what to do if it is not well."""

    verdict: str  # "ok", "warning" or "failing"
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Tools:
    """What a destination is given rather than taking it: time, sleep, and which device it serves."""

    clock: Clock
    sleep: Callable[[float], None]
    device: str = ""


class Destination(Protocol):
    """A place that images are delivered to. Methods may be called from several threads at once."""

    name: str
    settings: DestinationSettings
    # How many images one `known` may ask about.
    batch: int

    def known(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask before sending: which of these are there already, by image id.

        A Receipt: it is there, byte for byte. A Refused (as a value): something else is there under
        that name. Absent from the answer: send it. Raises Unreachable. Reads no image bytes.
        """

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image from the file at `path` and confirm it. Raises DeliveryError, or
        FileNotFoundError when the file is gone."""

    def check(self) -> list[Finding]:
        """For the doctor: reachable, allowed in, room enough? Sends no image and never raises."""

    def close(self) -> None:
        """Let connections go."""


def connect(name: str, table: dict[str, Any], tools: Tools, source: Path) -> Destination:
    """Make the destination of one [destinations.NAME] table; SettingsError if the table is wrong."""
    kind, settings = check(name, table, source)
    make: Callable[[str, DestinationSettings, Tools], Destination] = importlib.import_module(
        KINDS[kind]
    ).connect
    return make(name, settings, tools)


def check(name: str, table: dict[str, Any], source: Path) -> tuple[str, DestinationSettings]:
    """Decode a table by its kind's own settings type, and connect nothing."""
    at = f"destinations.{name}"
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise SettingsError(f"{source}: {at}.kind = {kind!r}: must be one of: {', '.join(KINDS)}")
    settings: DestinationSettings = decode(table, importlib.import_module(KINDS[kind]).Settings, source, at)
    return kind, rooted(settings, source.absolute().parent)
