"""The jobs of the daemon: what is done again and again, each in a thread of the scheduler's."""

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor as SchedulerThreads
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from trapsync.catalog.facts import Name
from trapsync.errors import CatalogError, StorageError
from trapsync.runtime.liveness import Board

log = logging.getLogger(__name__)
# That a job is still at work when its time comes again is no news: a backlog may take a week.
logging.getLogger("apscheduler").setLevel(logging.ERROR)

_SOON = 0.1  # seconds after the start until every job runs for the first time
_PATIENCE = 1800.0  # seconds without a sign of life of a job
_PULSE = 30.0  # seconds between two signs of life of the scheduler


class Stopping(BaseException):
    """The daemon ends: raised inside a job to leave it, a turn of deliveries between two images, say."""


def run_job(
    name: str, work: Callable[[], object], stop: threading.Event, tell: Callable[[Name, object], None]
) -> None:
    """Do a job once. An error costs this run of it; what is a bug is logged, and told."""
    try:
        work()
    except Stopping:
        pass
    except (CatalogError, StorageError) as error:
        log.error("%s", error)
    except Exception:
        if not stop.is_set():
            log.exception("%s failed", name)
            tell("bug", f"{name} failed; see the log")


class Timetable:
    """The jobs, each after its own interval and never beside itself. Each owes the board signs of life."""

    def __init__(
        self, threads: int, board: Board, stop: threading.Event, tell: Callable[[Name, object], None]
    ) -> None:
        """`threads` is how many jobs can be at work at once. `tell` is told of a bug."""
        self._board = board
        self._stop = stop
        self._tell = tell
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": SchedulerThreads(threads)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Begin with all jobs that were added, and watch over the scheduler too."""
        self._add_pulse()
        self._scheduler.start()

    def add(self, name: str, every: float, work: Callable[[], object]) -> None:
        """A job for every so many seconds. An error costs this run of it; what is a bug is told."""

        def job() -> None:
            self._board.beat(name, _PATIENCE)
            run_job(name, work, self._stop, self._tell)
            self._board.rest(name)

        self._scheduler.add_job(job, Every(every), id=name, name=name)

    def go_on(self, name: str, silence: float) -> None:
        """A sign of life of a job, after which it may be silent for so long; raises Stopping at the end."""
        self._board.beat(name, _PATIENCE + silence)
        if self._stop.is_set():
            raise Stopping

    def run_now(self, prefix: str) -> None:
        """Let every job whose name begins so run at once; and all of them, if nothing is given."""
        for job in self._scheduler.get_jobs():
            if job.id.startswith(prefix):
                with suppress(JobLookupError):  # it was just taken from the schedule
                    job.modify(next_run_time=datetime.now(job.next_run_time.tzinfo))

    def end(self) -> None:
        """Begin no job any more; those at work are not waited for."""
        with suppress(SchedulerNotRunningError):
            self._scheduler.shutdown(wait=False)

    def _add_pulse(self) -> None:
        """The scheduler's own sign of life: without it no job would ever begin, and none be missed."""

        def pulse() -> None:
            self._board.beat("scheduler", 4 * _PULSE)

        pulse()
        self._scheduler.add_job(pulse, Every(_PULSE), id="pulse", name="pulse")


class Every(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fire again so many seconds from now, give or take a tenth; never make up for missed times.

    APScheduler's own interval trigger enumerates every time it missed when the clock steps forward
    (3.4 s of CPU for ten days of seconds); after a suspend or a step one run is enough.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The next time, from now; the very first comes soon."""
        seconds = self._seconds * random.uniform(0.9, 1.1)  # noqa: S311 - traps need not march in step
        return now + timedelta(seconds=seconds if previous else min(seconds, _SOON))
