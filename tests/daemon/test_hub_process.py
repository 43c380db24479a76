"""A real hub in a process of its own that is killed while it is told what it is to know once."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import hub_server
import processes
import reported
from drawings import DEVICE
from fake_time import FakeTime
from reported import Trap, night
from trapsync.files import failpoint
from trapsync.hub.app import Hub
from trapsync.remote.uplink.http import HttpLink
from trapsync.settings.schema import Hub as HubSettings

ITS_COMMIT = 5  # those before it are of the start: schema, secrets, accounts


@contextmanager
def running(folder: Path, order: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The hub's address and process; armed with a failpoint, if there is an order."""
    command = [
        sys.executable,
        "-m",
        "trapsync",
        "hub",
        "--port",
        "0",
        "--folder",
        str(folder),
        "--min-free",
        "0 B",
    ]
    environment = os.environ | ({failpoint.VARIABLE: order} if order else {})
    with processes.started(command, stderr=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stderr
        line = program.stderr.readline()
        url = re.search(r"http://\S+", line)
        assert url, line + program.stderr.read()
        yield url[0], program
        program.terminate()


@pytest.mark.parametrize("name", ["hub: before the commit", "hub: committed"])
def test_a_hub_that_is_killed_as_it_stores_reports_has_each_once_in_the_end(
    tmp_path: Path, name: str
) -> None:
    folder, secret = tmp_path / "hub", tmp_path / "password"
    hub = Hub.open(folder, FakeTime())
    hub.accounts.add("station", hub_server.PASSWORD, "manager")
    secret.write_text(hub_server.PASSWORD)
    secret.chmod(0o600)
    trap = Trap(tmp_path / "trap", hub)
    trap.bodies = [night(number) for number in range(3)]

    def told(order: str) -> int:
        with running(folder, order) as (url, program):
            settings = HubSettings(url=url, username="station", password_file=secret)
            link = HttpLink(settings, DEVICE, (), trap.time, trap.time.sleep)
            trap.reporter.look_now()
            trap.reporter.send(link.report)
            link.close()
            with suppress(subprocess.TimeoutExpired):
                return program.wait(0 if not order else 10)
            return 0

    assert told(f"{name}#{ITS_COMMIT}") == -signal.SIGKILL
    stored = len(reported.held(hub.reports))
    trap.bodies.append(night(3))
    assert told("") == 0

    assert stored == (3 if name == "hub: committed" else 0)
    assert reported.held(hub.reports) == dict.fromkeys(
        [f"2026-06-{day}" for day in (21, 22, 23, 24)], (20, 10)
    )
    with hub.database.reading() as connection:
        numbers = [row[0] for row in connection.execute("SELECT number FROM reports ORDER BY number")]
    assert numbers == [1, 2, 3, 4]
    assert len(trap.catalog.reports.held()) == 4
