"""The endpoints of enrolment.

::

    POST   /join                      a trap without an account shows a code, and gets one
    GET    /traps                     which traps there are, and whether each has an account of its own
    POST   /traps/<device>/revoke     lock one out
    POST   /traps/<device>/forget     the same, and show it no more
    PUT    /traps/<device>/groups     which groups' slots it may read
    GET    /invitations               the codes that can still be used
    POST   /invitations               keep a code that the operator made
    DELETE /invitations/<id>          have nobody join with it from now on
"""

import logging
from typing import Any

from flask import Response, g, jsonify, request

from trapsync.errors import TrapsyncError
from trapsync.hub.enrolment import LARGEST_REQUEST, BadTerms, Enrolment, JoinedAlready, NoSuchTrap, NotJoined

log = logging.getLogger(__name__)

# The status that each error has.
STATUSES: dict[type[TrapsyncError], int] = {
    BadTerms: 400,
    NotJoined: 403,
    NoSuchTrap: 404,
    JoinedAlready: 409,
}


class EnrolmentEndpoints:
    """One method per route. The caller of all but `join` is logged in and has the role."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    def join(self) -> Response:
        """Make a trap's account; answer with what its code promises."""
        found = self._enrolment.join(_body())
        log.info("trap %s has joined", found["device"])
        return jsonify(found)

    def get_traps(self) -> Any:
        """The traps."""
        return {"traps": self._enrolment.traps()}

    def revoke(self, device: str) -> Any:
        """Lock a trap out."""
        return self._told(self._enrolment.revoke(device), "revoked")

    def forget(self, device: str) -> Any:
        """Lock a trap out and show it no more."""
        return self._told(self._enrolment.forget(device), "forgot")

    def put_groups(self, device: str) -> Any:
        """Give a trap other groups."""
        return self._told(self._enrolment.regroup(device, _body()), "changed the groups of")

    def get_invitations(self) -> Any:
        """The codes, without their secrets."""
        return {"invitations": self._enrolment.invitations()}

    def invite(self) -> Any:
        """Keep a code."""
        found = self._enrolment.invite(_body(), g.user.name)
        log.info("%s made code %d", g.user.name, found["id"])
        return found

    def withdraw(self, number: int) -> Any:
        """End a code."""
        found = self._enrolment.withdraw(number)
        log.info("%s withdrew code %d", g.user.name, number)
        return found

    def _told(self, found: dict[str, Any], what: str) -> dict[str, Any]:
        log.info("%s %s trap %s", g.user.name, what, found["device"])
        return found


def _body() -> bytes:
    return request.stream.read(LARGEST_REQUEST + 1)
