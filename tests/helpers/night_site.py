"""A hub with one trap of a few nights, real pictures and hostile texts, for the pages of traps and nights."""

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urljoin

import requests

import drawings
import filled_hub
import reported
from hub_server import PASSWORD, RunningHub

DEVICE = drawings.DEVICE
TRAP = f"/trap/{DEVICE}"
NIGHT = f"{TRAP}/2026-06-24"
HOSTILE = "<script>alert('x')</script>"
MARKED = 'x"><img src=x onerror=alert(1)>'


def taken(minute: int, night: int = 24) -> datetime:
    """So many minutes after 22:00 in Vienna, in a night of June 2026."""
    return datetime(2026, 6, night, 20, tzinfo=UTC) + timedelta(minutes=minute)


def upload(hub: RunningHub, at: datetime, content: bytes | None = None, **facts: Any) -> str:
    """A picture of that moment arrives; its name."""
    name = f"{DEVICE}.{at:%Y-%m-%d_%H-%M-%S}.jpg"
    content = content or drawings.trap(seed=int(at.timestamp()) % 1000, taken=at, **facts)
    assert hub.upload(name, content, hashlib.md5(content).hexdigest()).status_code == 200
    return name


def furnish(hub: RunningHub) -> list[str]:
    """Two nights with pictures, reports, heartbeats of a month, a deployment, annotations; the names of the pictures."""
    heard(hub, name=HOSTILE, verdict="warning", reasons=[HOSTILE, "the battery is low"], version=MARKED)
    names = [upload(hub, taken(minute, night)) for night in (22, 24) for minute in (0, 30, 95)]
    terms = {"location_name": HOSTILE, "habitat": MARKED, "camera_height": 1.5, "every": 1800.0}
    bodies = [reported.night(number) for number in (0, 1, 3)]
    report(hub, *bodies, reported.deployment(-3, DEVICE, **terms))
    annotate(hub, names[-1])
    return names


def heard(hub: RunningHub, **more: Any) -> None:
    """Heartbeats of a month, the newest of now; `more` stands in all of them."""
    body = {**filled_hub.beat(1), "device": DEVICE, "remote": REMOTE, **more}
    now = hub.hub.clock.wall()
    with hub.hub.database.writing() as connection:
        connection.executemany(
            "INSERT INTO heartbeats (device, received, body) VALUES (?, ?, ?)",
            [
                (DEVICE, now - 3600 * hour, json.dumps({**body, "battery": 80 - hour % 30}))
                for hour in range(700, 1, -1)
            ],
        )
    hub.hub.fleet.take(DEVICE, json.dumps(body).encode())


REMOTE = {
    "state": "committed",
    "version": 7,
    "key": "0123456789abcdef",
    "groups": ["valley"],
    "values": {
        "capture": {"every": "30 min", "schedule": ["22:00 - 02:00"]},
        "camera": {"gain": 2.5, "zoom": None},
    },
}


def report(hub: RunningHub, *bodies: dict[str, Any]) -> None:
    """The trap reports nights and deployments."""
    assert hub.hub.reports.take(DEVICE, reported.lines(*bodies), 0)["refused"] == []


def annotate(hub: RunningHub, name: str) -> None:
    """A detector has found something in a picture."""
    stamp = name.split(".")[1]
    (row,) = [row for row in hub.rows() if hub.store.path(row).name == name]
    about = {
        "algo_name": HOSTILE,
        "algo_version": "1",
        "device": DEVICE,
        "datetime": stamp,
        "md5": row["md5"],
    }
    shapes = [{"contour": [[[16, 12]], [[47, 12]], [[47, 35]]], "name": "insect"}]
    assert hub.ask("put_uid_annotations", [{"annotations": shapes, "metadata": about}]).status_code == 200


class Reader:
    """Somebody who is logged in, with a browser that shows the source of pages."""

    def __init__(self, hub: RunningHub, name: str = "reader") -> None:
        hub.auth(name)
        self._url = hub.url
        self.browser = requests.Session()
        form = {"name": name, "password": PASSWORD}
        answer = self.browser.post(f"{hub.url}/login", data=form, allow_redirects=False, timeout=30)
        assert answer.status_code == 303

    def get(self, path: str, **more: Any) -> requests.Response:
        """GET a page."""
        return self.browser.get(urljoin(self._url, path), allow_redirects=False, timeout=30, **more)

    def page(self, path: str) -> str:
        """The source of a page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:2000])
        return answer.text


def places(page: str) -> set[str]:
    """Where a page leads to, and what it shows."""
    return {unescape(one) for one in re.findall(r'(?:href|src|data-picture)="([^"]+)"', page)}
