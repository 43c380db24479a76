"""Reports as a trap makes them: nights, deployments, and what a hub holds of them."""

from datetime import date, timedelta
from typing import Any

from drawings import DEVICE
from trapsync.hub.reports import Reports
from trapsync.net import reports

NIGHT = date(2026, 6, 21)


def night(number: int = 0, *, taken: int = 2, gaps: int = 1, reason: str = "camera") -> dict[str, Any]:
    """The body of a night, so many after NIGHT."""
    day = NIGHT + timedelta(days=number)
    hours = [[f"{day}T{hour}:00:00Z", 4, taken, taken + 1] for hour in range(19, 24)]
    missed = [[f"{day}T{20 + at % 4}:20:00Z", f"{day}T23:40:00Z", 4 - taken, reason] for at in range(gaps)]
    return {"schema": 1, "night": str(day), "timezone": "Europe/Vienna", "hours": hours, "gaps": missed}


def deployment(number: int = 0, device: str = DEVICE, **terms: Any) -> dict[str, Any]:
    """The body of a deployment that began so many days after NIGHT and lasts."""
    day = NIGHT + timedelta(days=number)
    known = {"latitude": 46.5, "longitude": 11.3, "location_name": "the upper meadow", **terms}
    at = {"began": f"{day}T20:00:00Z", "ended": None}
    return {"id": f"{device}-{day:%Y%m%d}T200000Z", **at, "terms": known}


def line(body: dict[str, Any]) -> reports.Line:
    """A body as it is sent."""
    kind, key = ("night", "night") if "night" in body else ("deployment", "id")
    return reports.line(kind, body[key], body)


def lines(*bodies: dict[str, Any]) -> bytes:
    """Bodies as a request has them."""
    return b"".join(line(body).data + b"\n" for body in bodies)


def heard(hub: Any, device: str = DEVICE) -> None:
    """Let the hub know the trap, as its first heartbeat does."""
    hub.fleet.take(device, b'{"device": "%s"}' % device.encode(), device)


def held(there: Reports, device: str = DEVICE) -> dict[str, tuple[int, int]]:
    """The nights that a hub holds: expected and taken of each."""
    found = [watched for watched in there.effort() if watched.device == device]
    kept = {str(one.night): (one.expected, one.taken) for one in found}
    assert len(kept) == len(found)
    return kept
