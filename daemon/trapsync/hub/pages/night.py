"""The page of one night of a trap: what was taken and missed, its pictures, and each picture by itself."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Response, request

from trapsync.clock import utc
from trapsync.errors import one_line
from trapsync.hub.holdings import Holdings
from trapsync.hub.nights import Span, read_night
from trapsync.hub.pages import calendar
from trapsync.hub.pages.frame import NoSuchPage, at_desk, render
from trapsync.hub.pages.trap import Known, effort, known, measured, picture
from trapsync.hub.store import Row, by_keys
from trapsync.hub.wire import moment
from trapsync.net.reports import Night
from trapsync.settings.words import count

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_SHOWN = 240  # pictures of a page
_GAPS = 100  # of a page
_NAMES = {
    "temp": ("temperature", "{:.1f} °C"),
    "hum": ("humidity", "{:.0f} %"),
    "lum": ("light", "{:.0f} lx"),
    "bat": ("battery", "{:.0f} %"),
    "alt": ("altitude", "{:.0f} m"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A night of a trap."""

    trap: Known
    night: date
    span: Span

    @property
    def place(self) -> str:
        """The path of its page."""
        return f"/trap/{self.trap.device}/{self.night}"

    @property
    def title(self) -> str:
        """The night in words."""
        return f"{self.night:%A}, {self.night.day} {self.night:%B %Y}"


def asked(hub: "Hub", device: str, night: str) -> Asked:
    """The night of an address. Raises NoSuchPage, also for a night that is still to come and has no pictures."""
    trap, day = known(hub, device), read_night(night)
    if day is None:
        raise NoSuchPage("There is no such night.")
    span = trap.local.span_of(day)
    is_ahead = span.since.timestamp() > hub.clock.wall()
    if is_ahead and not Holdings(hub.database).images(device, span, 1):
        raise NoSuchPage("This night is still to come.")
    return Asked(trap, day, span)


class NightPage:
    """The page of a night, and of a picture in it."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._holdings = Holdings(hub.database)

    def show(self, device: str, night: str) -> Response:
        """The night; with `?image=` a second the picture of it; `?after=` and `?until=` lead through many pictures."""
        found = asked(self._hub, device, night)
        if at := request.args.get("image"):
            return self._picture(found, moment(at))
        told = next(
            (one for _, one in self._hub.reports.nights([device], found.night, _next(found.night))), None
        )
        earlier, later = self._holdings.neighbours(device, found.trap.local, found.night)
        now = utc(self._hub.clock.wall())
        return render(
            "night.html",
            night=found,
            trap=found.trap,
            total=self._holdings.count(device, found.span),
            effort=effort(told),
            hours=calendar.hours(told, found.trap.local.zone) if told else [],
            gaps=_gaps(found, told),
            is_under_way=found.span.since <= now < found.span.until,
            earlier=earlier,
            later=later,
            resend=_resend(found),
            **self._gallery(found),
        )

    def _gallery(self, found: Asked) -> dict[str, Any]:
        """Some pictures of the night, and where those before and after them are."""
        device, span = found.trap.device, found.span
        if until := request.args.get("until"):
            rows = self._holdings.images_before(device, span, _SHOWN, moment(until))
        else:
            rows = self._holdings.images(device, span, _SHOWN, moment(request.args.get("after", "")))
        before = self._holdings.images_before(device, span, 1, rows[0]["datetime"]) if rows else []
        after = self._holdings.images(device, span, 1, rows[-1]["datetime"]) if rows else []
        return {
            "pictures": [picture(row, found.trap) for row in rows],
            "before": rows[0]["datetime"] if before else None,
            "after": rows[-1]["datetime"] if after else None,
        }

    def _picture(self, found: Asked, at: str) -> Response:
        """One picture, large, with what it says and those beside it."""
        trap = found.trap
        row = self._holdings.image(trap.device, at)
        if row is None or trap.local.night_of(datetime.fromisoformat(row["datetime"])) != found.night:
            raise NoSuchPage("This night has no such picture.")
        before = self._holdings.image_before(trap.device, at)
        after = self._holdings.image_after(trap.device, at)
        return render(
            "picture.html",
            night=found,
            trap=trap,
            picture=picture(row, trap),
            facts=_facts(row),
            notes=self._notes(row),
            before=before and picture(before, trap),
            after=after and picture(after, trap),
        )

    def _notes(self, row: Row) -> list[str]:
        """What detectors found in it, a line each."""
        wanted = by_keys([(row["device"], row["datetime"])])
        return [
            f"{one_line(one['algo_name'], 60)} {one_line(one['algo_version'], 40)}: {count(one['n_objects'], 'object')}"
            for one in self._hub.annotations.find(wanted, with_json=False)
        ]


def _next(night: date) -> date:
    return night + timedelta(days=1)


def _gaps(found: Asked, told: Night | None) -> list[dict[str, Any]]:
    """When pictures were missed, in local time, and why."""
    zone = found.trap.local.zone
    return [
        {
            "since": f"{gap.since.astimezone(zone):%H:%M}",
            "until": f"{gap.until.astimezone(zone):%H:%M}",
            "missed": gap.missed,
            "reason": calendar.words(gap.reason),
        }
        for gap in (told.gaps if told else [])[:_GAPS]
        if gap.missed
    ]


def _facts(row: Row) -> list[tuple[str, str]]:
    """What a picture says of itself and of where it was taken; the time in the trap's zone stands above it."""
    known = measured(row)
    facts = [("UTC", row["datetime"].replace("T", " ").removesuffix("Z"))]
    facts += [(name, form.format(known[key])) for key, (name, form) in _NAMES.items() if key in known]
    if "lat" in known and "lng" in known:
        facts.append(("position", f"{known['lat']:.5f}, {known['lng']:.5f}"))
    facts.append(("size", f"{row['width']} × {row['height']}"))
    return facts


def _resend(found: Asked) -> str:
    """The command that has the trap send again what is missing here."""
    since, until = (f"{one:%Y-%m-%dT%H:%M:%S+00:00}" for one in found.span)
    return f"trapsync resend --from {since} --until {until} --to device:{found.trap.device} {at_desk()}"
