"""One turn of the uplink: ask the hub for remote settings, send heartbeat and reports, and remember how that went.

Whatever is received goes to one callable as it is; what it means is decided elsewhere (`remote_settings`). That no hub
is reached is no error of the trap: it is remembered, shown, and tried again.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trapsync.catalog.facts import Facts, Link, Name
from trapsync.clock import Clock
from trapsync.errors import TrapsyncError, Unauthorised, Unreachable
from trapsync.remote import heartbeat
from trapsync.remote.uplink.http import HttpLink, Receive
from trapsync.remote.uplink.mqtt import MqttLink
from trapsync.remote.uplink.pacing import CallTimer
from trapsync.remote.uplink.reports import Reporter
from trapsync.settings.schema import Hub as HubSettings
from trapsync.status.model import Status

log = logging.getLogger(__name__)

_LOOK = 60.0  # seconds between two looks at the verdict
_DAY, _STEP = 86400.0, 3600.0  # seconds, after which documents come again, and by which the clock was stepped
_TICK = 10.0  # seconds between two looks at the clock


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the uplink calls in the rest of the trap, which it does not know otherwise."""

    receive: Receive  # takes a document; if it raises, the document comes again
    status: Callable[[], Status]  # `status.snapshot`, without its warning of a silent link
    remember: Callable[
        [Name, object], None
    ]  # keeps a fact: how it went for `status`, what was told for `recall`


class Uplink:
    """The links of one trap to its hub, as its settings have them."""

    def __init__(
        self,
        settings: HubSettings,
        device: str,
        slots: Sequence[str],
        callbacks: Callbacks,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        """Connects nothing yet. `slots`: see `net.slots`. SettingsError if a file or a package is missing."""
        self._every = settings.every
        self._callbacks = callbacks
        self._clock = clock
        self._lock = threading.Lock()
        self._ways: dict[str, Link] = {}
        self._told: list[Any] | None = None
        self._look_at = clock.monotonic()
        self._reporter: Reporter | None = None
        self._web = self._broker = None
        self._forget_at, self._stood = clock.monotonic() + _DAY, self._stands()
        if settings.url or settings.tell_url:
            self._web = HttpLink(settings, device, slots, clock, sleep)
            self._tells = bool(settings.tell_url)
            self._visits = CallTimer(settings.every, clock)
        if settings.mqtt.host:
            self._broker = MqttLink(settings.mqtt, device, slots, callbacks.receive, self._note_broker)
            self._beats = CallTimer(settings.every, clock)

    @property
    def broker(self) -> MqttLink | None:
        """The link that needs a thread of its own, if there is one."""
        return self._broker

    @property
    def tick_every(self) -> float:
        """Seconds between two ticks."""
        return min(_TICK, self._every)

    def recall(self, known: Facts, reporter: Reporter | None = None) -> None:
        """Continue from what an earlier run remembered: settings on trial begin with a start, which is news.

        `reporter` has its turn after each heartbeat that a server took.
        """
        self._ways = dict(known.hub)
        self._told = known.told
        self._reporter = reporter

    def close(self) -> None:
        """Close the connections."""
        if self._web:
            self._web.close()

    def tick(self) -> None:
        """Do what is due. Raises nothing for what the network or the hub does."""
        self._look()
        self._forget()
        if self._web and self._visits.is_due():
            self._visit(self._web)
        if self._broker and self._beats.is_due():
            self._broker.offer(self._compose())
            self._beats.succeeded()

    def call_now(self) -> None:
        """Make the next turn due at once."""
        for timer in self._timers():
            timer.call_now()
        if self._reporter:
            self._reporter.look_now()

    def _look(self) -> None:
        """Look once a minute whether anything should not wait for the next turn."""
        if self._told is None or self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + min(_LOOK, self._every)
        if _news(self._callbacks.status()) != self._told:
            for timer in self._timers():
                timer.hasten()

    def _forget(self) -> None:
        """Have documents come again once a day, and when the clock was set: what was refused as expired may not be so."""
        now, stands = self._clock.monotonic(), self._stands()
        if now < self._forget_at and abs(stands - self._stood) < _STEP:
            return
        self._forget_at, self._stood = now + _DAY, stands
        for link in (self._web, self._broker):
            if link:
                link.forget()

    def _stands(self) -> float:
        """Where the wall clock stands, beside the one that is never stepped."""
        return self._clock.wall() - self._clock.monotonic()

    def _timers(self) -> list[CallTimer]:
        return [*([self._visits] if self._web else []), *([self._beats] if self._broker else [])]

    def _visit(self, web: HttpLink) -> None:
        """Ask for documents, send the heartbeat and, where that was taken, reports."""
        try:
            if self._call(web) and self._reporter:
                self._reporter.send(web.report)
        finally:
            web.close()

    def _call(self, web: HttpLink) -> bool:
        """Ask for documents, then send the heartbeat, so that it reports what was just received; whether it was taken.

        An answer that is no document, such as a captive portal's, does not keep the heartbeat back.
        """
        trouble: TrapsyncError | None = None
        odd: str | None = None
        told = False
        try:
            odd, trouble = self._pull(web)
            if self._tells:
                web.tell(self._compose())
                told = True
        except TrapsyncError as error:
            trouble = error
        finally:
            if told or (trouble is None and not self._tells):
                self._visits.succeeded()
            else:
                self._visits.failed(getattr(trouble, "wait", 0.0))
        is_denied = isinstance(trouble, Unauthorised)
        self._note("web", str(trouble) if trouble else odd, reached=told or trouble is None, denied=is_denied)
        return told

    def _pull(self, web: HttpLink) -> tuple[str | None, Unreachable | None]:
        """What is wrong with one document, and why none could be asked for."""
        try:
            return web.pull(self._callbacks.receive), None
        except Unreachable as error:
            return None, error

    def _compose(self) -> bytes:
        status = self._callbacks.status()
        self._told = _news(status)
        return heartbeat.compose(status, self._every)

    def _note_broker(self, trouble: str | None) -> None:
        self._note("mqtt", trouble, reached=trouble is None)

    def _note(self, way: str, trouble: str | None, *, reached: bool, denied: bool = False) -> None:
        """Remember the state of a link: when it last worked, since when it does not and why. Each change is logged once."""
        now = self._clock.wall()
        with self._lock:
            before = self._ways.get(way, Link())
            is_same = before.error is not None and before.works == reached
            since = (before.since if is_same else now) if trouble else None
            self._ways[way] = Link(now if reached else before.reached, since, trouble, denied)
            if (before.error is None) != (trouble is None):
                log.info("%s", f"hub: {trouble}" if trouble else f"the hub is reached again, by {way}")
            self._callbacks.remember("hub", dict(self._ways))
            self._callbacks.remember("told", self._told)


def _news(status: Status) -> list[Any]:
    """The facts whose change is reported early."""
    report = status.remote
    if not report:
        return [status.verdict, None, None, None]
    return [status.verdict, report.state, report.last_received_hash, report.effective_hash]
