"""Uploads as they arrive: the file of a form is written straight into `images/.incoming`, and hashed meanwhile."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from flask import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser
from werkzeug.exceptions import RequestEntityTooLarge

from trapsync.errors import one_line
from trapsync.files import failpoint
from trapsync.hub.wire import BadRequest

_MOST_FILES = 100  # of one request; the vendor's client sends one
_MOST_TEXTS = 200
_LONGEST_TEXT = 64 * 1024  # bytes
_AT_ONCE = 256 * 1024  # bytes that are read, hashed and written


class Arrival:
    """A file that is being received, or has been: then it is to be flushed, and is not yet examined."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{secrets.token_hex(8)}.jpg"
        self.size = 0
        self.is_stored = False  # moved to its place
        self._digest = hashlib.md5(usedforsecurity=False)
        self._file = self.path.open("xb", buffering=0)

    @property
    def md5(self) -> str:
        """Of what has come."""
        return self._digest.hexdigest()

    def write(self, data: bytes | bytearray) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:  # a file without a buffer may take less at a time
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Have what has come survive a power cut."""
        os.fsync(self._file.fileno())
        failpoint.hit("hub: arrived")

    def close(self) -> None:
        """End, and remove what was not moved to its place."""
        self._file.close()
        if not self.is_stored:
            self.path.unlink(missing_ok=True)
        failpoint.hit("hub: arrival removed")


class _Text:
    """A text of a form that is being received."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes | bytearray) -> None:
        """Take the next bytes. Raises BadRequest for too many."""
        self.content += data
        if len(self.content) > _LONGEST_TEXT:
            raise BadRequest(f"a text of the form has more than {_LONGEST_TEXT} bytes")


class Form(NamedTuple):
    """What came in a form: the files, and the texts, each by the name of its part."""

    files: list[tuple[str, Arrival]]
    texts: dict[str, str]


class HubRequest(Request):
    """A request whose files go where `folder` says; to be made a class of one hub.

    Its form is read by `multipart`, which takes a fifth of the time that Werkzeug's parser does.
    """

    folder: Path

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.arrivals: list[Arrival] = []

    def receive_form(self) -> Form:
        """Read the body, which is a form, and write its files. Raises BadRequest."""
        form, texts = Form([], {}), dict[str, _Text]()
        boundary = self.mimetype_params.get("boundary", "")
        if self.mimetype != "multipart/form-data" or not boundary:
            return form
        part: Arrival | _Text = _Text()
        try:
            parser = PushMultipartParser(boundary, max_segment_count=_MOST_FILES + _MOST_TEXTS)
            chunks = self._chunks()
            while not parser.closed:
                for event in parser.parse(next(chunks)):
                    if isinstance(event, MultipartSegment):
                        part = self._begin(event, form, texts)
                    elif event:
                        part.write(event)
        except MultipartError as error:
            raise BadRequest(f"the form cannot be read: {one_line(error, 150)}") from None
        form.texts.update(
            (name, bytes(text.content).decode(errors="replace")) for name, text in texts.items()
        )
        return form

    def _chunks(self) -> Iterator[bytes]:
        """The body, and then nothing again and again. One that was received in memory is not copied."""
        body = self.environ["wsgi.input"]
        if isinstance(body, BytesIO) and self.content_length == body.getbuffer().nbytes:
            yield body.getvalue()
            self.stream.read()
        while True:
            yield self.stream.read(_AT_ONCE)

    def _begin(self, part: MultipartSegment, form: Form, texts: dict[str, _Text]) -> Arrival | _Text:
        """Where the content of a part goes."""
        if part.filename is None:
            return texts.setdefault(part.name, _Text())
        if len(self.arrivals) == _MOST_FILES:
            raise RequestEntityTooLarge(f"a request has {_MOST_FILES} files at most")
        self.arrivals.append(Arrival(self.folder))
        form.files.append((part.name, self.arrivals[-1]))
        return self.arrivals[-1]

    def close(self) -> None:
        """Remove what came with it and was not stored; the server calls it at the end of each request."""
        while self.arrivals:
            self.arrivals.pop().close()
        super().close()
