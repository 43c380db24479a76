"""The examiners: worker processes that look at new files, each under a limit of time and memory."""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures import TimeoutError as DeadlinePassed
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool
from pebble.common.types import RemoteException, Result, ResultStatus
from pebble.pool.process import Acknowledgement, TaskProblem, TaskResult

from trapsync.errors import DamagedImage, ExaminerKilled, StorageError, TrapsyncError
from trapsync.files import durable
from trapsync.image import Correction, Found, Image
from trapsync.jpeg import examination
from trapsync.runtime import answers, restricted
from trapsync.runtime.child_process import spawn
from trapsync.runtime.examiner_process import MAX_MEMORY, NoExaminer, become_examiner, set_up, why_none
from trapsync.settings.schema import Ingest, Storage

log = logging.getLogger(__name__)

_TASKS_PER_EXAMINER = 500  # then a fresh one: libvips creeps from 46 to 67 MB in some hundred images
# What befalls an examiner; the last when it was killed in between two files, or at its very start.
_MISFORTUNES = (DeadlinePassed, CancelledError, ProcessExpired, BrokenExecutor)
# How an examiner ends that was killed from outside: by the kernel for want of memory, or as pebble ends at SIGTERM.
_KILLED = {-signal.SIGKILL, -signal.SIGTERM, int(signal.SIGTERM)}
# Seconds between two looks of the pool's threads at their workers: at work, and with nothing to do.
_AT_WORK, _AT_REST = 0.1, 30.0
_TO_END = 2.0  # seconds for them to end

answers.expect(
    Acknowledgement, TaskProblem, TaskResult, Result, ResultStatus, RemoteException.rebuild_exception
)


class Examiners:
    """The worker pool that looks at files, each under a limit of time and memory. One thread uses it.

    `look` is what is done to each file, in a worker: a function of the spool and the path.
    """

    def __init__(
        self,
        settings: Ingest,
        storage: Storage,
        look: Callable[[Path, str], Image] = examination.examine,
        *,
        tells_rights: bool = False,
    ) -> None:
        """`tells_rights`: log once which rights the workers have given up; a command on a terminal does not."""
        set_up()
        self._settings = settings
        self._storage = storage
        self._look = look
        self._has_none = False  # none could be started the last time
        self._is_told = not tells_rights
        self._rights = restricted.Rights(write=(storage.spool, storage.thumbnails))
        self._pool = self._make_pool()

    def _make_pool(self) -> ProcessPool:
        self._folders = self._rights.identity()
        return ProcessPool(
            max_workers=self._settings.workers,
            max_tasks=_TASKS_PER_EXAMINER,
            initializer=become_examiner,
            initargs=(MAX_MEMORY, self._rights),
            context=spawn,
        )

    def examine(self, files: Iterable[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        """Examine files, as many at a time as there are workers; each comes back as an image or damaged.

        A file that hangs or crashes its examiner twice is damaged; ExaminerKilled says that somebody else
        killed it. One that the card does not let us read comes back with its StorageError, one on which our own program
        fails with that error, loudly.
        """
        waiting = iter(files)
        flying = [
            (found, self._start(self._look, found.path))
            for found in islice(waiting, 2 * self._settings.workers)
        ]
        while flying:
            found, future = flying.pop(0)
            flying += [(more, self._start(self._look, more.path)) for more in islice(waiting, 1)]
            outcome = self._outcome(found, future)
            if outcome is not None:
                yield found, outcome
        self._tell_rights()

    def _start(self, work: Callable[..., Any], *more: Any) -> ProcessFuture[Any]:
        """Hand out one piece of work in the spool. A pool that broke down (a worker killed at a bad moment) is replaced.

        Raises NoExaminer.
        """
        CONSTS.sleep_unit = _AT_WORK
        arguments, timeout = (self._storage.spool, *more), float(self._settings.timeout)
        # A disk was mounted there, say: only new workers may use it.
        if self._rights.identity() != self._folders:
            self._renew()
        try:
            return self._pool.schedule(work, args=arguments, timeout=timeout)
        except (RuntimeError, OSError):
            level = logging.DEBUG if self._has_none else logging.WARNING
            log.log(level, "the examiners broke down; others take their place")
        try:
            self._renew()
            future = self._pool.schedule(work, args=arguments, timeout=timeout)
        except (RuntimeError, OSError) as error:
            self._has_none = True
            raise NoExaminer(why_none(error)) from error
        self._has_none = False
        return future

    def _renew(self) -> None:
        self.close()
        self._pool = self._make_pool()

    def _result(self, future: ProcessFuture[Any]) -> Any:
        """Wait for it. The pool keeps each file's own deadline; if it does not, it is broken itself."""
        try:
            return future.result(timeout=3 * self._settings.timeout + 30)
        except (DeadlinePassed, CancelledError, BrokenExecutor) as error:
            if not future.done() or not isinstance(error, DeadlinePassed):
                self._renew()  # what is tried again is alone in it, so that no other file is to blame
            raise

    def _do(self, work: Callable[..., Any], path: str, *more: Any) -> Any:
        """Have a piece of work done on one file, twice if it comes to grief: that may have been the machine's fault."""
        try:
            return self._result(self._start(work, *more))
        except _MISFORTUNES:
            pass
        except StorageError as error:
            if not self._rights.are_stale(error, self._storage.spool / path):
                raise
            self._renew()
        return self._result(self._start(work, *more))

    def _outcome(
        self, found: Found, future: ProcessFuture[Any], before: Exception | None = None
    ) -> Image | Exception | None:
        try:
            image: Image = self._result(future)
            return image if image.path == found.path else _wrong_answer()
        except DamagedImage as error:
            return error
        except FileNotFoundError:  # taken away meanwhile
            return None
        except (*_MISFORTUNES, MemoryError) as error:
            if before is None:  # it may have been the machine's fault: once more, in a fresh process
                return self._outcome(found, self._start(self._look, found.path), before=error)
            if _was_killed(before) or _was_killed(error):
                return ExaminerKilled("its examiner was killed each time: too little memory?")
            return DamagedImage(_describe_failure(error, self._settings))
        except StorageError as error:  # the card does not let it be read
            if before is None and self._rights.are_stale(error, self._storage.spool / found.path):
                self._renew()
                return self._outcome(found, self._start(self._look, found.path), before=error)
            log.error("%s", error)
            return error
        except Exception as error:
            log.exception("examining %r failed; it stays in the spool", found.path)
            return error

    def _tell_rights(self) -> None:
        """Log once what the workers were to give up and could not."""
        if self._is_told:
            return
        self._is_told = True
        with suppress(*_MISFORTUNES, RuntimeError, OSError):
            lacking = self._pool.schedule(restricted.lacking).result(float(self._settings.timeout))
            log.info("examiners: %s", lacking or "they have the rights that they need, and no others")

    def rewrite(
        self, corrections: Iterable[Correction]
    ) -> Iterator[tuple[Correction, Image | DamagedImage | FileExistsError]]:
        """Write images anew with their corrected times; each comes back as it is then, or why it is not.

        Raises StorageError when the card refuses.
        """
        for one in corrections:
            try:
                image = self._do(examination.rewrite, one.image.path, one)
                yield one, image if image.path == one.path else _wrong_answer()
            except (DamagedImage, FileExistsError) as error:
                yield one, error
            except FileNotFoundError:
                yield one, DamagedImage("its file is not on the card")
            except (*_MISFORTUNES, MemoryError) as error:
                yield one, DamagedImage(_describe_failure(error, self._settings))

    def make_thumbnails(self, image: Image, path: str) -> bool:
        """Make the small copies of one image; False if they cannot be made, ExaminerKilled if nobody knows."""
        try:
            durable.make_folder(self._storage.thumbnails)  # a worker has no right to
            self._do(examination.thumbnails, path, path, self._storage.thumbnails)
        except (TrapsyncError, *_MISFORTUNES, MemoryError, OSError) as error:
            if _was_killed(error):
                raise ExaminerKilled(
                    f"no thumbnails of {image.name} for now: their maker was killed"
                ) from error
            log.warning("no thumbnails of %s: %s", image.name, str(error) or type(error).__name__)
            return False
        except Exception:  # a bug, loud; but without this copy the trap works
            log.exception("no thumbnails of %s", image.name)
            return False
        return True

    def rest(self) -> None:
        """There is nothing to do for now: look after the workers less often. Ended by the next piece of work."""
        CONSTS.sleep_unit = _AT_REST

    def close(self) -> None:
        """End the workers, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        # A pool at rest may not look up for a while. Its workers end with this process in any case.
        ending = threading.Thread(target=self._pool.join, daemon=True)
        ending.start()
        ending.join(_TO_END)


def _wrong_answer() -> DamagedImage:
    """What counts where a worker answers about another file than it was asked about: something has taken it over."""
    return DamagedImage("its examiner answered about another file")


def _was_killed(error: Exception) -> bool:
    """Whether it was not the examiner that failed, nor our own limit: somebody ended it, or its pool."""
    if isinstance(error, ProcessExpired):
        return error.exitcode in _KILLED
    return isinstance(error, CancelledError | BrokenExecutor)


def _describe_failure(error: Exception, settings: Ingest) -> str:
    if isinstance(error, DeadlinePassed):
        return f"examining it took longer than {settings.timeout:.0f} s, twice"
    if isinstance(error, MemoryError):
        return f"examining it took more than {MAX_MEMORY / 1e6:.0f} MB of memory"
    return "examining it crashed the examiner, twice"
