"""What detectors and people saw, as observations: labels of Scale, and annotations of the Sticky Pi API.

Shapes of a form that is not known here are counted and left out. A picture in which nothing was found is an
observation too (`blank`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timezone
from typing import Any

from trapsync.camtrap_dp import tables
from trapsync.camtrap_dp.records import Finding, Picture, Shape

_HUMAN = "Homo sapiens"
_DIGITS = 6  # of a share of the picture: a tenth of a pixel of the largest one
_MOST_POINTS = 100_000  # of one outline

Corners = tuple[float, float, float, float]  # left, top, right, bottom


# ── Shapes ───────────────────────────────────────────────────────────────────────────────────────────


def of_scale(shapes: Sequence[Mapping[str, Any]], width: int, height: int) -> tuple[list[Shape], int]:
    """The shapes of a task's answer, which are in pixels of a picture of this size; and how many are left out.

    Boxes, polygons and points; Scale has lines, ellipses and cuboids too (https://scale.com/docs).
    """
    found = [_of_scale(shape, width, height) for shape in shapes]
    known = [shape for shape in found if shape]
    return known, len(found) - len(known)


def _of_scale(shape: Mapping[str, Any], width: int, height: int) -> Shape | None:
    label = str(shape.get("label") or "")
    try:
        match shape.get("type"):
            case "box":
                left, top = float(shape["left"]), float(shape["top"])
                corners = (left, top, left + float(shape["width"]), top + float(shape["height"]))
                return _boxed(label, corners, width, height)
            case "polygon":
                points = [(float(point["x"]), float(point["y"])) for point in shape["vertices"]]
                return _boxed(label, _around(points), width, height)
            case "point":
                return _at(label, float(shape["x"]), float(shape["y"]), width, height)
    except (LookupError, TypeError, ValueError, OverflowError):
        pass
    return None


def of_sticky_pi(annotations: object, width: int, height: int) -> tuple[list[Shape], int]:
    """The shapes of an annotation, and how many are left out.

    `{"contour": …, "name": …}` each; the contour as OpenCV has it, N × 1 × 2 whole pixels
    (sticky-pi-client, uid_annotations).
    """
    some = annotations if isinstance(annotations, list) else [annotations]
    found = [_of_sticky_pi(shape, width, height) for shape in some]
    known = [shape for shape in found if shape]
    return known, len(found) - len(known)


def _of_sticky_pi(shape: object, width: int, height: int) -> Shape | None:
    if not isinstance(shape, dict):
        return None
    contour, name = shape.get("contour"), shape.get("name")
    try:
        points = [(float(x), float(y)) for ((x, y),) in contour[:_MOST_POINTS]]  # type: ignore[index]
        left, top, right, bottom = _around(points)
    except (TypeError, ValueError, OverflowError):
        return None
    # A contour's points are pixels that belong to it, and a pixel is as wide as one.
    label = name if isinstance(name, str) else ""
    return _boxed(label, (left, top, right + 1, bottom + 1), width, height)


def _around(points: Sequence[tuple[float, float]]) -> Corners:
    """The box around an outline; ValueError for one without a point."""
    across, down = zip(*points, strict=True)
    return min(across), min(down), max(across), max(down)


def _boxed(label: str, corners: Corners, width: int, height: int) -> Shape | None:
    """A box within the picture; None if nothing of it is."""
    if not all(map(math.isfinite, corners)):
        return None
    left, right = (_share(corners[n], width) for n in (0, 2))
    top, bottom = (_share(corners[n], height) for n in (1, 3))
    if not (left < right and top < bottom):
        return None
    return Shape(label, (left, top), (round(right - left, _DIGITS), round(bottom - top, _DIGITS)))


def _at(label: str, x: float, y: float, width: int, height: int) -> Shape | None:
    is_within = 0 <= x <= width and 0 <= y <= height
    return Shape(label, (_share(x, width), _share(y, height)), None) if is_within else None


def _share(pixels: float, of: int) -> float:
    """As a share of the picture's width or height, from 0 to 1."""
    return round(min(max(pixels / of, 0.0), 1.0), _DIGITS)


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────


def rows(
    picture: Picture, deployment: str, timestamp: str, offset: timezone, taxa: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """The observations of one picture, whose time is known. `taxa` says which label means which taxon."""
    plain = {"deploymentID": deployment, "mediaID": picture.id, "observationLevel": "media"}
    plain |= {"eventStart": timestamp, "eventEnd": timestamp}
    for finding in picture.findings:
        about = plain | _classified(finding, offset)
        for number, shape in enumerate(finding.shapes, 1):
            yield about | _seen(shape, taxa) | {"observationID": f"{picture.id}/{finding.id}/{number}"}
        if not finding.shapes and not finding.odd:
            yield about | {"observationID": f"{picture.id}/{finding.id}/0", "observationType": "blank"}


def _classified(finding: Finding, offset: timezone) -> dict[str, Any]:
    at = None if finding.at is None else tables.moment(finding.at, offset)
    return {
        "classificationMethod": finding.method,
        "classifiedBy": tables.text(finding.by),
        "classificationTimestamp": at,
    }


def _seen(shape: Shape, taxa: Mapping[str, str]) -> dict[str, Any]:
    taxon = taxa.get(shape.label)
    kind = "unclassified" if taxon is None else "human" if taxon == _HUMAN else "animal"
    tag = tables.text(" ".join(shape.label.replace("|", " ").split()))
    row: dict[str, Any] = {"observationType": kind, "scientificName": taxon, "count": 1}
    row |= {"bboxX": shape.corner[0], "bboxY": shape.corner[1]}
    if shape.size:
        row |= {"bboxWidth": shape.size[0], "bboxHeight": shape.size[1]}
    return row | {"observationTags": tag and f"label:{tag}"}
