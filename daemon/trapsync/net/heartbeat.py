"""What a heartbeat may hold, for the hub and the operator's computer, which read it. `remote.heartbeat` writes it.

Whatever sends one may be old, new, broken or hostile. So it is decoded into types with bounds: what does not fit is
no heartbeat, and costs the row of that trap and nothing else. Keys that are not known here are passed over.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trapsync.errors import one_line
from trapsync.net import foreign_json

LARGEST = 4 * 1024  # bytes; twice what a trap of ours sends
_DEEPEST = 8
_MOST = 2**53  # what every reader of JSON holds exactly

_Text = Annotated[str, Meta(max_length=1000)]
_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_Number = Annotated[float, Meta(ge=-_MOST, le=_MOST)]


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of it. None is unknown."""


class Clock(_Part, frozen=True):
    """The clock, and how many images are held on the card because of it."""

    trusted: bool = False
    held: _Count = 0
    unsure: _Count = 0


class Disk(_Part, frozen=True):
    """The card: free bytes, and the days until it is full."""

    free_bytes: _Number | None = None
    days_left: _Number | None = None


class NewestImage(_Part, frozen=True):
    """The newest image, and its age when the heartbeat was sent."""

    name: _Text | None = None
    age_s: _Number | None = None


class Deployment(_Part, frozen=True):
    """The deployment under way."""

    id: _Text | None = None
    since: _Text | None = None


class LastNight(_Part, frozen=True):
    """The last whole night, noon to noon: how many pictures were due, how many taken, and why the others were not."""

    night: _Text = ""
    expected: _Count = 0
    taken: _Count = 0
    missed: Annotated[dict[str, _Count], Meta(max_length=50)] = {}


class Ledger(_Part, frozen=True):
    """How many images there are of each kind."""

    captured: _Count | None = None
    delivered: _Count | None = None
    pending: _Count | None = None
    quarantined: _Count | None = None
    dropped: _Count | None = None
    lost: _Count | None = None


class Resend(_Part, frozen=True):
    """How a request to send images again went."""

    hash: _Text | None = None
    again: _Count | None = None
    gone: _Count | None = None


class Remote(_Part, frozen=True):
    """The remote settings: what became of them."""

    state: _Text | None = None
    last_received_hash: _Text | None = None
    effective_hash: _Text | None = None
    version: _Count | None = None
    key: _Text | None = None
    code: _Text | None = None
    reason: _Text | None = None
    refused: _Count | None = None
    damaged: _Text | None = None
    floor: _Text | None = None
    # None of a trap that takes no remote settings, or of an older program.
    groups: Annotated[list[_Text], Meta(max_length=100)] | None = None
    values: Annotated[dict[str, Any], Meta(max_length=100)] | None = None
    resend: Resend | None = None


class Heartbeat(_Part, frozen=True):
    """A heartbeat. Texts are as they came: what shows one cleans it (`errors.one_line`)."""

    schema: _Count | None = None
    device: _Text | None = None
    name: _Text | None = None
    version: _Text | None = None
    at: _Text | None = None
    every_s: _Number | None = None
    verdict: Literal["ok", "warning", "failing"] | None = None
    reasons: Annotated[list[_Text], Meta(max_length=50)] = []
    newest_image: NewestImage | None = None
    deployment: Deployment | None = None
    schedule_open: bool | None = None
    next_picture_s: _Number | None = None
    last_night: LastNight | None = None
    newest_delivery: _Text | None = None
    newest_delivery_age_s: _Number | None = None
    ledger: Ledger = Ledger()
    refused: _Count | None = None
    disk: Disk = Disk()
    capture_failures: _Count | None = None
    not_taken_in: _Count | None = None
    clock: Clock = Clock()
    battery: _Number | None = None
    battery_days: _Number | None = None
    remote: Remote = Remote()
    # The hub's word: what came last from this trap was no heartbeat, and why not.
    odd: _Text | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def decode(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes, with all of its keys; ValueError with the reason if it is none."""
    content = foreign_json.decode(data, LARGEST, deepest=_DEEPEST, strict=True)
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


def read(content: object) -> Heartbeat:
    """The heartbeat in decoded JSON; ValueError with one line that names the key if it is none."""
    try:
        return msgspec.convert(content, Heartbeat)
    except msgspec.ValidationError as error:
        raise ValueError(one_line(error, 150)) from None
