"""Home by MQTT, against a real Mosquitto with TLS and passwords."""

import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

import mosquitto
from mosquitto import Broker, owner, retained, until
from trapsync.errors import CatalogError, SettingsError
from trapsync.net.slots import slots_of_trap
from trapsync.remote.uplink import mqtt as broker_module
from trapsync.remote.uplink.http import LARGEST_DOCUMENT
from trapsync.remote.uplink.mqtt import MqttLink as Way
from trapsync.remote.uplink.mqtt import Waiting
from trapsync.settings.schema import HubMqtt

DEVICE = "0a5bb6f4"
HEAD = b"trapsync-signed-1 0123456789abcdef " + b"ab" * 64 + b"\n"
ONE, TWO, THREE = (HEAD + b"version = %d\n" % number for number in (1, 2, 3))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with mosquitto.running(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_TURN", 0.02)
    monkeypatch.setattr(broker_module, "_FIRST", 0.2)


class Stop(BaseException):
    """The end of a thread."""


class Trap:
    """A trap's connection, in a thread as in the daemon."""

    def __init__(self, settings: HubMqtt, device: str = DEVICE) -> None:
        self.got: list[bytes] = []
        self.told: list[str | None] = []
        self.refuse: Exception | None = None
        self._end = threading.Event()
        self.way = Way(settings, device, slots_of_trap(device, ["valley"], []), self.hand, self.told.append)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def hand(self, data: bytes) -> None:
        """As the daemon does; once it may refuse."""
        if self.refuse:
            refusal, self.refuse = self.refuse, None
            raise refusal
        self.got.append(data)

    def run(self) -> None:
        """Until told to end."""
        with suppress(Stop):
            self.way.run(self.pause)

    def pause(self, seconds: float) -> None:
        """As the daemon's."""
        if self._end.wait(seconds):
            raise Stop

    def end(self) -> None:
        """Leave in order."""
        self._end.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def settings(broker: Broker, **more: Any) -> HubMqtt:
    table: dict[str, Any] = {
        "host": broker.host,
        "port": broker.port,
        "username": "trap",
        "password_file": broker.secret,
        "ca_file": broker.authority,
    }
    return HubMqtt(**table | more)


@contextmanager
def connected(broker: Broker, **more: Any) -> Iterator[Trap]:
    trap = Trap(settings(broker, **more))
    trap.thread.start()
    try:
        yield trap
    finally:
        trap.end()


def push(broker: Broker, topic: str, data: bytes) -> None:
    publish.single(f"trapsync/pushed/{topic}", data, qos=1, retain=True, **owner(broker))


@pytest.fixture(autouse=True)
def _clean(broker: Broker) -> Iterator[None]:
    yield
    for topic in (f"device/{DEVICE}/settings", "group/valley/settings", "all/settings", "all/resend"):
        push(broker, topic, b"")


def test_what_lies_retained_for_a_trap_reaches_it_and_so_does_what_comes_later(broker: Broker) -> None:
    push(broker, f"device/{DEVICE}/settings", ONE)
    push(broker, "device/ffffffff/settings", THREE)
    with connected(broker) as trap:
        until(lambda: trap.got == [ONE])
        push(broker, "group/valley/settings", TWO)
        until(lambda: trap.got == [ONE, TWO])
        push(broker, "all/resend", THREE)
        until(lambda: trap.got == [ONE, TWO, THREE])


def test_what_lies_retained_comes_again_when_it_is_asked_for_anew(broker: Broker) -> None:
    push(broker, "all/settings", ONE)
    with connected(broker) as trap:
        until(lambda: trap.got == [ONE])
        trap.way.forget()
        until(lambda: trap.got == [ONE, ONE])


def test_a_heartbeat_lies_retained_and_the_newest_takes_its_place(broker: Broker) -> None:
    with connected(broker) as trap:
        for number in range(3):
            trap.way.offer(json.dumps({"n": number}).encode())
            until(lambda number=number: len(trap.told) > number)  # type: ignore[misc]
        assert json.loads(retained(broker, f"traps/{DEVICE}/heartbeat")) == {"n": 2}
        assert trap.told == [None, None, None]


def test_of_the_heartbeats_that_wait_for_a_broker_only_the_newest_goes(broker: Broker) -> None:
    trap = Trap(settings(broker))
    for number in range(50):
        trap.way.offer(json.dumps({"n": number}).encode())
    trap.thread.start()
    until(lambda: trap.told)
    trap.end()

    assert trap.told == [None]
    assert json.loads(retained(broker, f"traps/{DEVICE}/heartbeat")) == {"n": 49}


def test_one_that_could_not_go_waits_again_unless_a_newer_one_does() -> None:
    waiting = Waiting()
    waiting.give_back(b"old")
    assert waiting.take() == b"old"
    waiting.offer(b"new")
    waiting.give_back(b"old")
    assert (waiting.take(), waiting.take()) == (b"new", None)


def test_the_fleet_sees_who_is_there_and_who_left_without_a_word(broker: Broker) -> None:
    with connected(broker) as trap:
        until(lambda: retained(broker, f"traps/{DEVICE}/online") == b"true")
        trap.end()
        until(lambda: retained(broker, f"traps/{DEVICE}/online") == b"false")

    dying = Trap(settings(broker), "000000ff")
    client: Any = dying.way._connect(dying.pause)
    client.publish("trapsync/traps/000000ff/online", b"true", qos=1, retain=True)
    until(lambda: client.loop(0.05) == 0 and retained(broker, "traps/000000ff/online") == b"true")
    client.socket().close()  # as when the power goes: the broker sends the last will
    until(lambda: retained(broker, "traps/000000ff/online") == b"false")


def test_a_broker_that_comes_back_is_found_again_and_brings_what_was_pushed_meanwhile(broker: Broker) -> None:
    with connected(broker) as trap:
        trap.way.offer(b'{"n": 1}')
        until(lambda: trap.told)
        broker.stop()
        until(lambda: trap.told[-1] is not None)
        trap.way.offer(b'{"n": 2}')
        trap.way.offer(b'{"n": 3}')
        broker.start()
        push(broker, f"device/{DEVICE}/settings", TWO)
        until(lambda: trap.got == [TWO] and trap.told[-1] is None)
        assert retained(broker, f"traps/{DEVICE}/heartbeat") == b'{"n": 3}'
        assert [text for text in trap.told if text and "connection" in text]


def test_a_document_that_could_not_be_handed_over_comes_again(broker: Broker) -> None:
    push(broker, f"device/{DEVICE}/settings", ONE)
    trap = Trap(settings(broker))
    trap.refuse = CatalogError("the card is full")
    trap.thread.start()
    until(lambda: trap.got == [ONE])
    trap.end()
    assert trap.told[0] == f"{broker.host}: the card is full"


@pytest.mark.parametrize("rubbish", [b"<html>", ONE + b"#" * (LARGEST_DOCUMENT - 100), ONE + b"#" * 2**20])
def test_rubbish_on_a_topic_is_not_handed_over_and_costs_nothing_else(broker: Broker, rubbish: bytes) -> None:
    push(broker, "all/settings", rubbish)
    with connected(broker) as trap:
        push(broker, f"device/{DEVICE}/settings", ONE)
        until(lambda: trap.got)
        trap.way.offer(b"{}")
        until(lambda: None in trap.told)
        assert trap.got == [ONE]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"username": "nobody"}, "it refuses us: Not authorized; check hub.mqtt.username"),
        ({"ca_file": None}, "its certificate cannot be trusted: self-signed certificate"),
        ({"tls": False, "ca_file": None}, "the connection was lost"),
        ({"port": 9}, "the connection failed: Connection refused"),
    ],
)
def test_a_broker_that_will_not_have_us_is_one_line(
    broker: Broker, more: dict[str, Any], complaint: str
) -> None:
    with connected(broker, **more) as trap:
        until(lambda: trap.told)
    assert str(trap.told[0]).startswith(f"{broker.host}: {complaint}")
    assert "\n" not in str(trap.told[0])


def test_what_is_no_broker_cannot_break_the_daemon() -> None:
    told, chance, rounds = list[str | None](), random.Random(5), 200
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            """A packet of the right frame, and rubbish in it."""
            for _ in range(rounds):
                client, _ = server.accept()
                with client, suppress(OSError):
                    client.recv(1000)
                    client.sendall(b"\x20\x03\0\0\0")  # welcome
                    client.recv(1000)
                    rubbish = chance.randbytes(chance.randrange(60))
                    kind = chance.choice((0x20, 0x30, 0x32, 0x90, 0xE0))
                    client.sendall(bytes([kind, len(rubbish)]) + rubbish)
                    client.recv(1000)

        answering = pool.submit(answer)
        table = HubMqtt(host="127.0.0.1", port=server.getsockname()[1], tls=False)
        way = Way(table, DEVICE, slots_of_trap(DEVICE, [], []), print, told.append)

        def pause(seconds: float) -> None:
            if seconds and len(told) >= rounds:
                raise Stop

        with suppress(Stop):
            way.run(pause)
        answering.result(10)
    assert len(told) == rounds
    assert None not in told
    assert [text for text in told if text and "MQTT_ERR_PROTOCOL" in text]


def test_a_missing_certificate_is_told_at_the_start(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hub\.mqtt\.ca_file: there is no file"):
        Trap(settings(broker, ca_file=tmp_path / "none.pem"))
