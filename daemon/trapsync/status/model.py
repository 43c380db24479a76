"""What a status consists of: the keys of `trapsync status --json`, with their types and in their order."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from trapsync.catalog.counts import Ledger
from trapsync.catalog.facts import Capture, FollowUp, Kind, Stopped

VERDICTS = ("ok", "warning", "failing")


class _Part(msgspec.Struct, kw_only=True):
    """A part of the status. Its fields are the keys of the JSON, in this order; UNSET ones are left out."""


class ClockStatus(_Part):
    """The clock, and how many images are held on the card because of it."""

    trusted: bool
    held: int = 0
    unsure: int = 0


class DaemonStatus(_Part):
    """Whether the daemon runs."""

    running: bool


class DiskStatus(_Part):
    """The card: free bytes, and the days until it is full if nothing leaves it."""

    free_bytes: int
    days_left: float | None = None


class BoardStatus(_Part):
    """The computer: its temperature in °C, and the bits of the firmware's get_throttled, if they are known."""

    temperature: float | None
    throttled: int | None


class NewestImage(_Part):
    """The newest image and its age in seconds, if that is known."""

    name: str
    age_s: float | None


class DeploymentStatus(_Part):
    """The last deployment: its id, since when it is, whether and when the owner ended it, and the name of the location."""

    id: str
    since: str
    ended: str | None = None
    location_name: str | None = None


class LastNight(_Part):
    """The night before the present one, noon to noon: pictures that were due, those taken, and why the others were not."""

    night: str
    expected: int
    taken: int
    missed: dict[str, int]


class ScheduleStatus(_Part):
    """When pictures are taken: whether that is now, until when, and when the next one is due, if that is known.

    `ignored`: the clock has not been set since the trap started, so pictures are taken day and night.
    """

    timezone: str
    open: bool
    open_until: str | None
    next_picture: str | None
    ignored: bool

    def until_next(self, at: str) -> float | None:
        """Seconds from the moment `at`, as a status has it, until the next picture is due; None if that is not known."""
        if self.next_picture is None:
            return None
        due, now = (datetime.fromisoformat(text) for text in (self.next_picture, at))
        return (due - now).total_seconds()


class NotTakenIn(_Part):
    """What lies in the spool and is not taken in, of one kind (see `catalog.facts.Kind`): how many, one of them, and why."""

    kind: Kind
    count: int
    example: str
    since: str | None
    reason: str


class DestinationStatus(_Part):
    """One destination: its settings, how many deliveries are in which state, and how the last one went.

    `failing` are pending deliveries that failed more than once by themselves, with the name of one and why; `denied`: it
    answers and does not let this trap in, twice in a row at least.
    """

    kind: str
    required: bool
    depends_on: str | None
    hotplug: bool
    pending: int
    delivered: int
    refused: int
    refused_unseen: int
    place: str | None
    last_delivery: str | None
    delivery_age_s: int | None
    next_attempt: str | None
    last_error: str | None
    failing: int = 0
    failing_error: str | None = None
    denied: bool = False


class LinkStatus(_Part):
    """One link to the hub: when it was last reached, since when it fails, and why."""

    reached: str | None
    failing_since: str | None
    error: str | None


class OldPlace(_Part):
    """A place where a destination was before, and how many images lie only there."""

    key: str
    name: str
    kind: str
    place: str | None
    only_there: int


class RemoteSettings(_Part):
    """How far the newest remote settings are: see `in_force.report`."""

    state: str
    last_received_hash: str | None = None
    effective_hash: str | None = None
    version: int | None = None
    key: str | None = None
    code: str | None = None
    reason: str | None = None
    refused: int | None = None
    damaged: str | None = None
    floor: str | None = None
    groups: list[str] | None = None
    values: dict[str, Any] | None = None
    resend: dict[str, Any] | UnsetType = UNSET


class Status(_Part):
    """The whole of it. Moments are UTC text; what the catalog alone knows is UNSET without a catalog."""

    device: str
    name: str
    version: str
    at: str
    clock: ClockStatus
    daemon: DaemonStatus
    disk: DiskStatus
    ledger: Ledger
    newest_image: NewestImage | None = None
    deployment: DeploymentStatus | None = None
    schedule: ScheduleStatus | UnsetType = UNSET
    last_night: LastNight | UnsetType = UNSET
    battery: float | None = None
    battery_days: float | None = None
    board: BoardStatus | UnsetType = UNSET
    destinations: dict[str, DestinationStatus] = {}
    stick: str | None = None
    joining: str | None = None
    config: str | None = None
    hub: dict[str, LinkStatus] = {}
    conflicts: int | UnsetType = UNSET
    vanished: int | UnsetType = UNSET
    lost: int | UnsetType = UNSET
    missing: int | UnsetType = UNSET
    unasked: int | UnsetType = UNSET
    old_places: list[OldPlace] | UnsetType = UNSET
    bug: Any = UNSET
    jobs: dict[str, str] | UnsetType = UNSET
    single_runs: bool | UnsetType = UNSET
    thumbnails: str | UnsetType = UNSET
    capture: Capture | UnsetType = UNSET
    not_taken_in: list[NotTakenIn] = []
    times: Stopped | UnsetType = UNSET
    unpruned: dict[str, str] | UnsetType = UNSET
    stuck: Stopped | UnsetType = UNSET
    follow_ups: dict[str, FollowUp] | UnsetType = UNSET
    remote: RemoteSettings | UnsetType = UNSET
    verdict: str = "ok"
    reasons: list[str] = []

    def plain(self) -> dict[str, Any]:
        """As JSON has it. Keys: see the README."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain
