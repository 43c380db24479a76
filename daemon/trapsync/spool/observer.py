"""Watchdog's observer of the spool: hints that a file is new.

The observer loses events (a full inotify queue, files that were there before, network folders), so what it says only
makes things quicker; `scan` finds every file. The one door to watchdog.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from trapsync.errors import StorageError
from trapsync.files import mounts
from trapsync.image import is_image_name, is_others_folder

# The kernel tells no more than these: each reading of a file would wake three threads, and a picture that is written
# in many pieces would fill its queue.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
]


class Watcher:
    """The observer of a spool. `offer` gets the path of a file that may be new (relative to the spool),
    `sweep` is called when a whole folder appeared. Both are called from the observer's threads."""

    def __init__(self, spool: Path, offer: Callable[[str], None], sweep: Callable[[], None]) -> None:
        self._spool = spool
        self._handler = _Handler(spool, offer, sweep)
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin to watch. Raises StorageError if the system refuses (too many watches, no spool)."""
        self.stop()  # if only a part of the last observer died, the rest still runs
        # watchdog 7 warns, at length, when a folder appears while it is already being added: no news.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
        observer = Observer()
        try:
            self._watched = mounts.identity(self._spool)
            observer.schedule(self._handler, str(self._spool), recursive=True, event_filter=_EVENTS)
            observer.start()
        except OSError as error:
            raise StorageError(f"{self._spool}: cannot be watched: {error.strerror or error}") from error
        self._observer = observer

    def is_alive(self) -> bool:
        """Whether the observer and all its emitters still run, which may end silently, and watch the spool.

        They follow a folder that was moved away.
        """
        observer = self._observer
        return (
            observer is not None
            and observer.is_alive()
            and bool(observer.emitters)
            and all(emitter.is_alive() for emitter in observer.emitters)
            and self._watched == mounts.identity(self._spool)
        )

    def stop(self) -> None:
        """Stop watching; may be called twice."""
        if self._observer is not None:
            self._observer.stop()
            self._observer = None


class _Handler(FileSystemEventHandler):
    """Puts paths on the queue and does nothing else: an exception here would kill the observer."""

    def __init__(self, spool: Path, offer: Callable[[str], None], sweep: Callable[[], None]) -> None:
        self._prefix = f"{spool}/"
        self._offer = offer
        self._sweep = sweep

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._sweep()  # what already lay in it gives no event
        else:
            path = os.fsdecode(event.dest_path or event.src_path).removeprefix(self._prefix)
            *folders, name = path.split("/")
            if is_image_name(name) and not any(map(is_others_folder, folders)):
                self._offer(path)
