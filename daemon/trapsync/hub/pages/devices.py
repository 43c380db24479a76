"""Which traps belong to the hub: codes for new ones, groups, and locking one out. For admins."""

import json
import logging
from typing import TYPE_CHECKING, Any

from flask import Response, g, request

from trapsync.hub.enrolment import BadTerms
from trapsync.hub.pages.frame import NoSuchPage, go_to, render
from trapsync.net.invitation import Code, Terms

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

log = logging.getLogger(__name__)

_DAY = 86400.0
_DAYS, _USES = "7", "1"  # what the form begins with
# What locking a trap out is called, and what becomes of it.
_ENDS = {
    "revoke": "Its account is gone at once: it can send nothing any more. Its pictures and its place in the fleet stay. "
    "It joins again only with a code that is made afterwards.",
    "forget": "Its account and its heartbeats go, and it is shown no more. Its pictures stay. "
    "It joins again only with a code that is made afterwards.",
}


class DevicesPages:
    """The list of traps and codes, and what an admin does with them; the same as the endpoints of enrolment do."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._enrolment = hub.enrolment

    def show(self) -> Response:
        """The traps, the codes that are open, and the form for another."""
        codes = self._enrolment.invitations()
        keys = codes[-1]["keys"] if codes else []
        return render(
            "devices.html",
            traps=self._enrolment.traps(),
            codes=codes,
            keys="\n".join(keys),
            days=_DAYS,
            uses=_USES,
        )

    def invite(self) -> Response:
        """Make a code. Its page is the only place where it is ever seen: the hub keeps the hash of its secret."""
        terms = Terms(keys=_words("keys"), groups=_words("groups"), images="images" in request.form)
        if not terms.keys:
            raise BadTerms(
                "name the public key that these traps are to trust; make one with: trapsync keys new"
            )
        code, days = Code.new(request.host_url, terms), _number("days")
        asked = {
            "secret_hash": code.secret_hash,
            "until": self._hub.clock.wall() + days * _DAY,
            "keys": terms.keys,
            "groups": terms.groups,
            "images": terms.images,
            "uses": (uses := _number("uses")),
        }
        number = self._enrolment.invite(json.dumps(asked).encode(), g.user.name)["id"]
        log.info("%s made code %d", g.user.name, number)
        return render(
            "code.html",
            number=number,
            code=code,
            terms=terms,
            uses=uses,
            days=days,
            picture=_drawn(str(code)),
        )

    def withdraw(self, number: int) -> Response:
        """Have nobody join with a code from now on."""
        self._enrolment.withdraw(number)
        log.info("%s withdrew code %d", g.user.name, number)
        return go_to("/devices")

    def show_one(self, device: str) -> Response:
        """One trap, and what can be done with it."""
        return render("device.html", trap=self._trap(device))

    def regroup(self, device: str) -> Response:
        """Give a trap other groups."""
        self._enrolment.regroup(device, json.dumps({"groups": _words("groups")}).encode())
        log.info("%s changed the groups of trap %s", g.user.name, device)
        return go_to(f"/devices/{device}")

    def ask(self, device: str, how: str) -> Response:
        """Ask once more before a trap is locked out."""
        return render("end.html", trap=self._trap(device), how=how, meaning=_meaning(how))

    def end(self, device: str, how: str) -> Response:
        """Lock a trap out."""
        _meaning(how)
        (self._enrolment.revoke if how == "revoke" else self._enrolment.forget)(device)
        log.info("%s did this to trap %s: %s", g.user.name, device, how)
        return go_to("/devices")

    def _trap(self, device: str) -> dict[str, Any]:
        for trap in self._enrolment.traps():
            if trap["device"] == device:
                return trap
        raise NoSuchPage("This hub knows no such trap.")


def _meaning(how: str) -> str:
    if how not in _ENDS:
        raise NoSuchPage("There is no such page at this hub.")
    return _ENDS[how]


def _words(name: str) -> tuple[str, ...]:
    """The words in a field of the form, each once."""
    return tuple(dict.fromkeys(request.form.get(name, "").replace(",", " ").split()))


def _number(name: str) -> int:
    text = request.form.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise BadTerms(f"what stands in {name} is no number")
    return int(text)


def _drawn(text: str) -> str:
    """The text as a QR code in SVG; empty where the package for it is missing."""
    try:
        import segno
    except ImportError:
        return ""
    drawn: str = segno.make(text, error="l").svg_inline(
        border=4, light="#fff", svgclass="qr", lineclass=None, omitsize=True
    )
    return drawn
