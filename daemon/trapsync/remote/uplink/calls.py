"""One turn of the uplink: ask the hub for remote settings, send the heartbeat, and remember how that went.

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
from trapsync.errors import TrapsyncError, Unreachable
from trapsync.remote import heartbeat
from trapsync.remote.uplink.http import Hand, Web
from trapsync.remote.uplink.mqtt import Broker
from trapsync.remote.uplink.pacing import Rhythm
from trapsync.settings.schema import Home as HomeSettings
from trapsync.status.model import Status

log = logging.getLogger(__name__)

_LOOK = 60.0  # seconds between two looks at the verdict
_TICK = 10.0  # seconds between two looks at the clock


@dataclass(frozen=True, slots=True)
class Ties:
    """What ties it to the rest of the trap: three callables, so that it needs to know none of it."""

    hand: Hand  # takes a received document; what it raises brings the document again
    snapshot: Callable[[], Status]  # `status.snapshot`, without its warning of a silent link
    remember: Callable[
        [Name, object], None
    ]  # keeps a fact: how it went for `status`, what was told for `recall`


class Home:
    """The ways home of one trap, as its settings have them."""

    def __init__(
        self,
        settings: HomeSettings,
        device: str,
        groups: Sequence[str],
        ties: Ties,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        """Connects nothing yet. SettingsError if a file or a package is missing."""
        self._every = settings.every
        self._ties = ties
        self._clock = clock
        self._lock = threading.Lock()
        self._ways: dict[str, Link] = {}
        self._told: list[Any] | None = None
        self._look_at = clock.monotonic()
        self._web = self._broker = None
        if settings.url or settings.tell_url:
            self._web = Web(settings, device, slots(device, groups), clock, sleep)
            self._tells = bool(settings.tell_url)
            self._visits = Rhythm(settings.every, clock)
        if settings.mqtt.host:
            self._broker = Broker(settings.mqtt, device, groups, ties.hand, self._note_broker)
            self._beats = Rhythm(settings.every, clock)

    @property
    def broker(self) -> Broker | None:
        """The connection that wants a thread of its own, if there is one."""
        return self._broker

    @property
    def tick_every(self) -> float:
        """Seconds between two ticks."""
        return min(_TICK, self._every)

    def recall(self, known: Facts) -> None:
        """Go on from what an earlier run remembered: settings on trial begin with a start, which is news."""
        self._ways = dict(known.home)
        self._told = known.told

    def close(self) -> None:
        """Let connections go."""
        if self._web:
            self._web.close()

    def tick(self) -> None:
        """Do what is due. Raises nothing that is the network's or the other side's fault."""
        self._look()
        if self._web and self._visits.is_due():
            self._visit(self._web)
        if self._broker and self._beats.is_due():
            self._broker.offer(self._compose())
            self._beats.succeeded()

    def call_now(self) -> None:
        """Somebody wants the next turn at once."""
        for rhythm in self._rhythms():
            rhythm.call_now()

    def _look(self) -> None:
        """Once a minute: is there anything that is not to wait for the next turn?"""
        if self._told is None or self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + min(_LOOK, self._every)
        if _news(self._ties.snapshot()) != self._told:
            for rhythm in self._rhythms():
                rhythm.hasten()

    def _rhythms(self) -> list[Rhythm]:
        return [*([self._visits] if self._web else []), *([self._beats] if self._broker else [])]

    def _visit(self, web: Web) -> None:
        """Ask for documents, then tell how we are, so that what was just received is told at once.

        An answer that is no document, a captive portal's or a hub's mistake, does not keep us from telling.
        """
        trouble: TrapsyncError | None = None
        told = False
        try:
            trouble = self._pull(web)
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
            web.close()
        self._note("web", str(trouble) if trouble else None, reached=told or trouble is None)

    def _pull(self, web: Web) -> Unreachable | None:
        try:
            web.pull(self._ties.hand)
        except Unreachable as error:
            return error
        return None

    def _compose(self) -> bytes:
        status = self._ties.snapshot()
        self._told = _news(status)
        return heartbeat.compose(status, self._every)

    def _note_broker(self, trouble: str | None) -> None:
        self._note("mqtt", trouble, reached=trouble is None)

    def _note(self, way: str, trouble: str | None, *, reached: bool) -> None:
        """Remember how a way home is: when it last worked, since when it does not and why. Said once each."""
        now = self._clock.wall()
        with self._lock:
            before = self._ways.get(way, Link())
            since = (before.since or now) if trouble else None
            self._ways[way] = Link(now if reached else before.reached, since, trouble)
            if (before.error is None) != (trouble is None):
                log.info("%s", f"home: {trouble}" if trouble else f"home is reached again, by {way}")
            self._ties.remember("home", dict(self._ways))
            self._ties.remember("told", self._told)


def _news(status: Status) -> list[Any]:
    """What is worth a call of its own when it changes."""
    report = status.pushed
    if not report:
        return [status.verdict, None, None, None]
    return [status.verdict, report.state, report.last_received_hash, report.effective_hash]


def slots(device: str, groups: Sequence[str]) -> list[str]:
    """The names under which documents for this trap lie on a web server, the most particular first."""
    places = [f"device-{device}", *(f"group-{group}" for group in groups), "all"]
    return [f"{place}.{kind}" for place in places for kind in ("settings", "resend")]
