"""Scale AI's stub as a site of the conformance tests, and what its tests share."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawings
from conformance import Card
from fake_time import FakeTime
from fault_server import FaultServer, Reply
from memory_context import MemoryContext, context
from scale_stub import PROJECT, TEST_KEY, Scale
from trapsync.destinations import scale
from trapsync.image import Image

BOX = {"type": "box", "label": "insect", "left": 1, "top": 2, "width": 30, "height": 40}
LIST, IMPORT, UPLOAD = "GET /v1/tasks", "/v1/files/import", "/v1/files/upload"
TASK, BATCHES, BATCH = "/v1/task/imageannotation", "/v1/batches", "GET /v1/batches/*"
WEB = "https://pictures.example/"
UNIQUE_ID = f"{PROJECT}:{drawings.NAME.removesuffix('.jpg')}"
NIGHT = f"{PROJECT} {drawings.DEVICE} 2026-06-21"


class Server:
    """A site: a fault server in front of the stub, and records that outlive connections."""

    def __init__(self, front: FaultServer, service: Scale, folder: Path) -> None:
        self.front = front
        self.service = service
        self.time = FakeTime()
        self.context = context(self.time)
        self.is_addressed = False
        self.address: Callable[[Image], str | None] = self.lend
        self._card = folder / "spool"
        self._key = folder / "scale.key"
        self.change_key(TEST_KEY)

    def change_key(self, key: str) -> None:
        self._key.write_text(key + "\n")
        self._key.chmod(0o600)

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"url": f"{self.front.url}/v1", "api_key_file": self._key, "project": PROJECT, **more}

    def connect(self, **more: Any) -> scale.Scale:
        after = {"depends_on": "gallery"} if self.is_addressed else {}
        settings = scale.Settings(kind="scale", **self.settings(**{**after, **more}))
        return scale.connect("labels", settings, self.given())

    def given(self, **more: Any) -> MemoryContext:
        address = self.address if self.is_addressed else lambda _image: None
        return replace(self.context, **{"address": address, **more})

    def lend(self, image: Image) -> str:
        """Where the destination before has it."""
        self.service.web[WEB + image.name] = (self._card / image.path).read_bytes()
        return WEB + image.name

    def tables(self) -> dict[str, dict[str, Any]]:
        table = {key: str(value) for key, value in self.settings().items()}
        return {"labels": {"kind": "scale", **table}}

    def stored(self) -> dict[str, bytes]:
        """The images that tasks are for. No two tasks are for one, and each knows the name and digest."""
        contents = self.service.contents | self.service.web
        tasks = self.service.mode.tasks.values()
        stored = {task["metadata"]["image"]: contents[task["params"]["attachment"]] for task in tasks}
        assert len(stored) == len(tasks)
        assert all(task["unique_id"] == f"{PROJECT}:{task['metadata']['image'][:-4]}" for task in tasks)
        return stored

    def broken(self) -> AbstractContextManager[None]:
        return self.front.down()


class Watched:
    """The service, with the sizes of its answers; one of them, by its number, is broken."""

    methods = Scale.methods

    def __init__(self, service: Scale, broken: int = 0) -> None:
        self._service = service
        self._broken = broken
        self.sizes: list[int] = []

    def __call__(self, *request: Any) -> Reply:
        reply = self._service(*request)
        self.sizes.append(len(reply[2]))
        return (503, {}, b"") if len(self.sizes) == self._broken else reply


def deliver(site: Server, card: Card, destination: scale.Scale, *seconds: int) -> list[dict[str, Any]]:
    """Deliver images, let them be awaited, and give their tasks."""
    tasks = []
    for second in seconds:
        image = card.image(second)
        receipt = destination.deliver(image, card.path(image))
        site.context.tasks[receipt.detail["task"]] = image.id
        tasks.append(site.service.mode.tasks[receipt.detail["task"]])
    return tasks
