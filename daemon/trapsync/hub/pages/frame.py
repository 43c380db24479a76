"""What all pages have in common: who may see them, forms, headers, how they are made, and what went wrong in words.

A form is a POST with the token of its session in the field `form`, and is not taken from another site either way.
"""

import logging
import shlex
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from flask import Flask, Response, current_app, g, redirect, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import HTTPException

from trapsync.errors import TrapsyncError, one_line
from trapsync.hub import enrolment_app, fleet_app
from trapsync.hub.accounts import PEOPLE
from trapsync.hub.admission import Denied, Endpoint, Head, Refusals
from trapsync.hub.pages.asset_files import Assets
from trapsync.hub.room import is_full
from trapsync.hub.sessions import Session, Sessions, secret_of
from trapsync.hub.wire import BadRequest, Busy

log = logging.getLogger(__name__)

EVERYBODY: frozenset[str] | None = None  # without logging in, too
READERS: frozenset[str] | None = frozenset(PEOPLE)
ADMINS: frozenset[str] | None = frozenset({"admin"})
LARGEST_FORM = 16 * 1024  # bytes

# No other host, nothing inline, and no frame of another site around a page.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HTML = "text/html; charset=utf-8"


class NoSuchPage(TrapsyncError):
    """There is nothing at this address."""


class NotAllowed(TrapsyncError):
    """Not with this account, or not from another site."""


class Page(NamedTuple):
    """A page: method and rule of its address, who may see it, and what makes it from the parts of the address.

    `is_part`: it is a picture, say: who is not logged in is refused, and not led to the page for logging in.
    """

    method: str
    rule: str
    roles: frozenset[str] | None
    view: Callable[..., Response]
    is_part: bool = False


_STATUSES: Mapping[type[TrapsyncError], int] = {
    NoSuchPage: 404,
    NotAllowed: 403,
    BadRequest: 400,
    Busy: 503,
    **fleet_app.STATUSES,
    **enrolment_app.STATUSES,
}


def add(app: Flask, sessions: Sessions, refusals: Refusals, pages: list[Page]) -> None:
    """Give the app these pages, and the doors that admission needs."""
    app.jinja_options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    assets = Assets()
    app.jinja_env.globals["asset"] = assets.address
    app.jinja_env.filters["one_line"] = one_line  # for each text from outside that has not been through it
    for page in (*pages, Page("GET", "/assets/<name>", EVERYBODY, assets.send, is_part=True)):
        name = f"{page.method} {page.rule}"
        app.extensions["endpoints"][name] = Endpoint(page.roles, LARGEST_FORM, True, page.is_part)
        view = _guarded(page, sessions, refusals)
        app.add_url_rule(page.rule, name, view, methods=[page.method])
    app.extensions["doors"] = Doors(app, sessions)


def render(template: str, status: int = 200, **values: object) -> Response:
    """A page from a template, which also knows `session` (None for nobody) and `here`, the path of the page."""
    session: Session | None = g.get("session")
    text = _text(current_app, template, session=session, here=request.path, **values)
    return Response(text, status, content_type=_HTML)


def go_to(place: str) -> Response:
    """Lead to another page, after a form say."""
    return redirect(place, 303)  # type: ignore[return-value]


def at_desk() -> str:
    """The options by which a command at the operator's computer finds this hub, as who asks."""
    return f"--hub {shlex.quote(request.host_url.rstrip('/'))} --user {shlex.quote(g.session.user.name)}"


class Doors:
    """What pages answer to a request that is decided on by its head; see `admission.Doors`."""

    def __init__(self, app: Flask, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    def session(self, cookies: str) -> Session | None:
        """The session of this Cookie header."""
        secret = secret_of(cookies)
        return self._sessions.find(secret) if secret else None

    def login_first(self, head: Head) -> Denied:
        """Lead to the page for logging in, and from there to what was asked for."""
        place = quote(head.path.encode("latin-1")) + (f"?{head.query}" if head.query else "")
        return self._denied(303, "", ("Location", f"/login?{urlencode({'next': place})}"))

    def refuse(self, status: int, text: str) -> Denied:
        """A page that says why not."""
        return self._denied(status, _explained(self._app, None, status, text))

    def _denied(self, status: int, text: str, *more: tuple[str, str]) -> Denied:
        return Denied(status, text, headers=(("Content-Type", _HTML), *HEADERS.items(), *more))


def _guarded(page: Page, sessions: Sessions, refusals: Refusals) -> Callable[..., Response]:
    """Check session, role and form before the view; say in words what went wrong."""

    def guard(**parts: str) -> Response:
        request.max_content_length = LARGEST_FORM
        try:
            answer = _let_in(page, sessions) or page.view(**parts)
        except Exception as error:
            answer = _went_wrong(error, refusals)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    return guard


def _let_in(page: Page, sessions: Sessions) -> Response | None:
    """Know who asks as `g.session`; where he must log in first, lead there. Raises NotAllowed."""
    secret = secret_of(request.headers.get("Cookie", ""))
    session = sessions.find(secret) if secret else None
    if page.roles is not None:
        if session is None:
            return go_to("/login")
        g.session, g.user = session, session.user
        if session.user.role not in page.roles:
            raise NotAllowed(f"This is not for the account of a {session.user.role}.")
        sessions.note(session)
    if request.method == "POST":
        if not _is_from_here():
            raise NotAllowed(
                f"This form was sent by another site. Open {request.host_url} and send it again from there."
            )
        if page.roles is not None and session and not session.has_made(request.form.get("form", "")):
            raise NotAllowed("This form is an old one. Open its page again, and send it once more.")
    return None


def _is_from_here() -> bool:
    """Whether a form is one of this hub. A browser says so itself; without TLS it says at least from where."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or origin.partition("://")[2] == request.host


def _went_wrong(error: Exception, refusals: Refusals) -> Response:
    """A page that says it. What anybody can bring about is counted in the log, and what is a bug is loud."""
    session: Session | None = g.get("session")
    status, text = _in_words(error)
    if status == 500:
        log.error("%s failed", one_line(request.path), exc_info=error)
    elif status > 500:
        log.warning("%s: %s", one_line(request.path), text)
    elif status != 404:
        refusals.note(status, request.remote_addr or "-", session.user.name if session else "nobody")
    return Response(_explained(current_app, session, status, text), status, content_type=_HTML)


def _in_words(error: Exception) -> tuple[int, str]:
    if isinstance(error, HTTPException):
        status = error.code or 500
        return status, HTTPStatus(status).phrase
    if isinstance(error, TrapsyncError):
        text = one_line(error, 500)
        return _STATUSES.get(type(error), 503), text[:1].upper() + text[1:]
    if is_full(error):
        return 507, "The disk of this hub is full."
    return 500, "This is a bug in the hub; its log says more."


def _explained(app: Flask, session: Session | None, status: int, text: str) -> str:
    title = HTTPStatus(status).phrase if status != 403 else "Not allowed"
    return _text(app, "error.html", session=session, here="", title=title, text=text)


def _text(app: Flask, template: str, **values: Any) -> str:
    session: Session | None = values["session"]
    token = session.form_token() if session else ""
    return app.jinja_env.get_template(template).render(form_token=token, **values)
