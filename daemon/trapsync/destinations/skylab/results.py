"""What Skylab made of the images of a job, brought to the card: asked for now and then, never called for."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from trapsync.destinations import DestinationContext
from trapsync.destinations.object_storage import Storage, confirmed_md5
from trapsync.destinations.skylab.api import Api, address_in
from trapsync.destinations.skylab.jobs import FINISHED, UNDER_WAY, Job, state_of
from trapsync.destinations.skylab.rules import result_place
from trapsync.errors import StorageError, TrapsyncError
from trapsync.files import durable, failpoint
from trapsync.net.http_answer import Answer

log = logging.getLogger(__name__)

# By how a file begins: what its content type says depends on how it was laid into the storage.
_BEGINNINGS = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"RIFF", ".webp"))
_LARGEST = 128 * 2**20  # bytes of one result
_LONGEST = 1200.0  # seconds for one; the daemon's watchdog waits for half an hour
_TURN = 300.0  # seconds after which no further one is begun in a turn
_TRIES = 5  # looks at a finished job before what is missing is given up
_GIVEN_UP = 30 * 86400.0  # seconds after a night, whatever its job's state
_SPARE = 100_000_000  # bytes that stay free beyond what capture needs


class Results:
    """The results of all jobs, below one folder of the state."""

    def __init__(self, api: Api, storage: Storage, context: DestinationContext) -> None:
        self._api = api
        self._storage = storage
        self._folder = context.results
        self._room = context.room
        self._clock = context.clock
        self._tries = Counter[str]()

    def collect(self, job: Job) -> bool:
        """Look how far a job is, and fetch what it has; whether that was the end of it. Raises Unreachable."""
        row = self._api.job(job.id)
        if row is None:
            log.warning("the job %s is gone: its results are not to be had any more", job.name)
            return True
        if state_of(row) in UNDER_WAY:
            return False
        is_finished = state_of(row) in FINISHED or row.get("processed") is True
        missing = self._fetch_all(job, is_finished=is_finished)
        if not missing:
            log.info("all results of the job %s are in %s", job.name, self._folder)
            return True
        self._tries[job.name] += is_finished and missing > 0
        if self._tries[job.name] < _TRIES and not self._is_old(job):
            return False
        log.warning("%d results of the job %s were not to be had", missing, job.name)
        return True

    def _is_old(self, job: Job) -> bool:
        return bool(job.until and self._clock.trusted() and self._clock.wall() > job.until + _GIVEN_UP)

    def _fetch_all(self, job: Job, *, is_finished: bool) -> int:
        """Fetch what is not here yet; how many could not be had. -1: there was no time or room for all."""
        ends = self._clock.monotonic() + _TURN
        missing = 0
        for photo in self._api.photos(job.id):
            place = self._folder / result_place(str(photo.get("name")))
            if any(place.with_name(place.name + suffix).exists() for _, suffix in _BEGINNINGS):
                continue
            if self._clock.monotonic() > ends or self._room() < _SPARE:
                log.warning("not all results of the job %s could be fetched yet", job.name)
                return -1
            url = address_in(photo, "retouchedUrl")
            if not url and is_finished:
                url = address_in(self._api.photo(photo["id"]), "retouchedUrl")
            missing += not (url and self._fetch(url, place))
        return missing

    def _fetch(self, url: str, place: Path) -> bool:
        """Fetch one; whether it could be had."""
        with self._storage.fetched(url, _LONGEST, _LARGEST) as (answer, pieces):
            if answer.status != 200:
                log.warning("the result for %s is not to be had: %s", place.name, answer)
                return False
            try:
                self._keep(place, answer, pieces)
            except (_NoPicture, StorageError) as error:
                log.warning("the result for %s was not kept: %s", place.name, error)
                return False
        failpoint.hit("skylab: result kept")
        return True

    def _keep(self, place: Path, answer: Answer, pieces: Iterator[bytes]) -> None:
        """Write it beside the others, whole or not at all."""
        beginning = b""
        while len(beginning) < 12 and (piece := next(pieces, b"")):
            beginning += piece
        suffix = next((suffix for start, suffix in _BEGINNINGS if beginning.startswith(start)), None)
        if suffix is None:
            raise _NoPicture(f"{answer}, and that is no picture")
        digest = hashlib.md5(usedforsecurity=False)

        def hashed() -> Iterator[bytes]:
            for piece in chain([beginning], pieces):
                digest.update(piece)
                yield piece

        def verify(_: Path) -> None:
            told = confirmed_md5(answer)
            if told and told != digest.hexdigest():
                raise _NoPicture(f"{answer.host} sent other bytes than it has")

        durable.write(place.with_name(place.name + suffix), hashed(), verify=verify)


class _NoPicture(TrapsyncError):
    """What came is not what was asked for."""
