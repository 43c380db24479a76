"""Uploads as they arrive: the file of a form is written straight into `images/.incoming`, and hashed meanwhile."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from trapsync.files import failpoint

_MOST_FILES = 100  # of one request; the vendor's client sends one


class Arrival:
    """A file that is being received, or has been: then it is to be flushed, and is not yet examined."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(8)}.jpg"
        self.size = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._file = self.path.open("xb", buffering=0)

    @property
    def md5(self) -> str:
        """Of what has come."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:  # a file without a buffer may take less at a time
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self.size += len(data)

    def seek(self, *_: int) -> None:
        """Nothing: Werkzeug rewinds what it has written, for readers that there are none of."""

    def flush(self) -> None:
        """Have what has come survive a power cut."""
        os.fsync(self._file.fileno())
        failpoint.hit("hub: arrived")

    def close(self) -> None:
        """End, and remove what was not moved to its place."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        failpoint.hit("hub: arrival removed")


class HubRequest(Request):
    """A request whose files go where `folder` says; to be made a class of one hub."""

    folder: Path

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.arrivals: list[Arrival] = []

    def _get_file_stream(self, *_: Any, **__: Any) -> Any:
        if len(self.arrivals) == _MOST_FILES:
            raise RequestEntityTooLarge(f"a request has {_MOST_FILES} files at most")
        self.arrivals.append(Arrival(self.folder))
        return self.arrivals[-1]

    def close(self) -> None:
        """Remove what came with it and was not stored; the server calls it at the end of each request."""
        while self.arrivals:
            self.arrivals.pop().close()
        super().close()
