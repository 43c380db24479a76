"""Scale's own SDK as a witness: it takes the stub for the service, and reads back what our client made.

Where both do the same work they must say the same on the wire; what differs is written down here.
"""

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scaleapi import ScaleClient
from scaleapi.batches import BatchStatus
from scaleapi.exceptions import (
    ScaleDuplicateResource,
    ScaleInvalidRequest,
    ScaleNotEnabled,
    ScaleResourceNotFound,
    ScaleUnauthorized,
)
from scaleapi.tasks import TaskStatus, TaskType

import drawings
from conformance import Card
from fault_server import FaultServer
from scale_site import BATCHES, BOX, NIGHT, TASK, UNIQUE_ID, Server, Watched, deliver
from scale_stub import PROJECT, TEST_KEY, Scale
from trapsync.destinations import Receipt

GEOMETRIES = {"box": {"objects_to_annotate": ["insect"]}}


@pytest.fixture
def service() -> Scale:
    """Scale AI."""
    return Scale()


@pytest.fixture
def site(service: Scale, tmp_path: Path) -> Iterator[Server]:
    """It listens."""
    with FaultServer(service) as front:
        yield Server(front, service, tmp_path)


@pytest.fixture
def sdk(site: Server) -> ScaleClient:
    """The vendor's client, led to the stub."""
    return ScaleClient(TEST_KEY, api_instance_url=f"{site.front.url}/v1")


def test_the_sdk_does_a_nights_work_at_the_stub(site: Server, sdk: ScaleClient, card: Card) -> None:
    image = card.image()
    sdk.create_project(project_name="flies", task_type=TaskType.ImageAnnotation, params={})
    assert sdk.create_batch("flies", "night 1").status == "staging"
    with card.path(image).open("rb") as content:
        file = sdk.upload_file(content, project_name="flies", reference_id="r1")
    assert site.service.contents[file.attachment_url] == card.bytes(image)
    site.service.web["https://pictures.example/1.jpg"] = b"\xff\xd8 another"
    imported = sdk.import_file("https://pictures.example/1.jpg", project_name="flies", reference_id="r2")
    assert imported.as_dict()["size"] == 10

    wanted = {"project": "flies", "batch": "night 1", "attachment": file.attachment_url, "unique_id": "u1"}
    task = sdk.create_task(TaskType.ImageAnnotation, geometries=GEOMETRIES, tags=["a"], **wanted)
    assert (task.status, task.unique_id, task.batch) == ("pending", "u1", "night 1")
    batch = sdk.get_batch("night 1")
    assert batch.get_status()["pending"] == 1
    assert batch.finalize().status == BatchStatus.InProgress.value
    site.service.complete(site.service.task_of("u1"), BOX)
    task.refresh()
    assert task.response == {"annotations": [BOX]}


def test_the_sdk_is_told_of_each_refusal_as_it_knows_it(site: Server, sdk: ScaleClient) -> None:
    wanted = {"attachment": "https://pictures.example/1.jpg", "geometries": GEOMETRIES, "unique_id": "u1"}
    sdk.create_batch(PROJECT, "night 1").finalize()
    kind, first = TaskType.ImageAnnotation, "https://pictures.example/1.jpg"
    site.service.web[first] = b"\xff\xd8"
    sdk.import_file(first, reference_id="r1")
    there = sdk.create_task(kind, **wanted)
    with pytest.raises(ScaleDuplicateResource, match=rf"\({there.id}\)"):
        sdk.create_task(kind, **wanted)
    with pytest.raises(ScaleDuplicateResource):
        sdk.import_file(first, reference_id="r1")
    with pytest.raises(ScaleDuplicateResource):
        sdk.create_batch(PROJECT, "night 1")
    with pytest.raises(ScaleInvalidRequest, match="finalized"):
        sdk.create_task(kind, **{**wanted, "unique_id": "u2", "batch": "night 1"})
    with pytest.raises(ScaleInvalidRequest, match="staging"):
        sdk.finalize_batch("night 1")
    with pytest.raises(ScaleInvalidRequest, match="geometries"):
        sdk.create_task(kind, attachment=first)
    with pytest.raises(ScaleResourceNotFound):
        sdk.create_batch("no such project", "night 2")
    site.service.is_enabled = False
    with pytest.raises(ScaleNotEnabled):
        sdk.create_task(kind, **wanted)
    with pytest.raises(ScaleUnauthorized):
        ScaleClient("test_other", api_instance_url=f"{site.front.url}/v1").get_project(PROJECT)


def test_the_sdk_pages_through_lists_of_the_stub(site: Server, sdk: ScaleClient) -> None:
    for number in range(5):
        sdk.create_task(
            TaskType.ImageAnnotation,
            project=PROJECT,
            attachment="https://pictures.example/1.jpg",
            geometries=GEOMETRIES,
            unique_id=f"u{number}",
            tags=["even" if number % 2 == 0 else "odd"],
        )
        sdk.create_batch(PROJECT, f"night {number}")
    site.service.complete(site.service.task_of("u2"))
    since = site.service.task_of("u2")["updated_at"].replace("T", " ").removesuffix("Z")
    ids = {task.unique_id for task in sdk.get_tasks(project_name=PROJECT, limit=2)}
    assert ids == {f"u{number}" for number in range(5)}
    assert [task.unique_id for task in sdk.get_tasks(project_name=PROJECT, updated_after=since)] == ["u2"]
    assert len(list(sdk.get_tasks(project_name=PROJECT, tags="even", limit=2))) == 3
    assert len(list(sdk.get_tasks(project_name=PROJECT, unique_id=["u1", "u4", "u9"]))) == 2
    assert [t.unique_id for t in sdk.get_tasks(PROJECT, status=TaskStatus.Completed)] == ["u2"]
    assert len(list(sdk.get_batches(project_name=PROJECT))) == 5


def test_the_sdk_reads_back_what_our_client_made(site: Server, sdk: ScaleClient, card: Card) -> None:
    ours = site.connect()
    done, failed, cancelled = deliver(site, card, ours, 0, 1, 2)
    tasks = {task.id: task for task in sdk.get_tasks(batch_name=NIGHT)}
    assert tasks.keys() == {done["task_id"], failed["task_id"], cancelled["task_id"]}
    task = tasks[done["task_id"]]
    assert (task.unique_id, task.project, task.status) == (UNIQUE_ID, PROJECT, TaskStatus.Pending.value)
    assert task.metadata["image"] == drawings.NAME
    assert task.params["geometries"] == GEOMETRIES
    assert site.service.contents[task.params["attachment"]] == card.bytes(card.image())
    sdk.cancel_task(cancelled["task_id"])
    site.time.sleep(86400)
    ours.follow_up()
    assert sdk.get_batch(NIGHT).status == "in_progress"
    assert site.context.answers[3].reason == "the task was cancelled at Scale"


def test_our_client_finds_what_the_sdk_made(site: Server, sdk: ScaleClient, card: Card) -> None:
    image = card.image()
    sdk.create_batch(PROJECT, NIGHT)
    there = sdk.create_task(
        TaskType.ImageAnnotation,
        project=PROJECT,
        batch=NIGHT,
        attachment="https://pictures.example/1.jpg",
        geometries=GEOMETRIES,
        unique_id=UNIQUE_ID,
    )
    ours = site.connect()
    receipt = ours.find_existing([image])[image.id]
    assert isinstance(receipt, Receipt)
    assert receipt.detail == {"task": there.id, "batch": NIGHT}
    assert sdk.get_task(there.id).tags == [f"trapsync:{drawings.DEVICE}"]
    assert ours.deliver(image, card.path(image)) == receipt
    other = card.image(1)
    ours.deliver(other, card.path(other))
    assert site.front.requests.count(BATCHES) == 1  # the SDK's


class Noting(Watched):
    """The service, with what is sent to it."""

    def __init__(self, service: Scale) -> None:
        super().__init__(service)
        self.sent: dict[str, tuple[dict[str, str], Any]] = {}

    def __call__(self, named: str, headers: Any, body: bytes) -> Any:
        kind = headers.get("Content-Type", "")
        self.sent[named] = headers, json.loads(body) if kind == "application/json" and body else None
        return super().__call__(named, headers, body)


def test_our_requests_say_what_the_sdks_say(site: Server, sdk: ScaleClient, card: Card) -> None:
    image = card.image()
    site.front.backend = ours = Noting(site.service)
    site.connect().deliver(image, card.path(image))
    (task,) = site.service.mode.tasks.values()
    site.service.modes[TEST_KEY].tasks.clear()
    site.service.mode.batches.clear()

    site.front.backend = theirs = Noting(site.service)
    sdk.create_batch(PROJECT, NIGHT)
    sent = {key: task[key] for key in ("unique_id", "metadata", "tags", "project", "batch")}
    sdk.create_task(TaskType.ImageAnnotation, attachment_type="image", **task["params"], **sent)
    sdk.get_batch(NIGHT)
    assert theirs.sent[TASK][1] == ours.sent[TASK][1]
    assert theirs.sent[BATCHES][1].items() >= ours.sent[BATCHES][1].items()
    for request in theirs.sent:
        assert theirs.sent[request][0]["Authorization"] == ours.sent[request][0]["Authorization"]


def test_the_sdks_way_out_of_a_500_though_stored_is_ours(
    site: Server, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again, is answered with 409, and asks for the task; it does so over TLS only."""
    authority, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", key, "-out", authority], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    monkeypatch.setattr("scaleapi.api.HTTP_RETRY_BACKOFF_FACTOR", 0)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    with FaultServer(site.service) as front:
        front._server.socket = context.wrap_socket(front._server.socket, server_side=True)
        sdk = ScaleClient(TEST_KEY, api_instance_url=front.url.replace("http:", "https:") + "/v1")
        front.plan(TASK, "500 though stored")
        wanted = {"attachment": "https://pictures.example/1.jpg", "geometries": GEOMETRIES, "unique_id": "u1"}
        task = sdk.create_task(TaskType.ImageAnnotation, **wanted)
        front.assert_injected()
        assert front.requests == [TASK, TASK, "GET /v1/tasks"]
    assert task.id == site.service.task_of("u1")["task_id"]
