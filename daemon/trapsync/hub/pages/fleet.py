"""The first page: a card for each trap, the worst first."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from flask import Response, request

from trapsync.clock import utc
from trapsync.hub.holdings import Holdings
from trapsync.hub.pages.frame import render
from trapsync.hub.store import Row, place_of
from trapsync.jpeg.thumbnail import SMALL
from trapsync.net.judgement import VERDICTS, Trap, ago, traps

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_MOST_REASONS = 3
_LAG = 3600.0  # seconds by which the picture shown may be older than the newest one without being told apart from it
_REVOKED = "revoked: the hub takes nothing from it any more"


class Filter(NamedTuple):
    """A link to the traps of one verdict, and how many there are."""

    verdict: str
    number: int
    place: str
    is_chosen: bool


class Picture(NamedTuple):
    """A picture of the hub: its file name, the width and height of its small copy, and how many seconds old it is."""

    name: str
    width: int
    height: int
    seconds: float

    @property
    def age(self) -> str:
        """How old it is, in words."""
        return ago(self.seconds)

    @classmethod
    def of(cls, row: Row, now: datetime) -> "Picture":
        """That of a row of `images`."""
        age = now - datetime.fromisoformat(row["datetime"])
        scale = min(1.0, SMALL[0] / max(1, row["width"]), SMALL[1] / max(1, row["height"]))
        width, height = (max(1, round(row[side] * scale)) for side in ("width", "height"))
        return cls(place_of(row).name, width, height, max(0.0, age.total_seconds()))


@dataclass(frozen=True, slots=True)
class Card:
    """What the page shows of a trap; texts are clean."""

    trap: Trap
    picture: Picture | None
    is_revoked: bool

    @property
    def reasons(self) -> list[str]:
        """The first ones, and how many there are beside them."""
        reasons = [*([_REVOKED] if self.is_revoked else []), *self.trap.reasons]
        more = len(reasons) - _MOST_REASONS
        return [*reasons[:_MOST_REASONS], *([f"and {more} more"] if more > 0 else [])]

    @property
    def pause(self) -> str:
        """Until when the schedule is closed."""
        left = self.trap.until_next
        return "" if left is None else f"Schedule closed, next picture in {ago(left)}"

    def facts(self) -> Iterator[tuple[str, str]]:
        """What is known of it: a name and a value each."""
        trap, beat = self.trap, self.trap.beat
        yield "Heard", "never" if trap.joined is not None else f"{ago(trap.age)} ago"
        newest = beat.newest_image.age_s if beat.newest_image else None
        if newest is not None:
            yield "Newest picture", f"{ago(trap.since(newest))} ago"
        if self.picture and (newest is None or self.picture.seconds > trap.since(newest) + _LAG):
            yield "Picture shown", f"{self.picture.age} ago"
        if beat.newest_delivery_age_s is not None:
            yield "Newest delivery", f"{ago(trap.since(beat.newest_delivery_age_s))} ago"
        if beat.ledger.pending is not None:
            yield "Pending", str(beat.ledger.pending)
        if beat.last_night and beat.last_night.expected:
            yield "Last night", f"{beat.last_night.taken} of {beat.last_night.expected}"
        if beat.battery is not None:
            days = "" if beat.battery_days is None else f", {beat.battery_days:.0f} d left"
            yield "Battery", f"{beat.battery:.0f} %{days}"
        if trap.room:
            yield "Card full in", trap.room
        if trap.settings != "-":
            yield "Settings", trap.settings


class FleetPage:
    """All traps of the hub."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._holdings = Holdings(hub.database)

    def show(self) -> Response:
        """The cards of all traps, or of those with one verdict; and which other devices have delivered pictures."""
        chosen = request.args.get("verdict", "")
        found, now = judged(self._hub), utc(self._hub.clock.wall())
        newest = self._holdings.newest(now + timedelta(days=1))
        pictures = {device: Picture.of(row, now) for device, row in newest.items()}
        revoked = {one["device"] for one in self._hub.enrolment.traps() if one["state"] == "revoked"}
        cards = [
            Card(trap, pictures.get(trap.device), trap.device in revoked)
            for trap in found
            if chosen not in VERDICTS or trap.verdict == chosen
        ]
        others = {device: pictures[device] for device in pictures.keys() - {trap.device for trap in found}}
        return render(
            "fleet.html", cards=cards, filters=_filters(found, chosen), others=sorted(others.items()), now=now
        )


def judged(hub: "Hub") -> list[Trap]:
    """All traps of the hub, the worst first."""
    snapshot = hub.fleet.snapshot()
    return traps({**snapshot, "traps": list(snapshot["traps"])})


def _filters(found: list[Trap], chosen: str) -> list[Filter]:
    numbers = Counter(trap.verdict for trap in found)
    return [Filter("all", len(found), "/", chosen not in VERDICTS)] + [
        Filter(one, numbers[one], f"/?verdict={one}", one == chosen) for one in reversed(VERDICTS)
    ]
