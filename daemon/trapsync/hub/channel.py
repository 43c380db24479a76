"""The hub's connections: waitress's own, which receive a body only when the head of its request was admitted.

waitress receives and sends in one thread, and four others answer whole requests, so that a slow sender costs none of
them. What it lacks is added here: the look at the head, deadlines, least rates, and whose connection goes when there are
too many. Everything here runs in that one thread, where nothing else is said.
"""

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any
from urllib.parse import urlsplit

from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from trapsync.clock import Clock
from trapsync.hub.accounts import User
from trapsync.hub.admission import USER, Admission, Admitted, Denied, Head, Login, network
from trapsync.hub.password_queue import PasswordQueue
from trapsync.hub.room import NoRoom, Room
from trapsync.hub.threads import Threads
from trapsync.hub.wire import UPLOADS
from trapsync.settings.open_links import is_address

log = logging.getLogger(__name__)

# Each trap of a fleet that reconnects holds a connection for a moment, and one whose link is lost for a minute.
CONNECTIONS = 2000
PER_NETWORK = 100  # of connections that have not logged in
PER_TRAP = 32  # of connections: sixteen transfers, and questions beside them
HEAD_WITHIN = 10.0  # seconds after the connection, or after the last answer
IDLE = 60.0  # … for a user who has logged in
IDLE_PROXY = 180.0  # … for a proxy, which keeps its connections for two minutes
_WINDOW = 60.0  # seconds, in which a transfer moves as many bytes at least:
_LEAST = 12_000  # 200 B/s
_BUSY = 5  # seconds after which to try again
_ALL_BODIES = 10**9
# A body of this size or less waits in memory for its end. A larger one does so while there are few of them, so that a
# picture is written once; else in a file, which makes two copies for a while.
IN_MEMORY = 64 * 1024
_IN_MEMORY_TOGETHER = 16 * 2**20  # bytes of all bodies that are on their way
_COPIES = 2
_LINGER = 5.0  # seconds, and bytes:
_LINGER_KNOWN, _LINGER_UNKNOWN = 4 * 2**20, 64 * 1024
_ACCEPT_AT_ONCE = 512
_FAIR_TURNS = 3  # of the loop, which may take long under load
_NEWCOMERS = 64  # connections that may not have had the time to send a head
_NO_SNIFF = ("X-Content-Type-Options", "nosniff")  # no browser is to take a picture for a page


@dataclass(frozen=True, slots=True)
class Gate:
    """What all connections of a hub share."""

    admission: Admission
    passwords: PasswordQueue
    clock: Clock
    room: Room
    proxy: str = ""
    url: str = ""


class _Refusal(ErrorTask):  # type: ignore[misc]
    """Answers with the reason why a request is not taken."""

    def start(self) -> None:
        """Begin."""
        super().start()
        self.response_headers.append(_NO_SNIFF)


class _Answer(WSGITask):  # type: ignore[misc]
    """Has the app answer, in a thread for answers."""

    def start(self) -> None:
        """Begin."""
        super().start()
        self.response_headers.append(_NO_SNIFF)

    def get_environment(self) -> dict[str, Any]:
        """What the app is told of the request."""
        environ: dict[str, Any] = super().get_environment()
        environ.update(self.channel.seen_from_outside())
        return environ


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection."""

    task_class = _Answer
    error_task_class = _Refusal
    server: "Server"
    request: Any

    def __init__(self, server: "Server", sock: socket.socket, addr: Any, *rest: Any, **more: Any) -> None:
        self.user: User | None = None  # who sent the newest request
        self.address: str = addr[0]  # of the client
        self.through_proxy = addr[0] == server.gate.proxy
        self._unread = b""
        self._login: Login | None = None  # being compared
        self._refused = False  # and not answered yet
        self.asks_for_page = self.sends_picture = False  # who answers; see `threads`
        self._must_linger = False
        self._lingers = 0  # until so many bytes have moved
        self._moved = 0  # bytes, both ways
        self._turns = 0  # of the loop that it has seen
        self.since = self._active = server.gate.clock.monotonic()  # when it was last seen at work
        self._window = (self._active, 0)
        super().__init__(server, sock, addr, *rest, **more)

    # ── Receiving ────────────────────────────────────────────────────────────────────────────────────

    def readable(self) -> bool:
        """Whether more may come; asked once in each turn of the loop."""
        self._turns += 1
        if self._lingers or not self.connected:
            return bool(self.connected)
        return self._login is None and bool(super().readable())

    def writable(self) -> bool:
        """Whether something is to be sent, or the end."""
        return self.connected and not self._lingers and bool(super().writable())

    def recv(self, size: int) -> bytes:
        """Receive, and count."""
        data: bytes = super().recv(size)
        self._moved += len(data)
        return data

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send, and count; in any thread."""
        sent: int = super().send(data, do_close=do_close)
        self._moved += sent
        return sent

    def received(self, data: bytes) -> None:
        """Take a head, have it decided on, then its body."""
        if self._lingers:
            if self._moved > self._lingers:
                self.handle_close()
            return
        with self.requests_lock:
            self._unread += data
            while self._unread and not (
                self._login or self.requests or self.will_close or self.close_when_flushed
            ):
                self._take()
        if self._refused:
            self._refused = False
            self.service()  # here: to wake a thread for it would cost the others more

    def _take(self) -> None:
        if self.request is None:
            self.request = self.parser_class(self.adj)
        request, in_head = self.request, not self.request.headers_finished
        self._unread = self._unread[request.received(self._unread) :]
        if request.empty:
            self.request = None
        elif in_head and request.headers_finished and not request.error:
            self._active = self.server.gate.clock.monotonic()
            self._follow(self.server.gate.admission.decide(self._head()))
        elif request.chunked and request.body_bytes_received > request.largest:
            self._refuse(Denied(413, f"the body is longer than {request.largest} bytes\n"))
        elif request.completed:
            self._hand_over()

    def _head(self) -> Head:
        request = self.request
        if self.through_proxy:
            forwarded = _last(request.headers.get("X_FORWARDED_FOR", "")).strip("[]")
            self.address = forwarded if is_address(forwarded) else self.addr[0]
        length = None if request.chunked else request.content_length
        return Head(self.address, request.command, request.path, request.headers, length, request.query)

    def _follow(self, verdict: Admitted | Denied | Login) -> None:
        gate = self.server.gate
        if isinstance(verdict, Login):
            self._login = verdict
            if gate.passwords.put(network(self.address), verdict, self._compared):
                return
            verdict = Denied(503, "too many passwords are being compared: try again\n", _BUSY)
        self._login = None
        if isinstance(verdict, Admitted):
            self.user, self.request.largest, self.asks_for_page = verdict
            self.sends_picture = self.request.path == UPLOADS
            self.request.promised = verdict.largest if self.request.chunked else self.request.content_length
            verdict = self.server.admit(self) or verdict
        if isinstance(verdict, Denied):
            self._refuse(verdict)
        elif self.request.completed:
            self._hand_over()
        elif self.request.expect_continue:
            self.send_continue()

    def _compared(self, user: User | None) -> None:
        """The password has been compared; in the queue's thread."""
        self.server.trigger.pull_trigger(lambda: self._go_on(user))

    def _go_on(self, user: User | None) -> None:
        if self._login and self.connected:
            with self.requests_lock:
                self._follow(self.server.gate.admission.decide_hashed(self._head(), self._login, user))
            self.received(b"")

    def _refuse(self, denied: Denied) -> None:
        self.request.error = denied
        self._must_linger = not self.request.completed and not self.request.expect_continue
        self._refused = True
        self.requests.append(self.request)
        self.request = None

    def _hand_over(self) -> None:
        if self._unread:  # what follows would need a look at its head first: this is the last request
            self.request.headers["CONNECTION"] = "close"
        self.sent_continue = False
        self.requests.append(self.request)
        self.request = None
        self.server.add_task(self)

    def seen_from_outside(self) -> dict[str, Any]:
        """What the app is told: who asks, from where, and by which address the hub was called."""
        seen: dict[str, Any] = {USER: self.user, "REMOTE_ADDR": self.address}
        scheme = _last(self.requests[0].headers.get("X_FORWARDED_PROTO", "")).lower()
        if self.server.gate.url:
            url = urlsplit(self.server.gate.url)
            seen.update({"wsgi.url_scheme": url.scheme, "HTTP_HOST": url.netloc})
        elif self.through_proxy and scheme in {"http", "https"}:
            seen["wsgi.url_scheme"] = scheme
        return seen

    # ── Who stays ────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self.request or self.requests or self.total_outbufs_len)

    @property
    def is_unknown(self) -> bool:
        """Whether nobody has logged in by it. A proxy's connection is anybody's, when it rests."""
        return self.user is None and (self.is_busy or not self.through_proxy)

    def waits_unknown(self, now: float) -> bool:
        """Whether nobody has logged in by it though it had the time: a second, and turns of the loop that read what came.

        Who waits for a password to be compared has said all that it could.
        """
        return self.is_unknown and self._login is None and self.since < now - 1 and self._turns > _FAIR_TURNS

    @property
    def promised(self) -> int:
        """The bytes of bodies that were admitted and are not answered yet."""
        return sum(getattr(request, "promised", 0) for request in (self.request, *self.requests))

    def keep_in_memory(self) -> None:
        """Have the body that follows received in memory, and not in a file."""
        self.request.body_rcv.buf.overflow = _IN_MEMORY_TOGETHER

    def is_overdue(self, now: float) -> bool:
        """Whether it keeps its place without using it; asked once a second."""
        at_work = self._login is not None or bool(self.requests and not self.total_outbufs_len)
        receives = bool(self.request and self.request.headers_finished and self.user)
        if not at_work and (receives or self.total_outbufs_len):
            self._active = now
            since, moved = self._window
            if now < since + _WINDOW:
                return False
            self._window = (now, self._moved)
            return self._moved < moved + _LEAST
        self._window = (now, self._moved)
        if at_work:
            self._active = now
        if self._lingers:
            patience = _LINGER
        elif self.through_proxy and not self.request:
            patience = IDLE_PROXY
        else:
            patience = IDLE if self.user else HEAD_WITHIN
        return now > self._active + patience

    def leave(self) -> None:
        """Close it at once."""
        self._must_linger = False
        if self.connected:
            self.handle_close()

    def handle_close(self) -> None:
        """Close it. Who was refused while sending a body would not get to read why: what still comes is thrown away."""
        if self._must_linger:
            self._must_linger = self.will_close = False
            self._active = self.server.gate.clock.monotonic()
            self._lingers = self._moved + (_LINGER_KNOWN if self.user else _LINGER_UNKNOWN)
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
                return
        if self.request:
            self.request.close()
        super().handle_close()


def _last(entries: str) -> str:
    """The last entry of a header, which the nearest proxy wrote."""
    return entries.rpartition(",")[2].strip()


class Server(TcpWSGIServer):  # type: ignore[misc]
    """A listening socket with its connections."""

    channel_class = Channel
    task_dispatcher: Threads

    def __init__(self, gate: Gate, *rest: Any, **more: Any) -> None:
        self.gate = gate
        self._leaving: set[Channel] = set()
        self._looks_at = 0.0
        super().__init__(*rest, **more)

    def handle_accept(self) -> None:
        """Accept what waits: a turn of the loop for each would take too long where there are two thousand."""
        for _ in range(_ACCEPT_AT_ONCE):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                break

    def readable(self) -> bool:
        """Whether to accept. The loop asks before each look at the sockets, where connections can be closed safely."""
        for channel in self._leaving:
            channel.leave()
        self._leaving.clear()
        if (excess := len(self.active_channels) - CONNECTIONS) > 0:
            self._make_room(excess)
        now = self.gate.clock.monotonic()
        if now >= self._looks_at:
            self._looks_at = now + 1
            self._look_after(now)
            self.gate.admission.refusals.tell()
        return bool(self.accepting)

    def admit(self, channel: Channel) -> Denied | None:
        """Look whether there is room for a request that may be sent; else the reason."""
        others = list(self.active_channels.values())
        if channel.promised > IN_MEMORY:
            self.task_dispatcher.note_picture()
            promised = sum(one.promised for one in others)
            if promised <= _IN_MEMORY_TOGETHER:
                channel.keep_in_memory()
            if promised > _ALL_BODIES:
                return Denied(503, "too many bodies are being received: try again\n", _BUSY)
            try:
                self.gate.room.require(promised * _COPIES)
            except NoRoom as error:
                if self.gate.room.is_worth_telling():
                    log.warning("%s", error)
                return Denied(507, f"{error}\n")
        if channel.user and channel.user.role == "trap":
            own = [
                one for one in others if one.user == channel.user and (one.is_busy or not one.through_proxy)
            ]
            self._leaving.update(own[:-PER_TRAP])
        return None

    def _make_room(self, excess: int) -> None:
        """Let the oldest go that nobody has logged in by, but for the newest; where there are none, one that rests."""
        here = list(self.active_channels.values())
        unknown = [one for one in here if one.is_unknown]
        resting = (one for one in here if not one.is_busy)
        for channel in islice(chain(unknown[:-_NEWCOMERS], resting, here), excess):
            channel.leave()

    def _look_after(self, now: float) -> None:
        """Close what is overdue, and of each network what is beyond its limit, but for the newest second of it."""
        waiting: dict[str, list[Channel]] = {}
        for channel in list(self.active_channels.values()):
            if channel.is_overdue(now):
                channel.leave()
            elif channel.waits_unknown(now):
                waiting.setdefault(network(channel.address), []).append(channel)
        for same in waiting.values():
            for channel in same[:-PER_NETWORK]:
                channel.leave()
