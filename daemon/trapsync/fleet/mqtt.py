"""The connection to an MQTT broker: documents and heartbeats are retained on its topics (see `remote.uplink.mqtt`)."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from trapsync.clock import Clock
from trapsync.errors import TrapsyncError, Unreachable
from trapsync.net import heartbeat
from trapsync.net.heartbeat import Heartbeat
from trapsync.net.slots import slot_at, topic_of
from trapsync.remote.document import document_hash
from trapsync.remote.uplink.mqtt import connection, name_of, translated
from trapsync.settings.schema import DEVICE, HubMqtt

_PATIENCE = 20.0  # seconds for the broker to answer
_SILENCE = 1.0  # seconds after which what lies retained has all come
_TURN = 0.1
_MOST_TOPICS, _MOST_BYTES = 10_000, 32 * 2**20
_TRAP = re.compile(rf"traps/({DEVICE.pattern})/(heartbeat|online)")


class BrokerConnection:
    """One broker.

    NOTE: a broker compares nothing, so of two operators who push at the same moment the later one wins.
    """

    hears = True

    def __init__(self, mqtt: HubMqtt, clock: Clock) -> None:
        self.name = f"{mqtt.host}:{mqtt.port}"
        self._mqtt = mqtt
        self._clock = clock

    def documents(self) -> dict[str, bytes]:
        """What lies on all topics of documents."""
        found = {}
        for topic, data in self._retained("pushed/#").items():
            if slot := slot_at(topic):
                found[slot] = data
        return found

    def put(self, slot: str, data: bytes, before: bytes | None) -> None:
        """Publish it retained, and wait for the broker's word."""
        topic = f"{self._mqtt.topic_prefix}/{topic_of(slot)}"
        answers: list[Any] = []

        def publish(client: Any) -> Callable[[], object]:
            client.on_publish = lambda _client, _data, _mid, reason, _properties: answers.append(reason)
            client.publish(topic, data, qos=1, retain=True)
            return lambda: answers

        self._serve(publish)
        if answers[0].is_failure:
            raise TrapsyncError(f"{self.name}: it refuses {topic}: {answers[0]}")

    def fleet(self) -> dict[str, Any]:
        """What the traps left. Their ages are by their own clocks, and unknown where those cannot be trusted."""
        traps: dict[str, dict[str, Any]] = {}
        online: dict[str, bool] = {}
        for topic, data in self._retained("traps/#").items():
            if not (match := _TRAP.fullmatch(topic)):
                continue
            if match[2] == "online":
                online[match[1]] = data == b"true"
            else:
                traps[match[1]] = {"device": match[1], "age_s": None, **self._entry(data)}
        slots = {name: {"hash": document_hash(data)} for name, data in self.documents().items()}
        found = [{**trap, "online": online.get(device)} for device, trap in sorted(traps.items())]
        return {"traps": found, "slots": slots}

    def _entry(self, data: bytes) -> dict[str, Any]:
        """What a hub would say of this heartbeat: itself and its age, or why it is none."""
        try:
            content = heartbeat.decode(data)
            return {"heartbeat": content, "age_s": self._age(heartbeat.read(content))}
        except ValueError as error:
            return {"odd": str(error)}

    def _age(self, beat: Heartbeat) -> int | None:
        if not beat.clock.trusted or beat.at is None:
            return None
        try:
            return max(0, round(self._clock.wall() - datetime.fromisoformat(beat.at).timestamp()))
        except (ValueError, OverflowError):  # no moment, or one that only a calendar has
            return None

    def _retained(self, topics: str) -> dict[str, bytes]:
        """What lies on the topics below the prefix."""
        prefix, found = f"{self._mqtt.topic_prefix}/", dict[str, bytes]()
        heard = self._clock.monotonic()

        def subscribe(client: Any) -> Callable[[], object]:
            nonlocal heard

            def take(_client: object, _data: object, message: Any) -> None:
                nonlocal heard
                heard = self._clock.monotonic()
                found[name_of(message).removeprefix(prefix)] = bytes(message.payload)

            client.on_message = take
            client.subscribe(prefix + topics, 1)
            heard = self._clock.monotonic()
            return self._all_of(found, lambda: self._clock.monotonic() - heard > _SILENCE)

        self._serve(subscribe)
        return found

    def _all_of(self, found: dict[str, bytes], is_over: Callable[[], bool]) -> Callable[[], bool]:
        """Whether all has come; Unreachable for a broker that has more than any fleet."""

        def claim() -> bool:
            if len(found) > _MOST_TOPICS or sum(map(len, found.values())) > _MOST_BYTES:
                raise Unreachable(f"more than {_MOST_TOPICS} topics, or {_MOST_BYTES} bytes, lie on it")
            return is_over()

        return claim

    def _serve(self, begin: Callable[[Any], Callable[[], object]]) -> None:
        """Connect, begin, and let the connection work until what `begin` returned is true."""
        client, welcome = None, list[Any]()
        try:
            client = connection(self._mqtt, "", "the broker's password")
            client.on_connect = lambda _client, _data, _flags, reason, _properties: welcome.append(reason)
            self._until(client, lambda: welcome)
            if welcome[0].is_failure:
                raise TrapsyncError(f"it refuses us: {welcome[0]}; check the user and the password file")
            self._until(client, begin(client))
        except TrapsyncError as error:
            raise Unreachable(f"{self.name}: {error}") from None
        finally:
            if client is not None:
                client.disconnect()

    def _until(self, client: Any, claim: Callable[[], object]) -> None:
        ends = self._clock.monotonic() + _PATIENCE
        while not claim():
            with translated():
                code = client.loop(_TURN)
            if code and not claim():
                raise Unreachable(f"the connection was lost ({code.name})")
            if self._clock.monotonic() > ends:
                raise Unreachable("no answer in time")
