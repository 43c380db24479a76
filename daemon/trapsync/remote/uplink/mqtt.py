"""The link to the hub over MQTT: signed documents and the newest heartbeat are retained on topics (extra `mqtt`).

::

    <prefix>/pushed/device/<id>/settings    … /group/<g>/settings, /all/settings, and the same with resend
    <prefix>/pushed/key/<id>/keys           which keys it has revoked
    <prefix>/traps/<id>/heartbeat           retained
    <prefix>/traps/<id>/online              retained: true, and false as the last will

One thread calls `run` and nobody else touches the connection. MQTT 5, for it lets a trap say how large a
message it takes. A broker that sends a larger one all the same is left before any of it is read: its mistake must not
fill the memory of a Pi.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trapsync.errors import SettingsError, TrapsyncError, Unreachable, one_line
from trapsync.net import backoff
from trapsync.net.http_errors import no_address
from trapsync.net.slots import topic_of
from trapsync.remote.uplink.http import LARGEST_DOCUMENT, Receive
from trapsync.settings.config_file import read_secret, require_authorities
from trapsync.settings.schema import HubMqtt

log = logging.getLogger(__name__)

_MAGIC = b"trapsync-signed-"
_LARGEST_PACKET = LARGEST_DOCUMENT + 4096
_KIND_AND_QOS, _PUBLISH_QOS_2 = 0xF6, 0x34  # of the first byte of a packet
_TURN = 1.0  # seconds in which a heartbeat that is offered goes out, and a stop is heeded
_CONNECT = 30.0  # seconds for the broker to answer
_KEEP_ALIVE = 240  # seconds; shorter than the memory of most carriers, and 25 kB a day
_FIRST, _LONGEST = 60.0, 900.0  # seconds of back-off


class Waiting:
    """The one heartbeat that waits: the newest takes the place of the one before."""

    def __init__(self) -> None:
        self._beat: bytes | None = None

    def offer(self, beat: bytes) -> None:
        """Let this one wait, and no other."""
        self._beat = beat

    def take(self) -> bytes | None:
        """The one that waits, which then waits no more."""
        beat, self._beat = self._beat, None
        return beat

    @property
    def is_any(self) -> bool:
        """Whether one waits."""
        return self._beat is not None

    def give_back(self, beat: bytes) -> None:
        """It could not go. If a newer one waits by now, it is forgotten."""
        if self._beat is None:
            self._beat = beat


class MqttLink:
    """The connection to one broker. `told` is called after each heartbeat that it confirmed, and with what is wrong."""

    def __init__(
        self,
        mqtt: HubMqtt,
        device: str,
        slots: Sequence[str],
        receive: Receive,
        told: Callable[[str | None], None],
    ) -> None:
        """SettingsError if paho-mqtt or the certificate's file is missing."""
        _paho()
        if mqtt.ca_file and not mqtt.ca_file.is_file():
            raise SettingsError(f"hub.mqtt.ca_file: there is no file {mqtt.ca_file}")
        self._mqtt = mqtt
        self._own = f"{mqtt.topic_prefix}/traps/{device}"
        self._device = device
        self._topics = [f"{mqtt.topic_prefix}/{topic_of(slot)}" for slot in slots]
        self._receive = receive
        self._told = told
        self._waiting = Waiting()
        self._failure: BaseException | None = None
        self._is_welcome = False
        self._is_asked = True
        self._in_flight: tuple[int, bytes] | None = None
        self.is_through = True
        """Whether the broker has answered to the heartbeat that was offered last."""

    def offer(self, beat: bytes) -> None:
        """Publish this heartbeat as soon as may be; an older one that still waits is forgotten."""
        self.is_through = False
        self._waiting.offer(beat)

    def forget(self) -> None:
        """Have every document come again, as soon as may be: a broker sends what is retained to whoever asks for a topic."""
        self._is_asked = False

    def run(self, pause: Callable[[float], None]) -> None:
        """Keep the connection, and take it up again with back-off, until `pause` raises."""
        failures = 0
        while True:
            client = None
            try:
                client = self._connect(pause)
                failures = 0
                self._serve(client, pause)
            except TrapsyncError as error:
                failures += 1
                self._told(f"{self._mqtt.host}: {error}")
            finally:
                self._let_go(client)
            pause(backoff.wait(failures, first=_FIRST, longest=_LONGEST))

    def _connect(self, pause: Callable[[float], None]) -> Any:
        """A client that the broker has welcomed and that has asked for its topics."""
        self._is_welcome, self._failure = False, None
        client = connection(self._mqtt, self._device, "hub.mqtt.password_file", self._prepare)
        for _ in range(int(_CONNECT / _TURN)):
            self._turn(client, pause)
            if self._is_welcome:
                return client
        raise Unreachable("no answer in time")

    def _prepare(self, client: Any) -> None:
        client.will_set(f"{self._own}/online", b"false", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def _serve(self, client: Any, pause: Callable[[float], None]) -> None:
        client.publish(f"{self._own}/online", b"true", qos=1, retain=True)
        while True:
            if self._in_flight is None and (beat := self._waiting.take()):
                self._in_flight = (0, beat)
                message = client.publish(f"{self._own}/heartbeat", beat, qos=1, retain=True)
                self._in_flight = (message.mid, beat)
            if not self._is_asked:
                self._subscribe(client)
            self._turn(client, pause)

    def _turn(self, client: Any, pause: Callable[[float], None]) -> None:
        """Let the connection work for a second. Raises what went wrong with it, or in a callback."""
        pause(0.0)
        with translated():
            code = client.loop(_TURN)
        if self._failure:
            raise self._failure
        if code:
            raise Unreachable(f"the connection was lost ({code.name})")

    def _let_go(self, client: Any) -> None:
        """Leave the broker; the heartbeat that it has not confirmed waits again, if no newer one does.

        At an orderly end the last will is not sent: a trap that goes says so itself.
        """
        if self._in_flight:
            self._waiting.give_back(self._in_flight[1])
            self._in_flight = None
        if client is None:
            return
        if self._is_welcome and not self._failure:
            client.publish(f"{self._own}/online", b"false", qos=1, retain=True)
        client.disconnect()

    # Called by the client, in `loop`: nothing may be raised here.

    def _on_connect(
        self, client: Any, _data: object, _flags: object, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            self._failure = Unreachable(f"it refuses us: {reason}; check hub.mqtt.username and password_file")
            return
        self._is_welcome = True
        self._subscribe(client)

    def _subscribe(self, client: Any) -> None:
        self._is_asked = True
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        """A document. If it cannot be handed over, a new connection brings it again."""
        data = bytes(message.payload)
        if not data:  # an owner's way to clear a topic
            return
        if len(data) > LARGEST_DOCUMENT or not data.startswith(_MAGIC):
            self._told(f"{self._mqtt.host}: {one_line(name_of(message), 100)} holds no signed document")
            return
        try:
            self._receive(data)
        except BaseException as error:  # it is raised again, where it can be
            self._failure = error

    def _on_publish(self, _client: object, _data: object, mid: int, reason: Any, _properties: object) -> None:
        if self._in_flight and mid == self._in_flight[0]:
            self._in_flight = None
            self.is_through = not self._waiting.is_any
            self._told(
                f"{self._mqtt.host}: it refuses our heartbeat: {reason}" if reason.is_failure else None
            )


def connection(
    mqtt: HubMqtt, who: str, secret: str, prepare: Callable[[Any], None] = lambda _client: None
) -> Any:
    """A client that has called the broker and waits for its welcome; `who` is its name there, "" for any.

    `secret` is what errors call the password. Raises Unreachable, or SettingsError.
    """
    paho = _paho()
    client = _bounded(paho.Client)(
        paho.CallbackAPIVersion.VERSION2, client_id=who and f"trapsync-{who}", protocol=paho.MQTTv5
    )
    client.connect_timeout = _CONNECT
    if mqtt.password_file:
        client.username_pw_set(mqtt.username, read_secret(mqtt.password_file, secret))
    if mqtt.tls and mqtt.ca_file:
        require_authorities(mqtt.ca_file, "ca_file")
    prepare(client)
    with translated():
        if mqtt.tls:
            client.tls_set_context(ssl.create_default_context(cafile=mqtt.ca_file))
        client.connect(mqtt.host, mqtt.port, keepalive=_KEEP_ALIVE, properties=_largest_packet())
    return client


def name_of(message: Any) -> str:
    """The topic of a message; a broker may send one that is no text."""
    try:
        return str(message.topic)
    except UnicodeDecodeError:
        return ""


def _bounded(client: Any) -> Any:
    """The class of a client that leaves a broker which would fill its memory.

    paho-mqtt asks the socket at once for as much as a packet announces, and keeps what comes with QoS 2, which is never
    asked for, until the broker releases it.
    NOTE: `_sock_recv` and `_in_packet` are not of its public interface: `test_uplink_mqtt.py` holds them.
    """

    class Bounded(client):  # type: ignore[misc]
        def _sock_recv(self, bufsize: int) -> bytes:
            if bufsize > _LARGEST_PACKET:
                raise Unreachable(f"it sends a packet of {bufsize} bytes; {_LARGEST_PACKET} are the most")
            if self._in_packet["command"] & _KIND_AND_QOS == _PUBLISH_QOS_2:
                raise Unreachable("it sends a message with QoS 2, which nobody asked for")
            data: bytes = super()._sock_recv(bufsize)
            return data

    return Bounded


def _largest_packet() -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _LARGEST_PACKET
    return properties


def _paho() -> Any:
    try:
        from paho.mqtt import client
    except ModuleNotFoundError:
        raise SettingsError(
            "hub.mqtt needs paho-mqtt: run `scripts/install` once more, or `pipx inject trapsync paho-mqtt`"
        ) from None
    return client


@contextmanager
def translated() -> Iterator[None]:
    """What the connection raises as one line for a person.

    What paho-mqtt makes of bytes that are no MQTT differs from version to version; it is no bug of ours.
    """
    try:
        yield
    except TrapsyncError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"its certificate cannot be trusted: {error.verify_message}") from None
    except ssl.SSLError:
        raise Unreachable("TLS fails: does it speak TLS on that port?") from None
    except socket.gaierror as error:
        raise Unreachable(no_address(error)) from None
    except OSError as error:
        raise Unreachable(f"the connection failed: {error.strerror or error}") from None
    except Exception as error:
        raise Unreachable(f"it does not speak MQTT: {type(error).__name__}") from error
