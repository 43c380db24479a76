"""Labels: what somebody saw in an image, and the forms in which they leave the trap.

The shapes are kept as the service answered them (`Label.annotations`). COCO JSON is what most programs of
machine learning read; it knows boxes and areas, not lines and points: those are in the other form only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trapsync.image import Label, parse_name

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image of the catalog with its labels. Shapes are in pixels of the image from its top left corner."""

    image_id: int
    key: str
    sha256: str
    width: int
    height: int
    destination: str
    label: Label


def coco(labelled: Iterable[Labelled], categories: Sequence[str] = ()) -> tuple[dict[str, Any], int]:
    """The dataset as COCO JSON (https://cocodataset.org/#format-data), and how many shapes it cannot hold.

    Only images that are done, those without a single annotation too: that nothing was found is a finding.
    The categories come first in the order given, then those that nobody asked for, by name: so their
    numbers stay the same from one export to the next.
    """
    done = [one for one in labelled if one.label.state == "done"]
    found = {name for one in done for shape in one.label.annotations if (name := _name(shape))}
    numbers = {name: n for n, name in enumerate([*categories, *sorted(found - set(categories))], 1)}
    annotations: list[dict[str, Any]] = []
    left_out = 0
    for one in done:
        for shape in one.label.annotations:
            known = _annotation(shape, numbers)
            left_out += known is None
            if known:
                annotations.append({"id": len(annotations) + 1, "image_id": one.image_id, **known})
    return {
        "info": {"description": "Labels of a camera trap's images, exported by trapsync", "version": "1"},
        "licenses": [],
        "images": list({one.image_id: _image(one) for one in done}.values()),
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "supercategory": ""} for name, n in numbers.items()],
    }, left_out


def plain(labelled: Iterable[Labelled]) -> list[dict[str, Any]]:
    """Everything as the service answered it, an object for each image."""
    return [
        {
            "image": one.key,
            "sha256": one.sha256,
            "width": one.width,
            "height": one.height,
            "destination": one.destination,
            "task": one.label.task,
            "state": one.label.state,
            "reason": one.label.reason,
            "annotations": list(one.label.annotations),
        }
        for one in labelled
    ]


def _image(one: Labelled) -> dict[str, Any]:
    name = parse_name(one.key)
    taken = {"date_captured": _moment(name.taken)} if name else {}
    return {"id": one.image_id, "file_name": one.key, "width": one.width, "height": one.height, **taken}


def _moment(taken: datetime) -> str:
    return taken.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(shape: Mapping[str, Any]) -> str:
    return str(shape.get("label") or "")


def _annotation(shape: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, Any] | None:
    """One annotation; None for what has no area, or is not in a form that is known here."""
    try:
        corners = _corners(shape)
        number = numbers[_name(shape)]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    left, top = (min(point[axis] for point in corners) for axis in (0, 1))
    right, bottom = (max(point[axis] for point in corners) for axis in (0, 1))
    area = _area(corners)
    if not 0 < area < math.inf:  # nor one that is no number
        return None
    attributes = shape.get("attributes")
    return {
        "category_id": number,
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "segmentation": [[value for point in corners for value in point]],
        "iscrowd": 0,
        "attributes": attributes if isinstance(attributes, dict) else {},
    }


def _corners(shape: Mapping[str, Any]) -> list[Point]:
    """The outline of a box or a polygon; ValueError for any other shape."""
    if shape["type"] == "box":
        left, top = float(shape["left"]), float(shape["top"])
        right, bottom = left + float(shape["width"]), top + float(shape["height"])
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    if shape["type"] == "polygon" and len(shape["vertices"]) > 2:
        return [(float(point["x"]), float(point["y"])) for point in shape["vertices"]]
    raise ValueError(shape["type"])


def _area(corners: Sequence[Point]) -> float:
    """The area inside an outline, by the shoelace formula."""
    following = [*corners[1:], corners[0]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, following, strict=True))) / 2
