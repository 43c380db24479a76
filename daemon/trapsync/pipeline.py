"""An image's life: capture → ingest → deliver → prune.

Read from top to bottom, this is all that happens to an image. Each step is a plain function that can be killed
at any point and called again: a file under its final name is complete, a row in the catalog is true, and
nothing leaves the card without positive proof. Threads, processes, schedules and time belong to
`runtime`, which calls these steps.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trapsync import __version__
from trapsync.cameras import Camera, Frame
from trapsync.clock import Clock, evidence
from trapsync.destinations import Destination, confirmation, next_upload, outcomes
from trapsync.destinations.outcomes import Outcome, Send, Turn
from trapsync.errors import (
    DamagedImage,
    ExaminerKilled,
    IncompleteImage,
    StorageError,
    is_refusal,
    unexpected,
)
from trapsync.files import durable, failpoint
from trapsync.files.space import free_bytes
from trapsync.image import UNKNOWN, Evidence, Found, Image, Reading, TrapName
from trapsync.jpeg import exif
from trapsync.settings.schema import Prune, Settings, Storage
from trapsync.spool import missing, new_files, pruning, spool_mark
from trapsync.spool.not_taken_in import Seen, skip_on_bug
from trapsync.spool.quarantine import NO_TEXT, inspect, is_text, put_back_changed, quarantine, stuck
from trapsync.spool.scan import scan, stat_file, why_unreadable
from trapsync.spool.undecided import UndecidedFiles

if TYPE_CHECKING:  # the camera's process runs `capture` and need not load SQLite for it
    from trapsync.catalog import Catalog

log = logging.getLogger(__name__)

# Examines files one by one: `runtime.examiners` does so in worker processes, whatever a file does to them. An error that is
# no DamagedImage says nothing about the file: the card does not show it, or our own program failed.
Examiner = Callable[[Iterable[Found]], Iterator[tuple[Found, Image | Exception]]]

# A folder that is never there: an image that is off the card has its path below this one.
_NOWHERE = ".off-the-card"

# What became of uploads is recorded in one commit for so many, or after so many seconds.
_COMMIT_MAX, _COMMIT_AFTER = 16, 2.0


# ── Capture ──────────────────────────────────────────────────────────────────────────────────────────


def capture(
    camera: Camera,
    settings: Settings,
    device: str,
    clock: Clock,
    taken: Container[str] = (),
    reading: Reading = UNKNOWN,
    inspect: Callable[[Frame], object] = lambda _frame: None,
    offset: tzinfo = UTC,
    deployment: str = "",
) -> str:
    """Take one picture, store it durably in the spool, and return its path there.

    When this returns, the image survives a power cut. Runs in the camera's own process. `taken` are names
    of images that have left the card, `reading` is what the sensors measured, `inspect` is called with the
    frame before it is stored, `offset` is that of its EXIF's times from UTC, `deployment` the id of its deployment. Raises
    CameraError, or StorageError when the card is too full or refuses, or the spool is another one than last time.
    """
    # Below the mount point of a disk that is not mounted, a picture would be hidden once it is.
    spool_mark.check(settings.storage)

    # A card that is nearly full stops the trap here: what is not delivered yet needs its room.
    new_files.require_space(settings.storage)

    # The second of the exposure is the image's name for life. If the clock was stepped back onto
    # seconds that are taken, the name moves on; what the clock really showed stays in the evidence.
    with camera.ready():  # this may take seconds, which do not belong to the exposure
        seen = evidence(clock)
        name = new_files.free_name(settings.storage.spool, device, seen.wall, taken)
        frame = camera.capture(name.taken)
        inspect(frame)

    # Once more: an exposure takes its time, and a disk may have been unmounted since.
    spool_mark.check(settings.storage)

    # Everything is put together in memory and written once: temporary name, flush, final name, flush.
    # If an image whose time was corrected has got that name meanwhile, this one takes the next.
    while True:
        name = new_files.free_name(settings.storage.spool, device, name.taken.timestamp(), taken)
        facts = replace(_facts(settings, offset, name, frame, seen, reading), deployment=deployment)
        jpeg = exif.embed_metadata(frame.jpeg, facts)
        path = f"{name.folder}/{name}"
        with suppress(FileExistsError):
            durable.write(settings.storage.spool / path, [jpeg], replace=False)
            break
    failpoint.hit("capture: stored")
    return path


def _facts(
    settings: Settings, offset: tzinfo, name: TrapName, frame: Frame, seen: Evidence, reading: Reading
) -> exif.Facts:
    trap = settings.trap
    return exif.Facts(
        format=settings.capture.format,
        taken=name.taken,
        offset=offset,
        device=name.device,
        description=", ".join(filter(None, (trap.name, settings.deployment.location_name))),
        artist=trap.owner,
        copyright=trap.copyright,
        model=frame.model,
        software=f"trapsync {__version__}",
        version=__version__,
        width=frame.width,
        height=frame.height,
        exposure=frame.exposure,
        gain=frame.gain,
        latitude=trap.latitude if trap.has_place else None,
        longitude=trap.longitude if trap.has_place else None,
        altitude=trap.altitude,
        **asdict(reading),
        evidence=seen,
    )


# ── Ingest ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Ingested:
    """What became of some files: how many were new images or damaged, and the paths to try again `later`.

    `failed` are those on which our own program failed: they stay in the spool, for a later sweep.
    """

    new: int = 0
    damaged: int = 0
    failed: int = 0
    later: list[str] = field(default_factory=list)


def sweep(catalog: Catalog, storage: Storage, offer: Callable[[str], None]) -> Seen:
    """Scan the spool, offer every file that the catalog does not know as it is, and return what was seen.

    This, not the observer, is what finds every file. Files that somebody removed are forgotten. Damaged
    ones that were finished in quarantine are put back first; those that could not be moved there are
    offered again when the daemon restarts, and not before. StorageError when the spool is another one
    than last time: then no file counts as removed.
    """
    spool_mark.check(storage)
    kept = inspect(catalog, storage)
    put_back_changed(catalog, storage, kept)
    is_stuck = stuck(kept)
    spool, seen, listed, closed = storage.spool, Seen(), set(), []
    new: list[tuple[int, int]] = []
    unseen: list[tuple[str, dict[str, tuple[int, int]]]] = []
    for folder, files in scan(spool, seen):
        if files is None:
            closed.append(f"{folder}/")
            continue
        listed.add(folder)
        with skip_on_bug(folder, partial(seen.failed.add, folder)):
            # A folder's name that is no text is not in the catalog: what lies there goes to quarantine.
            known = catalog.images.known_in(folder) if is_text(folder) else {}
            for found in files:
                if known.pop(found.name, None) != (found.size, found.mtime_ns) and not is_stuck(found):
                    offer(found.path)
                    new.append((found.size, found.mtime_ns))
            if known:
                unseen.append((folder, known))
    gone = [
        folder
        for folder in set(catalog.images.folders()) - listed
        if not f"{folder}/".startswith(tuple(closed))
    ]
    unseen += [(folder, catalog.images.known_in(folder)) for folder in gone]
    # What may only have moved, because its folder was renamed, is forgotten once the new file was examined.
    moved = set(new)
    for folder, known in unseen:
        with skip_on_bug(folder, partial(seen.failed.add, folder)):
            names = [name for name, what in known.items() if what not in moved]
            missing.forget(catalog, storage, folder, names)
    seen.offered += len(new)
    return seen


def ingest(
    catalog: Catalog,
    storage: Storage,
    paths: Iterable[str],
    examiner: Examiner,
    undecided: UndecidedFiles,
    clock: Clock,
) -> Ingested:
    """Examine files of the spool and record them: images in the catalog, damaged ones in quarantine.

    A file that changed while it was read, or is not finished, comes back in `later`. One that cannot be read, examined or
    recorded, or whose examiner was killed, stays in the spool, and is tried again when a sweep offers it after a pause.
    """
    result, whole = Ingested(), []

    def failed(found: Found, reason: str) -> None:
        result.failed += 1
        undecided.failed(found, reason, clock.monotonic())

    unknown = _unknown(catalog, storage, paths, undecided, clock, result, failed)
    for found, outcome in _examined(examiner, unknown, undecided):
        with skip_on_bug(found.path, partial(failed, found)):
            now = clock.monotonic()
            # Somebody is still writing to it, or has removed it.
            if _stat(storage.spool, found.path) != found:
                result.later.append(found.path)
            elif isinstance(outcome, Image):
                whole.append((found, outcome))
            # A file without its end may still be being written: wait until it is stable.
            elif isinstance(outcome, IncompleteImage) and not undecided.is_stable(found, now):
                result.later.append(found.path)
            # Who killed its examiner? If that happens again, to this file alone: the file.
            elif isinstance(outcome, ExaminerKilled) and not undecided.is_killed_too_often(found, now):
                log.warning("%s; %r stays in the spool for now", outcome, found.path)
            elif isinstance(outcome, DamagedImage):
                quarantine(catalog, storage, found, str(outcome))
                undecided.forget(found.path)
                result.damaged += 1
            # The card does not let it be read: then it may be read later, and the others can be.
            elif isinstance(outcome, StorageError):
                undecided.failed(found, str(outcome), now)
            else:
                failed(found, unexpected(outcome))
    _add(catalog, storage.spool, whole, result, undecided, failed)
    return result


def _unknown(
    catalog: Catalog,
    storage: Storage,
    paths: Iterable[str],
    undecided: UndecidedFiles,
    clock: Clock,
    result: Ingested,
    failed: Callable[[Found, str], object],
) -> list[Found]:
    """Choose the files that are to be examined now; one whose name is no text goes to quarantine unread."""
    unknown = []
    for path in paths:
        found = _stat(storage.spool, path)
        if found is None:
            undecided.forget(path)
            continue
        with skip_on_bug(path, partial(failed, found)):
            now = clock.monotonic()
            if not is_text(path):  # neither the catalog nor a server could ever name it
                quarantine(catalog, storage, found, NO_TEXT)
                result.damaged += 1
            elif catalog.images.is_known(found):
                undecided.forget(path)
            elif reason := why_unreadable(storage.spool, path):
                undecided.unreadable(found, reason, now)
            elif not undecided.is_paused(found, now):
                unknown.append(found)
    return unknown


def _examined(
    examiner: Examiner, files: list[Found], undecided: UndecidedFiles
) -> Iterator[tuple[Found, Image | Exception]]:
    """Examine these files together; those at which an examiner was killed before last, and each alone."""
    suspects = [found for found in files if undecided.is_suspect(found)]
    yield from examiner(found for found in files if found not in suspects)
    for found in suspects:
        yield from examiner([found])


def _add(
    catalog: Catalog,
    spool: Path,
    whole: list[tuple[Found, Image]],
    result: Ingested,
    undecided: UndecidedFiles,
    failed: Callable[[Found, str], object],
) -> None:
    """Add these images in one commit, since a card is slow at flushes; one by one if that fails for one of them."""
    fit, moved = [], []
    for found, image in whole:
        with skip_on_bug(found.path, partial(failed, found)):
            moved += missing.moved_from(catalog, spool, found, image)
            fit.append((found, image))
    try:
        result.new = catalog.images.add(fit, moved) if fit else 0
        added = fit
    except Exception as error:
        if is_refusal(error):
            raise
        added = []
        for found, image in fit:
            with skip_on_bug(found.path, partial(failed, found)):
                moved = missing.moved_from(catalog, spool, found, image)
                result.new += catalog.images.add([(found, image)], moved)
                added.append((found, image))
    for found, _ in added:
        undecided.forget(found.path)


def _stat(spool: Path, path: str) -> Found | None:
    """Look up one file of many: what the card cannot show now must not keep the others waiting."""
    try:
        return stat_file(spool, path)
    except StorageError as error:
        log.error("%s; the next sweep offers it again", error)
        return None


# ── Deliver ──────────────────────────────────────────────────────────────────────────────────────────


class Uploads(Protocol):
    """Images that are being sent to one destination, several at a time: see `runtime.upload_pool`."""

    @property
    def has_room(self) -> bool:
        """Whether one more upload can be started."""

    @property
    def is_busy(self) -> bool:
        """Whether there is an image that `finished` has not returned yet."""

    def start(self, images: Sequence[Image], send: Send) -> None:
        """Send images in the background, as one upload."""

    def finished(self, within: float) -> tuple[Image, Outcome] | None:
        """Wait for an upload that ends within so many seconds; what became of one of its images. None if none does."""

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
    turn = Turn(is_patient=not catalog.deliveries.attempts(destination.name))
    try:
        turn.place = confirmation.record_place(catalog, destination)
        pruning.unmark_withdrawn(catalog, spool)
        while images := _due(catalog, destination, destination.batch):
            progress(0.0)
            # Ask before sending: it may have arrived although we were never told.
            known = confirmation.ask_for_each(destination.find_existing, images)
            outcomes.record(catalog, destination, turn, [(i, known[i.id]) for i in images if i.id in known])

            # Send the rest. Those in flight when trouble came may have arrived, and are recorded before it is raised.
            unknown = [image for image in images if image.id not in known]
            off_card = catalog.deliveries.off_card(image.id for image in unknown)
            send = partial(_send, destination, spool, off_card)
            _send_all(catalog, destination, turn, images, unknown, send, clock, uploads, progress)
            if turn.trouble:
                raise turn.trouble
            catalog.deliveries.destination_answered(destination.name)
        if outcomes.follow_up(catalog, destination, turn):
            catalog.deliveries.destination_answered(destination.name)
    except Exception as error:
        turn.trouble = outcomes.trouble(catalog, destination, turn, error)
        confirmation.back_off(catalog, destination, turn.trouble)
    return turn


def _send_all(
    catalog: Catalog,
    destination: Destination,
    turn: Turn,
    batch: list[Image],
    unknown: list[Image],
    send: Send,
    clock: Clock,
    uploads: Uploads,
    progress: Callable[[float], object],
) -> None:
    """Send the unknown images of a batch, of each identity one, and record what became of them."""
    waiting = deque(_one_of_each_identity(unknown))
    ended: list[tuple[Image, Outcome]] = []
    recorded_at = clock.monotonic()
    while waiting or uploads.is_busy:
        # Start as many as there is room for; none after trouble. Over a slow link a batch takes hours: a new
        # picture that should go before the rest does not wait for it, so the rest is left to the next batch.
        while waiting and uploads.has_room:
            if turn.trouble or _is_overtaken(catalog, destination, batch):
                waiting.clear()
            else:
                uploads.start(next_upload(waiting, destination.deliver_batch), send)

        # Trouble is noted at once, before the next one is started.
        if one := uploads.finished(within=_COMMIT_AFTER):
            ended.append(one)
            outcomes.note_trouble(turn, one[1], clock.monotonic())

        # A burst of deliveries is one commit, and a slow one is recorded at once.
        is_time = clock.monotonic() - recorded_at >= _COMMIT_AFTER
        if is_time or len(ended) >= _COMMIT_MAX or not (waiting or uploads.is_busy):
            progress(uploads.time_left())
            outcomes.record(catalog, destination, turn, ended)
            ended, recorded_at = [], clock.monotonic()


def _one_of_each_identity(images: Sequence[Image]) -> list[Image]:
    """Two of one name are never sent at once: the second is asked about, and sent, after the first."""
    first = {image.place.casefold(): image for image in reversed(images)}
    return list(reversed(first.values()))


def _due(catalog: Catalog, destination: Destination, limit: int) -> list[Image]:
    settings = destination.settings
    return catalog.deliveries.due(destination.name, settings.order, limit, after=settings.depends_on)


def _is_overtaken(catalog: Catalog, destination: Destination, batch: list[Image]) -> bool:
    """Whether the image to send first is none of this batch."""
    first = _due(catalog, destination, 1)
    return bool(first) and first[0].id not in {image.id for image in batch}


def _send(
    destination: Destination, spool: Path, off_card: Container[int], images: Sequence[Image]
) -> Mapping[int, Outcome]:
    # Of one that is off the card, another image may have the path by now: that is not its file.
    files = [(i, spool / (_NOWHERE if i.id in off_card else "") / i.path) for i in images]
    answers = destination.deliver_all(files)
    failpoint.hit("deliver: confirmed")
    return answers


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
    if catalog.images.leaving_files():
        confirmation.record_places(catalog, [one for one in destinations if one.settings.required])
    removed = pruning.remove_marked(catalog, storage).removed
    for wanted, older_than, is_urgent in (
        (int(settings.keep_free), clock.wall() - settings.min_age, False),
        (storage.min_free + soon, math.inf, True),
    ):
        if free_bytes(storage.spool) >= wanted:  # then no destination is touched
            continue
        candidates = pruning.Candidates(catalog, destinations, older_than, is_urgent)
        while free_bytes(storage.spool) < wanted:
            progress()
            images = candidates.next_images()
            if not images:
                break
            catalog.proofs.mark_pruned([image.id for image in images], candidates.unasked)
            left = pruning.remove_marked(catalog, storage)
            removed += left.removed
            if not left.freed:  # hard links, or a folder that lets nothing go: more of it would not help
                break
            candidates.stuck |= {image.id for image in images} if left.stuck else set()
        troubles |= candidates.troubles
    pruning.report_unasked(catalog, troubles)
    return removed
