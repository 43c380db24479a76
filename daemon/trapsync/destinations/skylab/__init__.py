"""Skylab Studio: cut-outs and retouching by the batch. Images go there in jobs, one for each night.

It is no archive: what is there is gone some time after its job was processed. What it proves is that the bytes
arrived: its storage (S3) compares them with the MD5 that is sent along, and gives the MD5 of what it has as
ETag. `api` speaks the protocol, `jobs` knows which job an image goes into and submits jobs,
`results` brings back what was made of the images.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

from trapsync.destinations import (
    DestinationContext,
    Finding,
    Receipt,
    SimpleDestination,
    finding,
    http_service,
)
from trapsync.destinations.object_storage import Storage, confirmed_md5, in_base64
from trapsync.destinations.skylab.api import Api
from trapsync.destinations.skylab.jobs import Job, Jobs, Photo, Span
from trapsync.destinations.skylab.results import Results
from trapsync.destinations.skylab.rules import photo_name, problem
from trapsync.errors import Failed, Refused, TrapsyncError, Unreachable, one_line
from trapsync.files import failpoint
from trapsync.image import Image
from trapsync.net.http import HttpClient
from trapsync.net.http_answer import Answer
from trapsync.net.http_body import FilePiece, opened
from trapsync.settings.table import require_address, within
from trapsync.settings.units import Duration

log = logging.getLogger(__name__)


class Settings(http_service.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "skylab"."""

    required: bool = False
    url: str = "https://studio.skylabtech.ai/api/public/v1"
    key_file: Path
    profile: int
    job: Literal["night", "deployment"] = "night"
    deployment: str = ""
    download: bool = False
    poll_every: Duration = Duration(900)
    timeout: Duration = Duration(120)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        require_address("url", self.url, "https://studio.example/api/public/v1")
        if (self.job == "deployment") != bool(self.deployment):
            raise ValueError(
                'deployment: is the name of the one job that all images go into, and needed with job = "deployment" only'
            )
        if not re.fullmatch("[A-Za-z0-9._-]{0,64}", self.deployment):
            raise ValueError(f"deployment: {self.deployment!r} is not a name of letters, digits, ., - and _")
        within(self, profile=(1, 2**53), poll_every=(60, 86400), timeout=(0.1, 3600))

    @property
    def identity(self) -> str:
        """The service only: the account has no name that we know.

        Its key is none: it is changed when it leaked, and what would then count as another place would process, and
        charge, every image on the card again. A profile is a recipe, and jobs have the same names under each.
        """
        return http_service.identity("skylab", self.url)


def connect(name: str, settings: Settings, context: DestinationContext) -> "Skylab":
    """Make the destination; nothing is sent yet."""
    return Skylab(name, settings, context)


class Skylab(SimpleDestination):
    """One account at Skylab Studio, and one profile of it."""

    # Each that is there already costs a question of its own.
    batch = 64
    keeps = False

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.identity = settings.identity
        self._context = context
        self._client = self._open(settings.url)
        self._storage = Storage(self._open, must_be_safe=settings.url.lower().startswith("https:"))
        self._api = Api(self._client, settings.key_file, f"destinations.{name}.key_file")
        self._jobs = Jobs(self._api, settings.profile, settings.deployment, context)
        self._results = Results(self._api, self._storage, context)
        # When each job is looked at again, in monotonic seconds.
        self._next: dict[str, float] = {}

    def _open(self, url: str) -> HttpClient:
        return http_service.client(url, self.settings, self._context, timeout=self.settings.timeout)

    def close(self) -> None:
        """Close connections."""
        self._client.close()
        self._storage.close()

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """One question for each job that is not known yet, then one or two for each image that has a photo there."""
        answers: dict[int, Receipt | Exception] = {}
        seen: dict[str, Receipt | Exception | None] = {}
        for image in images:
            span = self._jobs.span(image, None)
            if span is None:
                continue
            if photo_name(image) not in seen:
                try:
                    seen[photo_name(image)] = self._look(image, span)
                except Failed as error:  # of its photo only: what is told of it makes no sense
                    seen[photo_name(image)] = error
            if found := seen[photo_name(image)]:
                answers[image.id] = found
        return answers

    def _look(self, image: Image, span: Span) -> Receipt | Refused | None:
        """Whether its bytes are there, or another image's under its name."""
        jobs = self._jobs.all_of(span)
        for job in jobs:
            photo = self._jobs.photos(job).get(photo_name(image))
            if photo and (receipt := self._proof(job, photo, image, span)):
                return receipt
        if any(self._jobs.is_rivalled(job, image) for job in jobs):
            return Refused(
                f"another image is there under the name of {image.name}: both are kept; "
                f"remove the one there, then retry"
            )
        return None

    def _proof(self, job: Job, photo: Photo, image: Image, span: Span) -> Receipt | None:
        """The receipt, if the storage says that it has the image's bytes."""
        if not (address := self._jobs.address(photo)):
            return None
        if self._storage.digest(address) != image.md5:
            return None
        self._jobs.confirm(job, image, span)
        return _receipt(job, photo, image)

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Make a photo for it in the job of its night, and put its bytes there."""
        if reason := problem(image):
            raise Refused(reason)
        with opened(image, path) as file:
            span = self._jobs.span(image, os.fstat(file.fileno()).st_mtime)
            assert span is not None  # the file is at hand
            there = self._look(image, span)
            if isinstance(there, Refused):
                raise there
            if there:
                return there
            job = self._jobs.open_for(span)
            photo = self._jobs.make_photo(job, image)
            answer = self._put(job, photo, image, file)
        receipt = self._read_answer(job, photo, image, answer)
        self._jobs.confirm(job, image, span)
        return receipt

    def _put(self, job: Job, photo: Photo, image: Image, file: BinaryIO) -> Answer:
        """Put the bytes to a fresh address; to another one if that is refused, for it may have expired meanwhile."""
        for _ in (1, 2):
            try:
                url = self._api.upload_url(photo.id, image.md5)
            except Failed:
                self._jobs.lose(job, image)
                raise
            piece = FilePiece(file, image.size, image.md5)
            answer = self._storage.put(url, piece, _headers(job, image))
            failpoint.hit("skylab: bytes sent")
            if answer.status not in {401, 403}:
                return answer
        raise Failed(f"{answer.host} refuses even a new address ({answer.status})")

    def _read_answer(self, job: Job, photo: Photo, image: Image, answer: Answer) -> Receipt:
        if answer.status in {400, 413}:
            raise Failed(f"{answer.host} did not take it ({answer.status})")
        if answer.status != 200:
            raise Unreachable(str(answer))
        if answer.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
            # It has compared the bytes with Content-MD5 all the same, but tells no digest.
            return replace(_receipt(job, photo, image), digest=f"echo:{image.sha256}")
        told = confirmed_md5(answer)
        if told is None:
            raise Unreachable(f"{answer}, and confirmed no digest{answer.portal}")
        if told != image.md5:
            raise Failed(f"{answer.host} confirmed another digest: {told}")
        return _receipt(job, photo, image)

    # --- Beyond single images ---------------------------------------------------------------------------

    def follow_up(self) -> bool:
        """Submit the jobs of nights that are complete, and fetch results now and then."""
        asked = False
        now = self._context.clock.monotonic()
        for job in self._jobs.unfinished():
            if self._next.get(job.name, 0.0) > now:
                continue
            if job.stage == "closing" or (job.stage in {"open", "full"} and self._jobs.is_complete(job)):
                self._submit(job)
            elif job.stage == "queued":
                self._collect(job)
            else:
                continue
            self._next[job.name] = now + self.settings.poll_every
            asked = True
        return asked

    def _submit(self, job: Job) -> None:
        try:
            job = self._jobs.submit(job)
        except Failed as error:  # of this job's only: the images go on
            log.warning("%s: the job %s cannot be submitted: %s", self.name, job.name, error)
            return
        if job.stage == "queued":
            log.info("%s: the job %s is submitted", self.name, job.name)
            if not self.settings.download:
                self._jobs.move(job, "done")

    def _collect(self, job: Job) -> None:
        try:
            if self.settings.download and not self._results.collect(job):
                return
        except Failed as error:
            log.warning("%s: the results of the job %s cannot be fetched yet: %s", self.name, job.name, error)
            return
        self._jobs.move(job, "done")

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the key is taken and the profile is there; and what to know of a destination like this."""
        settings = self.settings
        try:
            profile = self._api.profile(settings.profile)
        except TrapsyncError as error:
            return [finding(self.name, error)]
        called = one_line(profile.get("name"), 60)
        text = (
            f"{settings.url} takes the key; profile {settings.profile} is {called!r}. It takes images up to "
            f"27 MiB, 6400 pixels a side and 27 megapixels; each job that is submitted costs credits"
        )
        findings = [Finding("ok", self.name, text)]
        if settings.required:
            text = "required = true: it proves that images arrived, and keeps them for a while only; require another too"
            findings.append(Finding("warning", self.name, text))
        return findings


def _headers(job: Job, image: Image) -> dict[str, str]:
    """What is signed with an address to upload to: the tags must be there for jobs of the type "regular" only."""
    tags = {"X-Amz-Tagging": "job=photo&api=true"} if job.is_regular else {}
    return {"Content-MD5": in_base64(image.md5), **tags}


def _receipt(job: Job, photo: Photo, image: Image) -> Receipt:
    return Receipt(f"md5:{image.md5}", {"job": job.id, "photo": photo.id}, at=str(photo.id))
