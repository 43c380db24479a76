"""Long answers: rows as JSON, made one by one into a file that has no name, and sent from there.

So memory does not depend on the answer, and a slow reader holds neither the database nor a worker thread.
"""

import gzip
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from flask import Response, current_app, request
from werkzeug.wsgi import wrap_file

from trapsync.hub.wire import BadRequest, Busy

# Bytes of JSON that are answered from memory: a trap's question about 512 images has a third of it.
_SHORT = 2**19
_LARGEST = 200 * 2**20
MANY_ROWS = 2000  # make an answer that is long
_AT_ONCE = 2  # that are being made: each keeps a core busy, and heartbeats are not to wait
_MOST_UNSENT = 16  # files that wait for their readers


class LongAnswers:
    """Makes the answers of one hub."""

    def __init__(self, folder: Path) -> None:
        """`folder` has room for files."""
        self._folder = folder
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._unsent: list[IO[bytes]] = []

    def send(
        self, rows: Iterator[Any], begin: str = "[", end: str = "]\n", *, is_long: bool = False
    ) -> Response:
        """Answer with a list of rows, as `jsonify` writes it, and what stands around it. `is_long`: that is known.

        Raises Busy where too many are made at once, and BadRequest for what is longer than any answer.
        """
        with ExitStack() as stack:
            if is_long:  # then none of it is made in vain
                stack.enter_context(self._turn())
            pieces = stack.enter_context(closing(_pieces(rows, begin, end)))
            short = bytearray()
            for piece in pieces:
                short += piece
                if len(short) > _SHORT:
                    break
            else:
                return Response(bytes(short), mimetype="application/json")
            if not is_long:
                stack.enter_context(self._turn())
            return self._long(short, pieces)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(blocking=False):
            raise Busy("other long answers are being made: ask again, or for less")
        try:
            yield
        finally:
            self._turns.release()

    def _long(self, start: bytearray, pieces: Iterator[bytes]) -> Response:
        self._unsent = [file for file in self._unsent if not file.closed]
        if len(self._unsent) >= _MOST_UNSENT:
            raise Busy(f"{len(self._unsent)} long answers wait for their readers: ask again, or for less")
        is_packed = request.accept_encodings.quality("gzip") > 0
        file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - the server closes it, once it is sent
        self._unsent.append(file)
        try:
            if is_packed:
                with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
                    _write(start, pieces, packed)
            else:
                _write(start, pieces, file)
            length = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        body = wrap_file(request.environ, file)
        answer = Response(body, mimetype="application/json", direct_passthrough=True)
        answer.content_length = length
        if is_packed:
            answer.headers["Content-Encoding"] = "gzip"
            answer.headers["Vary"] = "Accept-Encoding"
        return answer


def _pieces(rows: Iterator[Any], begin: str, end: str) -> Generator[bytes]:
    before = begin
    for row in rows:
        yield before.encode() + current_app.json.dumps(row, separators=(",", ":")).encode()
        before = ","
    yield (end if before == "," else begin + end).encode()


def _write(start: bytearray, pieces: Iterator[bytes], file: Any) -> None:
    file.write(start)
    size = len(start)
    for piece in pieces:
        size += len(piece)
        if size > _LARGEST:
            raise BadRequest(
                f"the answer is longer than {_LARGEST >> 20} MiB: ask for shorter ranges of time"
            )
        file.write(piece)
