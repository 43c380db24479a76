"""Scale AI: people who say what is in the images. A delivery is a task of image annotation.

A task is no copy of an image, so nothing may leave the card for it. Where another destination can give the
image's address, Scale fetches it there, and no image is sent twice over a metered link: by an import into
Scale's own files, not by naming the address in the task, for an address may expire before somebody gets to
the task. Each image has one task, known by its `unique_id` in the whole account, whatever happens on the
way; the tasks of a night are a batch, and their labels come back into the catalog.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trapsync.destinations import (
    DestinationContext,
    Finding,
    Receipt,
    SimpleDestination,
    finding,
    http_service,
)
from trapsync.destinations.scale.batches import Batches
from trapsync.destinations.scale.files import Files
from trapsync.destinations.scale.results import Results
from trapsync.destinations.scale.settings import Settings
from trapsync.destinations.scale.wire import Declined, Wire, is_task
from trapsync.errors import DeliveryError, Failed, Refused, TrapsyncError, Unauthorised, Unreachable, one_line
from trapsync.files import failpoint
from trapsync.image import Image, TrapName

__all__ = ["Scale", "Settings", "connect"]

_LARGEST = 80 * 10**6  # bytes of a file, by the page of the endpoint


def connect(name: str, settings: Settings, context: DestinationContext) -> "Scale":
    """Make the destination; nothing is sent yet."""
    return Scale(name, settings, context)


class Scale(SimpleDestination):
    """One project at Scale AI."""

    # One question; fifty unique ids are three kilobytes of its address.
    batch = 50
    keeps = False

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self.identity = settings.identity
        self._context = context
        self._wire = Wire(name, settings, context)
        self._prefix = settings.prefix or settings.project
        self._batches = Batches(self._wire, self._prefix, context)
        self._files = Files(self._wire, settings, context)
        self._results = Results(self._wire, context)
        self._absences = http_service.Absences(context.clock)
        self._results_at: float | None = None

    def close(self) -> None:
        """Close connections."""
        self._wire.close()

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask for the tasks of all of them in one request."""
        asked: dict[str, list[Image]] = {}
        for image in images:
            if image.trap_name:
                asked.setdefault(self._unique_id(image.trap_name), []).append(image)
        if not asked:
            return {}
        found: dict[int, Receipt | Exception] = {}
        for page in self._wire.tasks(unique_id=list(asked)):
            for task in page:
                same = asked.get(str(task.get("unique_id")), [])
                found |= {image.id: self._compared(image, task) for image in same}
        self._absences.note(key for key, some in asked.items() if not any(i.id in found for i in some))
        return found

    def _compared(self, image: Image, task: Mapping[str, Any]) -> Receipt | Exception:
        try:
            return self._compare(image, task)
        except (Failed, Refused) as error:  # what it makes of this task is no word about the others
            return error

    def _compare(self, image: Image, task: Mapping[str, Any]) -> Receipt | Refused:
        """Whether a task that has this image's unique id is this image's."""
        project = task.get("project") or self.settings.project
        if project != self.settings.project:
            return Refused(
                f"it has a task in another project ({one_line(project)!r}), and one in an account is all that it can "
                f"have under this name; give this destination a `prefix` of its own, then retry"
            )
        about = task.get("metadata")
        theirs = about.get("sha256", image.sha256) if isinstance(about, dict) else image.sha256
        if theirs != image.sha256:
            return Refused(
                f"another image has a task under this name (sha256 {one_line(theirs, 17)}): both are kept; "
                f"clear the unique id of its task in Scale, then retry"
            )
        self._results.adopt(image, task)
        return _receipt(image, str(task["unique_id"]), task)

    def _unique_id(self, name: TrapName) -> str:
        """`<prefix>:<device>.<datetime>`: the name of its file, without the ending."""
        return f"{self._prefix}:{str(name).removesuffix('.jpg')}"

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Make the image's task: its file at Scale first, then its batch, then the task itself."""
        name = image.trap_name
        if name is None:
            raise Refused("its name says neither the trap nor the time, and a task goes by these")
        if image.size > _LARGEST:
            raise Refused(f"Scale takes no file above {_LARGEST // 10**6} MB; it has {image.size} bytes")
        unique_id = self._unique_id(name)
        if not self._absences.take(unique_id) and (there := self.ask_about(image)):
            return there
        attachment = self._files.attachment(image, path, unique_id)
        receipt = self._create(image, name, unique_id, attachment)
        failpoint.hit("scale: task made")
        self._files.forget(unique_id)
        return receipt

    def _create(self, image: Image, name: TrapName, unique_id: str, attachment: str) -> Receipt:
        """The task, in the batch of its night; once more if that was submitted elsewhere meanwhile."""
        batch = self._batches.of(name.taken)
        try:
            return self._create_in(batch, image, unique_id, attachment)
        except Declined:
            if self._batches.is_open(name.taken, batch):
                raise
        return self._create_in(self._batches.of(name.taken), image, unique_id, attachment)

    def _create_in(self, batch: str, image: Image, unique_id: str, attachment: str) -> Receipt:
        wanted = {
            "project": self.settings.project,
            "batch": batch,
            "attachment": attachment,
            "attachment_type": "image",
            "unique_id": unique_id,
            "tags": [self._results.tag],
            "metadata": {"image": image.key, "sha256": image.sha256, "size": [image.width, image.height]},
            **self._work(),
        }
        try:
            task = self._wire.create_task(wanted)
            if task is None:  # and if it is not found either, that is this image's trouble only
                doubt: DeliveryError = Failed("Scale has a task of its unique id (409), and does not show it")
            elif task.get("unique_id") == unique_id and is_task(task):
                return _receipt(image, unique_id, {"batch": batch, **task})
            else:
                doubt = Unreachable("Scale answered without confirming the task")
        except (Unauthorised, Refused):
            raise
        except DeliveryError as error:  # it may have been made all the same
            doubt = error
        return self.resolve(image, doubt)

    def _work(self) -> dict[str, Any]:
        """What is to be done; nothing of it where the project says it."""
        wanted = {"objects_to_annotate": list(self.settings.labels)}
        work: dict[str, Any] = {}
        if self.settings.geometries:
            work["geometries"] = dict.fromkeys(self.settings.geometries, wanted)
        if self.settings.instruction:
            work["instruction"] = self.settings.instruction
        return work

    # --- What comes back --------------------------------------------------------------------------------

    def follow_up(self) -> bool:
        """Submit the nights that are complete; ask now and then for labels, if any are awaited."""
        submitted = self._batches.submit()
        now = self._context.clock.monotonic()
        if self._results_at is not None and now - self._results_at < self.settings.poll_every:
            return submitted
        asked = self._results.fetch()
        self._results_at = now
        return asked or submitted

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether the key is known, which of the two kinds it is, and whether the project is there."""
        try:
            key, project = self._wire.key(), self._wire.project_row()
        except TrapsyncError as error:
            return [finding(self.name, error)]
        if project is None:
            return [Finding("failing", self.name, self._wire.no_project())]
        return [self._project_finding(project), self._mode_finding(key), *self._way_findings()]

    def _project_finding(self, project: Mapping[str, Any]) -> Finding:
        if project.get("type") not in ("imageannotation", None):
            kind = one_line(project["type"], 40)
            text = f"the project {self.settings.project!r} is for {kind}; it must be for image annotation"
            return Finding("failing", self.name, text)
        return Finding("ok", self.name, f"Scale knows the key and the project {self.settings.project!r}")

    def _mode_finding(self, key: str) -> Finding:
        if key.startswith("live"):
            text = "this is a live key: every image becomes a task for people, and each task costs money"
            return Finding("warning", self.name, text)
        if key.startswith("test"):
            text = "this is a test key: tasks cost nothing, and are completed at once without people"
            return Finding("ok", self.name, text)
        text = "neither a test key nor a live key by its beginning: find out whether tasks cost money"
        return Finding("warning", self.name, text)

    def _way_findings(self) -> Iterator[Finding]:
        if not self.settings.depends_on:
            text = "each image is sent to Scale from here; with `after` a destination that gives addresses, none is"
            yield Finding("ok", self.name, text)


def _receipt(image: Image, unique_id: str, task: Mapping[str, Any]) -> Receipt:
    batch = task.get("batch")
    detail = {"task": task["task_id"], "batch": http_service.identifier(batch)}
    return Receipt(f"echo:{image.sha256}", detail, at=unique_id)
