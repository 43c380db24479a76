"""The running daemon: start, watch over all parts, stop.

::

    main thread     signals, the clock guard, systemd's watchdog
    capture         one picture per interval, on the monotonic clock (`capture_thread`)
    ingest          new files; with none, correct times and make small copies (`ingest_thread`)
    scheduler       deliveries, the sweep, pruning, the catalog's check (`scheduler`, `jobs`)
    uplink          the connection to a broker, if there is one
    led             the LED, if there is one
    observer        watchdog's own threads: they only fill the inbox

A thread that dies ends the daemon with an error, except for the LED's; systemd starts it again. Nothing in flight is stored.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import NoReturn

from trapsync.catalog import facts
from trapsync.catalog.card_reserve import Reserve
from trapsync.catalog.runs import Ending
from trapsync.clock import Clock
from trapsync.destinations import Destination
from trapsync.errors import CatalogError, StorageError, TrapsyncError
from trapsync.hardware.device_id import device_id
from trapsync.hardware.led import Led, LedState
from trapsync.hardware.sensors import Sensors
from trapsync.remote.in_force import InForce, report
from trapsync.remote.remote_settings import Outcome, RemoteSettings
from trapsync.remote.uplink.calls import Callbacks, Uplink
from trapsync.runtime import catalog_check, config_check, hub_reports, signals, startup, systemd, trial
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.capture_thread import CaptureThread
from trapsync.runtime.context import Context
from trapsync.runtime.deployment_keeper import DeploymentKeeper
from trapsync.runtime.destination_context import check_all
from trapsync.runtime.examiners import Examiners
from trapsync.runtime.ingest_thread import IngestThread
from trapsync.runtime.jobs import ASK_AGAIN, CHECK, DELIVER, PRUNE, Jobs
from trapsync.runtime.liveness import Liveness
from trapsync.runtime.scheduler import Scheduler, Stopping
from trapsync.runtime.trial import Judge
from trapsync.settings.layers import Files
from trapsync.spool import observer
from trapsync.spool.inbox import Inbox
from trapsync.spool.spool_mark import SpoolWatch
from trapsync.status import snapshot
from trapsync.status.model import Status
from trapsync.trap import place, system_clock

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two looks of the main thread
_IDLE_TICK = 30.0  # and from a minute after the start on: each look costs energy
_UNTIL_IDLE = 60.0  # seconds
_CLOCK_STEP = 2.0  # seconds of difference between wall and monotonic that are a step, not drift
_WATCH_AGAIN = 60.0  # seconds until another try where the observer cannot start
_END = 9.0  # seconds for everything to end; then the process does, as it is


class Service:
    """The daemon. `run` returns when it is told to stop; `reload` says whether to start again."""

    def __init__(self, found: InForce, captures: int | None = None) -> None:
        """Check everything that can be wrong in the settings in force; SettingsError, and nothing was touched.

        `captures`: take no more than so many pictures, for trying things out.
        """
        self.settings = settings = found.settings
        self.reload = False
        self.captures_left = captures
        """How many pictures are still to be taken, once `run` has returned; None is no end of them."""
        self._found = found
        self._config = config_check.ConfigWatch(found.files)
        self._clock: Clock = system_clock(settings)
        self._device = device_id(settings.trap)
        self._place = place(settings)
        self._checked = check_all(settings, found.source)
        self._destinations: list[Destination] = []
        self._stop = threading.Event()
        self._liveness = Liveness(self._clock)
        self._overdue: list[str] = []
        self._inbox = Inbox(self._clock)
        self._sensors = Sensors(settings.sensors)
        self._reserve = Reserve(settings.storage.state)
        self._spool = SpoolWatch(settings.storage, self._spool_is_back)
        self._led = Led(settings.led, self._clock, LedState(self._clock, self._verdict), self._stop.wait)
        self._scheduler = Scheduler(len(self._checked) + 6, self._liveness, self._stop, self._tell)
        self._remote = RemoteSettings(found.files, self._clock)
        self._judge: Judge | None = None
        self._uplink = Uplink(
            settings.hub, self._device, self._remote.slots, self._callbacks(), self._clock, self._pause
        )
        self._threads: list[threading.Thread] = []

    # Start, run, stop

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP. Raises TrapsyncError when it cannot start or go on."""
        storage = self.settings.storage
        _reap()
        with ExitStack() as stack:
            startup.take_lock(stack, storage.state, self._clock, self._stop.wait)
            stack.enter_context(startup.doubting(storage.catalog))
            self._led.steady()
            self._catalog, self._destinations = startup.open_trap(
                *(self.settings, self._checked, self._device, self._clock, self._pause),
                has_spool=self._spool.is_right(),
                is_single_run=False,
            )
            intervals = {d.name: float(d.settings.every) for d in self._destinations}
            self._judge = Judge.of(self._found, self._remote, self._catalog, self._clock, intervals)
            self._make_parts()
            self._watcher = observer.Watcher(storage.spool, self._inbox.put, self._sweep_soon)
            ending: Ending = "failed"
            try:
                self._start()
                self._watch_over()
                ending = "settings" if self.reload else "stopped"
            except (CatalogError, StorageError):
                ending = "card"
                raise
            finally:
                self._end(ending)

    def _make_parts(self) -> None:
        self._examiners = Examiners(self.settings.ingest, self.settings.storage, tells_rights=True)
        context = self._context = Context(
            self.settings, self._device, self._clock, self._catalog, self._inbox, self._liveness, self._stop
        )
        keeper = self._deployment = DeploymentKeeper(context, self._found)
        keeper.begin()
        self._camera = CameraProcess(self.settings, self._device, self._clock, deployment=keeper.current_id)
        context.not_taken_in.remember(self._catalog.facts.read().not_taken_in)
        self._capture_thread = CaptureThread(
            context, self._place, self._camera, self._sensors, self.captures_left
        )
        # What a start finds is delivered at once: the first turns came before it was known.
        self._ingest_thread = IngestThread(context, self._examiners, when_through=self._is_through)
        self._jobs = Jobs(
            context, self._destinations, self._scheduler.go_on, self._pause, settle=keeper.settle
        )

    def _is_through(self) -> None:
        self._scheduler.run_now(DELIVER)
        self._deployment.settle()

    def _start(self) -> None:
        self._start_watcher()
        self._add_jobs()
        self._scheduler.start()
        self._start_thread("ingest", self._ingest_thread.run)
        if self.settings.camera.kind != "none":
            self._start_thread("capture", self._capture_thread.run)
        if self._uplink.broker:
            self._start_thread("uplink", self._stay_connected)
        if self._led.is_set:
            threading.Thread(target=self._led.run, name="led", daemon=True).start()
        systemd.notify("READY=1")
        config_check.note_running(self._found.files, self._clock, self._tell)
        log.info("watching over trap %s: spool %s", self._device, self.settings.storage.spool)

    def _start_watcher(self) -> None:
        """Start the observer. It only makes things quicker: without it the sweep still finds every file."""
        self._watch_again = self._clock.monotonic() + _WATCH_AGAIN
        try:
            self._watcher.start()
        except StorageError as error:
            log.warning("%s; new files are found by the sweep only", error)

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _on_signal(self, number: int) -> None:
        """End the daemon on SIGTERM and SIGINT, begin again on SIGHUP, and deliver now on SIGUSR1."""
        if number == signal.SIGUSR1:
            self._deliver_now()
            return
        if number == signal.SIGHUP:
            try:
                config_check.check(Files(self._found.source))
            except TrapsyncError as error:
                log.error("the old settings stay in force: %s", error)
                return
        self.reload = number == signal.SIGHUP
        self._stop.set()
        if self._judge:
            self._judge.interrupted()

    def _begin_again(self) -> None:
        """End the daemon to begin again; from any thread."""
        self.reload = True
        self._stop.set()
        signals.wake()

    def _deliver_now(self) -> None:
        self._led.wake()
        self._end_waits()
        self._uplink.call_now()
        self._scheduler.run_now(DELIVER)

    def _end_waits(self) -> None:
        try:
            self._catalog.deliveries.end_waits()
        except CatalogError as error:
            log.error("%s", error)

    def _watch_over(self) -> None:
        """Run the main thread: feed the watchdog while every part reports, and guard the schedule."""
        offset = self._clock.wall() - self._clock.monotonic()
        longest = (systemd.watchdog_seconds() or 4 * _IDLE_TICK) / 4
        idle_at = self._clock.monotonic() + _UNTIL_IDLE
        while not self._stop.is_set():
            is_idle = self._clock.monotonic() >= idle_at and not self._judge
            if number := signals.wait(min(longest, _IDLE_TICK if is_idle else _TICK)):
                self._on_signal(number)
            offset = self._straighten(offset)
            if self._reserve.tend():
                log.error("the card is full: the catalog lives on its reserve until there is room again")
            self._check_parts()

    def _straighten(self, offset: float) -> float:
        """Run all jobs after a step of the wall clock, by which APScheduler goes: it would stop, or never rest."""
        now = self._clock.wall() - self._clock.monotonic()
        if abs(now - offset) >= _CLOCK_STEP:
            log.warning("the clock was stepped by %+.0f s", now - offset)
            self._scheduler.run_now("")
        return now  # not the old one: drift of weeks would add up to a step

    def _look_at_catalog(self) -> None:
        if self._catalog.connection.damage:  # the next start puts it aside and rebuilds it
            raise self._catalog.connection.damage
        if self._catalog.connection.has_news_of_doubt():
            self._scheduler.run_now(CHECK)
        if not self._catalog.connection.is_there():
            raise CatalogError(
                f"{self.settings.storage.catalog}: somebody took the catalog away or replaced it under the "
                f"running daemon; the next start rebuilds it from the spool, or takes the other one"
            )

    def _check_parts(self) -> None:
        self._look_at_catalog()
        for thread in self._threads:
            if not thread.is_alive() and not self._stop.is_set():
                raise RuntimeError(f"the {thread.name} thread died; see the log above")
        if not self._watcher.is_alive() and self._clock.monotonic() >= self._watch_again:
            log.warning("the observer of the spool died; a new one takes over, the sweep finds the rest")
            self._start_watcher()
            self._sweep_soon()
        self._spool.is_right()  # if not, it says so
        overdue = self._liveness.overdue()
        if not overdue:
            systemd.notify("WATCHDOG=1")
        elif overdue != self._overdue:
            log.error("no report from: %s", ", ".join(overdue))
        self._overdue = overdue
        if self._judge and not self._stop.is_set() and (end := self._judge.judge(overdue)):
            self._judge = None
            if end == "rolled back":
                self._begin_again()
            else:
                self._deployment.commit()

    def _end(self, ending: Ending) -> None:
        """End within ten seconds, whatever hangs; uploads in flight stay pending."""
        last = threading.Timer(_END, os._exit, (1,))
        last.daemon = True
        last.start()
        systemd.notify("RELOADING=1" if self.reload else "STOPPING=1")
        self._stop.set()
        self._led.steady()
        self._inbox.close()
        self._watcher.stop()
        self._scheduler.end()
        for thread in self._threads:
            thread.join(3.0 if thread.name == "capture" else 0.5)  # a picture under way may be finished
        self._camera.close()
        self._sensors.close()
        self._examiners.close()
        for thread in self._threads:
            thread.join(0.5)
        self.captures_left = self._capture_thread.left
        self._uplink.close()
        for destination in self._destinations:
            destination.close()
        with suppress(CatalogError):  # then it counts as a power cut
            self._catalog.runs.end(ending)
        self._catalog.close()
        self._context.live.close()
        self._led.close()
        last.cancel()
        log.info("stopped")

    def _tell(self, fact: facts.Name, value: object) -> None:
        self._context.tell(fact, value)

    def _pause(self, seconds: float) -> None:
        """Wait, for the bandwidth limit for example; raises Stopping at the end."""
        if self._stop.wait(seconds):
            raise Stopping

    # The hub

    def _callbacks(self) -> Callbacks:
        def status() -> Status:
            known = report(self._found)
            config = self._config.problem()
            return snapshot(self.settings, self._clock, self._device, known, config=config, with_hub=False)

        return Callbacks(self._receive, status, self._tell)

    def _receive(self, data: bytes) -> Outcome:
        """Take a document from the hub, in any thread. Accepted settings begin with a start."""
        outcome = trial.receive(self._remote, data, self.settings, self._catalog, self._clock)
        if outcome.is_accepted and outcome.kind == "resend":
            self._scheduler.run_now(ASK_AGAIN)
        elif outcome.is_accepted:
            self._begin_again()
        return outcome

    def _verdict(self) -> str:
        config = self._config.problem()
        return snapshot(self.settings, self._clock, self._device, config=config, with_night=False).verdict

    def _stay_connected(self) -> None:
        """Keep the connection to the broker, until the end."""
        assert self._uplink.broker
        with suppress(Stopping):
            self._uplink.broker.run(self._pause)

    # Jobs

    def _add_jobs(self) -> None:
        # While the spool is another one than last time there is nothing to do in it.
        add_for_spool = partial(self._scheduler.add, when=self._spool.is_right)
        add_for_spool("sweep", self.settings.ingest.rescan_every, self._jobs.sweep)
        self._scheduler.add(CHECK, catalog_check.EVERY, self._check_catalog)
        if self.settings.prune.enabled:
            add_for_spool(PRUNE, 60.0, self._jobs.prune)
        self._scheduler.add(ASK_AGAIN, 300.0, self._ask_again)
        if self.settings.hub.is_set:
            reporter = hub_reports.reporter(self._device, self._catalog, self.settings, self._clock)
            self._uplink.recall(self._catalog.facts.read(), reporter)
            self._scheduler.add("uplink", self._uplink.tick_every, self._uplink.tick)
        for destination in self._destinations:
            work = partial(self._jobs.deliver, destination)
            add_for_spool(f"{DELIVER}{destination.name}", destination.settings.every, work)

    def _spool_is_back(self) -> None:
        """Deliver at once what was to be sent meanwhile and waits for its file, which is there again."""
        self._end_waits()
        self._scheduler.run_now(DELIVER)
        self._sweep_soon()

    def _sweep_soon(self) -> None:
        self._scheduler.run_now("sweep")

    def _ask_again(self) -> None:
        if self._jobs.ask_again(self._remote):
            self._scheduler.run_now(DELIVER)

    def _check_catalog(self) -> None:
        if self._catalog.connection.is_check_due():
            self._pause(catalog_check.AFTER_START)
            self._jobs.check_catalog()


def _reap() -> None:
    """Reap the children that are left from before a reload, in this same process."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def restart(arguments: list[str]) -> NoReturn:
    """Begin again as the same process, with the settings read anew."""
    isolated = ["-I"] if sys.flags.isolated else []  # as scripts/install starts it
    os.execv(sys.executable, [sys.executable, *isolated, "-m", "trapsync", *arguments])  # noqa: S606


def leave(code: int = 0) -> NoReturn:
    """End the process now. An upload in flight would hold up the interpreter; it stays pending."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
