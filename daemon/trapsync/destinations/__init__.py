"""Where images go: one protocol, a module for each kind, and what all of them promise.

A destination is idempotent: delivering an image that it already holds ends with the same single copy
and a receipt. It decides which error a failure is (`trapsync.errors`): *Unreachable* when there was no
exact answer, *Failed* when it works but did not accept this image, *Held* when the image must wait,
*Refused* when it will never be accepted. It keeps nothing on the card: what is pending stands in the catalog.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from trapsync.clock import Clock
from trapsync.destinations import kinds
from trapsync.errors import DeliveryError, SettingsError, TrapsyncError, Unauthorised, Unreachable
from trapsync.image import Image, Label
from trapsync.settings.config_file import decode, rooted
from trapsync.settings.schema import Destination as DestinationSettings
from trapsync.settings.schema import Settings

# Each destination is a thread of the scheduler's, each transfer one of its own: TasksMax of the service holds them.
MOST_DESTINATIONS = 16
MOST_TRANSFERS = 64
# So many bytes go as one upload: two minutes of a link of 1 Mbit/s, for which a new picture may have to wait.
_UPLOAD_MAX = 16_000_000

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


def finding(name: str, error: TrapsyncError) -> Finding:
    """What an error means to the doctor: who is away may be back tomorrow, and is a warning, as it is in the status."""
    is_away = isinstance(error, Unreachable) and not isinstance(error, Unauthorised)
    return Finding("warning" if is_away else "failing", name, str(error))


class DestinationContext(Protocol):
    """What one destination is given by the trap: time, device, folders, and its records in the catalog.

    Notes are JSON values under keys of the destination's own. Notes and answers survive a crash, but not the loss
    of the catalog: whatever they say, the destination must be able to ask its other end for.
    """

    # What the destination is called.
    name: str
    clock: Clock
    device: str
    # The trap's name, "" where it has none.
    trap_name: str
    # The time zone of the trap's place.
    zone: tzinfo
    # The one offset of its local time, summer and winter.
    offset: timezone
    # The setting capture.format: how new pictures' EXIF is written.
    format: str
    # Where the images lie.
    spool: Path
    # The folder of what is remembered beside the catalog, and survives its loss.
    state: Path
    # The folder for files that a service made of images.
    results: Path

    @property
    def sleep(self) -> Callable[[float], None]:
        """Wait for some seconds, or until the daemon stops."""

    def note(self, key: str) -> Any:
        """The note under this key; None if there is none."""

    def put_note(self, key: str, note: Any) -> None:
        """Write a note, in the place of an older one; durable when this returns."""

    def forget_note(self, key: str) -> None:
        """Remove a note, if there is one."""

    def note_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so, in order."""

    def pending_between(self, since: float, until: float) -> int:
        """How many images taken from `since` to just before `until` (unix seconds) are still to come:
        pending at this destination, or held until their time is known."""

    def unanswered(self) -> Mapping[str, int]:
        """What is not answered yet: the `task` in the detail of the image's receipt -> the image's id."""

    def has_task(self, image_id: int, task: str) -> bool:
        """Whether this task of an image is recorded: answered already, or still open."""

    def put_answers(self, labels: Mapping[int, Label]) -> None:
        """Write what was answered about images, by their ids; durable when this returns."""

    def address_of(self, image: Image) -> str | None:
        """Where the image can be fetched at the destination that this one comes `after`; None: nowhere."""

    def thumbnail_of(self, image: Image) -> Path:
        """Where the image's small copy is, if it has been made."""

    def make_thumbnail(self, image: Image) -> bool:
        """Have the image's small copies made, if they are missing or broken; False: that was tried, and failed."""

    def room(self) -> int:
        """How many bytes may be written to `results` before capture would have to stop."""


class Destination(Protocol):
    """A place that images are delivered to. Methods may be called from several threads at once."""

    name: str
    settings: DestinationSettings
    # How many images one `find_existing` may ask about, and how many one `deliver_all` may be given.
    batch: int
    deliver_batch: int
    # Which place this is, as far as the settings say it: kind, normalised address, account (and project). None
    # where only the place itself can tell (a folder, by the id in its mark): see `place`.
    identity: str | None
    # Whether it keeps images until they are deleted. One that keeps them for a while only, or whose answer
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

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask before sending: which of these are there already, by image id.

        A Receipt: it is there, byte for byte. A Refused (as a value): something else is there under
        that name. Absent from the answer: send it. Raises Unreachable. Reads no image bytes.
        """

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Ask again about images that it confirmed once: the answers are as those of `find_existing`.

        `at` is where each lies, by image id, as its receipt said. No answer may rest on a note: the bytes were
        read or hashed at the other end. A server whose row could outlive the bytes asks for the stored bytes
        themselves with `by_bytes`, at a request for each image. Absent from the answer: it is not there any
        more. Raises Unreachable.
        """

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image from the file at `path` and confirm it. Raises DeliveryError, or
        FileNotFoundError when the file is gone."""

    def deliver_all(self, images: Sequence[tuple[Image, Path]]) -> Mapping[int, Receipt | Exception]:
        """Send several images, each from its file: what became of each, by its id; what `deliver` would raise too."""

    def follow_up(self) -> bool:
        """Do what follows beyond single images: submit complete nights, fetch results.

        Called at the end of each turn without an error. Says whether anything was asked of the other end: where
        there is nothing to do, nothing is. Raises Unreachable.
        """

    def address(self, image: Image, detail: Mapping[str, Any]) -> str | None:
        """Where an image that was delivered here can be fetched by others, for a while at least.

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
        """Close connections."""


def next_upload(waiting: deque[Image], most: int) -> list[Image]:
    """Take away the images that go next as one upload: one at least, `most` at most, and few bytes."""
    images = [waiting.popleft()]
    while waiting and len(images) < most and sum(i.size for i in (*images, waiting[0])) <= _UPLOAD_MAX:
        images.append(waiting.popleft())
    return images


class SimpleDestination:
    """What most destinations share: no follow-up, no addresses, and asking again after a failure."""

    batch: int
    deliver_batch = 1
    identity: str | None = None
    keeps = True
    while_away: WhileAway = "last confirmation"

    @property
    def confirm_batch(self) -> int:
        """As many as one `find_existing` may ask about."""
        return self.batch

    def place(self) -> str:
        """The identity, where the settings say it."""
        assert self.identity, "a destination without an identity in its settings defines `place` itself"
        return self.identity

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """See Destination."""
        raise NotImplementedError

    def confirm(
        self, images: Sequence[Image], _at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """The same as `find_existing`: that rests on bytes which the other end hashed itself."""
        return self.find_existing(images)

    def deliver(self, image: Image, path: Path) -> Receipt:
        """See Destination."""
        raise NotImplementedError

    def deliver_all(self, images: Sequence[tuple[Image, Path]]) -> Mapping[int, Receipt | Exception]:
        """One after another."""
        answers: dict[int, Receipt | Exception] = {}
        for image, path in images:
            try:
                answers[image.id] = self.deliver(image, path)
            except Exception as error:
                answers[image.id] = error
        return answers

    def ask_about(self, image: Image) -> Receipt | None:
        """The receipt if the image is there, None if it is not. Raises what is said against the image."""
        outcome = self.find_existing([image]).get(image.id)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def resolve(self, image: Image, failure: DeliveryError) -> Receipt:
        """After a failure, ask what became of the image; if it is not there, raise the failure.

        If that is not answered either, raise Unreachable with both reasons.
        """
        try:
            there = self.ask_about(image)
        except Unauthorised:
            raise
        except Unreachable as silence:
            wait = max(silence.wait, getattr(failure, "wait", 0.0))
            raise Unreachable(f"{failure}; and then: {silence}", wait=wait) from None
        if there is None:
            raise failure
        return there

    def follow_up(self) -> bool:
        """Nothing to do."""
        return False

    def address(self, _image: Image, _detail: Mapping[str, Any]) -> str | None:
        """None."""
        return None

    def addresses(self, image: Image, detail: Mapping[str, Any]) -> Mapping[str, str]:
        """The one address, if there is one."""
        address = self.address(image, detail)
        return {"image": address} if address else {}


@dataclass(frozen=True, slots=True)
class Checked:
    """A [destinations.NAME] table whose settings are valid; nothing is connected."""

    name: str
    settings: DestinationSettings

    @property
    def identity(self) -> str | None:
        """Which place it is, as far as the settings say it."""
        return self.settings.identity

    def require(self, settings: Settings, source: Path) -> None:
        """SettingsError where it does not go with the rest of the settings, or with what is on the card."""
        try:
            self.settings.require(settings)
        except ValueError as error:
            raise SettingsError(f"{source}: destinations.{self.name}.{error}") from None

    def connect(self, context: DestinationContext) -> Destination:
        """Make the destination; nothing is sent yet."""
        return cast("Destination", kinds.load(self.settings.kind).connect(self.name, self.settings, context))


def check(name: str, table: dict[str, Any], source: Path) -> Checked:
    """Decode a table by its kind's own settings type; SettingsError if it is wrong."""
    at = f"destinations.{name}"
    kind = table.get("kind") if isinstance(table, dict) else None
    try:
        module = kinds.load(str(kind))
    except SettingsError as error:
        raise SettingsError(f"{source}: {at}.kind = {kind!r}: {error}") from error.__cause__
    return Checked(name, rooted(decode(table, module.Settings, source, at), source.absolute().parent))


def check_all(settings: Settings, source: Path) -> list[Checked]:
    """Check every table, their order, and what only the rest of the settings or the card can tell."""
    checked = [check(name, table, source) for name, table in settings.destinations.items()]
    check_order(settings.destinations, source)
    _require_few(checked, source)
    for one in checked:
        one.require(settings, source)
    return checked


def _require_few(checked: Sequence[Checked], source: Path) -> None:
    """SettingsError for more destinations, or more uploads at once, than the service may have threads."""
    if len(checked) > MOST_DESTINATIONS:
        raise SettingsError(
            f"{source}: destinations: {len(checked)} are too many; at most {MOST_DESTINATIONS} can be"
        )
    transfers = sum(one.settings.tasks for one in checked)
    if transfers > MOST_TRANSFERS:
        text = f"transfers: {transfers} of all destinations together are too many; at most {MOST_TRANSFERS} can be"
        for one in checked:
            if one.settings.tasks != one.settings.transfers:
                text += f" ({one.name} counts as {one.settings.tasks})"
        raise SettingsError(f"{source}: destinations.{checked[-1].name}.{text}")


def check_order(tables: Mapping[str, Any], source: Path) -> None:
    """SettingsError if a destination comes after one that there is not, or after itself, directly or by others."""
    after = {name: table.get("depends_on") for name, table in tables.items() if isinstance(table, dict)}
    for name in tables:
        chain = [name]
        while previous := after.get(chain[-1]):
            if previous not in tables:
                known = ", ".join(other for other in tables if other != chain[-1]) or "no other"
                raise SettingsError(
                    f"{source}: destinations.{chain[-1]}.depends_on = {previous!r}: there is no such destination; "
                    f"there is: {known}"
                )
            if previous in chain:
                circle = " after ".join([*chain, previous])
                raise SettingsError(
                    f"{source}: destinations.{name}.depends_on: {circle}: none would ever begin"
                )
            chain.append(previous)
