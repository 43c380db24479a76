"""The endpoint that takes images. What it is asked for most often it answers before Flask, which would take an eighth of
all the time that an image costs the hub."""

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from trapsync.hub.accounts import User
from trapsync.hub.admission import USER
from trapsync.hub.arrivals import HubRequest
from trapsync.hub.channel import IN_MEMORY
from trapsync.hub.intake import Intake
from trapsync.hub.room import Room
from trapsync.hub.store import Row
from trapsync.hub.wire import UPLOADS, BadRequest

_FAILED = "trapsync.failed"  # where an error of an upload is in the environment of its request


class Uploads:
    """A WSGI application that takes uploads of those who were admitted, and hands all else on."""

    def __init__(
        self, intake: Intake, room: Room, request: type[HubRequest], largest: int, app: WSGIApplication
    ) -> None:
        self._intake = intake
        self._room = room
        self._request = request
        self._largest = largest
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer a request; of an upload that fails Flask's view says why."""
        user: User | None = environ.get(USER)
        if user is None or environ["PATH_INFO"] != UPLOADS or environ["REQUEST_METHOD"] != "POST":
            return self._app(environ, start)
        request = self._request(environ)
        request.max_content_length = self._largest
        try:
            if (request.content_length or 0) <= IN_MEMORY:  # of a longer body its head was looked at for that
                self._room.require()
            answer = _as_json(take(request, self._intake, user))
        except Exception as error:
            environ[_FAILED] = error
            return self._app(environ, start)
        finally:
            request.close()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
        return [answer]


def take(request: HubRequest, intake: Intake, user: User) -> list[Row]:
    """Store the files one after another; the first that fails ends it, those before it stay stored.

    Raises BadRequest, and what `Intake.take` does.
    """
    if error := request.environ.get(_FAILED):
        raise error
    form = request.receive_form()
    if not form.files:
        raise BadRequest("there is no file in the request")
    if len(dict(form.files)) < len(form.files):  # the original stores the first alone, and says nothing
        raise BadRequest("two files in the request have the same name")
    return [
        intake.take(name, arrival, form.texts.get(f"{name}.md5", ""), user) for name, arrival in form.files
    ]


def _as_json(rows: list[Row]) -> bytes:
    """As Flask writes it."""
    return json.dumps(rows, separators=(",", ":")).encode() + b"\n"
