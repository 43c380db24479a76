"""Who looks at the pictures that a hub is sent: a process with limits, so that the hub's own decodes none.

It is asked over one pipe. The daemon's worker pool would cost a hub as much for each picture as the look at it.
"""

import logging
import multiprocessing
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trapsync.errors import DamagedImage, ExaminerKilled, StorageError
from trapsync.image import Image
from trapsync.jpeg import examination, thumbnail
from trapsync.runtime import child_process, restricted
from trapsync.runtime.examiner_process import MAX_MEMORY, NoExaminer, become_examiner, set_up, why_none
from trapsync.runtime.restricted import Rights

log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds for one picture; of 100 MB, a Pi needs some ten
_TO_START = 30.0  # seconds more for the first one
_TO_END = 2.0
_PATIENCE = 10.0  # seconds until it is one's turn: only a picture that hangs its examiner takes so long
_TASKS = 2000  # most of them without libvips, which creeps; another start takes a fifth of a second of a core
_KILLED = {-signal.SIGKILL, -signal.SIGTERM}  # how an examiner ends that was killed from outside


class _CameToGrief(Exception):
    """What befell the examiner at a piece of work."""

    def __init__(self, text: str, *, was_killed: bool = False) -> None:
        super().__init__(text)
        self.was_killed = was_killed


class HubExaminer:
    """One examiner for all threads of a hub, started with the first picture.

    It may read what lies in `incoming` and write into `making`: no stored image, no database.
    """

    def __init__(
        self, incoming: Path, making: Path, look: Callable[[Path, str], Image] | None = None
    ) -> None:
        """`look` is what is done to each file, in the examiner."""
        # An examiner may not ask other programs where libvips is.
        self._look = look or partial(
            examination.examine, believes_sender=bool(thumbnail.missing()), with_digests=False
        )
        self._incoming = incoming
        self._rights = Rights(read=(incoming,), write=(making,))
        self._turn = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._folders: list[tuple[int, int] | None] = []
        self._done = 0  # pieces of work of this process
        self._is_told = False  # which rights it has given up
        set_up()

    def examine(self, folder: Path, name: str) -> Image:
        """Look at a file that a trap has delivered. Raises as `examination.examine`, and as `_do`."""
        image = self._do(self._look, name)
        if not isinstance(image, Image) or image.path != name:
            raise StorageError("its examiner answered about something else")
        return image

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        """Make both small copies of a file. Raises as `thumbnail.make`, and as `_do`."""
        self._do(examination.thumbnails, name, into)

    def close(self) -> None:
        """End the examiner, whatever it does."""
        self._end()

    def _do(self, work: Callable[..., Any], name: str, *more: Any) -> Any:
        """Have it done, twice if it comes to grief: that may have been the machine's fault.

        Raises DamagedImage where it hung or crashed the examiner twice, ExaminerKilled where somebody else ended that,
        TimeoutError where it is busy for long, and NoExaminer.
        """
        if not self._turn.acquire(timeout=_PATIENCE):
            raise TimeoutError("the hub is busy with other pictures")
        try:
            answer = self._try(work, self._incoming, name, *more)
            if answer is None or self._may_be_the_machine(answer, self._incoming / name):
                self._end()
                answer = self._ask(work, self._incoming, name, *more)
            self._tell_rights()
        except _CameToGrief as error:
            if error.was_killed:
                raise ExaminerKilled("its examiner was killed each time: too little memory?") from error
            raise DamagedImage(str(error)) from error
        finally:
            self._turn.release()
        if isinstance(answer[0], MemoryError):
            raise DamagedImage(f"examining it took more than {MAX_MEMORY / 1e6:.0f} MB of memory")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def _may_be_the_machine(self, answer: tuple[Any], file: Path) -> bool:
        """Whether another process may do better: a disk was mounted there, say, on which only a new one has rights."""
        (found,) = answer
        if isinstance(found, StorageError | FileNotFoundError) and self._rights.identity() != self._folders:
            return True
        stale = isinstance(found, StorageError) and self._rights.are_stale(found, file)
        return stale or isinstance(found, MemoryError)

    def _try(self, *task: Any) -> tuple[Any] | None:
        """The answer, in a tuple; None where the examiner came to grief."""
        try:
            return self._ask(*task)
        except _CameToGrief:
            return None

    def _ask(self, work: Callable[..., Any], *arguments: Any) -> tuple[Any]:
        """The answer of the examiner, in a tuple; it may be an error."""
        if self._done >= _TASKS:
            self._end()
        deadline = _TIMEOUT + (0.0 if self._pipe else _TO_START)
        pipe = self._pipe or self._start()
        self._done += 1
        try:
            pipe.send((work, arguments))
            if not pipe.poll(deadline):
                self._end()
                raise _CameToGrief(f"examining it took longer than {deadline:.0f} s, twice")
            return (pipe.recv(),)
        except (EOFError, OSError):
            code = self._end()
            raise _CameToGrief(
                "examining it crashed the examiner, twice", was_killed=code in _KILLED
            ) from None

    def _start(self) -> Connection:
        self._folders, self._done = self._rights.identity(), 0
        try:
            self._process, self._pipe = child_process.start(_run, self._rights, name="examiner")
        except OSError as error:
            raise NoExaminer(why_none(error)) from error
        return self._pipe

    def _end(self) -> int | None:
        """End the process, if there is one; how it ended, where it had ended by itself."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        return child_process.end(process, pipe, _TO_END) if process else None

    def _tell_rights(self) -> None:
        """Log once what the examiner was to give up and could not."""
        if not self._is_told:
            self._is_told = True
            (lacking,) = self._ask(restricted.lacking)
            log.info("examiners: %s", lacking or "they have the rights that they need, and no others")


def _run(pipe: Connection, rights: Rights) -> None:
    """Be the examiner, in the child: do each piece of work, and answer with what came of it."""
    become_examiner(MAX_MEMORY, rights)
    while True:
        try:
            work, arguments = pipe.recv()
        except (EOFError, OSError):  # the hub is done with us
            return
        try:
            answer = work(*arguments)
        except Exception as error:
            error.add_note(traceback.format_exc())  # for the hub's log, if it is a mistake of our own
            answer = error
        try:
            pipe.send(answer)
        except OSError:
            return
