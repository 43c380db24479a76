"""Where images go: one protocol, a module for each kind, and what all of them promise.

A destination is idempotent: delivering an image that it already holds ends with the same single copy
and a receipt. It decides which error a failure is (`trapsync.errors`): *Unreachable* when there was no
exact answer, *Failed* when it lives but did not take this image, *Held* when the image must wait,
*Refused* when it never will. It keeps nothing on the card: what is owed stands in the catalog.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Literal, Protocol

from trapsync.clock import Clock
from trapsync.errors import DeliveryError, SettingsError, Unauthorised, Unreachable
from trapsync.image import Image, Label
from trapsync.settings.config_file import decode, rooted
from trapsync.settings.schema import Destination as DestinationSettings

# A kind is a module that defines `Settings` and `connect(name, settings, tools)`; it is imported when a
# table of that kind is in the config file, and not before.
KINDS = {
    "directory": "trapsync.destinations.directory",
    "imagekit": "trapsync.destinations.imagekit",
    "scale": "trapsync.destinations.scale",
    "skylab": "trapsync.destinations.skylab",
    "stickypi": "trapsync.destinations.stickypi",
}


WhileAway = Literal["last re-reading", "last confirmation", "nothing"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The positive proof: the destination confirmed this digest for this image.

    `digest` is what was confirmed (`md5:…` or `sha256:…`, hex). A destination that only gives back what
    it was told, or holds something made of the image, says `echo:` and the image's SHA-256: that it was
    delivered, but no proof by which an image may leave the card. `detail` is what the destination wants
    remembered with it (an id, a URL). `at` is the key or path under which the image lies there: it is stored
    with the delivery, and asked for again, whatever names and layouts the settings say later. `noted` says
    that a note beside the copy was read (a manifest), and not the copy: no image leaves the card for that.
    """

    digest: str
    detail: dict[str, Any] = field(default_factory=dict)
    at: str = ""
    noted: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: how it is, and what to do if it is not well."""

    verdict: str  # "ok", "warning" or "failing"
    subject: str
    text: str


class Notebook(Protocol):
    """What one destination may write down in the catalog, and read there.

    Notes are JSON values under keys of the destination's own. They survive a crash, but not the loss of
    the catalog: whatever stands in them, the destination must be able to ask its other end for.
    """

    def get(self, key: str) -> Any:
        """The note under this key; None if there is none."""

    def put(self, key: str, note: Any) -> None:
        """Write a note, in the place of an older one; durable when this returns."""

    def forget(self, key: str) -> None:
        """Remove a note, if there is one."""

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so, in order."""

    def owed(self, since: float, until: float) -> int:
        """How many images taken from `since` to just before `until` (unix seconds) are still to come:
        owed to this destination, or held until their time is known."""


class Labels(Protocol):
    """Where one destination writes what it was answered about its images. It survives a crash, as notes do."""

    def open(self) -> Mapping[str, int]:
        """What is not answered yet: the `task` in the detail of the image's receipt -> the image's id."""

    def has(self, image_id: int, task: str) -> bool:
        """Whether this task of an image is written down: answered already, or still open."""

    def put(self, labels: Mapping[int, Label]) -> None:
        """Write answers, by image id; durable when this returns."""


class NoLabels:
    """Of a destination that nobody is waiting for."""

    def open(self) -> Mapping[str, int]:
        """Nothing."""
        return {}

    def has(self, _image_id: int, _task: str) -> bool:
        """No."""
        return False

    def put(self, _labels: Mapping[int, Label]) -> None:
        """Nowhere."""


class Scratch:
    """A notebook that ends with the process, of a destination that is owed nothing: for the doctor."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def get(self, key: str) -> Any:
        """As in Notebook."""
        return json.loads(self._notes.get(key, "null"))

    def put(self, key: str, note: Any) -> None:
        """As in Notebook."""
        self._notes[key] = json.dumps(note)

    def forget(self, key: str) -> None:
        """As in Notebook."""
        self._notes.pop(key, None)

    def keys(self, prefix: str = "") -> list[str]:
        """As in Notebook."""
        return sorted(key for key in self._notes if key.startswith(prefix))

    def owed(self, _since: float, _until: float) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True)
class Tools:
    """What a destination is given rather than taking it: time, sleep, and which device it serves.

    `zone` is the time zone of the trap's place. `spool` is where the images lie; None: they are not looked for there.
    `thumbnails` is the folder of the small copies (see
    `thumbnail_paths`). `labels` is for what is answered about images. `results` is the folder for files that
    a service made of images, and `room` how many bytes may be written there before capture would have to
    stop. `address` asks the destination that this one comes `after` where an image can be fetched there;
    None: nowhere. `copy_again` has an image's small copies made if they are not there, or are broken; False:
    that was tried, and cannot be.
    """

    clock: Clock
    sleep: Callable[[float], None]
    device: str = ""
    notebook: Notebook = field(default_factory=Scratch)
    labels: Labels = field(default_factory=NoLabels)
    zone: tzinfo = UTC
    spool: Path | None = None
    thumbnails: Path = Path()
    results: Path = Path()
    room: Callable[[], int] = lambda: 0
    address: Callable[[Image], str | None] = lambda _image: None
    copy_again: Callable[[Image], bool] = lambda _image: True


class Destination(Protocol):
    """A place that images are delivered to. Methods may be called from several threads at once."""

    name: str
    settings: DestinationSettings
    # How many images one `known` may ask about.
    batch: int
    # Which place this is, as far as the settings say it: kind, normalised address, account (and project). None
    # where only the place itself can tell (a folder, by the id in its mark): see `place`.
    identity: str | None
    # Whether it keeps images until somebody deletes them. One that keeps them for a while only, or whose answer
    # costs money, is never asked again about what it confirmed, nor sent that again.
    keeps: bool
    # What counts for pruning while it cannot be asked: its last re-reading of the bytes, always (a stick that was
    # unmounted when it was done); its last confirmation, where capture would stop otherwise (a server); nothing.
    while_away: WhileAway

    @property
    def confirm_batch(self) -> int:
        """How many images one `confirm` may ask about."""

    def place(self) -> str:
        """Which place this is now, in words that a person knows again. Two places never have the same.

        Raises Unreachable where only the place itself can tell, and is not there.
        """

    def known(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask before sending: which of these are there already, by image id.

        A Receipt: it is there, byte for byte. A Refused (as a value): something else is there under
        that name. Absent from the answer: send it. Raises Unreachable. Reads no image bytes.
        """

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Ask again about images that it confirmed once: the answers are as those of `known`.

        `at` is where each lies, by image id, as its receipt said. No answer may rest on a note: the bytes were
        read or hashed at the other end. A server whose row could outlive the bytes asks for the stored bytes
        themselves with `by_bytes`, at a request for each image. Absent from the answer: it is not there any
        more. Raises Unreachable.
        """

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image from the file at `path` and confirm it. Raises DeliveryError, or
        FileNotFoundError when the file is gone."""

    def tend(self) -> bool:
        """What is to be done beyond single images, at the end of each turn that met no trouble.

        A night that is complete is handed in, results are fetched. Says whether anything was asked of
        the other end: where there is nothing to do, nothing is. Raises Unreachable.
        """

    def address(self, image: Image, detail: Mapping[str, Any]) -> str | None:
        """Where an image that was delivered here can be fetched by somebody else, for a while at least.

        `detail` is its receipt's. None if it cannot. Raises Unreachable if that has to be asked, and NotThere
        when the answer is that it does not hold the image any more.
        """

    def addresses(self, image: Image, detail: Mapping[str, Any]) -> Mapping[str, str]:
        """For people: addresses of an image that was delivered here, by what they show ("image", "small").

        Raises as `address` does.
        """

    def check(self) -> list[Finding]:
        """For the doctor: reachable, allowed in, room enough? Sends no image and never raises."""

    def close(self) -> None:
        """Let connections go."""


class Alone:
    """What most destinations share: nothing to tend beyond single images, and no address to give."""

    batch: int
    identity: str | None = None
    keeps = True
    while_away: WhileAway = "last confirmation"

    @property
    def confirm_batch(self) -> int:
        """As many as one question may ask about."""
        return self.batch

    def place(self) -> str:
        """What the settings say."""
        assert self.identity, (
            "a destination without an identity in its settings says itself which place it is"
        )
        return self.identity

    def confirm(
        self, images: Sequence[Image], _at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """What it is known to hold: its word is about bytes that it hashed itself."""
        return self.known(images)

    def known(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """As in Destination."""
        raise NotImplementedError

    def tend(self) -> bool:
        """Nothing to do."""
        return False

    def address(self, _image: Image, _detail: Mapping[str, Any]) -> str | None:
        """None."""
        return None

    def addresses(self, image: Image, detail: Mapping[str, Any]) -> Mapping[str, str]:
        """The one address, if there is one."""
        address = self.address(image, detail)
        return {"image": address} if address else {}


def settled(ask: Callable[[], Receipt | Exception | None], doubt: DeliveryError) -> Receipt:
    """After a failure, ask what became of an image; if it is not there, the failure stands, and is raised.

    If nobody answers that either, it is Unreachable with both reasons. What the answer says against the
    image (Refused) is raised too.
    """
    try:
        there = ask()
    except Unauthorised:
        raise
    except Unreachable as silence:
        wait = max(silence.wait, getattr(doubt, "wait", 0.0))
        raise Unreachable(f"{doubt}; and then: {silence}", wait=wait) from None
    if there is None:
        raise doubt
    if isinstance(there, Exception):
        raise there
    return there


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


def check_order(tables: Mapping[str, Any], source: Path) -> None:
    """SettingsError if a destination comes after one that there is not, or after itself by a detour."""
    after = {name: table.get("after") for name, table in tables.items() if isinstance(table, dict)}
    for name in tables:
        way = [name]
        while previous := after.get(way[-1]):
            if previous not in tables:
                known = ", ".join(other for other in tables if other != way[-1]) or "no other"
                raise SettingsError(
                    f"{source}: destinations.{way[-1]}.after = {previous!r}: there is no such destination; "
                    f"there is: {known}"
                )
            if previous in way:
                circle = " after ".join([*way, previous])
                raise SettingsError(f"{source}: destinations.{name}.after: {circle}: none would ever begin")
            way.append(previous)
