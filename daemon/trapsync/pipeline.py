"""An image's life: capture → ingest → deliver → prune.

Read from top to bottom, this is all that happens to an image. Each step can be called by hand, and can
be killed at any point and called again: a file under its final name is complete, a row in the catalog
is true, and nothing leaves the card without positive proof. Threads, processes, schedules and time
belong to `service`, which calls these steps.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trapsync import __version__
from trapsync.cameras import Camera, Frame
from trapsync.clock import Clock, evidence
from trapsync.destinations import Destination, Receipt, confirmation
from trapsync.errors import (
    DamagedImage,
    ExaminerKilled,
    Failed,
    Held,
    IncompleteImage,
    Refused,
    StorageError,
    TrapsyncError,
    Unreachable,
    Unstorable,
)
from trapsync.files import durable, failpoint
from trapsync.image import UNKNOWN, Evidence, Found, Image, Reading, TrapName
from trapsync.jpeg import exif
from trapsync.net import backoff
from trapsync.settings.schema import Prune, Settings, Storage, Trap
from trapsync.spool import pruning, spool_mark
from trapsync.spool.quarantine import NO_TEXT, inspect, is_text, put_back_changed, quarantine, stuck
from trapsync.spool.scan import Patience, look, walk

if TYPE_CHECKING:  # the camera's process runs `capture` and need not load SQLite for it
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

# How the service runs examinations: in worker processes, each file by itself, whatever it does to them.
Examiner = Callable[[Iterable[Found]], Iterator[tuple[Found, Image | DamagedImage]]]

# A folder that never is, where the file of an image that is off the card is looked for.
_NOWHERE = ".off-the-card"

# Who is to blame when a server answers, and takes no image? So many images in a row: the server, which is
# then left alone. One that failed so often while others passed: the image, which is then set aside.
_IMAGES_IN_A_ROW = 3
_ATTEMPTS_WHILE_OTHERS_PASS = 5

# What became of uploads is recorded in one commit for so many, or after so many seconds.
_COMMIT_MAX = 16
_COMMIT_AFTER = 2.0


# ── Capture ──────────────────────────────────────────────────────────────────────────────────────────


def capture(
    camera: Camera,
    settings: Settings,
    device: str,
    clock: Clock,
    taken: Container[str] = (),
    reading: Reading = UNKNOWN,
) -> str:
    """Take one picture and store it durably in the spool; the path there, relative to it.

    When this returns, the image survives a power cut. Runs in the camera's own process. `taken` are names
    of images that have left the card, `reading` is what the sensors said. Raises CameraError, or
    StorageError when the card is too full or refuses, or the spool is another one than last time.
    """
    # Below the mount point of a disk that is not mounted, a picture would be out of sight once it is.
    spool_mark.check(settings.storage)

    # A card that is nearly full stops the trap here, before it eats what is not delivered yet.
    require_space(settings.storage)

    # The second of the exposure is the image's name for life. If the clock was stepped back onto
    # seconds that are taken, the name moves on; what the clock really showed stays in the evidence.
    with camera.ready():  # which may take seconds, and they are not the exposure's
        seen = evidence(clock)
        name = _free_name(settings.storage.spool, device, seen.wall, taken)
        frame = camera.capture(name.taken)

    # A disk that was unmounted since: an exposure takes its time.
    spool_mark.check(settings.storage)

    # Everything is put together in memory and written once: temporary name, flush, final name, flush.
    # Meanwhile an image whose time was corrected may have got that name: then this one moves on.
    while True:
        name = _free_name(settings.storage.spool, device, name.taken.timestamp(), taken)
        jpeg = exif.dress(frame.jpeg, _facts(settings.trap, name.taken, frame, seen, reading))
        path = f"{name.folder}/{name}"
        with suppress(FileExistsError):
            durable.write(settings.storage.spool / path, [jpeg], replace=False)
            break
    failpoint.hit("capture: stored")
    return path


def tidy(spool: Path, device: str) -> int:
    """Remove what kills have left of pictures that were being written; how many. Before the camera starts."""
    removed = 0
    try:
        for left_over in (spool / device).glob(f"*/.{device}.*.part"):
            left_over.unlink(missing_ok=True)
            failpoint.hit("capture: tidied")
            removed += 1
    except OSError as error:
        log.error("%s", durable.explain(error, spool))
    return removed


def require_space(storage: Storage) -> None:
    """StorageError when less than `storage.min_free` is left on the spool's filesystem."""
    free = free_bytes(storage.spool)
    if free < storage.min_free:
        raise StorageError(
            f"only {free / 1e6:.0f} MB are free on the card and {storage.min_free / 1e6:.0f} MB must stay "
            f"free (storage.min_free): no pictures are taken until images are delivered and pruned"
        )


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write there; of the nearest folder that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _free_name(spool: Path, device: str, wall: float, taken: Container[str]) -> TrapName:
    name = TrapName(device, datetime.fromtimestamp(int(wall), UTC))
    while str(name) in taken or os.path.lexists(spool / name.folder / str(name)):
        name = TrapName(device, name.taken + timedelta(seconds=1))
    return name


def _facts(trap: Trap, taken: datetime, frame: Frame, seen: Evidence, reading: Reading) -> exif.Facts:
    return exif.Facts(
        taken=taken,
        model=frame.model,
        software=f"trapsync {__version__}",
        version=__version__,
        width=frame.width,
        height=frame.height,
        exposure=frame.exposure,
        gain=frame.gain,
        latitude=trap.latitude,
        longitude=trap.longitude,
        altitude=trap.altitude,
        temperature=reading.temperature,
        humidity=reading.humidity,
        battery=reading.battery,
        button=reading.button,
        evidence=seen,
    )


# ── Ingest ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Ingested:
    """What became of a handful of files: how many were new images, were damaged, are to be seen again.

    `failed` are those on which our own program failed: they stay in the spool, for the next sweep.
    """

    new: int = 0
    damaged: int = 0
    failed: int = 0
    later: list[str] = field(default_factory=list)


def sweep(catalog: Catalog, storage: Storage, offer: Callable[[str], None]) -> int:
    """Walk the spool and offer every file that the catalog does not know as it is; how many those were.

    This, not the observer, is what finds every file. Files that somebody took away are forgotten. Damaged
    ones that were finished in quarantine are put back first; those that could not be moved there are
    offered again when the daemon begins anew, and not before. StorageError
    when the spool is another one than last time: then no file was taken away.
    """
    spool_mark.check(storage)
    kept = inspect(catalog, storage)
    put_back_changed(catalog, storage, kept)
    is_stuck = stuck(kept)
    spool, seen, closed = storage.spool, set(), []
    new: list[tuple[int, int]] = []
    unseen: list[tuple[str, dict[str, tuple[int, int]]]] = []
    for folder, files in walk(spool):
        if files is None:
            closed.append(f"{folder}/")
            continue
        seen.add(folder)
        with _costs_one(folder):
            # A folder's name that is no text is not in the catalog: what lies there goes to quarantine.
            known = catalog.known_in(folder) if is_text(folder) else {}
            for found in files:
                if known.pop(found.name, None) != (found.size, found.mtime_ns) and not is_stuck(found):
                    offer(found.path)
                    new.append((found.size, found.mtime_ns))
            if known:
                unseen.append((folder, known))
    gone = [folder for folder in set(catalog.folders()) - seen if not f"{folder}/".startswith(tuple(closed))]
    unseen += [(folder, catalog.known_in(folder)) for folder in gone]
    # What may just lie elsewhere now, in a folder that was renamed, is forgotten when that was examined.
    moved = set(new)
    for folder, known in unseen:
        _forget(catalog, storage, folder, [name for name, what in known.items() if what not in moved])
    return len(new)


def _forget(catalog: Catalog, storage: Storage, folder: str, names: Iterable[str]) -> None:
    """The files of these names were not seen: look once more, then say so.

    One that was ingested after its folder was listed is known and not seen, and is there all the same.
    """
    paths = [f"{folder}/{name}" if folder else name for name in names]
    paths = [path for path in paths if _is_gone(storage.spool, path)]
    if not paths:
        return
    spool_mark.check(storage)  # that they were looked for in the spool, and it was not unmounted meanwhile
    if gone := catalog.forget_files(paths):
        log.warning("%d images are not on the card any more: somebody or something removed their files", gone)


def _is_gone(spool: Path, path: str) -> bool:
    """What the card does not show now is not gone."""
    try:
        return look(spool, path) is None
    except StorageError:
        return False


def ingest(
    catalog: Catalog,
    storage: Storage,
    paths: Iterable[str],
    examiner: Examiner,
    patience: Patience,
    clock: Clock,
) -> Ingested:
    """Examine files of the spool and record them: images in the catalog, damaged ones in quarantine.

    A file that changed while it was read, or has no end yet, comes back in `later`. One whose examiner was
    killed stays in the spool, and is examined again when a sweep offers it after a pause.
    """
    result, whole = Ingested(), []
    unknown = _unknown(catalog, storage, paths, patience, clock, result)
    for found, outcome in _examined(examiner, unknown, patience):
        with _costs_one(found.path, result):
            now = clock.monotonic()
            # Somebody is still writing to it, or took it away again.
            if _look(storage.spool, found.path) != found:
                result.later.append(found.path)
            elif isinstance(outcome, Image):
                whole.append((found, outcome))
            # A file without its end may yet grow one; only time tells.
            elif isinstance(outcome, IncompleteImage) and not patience.is_over(found, now):
                result.later.append(found.path)
            # Who killed its examiner? If that happens again, to this file alone: the file.
            elif isinstance(outcome, ExaminerKilled) and not patience.is_to_blame(found, now):
                log.warning("%s; %r stays in the spool for now", outcome, found.path)
            else:
                quarantine(catalog, storage, found, str(outcome))
                patience.forget(found.path)
                result.damaged += 1
    _record(catalog, storage.spool, whole, result)
    for found, _ in whole:
        patience.forget(found.path)
    return result


def _unknown(
    catalog: Catalog,
    storage: Storage,
    paths: Iterable[str],
    patience: Patience,
    clock: Clock,
    result: Ingested,
) -> list[Found]:
    """Those of these files that are to be examined now."""
    unknown = []
    for path in paths:
        with _costs_one(path, result):
            found = _look(storage.spool, path)
            if found and not is_text(path):  # neither the catalog nor a server could ever name it
                quarantine(catalog, storage, found, NO_TEXT)
                result.damaged += 1
            elif found is None or catalog.is_known(found):
                patience.forget(path)
            elif not patience.is_paused(found, clock.monotonic()):
                unknown.append(found)
    return unknown


def _examined(
    examiner: Examiner, files: list[Found], patience: Patience
) -> Iterator[tuple[Found, Image | DamagedImage]]:
    """Examine these together; but alone, and last, each one at which an examiner was killed before."""
    suspects = [found for found in files if patience.is_suspect(found)]
    yield from examiner(found for found in files if found not in suspects)
    for found in suspects:
        yield from examiner([found])


def _record(catalog: Catalog, spool: Path, whole: list[tuple[Found, Image]], result: Ingested) -> None:
    """Add these images in one commit: flushes are what a card is slow at. If one of them is at fault, singly."""
    fit, moved = [], []
    for found, image in whole:
        with _costs_one(found.path, result):
            moved += _moved(catalog, spool, found, image)
            fit.append((found, image))
    try:
        result.new = catalog.add(fit, moved) if fit else 0
    except Exception as error:
        if _is_refusal(error):
            raise
        for one in fit:
            with _costs_one(one[0].path, result):
                result.new += catalog.add([one], _moved(catalog, spool, *one))


def _moved(catalog: Catalog, spool: Path, found: Found, image: Image) -> list[str]:
    """Where its file lay before, if it lies under another path now: then the new one is the same image's.

    Another file may have the old path by then.
    """
    others = [other for other in catalog.files_of(image) if other.path != found.path]
    return [other.path for other in others if not _is_as_it_was(spool, other)]


def _is_as_it_was(spool: Path, found: Found) -> bool:
    """Whether a file is there unchanged, or the card does not show it now."""
    try:
        return look(spool, found.path) == found
    except StorageError:
        return True


@contextmanager
def _costs_one(path: str, result: Ingested | None = None) -> Iterator[None]:
    """An unexpected error about one file or folder is loud, and costs this one: it stays, for the next sweep."""
    try:
        yield
    except Exception as error:
        if _is_refusal(error):
            raise
        log.exception("%r cannot be ingested; it stays in the spool", path)
        if result is not None:
            result.failed += 1


def _is_refusal(error: Exception) -> bool:
    """Whether the card or the catalog refuses, which is about no file in particular."""
    return isinstance(error, TrapsyncError | OSError) and not isinstance(error, Unstorable)


def _look(spool: Path, path: str) -> Found | None:
    """Look at one of many: what the card does not show now must not keep the others back."""
    try:
        return look(spool, path)
    except StorageError as error:
        log.error("%s; the next sweep offers it again", error)
        return None


# ── Deliver ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Turn:
    """What one turn of deliveries to one destination did, at which `place`; `trouble` is why it ended early."""

    delivered: int = 0
    refused: int = 0
    postponed: int = 0
    failed_in_a_row: int = 0
    place: str = ""
    trouble: Unreachable | None = None


class Uploads(Protocol):
    """Images that are being sent to one destination, several at a time: see `runtime.upload_pool`."""

    @property
    def has_room(self) -> bool:
        """Whether one more can be started."""

    @property
    def is_busy(self) -> bool:
        """Whether there is one that `finished` has not returned yet."""

    def start(self, image: Image, send: Callable[[Image], Receipt]) -> None:
        """Send an image in the background."""

    def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
        """Wait for one that ends within so many seconds, and return what became of it; None if none does."""

    def time_left(self) -> float:
        """Seconds until the first one is late, negative when it is; 0 when none is under way."""


def deliver(
    catalog: Catalog,
    destination: Destination,
    spool: Path,
    clock: Clock,
    uploads: Uploads,
    progress: Callable[[float], object] = lambda _silence: None,
) -> Turn:
    """Deliver everything that is pending and due at one destination.

    Ends when nothing is due, or at the first sign that the destination is unreachable: then the wait until the
    next attempt is in the catalog, where a restart does not forget it. `progress` is called every few
    seconds, with the seconds for which an upload may still keep this from going on.
    """
    turn = Turn()
    try:
        turn.place = confirmation.settle_place(catalog, destination)
        pruning.take_back_marks(catalog, spool)
        while images := _due(catalog, destination, destination.batch):
            progress(0.0)
            # Ask before sending: it may have arrived although we were never told.
            known = confirmation.one_by_one(destination.known, images)
            _record_outcomes(catalog, destination, turn, [(i, known[i.id]) for i in images if i.id in known])

            # Send the rest. Those in flight when trouble came may have arrived, and are recorded before it is raised.
            unknown = [image for image in images if image.id not in known]
            send = partial(_send, destination, spool, catalog.off_card(image.id for image in unknown))
            _send_all(catalog, destination, turn, images, unknown, send, clock, uploads, progress)
            if turn.trouble:
                raise turn.trouble
            catalog.destination_answered(destination.name)
        if destination.tend():
            catalog.destination_answered(destination.name)
    except Unreachable as trouble:
        turn.trouble = trouble
        confirmation.back_off(catalog, destination, trouble)
    return turn


def _send_all(
    catalog: Catalog,
    destination: Destination,
    turn: Turn,
    batch: list[Image],
    unknown: list[Image],
    send: Callable[[Image], Receipt],
    clock: Clock,
    uploads: Uploads,
    progress: Callable[[float], object],
) -> None:
    """Send the unknown images of a batch, of each identity one, and record what became of them."""
    waiting = deque(_one_of_each_identity(unknown))
    ended: list[tuple[Image, Receipt | Exception]] = []
    recorded_at = clock.monotonic()
    while waiting or uploads.is_busy:
        # Start as many as there is room for; none after trouble. Over a slow link a batch takes hours: a new
        # picture that should go before the rest does not wait for it, so the rest is left to the next batch.
        while waiting and uploads.has_room:
            if turn.trouble or _is_overtaken(catalog, destination, batch):
                waiting.clear()
            else:
                uploads.start(waiting.popleft(), send)

        # Trouble is noted at once, before the next one is started.
        if one := uploads.finished(within=_COMMIT_AFTER):
            ended.append(one)
            _note_trouble(turn, one[1])

        # A burst of deliveries is one commit, and a slow one is recorded at once.
        is_time = clock.monotonic() - recorded_at >= _COMMIT_AFTER
        if is_time or len(ended) >= _COMMIT_MAX or not (waiting or uploads.is_busy):
            progress(uploads.time_left())
            _record_outcomes(catalog, destination, turn, ended)
            ended, recorded_at = [], clock.monotonic()


def _one_of_each_identity(images: Iterable[Image]) -> list[Image]:
    """Two of one name are never sent at once: the second is asked about, and sent, after the first."""
    first: dict[str, Image] = {}
    for image in images:
        first.setdefault(image.place.casefold(), image)
    return list(first.values())


def _due(catalog: Catalog, destination: Destination, limit: int) -> list[Image]:
    settings = destination.settings
    return catalog.due(destination.name, settings.order, limit, after=settings.after)


def _is_overtaken(catalog: Catalog, destination: Destination, batch: list[Image]) -> bool:
    """Whether the image to send first is none of this batch."""
    first = _due(catalog, destination, 1)
    return bool(first) and first[0].id not in {image.id for image in batch}


def _send(destination: Destination, spool: Path, off_card: Container[int], image: Image) -> Receipt:
    # Of one that is off the card, another image may have the path by now: that is not its file.
    path = spool / (_NOWHERE if image.id in off_card else "") / image.path
    receipt = destination.deliver(image, path)
    failpoint.hit("deliver: confirmed")
    return receipt


def _note_trouble(turn: Turn, outcome: Receipt | Exception) -> None:
    """End the turn early where the destination is unreachable, or takes no image."""
    if isinstance(outcome, Unreachable):
        turn.trouble = turn.trouble or outcome
    elif isinstance(outcome, Receipt):
        turn.failed_in_a_row = 0
    elif isinstance(outcome, Failed):
        turn.failed_in_a_row += 1
        if turn.failed_in_a_row >= _IMAGES_IN_A_ROW:
            turn.trouble = turn.trouble or Unreachable(f"it takes no image: {outcome}")


def _record_outcomes(
    catalog: Catalog,
    destination: Destination,
    turn: Turn,
    outcomes: Sequence[tuple[Image, Receipt | Exception]],
) -> None:
    """Record in one commit what became of some deliveries: proofs first, then each failure by its kind.

    What is no error of the destination's is a bug. It is loud, but costs this one image: the next turn
    begins with the others.
    """
    if not outcomes:
        return
    bugs = []
    proofs = [confirmation.proof(image, one) for image, one in outcomes if isinstance(one, Receipt)]
    with catalog.together():
        confirmation.require_place(catalog, destination, turn.place)
        catalog.mark_delivered(destination.name, proofs)
        for image, outcome in outcomes:
            match outcome:
                case Receipt() | Unreachable():  # the latter says nothing about the image
                    pass
                case Refused():
                    _refuse(catalog, destination, turn, image, str(outcome))
                case Held() | FileNotFoundError():
                    _hold(catalog, destination, turn, image, outcome)
                case _:
                    _try_again(catalog, destination, turn, image, str(outcome) or repr(outcome))
                    bugs += [] if isinstance(outcome, Failed) else [outcome]
    turn.delivered += len(proofs)
    for bug in bugs:
        raise bug


def _refuse(catalog: Catalog, destination: Destination, turn: Turn, image: Image, reason: str) -> None:
    log.warning("%s refused %s: %s", destination.name, image.name, reason)
    catalog.mark_refused(destination.name, image.id, reason)
    turn.refused += 1


def _hold(
    catalog: Catalog, destination: Destination, turn: Turn, image: Image, cause: Held | FileNotFoundError
) -> None:
    """Something on our side is not there yet: no attempt was made, and the image waits.

    Not for a file that left the card: its destination was asked, and does not have it.
    """
    is_dropped = catalog.let_go(destination.name, image.id)
    if is_dropped is not None:
        if is_dropped:
            log.warning("%s left the card before it was delivered: who removed it?", image.path)
        return
    reason = str(cause) if isinstance(cause, Held) else "its file is not on the card"
    longest = destination.settings.retry_longest
    wait = cause.wait if isinstance(cause, Held) and cause.wait else longest
    catalog.postpone(destination.name, image.id, reason, min(wait, longest))
    turn.postponed += 1


def _try_again(catalog: Catalog, destination: Destination, turn: Turn, image: Image, reason: str) -> None:
    """One image failed where the destination lives: try later, until it is clear who is to blame."""
    attempts, while_others_passed = catalog.count_attempt(destination.name, image.id)
    if while_others_passed >= _ATTEMPTS_WHILE_OTHERS_PASS:
        _refuse(catalog, destination, turn, image, f"{reason} ({attempts} attempts)")
        return
    settings = destination.settings
    wait = backoff.wait(attempts, first=settings.retry_first, longest=settings.retry_longest)
    catalog.postpone(destination.name, image.id, reason, wait)
    turn.postponed += 1


# ── Prune ────────────────────────────────────────────────────────────────────────────────────────────


def prune(
    catalog: Catalog,
    storage: Storage,
    settings: Prune,
    clock: Clock,
    destinations: Sequence[Destination],
    soon: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> int:
    """Free space on the card by removing images with positive proof, oldest first; how many went.

    Only as far as `prune.keep_free` asks, and none younger than `prune.min_age`. But before capture would
    have to stop, they make room for the `soon` bytes that are foreseen, whatever their age. Each destination that
    must have an image is asked for it once more within the day before it goes. The mark in the catalog is
    durable before a file goes; what a crash left half done is finished first.
    """
    troubles: dict[str, str] = {}
    # What was marked before a kill was so by the places of then: another stick may be there now.
    if catalog.leaving_files():
        confirmation.settle_places(catalog, [one for one in destinations if one.settings.required])
    removed = pruning.remove_leaving(catalog, storage).removed
    for wanted, older_than, is_urgent in (
        (int(settings.keep_free), clock.wall() - settings.min_age, False),
        (storage.min_free + soon, math.inf, True),
    ):
        if free_bytes(storage.spool) >= wanted:  # then no destination is touched
            continue
        choice = pruning.Choice(catalog, destinations, older_than, is_urgent)
        while free_bytes(storage.spool) < wanted:
            progress()
            images = choice.next_images()
            if not images:
                break
            catalog.mark_pruned([image.id for image in images], choice.unasked)
            left = pruning.remove_leaving(catalog, storage)
            removed += left.removed
            if not left.freed:  # hard links, or a folder that lets nothing go: more of it would not help
                break
            choice.stuck |= {image.id for image in images} if left.stuck else set()
        troubles |= choice.troubles
    pruning.tell_unasked(catalog, troubles)
    return removed
