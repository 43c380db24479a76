"""The ingest thread: examines new files; with none to examine it corrects times and makes small copies."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from trapsync import pipeline
from trapsync.errors import CatalogError, ExaminerKilled, StorageError, one_line, unexpected
from trapsync.files.space import free_bytes
from trapsync.image import Found
from trapsync.jpeg import thumbnail
from trapsync.runtime import clock_correction
from trapsync.runtime.context import Context
from trapsync.runtime.examiners import Examiners
from trapsync.spool import spool_mark
from trapsync.spool.inbox import BATCH
from trapsync.spool.not_taken_in import LONGEST, Tally
from trapsync.spool.scan import stat_file
from trapsync.spool.undecided import UndecidedFiles

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds between two looks at an inbox that stays empty
_IDLE_TICK = 60.0  # and once it has been empty for a minute
_UNTIL_IDLE = 60.0  # seconds
_PAUSE = 10.0  # seconds to wait when the catalog or the card refuses
_LOOK_AT_CLOCK = 10.0  # seconds between two looks whether it is set, and held images can go
_LOOK_LATER = 300.0  # and after something went wrong with them
_TELL_AGAIN = 10.0  # seconds between two reports of what is not taken in
_ROOM_FOR_COPIES = 10**6  # bytes
_MOST_KILLS = 3  # of the maker of an image's small copies, until the image is to blame


class IngestThread:
    """Examines what the inbox holds; in between, makes the small copies of one image at a time."""

    def __init__(
        self, context: Context, examiners: Examiners, when_through: Callable[[], object] = lambda: None
    ) -> None:
        """`when_through` is called once: when all that was there at the start has been taken in."""
        self._context = context
        self._when_through: Callable[[], object] | None = when_through
        self._settings = context.settings
        self._clock = context.clock
        self._catalog = context.catalog
        self._inbox = context.inbox
        self._stop = context.stop
        self._examiners = examiners
        self._uncorrected = clock_correction.Failures(context.clock)
        self._kills: Counter[str] = Counter()  # of those who made small copies of these files
        self._got_on = True
        self._undecided = UndecidedFiles(self._settings.ingest.stable_after)
        self._refusal: Tally | None = None  # while nothing can be taken in
        self._tell_at = self._clock.monotonic()
        self._busy = self._clock.monotonic()
        self._begin_again()

    def _begin_again(self) -> None:
        self._thumbnails, self._times = self._make_thumbnails(), self._correct_times()

    def run(self) -> None:
        """Work until the end, whatever the card or the catalog refuses."""
        while not self._stop.is_set():
            self._context.liveness.report("ingest", self._limit())
            if spool_mark.problem(self._settings.storage):  # which the main thread says
                self._stop.wait(_PAUSE)
            else:
                has_worked = self.step()
                if self._clock.monotonic() >= self._tell_at:
                    self.tell_not_taken_in()
                if not has_worked:
                    self._wait_for_files()

    def step(self) -> bool:
        """Do one piece of work; return False when there was none."""
        paths = self._inbox.take()
        try:
            if paths:
                self._ingest(paths)
            elif self._inbox.overflowed():  # the rest of a long backlog
                self._sweep()
            elif not next(self._times) and not next(self._thumbnails):
                return False
        except (CatalogError, StorageError, OSError) as error:
            is_news = self._refusal is None or self._refusal.reason != one_line(error, LONGEST)
            level = logging.ERROR if is_news or not paths else logging.DEBUG
            log.log(level, "%s; trying again in %.0f s", error, _PAUSE)
            for path in paths:
                self._inbox.put_later(path, _PAUSE)
            self._refuse(paths, error)
            self._begin_again()
            self._stop.wait(_PAUSE)
        except Exception:  # a bug, loud: but not the end of the thread
            log.exception("ingesting %d files failed", len(paths))
            self._context.tell("bug", "ingesting files failed; see the log")
            self._ingest_singly(paths)
            self._begin_again()
            self._stop.wait(_PAUSE)
        self._busy = self._clock.monotonic()
        return True

    def _refuse(self, paths: list[str], error: Exception) -> None:
        """Note that the card, the catalog or the machine lets no file be taken in."""
        if not paths:
            return
        self._refusal = Tally()
        for path in paths:
            self._refusal.add(path, str(error))
        self.tell_not_taken_in()

    def tell_not_taken_in(self) -> None:
        """Tell what is not taken in because it cannot be read, examined or recorded, as long as it is there."""
        self._tell_at = self._clock.monotonic() + _TELL_AGAIN
        self._undecided.forget_gone(self._is_there)
        found = self._undecided.tallies() | {"stopped": self._refusal or Tally()}
        self._context.tell_not_taken_in("ingest", found)

    def _is_there(self, found: Found) -> bool:
        try:
            return stat_file(self._settings.storage.spool, found.path) == found
        except StorageError:
            return True

    def _wait_for_files(self) -> None:
        """Wait while there is nothing to do; a new file ends that at once."""
        is_idle = self._clock.monotonic() - self._busy >= _UNTIL_IDLE
        if is_idle:
            self._examiners.rest()
        self._inbox.wait(_IDLE_TICK if is_idle else _TICK)

    def _limit(self) -> float:
        """Return seconds: for one batch of files, each of which may take its whole timeout twice."""
        return 2 * BATCH * self._settings.ingest.timeout + 60

    def _ingest(self, paths: list[str]) -> None:
        result = pipeline.ingest(
            *(self._catalog, self._settings.storage, paths),
            *(self._examiners.examine, self._undecided, self._clock),
        )
        self._got_on |= bool(result.new or result.damaged)
        if result.new and self._when_through and self._inbox.is_empty():
            when_through, self._when_through = self._when_through, None
            when_through()
        if self._refusal:
            self._refusal = None
            self.tell_not_taken_in()
        for path in result.later:
            self._inbox.put_later(path, min(2.0, self._settings.ingest.stable_after))

    def _ingest_singly(self, paths: list[str]) -> None:
        """Ingest these files one by one, since one made all of them fail; that one is tried again after a pause."""
        for path in paths:
            try:
                self._ingest([path])
            except (CatalogError, StorageError, OSError) as error:
                log.error("%s; the next sweep offers it again", error)
            except Exception as error:
                log.exception("%r cannot be ingested; it stays in the spool", path)
                self._note_failed(path, error)

    def _note_failed(self, path: str, error: Exception) -> None:
        with suppress(StorageError):
            if found := stat_file(self._settings.storage.spool, path):
                self._undecided.failed(found, unexpected(error), self._clock.monotonic())

    def _sweep(self) -> None:
        if not self._got_on:  # what is found again and again may not be all that is done
            self._stop.wait(_PAUSE)
        self._got_on = False
        seen = pipeline.sweep(self._catalog, self._settings.storage, self._inbox.put)
        self._context.tell_not_taken_in("sweep", seen.tallies())

    def _correct_times(self) -> Iterator[bool]:
        """Correct the times of a batch of images per step; each step yields whether there was anything to do."""
        settings, rewrite = self._settings, self._examiners.rewrite
        failures = self._uncorrected
        while True:
            rest = _LOOK_AT_CLOCK
            try:
                while clock_correction.correct_times(
                    self._catalog, settings.storage, settings.trap, rewrite, failures
                ):
                    yield True
            except CatalogError:
                raise
            except StorageError as error:  # no room for a second file: held images wait
                log.error("no time can be corrected for now: %s", error)
                rest = _LOOK_LATER
            except Exception:  # a bug, loud; but the others need not wait for it
                log.exception("correcting times failed")
                self._context.tell("bug", "correcting times failed; see the log")
                rest = _LOOK_LATER
            yield from self._do_nothing(rest)

    def _do_nothing(self, seconds: float) -> Iterator[bool]:
        """Yield that there is nothing to do, for so many seconds."""
        again = self._clock.monotonic() + seconds
        yield False
        while self._clock.monotonic() < again:
            yield False

    def _make_thumbnails(self) -> Iterator[bool]:
        """Make the small copies of one image per step; each step yields whether there was anything to do.

        They are marked a handful at a time: a daemon that ends before that makes some of them once more.
        """
        reason = thumbnail.missing() if self._settings.ingest.thumbnails else "they are switched off"
        if reason and self._settings.ingest.thumbnails:
            log.warning("no thumbnails for now: %s", reason)
        self._context.tell("thumbnails", reason)
        made: dict[int, bool] = {}
        while not reason:
            waiting = self._catalog.images.without_thumbnails(len(made) + 1) if self._has_room() else []
            image = next((one for one in waiting if one.id not in made), None)
            if image:
                try:
                    is_made = self._examiners.make_thumbnails(image, image.path)
                except ExaminerKilled as error:  # perhaps by the kernel, for want of memory
                    log.warning("%s", error)
                    self._kills[image.path] += 1
                    is_made = False
                    if self._kills[image.path] < _MOST_KILLS:
                        yield from self._do_nothing(_LOOK_LATER)
                        continue
                self._kills.pop(image.path, None)
                if not self._stop.is_set():
                    made[image.id] = is_made
            if made and (image is None or len(made) >= BATCH):
                self._catalog.images.mark_thumbnails(made)
                made = {}
            yield image is not None
        while True:
            yield False

    def _has_room(self) -> bool:
        """Return whether there is room for small copies, which must not take the last of it."""
        storage = self._settings.storage
        return free_bytes(storage.thumbnails) >= max(storage.min_free, _ROOM_FOR_COPIES)
