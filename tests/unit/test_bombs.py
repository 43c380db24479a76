"""Bombs of 32 MiB at the doors of HTTP and MQTT: how much memory the process that meets one needs, and what it says.

That of a stick is in `test_directory.py` (huge_manifest, manifest_without_ends); all of them at the whole daemon in
`tests/daemon/test_bombs_at_the_daemon.py`.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

import bombs
from trapsync.clock import SystemClock
from trapsync.errors import Unreachable
from trapsync.fleet.mqtt import BrokerConnection
from trapsync.settings.schema import HubMqtt

# Asks one address for JSON; or hears one broker, until it says what is wrong. The peak is above what was there before.
_PEAK = """
import json, sys
from pathlib import Path

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

def http(port):
    from trapsync.clock import SystemClock
    from trapsync.errors import Unreachable
    from trapsync.net.http import HttpClient
    client = HttpClient(f"http://127.0.0.1:{port}", "test", SystemClock(), print)
    before = peak()
    try:
        said = f"{len(client.send('POST', '/').json(list))} values"
    except Unreachable as error:
        said = str(error)
    return said, peak() - before

def mqtt(port):
    from trapsync.remote.uplink.mqtt import MqttLink
    from trapsync.settings.schema import HubMqtt
    class Stop(BaseException): pass
    told = []
    link = MqttLink(HubMqtt(host="127.0.0.1", port=port, tls=False), "0a5bb6f4", ["all.settings"], print, told.append)
    def pause(seconds):
        if told: raise Stop
    before = peak()
    try:
        link.run(pause)
    except Stop:
        pass
    return told[0], peak() - before

print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]))))
"""


def attacked(door: str, port: int) -> Any:
    """What a process of its own says, and by how many bytes its peak grew."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, door, str(port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("bomb", "says"),
    [
        ("plain", "the answer is longer than 1048576 bytes"),
        ("chunked", "the answer is longer than 1048576 bytes"),
        ("one_chunk", "the answer is longer than 1048576 bytes"),
        ("packed", "the answer is longer than 1048576 bytes"),
        ("just_fits", "49991 values"),
        ("header", "the connection was cut"),
    ],
)
def test_an_answer_costs_the_trap_less_than_16_mib(bomb: str, says: str) -> None:
    with bombs.sending(bombs.HTTP[bomb]) as server:
        said, grown = attacked("http", server.port)
    assert said in {says, f"127.0.0.1:{server.port}: {says}"}
    assert grown < 16 * 2**20


@pytest.mark.parametrize(
    ("bomb", "says"),
    [
        ("announced", "it sends a packet of 200000000 bytes; 69632 are the most"),
        ("unreleased", "it sends a message with QoS 2, which nobody asked for"),
    ],
)
def test_a_brokers_packet_is_left_before_it_is_read(bomb: str, says: str) -> None:
    with bombs.sending(bombs.MQTT[bomb]) as broker:
        said, grown = attacked("mqtt", broker.port)
    assert said == f"127.0.0.1: {says}"
    assert grown < 6 * 2**20


def test_a_broker_is_left_by_the_operators_computer_too() -> None:
    with bombs.sending(bombs.announced) as broker:
        connection = BrokerConnection(HubMqtt(host="127.0.0.1", port=broker.port, tls=False), SystemClock())
        with pytest.raises(Unreachable, match="it sends a packet of 200000000 bytes"):
            connection.fleet()
