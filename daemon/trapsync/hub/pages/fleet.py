"""The first page: all traps."""

from typing import TYPE_CHECKING

from flask import Response

from trapsync.hub.pages.frame import render

if TYPE_CHECKING:
    from trapsync.hub.app import Hub


class FleetPage:
    """All traps of the hub."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def show(self) -> Response:
        """The names of all traps."""
        return render("fleet.html", traps=self._hub.enrolment.traps())
