"""A single run (`trapsync once`): take one picture, deliver what is due, report to the hub, and end.

For a trap that a timer powers up for each picture and switches off again (Sticky Pi's own does). The steps are those of
the daemon, one after another, in a thread of their own; the main thread ends them at the deadline. What is pending by
then stays pending, as after a power cut.
"""

import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial

from trapsync.catalog import Catalog, facts
from trapsync.catalog.card_reserve import Reserve
from trapsync.clock import Clock
from trapsync.destinations import Destination
from trapsync.hardware.device_id import device_id
from trapsync.hardware.led import Led, LedState
from trapsync.hardware.sensors import Sensors
from trapsync.remote.in_force import InForce, report
from trapsync.remote.remote_settings import Outcome, RemoteSettings
from trapsync.remote.uplink.calls import Callbacks, Uplink
from trapsync.runtime import config_check, hub_reports, signals, startup, systemd, trial
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.capture_thread import CaptureThread
from trapsync.runtime.context import Context
from trapsync.runtime.deployment_keeper import DeploymentKeeper
from trapsync.runtime.destination_context import check_all
from trapsync.runtime.examiners import Examiners
from trapsync.runtime.ingest_thread import IngestThread
from trapsync.runtime.jobs import Jobs
from trapsync.runtime.liveness import Liveness
from trapsync.runtime.scheduler import Stopping, run_job
from trapsync.runtime.trial import Judge
from trapsync.spool import spool_mark
from trapsync.spool.inbox import Inbox
from trapsync.spool.spool_mark import SpoolWatch
from trapsync.status import snapshot
from trapsync.status.model import Status
from trapsync.trap import place, system_clock

log = logging.getLogger(__name__)

DELIVERED, PENDING, NO_PICTURE, NOT_RUN = range(4)
_TRIES, _PAUSE = 3, 5.0  # of a camera that fails, and seconds between them
_TICK = 1.0  # seconds between two looks of the main thread
_FOR_THE_HUB = (
    20.0  # seconds before the deadline at which the hub is told, though uploads are still under way
)
_SMALL_COPIES = 8  # images whose small copies are made before the delivery; others during it
_SHORT_WAIT, _WAITS = 30.0, 2  # seconds of a back-off that are waited for, and how often for each destination
_FOR_A_BROKER = 10.0  # seconds for a heartbeat to go out
_FOR_DOCUMENTS = 1.0  # and then for settings that the broker keeps for this trap
_POLL = 0.1  # seconds between two looks whether it did
_TO_END = 2.0  # seconds for the steps to end
_END = 9.0  # seconds for everything to end; then the process does, as it is


class SingleRun:
    """One single run. `run` returns its outcome: DELIVERED, PENDING or NO_PICTURE."""

    def __init__(self, found: InForce, deadline: float) -> None:
        """Check the settings; SettingsError, and nothing was touched. `deadline` is in seconds from now."""
        self._settings = settings = found.settings
        self._found = found
        self._config = config_check.ConfigWatch(found.files)
        self._clock: Clock = system_clock(settings)
        self._began = self._clock.monotonic()
        self._over_at = self._began + deadline
        self._device = device_id(settings.trap)
        self._place = place(settings)
        self._checked = check_all(settings, found.source)
        self._destinations: list[Destination] = []
        self._stop = threading.Event()
        self._reserve = Reserve(settings.storage.state)
        self._spool = SpoolWatch(settings.storage, lambda: None)
        self._led = Led(settings.led, self._clock, LedState(self._clock, self._verdict), self._stop.wait)
        # Settings that come during it, or come back, are for the next one: nothing begins again.
        self._remote = RemoteSettings(found.files, self._clock)
        callbacks = Callbacks(self._receive, self._status, self._tell)
        self._uplink = Uplink(
            settings.hub, self._device, self._remote.slots, callbacks, self._clock, self._pause
        )
        self._has_picture = self._took_none = settings.camera.kind == "none"  # then none is needed
        self._failure: BaseException | None = None
        self._is_through = False
        self._outcome = NOT_RUN
        self._turns: dict[str, Future[None]] = {}  # of deliveries, by destination
        self._again_at: dict[str, float] = {}  # the end of a short wait there, by the monotonic clock
        self._waits: Counter[str] = Counter()

    def run(self) -> int:
        """Run until all is done, or the deadline, or SIGTERM. Raises TrapsyncError when it cannot start or go on."""
        with ExitStack() as stack:
            startup.take_lock(stack, self._settings.storage.state, self._clock, self._stop.wait)
            stack.enter_context(startup.doubting(self._settings.storage.catalog))
            self._led.steady()
            self._open()
            steps = self._start("steps", self._take_steps)
            if self._led.is_set:
                self._start("led", self._led.run)
            try:
                self._watch()
                self._outcome = self._judged()
                return self._outcome
            finally:
                self._end(steps)

    def _open(self) -> None:
        self._catalog, self._destinations = startup.open_trap(
            *(self._settings, self._checked, self._device, self._clock, self._pause),
            has_spool=self._spool.is_right(),
            is_single_run=True,
        )
        self._judge = Judge.of(self._found, self._remote, self._catalog, self._clock)
        known = self._catalog.facts.read()
        self._uplink.recall(
            known, hub_reports.reporter(self._device, self._catalog, self._settings, self._clock)
        )
        self._context = Context(
            *(self._settings, self._device, self._clock, self._catalog, Inbox(self._clock)),
            *(Liveness(self._clock), self._stop),
        )
        self._context.not_taken_in.remember(known.not_taken_in)
        self._sensors = Sensors(self._settings.sensors)
        self._deployment = DeploymentKeeper(self._context, self._found)
        self._deployment.begin()
        self._camera = CameraProcess(
            self._settings, self._device, self._clock, deployment=self._deployment.current_id
        )
        self._examiners = Examiners(self._settings.ingest, self._settings.storage)
        self._capture_thread = CaptureThread(self._context, self._place, self._camera, self._sensors)
        self._ingest_thread = IngestThread(self._context, self._examiners)
        self._jobs = Jobs(self._context, self._destinations, self._go_on, self._pause)
        config_check.note_running(self._found.files, self._clock, self._tell)
        self._due = due_destinations(self._catalog, self._destinations, self._clock)
        self._open_to_us = set(self._due)  # those where no bug and no card ended a turn
        self._pool = ThreadPoolExecutor(max(1, len(self._due)), thread_name_prefix="deliver")

    # The main thread

    def _watch(self) -> None:
        """Wait for the end of the steps; settings on trial are judged by how it went until then."""
        systemd.notify("READY=1")
        while not self._is_through:
            left = self._over_at - self._clock.monotonic()
            if left <= 0:
                log.warning("the time for it is over; what is left is done the next time")
                break
            if signals.wait(min(left, _TICK)) in signals.END:
                if self._judge:
                    self._judge.interrupted()
                return
            if self._catalog.connection.damage:  # the next start puts it aside and rebuilds it
                raise self._catalog.connection.damage
            self._reserve.tend()
            systemd.notify("WATCHDOG=1")
        if self._failure:
            raise self._failure
        if self._judge:
            self._judge.judge_single_run((), frozenset(self._due))

    def _judged(self) -> int:
        if not self._has_picture:
            return NO_PICTURE
        is_catalogued = self._took_none or self._catalog.images.pictures_since(self._began)[0] > 0
        is_all = is_catalogued and self._spool.is_right() and not self._catalog.counts.ledger().pending
        return DELIVERED if is_all else PENDING

    def _end(self, steps: threading.Thread) -> None:
        """End within ten seconds, whatever hangs; uploads under way stay pending."""
        last = threading.Timer(_END, os._exit, (self._outcome,))
        last.daemon = True
        last.start()
        systemd.notify("STOPPING=1")
        self._stop.set()
        self._context.inbox.close()
        self._camera.close()
        self._sensors.close()
        self._examiners.close()
        steps.join(_TO_END)
        self._uplink.close()
        for destination in self._destinations:
            destination.close()
        self._catalog.close()
        self._context.live.close()
        self._led.close()
        last.cancel()

    # The steps

    def _take_steps(self) -> None:
        try:
            if self._uplink.broker:  # it takes a while until it is connected
                self._start(
                    "uplink", partial(self._try, "uplink", partial(self._uplink.broker.run, self._pause))
                )
            if problem := spool_mark.problem(self._settings.storage):
                self._catalog.runs.note_failure("card", problem)
            self._try_in_spool("capture", self._capture)
            self._try_in_spool("sweep", self._jobs.sweep)
            # With the hub still to be told, uploads may go on meanwhile.
            half = (self._clock.monotonic() + self._over_at) / 2
            until = max(half, self._over_at - _FOR_THE_HUB)
            self._try_in_spool("deliver", partial(self._ingest_and_deliver, until))
            self._try("deployment", self._settle)
            self._try("uplink", self._report)
            self._try_in_spool("deliver", partial(self._ingest_and_deliver, self._over_at + _TICK))
            self._try_in_spool("ask again", self._ask_again)
            self._try_in_spool("prune", self._prune)
            self._try("check catalog", self._check_catalog)
        except Stopping:
            pass
        except BaseException as error:
            self._failure = error
        self._is_through = True  # and not when the thread has ended, which is a moment after the signal
        signals.wake()

    def _capture(self) -> None:
        if not self._has_picture:
            self._took_none = not self._capture_thread.is_time()
            self._has_picture = self._took_none or self._capture_thread.capture_one(_TRIES, _PAUSE)

    def _ingest_and_deliver(self, until: float) -> None:
        """Ingest what is in the spool, and deliver meanwhile to all destinations at the same time.

        One that stalls costs the others nothing. It ends when nothing is left that can be done soon, or at `until`.
        """
        inbox, copies = self._context.inbox, 0
        while self._clock.monotonic() < until:
            self._pause(0.0)
            was_busy = self._busy()
            has_worked = self._ingest_thread.step()
            copies += has_worked
            # Small copies of the newest images come first, since some destinations send those; but nothing waits for a
            # long backlog, or for a file that may still be written to.
            if not has_worked or not inbox.is_empty() or copies >= _SMALL_COPIES:
                self._begin_turns()
            if has_worked:
                continue
            soon = min(list(self._again_at.values()), default=math.inf)
            if busy := self._busy():
                wait(busy, _TICK, FIRST_COMPLETED)
            elif not inbox.is_empty():
                inbox.wait(_TICK)
            elif soon < until:
                self._pause(max(0.0, soon - self._clock.monotonic()))
            elif not was_busy:  # else another destination may have got something to send meanwhile
                break
        self._ingest_thread.tell_not_taken_in()

    def _settle(self) -> None:
        if self._context.inbox.is_empty():
            self._deployment.settle()

    def _busy(self) -> list[Future[None]]:
        return [turn for turn in self._turns.values() if not turn.done()]

    def _begin_turns(self) -> None:
        """Begin a turn of each destination that has something to send. One may get that only from another."""
        for one in self._destinations:
            name, turn = one.name, self._turns.get(one.name)
            if name not in self._open_to_us or (turn and not turn.done()):
                continue
            if self._again_at.get(name, math.inf) <= self._clock.monotonic():
                del self._again_at[name]
            if self._has_something_for(one):
                self._turns[name] = self._pool.submit(self._try, name, partial(self._deliver, one))

    def _has_something_for(self, destination: Destination) -> bool:
        name, settings = destination.name, destination.settings
        return self._catalog.deliveries.may_go(name) and bool(
            self._catalog.deliveries.due(name, settings.order, 1, after=settings.depends_on)
        )

    def _deliver(self, destination: Destination) -> None:
        """Deliver what is due there; where it is to be tried again in a moment, that is waited for."""
        name = destination.name
        self._open_to_us.discard(name)  # what a bug or the card ends is not begun again
        left = self._jobs.deliver(destination)
        self._open_to_us.add(name)
        if left is not None and left <= _SHORT_WAIT and self._waits[name] < _WAITS:
            self._waits[name] += 1
            self._again_at[name] = self._clock.monotonic() + left

    def _report(self) -> None:
        """Ask the hub for remote settings, and send the heartbeat."""
        self._uplink.call_now()
        self._uplink.tick()
        if broker := self._uplink.broker:
            until = self._clock.monotonic() + _FOR_A_BROKER
            while not broker.is_through and self._clock.monotonic() < until:
                self._pause(_POLL)
            self._pause(_FOR_DOCUMENTS)

    def _ask_again(self) -> None:
        self._jobs.ask_again(self._remote)  # what turns out to be missing is delivered the next time

    def _prune(self) -> None:
        if self._settings.prune.enabled:
            self._jobs.prune()

    # Helpers of the steps

    def _try(self, name: str, work: Callable[[], object]) -> None:
        run_job(name, work, self._stop, self._tell)

    def _try_in_spool(self, name: str, work: Callable[[], object]) -> None:
        if self._spool.is_right():
            self._try(name, work)

    def _start(self, name: str, target: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _tell(self, fact: facts.Name, value: object) -> None:
        self._context.tell(fact, value)

    def _check_catalog(self) -> None:
        if self._catalog.connection.is_check_due():
            self._jobs.check_catalog()

    def _go_on(self, _job: str = "", _silence: float = 0.0) -> None:
        self._pause(0.0)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopping

    def _receive(self, data: bytes) -> Outcome:
        """Take a document from the hub; settings that come during a single run are for the next one."""
        return trial.receive(self._remote, data, self._settings, self._catalog, self._clock)

    def _status(self) -> Status:
        known = report(self._found)
        config = self._config.problem()
        return snapshot(self._settings, self._clock, self._device, known, config=config, with_hub=False)

    def _verdict(self) -> str:
        config = self._config.problem()
        return snapshot(self._settings, self._clock, self._device, config=config, with_night=False).verdict


def due_destinations(catalog: Catalog, destinations: list[Destination], clock: Clock) -> set[str]:
    """Return the names of those whose `every` has passed since they were last tried.

    By the wall clock, for each boot is short. A clock that went back is no reason to wait for it to catch up.
    """
    tried = {
        row["name"]: max(row["delivered_at"] or 0.0, row["error_at"] or 0.0)
        for row in catalog.counts.destinations()
    }
    return {
        one.name
        for one in destinations
        if not 0 <= clock.wall() - tried.get(one.name, 0.0) < 0.9 * one.settings.every
    }
