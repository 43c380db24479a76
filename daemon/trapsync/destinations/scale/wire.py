"""Scale AI's protocol (REST, v1): requests, exact answers, and its errors made ours.

Facts from its reference and its SDK (scaleapi 2.18): Basic authentication with the key as the user's name;
`unique_id` of a task is unique in the whole account, a second create is answered with 409; so is the
`reference_id` of a file, but a file cannot be asked for; lists of tasks are paged by `next_token`; names of
batches and projects stand in the path without a single safe character; errors are `{"status_code", "error"}`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from trapsync.destinations import DestinationContext, http_service
from trapsync.destinations.scale.settings import Settings
from trapsync.errors import Failed, Refused, Unauthorised, Unreachable
from trapsync.image import Image
from trapsync.net.http_answer import Answer, reason
from trapsync.net.http_body import FilePiece, Pieces, multipart

# A page of tasks with their labels: a few hundred kilobytes at the most.
_PAGE = 50
_PAGES = 1000


class Declined(Failed):
    """Scale says why it does not take this (400, 404, 422), or took something else."""


class Wire:
    """One account of Scale AI and one project in it. Every call is one request, and one exact answer."""

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.project = settings.project
        self._key_file = settings.api_key_file
        self._key_name = f"destinations.{name}.api_key_file"
        self._client = http_service.client(settings.url, settings, context)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def key(self) -> str:
        """The account's key."""
        return http_service.secret(self._key_file, self._key_name)

    # --- Files ------------------------------------------------------------------------------------------

    def import_file(self, address: str, image: Image, reference: str) -> dict[str, Any] | None:
        """Let Scale fetch a file; None if there is one of this reference already.

        Raises Declined when it cannot fetch it.
        """
        wanted = {"file_url": address, **self._about(image, reference)}
        return self._made(self._ask("POST", "/files/import", wanted), "the file")

    def upload_file(self, image: Image, content: FilePiece, reference: str) -> dict[str, Any] | None:
        """Send a file; None if there is one of this reference already."""
        fields = [(name, "", "", text.encode()) for name, text in self._about(image, reference).items()]
        form = multipart(*fields, ("file", image.name, "image/jpeg", content))
        return self._made(self._ask("POST", "/files/upload", form=form), "the file")

    def _about(self, image: Image, reference: str) -> dict[str, str]:
        return {"project_name": self.project, "reference_id": reference, "display_name": image.name}

    # --- Tasks ------------------------------------------------------------------------------------------

    def create_task(self, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create a task of image annotation; None if there is one of this `unique_id` already."""
        return self._made(self._ask("POST", "/task/imageannotation", wanted), "the task")

    def tag(self, task: str, *tags: str) -> None:
        """Add tags to a task; those that it has are ignored."""
        self._exact(self._ask("PUT", f"/task/{_quoted(task)}/tags", list(tags)), "a tag of the task")

    def tasks(self, **which: Any) -> Iterator[list[dict[str, Any]]]:
        """The tasks that match, page by page; a list among the values is any of these.

        What has no id that could be asked for is left out.
        """
        token: str | None = None
        for _ in range(_PAGES):
            query = {**which, "limit": _PAGE, **({"next_token": token} if token else {})}
            page = self._told(self._ask("GET", f"/tasks?{urlencode(query, doseq=True)}"))
            docs = page.get("docs")
            if not isinstance(docs, list) or (docs and not any(map(_is_like_a_task, docs))):
                raise Unreachable(f"{self._client.host} answered with a list that is not one of tasks")
            yield [doc for doc in docs if is_task(doc)]
            token = page.get("next_token")
            if not docs or not isinstance(token, str) or not token:
                return

    # --- Batches and projects ---------------------------------------------------------------------------

    def batch(self, name: str) -> dict[str, Any] | None:
        """A batch by its name; None if there is none."""
        return self._found(f"/batches/{_quoted(name)}")

    def create_batch(self, name: str) -> dict[str, Any] | None:
        """Create a batch of our project; None if there is one of this name already."""
        answer = self._ask("POST", "/batches", {"project": self.project, "name": name})
        if answer.status == 404:
            raise Unauthorised(self.no_project())
        return self._made(answer, "the batch")

    def finalise(self, name: str) -> bool:
        """Submit a batch, to be worked on. Whether it was taken: only one that is staged is."""
        answer = self._ask("POST", f"/batches/{_quoted(name)}/finalize")
        if answer.status in {400, 404, 409}:
            return False
        self._told(answer)
        return True

    def project_row(self) -> dict[str, Any] | None:
        """Our project; None if there is none of its name."""
        return self._found(f"/projects/{_quoted(self.project)}")

    def no_project(self) -> str:
        """What to do where the project is not found."""
        return (
            f"there is no project {self.project!r} for this key (404); make it in Scale, or correct `project`: "
            f"those of a live key and of a test key are separate"
        )

    # --- Asking -----------------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, content: Any = None, *, form: tuple[Pieces, str] | None = None
    ) -> Answer:
        """One request with the key; what it says about the account or the link is raised here."""
        key = self.key()
        if form:
            body, kind = form
        else:
            text = b"" if content is None else json.dumps(content).encode()
            body, kind = Pieces(text), "application/json" if text else ""
        answer = self._client.request(method, path, body, kind=kind, auth=(key, ""))
        advice = (
            f"look at {self._key_file}, and whether it may create tasks and Scale has enabled image annotation "
            f"for the account; deliveries then resume"
        )
        return http_service.admitted(answer, advice, hide=key)

    def _found(self, path: str) -> dict[str, Any] | None:
        answer = self._ask("GET", path)
        if answer.status == 404 and answer.kind == "application/json":
            return None
        row = self._told(answer)
        if not isinstance(row.get("name"), str):
            raise Unreachable(f"{self._client.host} answered 200 without saying what it found")
        return row

    def _made(self, answer: Answer, what: str) -> dict[str, Any] | None:
        return None if answer.status == 409 else self._exact(answer, what)

    def _exact(self, answer: Answer, what: str) -> dict[str, Any]:
        """The object of an exact answer to something sent for one image, whose fault a refusal is."""
        if answer.status == 413:
            raise Refused(f"Scale takes no file of this size (413){_reason(answer)}")
        if answer.status in {400, 404, 422} and answer.kind == "application/json":
            raise Declined(f"Scale does not take {what} ({answer.status}){_reason(answer)}")
        if answer.status == 500:
            raise Failed(f"Scale did not take {what} (500){_reason(answer)}")
        return self._told(answer)

    def _told(self, answer: Answer) -> dict[str, Any]:
        """The object of an exact answer to a question."""
        if answer.status != 200:
            raise Unreachable(f"{answer}{_reason(answer)}")
        row: dict[str, Any] = answer.json(dict)
        return row


def is_task(doc: object) -> bool:
    """Whether it has an id that can be kept and asked for."""
    return isinstance(doc, dict) and isinstance(http_service.identifier(doc.get("task_id")), str)


def _is_like_a_task(doc: object) -> bool:
    return isinstance(doc, dict) and "task_id" in doc


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _reason(answer: Answer) -> str:
    """What the answer gives as its reason, after a colon."""
    text = reason(answer, "error")
    return f": {text}" if text else ""
