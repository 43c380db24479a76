"""The scheduler: jobs that are repeated, each in a thread of APScheduler's."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerThreads
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from trapsync.catalog.facts import Name
from trapsync.errors import CatalogError, StorageError
from trapsync.runtime.liveness import Liveness

log = logging.getLogger(__name__)
# A job that still runs when its time comes again is nothing to log: a backlog may take a week.
logging.getLogger("apscheduler").setLevel(logging.ERROR)

_SOON = 0.1  # seconds after the start until every job runs for the first time
_TIMEOUT = 1800.0  # seconds within which a job must report again
_PULSE = 30.0  # seconds between two reports of the scheduler
_SOONEST = 1.0  # second until a job runs again at its own wish


class Stopping(BaseException):
    """The daemon ends. Raised inside a job to leave it, for example between two images of a delivery."""


def run_job(
    name: str, work: Callable[[], object], stop: threading.Event, tell: Callable[[Name, object], None]
) -> str | None:
    """Run a job once; return why the card or the catalog refused it, if so. An error ends it; a bug is logged and noted."""
    try:
        work()
    except Stopping:
        pass
    except (CatalogError, StorageError) as error:
        log.error("%s", error)
        return str(error)
    except Exception:
        if not stop.is_set():
            log.exception("%s failed", name)
            tell("bug", f"{name} failed; see the log")
    return None


class Scheduler:
    """Jobs, each after its own interval and never twice at the same time. Each reports to `liveness`.

    APScheduler goes by the wall clock. That is why there is a trigger of our own, a pulse, and a guard in the service
    that moves the jobs after a step of the clock.
    """

    def __init__(
        self, threads: int, liveness: Liveness, stop: threading.Event, tell: Callable[[Name, object], None]
    ) -> None:
        """`threads` is how many jobs can run at the same time. `tell` notes a bug."""
        self._liveness = liveness
        self._stop = stop
        self._tell = tell
        self._refused: dict[str, str] = {}
        self._lock = threading.Lock()
        self._background = BackgroundScheduler(
            timezone="UTC",
            executors={"default": SchedulerThreads(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Start the jobs that were added, and a job that reports for the scheduler itself."""
        self._add_pulse()
        self._background.start()

    def add(
        self,
        name: str,
        every: float,
        work: Callable[[], float | None],
        when: Callable[[], bool] = lambda: True,
    ) -> None:
        """Add a job for every so many seconds, which does nothing while it is not the time for it.

        `work` may return the seconds after which it wants to run again, if that is sooner. An error ends this run of
        it; a bug is noted.
        """

        def run() -> None:
            if when() and (again := work()) is not None:
                self._run_in(name, again)

        def job() -> None:
            self._liveness.report(name, _TIMEOUT)
            self._note(name, run_job(name, run, self._stop, self._tell))
            self._liveness.finish(name)

        self._background.add_job(job, Every(every), id=name, name=name)

    def _note(self, name: str, refusal: str | None) -> None:
        """Tell which jobs are refused, whenever that changes."""
        with self._lock:
            before = dict(self._refused)
            self._refused.pop(name, None)
            if refusal:
                self._refused[name] = refusal
            if self._refused != before:
                self._tell("jobs", dict(self._refused) or None)

    def go_on(self, name: str, silence: float) -> None:
        """Report for a job that may now be silent for so much longer than usual; raises Stopping at the end."""
        self._liveness.report(name, _TIMEOUT + silence)
        if self._stop.is_set():
            raise Stopping

    def run_now(self, prefix: str) -> None:
        """Run every job whose name begins so at once; all of them for an empty prefix."""
        for job in self._background.get_jobs():
            if job.id.startswith(prefix):
                with suppress(JobLookupError):  # it was just taken from the schedule
                    job.modify(next_run_time=datetime.now(job.next_run_time.tzinfo))

    def _run_in(self, name: str, seconds: float) -> None:
        """Run a job again after so many seconds, unless its time comes sooner."""
        job = self._background.get_job(name)
        wanted = datetime.now(UTC) + timedelta(seconds=max(_SOONEST, seconds))
        if job and job.next_run_time and wanted < job.next_run_time:
            with suppress(JobLookupError):
                job.modify(next_run_time=wanted)

    def end(self) -> None:
        """Start no more jobs; those that run are not waited for."""
        with suppress(SchedulerNotRunningError):
            self._background.shutdown(wait=False)

    def _add_pulse(self) -> None:
        """Report for the scheduler itself: if it hangs no job begins, and none would be missed."""

        def pulse() -> None:
            self._liveness.report("scheduler", 4 * _PULSE)

        pulse()
        self._background.add_job(pulse, Every(_PULSE), id="pulse", name="pulse")


class Every(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fire again so many seconds from now, give or take a tenth; never make up for missed times.

    APScheduler's own interval trigger enumerates every time it missed when the clock steps forward
    (3.4 s of CPU for ten days of seconds); after a suspend or a step one run is enough.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """Return the next time, counted from now; the very first comes soon."""
        seconds = self._seconds * random.uniform(0.9, 1.1)  # noqa: S311 - traps need not march in step
        return now + timedelta(seconds=seconds if previous else min(seconds, _SOON))
