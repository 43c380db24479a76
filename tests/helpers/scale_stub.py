"""Scale AI on the loopback, as far as traps and its own SDK need it: a backend for `fault_server.FaultServer`.

It follows the facts of its reference (SERVICES 4 of the project's notes, and scaleapi 2.18): what is unique, what
is paged and how, which batches take tasks and which can be finalised, two modes that see nothing of one another.
`test_scale.py` lets the vendor's SDK do its work here.
"""

import base64
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

from fault_server import JSON, Reply

TEST_KEY, LIVE_KEY = "test_9d1f0c5a77e24b", "live_c3b8a2946f0e11"
PROJECT = "moths of the hut"
_PUBLIC = ["task_id", "status", "metadata", "project"]


class Refusal(Exception):
    """An answer of an error, with its status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.reply = _reply({"status_code": status, "error": text}, status)


@dataclass
class Mode:
    """What there is under the keys of one mode: nothing of the other's."""

    projects: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


class Scale:
    """The service. Tasks wait until somebody answers them (`complete`, `fail`), or not if `is_instant`."""

    methods = ("GET", "POST", "PUT", "DELETE")

    def __init__(self) -> None:
        self.modes = {TEST_KEY: Mode(), LIVE_KEY: Mode()}
        self.web: dict[str, bytes] = {}  # what can be fetched besides what a real server serves
        self.is_enabled = True
        self.is_instant = False
        self.is_careless = False  # loses the end of each file
        self.contents: dict[str, bytes] = {}  # of files, by their addresses
        self._now = datetime(2026, 6, 22, 9, 0, tzinfo=UTC)
        self._lock = threading.Lock()
        self._count = 0
        self.add_project(PROJECT)

    # --- For tests --------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What there is in test mode."""
        return self.modes[TEST_KEY]

    def add_project(
        self, name: str, kind: str = "imageannotation", key: str = TEST_KEY, **params: Any
    ) -> None:
        """As its owner would in the dashboard."""
        history = [{"version": 0, **params}]
        row = {"name": name, "type": kind, "param_history": history, "created_at": self._moment()}
        self.modes[key].projects[name] = row

    def task_of(self, unique_id: str) -> dict[str, Any]:
        """The one task with this unique id."""
        (task,) = (task for task in self.mode.tasks.values() if task["unique_id"] == unique_id)
        return task

    def complete(self, task: dict[str, Any], *annotations: Mapping[str, Any]) -> None:
        """People have looked at it."""
        task |= {"status": "completed", "response": {"annotations": list(annotations)}}
        task["updated_at"] = task["completed_at"] = self._moment()

    def fail(self, task: dict[str, Any], reason: str) -> None:
        """The attachment cannot be fetched, say."""
        task |= {"status": "error", "response": {"error": reason}, "updated_at": self._moment()}

    def pass_time(self, **time: float) -> None:
        """On its own clock."""
        self._now += timedelta(**time)

    # --- Being asked ------------------------------------------------------------------------------------

    def __call__(self, named: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        method, _, target = named.rpartition(" ")
        path, _, query = target.partition("?")
        with self._lock:
            try:
                scheme, _, encoded = headers.get("Authorization", "").partition(" ")
                key = base64.b64decode(encoded).decode().partition(":")[0] if scheme == "Basic" else ""
                if key not in self.modes:
                    raise Refusal(401, "Invalid API key")
                request = _Request(self.modes[key], parse_qs(query), headers.get("Content-Type", ""), body)
                return _reply(self._route(method or "POST", path.removeprefix("/v1"), request))
            except Refusal as refusal:
                return refusal.reply

    def _route(self, method: str, path: str, request: "_Request") -> Any:
        for known, pattern, answer in self._routes:
            if known == method and (match := re.fullmatch(pattern, path)):
                return answer(self, request, *map(unquote, match.groups()))
        raise Refusal(404, f"no such endpoint: {method} {path}")

    def _moment(self) -> str:
        self._now += timedelta(milliseconds=7)
        return self._now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _id(self) -> str:
        self._count += 1
        return f"{0x66A0_0000_0000_0000_0000_0000 + self._count:x}"

    # --- Files ------------------------------------------------------------------------------------------

    def _upload(self, request: "_Request") -> Any:
        form = request.form()
        if "file" not in form:
            raise Refusal(400, "file is required")
        texts = {name: content.decode() for name, content in form.items() if name != "file"}
        return self._keep(request, texts, form["file"])

    def _import(self, request: "_Request") -> Any:
        wanted = request.json()
        try:
            content = self.web.get(wanted["file_url"])
            if content is None:
                with urllib.request.urlopen(wanted["file_url"], timeout=10) as answer:
                    content = answer.read()
        except (OSError, KeyError, ValueError):
            raise Refusal(400, f"could not fetch {wanted.get('file_url')}") from None
        return self._keep(request, wanted, content)

    def _keep(self, request: "_Request", about: Mapping[str, Any], content: bytes) -> Any:
        content = content[:-1] if self.is_careless else content
        files = request.mode.files
        project, reference = about.get("project_name"), about.get("reference_id")
        if project is not None and project not in request.mode.projects:
            raise Refusal(404, f"Project {project} not found")
        if reference and any(one["reference_id"] == reference for one in files.values()):
            raise Refusal(409, "a file with this reference_id already exists")
        name = self._id()
        row: dict[str, Any] = {
            "id": name,
            "attachment_url": f"scaledata://60f0/{name}",
            "reference_id": reference,
            "size": len(content),
            "mime_type": "image/jpeg" if content.startswith(b"\xff\xd8") else "text/html",
            "project_names": [project] if project else [],
            "metadata": {},
            "created_at": self._moment(),
        }
        files[name] = {**row, "updated_at": row["created_at"]}
        self.contents[str(row["attachment_url"])] = content
        return files[name]

    # --- Tasks ------------------------------------------------------------------------------------------

    def _create_task(self, request: "_Request") -> Any:
        if not self.is_enabled:
            raise Refusal(402, "this task type is not enabled, please contact sales")
        mode, wanted = request.mode, request.json()
        batch = self._batch_for(mode, wanted)
        project = batch["project"] if batch else wanted.get("project", "default")
        params = mode.projects[project]["param_history"][-1] if project in mode.projects else {}
        if "project" in wanted and wanted["project"] not in mode.projects:
            raise Refusal(404, f"Project {wanted['project']} not found")
        if not re.match("(https?|scaledata)://", str(wanted.get("attachment"))):
            raise Refusal(400, "attachment must be a URL")
        if wanted["attachment"].startswith("scaledata") and wanted["attachment"] not in self.contents:
            raise Refusal(400, "attachment is not a file of this account")
        if not wanted.get("geometries") and not params.get("geometries"):
            raise Refusal(400, "geometries is required")
        unique_id = wanted.get("unique_id")
        same = [task for task in mode.tasks.values() if unique_id and task["unique_id"] == unique_id]
        if same:
            raise Refusal(409, f"a task with this unique_id already exists ({same[0]['task_id']})")
        moment = self._moment()
        task = {
            "task_id": self._id(),
            "type": "imageannotation",
            "status": "pending",
            "project": project,
            "batch": batch["name"] if batch else None,
            "unique_id": unique_id,
            "params": {
                key: wanted[key] for key in ("attachment", "geometries", "instruction") if key in wanted
            },
            "metadata": wanted.get("metadata", {}),
            "tags": wanted.get("tags", []),
            "created_at": moment,
            "updated_at": moment,
            "is_test": mode is self.mode,
        }
        mode.tasks[str(task["task_id"])] = task
        if self.is_instant:
            self.complete(task)
        return task

    def _batch_for(self, mode: Mode, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        if "batch" not in wanted:
            return None
        batch = mode.batches.get(wanted["batch"])
        if batch is None:
            raise Refusal(404, f"Batch {wanted['batch']} not found")
        if batch["status"] != "staging":
            raise Refusal(400, "this batch is finalized, and takes no more tasks")
        if wanted.get("project", batch["project"]) != batch["project"]:
            raise Refusal(400, "this batch is of another project")
        return batch

    def _tasks(self, request: "_Request") -> Any:
        query = request.query
        limit = int(query.get("limit", ["100"])[0])
        if not 1 <= limit <= 100:
            raise Refusal(400, "limit must be between 1 and 100")
        found = [task for task in request.mode.tasks.values() if _matches(task, query)]
        found.sort(key=lambda task: str(task["created_at"]), reverse=True)
        token = query.get("next_token", [""])[0]
        first = int(base64.b64decode(token)) if token else 0
        page, more = found[first : first + limit], first + limit < len(found)
        if query.get("limited_response") == ["true"]:
            page = [{key: task[key] for key in _PUBLIC} for task in page]
        following = {"next_token": base64.b64encode(b"%d" % (first + limit)).decode()} if more else {}
        return {"docs": page, "total": len(found), "limit": limit, "offset": 0, "has_more": more, **following}

    def _task(self, request: "_Request", task: str) -> Any:
        if task not in request.mode.tasks:
            raise Refusal(404, "task not found")
        return request.mode.tasks[task]

    def _cancel(self, request: "_Request", name: str) -> Any:
        task = self._task(request, name)
        if task["status"] != "pending":
            raise Refusal(400, "work on this task has begun")
        task |= {"status": "canceled", "updated_at": self._moment()}
        if request.query.get("clear_unique_id") == ["true"]:
            task["unique_id"] = None
        return task

    def _tag(self, request: "_Request", name: str) -> Any:
        task = self._task(request, name)
        task["tags"] = list(dict.fromkeys([*task["tags"], *request.json()]))
        return task

    # --- Batches and projects ---------------------------------------------------------------------------

    def _create_batch(self, request: "_Request") -> Any:
        wanted, mode = request.json(), request.mode
        if wanted.get("project") not in mode.projects:
            raise Refusal(404, f"Project {wanted.get('project')} not found")
        if wanted["name"] in mode.batches:
            raise Refusal(409, "a batch with this name already exists")
        row = {"name": wanted["name"], "project": wanted["project"], "status": "staging"}
        mode.batches[wanted["name"]] = {
            **row,
            "metadata": wanted.get("metadata", {}),
            "created_at": self._moment(),
        }
        return mode.batches[wanted["name"]]

    def _batch(self, request: "_Request", name: str) -> Any:
        if name not in request.mode.batches:
            raise Refusal(404, "batch not found")
        return request.mode.batches[name]

    def _batch_status(self, request: "_Request", name: str) -> Any:
        states = [task["status"] for task in request.mode.tasks.values() if task["batch"] == name]
        return {"status": self._batch(request, name)["status"], **{s: states.count(s) for s in set(states)}}

    def _finalise(self, request: "_Request", name: str) -> Any:
        batch = self._batch(request, name)
        if batch["status"] != "staging":
            raise Refusal(400, "only a staging batch can be finalized")
        batch["status"] = "in_progress"
        return batch

    def _batches(self, request: "_Request") -> Any:
        rows, query = list(request.mode.batches.values()), request.query
        if "project" in query:
            rows = [row for row in rows if row["project"] == query["project"][0]]
        limit, offset = (
            int(query.get(key, [usual])[0]) for key, usual in (("limit", "100"), ("offset", "0"))
        )
        more = offset + limit < len(rows)
        page = {"limit": limit, "offset": offset, "has_more": more}
        return {"docs": rows[offset : offset + limit], "totalDocs": len(rows), **page}

    def _project(self, request: "_Request", name: str) -> Any:
        if name not in request.mode.projects:
            raise Refusal(404, "project not found")
        return request.mode.projects[name]

    def _create_project(self, request: "_Request") -> Any:
        wanted = request.json()
        if wanted["name"] in request.mode.projects:
            raise Refusal(409, "a project with this name already exists")
        history = [{"version": 0, **wanted.get("params", {})}]
        row = {"name": wanted["name"], "type": wanted["type"], "param_history": history}
        request.mode.projects[wanted["name"]] = {**row, "created_at": self._moment()}
        return request.mode.projects[wanted["name"]]

    _routes: Sequence[tuple[str, str, Callable[..., Any]]] = (
        ("POST", "/files/upload", _upload),
        ("POST", "/files/import", _import),
        ("POST", "/task/imageannotation", _create_task),
        ("GET", "/tasks", _tasks),
        ("GET", "/task/([^/]+)", _task),
        ("POST", "/task/([^/]+)/cancel", _cancel),
        ("PUT", "/task/([^/]+)/tags", _tag),
        ("POST", "/batches", _create_batch),
        ("GET", "/batches", _batches),
        ("GET", "/batches/([^/]+)", _batch),
        ("GET", "/batches/([^/]+)/status", _batch_status),
        ("POST", "/batches/([^/]+)/finalize", _finalise),
        ("POST", "/projects", _create_project),
        ("GET", "/projects/([^/]+)", _project),
    )


@dataclass
class _Request:
    mode: Mode
    query: dict[str, list[str]]
    kind: str
    body: bytes

    def json(self) -> Any:
        if not self.kind.startswith("application/json"):
            raise Refusal(400, "the body must be JSON")
        return json.loads(self.body)

    def form(self) -> dict[str, bytes]:
        if not self.kind.startswith("multipart/form-data"):
            raise Refusal(400, "the body must be a form")
        boundary = b"--" + self.kind.partition("boundary=")[2].strip('"').encode()
        parts = {}
        for part in self.body.split(boundary + b"\r\n")[1:]:
            head, _, rest = part.partition(b"\r\n\r\n")
            name = re.search(rb'[ ;]name="([^"]*)"', head)
            assert name
            parts[name[1].decode()] = rest.partition(b"\r\n" + boundary)[0].removesuffix(b"\r\n")
        return parts


def _matches(task: Mapping[str, Any], query: Mapping[str, list[str]]) -> bool:
    """Whether a task is one of those asked for; each filter given must hold, with any of its values."""
    for key in ("project", "batch", "status", "unique_id", "type"):
        if key in query and task[key] not in query[key]:
            return False
    if "tags" in query and not set(task["tags"]) & set(query["tags"]):
        return False
    after = query.get("updated_after")
    return after is None or datetime.fromisoformat(task["updated_at"]) >= _utc(after[0])


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _reply(content: Any, status: int = 200) -> Reply:
    return status, JSON, json.dumps(content).encode()
