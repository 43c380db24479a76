"""The tables of a package: their fields in their order, and values that fit them.

Fields, types, words and limits are those of the table schemas of Camtrap DP 1.0.2
(https://github.com/tdwg/camtrap-dp/tree/1.0.2). CSV (RFC 4180) in UTF-8; what is not known is empty.
"""

import csv
import math
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from trapsync.catalog.image_export import no_formula
from trapsync.errors import printable
from trapsync.files import failpoint

DEPLOYMENTS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty"),
    *("deploymentStart", "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay"),
    *("cameraHeight", "cameraDepth", "cameraTilt", "cameraHeading", "detectionDistance", "timestampIssues"),
    *("baitUse", "featureType", "habitat", "deploymentGroups", "deploymentTags", "deploymentComments"),
)
MEDIA = (
    *("mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName"),
    *("fileMediatype", "exifData", "favorite", "mediaComments"),
)
OBSERVATIONS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"),
    *("observationType", "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior"),
    *("individualID", "individualPositionRadius", "individualPositionAngle", "individualSpeed"),
    *("bboxX", "bboxY", "bboxWidth", "bboxHeight", "classificationMethod", "classifiedBy"),
    *("classificationTimestamp", "classificationProbability", "observationTags", "observationComments"),
)
GAPS = ("deploymentID", "gapStart", "gapEnd", "reason")
FIELDS = {"deployments": DEPLOYMENTS, "media": MEDIA, "observations": OBSERVATIONS, "sampling-gaps": GAPS}

_LONGEST = 4000  # characters of a text; no field of ours has more


class Table:
    """A table that is being written. A row is a mapping of its fields; a text in it never reads as a formula."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rows = 0
        self._file = (folder / f"{name}.csv").open("x", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._file, FIELDS[name], restval="")
        self._writer.writeheader()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row. None is empty, and a truth value `true` or `false`."""
        self._writer.writerow({field: _cell(value) for field, value in row.items() if value is not None})
        self.rows += 1

    def close(self) -> None:
        """Flush it, and close it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        failpoint.hit("camtrap-dp: table flushed")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return no_formula(printable(value)) if isinstance(value, str) else value


# ── Values that fit ──────────────────────────────────────────────────────────────────────────────────


def moment(at: float, offset: timezone) -> str:
    """A moment in local time with its offset: `2026-06-21T22:19:15+02:00`."""
    return datetime.fromtimestamp(math.floor(at), offset).isoformat()


def number(value: object, least: float, most: float = math.inf) -> float | None:
    """The number, if it is one between these; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if least <= value <= most and math.isfinite(value) else None


def whole(value: object, least: int, most: float = math.inf) -> int | None:
    """The next whole number, if it is between these; else None."""
    known = number(value, -math.inf)
    rounded = None if known is None else round(known)
    return rounded if rounded is not None and least <= rounded <= most else None


def text(value: object) -> str | None:
    """The text, if it is one and says anything; else None."""
    return value[:_LONGEST] if isinstance(value, str) and value.strip() else None


def truth(value: object) -> bool | None:
    """The truth value, if it is one; else None."""
    return value if isinstance(value, bool) else None


def listing(value: object) -> str | None:
    """Several texts in one, `a | b`, as the standard has groups and tags; a text stands for itself."""
    if isinstance(value, list | tuple):
        return text(" | ".join(one for one in value if isinstance(one, str) and one.strip()))
    return text(value)
