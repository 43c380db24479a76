"""Clock correction: the right times for images that were taken before the clock was set.

A trap without a battery behind its clock boots days in the past. What it takes until the clock is set is
*held*: kept and counted as pending, but delivered to nobody. Each image carries the evidence of its moment, and once the
clock can be trusted in the same boot, `monotonic + offset` is its true time. Like the steps of the
pipeline, `correct_times` can be killed at any point and called again.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from trapsync.catalog import Catalog, facts
from trapsync.catalog.rows import TIMINGS
from trapsync.clock import Clock, iso, utc
from trapsync.errors import DamagedImage, StorageError
from trapsync.files import failpoint
from trapsync.image import Correction, Found, Image, TrapName
from trapsync.net import backoff
from trapsync.settings.schema import Storage, Trap
from trapsync.spool import pruning
from trapsync.spool.scan import stat_file

log = logging.getLogger(__name__)

# How the service writes corrected images: in a worker process, where EXIF is dealt with.
Rewriter = Callable[
    [Iterable[Correction]], Iterator[tuple[Correction, Image | DamagedImage | FileExistsError]]
]

_CLOSE_ENOUGH = 2.0  # seconds by which a name may differ from the true time
_BATCH = 16  # images that are corrected with three flushes of the catalog
_THINKABLE = range(253_370_764_800)  # unix seconds until the year 9999
_FIRST_WAIT, _LONGEST_WAIT = 600.0, 86400.0  # seconds until an image that failed is tried again


class Failures:
    """Images whose times could not be corrected: each is tried again, less and less often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tries: dict[int, tuple[int, float]] = {}
        self._reasons: dict[int, str] = {}

    def note(self, image: Image, reason: str) -> None:
        """Note that an image failed once more, and why."""
        attempts = self._tries.get(image.id, (0, 0.0))[0] + 1
        wait = backoff.wait(attempts, first=_FIRST_WAIT, longest=_LONGEST_WAIT)
        self._tries[image.id] = attempts, self._clock.monotonic() + wait
        self._reasons[image.id] = f"{image.name}: {reason}"
        log.error("the time of %s; next attempt in %.0f s", self._reasons[image.id], wait)

    def keep_only(self, image_ids: set[int]) -> None:
        """Forget all others: they were corrected, or taken from the card."""
        for image_id in self._tries.keys() - image_ids:
            del self._tries[image_id], self._reasons[image_id]

    def waiting(self) -> set[int]:
        """Return the ids of those that are to be left alone for now."""
        now = self._clock.monotonic()
        return {image_id for image_id, (_, due) in self._tries.items() if due > now}

    def told(self) -> facts.Stopped | None:
        """Return for `status` how many there are, and what is wrong with one; None if there are none."""
        if not self._reasons:
            return None
        return facts.Stopped(len(self._reasons), next(iter(self._reasons.values())))


def correct_times(
    catalog: Catalog, storage: Storage, trap: Trap, rewrite: Rewriter, failures: Failures
) -> int:
    """Correct the times of a batch of held images, and return how many are held no longer; repeat until 0.

    `failures` are the images that could not be written anew; the caller keeps them for the next time.
    Raises StorageError when the card has no room for the new file of an image.
    """
    # The first moment of this boot that can be trusted says what its clock lacked before. Another boot's
    # may be found in its images, if the catalog was lost since.
    catalog.times.note_boot()
    catalog.times.learn_offsets()
    catalog.deployments.correct_times()

    # A file that was corrected before, and is there again as it was, is the same image.
    if twins := catalog.times.drop_twins():
        log.warning("%d images were here again as they were before their times were corrected", twins)

    # With a clock that is always to be trusted, what it showed is right.
    if trap.clock == "trusted":
        pruning.remove_marked(catalog, storage, only_corrected=True)
        return catalog.times.confirm_times()

    # Killed in the middle, the announcement stands: the same images come first, with the same names.
    pruning.remove_marked(catalog, storage, only_corrected=True)
    images = _next_images(catalog, failures)
    right, wrong = _sort(catalog, storage.spool, images)
    _withdraw_others(catalog, wrong)
    done = catalog.times.confirm_times(right)
    if wrong:
        catalog.times.announce(wrong)
        failpoint.hit("correction: announced")
        done += _correct(catalog, storage, rewrite, wrong, failures)

    catalog.facts.set("times", failures.told())

    # A boot that ended before its clock was set will not be known any better.
    if given_up := catalog.times.give_up():
        log.warning(
            "%d images of a boot that ended before the clock was set: their times are unsure", given_up
        )
    if trap.uncertain_times == "deliver":
        done += catalog.times.release_unsure()
    return done


def _next_images(catalog: Catalog, failures: Failures) -> list[tuple[Image, float, float]]:
    """Return a batch of held images whose times can be known now: each with its offset, and when that was known."""
    waiting = failures.waiting()
    limit = _BATCH + len(waiting)
    images = catalog.times.correctable(limit)
    if len(images) < limit:
        failures.keep_only({image.id for image, _, _ in images})
    return [one for one in images if one[0].id not in waiting and int(_taken(*one[:2])) in _THINKABLE]


def _taken(image: Image, offset: float) -> float:
    assert image.evidence
    return image.evidence.monotonic + offset


def _sort(
    catalog: Catalog, spool: Path, images: list[tuple[Image, float, float]]
) -> tuple[list[int], list[Correction]]:
    """Return the ids of those whose time is right, and the corrections of the others, with their new names."""
    announced = catalog.times.announced()
    right: list[int] = []
    wrong: list[Correction] = []
    chosen = {str(name) for name in announced.values()}
    for image, offset, trusted_at in images:
        assert image.trap_name
        taken = _taken(image, offset)
        if abs(image.trap_name.taken.timestamp() - taken) < _CLOSE_ENOUGH:
            right.append(image.id)
            continue
        name = announced.get(image.id) or _free_name(catalog, spool, image.trap_name.device, taken, chosen)
        chosen.add(str(name))
        wrong.append(Correction(image, name, offset, trusted_at))
    return right, wrong


def _withdraw_others(catalog: Catalog, wrong: list[Correction]) -> None:
    """Withdraw what was announced for images that are not corrected now: their files were taken from the card."""
    for image_id in catalog.times.announced().keys() - {one.image.id for one in wrong}:
        catalog.times.withdraw(image_id)


def _free_name(catalog: Catalog, spool: Path, device: str, taken: float, chosen: set[str]) -> TrapName:
    """Return the name for that moment, or for the nearest second that no other image has."""
    for shift in chain.from_iterable((n, -n) for n in count()):
        name = TrapName(device, utc(int(taken) + shift))
        is_used = str(name) in chosen or catalog.times.is_taken(str(name))
        if not is_used and not os.path.lexists(spool / name.folder / str(name)):
            return name
    raise AssertionError("there are more seconds than images")


def _correct(
    catalog: Catalog, storage: Storage, rewrite: Rewriter, wrong: list[Correction], failures: Failures
) -> int:
    """Write these images anew, replace the old ones in the catalog, and delete their files."""
    written: list[tuple[Correction, Found, Image]] = []
    full: StorageError | None = None
    try:
        for one, outcome in rewrite(wrong):
            found = stat_file(storage.spool, one.path)
            if isinstance(outcome, Image) and found and found.size == outcome.size:
                written.append((one, found, outcome))
                continue
            # Another file may have the name by now: next time the image gets another.
            catalog.times.withdraw(one.image.id)
            if isinstance(outcome, DamagedImage):
                failures.note(one.image, str(outcome))
    except StorageError as error:  # what was written until now counts, and makes room
        full = error
    failpoint.hit("correction: written")
    catalog.times.correct(written)
    failpoint.hit("correction: recorded")
    pruning.remove_marked(catalog, storage, only_corrected=True)
    for one, _, image in written:
        log.info("corrected the time of %s: it is %s", one.image.name, image.name)
    if full:
        raise full
    return len(written)


# ── For people ───────────────────────────────────────────────────────────────────────────────────────


def bounds(boots: list[dict[str, Any]], boot_id: str, monotonic: float) -> tuple[float | None, float | None]:
    """Return between which moments an image of a boot was taken, from its neighbours; None where none is known.

    `boots` is `catalog.times.boots()`. An earlier boot whose clock was set bounds it from below, a later one from
    above; that a boot ran for some time before its last image counts too.
    """
    ordered = [boot for boot in boots if boot["number"] or boot["boot_id"] == boot_id]
    here = next(n for n, boot in enumerate(ordered) if boot["boot_id"] == boot_id)
    earliest = latest = None
    for boot in ordered[:here] if ordered[here]["number"] else ():
        if boot["clock_offset"] is not None:
            earliest = max(boot["trusted_at"], boot["clock_offset"] + boot["last"])
        elif earliest is not None:
            earliest += boot["last"]
    for boot in reversed(ordered[here + 1 :]):
        if boot["clock_offset"] is not None:
            latest = boot["clock_offset"]
        elif latest is not None:
            latest -= boot["last"]
    return (
        None if earliest is None else earliest + monotonic,
        None if latest is None else latest - (ordered[here]["last"] - monotonic),
    )


def bounds_in_words(boots: list[dict[str, Any]], boot_id: str, monotonic: float) -> dict[str, str | None]:
    """Return the same as UTC text: `not_before` and `not_after`."""
    earliest, latest = bounds(boots, boot_id, monotonic)
    return {"not_before": moment(earliest), "not_after": moment(latest)}


def snapshot(catalog: Catalog, clock: Clock, trusted_by: str) -> dict[str, Any]:
    """Return what is known of the clock and of the times of images, for `trapsync clock`. Moments are UTC text."""
    boots = catalog.times.boots()
    return {
        "now": iso(utc(clock.wall())),
        "trusted": bool(trusted_by),
        "trusted_by": trusted_by or None,
        "boot_id": clock.boot_id(),
        "images": {name: sum(boot[name] for boot in boots) for name in TIMINGS},
        "boots": [_boot(boots, boot, clock.boot_id()) for boot in boots],
    }


def _boot(boots: list[dict[str, Any]], boot: dict[str, Any], this_boot: str) -> dict[str, Any]:
    """Return when a boot began, if that is known, and otherwise between which moments its images were taken."""
    offset, earliest, latest = boot["clock_offset"], None, None
    if offset is None:
        earliest, latest = (
            bounds(boots, boot["boot_id"], 0)[0],
            bounds(boots, boot["boot_id"], boot["last"])[1],
        )
    return {
        "boot_id": boot["boot_id"],
        "is_this": boot["boot_id"] == this_boot,
        "offset_s": None if offset is None else round(offset, 3),
        "began": moment(offset),
        "trusted_at": moment(boot["trusted_at"]),
        "not_before": moment(earliest),
        "not_after": moment(latest),
        "images": {name: boot[name] for name in TIMINGS},
    }


def moment(at: float | None) -> str | None:
    """Format a moment as UTC text; None stays None."""
    return None if at is None else iso(utc(at))
