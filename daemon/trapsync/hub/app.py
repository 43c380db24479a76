"""The endpoints, with the answers of the Sticky Pi server.

Its protocol has one status code for whatever goes wrong with a request that it understood: 500. So has the hub,
but the body gives the reason, in one line.
"""

import gzip
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from flask import Flask, Response, current_app, g, jsonify, request, send_file
from werkzeug.exceptions import Forbidden, HTTPException, InternalServerError, NotFound, Unauthorized

from trapsync.clock import Clock, SystemClock
from trapsync.errors import TrapsyncError, one_line
from trapsync.hub import enrolment_app, fleet_app, uploads
from trapsync.hub.accounts import PEOPLE, Accounts, Role, User
from trapsync.hub.admission import REALM, USER, Endpoint, Guesses, Refusals
from trapsync.hub.annotations import Annotations
from trapsync.hub.arrivals import HubRequest
from trapsync.hub.database import Database
from trapsync.hub.enrolment import LARGEST_REQUEST, Enrolment
from trapsync.hub.enrolment_app import EnrolmentEndpoints
from trapsync.hub.fleet import Fleet, Verify
from trapsync.hub.fleet_app import FleetEndpoints
from trapsync.hub.intake import Intake
from trapsync.hub.links import Links, What
from trapsync.hub.long_answers import MANY_ROWS, LongAnswers
from trapsync.hub.metrics import Metrics
from trapsync.hub.pages import frame, site
from trapsync.hub.password_queue import PasswordQueue
from trapsync.hub.reports import Reports
from trapsync.hub.reports_app import ReportEndpoints
from trapsync.hub.room import Room, is_full
from trapsync.hub.sessions import Sessions
from trapsync.hub.store import Row, Store, Wanted, by_keys, by_ranges, md5_of
from trapsync.hub.thumbnails import NO_EXAMINER, Examiner, Thumbnails
from trapsync.hub.uploads import Uploads
from trapsync.hub.wire import (
    LARGEST_BODIES,
    LARGEST_QUESTION,
    UPLOADS,
    BadRequest,
    Busy,
    ForeignJson,
    moment,
    questions,
    short,
)
from trapsync.settings.project import Project

log = logging.getLogger(__name__)

LARGEST_BODY = 100 * 1024 * 1024  # nginx's limit in front of the original
_GZIP_FROM = 1000  # bytes
_PAGES = {"text/html", "text/css", "text/javascript"}
_RETRY_AFTER = 10  # seconds
_EVERYBODY: frozenset[str] = frozenset(get_args(Role))
_WRITERS = frozenset({"admin", "manager", "trap"})
_PEOPLE = frozenset(PEOPLE)
_ADMINS = frozenset({"admin"})
# Of what is not the Sticky Pi protocol: the status that each error has.
_STATUSES = fleet_app.STATUSES | enrolment_app.STATUSES | {Busy: 503}
_STORING = {"put_new_images", "put_uid_annotations", "put_heartbeat", "put_reports"}
_Rule = tuple[str, str, frozenset[str], Callable[..., Any]]
_RANGE = ("device", "start_datetime", "end_datetime")


@dataclass(frozen=True, slots=True)
class Hub:
    """All parts of one hub, below one folder."""

    folder: Path
    database: Database
    accounts: Accounts
    store: Store
    annotations: Annotations
    links: Links
    intake: Intake
    thumbnails: Thumbnails
    fleet: Fleet
    reports: Reports
    enrolment: Enrolment
    room: Room
    refusals: Refusals
    guesses: Guesses
    passwords: PasswordQueue
    sessions: Sessions
    clock: Clock
    project: Project

    @classmethod
    def open(
        cls,
        folder: Path,
        clock: Clock | None = None,
        examiner: Examiner = NO_EXAMINER,
        verify: Verify | None = None,
        min_free: int = 0,
        project: Project | None = None,
    ) -> "Hub":
        """Open the hub in this folder, or make a new one there. Raises StorageError.

        `examiner` looks at the pictures that are sent, in another process; without one none is taken. `verify` checks the
        signature of each published document; without one only its form is checked. With less than `min_free` bytes of
        free space nothing is stored. `project`: what packages of Camtrap DP say of the study.
        """
        clock = clock or SystemClock()
        folder = folder.absolute()  # Flask takes relative paths from its own package
        database = Database(folder / "hub.sqlite")
        store, accounts = Store(folder, database), Accounts(database, clock)
        return cls(
            folder=folder,
            database=database,
            accounts=accounts,
            store=store,
            annotations=Annotations(database, clock),
            links=Links(database, clock),
            intake=Intake(store, examiner, clock),
            thumbnails=Thumbnails(folder, store, examiner),
            fleet=Fleet(database, clock, verify),
            reports=Reports(database, clock),
            enrolment=Enrolment(database, clock),
            room=Room(folder, min_free, clock),
            refusals=Refusals(clock),
            guesses=Guesses(clock),
            passwords=PasswordQueue(accounts),
            sessions=Sessions(database, clock),
            clock=clock,
            project=project or Project(),
        )


def make_app(hub: Hub, *, largest_body: int = LARGEST_BODY) -> Flask:
    """The hub as a WSGI application."""
    app = Flask(__name__, static_folder=None, template_folder="pages/templates")
    app.config["MAX_CONTENT_LENGTH"] = largest_body
    app.json = ForeignJson(app)
    app.request_class = requests = type("Request", (HubRequest,), {"folder": hub.store.incoming})
    answers = LongAnswers(hub.store.incoming)
    fleet = FleetEndpoints(hub.fleet, hub.enrolment, answers)
    parts = _Endpoints(hub, answers), fleet, EnrolmentEndpoints(hub.enrolment)
    more = ReportEndpoints(hub.reports, answers), Metrics(hub.fleet)
    # For the look at a request's head, before its body is received; see `admission`.
    endpoints: dict[str, Endpoint] = {}
    app.extensions |= {"hub": hub, "endpoints": endpoints}
    for method, rule, view in (
        ("POST", "/join", parts[2].join),
        ("GET", "/image/<name>", _Files(hub).send),
        ("GET", "/health", partial(_health, hub)),
    ):
        name = rule.split("/")[1]
        endpoints[name] = Endpoint(None, LARGEST_REQUEST)
        app.add_url_rule(rule, endpoint=name, view_func=view, methods=[method])
    for method, rule, roles, view in (*_rules(*parts), *_rules_of_reports(*more)):
        largest = LARGEST_BODIES.get(view.__name__, LARGEST_QUESTION)
        endpoint = endpoints[view.__name__] = Endpoint(roles, largest_body if largest is None else largest)
        guarded = _guarded(hub, endpoint, view)
        app.add_url_rule(rule, endpoint=view.__name__, view_func=guarded, methods=[method])
    frame.add(app, hub.sessions, hub.refusals, site.pages(hub))
    app.register_error_handler(Exception, partial(_explain, hub.room))
    for kind in _STATUSES:
        app.register_error_handler(kind, _explain_plainly)
    app.register_error_handler(Unauthorized, _unauthorised)
    app.register_error_handler(Forbidden, _unauthorised)
    app.after_request(_compressed)
    before = Uploads(hub.intake, hub.room, requests, largest_body, app.wsgi_app)
    setattr(app, "wsgi_app", before)  # noqa: B010 - mypy minds a method that is replaced
    return app


def _rules(images: "_Endpoints", fleet: FleetEndpoints, enrolment: EnrolmentEndpoints) -> tuple[_Rule, ...]:
    """The routes that need an account, and the roles that may use each."""
    return (
        ("POST", "/get_token", _EVERYBODY, images.get_token),
        ("POST", "/get_images/<what>", _EVERYBODY, images.get_images),
        ("POST", "/get_image_series/<what>", _EVERYBODY, images.get_image_series),
        ("POST", UPLOADS, _WRITERS, images.put_new_images),
        ("POST", "/delete_images", _ADMINS, images.delete_images),
        ("POST", "/put_uid_annotations", _WRITERS, images.put_uid_annotations),
        ("POST", "/get_uid_annotations/<what>", _EVERYBODY, images.get_uid_annotations),
        ("POST", "/get_uid_annotations_series/<what>", _EVERYBODY, images.get_uid_annotations_series),
        ("GET", "/pushed/<slot>", _EVERYBODY, fleet.get_pushed),
        ("PUT", "/pushed/<slot>", _ADMINS, fleet.put_pushed),  # a trap's account must not change a slot
        ("POST", "/heartbeats/<device>", _WRITERS, fleet.put_heartbeat),
        ("GET", "/heartbeats/<device>", _EVERYBODY, fleet.get_heartbeats),
        ("GET", "/fleet", _PEOPLE, fleet.get_fleet),
        ("GET", "/traps", _PEOPLE, enrolment.get_traps),
        ("POST", "/traps/<device>/revoke", _ADMINS, enrolment.revoke),
        ("POST", "/traps/<device>/forget", _ADMINS, enrolment.forget),
        ("PUT", "/traps/<device>/groups", _ADMINS, enrolment.put_groups),
        ("GET", "/invitations", _ADMINS, enrolment.get_invitations),
        ("POST", "/invitations", _ADMINS, enrolment.invite),
        ("DELETE", "/invitations/<int(max=1000000000):number>", _ADMINS, enrolment.withdraw),
    )


def _rules_of_reports(reports: ReportEndpoints, metrics: Metrics) -> tuple[_Rule, ...]:
    return (
        ("POST", "/reports/<device>", _WRITERS, reports.put_reports),
        ("GET", "/effort", _PEOPLE, reports.get_effort),
        ("GET", "/metrics", _PEOPLE, metrics.get_metrics),
    )


class _Endpoints:
    """One method per route. The caller is logged in and has the role."""

    def __init__(self, hub: Hub, answers: LongAnswers) -> None:
        self._hub = hub
        self._answers = answers
        self._large = threading.Lock()

    def get_token(self) -> Any:
        """A token for a day; the expiry is on this machine's clock."""
        token, expiration = self._hub.accounts.token(g.user)
        return {"token": token, "expiration": expiration}

    def get_images(self, what: str) -> Any:
        """The rows of these devices and moments, as far as they are stored."""
        keys = _keys()
        if not keys:
            raise BadRequest("the list is empty")  # the original's SQL has no condition then
        return self._images(by_keys(_own(keys)), what)

    def get_image_series(self, what: str) -> Any:
        """The rows of devices LIKE one and in a range of time, for any object asked."""
        return self._images(by_ranges(_ranges(), g.user.device), what)

    def put_new_images(self) -> Any:
        """Store the files; where the hub has not done so before Flask was asked, see `uploads`."""
        return uploads.take(cast("HubRequest", request), self._hub.intake, g.user)

    def delete_images(self) -> Any:
        """Delete images, their annotations and their files; answer with the deleted rows."""
        rows = self._hub.store.delete(_keys())
        for row in rows:
            path = self._hub.store.path(row)
            self._hub.thumbnails.delete(path)
            log.info("deleted %s for %s", path.name, g.user.name)
        return rows

    def put_uid_annotations(self) -> Any:
        """Store annotations, all of them or none."""
        if (request.content_length or 0) <= LARGEST_QUESTION:
            return self._hub.annotations.put(request.get_json(), g.user)
        if not self._large.acquire(blocking=False):  # one takes some ten times its length in memory
            raise Busy("other annotations of more than a megabyte are being read: come again")
        try:
            return self._hub.annotations.put(request.get_json(), g.user)
        finally:
            self._large.release()

    def get_uid_annotations(self, what: str) -> Any:
        """The annotations of these images; with their `json` when `what` is data."""
        return self._annotations(by_keys(_own(_keys())), what)

    def get_uid_annotations_series(self, what: str) -> Any:
        """The annotations of series of images; with their `json` when `what` is data."""
        return self._annotations(by_ranges(_ranges(), g.user.device), what)

    def _annotations(self, wanted: Wanted, what: str) -> Response:
        return self._send(wanted, self._hub.annotations.find(wanted, with_json=what != "metadata"))

    def _images(self, wanted: Wanted, what: str) -> Response:
        """Rows with their `url`: empty for the metadata alone, else an address that expires."""
        if what not in {"metadata", *get_args(What)}:
            raise BadRequest(f"{one_line(what, 40)!r} is not one of: metadata, {', '.join(get_args(What))}")
        rows = self._hub.store.find(wanted)
        if what == "metadata":
            return self._send(wanted, ({**row, "url": ""} for row in rows))
        sign = self._hub.links.signer(what, g.user)  # type: ignore[arg-type]
        return self._send(wanted, ({**row, "url": self._address(row, sign)} for row in rows))

    def _send(self, wanted: Wanted, rows: Iterator[Row]) -> Response:
        return self._answers.send(rows, is_long=self._hub.store.has_many(wanted, MANY_ROWS))

    def _address(self, row: Row, sign: Callable[[int], str]) -> str:
        # Signed in the query, not in the path: servers and proxies write paths into their logs.
        return f"{request.host_url}image/{self._hub.store.path(row).name}?signed={sign(row['id'])}"


class _Files:
    """Send the files of signed addresses."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def send(self, name: str) -> Response:
        """Send a file; the name in the address does not matter."""
        meaning = self._hub.links.read(request.args.get("signed", ""))
        if meaning is None:
            raise Forbidden
        number, what = meaning
        row = self._hub.store.by_id(number)
        if row is None:
            raise NotFound
        path = self._hub.store.path(row)
        try:
            if what != "image":
                path = self._hub.thumbnails.get(path, what)
            # As S3 has it: a request for one byte shows whether the stored bytes still match the row.
            return send_file(path, mimetype="image/jpeg", etag=md5_of(path))
        except FileNotFoundError:
            raise NotFound from None


def _health(hub: Hub) -> Response:
    """For monitors and load balancers: 200 where the hub can read its database and store something, else 500 or 507."""
    hub.room.require()
    with hub.database.reading() as connection:
        connection.execute("SELECT count(*) FROM invitations").fetchone()
    return Response("ok\n", content_type="text/plain; charset=utf-8")


def _guarded(hub: Hub, endpoint: Endpoint, view: Callable[..., Any]) -> Callable[..., Response]:
    """Check login and role before the view; send what it returns as JSON."""

    def guard(**parts: str) -> Response:
        given = request.authorization
        user: User | None = request.environ.get(USER)  # who was admitted
        if user is None and given is not None and given.type == "basic":
            user = hub.accounts.recognise(given.username or "", given.password or "")
        if user is None:
            raise Unauthorized
        if user.role not in (endpoint.roles or ()):
            raise Forbidden
        g.user = user
        request.max_content_length = endpoint.largest  # the rest of a longer body is not read
        if view.__name__ in _STORING:
            hub.room.require()
        found = view(**parts)
        return found if isinstance(found, Response) else jsonify(found)

    return guard


def _keys() -> list[tuple[str, str]]:
    asked = questions(request.get_json(), "device", "datetime")
    return [(short(entry["device"]), moment(entry["datetime"])) for entry in asked]


def _own(keys: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the keys that the account may read."""
    return [key for key in keys if g.user.may_see(key[0])]


def _ranges() -> list[tuple[str, str, str]]:
    asked = questions(request.get_json(), *_RANGE)
    return [
        (short(entry["device"]), moment(entry["start_datetime"]), moment(entry["end_datetime"]))
        for entry in asked
    ]


def _explain(room: Room, error: Exception) -> Any:
    """Answer 500 with the one line of an expected error, 507 where the disk is full; any other is a bug, and loud."""
    if isinstance(error, HTTPException):
        return error
    path, text = one_line(request.path), one_line(error, 500)
    if is_full(error):
        if room.is_worth_telling():
            log.error("%s: %s", path, text)
        return Response(f"{text}\n", 507, content_type="text/plain; charset=utf-8")
    if not isinstance(error, TrapsyncError):
        log.error("%s failed", path, exc_info=error)
        text = "a bug in the hub: its log has more"
    else:
        log.warning("%s: %s", path, text)
    return InternalServerError(text).get_response()


def _explain_plainly(error: Exception) -> Response:
    """Answer with one line of plain text, and the status code of the error."""
    text = one_line(error, 500)
    status = _STATUSES[type(error)]  # type: ignore[index]
    if request.endpoint == "join":  # which everybody may try, as often as he likes
        hub: Hub = current_app.extensions["hub"]
        hub.refusals.note(status, request.remote_addr or "-", f"a trap that joins ({one_line(error, 150)})")
    else:
        log.warning("%s %s: %s", request.method, one_line(request.path), text)
    answer = Response(f"{text}\n", status, content_type="text/plain; charset=utf-8")
    if status == 503:
        answer.headers["Retry-After"] = str(_RETRY_AFTER)
    return answer


def _unauthorised(error: Exception) -> Response:
    """Answer 401 or 403; the bodies are equal, as on the Sticky Pi server."""
    status = error.code if isinstance(error, Unauthorized | Forbidden) else None
    answer = Response("Unauthorized Access", status or 401, content_type="text/html; charset=utf-8")
    answer.headers["WWW-Authenticate"] = REALM
    return answer


def _compressed(answer: Response) -> Response:
    """Compress long JSON and pages: a trap's link is slow, and so is a phone's in the field."""
    wanted = request.accept_encodings.quality("gzip") > 0 and (answer.is_json or answer.mimetype in _PAGES)
    if wanted and not answer.direct_passthrough and len(answer.data) >= _GZIP_FROM:
        answer.data = gzip.compress(answer.data, 6)
        answer.headers["Content-Encoding"] = "gzip"
        answer.headers["Vary"] = "Accept-Encoding"
    return answer
