"""A real hub in a process of its own that tells real services; killed as it tells them, and with one that hangs."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

import drawings
import hub_server
import processes
import receivers
from receivers import Receiver
from trapsync.clock import SystemClock
from trapsync.files import failpoint
from trapsync.hub.app import Hub

DEVICE = drawings.DEVICE
LOGIN = ("station", hub_server.PASSWORD)
FAILING = {"device": DEVICE, "name": "Meadow", "verdict": "failing", "reasons": ["the camera hangs"]}


class Site:
    """A hub's folder and config file, with a trap that fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with hub_server.cheap_passwords():
            hub = Hub.open(folder / "hub")
            hub.accounts.add("station", hub_server.PASSWORD, "manager")
        hub.database.close()

    def tell(self, *addresses: str) -> None:
        """Have these be told."""
        file = self.folder / "addresses"
        file.write_text("\n".join(addresses))
        file.chmod(0o600)
        (self.folder / "hub.toml").write_text(
            f'[hub]\nfolder = "{self.folder}/hub"\nport = 0\nmin_free = "0 B"\n'
            '[alerts]\naddresses_file = "addresses"\n'
        )

    def fail(self) -> None:
        """Have a change wait: a heartbeat, and a turn of the hub that noted it."""
        hub = Hub.open(self.folder / "hub")
        hub.fleet.take(DEVICE, json.dumps(FAILING).encode())
        with hub.database.writing() as connection:
            connection.execute(
                "INSERT INTO alert_changes (device, name, rule, is_on, at, text) VALUES (?, ?, ?, ?, ?, ?)",
                (DEVICE, "Meadow", "failing", 1, SystemClock().wall(), "failing: the camera hangs"),
            )
            connection.execute(
                "INSERT INTO alert_states (device, rule, detail) VALUES (?, 'failing', '')", (DEVICE,)
            )
        hub.database.close()

    @contextmanager
    def running(self, order: str = "") -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
        """The hub's address and process; armed with a failpoint, if there is an order."""
        command = [sys.executable, "-m", "trapsync", "hub", "--config", str(self.folder / "hub.toml")]
        environment = os.environ | ({failpoint.VARIABLE: order} if order else {})
        with processes.started(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
            assert program.stderr
            url = re.search(r"http://\S+", program.stderr.readline())
            assert url or order  # one that is to be killed may be so before it says where it listens
            yield url[0] if url else "", program
            program.terminate()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receivers.receiving() as one:
        yield one


def until(is_so: Callable[[], object], within: float = 60) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("point", "messages"), [("alerts: before a message", [1]), ("alerts: message sent", [1, 2])]
)
def test_a_hub_that_is_killed_as_it_tells_tells_again_and_says_so(
    site: Site, receiver: Receiver, point: str, messages: list[int]
) -> None:
    path = f"killed-{len(messages)}"
    site.tell(receiver.address(path))
    with site.running():
        pass
    site.fail()
    with site.running(f"{point}#1") as (_url, hub):
        assert hub.wait(60) == -9
    with site.running():
        until(lambda: len(receiver.bodies(path)) == len(messages))
    last = receiver.bodies(path)[-1]
    assert last["title"] == "Meadow: failing: the camera hangs"
    assert last["message"].startswith("This may have reached you already")


def test_uploads_and_heartbeats_go_on_while_a_service_hangs(site: Site, receiver: Receiver) -> None:
    site.tell(receiver.address("hangs"), receiver.address("floods"))
    with site.running():
        pass
    site.fail()
    with site.running() as (url, _hub):
        until(lambda: receiver.bodies("hangs"))
        begun, took = time.monotonic(), list[float]()
        for number in range(20):
            name = f"{DEVICE}.2026-06-20_20-19-{number:02d}.jpg"
            picture = drawings.trap(number)
            sent = time.monotonic()
            answer = requests.post(
                f"{url}/_put_new_images",
                files={name: (name, picture, "image/jpeg")},
                data={f"{name}.md5": hashlib.md5(picture, usedforsecurity=False).hexdigest()},
                auth=LOGIN,
                timeout=30,
            )
            assert answer.status_code == 200, answer.text
            beat = requests.post(f"{url}/heartbeats/{DEVICE}", json.dumps(FAILING), auth=LOGIN, timeout=30)
            assert beat.status_code == 200
            took.append(time.monotonic() - sent)
        assert time.monotonic() - begun < 45, "the message was under way all the time"
        assert max(took) < 10
