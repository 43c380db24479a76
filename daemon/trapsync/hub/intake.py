"""Check an uploaded file by the Sticky Pi server's rules, and make its row.

That server runs its parser and answers 500 to whatever that raises. The same files are accepted here, and the
answer gives the reason.
"""

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from trapsync import __version__
from trapsync.clock import Clock, iso, utc
from trapsync.errors import one_line
from trapsync.hub.accounts import User
from trapsync.hub.arrivals import Arrival
from trapsync.hub.store import AlreadyHere, Row, Store, place_of
from trapsync.hub.thumbnails import Examiner
from trapsync.hub.wire import BadRequest, Busy
from trapsync.image import Image
from trapsync.net.stickypi_rules import FIRST_DAY, metadata_problem

log = logging.getLogger(__name__)

# Three fields; the third, and so the true kind of the file, does not matter to the server.
_NAME = re.compile(r"([0-9a-fA-F]{8})\.(\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})\.[^.]*", re.ASCII)
_AHEAD = 86400  # seconds that an image may be ahead of this machine's clock
_MEASUREMENTS = ("lat", "lng", "alt", "temp", "hum", "lum")


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes uploads."""

    store: Store
    examiner: Examiner
    clock: Clock

    def take(self, name: str, arrival: Arrival, md5: str, user: User) -> Row:
        """Store one upload and return its row as the protocol's answer, whose `id` is null.

        `name` is the name of the multipart part; folders in it do not count. `md5` is the sender's, empty
        if it gave none. Raises BadRequest, DamagedImage, Busy, AlreadyHere or Conflict, all with nothing changed.
        """
        device, taken = read_name(PurePosixPath(name).name)
        if not user.may_see(device):
            raise BadRequest(f"the account of trap {user.device} stores images of {user.device} only")
        if taken.timestamp() > self.clock.wall() + _AHEAD:
            raise BadRequest(
                f"{iso(taken)} lies in the future: this hub's clock says {iso(utc(self.clock.wall()))}"
            )
        if md5 and md5 != arrival.md5:
            raise BadRequest(f"the file's md5 is {arrival.md5}, not {md5[:40]} as its sender says")
        arrival.flush()
        image = self._examined(arrival)
        if reason := metadata_problem(image.metadata):
            raise BadRequest(reason)
        # The hub's own digest: who examines a picture may have been taken over by it.
        row = {**self._row(image, user), "md5": arrival.md5, "device": device, "datetime": iso(taken)}
        try:
            self.store.keep(row, arrival.path)
            arrival.is_stored = True
        except AlreadyHere:
            log.info("%s is stored already, sent again by %s", one_line(name), user.name)
            raise
        log.info("stored %s: %d bytes from %s", place_of(row).name, arrival.size, user.name)
        return {"id": None, **row, "but": None if row["but"] is None else bool(row["but"])}

    def _examined(self, arrival: Arrival) -> Image:
        try:
            return self.examiner.examine(arrival.path.parent, arrival.path.name)
        except TimeoutError as error:
            raise Busy(str(error)) from None

    def _row(self, image: Image, user: User) -> Row:
        found = image.metadata
        return {
            "device_version": found.get("device_version"),
            "width": image.width,
            "height": image.height,
            **{name: found.get(name) for name in _MEASUREMENTS},
            "bat": None if found.get("bat") is None else round(found["bat"]),
            "but": None if found.get("but") is None else int(found["but"]),
            "datetime_created": iso(utc(self.clock.wall())),
            "api_version": __version__,
            "api_user_id": user.id,
        }


def read_name(name: str) -> tuple[str, datetime]:
    """The device, in the sender's spelling, and the moment in a file name. Raises BadRequest."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadRequest(f"wrong file name {name[:100]!r}: it must be DDDDDDDD.YYYY-MM-DD_HH-MM-SS.jpg")
    try:
        taken = datetime.strptime(match[2], "%Y-%m-%d_%H-%M-%S").replace(tzinfo=UTC)
    except ValueError:
        raise BadRequest(f"wrong file name {name[:100]!r}: there is no such date") from None
    if taken < FIRST_DAY:
        raise BadRequest(f"wrong file name {name[:100]!r}: dates begin on 2019-11-01")
    return match[1], taken
