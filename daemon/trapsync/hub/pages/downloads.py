"""A night as a zip: its pictures, or a package of Camtrap DP with them."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flask import Response, request
from werkzeug.wsgi import wrap_file

from trapsync.camtrap_dp import package, records
from trapsync.camtrap_dp.files import FOLDER, Files
from trapsync.camtrap_dp.records import Picture
from trapsync.clock import utc
from trapsync.errors import SettingsError
from trapsync.hub import packages
from trapsync.hub.holdings import Holdings
from trapsync.hub.pages.frame import NoSuchPage, NotAllowed
from trapsync.hub.pages.night import Asked, asked
from trapsync.hub.zips import Member, Zip

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_AT_ONCE = 1000  # rows in memory
_MOST = 30_000  # pictures of a zip: one every three seconds, day and night
_LEFT_OUT = "not-in-this-zip.txt"


class Downloads:
    """The zips of nights. No thread waits for who fetches one, see `zips`."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._holdings = Holdings(hub.database)

    def images(self, device: str, night: str) -> Response:
        """The pictures of a night, under their names."""
        found = self._asked(device, night)
        members, missing = list[Member](), list[str]()
        for path, taken in self._files(found):
            if member := _member(path, path.name, taken):
                members.append(member)
            else:
                missing.append(path.name)
        if not members:
            raise NoSuchPage("There is no picture of this night.")
        return _send(Zip([*members, *_note(missing, found)]), f"{device}-{found.night}.zip")

    def camtrap_dp(self, device: str, night: str) -> Response:
        """A package of the exchange standard Camtrap DP of a night, with its pictures."""
        found = self._asked(device, night)
        name, files = f"{device}-{found.night}-camtrap-dp", _InZip()
        now = utc(self._hub.clock.wall()).astimezone(found.trap.local.zone)
        folder = TemporaryDirectory(prefix="trapsync-hub-")
        try:
            place = Path(folder.name, name)
            self._write(place, found, files)
            paths = [(path, path.name) for path in sorted(place.iterdir())]
            members = [one for path, inside in [*paths, *files.noted] if (one := _member(path, inside, now))]
            return _send(Zip(members, folder.cleanup), f"{name}.zip")
        except BaseException:
            folder.cleanup()
            raise

    def _write(self, folder: Path, found: Asked, files: Files) -> None:
        """Write the tables of the package. Raises NotAllowed where only people know what is missing in it."""
        hub, device = self._hub, found.trap.device
        trap = packages.of_one(hub.folder, hub.database, hub.reports, device, found.span)
        since, until = (one.timestamp() for one in found.span)
        span, created = records.Span(since, until), utc(hub.clock.wall())
        try:
            package.write(folder, [trap], hub.project, files, span, created, "the hub's config file")
        except SettingsError as error:
            raise NotAllowed(str(error)) from None

    def _asked(self, device: str, night: str) -> Asked:
        """The night of an address. Raises NoSuchPage; NotAllowed for one that would keep a thread busy for long."""
        found = asked(self._hub, device, night)
        if self._holdings.count(device, found.span) > _MOST:
            raise NotAllowed(f"This night has more than {_MOST} pictures: too many for a zip.")
        return found

    def _files(self, found: Asked) -> Iterator[tuple[Path, datetime]]:
        """The files of a night, each with its local time."""
        last = ""
        while rows := self._holdings.images(found.trap.device, found.span, _AT_ONCE, last):
            for row in rows:
                taken = datetime.fromisoformat(row["datetime"]).astimezone(found.trap.local.zone)
                yield self._hub.store.path(row), taken
            last = rows[-1]["datetime"]


class _InZip(Files):
    """The pictures of a package that are put into its zip from where they are."""

    def __init__(self) -> None:
        super().__init__("copy")
        self.noted: list[tuple[Path, str]] = []

    def wants(self, picture: Picture) -> bool:
        """Note it; none is brought into the folder."""
        if picture.source:
            self.noted.append((picture.source, f"{FOLDER}/{picture.path}"))
        return False


def _member(path: Path, name: str, at: datetime) -> Member | None:
    """A file as a member; None where it is missing."""
    try:
        return Member.of_file(name, path, at)
    except OSError:
        return None


def _note(missing: list[str], found: Asked) -> list[Member]:
    """A text that names the pictures whose files are missing at the hub, if there are any."""
    if not missing:
        return []
    text = "\n".join(["The files of these pictures are missing at the hub:", "", *missing, ""])
    return [Member.of_text(_LEFT_OUT, text, found.span.until.astimezone(found.trap.local.zone))]


def _send(made: Zip, name: str) -> Response:
    answer = Response(wrap_file(request.environ, made), mimetype="application/zip", direct_passthrough=True)  # type: ignore[arg-type]
    answer.content_length = made.length
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer
