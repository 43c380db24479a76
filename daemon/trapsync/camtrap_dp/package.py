"""The package: a folder of tables, written whole or not at all, row by row.

Times are local, by the fixed offset of each trap. A picture whose time is not known has no row: the standard wants a
time of each. The deployments that it may be of have `timestampIssues`.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from trapsync.camtrap_dp import descriptor, observations, tables
from trapsync.camtrap_dp.deployments import Coverage, Covered
from trapsync.camtrap_dp.files import Files, Orders, clear
from trapsync.camtrap_dp.records import Gap, Picture, Span, Trap
from trapsync.errors import SettingsError, StorageError
from trapsync.files import durable, failpoint
from trapsync.net.reports import REASONS
from trapsync.settings.project import Project

# Metadata that has a name in EXIF: https://exiftool.org/TagNames/EXIF.html
_EXIF = {
    "temp": "AmbientTemperature",
    "hum": "Humidity",
    "lat": "GPSLatitude",
    "lng": "GPSLongitude",
    "alt": "GPSAltitude",
    **{name: name for name in ("Make", "Model", "ExposureTime", "ISOSpeedRatings", "FNumber", "FocalLength")},
}


class Package:
    """What was written, and what was left out of it."""

    def __init__(self, folder: Path, project: Project, files: Files, span: Span) -> None:
        self._folder, self._project, self._files, self._span = folder, project, files, span
        self._tables = {name: tables.Table(folder, name) for name in tables.FIELDS}
        self._orders = Orders(folder)
        self._places: list[tuple[float, float]] = []
        self._dates: list[str] = []
        self._taxa: set[str] = set()
        self._known: list[str] = []  # ids of deployments
        self.left_out: Counter[str] = Counter()
        self.unplaced: list[str] = []
        self.untold_labels: set[str] = set()

    def rows(self, name: str) -> int:
        """How many rows a table has."""
        return self._tables[name].rows

    def add(self, trap: Trap) -> None:
        """Write what is known of one trap."""
        coverage = Coverage(trap, self._span)
        self._known += [one.id for one in trap.deployments()]
        for picture in trap.pictures():
            self._add_picture(picture, coverage, trap)
        for one, gap in coverage.gaps(trap.gaps()):
            self._add_gap(one, gap, trap)
        for one in coverage.all():
            if one.place is None:
                self.unplaced.append(one.id)
                self.left_out["of unknown place"] += one.unplaced
                continue
            self._tables["deployments"].add(coverage.row(one))
            self._places.append(one.place)
            self._dates += coverage.dates(one)

    def _add_picture(self, picture: Picture, coverage: Coverage, trap: Trap) -> None:
        if picture.taken is None:
            self.left_out["held until the clock is set" if picture.is_held else "of unknown time"] += 1
            if not picture.is_held:
                coverage.note_unsure(picture)
            return
        if not self._span.holds(picture.taken):
            return
        deployment = coverage.of(picture.taken)
        if not deployment.is_wanted or not deployment.take(picture, picture.taken):
            return
        timestamp = tables.moment(picture.taken, trap.offset)
        self._tables["media"].add(self._medium(picture, deployment, timestamp))
        if self._files.wants(picture) and picture.source:
            self._orders.add(picture.source, picture.path, picture.digest)
        self._add_observations(picture, deployment, timestamp, trap)

    def _medium(self, picture: Picture, deployment: Covered, timestamp: str) -> dict[str, Any]:
        where = self._files.where(picture)
        exif = {name: picture.metadata[key] for key, name in _EXIF.items() if key in picture.metadata}
        return {
            "mediaID": picture.id,
            "deploymentID": deployment.id,
            "captureMethod": "timeLapse" if picture.is_ours else None,
            "timestamp": timestamp,
            "filePath": where.path,
            "filePublic": where.is_there and self._project.media_public,
            "fileName": picture.name,
            "fileMediatype": "image/jpeg",
            "exifData": json.dumps(exif) if exif else None,
        }

    def _add_observations(self, picture: Picture, deployment: Covered, timestamp: str, trap: Trap) -> None:
        self.left_out["shapes"] += sum(finding.odd for finding in picture.findings)
        some = observations.rows(picture, deployment.id, timestamp, trap.offset, self._project.taxa)
        for row in some:
            self._tables["observations"].add(row)
            if taxon := row.get("scientificName"):
                self._taxa.add(taxon)
        labels = {shape.label for finding in picture.findings for shape in finding.shapes}
        self.untold_labels |= labels - self._project.taxa.keys()

    def _add_gap(self, one: Covered, gap: Gap, trap: Trap) -> None:
        begin, end = (tables.moment(at, trap.offset) for at in (gap.since, gap.until))
        reason = gap.reason if gap.reason in REASONS else "unknown"
        row = {"deploymentID": one.id, "gapStart": begin, "gapEnd": end, "reason": reason}
        self._tables["sampling-gaps"].add(row)

    def finish(self, name: str, created: datetime) -> None:
        """Bring the pictures, describe the package, and flush it. Raises SettingsError where there is nothing in it."""
        self._require_something()
        self._files.bring(self._orders, self._folder)
        for table in self._tables.values():
            table.close()
        content = descriptor.describe(name, self._project, created, self._places, self._dates, self._taxa)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        durable.write(self._folder / "datapackage.json", [text.encode()])

    def _require_something(self) -> None:
        wanted = self._span.deployment
        if self._places:
            return
        if self.unplaced:
            raise SettingsError(
                f"the place of {self.unplaced[0]} is not known: set trap.latitude and trap.longitude; 0, 0 is unknown"
            )
        if wanted and wanted not in self._known and not wanted.endswith("-undeclared"):
            known = ", ".join(self._known[-5:]) or "none"
            raise SettingsError(f"there is no deployment {wanted!r}; there are: {known}")
        raise SettingsError("there is nothing to export: no deployment and no picture lies in that time")

    def close(self) -> None:
        """Forget what waits to be brought."""
        self._orders.close()


def write(
    folder: Path,
    traps: Iterable[Trap],
    project: Project,
    files: Files,
    span: Span,
    created: datetime,
    source: object,
) -> Package:
    """Write a package into a new folder: it is there whole, or not at all. `source` is what errors call the config file.

    Raises SettingsError as `require` does and where there is nothing to write, and StorageError.
    """
    require(project, span, source)
    try:
        with _new_folder(folder) as temporary:
            package = Package(temporary, project, files, span)
            try:
                for trap in traps:
                    package.add(trap)
                package.finish(folder.name, created)
            finally:
                package.close()
    except OSError as error:
        raise StorageError(durable.explain(error, folder)) from error
    return package


def require(project: Project, span: Span, source: object) -> None:
    """Raise SettingsError for what only people know and is missing, and for a span that ends before it begins."""
    if project.missing:
        raise SettingsError(
            f"{source}: a package of Camtrap DP needs {', '.join(project.missing)}; set what is missing"
        )
    if span.since is not None and span.until is not None and span.since >= span.until:
        raise SettingsError("--until: is not after --from")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when all in it is there; an error, or a kill, leaves none under that name.

    Raises StorageError if there is one of that name, or another process is writing it.
    """
    _require_free(folder)
    durable.make_folder(folder.parent)
    temporary = folder.with_name(durable.temporary_name(folder.name))
    if temporary.exists():
        with _alone(temporary, folder):
            clear(temporary)
    temporary.mkdir()
    try:
        with _alone(temporary, folder):
            yield temporary
            durable.flush_folder(temporary)
            failpoint.hit("camtrap-dp: written")
            _require_free(folder)
            temporary.rename(folder)
            failpoint.hit("camtrap-dp: renamed")
        durable.flush_folder(folder.parent)
    except BaseException:
        if temporary.exists():
            clear(temporary)
        raise


def _require_free(folder: Path) -> None:
    if os.path.lexists(folder):
        raise StorageError(f"{folder} is there already: name a folder that is not")


@contextmanager
def _alone(temporary: Path, folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is being written."""
    import fcntl

    descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StorageError(f"{folder} is being written by another process") from None
    finally:
        os.close(descriptor)
