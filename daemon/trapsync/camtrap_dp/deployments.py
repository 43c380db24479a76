"""Which picture, and which gap, belongs to which deployment of a trap; and the rows of these.

A picture belongs to the deployment in whose time it was taken; one that lies in none, to one that is made up for the trap
(`<device>-undeclared`), from its first picture to its last.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from trapsync.camtrap_dp import tables
from trapsync.camtrap_dp.records import Deployment, Gap, Picture, Place, Span, Trap
from trapsync.settings.deployment import FeatureType

_FEATURES = get_args(FeatureType)
_MADE_UP = "made up by trapsync: pictures that lie in no deployment of the trap"


@dataclass(slots=True)
class Covered:
    """A deployment, and what of it is in the package."""

    id: str
    since: float
    until: float | None
    place: Place | None
    terms: Mapping[str, Any]
    is_sure: bool = True
    is_made_up: bool = False
    is_wanted: bool = True
    pictures: int = 0
    unplaced: int = 0
    unsure: int = 0
    first: float = math.inf
    last: float = -math.inf
    models: set[str] = field(default_factory=set)

    def take(self, picture: Picture, at: float) -> bool:
        """Count a picture in, if it is known where the deployment is, from itself perhaps; else False."""
        if self.place is None:
            self.place = place_of(picture.metadata.get("lat"), picture.metadata.get("lng"))
        if self.place is None:
            self.unplaced += 1
            return False
        self.pictures += 1
        self.first, self.last = min(self.first, at), max(self.last, at)
        if model := tables.text(picture.metadata.get("Model")):
            self.models.add(model)
        return True


def place_of(latitude: object, longitude: object) -> Place | None:
    """A place on Earth; None where that is not known, as at 0, 0 in the Atlantic."""
    known = tables.number(latitude, -90, 90), tables.number(longitude, -180, 180)
    if known[0] is None or known[1] is None or known == (0, 0):
        return None
    return float(known[0]), float(known[1])


class Coverage:
    """The deployments of one trap, as far as they lie in the span that is wanted."""

    def __init__(self, trap: Trap, span: Span) -> None:
        self._trap, self._span = trap, span
        self._declared = [self._covered(one) for one in trap.deployments()]
        self._starts = [one.since for one in self._declared]
        made_up = f"{trap.device}-undeclared"
        is_wanted = span.deployment in (None, made_up)
        self._made_up = Covered(made_up, math.inf, None, trap.place, {}, is_made_up=True, is_wanted=is_wanted)

    def _covered(self, one: Deployment) -> Covered:
        # Pictures are named by whole seconds: one of its first second was not taken before it.
        place = place_of(one.terms.get("latitude"), one.terms.get("longitude")) or self._trap.place
        covered = Covered(one.id, math.floor(one.since), one.until, place, one.terms, one.is_sure)
        covered.is_wanted = self._span.deployment in (None, one.id)
        return covered

    def of(self, at: float) -> Covered:
        """The deployment of a moment."""
        number = bisect_right(self._starts, at) - 1
        if number >= 0:
            found = self._declared[number]
            if found.until is None or at < found.until:
                return found
        return self._made_up

    def note_unsure(self, picture: Picture) -> None:
        """A picture whose time is not known may be of each deployment that its time could lie in."""
        earliest, latest = picture.between
        for one in self._declared:
            begins_before = latest is None or one.since <= latest
            if begins_before and (earliest is None or one.until is None or earliest < one.until):
                one.unsure += 1

    def all(self) -> list[Covered]:
        """Every deployment with anything in the span, whose place is known or not."""
        wanted = [one for one in self._declared if one.is_wanted and self._begin(one) < self._end(one)]
        return wanted + [self._made_up] * bool(self._made_up.pictures or self._made_up.unplaced)

    def gaps(self, gaps: Iterator[Gap]) -> Iterator[tuple[Covered, Gap]]:
        """Each gap with its deployment, cut where that, or the span, begins or ends."""
        known = [one for one in self.all() if one.place]
        for gap in gaps:
            cut = [(one, self._cut(gap, one)) for one in known]
            within = [(one, part) for one, part in cut if part.since < part.until]
            # What is made up lies beside the others, and perhaps over them: a gap counts once.
            yield from [pair for pair in within if not pair[0].is_made_up] or within

    def _cut(self, gap: Gap, one: Covered) -> Gap:
        return Gap(max(gap.since, self._begin(one)), min(gap.until, self._end(one)), gap.reason)

    def _begin(self, one: Covered) -> float:
        """When it begins, within the span."""
        if one.is_made_up:
            return one.first
        return one.since if self._span.since is None else max(one.since, self._span.since)

    def _end(self, one: Covered) -> float:
        """When it ends, within the span and within what is known: after its last picture."""
        known = one.last + 1  # a picture lies within it
        if not one.is_made_up:
            known = max(known, one.since + 1, self._trap.until or 0.0) if one.until is None else one.until
        return known if self._span.until is None else min(known, self._span.until)

    def row(self, one: Covered) -> dict[str, Any]:
        """Its row in the table of deployments. Its place is known."""
        assert one.place is not None
        terms, offset = one.terms, self._trap.offset
        name = terms.get("location_name") or terms.get("name") or self._trap.name
        return {
            "deploymentID": one.id,
            "locationID": tables.text(terms.get("location_id")),
            "locationName": tables.text(name),
            "latitude": one.place[0],
            "longitude": one.place[1],
            "coordinateUncertainty": tables.whole(terms.get("coordinate_uncertainty"), 1),
            "deploymentStart": tables.moment(self._begin(one), offset),
            "deploymentEnd": tables.moment(math.ceil(self._end(one)), offset),
            "setupBy": tables.text(terms.get("setup_by")),
            "cameraID": self._trap.device,
            "cameraModel": ", ".join(sorted(one.models)) or None,
            "cameraHeight": tables.number(terms.get("camera_height"), 0),
            "cameraTilt": tables.whole(terms.get("camera_tilt"), -90, 90),
            "cameraHeading": tables.whole(terms.get("camera_heading"), 0, 360),
            "detectionDistance": tables.number(terms.get("detection_distance"), 0),
            "timestampIssues": bool(one.unsure) or not one.is_sure,
            "baitUse": tables.truth(terms.get("bait_use")),
            "featureType": feature if (feature := terms.get("feature_type")) in _FEATURES else None,
            "habitat": tables.text(terms.get("habitat")),
            "deploymentGroups": tables.listing(terms.get("groups")),
            "deploymentTags": tables.listing(terms.get("tags")),
            "deploymentComments": self._comments(one),
        }

    def _comments(self, one: Covered) -> str | None:
        said = [tables.text(one.terms.get("comments")) or ""]
        if one.is_made_up:
            said.append(_MADE_UP)
        if not one.is_sure:
            said.append("its beginning is not known: the clock of the trap was not set")
        if one.unsure:
            said.append(
                f"pictures whose time is not known, and which may be of it, are left out: {one.unsure}"
            )
        return "; ".join(filter(None, said)) or None

    def dates(self, one: Covered) -> tuple[str, str]:
        """The local dates on which it begins and ends."""
        begin, end = (tables.moment(at, self._trap.offset) for at in (self._begin(one), self._end(one)))
        return begin[:10], end[:10]
