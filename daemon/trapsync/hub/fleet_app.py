"""The endpoints of the fleet: remote settings for the traps, heartbeats from them, and both for the operator.

::

    GET  /pushed/<slot>         the signed document, with its ETag; 304 for who has it, 404 for none
    PUT  /pushed/<slot>         the operator (an admin) puts another; If-Match or If-None-Match: * guard it
    POST /heartbeats/<device>   a trap sends its heartbeat
    GET  /heartbeats/<device>   its latest ones, the newest first
    GET  /fleet                 the newest of every trap, and what the slots hold

A folder on any web server can stand in for the first.
"""

import json
import logging
from typing import Any

from flask import Response, g, request

from trapsync.errors import TrapsyncError, one_line
from trapsync.hub.enrolment import Enrolment
from trapsync.hub.fleet import LARGEST_DOCUMENT, Fleet, NoSuchSlot, NotTaken, NotYours, Overtaken
from trapsync.hub.long_answers import LongAnswers
from trapsync.net import heartbeat

log = logging.getLogger(__name__)

# The status that each error has, in this order.
STATUSES: dict[type[TrapsyncError], int] = {NoSuchSlot: 404, NotTaken: 400, Overtaken: 412, NotYours: 403}


class FleetEndpoints:
    """One method per route. The caller is logged in and has the role."""

    def __init__(self, fleet: Fleet, enrolment: Enrolment, answers: LongAnswers) -> None:
        self._fleet = fleet
        self._answers = answers
        self._enrolment = enrolment

    def get_pushed(self, slot: str) -> Response:
        """The published document, or 304, or an empty 404; a trap's account reads the slots that are meant for it."""
        if g.user.device:
            _require_own(slot, g.user.device, self._enrolment.groups(g.user.device))
        held = self._fleet.held(slot)
        if held is None:
            return Response(status=404)
        answer = Response(held.data, content_type="application/octet-stream")
        answer.set_etag(held.hash)
        answer.headers["Cache-Control"] = "no-cache"
        answer.make_conditional(request.environ)
        return answer

    def put_pushed(self, slot: str) -> Any:
        """Store a document of the operator; answer with its hash."""
        data = request.stream.read(LARGEST_DOCUMENT + 1)
        found = self._fleet.put(slot, data, g.user.name, instead_of=_expected())
        log.info("%s published %s: %s", g.user.name, slot, found[:12])
        return {"slot": slot, "hash": found}

    def put_heartbeat(self, device: str) -> Any:
        """Store a heartbeat; the answer names the trap, so that a captive portal's page is no answer."""
        received = self._fleet.take(device, request.stream.read(heartbeat.LARGEST + 1), g.user.device)
        return {"device": device, "received": received}

    def get_heartbeats(self, device: str) -> Any:
        """The stored heartbeats of one trap."""
        if g.user.device not in {None, device}:
            raise NotYours(
                f"the account of trap {g.user.device} reads the heartbeats of {g.user.device} only"
            )
        return self._fleet.history(device)

    def get_fleet(self) -> Any:
        """The newest heartbeat of each trap, and the slots."""
        found = self._fleet.snapshot()
        traps = found.pop("traps")
        return self._answers.send(traps, f'{json.dumps(found).removesuffix("}")}, "traps": [', "]}\n")


def _require_own(slot: str, device: str, groups: tuple[str, ...]) -> None:
    place = slot.rpartition(".")[0]
    if place.startswith("group-") and place.removeprefix("group-") not in groups:
        name = one_line(place.removeprefix("group-"), 64)
        raise NotYours(
            f"trap {device} is not in the group {name} at this hub; the operator types: "
            f"trapsync hub groups {device} {' '.join((*groups, name))}"
        )
    if place.startswith("device-") and place != f"device-{device}":
        raise NotYours(f"the account of trap {device} reads the slots of {device} only")


def _expected() -> str | None:
    """The hash that the sender expects in the slot; see `Fleet.put`."""
    if request.if_none_match.star_tag:
        return ""
    tags = list(request.if_match)
    return tags[0] if tags else None
