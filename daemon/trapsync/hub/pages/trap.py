"""The page of one trap: how it is, its newest picture, its nights, its plots, its settings and its deployments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Response, request

from trapsync.clock import utc
from trapsync.errors import one_line
from trapsync.hub.heartbeat_history import DAY, kept_every
from trapsync.hub.holdings import Heard, Holdings
from trapsync.hub.nights import LocalTime, Span, read_night
from trapsync.hub.pages import calendar, plots
from trapsync.hub.pages.frame import NoSuchPage, at_desk, render
from trapsync.hub.pages.plots import Curve, Frame
from trapsync.hub.store import Row, place_of
from trapsync.image import without_unknown
from trapsync.net.heartbeat import Heartbeat
from trapsync.net.judgement import Trap, ago, traps
from trapsync.net.reports import Deployment, Night
from trapsync.net.slots import slots_of_trap
from trapsync.settings import config_file
from trapsync.settings.schema import DEVICE

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_NIGHTS = 14  # of a page
_OF_A_NIGHT = 10  # pictures of a strip
_POINTS = 400  # of a plot
_MOST_DEPLOYMENTS = 20
# The choice of time for the plots: its name in an address, what it says, and its length in days; 0 is all.
_SPANS = (("2d", "2 days", 2), ("30d", "30 days", 30), ("90d", "90 days", 90), ("all", "all", 0))
_AHEAD = timedelta(days=1)  # by which a picture's clock may be wrong; what is beyond is not the newest one
_BETWEEN_NIGHTS = 3 * 3600.0  # seconds without a picture after which the line of a plot is interrupted
# Units of the terms of a deployment; see `settings.deployment`.
_UNITS = {
    **dict.fromkeys(("altitude", "camera_height", "detection_distance", "coordinate_uncertainty"), "m"),
    **dict.fromkeys(("latitude", "longitude", "camera_tilt", "camera_heading"), "°"),
    "every": "s",
}
_NOTHING_HAS = 1e6  # degrees or per cent: what is beyond was not measured, and would be all that a plot shows
_MEASURED = ("temp", "hum", "lum", "bat", "lat", "lng", "alt")


class Strip(NamedTuple):
    """A night in the list: its date, how many pictures, some of them, and what was expected and taken, in words."""

    night: date
    images: int
    pictures: list[dict[str, Any]]
    effort: str


@dataclass(frozen=True, slots=True)
class Known:
    """A trap that this hub knows, and the zone of its local time."""

    device: str
    name: str
    local: LocalTime
    judged: Trap | None  # None: it has not joined, and was not heard; there are only images
    is_revoked: bool

    @property
    def zone_said(self) -> str:
        """Which zone the times on its pages have."""
        if self.local.is_known:
            return f"Times are local, of {self.local.zone.key}."
        return "Times are UTC: the trap has not reported its time zone yet."

    def said(self, moment: datetime) -> str:
        """A moment in local time."""
        local = moment.astimezone(self.local.zone)
        return f"{local:%a} {local.day} {local:%b %Y %H:%M:%S}"


def known(hub: "Hub", device: str) -> Known:
    """The trap of an address. Raises NoSuchPage."""
    if not DEVICE.fullmatch(device):
        raise NoSuchPage("There is no such trap.")
    holdings = Holdings(hub.database)
    entry = hub.enrolment.trap(device)
    found = traps(hub.fleet.of_trap(device))
    if entry is None and not found and holdings.image_before(device, "9999") is None:
        raise NoSuchPage("This hub knows no such trap.")
    name = found[0].name if found else one_line((entry or {}).get("name") or device, 60)
    is_revoked = entry is not None and entry["state"] == "revoked"
    return Known(device, name, holdings.local_time(device), found[0] if found else None, is_revoked)


class TrapPage:
    """The page of a trap, and the settings in force there as a file."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._holdings = Holdings(hub.database)

    def show(self, device: str) -> Response:
        """All of it. `?before=` a night shows older nights, `?span=` another time in the plots."""
        trap, now = known(self._hub, device), utc(self._hub.clock.wall())
        newest = self._holdings.newest_of(device, now + _AHEAD)
        beat = trap.judged.beat if trap.judged else Heartbeat()
        return render(
            "trap.html",
            trap=trap,
            picture=picture(newest, trap) if newest else None,
            facts=list(_facts(trap, newest, now)),
            settings=self._settings(trap, beat),
            deployments=self._deployments(trap),
            **self._nights(trap, now),
            **self._plots(trap, now),
        )

    def settings(self, device: str) -> Response:
        """What can be set remotely, as it is in force on the trap: a TOML file to change and to publish."""
        trap = known(self._hub, device)
        values = trap.judged.beat.remote.values if trap.judged else None
        if not values:
            raise NoSuchPage("This trap has not said which settings are in force.")
        head = f"# What can be set remotely of the trap {device}, as it is in force there.\n\n"
        answer = Response(head + config_file.dumped(_cleaned(values)), content_type="application/toml")
        answer.headers["Content-Disposition"] = f'attachment; filename="{device}.toml"'
        return answer

    # ── Nights ───────────────────────────────────────────────────────────────────────────────────────────

    def _nights(self, trap: Known, now: datetime) -> dict[str, Any]:
        """The calendar and the strips of some nights, and where the older ones are."""
        tomorrow = trap.local.night_of(now) + timedelta(days=2)
        asked = read_night(request.args.get("before", ""))
        newest = self._holdings.neighbours(trap.device, trap.local, asked or tomorrow)[0]
        if newest is None:
            return {"calendar": None, "strips": [], "older": None, "is_newest": asked is None}
        days = [newest - timedelta(days=number) for number in range(_NIGHTS)]
        told = {
            night.night: night
            for _, night in self._hub.reports.nights([trap.device], days[-1], days[0] + timedelta(days=1))
        }
        older = self._holdings.neighbours(trap.device, trap.local, days[-1])[0]
        links = {day: f"/trap/{trap.device}/{day}" for day in days}
        return {
            "calendar": calendar.draw([(day, told.get(day)) for day in days], trap.local.zone, links),
            "strips": list(self._strips(trap, days, told)),
            "older": older and older + timedelta(days=1),
            "is_newest": asked is None or asked >= tomorrow,
        }

    def _strips(self, trap: Known, days: list[date], told: Mapping[date, Night]) -> Iterator[Strip]:
        spans = {day: self._holdings.extent(trap.device, trap.local.span_of(day)) for day in days}
        parts = [part for span in spans.values() if span for part in span.parts(_OF_A_NIGHT)]
        rows = dict[date, list[Row]]()
        for row in self._holdings.spread(trap.device, parts):
            rows.setdefault(trap.local.night_of(datetime.fromisoformat(row["datetime"])), []).append(row)
        for day in days:
            if day not in rows and day not in told:
                continue
            number = self._holdings.count(trap.device, trap.local.span_of(day)) if day in rows else 0
            pictures = [picture(row, trap) for row in rows.get(day, ())]
            yield Strip(day, number, pictures, effort(told.get(day)))

    # ── Plots ────────────────────────────────────────────────────────────────────────────────────────────

    def _plots(self, trap: Known, now: datetime) -> dict[str, Any]:
        """The plots of the time that was chosen, and the choice."""
        chosen = next((one for one in _SPANS if one[0] == request.args.get("span")), _SPANS[1])
        until = now.timestamp()
        since = until - chosen[2] * DAY if chosen[2] else self._beginning(trap.device, until)
        frame = Frame(since, until, trap.local.zone)
        curves = [*self._of_heartbeats(trap, frame), *self._of_images(trap, frame)]
        return {
            "plots": [(curve, plots.draw(curve, frame)) for curve in curves],
            "spans": [(name, text, name == chosen[0]) for name, text, _ in _SPANS],
        }

    def _beginning(self, device: str, until: float) -> float:
        first = self._holdings.images(device, None, 1)
        moments = [datetime.fromisoformat(row["datetime"]).timestamp() for row in first]
        heard = self._holdings.first_heard(device)
        oldest = min([*moments, *([heard] if heard else [])], default=until)
        return min(max(oldest, until - 3650 * DAY), until - DAY)

    def _of_heartbeats(self, trap: Known, frame: Frame) -> Iterator[Curve]:
        heard = self._holdings.heartbeats(trap.device, frame.since, frame.until + 1, _POINTS)
        length = frame.until - frame.since
        patience = trap.judged.patience if trap.judged else 0.0
        gap = max(patience, 2.5 * length / _POINTS, 2.5 * kept_every(length))
        yield Curve("Battery", "%", _points(heard, "battery"), gap, 0, 100)
        free = [(at, value / 1e9) for at, value in _points(heard, "disk.free_bytes")]
        yield Curve("Card, free", "GB", free, gap, 0)
        yield Curve("Pending images", "", _points(heard, "ledger.pending"), gap, 0)
        delivered = plots.growth(_points(heard, "ledger.delivered"))
        yield Curve("Delivered since the beginning of this plot", "", delivered, gap, 0)

    def _of_images(self, trap: Known, frame: Frame) -> Iterator[Curve]:
        span = Span(*(datetime.fromtimestamp(at, UTC) for at in (frame.since, frame.until)))
        gap = max(_BETWEEN_NIGHTS, 2.5 * (frame.until - frame.since) / _POINTS)
        rows = self._holdings.spread(trap.device, span.parts(_POINTS))
        for title, unit, key in (("Temperature", "°C", "temp"), ("Humidity", "%", "hum")):
            points = [
                (datetime.fromisoformat(row["datetime"]).timestamp(), value)
                for row in rows
                if (value := measured(row).get(key)) is not None and abs(value) < _NOTHING_HAS
            ]
            yield Curve(title, unit, points, gap)

    # ── Settings and deployments ─────────────────────────────────────────────────────────────────────────

    def _settings(self, trap: Known, beat: Heartbeat) -> dict[str, Any]:
        """What the trap says of its remote settings, and what this hub holds for it."""
        remote = beat.remote
        groups = {*self._hub.enrolment.groups(trap.device), *(remote.groups or ())}
        slots = slots_of_trap(trap.device, sorted(groups), [])
        seen = {remote.last_received_hash, remote.effective_hash}
        held = [
            {**slot, "is_there": slot["hash"] in seen, "user": one_line(slot["user"], 60)}
            for slot in self._hub.fleet.published(slots)
        ]
        return {
            "said": trap.judged.settings if trap.judged else "-",
            "reason": one_line(remote.reason or ""),
            "in_force": sorted(_flat(remote.values or {})),
            "held": held,
            "push": f"trapsync push {trap.device}.toml --to device:{trap.device} {at_desk()}",
        }

    def _deployments(self, trap: Known) -> list[dict[str, Any]]:
        """Those that the trap reported, the newest first."""
        found = [one for _, one in self._hub.reports.deployments([trap.device])]
        found.sort(key=lambda one: one.began, reverse=True)
        return [_deployment(one, trap) for one in found[:_MOST_DEPLOYMENTS]]


def picture(row: Row, trap: Known) -> dict[str, Any]:
    """What a page shows of an image."""
    taken = datetime.fromisoformat(row["datetime"])
    return {
        "name": place_of(row).name,
        "night": trap.local.night_of(taken),
        "at": row["datetime"],
        "said": trap.said(taken),
        "time": f"{taken.astimezone(trap.local.zone):%H:%M}",
        "width": row["width"],
        "height": row["height"],
    }


def measured(row: Row) -> dict[str, Any]:
    """What an image says of its surroundings, without what it does not know."""
    return without_unknown({key: row[key] for key in _MEASURED if row[key] is not None})


def effort(night: Night | None) -> str:
    """What was expected and taken in a night, in words."""
    if night is None:
        return "no report yet"
    expected, taken = night.sums()
    missed = ", ".join(f"{number} ({calendar.words(reason)})" for reason, number in night.missed().items())
    return f"{taken} of {expected} taken" + (f"; missed: {missed}" if missed else "")


def _facts(trap: Known, newest: Row | None, now: datetime) -> Iterator[tuple[str, str]]:
    """What a heartbeat says, with its names; what is unknown is left out."""
    judged = trap.judged or Trap(trap.device, Heartbeat(), None)
    beat = judged.beat
    yield "heard", f"{ago(judged.age)} ago" if judged.age is not None else "never"
    if newest:
        taken = now - datetime.fromisoformat(newest["datetime"])
        yield "newest picture here", f"{ago(max(0.0, taken.total_seconds()))} ago"
    if beat.newest_image and beat.newest_image.age_s is not None:
        yield "newest picture there", f"{ago(judged.since(beat.newest_image.age_s))} ago"
    if beat.newest_delivery_age_s is not None:
        yield "newest delivery", f"{ago(judged.since(beat.newest_delivery_age_s))} ago"
    yield from _state(beat)


def _state(beat: Heartbeat) -> Iterator[tuple[str, str]]:
    """The state of its parts."""
    if beat.battery is not None:
        days = "" if beat.battery_days is None else f", {beat.battery_days:.0f} days left"
        yield "battery", f"{beat.battery:.0f} %{days}"
    if beat.disk.free_bytes is not None:
        days = "" if beat.disk.days_left is None else f", full in {min(beat.disk.days_left, 999):.0f} days"
        yield "card", f"{beat.disk.free_bytes / 1e9:.1f} GB free{days}"
    for key in beat.ledger.__struct_fields__:
        number = getattr(beat.ledger, key)
        if number or (number == 0 and key in {"pending", "delivered"}):
            yield key, f"{number:,}"
    if beat.schema is not None:
        held = f", {beat.clock.held} images held" if beat.clock.held else ""
        yield "clock", ("set" if beat.clock.trusted else "not set") + held
    if beat.version:
        yield "version", one_line(beat.version, 40)


def _deployment(one: Deployment, trap: Known) -> dict[str, Any]:
    terms = [
        (key.replace("_", " "), f"{_said(value)} {_UNITS.get(key, '')}".strip())
        for key, value in one.terms.items()
    ]
    return {
        "id": one.id,
        "began": trap.said(one.began),
        "ended": trap.said(one.ended) if one.ended else "",
        "is_sure": one.is_sure,
        "terms": terms,
    }


def _said(value: Any) -> str:
    if isinstance(value, list):
        return one_line(", ".join(str(one) for one in value), 500)
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.10g}" if isinstance(value, float) else one_line(value, 500)


def _points(heard: list[Heard], name: str) -> list[tuple[float, float]]:
    """A value of the heartbeats over time, where they have it."""
    part, _, key = name.rpartition(".")
    found = [(one.at, getattr(getattr(one.beat, part) if part else one.beat, key)) for one in heard]
    return [(at, value) for at, value in found if value is not None]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Settings as `capture.every`, and their values in words."""
    for key, value in values.items():
        name = f"{before}{one_line(key, 60)}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _said(value)


def _cleaned(value: Any) -> Any:
    """What TOML can hold of what a heartbeat says, its texts as one line each."""
    if isinstance(value, dict):
        return {one_line(key, 60): _cleaned(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value if inner is not None]
    return one_line(value, 1000) if isinstance(value, str) else value
