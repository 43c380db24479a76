"""The heartbeat of a real daemon, at a real hub and a real broker; and that nothing on the trap listens."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import daemon_process
import heartbeat_schema
import hub_server
import mosquitto
from daemon_process import Daemon
from drawings import DEVICE
from hub_server import RunningHub
from mosquitto import retained, until

HOME = """
[hub]
url = "{url}"
username = "trap"
password_file = "password"
every = "1 s"
"""


def at_home(hub: RunningHub, folder: Path) -> str:
    """The settings of a trap whose destination and home are this hub."""
    return daemon_process.deliver_to(folder, hub.url, hub.user, hub.password) + HOME.format(url=hub.url)


def heard(hub: RunningHub, claim: Callable[[dict[str, Any]], object], trap: Daemon) -> dict[str, Any]:
    """The newest heartbeat, as soon as the claim holds of it."""
    found: dict[str, Any] = {}

    def is_so() -> object:
        found.clear()
        found.update(*(entry["heartbeat"] for entry in hub.hub.fleet.snapshot()["traps"]))
        return found and claim(found)

    try:
        until(is_so, 40)
    except AssertionError:
        pytest.fail(f"in vain: {found}\n{trap.text()}")
    heartbeat_schema.require(found)
    return found


def test_with_an_invalid_config_a_trap_that_ran_goes_on_and_status_and_heartbeat_say_so(
    tmp_path: Path,
) -> None:
    said, at_hub = "did you mean 'capture'?", "the config file is invalid: "  # where a reason is cut
    with (
        hub_server.running(tmp_path / "hub") as hub,
        daemon_process.running(
            tmp_path / "trap", at_home(hub, tmp_path / "trap"), camera="simulated"
        ) as trap,
    ):
        trap.until(lambda facts: facts["ledger"]["captured"])
        valid = trap.config.read_text()
        trap.config.write_text(f"{valid}[captures]\n")
        beat = heard(hub, lambda beat: at_hub in str(beat["reasons"][:1]), trap)
        assert (beat["verdict"], trap.status()["verdict"]) == ("failing", "failing")
        assert said in trap.status()["reasons"][0]
        trap.kill()
        before, began = trap.status()["ledger"]["captured"], len(trap.text())
        trap.start()
        trap.until_log(f"{said}; running on the one of ", since=began)
        trap.until(lambda facts: facts["ledger"]["captured"] > before)
        heard(hub, lambda beat: beat["ledger"]["captured"] > before and at_hub in beat["reasons"][0], trap)
        trap.config.write_text(valid)
        assert "sudo systemctl reload trapsync" in trap.until(lambda facts: said not in str(facts))["config"]
        trap.signal(signal.SIGHUP)
        trap.until(lambda facts: facts["daemon"]["running"] and facts["config"] is None)
        heard(hub, lambda beat: "config" not in str(beat["reasons"]), trap)


def test_a_daemon_tells_the_hub_how_it_is(tmp_path: Path) -> None:
    with (
        hub_server.running(tmp_path / "hub") as hub,
        daemon_process.running(
            tmp_path / "trap", at_home(hub, tmp_path / "trap"), camera="simulated"
        ) as trap,
    ):
        beat = heard(hub, lambda beat: beat.get("newest_delivery"), trap)
        (entry,) = hub.hub.fleet.snapshot()["traps"]
        facts = trap.until(lambda facts: facts["hub"].get("web", {}).get("reached"))

    assert (entry["device"], beat["verdict"], beat["reasons"]) == (DEVICE, "ok", [])
    assert beat["newest_image"]["age_s"] < 30
    assert beat["newest_delivery_age_s"] < 30
    assert (beat["capture_failures"], beat["every_s"], beat["clock"]["trusted"]) == (0, 1, True)
    assert beat["disk"]["days_left"] > 0
    assert beat["remote"]["state"] == "none"
    assert len(json.dumps(beat)) < 2000
    assert facts["hub"]["web"]["error"] is None


def test_a_trap_whose_capture_stopped_on_a_full_card_says_failing_at_home(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        trap = Daemon(tmp_path / "trap", at_home(hub, tmp_path / "trap"), camera="simulated")
        config = trap.config.read_text()
        trap.config.write_text(config.replace('min_free = "1 MB"', 'min_free = "9000 GB"'))
        trap.start()
        try:
            beat = heard(hub, lambda beat: beat["capture_failures"] >= 3, trap)
            assert beat["verdict"] == "failing"
            assert [reason for reason in beat["reasons"] if "the card is full" in reason]
            trap.config.write_text(config)
            trap.signal(1)
            heard(hub, lambda beat: beat["verdict"] == "ok", trap)
        finally:
            trap.kill()


def test_a_daemon_tells_the_hub_once_where_it_stands_and_since_when(tmp_path: Path) -> None:
    place = "[deployment]\nlocation_name = 'the upper meadow'\n"

    def told(hub: RunningHub, trap: Daemon) -> object:
        trap.signal(signal.SIGUSR1)  # else it looks for news once an hour
        return list(hub.hub.reports.deployments())

    with (
        hub_server.running(tmp_path / "hub") as hub,
        daemon_process.running(
            tmp_path / "trap", at_home(hub, tmp_path / "trap") + place, camera="simulated"
        ) as trap,
    ):
        until(lambda: told(hub, trap), 40)
        trap.kill()
        beats, began = len(hub.hub.fleet.history(DEVICE)), len(trap.text())
        trap.start()
        trap.until_log("watching over", since=began)
        until(lambda: told(hub, trap) and len(hub.hub.fleet.history(DEVICE)) > beats + 2, 40)

        ((device, found),) = hub.hub.reports.deployments()
        assert (device, found.terms["location_name"], found.ended) == (DEVICE, "the upper meadow", None)
        assert hub.hub.reports.take(DEVICE, b"", 0)["newest"] == 1
        assert "ERROR" not in trap.text()


def test_a_home_that_cannot_be_reached_costs_the_trap_nothing(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        table = daemon_process.deliver_to(tmp_path / "trap", hub.url, hub.user, hub.password)
        more = table + HOME.format(url="http://127.0.0.1:9")
        with daemon_process.running(tmp_path / "trap", more, camera="simulated") as trap:
            facts = trap.until(lambda facts: facts["ledger"]["delivered"] and facts["hub"])
            text = trap.run("status").stdout

    assert facts["verdict"] == "ok"
    assert "connection refused" in facts["hub"]["web"]["error"]
    assert facts["hub"]["web"]["reached"] is None
    assert "never reached; 127.0.0.1:9: connection refused" in text
    assert "ERROR" not in trap.text()


def listening(pid: int) -> list[str]:
    """The listening TCP and bound UDP sockets of a process and its children, as the kernel lists them."""
    inodes = set()
    for process in [pid, *children(pid)]:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                target = str(descriptor.readlink())
                inodes |= {target[8:-1]} if target.startswith("socket:[") else set()
    found = []
    for kind, states in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state in states and rest[5] in inodes:
                found.append(f"{kind} {local}")
    return found


def children(pid: int) -> list[int]:
    """All that descend from it."""
    own = [
        int(child)
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for child in file.read_text().split()
    ]
    return own + [one for child in own for one in children(child)]


def test_nothing_listens_on_a_trap_that_is_at_home_by_both_ways(tmp_path: Path) -> None:
    with (
        hub_server.running(tmp_path / "hub") as hub,
        mosquitto.running(tmp_path / "broker") as broker,
        daemon_process.running(
            tmp_path / "trap", at_home(hub, tmp_path / "trap") + broker.table, camera="simulated"
        ) as trap,
    ):
        heard(hub, lambda beat: beat.get("newest_delivery"), trap)
        until(lambda: json.loads(retained(broker, f"traps/{DEVICE}/heartbeat"))["verdict"] == "ok")
        assert listening(os.getpid())  # the hub is in this process: the test can see what listens
        assert listening(trap.pid) == []
        assert retained(broker, f"traps/{DEVICE}/online") == b"true"
        facts = trap.until(lambda facts: set(facts["hub"]) == {"web", "mqtt"})
        assert [way["error"] for way in facts["hub"].values()] == [None, None]
        assert trap.stop() == 0
        until(lambda: retained(broker, f"traps/{DEVICE}/online") == b"false")
