"""The jobs of a trap at Skylab: which one an image goes into, what lies in it, and when it is submitted.

A job is for one night or one deployment. It is open until all that belongs to it has arrived; from the moment
that it may have been submitted, nothing goes into it any more: what comes late goes into another, `…-2`.
What a job is, and which photos were made but never confirmed, stands in notes; both can be asked for
again by name when those are lost.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trapsync.destinations import DestinationContext, http_service
from trapsync.destinations.skylab.api import Api, address_in
from trapsync.destinations.skylab.rules import is_rival, job_name, night, photo_name
from trapsync.errors import Failed, Unreachable
from trapsync.files import failpoint
from trapsync.image import Image

log = logging.getLogger(__name__)

# A list of the photos in a job is one answer, without pages, and is read whole.
_MOST_PHOTOS = 1000
_LONGEST_STATE = 60  # characters
_MOST_LISTS = 4
# How long an address in a list is good for; it is not documented, and S3's shortest is a quarter of an hour as a rule.
_ADDRESS_LIFE = 300.0
# After noon, this long for the last pictures of the night to be found in the spool.
_LAST_PICTURES = 1800.0

# full: not submitted yet, but takes no more; closing: it may have been submitted; queued: it was; done: nothing
# is left to do for us.
Stage = Literal["open", "full", "closing", "queued", "done"]

# What the states are called is not written anywhere; these are words that its clients use in passing.
FINISHED = {"completed", "complete", "processed"}
UNDER_WAY = {"queued", "processing", "in_progress"}
_SUBMITTED = FINISHED | UNDER_WAY | {"cancelled", "canceled", "failed"}


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `fresh` is the state that the service gave it when it was new, if any; `since` and `until`
    are its night (unix seconds), None for a deployment, which the operator submits."""

    name: str
    id: int
    is_regular: bool
    stage: Stage
    fresh: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in a job. `address` is where its bytes were as of `seen` (monotonic seconds), if that was told."""

    id: int
    address: str = ""
    seen: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """What a job is for: the night's date, or the deployment's name."""

    what: str
    since: float | None = None
    until: float | None = None


class Jobs:
    """All of them. May be used from several threads; those that need a job wait for the first to find it."""

    def __init__(self, api: Api, profile: int, deployment: str, context: DestinationContext) -> None:
        self._api = api
        self._profile = profile
        self._deployment = deployment  # "": a job for each night
        self._context = context
        self._lock = threading.RLock()
        self._absences = http_service.Absences(context.clock)
        self._done: set[str] = set()
        self._lists: OrderedDict[int, dict[str, Photo]] = OrderedDict()

    # --- Which job --------------------------------------------------------------------------------------

    def span(self, image: Image, modified: float | None) -> Span | None:
        """What an image belongs to; None for a foreign one whose file is not at hand and that never came here."""
        if self._deployment:
            return Span(self._deployment)
        if found := night(image, modified, self._context.zone):
            return Span(str(found), found.since, found.until)
        what = self._context.note(f"place:{image.sha256}")
        return Span(what) if what else None

    def all_of(self, span: Span) -> list[Job]:
        """All jobs that there are for it, in the order in which they were made."""
        with self._lock:
            jobs: list[Job] = []
            while not jobs or jobs[-1].stage != "open":
                name = job_name(self._context.device, span.what, len(jobs) + 1)
                if not (job := self._get(name) or self._adopt(name, span)):
                    break
                jobs.append(job)
            return jobs

    def open_for(self, span: Span) -> Job:
        """The job that takes more images of it; made if there is none."""
        with self._lock:
            jobs = self.all_of(span)
            if jobs and jobs[-1].stage == "open":
                if len(self.photos(jobs[-1])) < _MOST_PHOTOS:
                    return jobs[-1]
                self.move(jobs[-1], "full")
            return self._create(job_name(self._context.device, span.what, len(jobs) + 1), span)

    def unfinished(self) -> list[Job]:
        """Every job with which something is still to be done."""
        names = [key.removeprefix("job:") for key in self._context.note_keys("job:")]
        jobs = [job for name in names if name not in self._done and (job := self._get(name))]
        self._done |= {job.name for job in jobs if job.stage == "done"}
        return [job for job in jobs if job.stage != "done"]

    def move(self, job: Job, stage: Stage) -> Job:
        """Note that the job has come to this stage."""
        job = replace(job, stage=stage)
        self._context.put_note(f"job:{job.name}", asdict(job))
        return job

    def _get(self, name: str) -> Job | None:
        note = self._context.note(f"job:{name}")
        return Job(**note) if note else None

    def _adopt(self, name: str, span: Span) -> Job | None:
        """A job of this name that there is no note of: made just before a crash, or before the catalog was lost.

        If its night is over it may have been submitted: then it takes nothing any more.
        """
        if name in self._absences:
            return None
        row = self._api.job_by_name(name)
        if row is None:
            self._absences.note([name])
            return None
        job = _job(name, row, span, "open")
        clock = self._context.clock
        is_over = span.until is not None and not (clock.trusted() and clock.wall() < span.until)
        if is_over and self.photos(job):
            return self.move(replace(job, fresh=self._context.note("fresh")), "closing")
        return self.move(job, "open")

    def _create(self, name: str, span: Span) -> Job:
        self._absences.take(name)  # should the answer be lost, it may be there
        job = _job(name, self._api.create_job(name, self._profile), span, "open")
        failpoint.hit("skylab: job created")
        self._context.put_note("fresh", job.fresh)
        self._lists[job.id] = {}
        return self.move(job, "open")

    # --- What lies in it --------------------------------------------------------------------------------

    def photos(self, job: Job) -> Mapping[str, Photo]:
        """The photos of a job by name: asked for once, for no other device uses these names."""
        with self._lock:
            if job.id not in self._lists:
                now = self._context.clock.monotonic()
                self._lists[job.id] = {
                    str(row.get("name")): Photo(row["id"], address_in(row, "originalUrl"), now)
                    for row in self._api.photos(job.id)
                }
                while len(self._lists) > _MOST_LISTS:
                    self._lists.popitem(last=False)
            return self._lists[job.id]

    def is_rivalled(self, job: Job, image: Image) -> bool:
        """Whether another image has its name there. What was made and never got its bytes does not count."""
        with self._lock:
            rivals = [name for name in self.photos(job) if is_rival(name, image)]
        return any(self._context.note(_in_flight(job, name)) is None for name in rivals)

    def address(self, photo: Photo) -> str | None:
        """Where its bytes can be read; "" if that is not told, None if it is not there any more."""
        if photo.address and self._context.clock.monotonic() - photo.seen < _ADDRESS_LIFE:
            return photo.address
        row = self._api.photo(photo.id)
        return None if row is None else address_in(row, "originalUrl")

    def make_photo(self, job: Job, image: Image) -> Photo:
        """The photo for this image, found or made; noted, until `confirm`, before it has any bytes."""
        name = photo_name(image)
        noted = self._context.note(_in_flight(job, name))
        photo = self.photos(job).get(name) or (Photo(noted) if noted else self._make(job, name))
        if noted != photo.id:
            self._context.put_note(_in_flight(job, name), photo.id)
        return photo

    def _make(self, job: Job, name: str) -> Photo:
        try:
            photo = Photo(self._api.create_photo(job.id, name)["id"])
        except Unreachable:
            self.look_again(job)  # it may have been made
            raise
        except Failed:
            self.look_again(job)
            if there := self.photos(job).get(name):
                return there
            self._notice_end(job)
            raise
        failpoint.hit("skylab: photo created")
        with self._lock:
            if job.id in self._lists:
                self._lists[job.id][name] = photo
        return photo

    def confirm(self, job: Job, image: Image, span: Span) -> None:
        """The bytes of its photo are there."""
        if image.trap_name is None and self._context.note(f"place:{image.sha256}") != span.what:
            self._context.put_note(f"place:{image.sha256}", span.what)
        if self._context.note(key := _in_flight(job, photo_name(image))) is not None:
            self._context.forget_note(key)

    def look_again(self, job: Job) -> None:
        """What is known of its photos may not be so any more."""
        with self._lock:
            self._lists.pop(job.id, None)

    def lose(self, job: Job, image: Image) -> None:
        """The photo for this image is not to be had: the next attempt makes another."""
        self._context.forget_note(_in_flight(job, photo_name(image)))
        self.look_again(job)

    def _notice_end(self, job: Job) -> None:
        """A job takes no photo: if it was submitted or removed elsewhere, the next image goes into another."""
        if self._was_submitted(job):
            log.warning("the job %s takes no more: it was submitted or removed elsewhere", job.name)
            self.move(job, "queued")

    # --- Submitting -------------------------------------------------------------------------------------

    def is_complete(self, job: Job) -> bool:
        """Whether its night is over, by a clock that can be trusted, and nothing of it is still to come."""
        if job.since is None or job.until is None or not self._context.clock.trusted():
            return False
        if self._context.clock.wall() < job.until + _LAST_PICTURES or self._context.pending_between(
            job.since, job.until
        ):
            return False
        return bool(self.photos(job))

    def submit(self, job: Job) -> Job:
        """Submit a job, once. Raises Failed when the service says no: then it is as it was.

        A crash, or an answer that was lost, leaves it closing: then its state tells whether it was submitted. If
        there is none to see, it is tried again, and a no means that it was.
        """
        before, job = job, self.move(job, "closing")
        is_doubtful = before.stage == "closing"
        if is_doubtful and self._was_submitted(job):
            return self.move(job, "queued")
        self._remove_empty(job)
        if not self.photos(job):
            return self.move(job, "open")
        try:
            self._api.queue(job.id)
        except Failed as no:
            if not is_doubtful or job.fresh is not None:
                self.move(before, before.stage)
                raise
            log.info("%s is taken to be submitted already: %s", job.name, no)
        failpoint.hit("skylab: job queued")
        return self.move(job, "queued")

    def _remove_empty(self, job: Job) -> None:
        """Remove photos that never got their bytes: their images were refused, damaged or taken away."""
        for key in self._context.note_keys(_in_flight(job, "")):
            self._api.remove_photo(self._context.note(key))
            self._context.forget_note(key)
            self.look_again(job)

    def _was_submitted(self, job: Job) -> bool:
        row = self._api.job(job.id)
        if row is None:
            return True
        return state_of(row) in _SUBMITTED if job.fresh is None else state_of(row) != job.fresh


def _in_flight(job: Job, name: str) -> str:
    """The key of the note about a photo that was made and has no confirmed bytes yet."""
    return f"photo:{job.name}:{name}"


def state_of(row: Mapping[str, Any]) -> str | None:
    """The state that the service gives a job, if it gives one."""
    state = row.get("state")
    return state if isinstance(state, str) and len(state) <= _LONGEST_STATE else None


def _job(name: str, row: Mapping[str, Any], span: Span, stage: Stage) -> Job:
    # All types but one are made in the vendor's own application.
    is_regular = row.get("type", "regular") == "regular"
    return Job(name, row["id"], is_regular, stage, state_of(row), span.since, span.until)
