"""What comes back from Scale: labels, fetched now and then, and only what has changed since the last time."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from trapsync.destinations import DestinationContext
from trapsync.destinations.scale.wire import Wire
from trapsync.files import failpoint
from trapsync.image import Image, Label
from trapsync.net.http_answer import quoted

_KEY = "results"
# A task may show up in a list some time after the moment under which it is listed.
_OVERLAP = timedelta(minutes=10)
_NEXT = timedelta(milliseconds=1)
_FIRST_YEAR, _LAST_YEAR = 2016, 9000


class Results:
    """The answers to this trap's tasks. All moments here are Scale's own: our clock has no say."""

    def __init__(self, wire: Wire, context: DestinationContext) -> None:
        self._wire = wire
        self._context = context
        self._lock = threading.Lock()
        # By which a trap's tasks are told from those of the others in its project.
        self.tag = f"trapsync:{context.device}"

    def adopt(self, image: Image, task: Mapping[str, Any]) -> None:
        """A task that was lost on the way, or made by another: see to it that its answer is found.

        It may have been answered long ago, before the moment from which on we ask.
        """
        if self._context.has_task(image.id, task["task_id"]):
            return
        tags = task.get("tags")
        if not isinstance(tags, list) or self.tag not in tags:
            self._wire.tag(task["task_id"], self.tag)
        if changed := _changed(task):
            with self._lock:
                since, _ = self._seen()
                if since is None or changed < since:
                    self._note(changed - _OVERLAP, changed)

    def fetch(self) -> bool:
        """Ask for all tasks that have changed: mostly one page. Whether any was awaited, and asked for."""
        awaited = self._context.unanswered()
        if not awaited:
            return False
        since, before = self._seen()
        newest = before
        which = {"project": self._wire.project, "tags": self.tag}
        if since:
            which["updated_after"] = since.strftime("%Y-%m-%d %H:%M:%S.%f")
        for page in self._wire.tasks(**which):
            answers = {awaited[t["task_id"]]: _label(t) for t in page if t["task_id"] in awaited}
            self._context.put_answers({image_id: label for image_id, label in answers.items() if label})
            newest = max(filter(None, (newest, *map(_changed, page))), default=None)
        failpoint.hit("scale: labels fetched")
        if newest:
            # Of the last moment a task may yet show up; once it has been asked for twice, that is over.
            self._note(newest - _OVERLAP if newest != before else newest + _NEXT, newest)
        return True

    def _seen(self) -> tuple[datetime | None, datetime | None]:
        """From when on to ask, and the latest change that was seen."""
        noted = self._context.note(_KEY) or {}
        return _moment(noted.get("since")), _moment(noted.get("newest"))

    def _note(self, since: datetime, newest: datetime) -> None:
        self._context.put_note(_KEY, {"since": since.isoformat(), "newest": newest.isoformat()})


def _label(task: Mapping[str, Any]) -> Label | None:
    """What a task says by now; None while it is worked on."""
    response = task.get("response")
    response = response if isinstance(response, dict) else {}
    match task.get("status"):
        case "completed":
            shapes = response.get("annotations")
            shapes = (
                [shape for shape in shapes if isinstance(shape, dict)] if isinstance(shapes, list) else []
            )
            return Label(task["task_id"], "done", shapes)
        case "canceled":
            return Label(task["task_id"], "error", reason="the task was cancelled at Scale")
        case "error":
            reason = quoted(response.get("error") or task.get("error") or "")
            return Label(task["task_id"], "error", reason=reason or "no reason given")
    return None


def _changed(task: Mapping[str, Any]) -> datetime | None:
    return _moment(task.get("updated_at"))


def _moment(text: object) -> datetime | None:
    """A moment as Scale writes it, in UTC; None for anything else, and for years in which there was no Scale."""
    try:
        moment = datetime.fromisoformat(str(text))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if _FIRST_YEAR <= moment.year <= _LAST_YEAR else None
