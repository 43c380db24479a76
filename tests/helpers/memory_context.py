"""A destination's context in memory: time that stands still, records that end with the test."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timezone, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import drawings
from fake_time import FakeTime
from trapsync.clock import Clock
from trapsync.destinations import Destination, DestinationContext, check
from trapsync.image import Image, Label
from trapsync.jpeg.examination import thumbnail_paths

_NOWHERE = Path("/nowhere")
SOURCE = Path("trapsync.toml")


@cache
def _states() -> tempfile.TemporaryDirectory[str]:
    """Where each context has a state folder of its own; it goes when the tests end."""
    return tempfile.TemporaryDirectory(prefix="trapsync-states-")


@dataclass
class MemoryContext:
    """See `trapsync.destinations.DestinationContext`; what the trap and its other destinations say is set by the test."""

    clock: Clock = field(default_factory=FakeTime)
    sleep: Callable[[float], None] = lambda _seconds: None
    device: str = drawings.DEVICE
    trap_name: str = ""
    zone: tzinfo = UTC
    offset: timezone = UTC
    format: str = "2022"
    spool: Path = _NOWHERE
    state: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(dir=_states().name)))
    results: Path = _NOWHERE
    thumbnails: Path = _NOWHERE
    notes: dict[str, str] = field(default_factory=dict)
    # When the images were taken that are still to come, in unix seconds.
    pending: list[float] = field(default_factory=list)
    # Tasks that were delivered, and what was answered about images.
    tasks: dict[str, int] = field(default_factory=dict)
    answers: dict[int, Label] = field(default_factory=dict)
    address: Callable[[Image], str | None] = lambda _image: None
    can_make_thumbnails: bool = True
    free: int = 10**9
    name: str = "far"

    def note(self, key: str) -> Any:
        return json.loads(self.notes.get(key, "null"))

    def put_note(self, key: str, note: Any) -> None:
        self.notes[key] = json.dumps(note)

    def forget_note(self, key: str) -> None:
        self.notes.pop(key, None)

    def note_keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self.notes if key.startswith(prefix))

    def pending_between(self, since: float, until: float) -> int:
        return sum(since <= moment < until for moment in self.pending)

    def unanswered(self) -> Mapping[str, int]:
        return {task: number for task, number in self.tasks.items() if number not in self.answers}

    def has_task(self, image_id: int, task: str) -> bool:
        return self.tasks.get(task) == image_id

    def put_answers(self, labels: Mapping[int, Label]) -> None:
        self.answers.update(labels)

    def address_of(self, image: Image) -> str | None:
        return self.address(image)

    def thumbnail_of(self, image: Image) -> Path:
        return thumbnail_paths(self.thumbnails, image.place)[0]

    def make_thumbnail(self, _image: Image) -> bool:
        return self.can_make_thumbnails

    def room(self) -> int:
        return self.free


def context(time: FakeTime | None = None, **more: Any) -> MemoryContext:
    """A context whose sleep lets its time pass."""
    time = time or FakeTime()
    return MemoryContext(time, time.sleep, **more)


def connected(name: str, table: dict[str, Any], given: DestinationContext | None = None) -> Destination:
    """The destination of this table."""
    return check(name, table, SOURCE).connect(given or context())
