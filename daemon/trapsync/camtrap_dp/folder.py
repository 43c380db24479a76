"""A package's content from a folder of pictures, of a stick or a directory destination: there is no catalog.

What is known of a picture stands in its EXIF and in its name, in whatever layout: the trap, the moment and how far that can
be trusted, the deployment. What lies in the folder is read as anybody's: no link is followed, and nothing of a picture is
decoded.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timezone
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any, NamedTuple

from trapsync.camtrap_dp.deployments import place_of
from trapsync.camtrap_dp.files import is_path
from trapsync.camtrap_dp.records import Deployment, Gap, Picture
from trapsync.catalog.image_export import taken_by_camera
from trapsync.destinations.directory import manifest
from trapsync.errors import DamagedImage, IncompleteImage, StorageError
from trapsync.files import durable
from trapsync.files.folder import Folder
from trapsync.image import TrapName, is_image_name, is_others_folder, parse_name
from trapsync.jpeg import exif, structure
from trapsync.settings.schema import DEVICE, Settings
from trapsync.settings.time_zone import fixed_offset

_HEAD, _LARGEST_HEAD = 1 << 16, 16 << 20  # bytes that are read of a picture first, and at most
_KEPT = ("temp", "hum", "lat", "lng", "alt", "Make", "Model", "ExposureTime", "ISOSpeedRatings")
_UNKNOWN = "unknown"  # the device of pictures that do not say which camera took them
_OF_DEVICE = re.compile(r"(?:^|/)([0-9a-f]{8})(?=/)")
_DESCRIBED = re.compile(r"(.*?)(?:, deployment \S+)?", re.DOTALL)


class _Found(NamedTuple):
    """A picture of the folder; small, for there may be many. `taken` is None where it is not known."""

    taken: float | None
    path: str
    digest: str
    deployment: str | None
    is_ours: bool
    values: tuple[Any, ...]  # of `_KEPT`

    @property
    def metadata(self) -> dict[str, Any]:
        """What was measured."""
        known = zip(_KEPT, self.values, strict=True)
        return {name: value for name, value in known if value is not None}


@dataclass
class FolderTrap:
    """One trap whose pictures lie in a folder."""

    folder: Path
    device: str
    offset: timezone
    name: str = ""
    place: tuple[float, float] | None = None
    until: float | None = None
    found: list[_Found] = field(default_factory=list)

    def deployments(self) -> Sequence[Deployment]:
        """Those that its pictures name, from the first picture of each to the last."""
        spans: dict[str, tuple[float, float]] = {}
        for one in self.found:
            if one.deployment and one.taken is not None:
                since, until = spans.get(one.deployment, (one.taken, one.taken))
                spans[one.deployment] = min(since, one.taken), max(until, one.taken)
        known = [Deployment(name, since, until + 1, {}) for name, (since, until) in spans.items()]
        return sorted(known, key=lambda one: one.since)

    def pictures(self) -> Iterator[Picture]:
        """Its pictures, oldest first."""
        self.found.sort(key=lambda one: (one.taken or 0.0, one.path))
        spans = {one.id: (one.since, one.until) for one in self.deployments()}
        names = set[str]()
        for one in self.found:
            identity = self._identity(one)
            if identity in names:  # another copy of it, or other bytes under its name
                identity = f"{identity}.{_digest_of(one.path)}"
            names.add(identity)
            path = one.path if is_path(one.path) else f"other/{_digest_of(one.path)}.jpg"
            yield Picture(
                identity,
                one.taken,
                path,
                PurePosixPath(one.path).name,
                source=self.folder / one.path,
                digest=one.digest,
                between=spans.get(one.deployment or "", (None, None)),
                is_ours=one.is_ours,
                metadata=one.metadata,
            )

    def gaps(self) -> Iterator[Gap]:
        """None: a folder does not say when pictures were due."""
        return iter(())

    def _identity(self, one: _Found) -> str:
        if one.is_ours and one.taken is not None:
            return str(TrapName(self.device, datetime.fromtimestamp(one.taken, UTC)))
        return f"other-{_digest_of(f'{one.path} {one.digest}')}"


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


class FolderTraps:
    """The traps whose pictures lie in a folder. `damaged` counts files that are no pictures, or are not whole."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Look at each file of the folder. Raises StorageError."""
        self.damaged = 0
        self._folder, self._offset = folder.absolute(), fixed_offset(settings)
        self._traps: dict[str, FolderTrap] = {}
        try:
            with Folder.open(self._folder) as root:
                self._walk(root, "")
        except OSError as error:
            raise StorageError(durable.explain(error, folder)) from error
        if len(self._traps) == 1:  # the place of the config file is that of one trap
            (only,) = self._traps.values()
            only.place = place_of(settings.trap.latitude, settings.trap.longitude)

    def __iter__(self) -> Iterator[FolderTrap]:
        """In the order of their ids."""
        return iter(sorted(self._traps.values(), key=lambda one: one.device))

    def _walk(self, folder: Folder, place: str) -> None:
        with os.scandir(folder.descriptor) as entries:
            found = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
        names = [name for name, is_folder in found if not is_folder and is_image_name(name)]
        known = self._noted(folder, names)
        for name in sorted(names):
            self._look(folder, f"{place}{name}", name, known.get(name))
        for name in sorted(name for name, is_folder in found if is_folder and not is_others_folder(name)):
            with folder.below([name]) as below:
                self._walk(below, f"{place}{name}/")

    def _noted(self, folder: Folder, names: Sequence[str]) -> dict[str, manifest.Entry]:
        try:
            return manifest.read(folder, names) if names else {}
        except manifest.NotOurs:
            return {}

    def _look(self, folder: Folder, path: str, name: str, noted: manifest.Entry | None) -> None:
        try:
            with folder.file(name) as file:
                size = os.fstat(file.fileno()).st_size
                head = file.read(_HEAD)
                try:
                    header = structure.header(head)
                except IncompleteImage:
                    header = structure.header(head + file.read(_LARGEST_HEAD))
        except (OSError, DamagedImage):
            self.damaged += 1
            return
        if noted and noted.size not in (-1, size):
            self.damaged += 1
            return
        self._add(path, name, noted, *exif.read(header.exif))

    def _add(
        self, path: str, name: str, noted: manifest.Entry | None, metadata: Mapping[str, Any], evidence: Any
    ) -> None:
        named, device = parse_name(name), _device(path, name, metadata)
        at = taken_by_camera(metadata)
        if named and (at is None or at.tzinfo is None):
            at = named.taken
        is_unsure = evidence is not None and not evidence.trusted and evidence.offset is None
        is_known = at is not None and at.tzinfo is not None and not is_unsure
        trap = self._traps.setdefault(device, FolderTrap(self._folder, device, self._offset))
        trap.found.append(
            _Found(
                at.timestamp() if at and is_known else None,
                path,
                f"sha256:{noted.digest}" if noted else "",
                metadata.get("deployment") and intern(metadata["deployment"]),
                named is not None or evidence is not None,
                tuple(_interned(metadata.get(key)) for key in _KEPT),
            )
        )
        if described := metadata.get("ImageDescription"):
            trap.name = (_DESCRIBED.fullmatch(described) or [described, described])[1]


def _interned(value: object) -> object:
    return intern(value) if isinstance(value, str) else value


def _device(path: str, name: str, metadata: Mapping[str, Any]) -> str:
    """The trap that took a picture: by its name, by its EXIF, by the folder in which it lies."""
    named = parse_name(name)
    if named:
        return intern(named.device)
    serial = str(metadata.get("BodySerialNumber", "")).lower()
    if DEVICE.fullmatch(serial):
        return intern(serial)
    match = _OF_DEVICE.search(path)
    return intern(match[1]) if match else _UNKNOWN
