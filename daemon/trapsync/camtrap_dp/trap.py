"""A package's content from the catalog of one trap."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timezone
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from trapsync.camtrap_dp import observations
from trapsync.camtrap_dp.deployments import place_of
from trapsync.camtrap_dp.records import Deployment, Finding, Gap, Picture
from trapsync.catalog import Catalog, image_export
from trapsync.catalog.label_export import Labelled
from trapsync.image import TrapName, parse_name
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import fixed_offset

Row = Mapping[str, Any]
_PAGE = 250  # images whose labels are in memory at once
_SCALE = "scale"


class CatalogTrap:
    """This trap. `now` is the moment of the export, in unix seconds; None where the clock is not set.

    `bounds` says between which moments an image was taken whose time is not known, `gaps` when pictures were due and
    not taken, and `address` where others find an image; `with_files`: the files on the card are wanted too.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        device: str,
        now: float | None,
        *,
        bounds: Callable[[Row], tuple[float | None, float | None]],
        gaps: Callable[[], Iterator[Gap]],
        address: Callable[[Row], str | None] = lambda _row: None,
        with_files: bool = False,
    ) -> None:
        self._catalog, self._spool = catalog, settings.storage.spool
        self._bounds, self._gaps, self._address, self._with_files = bounds, gaps, address, with_files
        self.device, self.until = device, now
        self.name = settings.trap.name
        self.offset: timezone = fixed_offset(settings)
        self.place = place_of(settings.trap.latitude, settings.trap.longitude)

    def deployments(self) -> Sequence[Deployment]:
        """Its deployments, as the catalog has them."""
        known = self._catalog.deployments.all()
        return [Deployment(one.id, one.began, one.ended, one.terms, one.is_sure) for one in known]

    def gaps(self) -> Iterator[Gap]:
        """When pictures were due and were not taken."""
        return self._gaps()

    def pictures(self) -> Iterator[Picture]:
        """Every image that the catalog knows, also those that have left the card."""
        rows = self._catalog.images.oldest_first()
        while page := list(islice(rows, _PAGE)):
            found = self._findings(page)
            paths = self._catalog.images.paths_of(row["id"] for row in page) if self._with_files else {}
            for row in page:
                yield self._picture(row, paths.get(row["id"]), found.get(row["id"], ()))

    def _picture(self, row: Row, path: str | None, findings: Sequence[Finding]) -> Picture:
        at, state = image_export.taken(row)
        is_known = at is not None and at.tzinfo is not None
        name = parse_name(row["key"])
        picture = _named(name, row) if name else _of_others(row)
        source = self._spool / path if path else None
        return replace(
            picture,
            taken=at.timestamp() if at and is_known else None,
            source=source if source and source.is_file() else None,
            digest=f"sha256:{row['sha256']}",
            address=self._address(row),
            between=self._bounds(row) if state in {"held", "unsure"} else (None, None),
            is_held=state == "held",
            metadata=row["metadata"],
            findings=findings,
        )

    def _findings(self, page: Sequence[Row]) -> dict[int, list[Finding]]:
        found: dict[int, list[Finding]] = {}
        for labelled, kind, at in self._catalog.labels.done_of(row["id"] for row in page):
            found.setdefault(labelled.image_id, []).append(_finding(labelled, kind, at))
        return found


def _named(name: TrapName, row: Row) -> Picture:
    """A trap's picture: its name is its identity, but where two pictures have one."""
    path = PurePosixPath(name.folder, str(name))
    if row["conflict"]:
        path = path.with_name(f"{path.stem}.{row['sha256'][:8]}.jpg")
    return Picture(path.name, None, str(path), path.name)


def _of_others(row: Row) -> Picture:
    """Another camera's picture: its path may be any text, so here it has a name by its checksum."""
    digest = hashlib.sha256(f"{row['sha256']} {row['key']}".encode()).hexdigest()[:32]
    name = PurePosixPath(row["key"]).name
    return Picture(f"other-{digest}", None, f"other/{digest}.jpg", name, is_ours=False)


def _finding(labelled: Labelled, kind: str, at: float) -> Finding:
    """What a service answered: at Scale people draw the shapes. Of other services the form is not known here."""
    shapes = labelled.label.annotations
    by = labelled.destination
    if kind == _SCALE:
        known, odd = observations.of_scale(shapes, labelled.width, labelled.height)
        return Finding(by, "human", "Scale AI", at, known, odd)
    return Finding(by, "machine", by, at, (), odd=max(len(shapes), 1))
