"""Log in and out by a browser."""

import logging
import queue
import re
import threading
from typing import TYPE_CHECKING

from flask import Response, g, request

from trapsync.errors import one_line
from trapsync.hub.accounts import User
from trapsync.hub.admission import Login, network
from trapsync.hub.pages import frame
from trapsync.hub.sessions import COOKIE, secret_of
from trapsync.settings.schema import DEVICE

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

log = logging.getLogger(__name__)

_PATIENCE = 30.0  # seconds for a password to be compared
_LONGEST = 200  # characters of a name
_KEPT = 400 * 86400  # seconds that browsers keep a cookie at most; a session that is not used ends sooner
_BUSY = "Too many passwords are being compared. Try again in a few seconds."
# A path of this hub: a browser takes // and /\ for another host.
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")


class LoginPages:
    """The form, and what becomes of it."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._one_waits = threading.Lock()  # or those who guess would take all threads

    def show(self) -> Response:
        """The form."""
        return _form()

    def log_in(self) -> Response:
        """Take name and password; a session that there is ends, so that nobody is given one that another knows."""
        name, password = request.form.get("name", "")[:_LONGEST], request.form.get("password", "")
        key = (network(request.remote_addr or "-"), name)
        if wait := self._hub.guesses.wait(key):
            return self._refused(
                429, name, f"There were wrong passwords for this name. Try again in {wait} s."
            )
        try:
            user = self._recognise(key[0], name, password)
        except TimeoutError:
            return _form(503, _BUSY)
        if user is None:
            self._hub.guesses.wrong(key)
            return self._refused(401, name, "Name or password is wrong.")
        self._hub.guesses.right(key)
        if user.role == "trap":
            return self._refused(
                403, name, "The account of a trap has no pages. Log in with that of a person."
            )
        return self._begin(user, password)

    def log_out(self) -> Response:
        """End the session."""
        self._hub.sessions.end(g.session.secret)
        answer = frame.go_to("/login")
        answer.delete_cookie(COOKIE)
        return answer

    def _begin(self, user: User, password: str) -> Response:
        if before := secret_of(request.headers.get("Cookie", "")):
            self._hub.sessions.end(before)
        log.info("%s has logged in by a browser at %s", one_line(user.name, 40), request.remote_addr)
        answer = frame.go_to(_local(request.form.get("next", "")))
        answer.set_cookie(
            COOKIE,
            self._hub.sessions.begin(user, password),
            max_age=_KEPT,
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
        return answer

    def _recognise(self, place: str, name: str, password: str) -> User | None:
        """The user with that password; a token is none. Raises TimeoutError where too many are compared."""
        user = self._hub.accounts.recognise_at_once(name, password)
        if user is not None:
            return user if user.name == name else None
        if not name or not password or DEVICE.fullmatch(name):
            return None
        if not self._one_waits.acquire(blocking=False):
            raise TimeoutError
        try:
            answer: queue.SimpleQueue[User | None] = queue.SimpleQueue()
            if not self._hub.passwords.put(place, Login(name, password), answer.put):
                raise TimeoutError
            return answer.get(timeout=_PATIENCE)
        except queue.Empty:
            raise TimeoutError from None
        finally:
            self._one_waits.release()

    def _refused(self, status: int, name: str, text: str) -> Response:
        self._hub.refusals.note(status, request.remote_addr or "-", one_line(name, 40))
        return _form(status, text)


def _form(status: int = 200, problem: str = "") -> Response:
    name, place = request.form.get("name", ""), request.values.get("next", "")
    return frame.render("login.html", status, name=one_line(name), next=_local(place), problem=problem)


def _local(place: str) -> str:
    """A path of this hub; the first page for anything else."""
    return place if _LOCAL.fullmatch(place) else "/"
