"""datapackage.json: what the package is, by the profile of Camtrap DP 1.0.2.

(https://github.com/tdwg/camtrap-dp/tree/1.0.2, `camtrap-dp-profile.json`)
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from trapsync import __version__
from trapsync.camtrap_dp.records import Place
from trapsync.clock import iso
from trapsync.net.reports import REASONS
from trapsync.settings.project import Project

_STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
# Readers guess it else, and a text of many semicolons has them guess wrong (frictionless 5.21).
_DIALECT = {"delimiter": ",", "lineTerminator": "\r\n", "quoteChar": '"', "doubleQuote": True}
_GAPS: dict[str, Any] = {
    "name": "sampling-gaps",
    "title": "Sampling gaps",
    "description": "When pictures were due in a deployment and were not taken, and why. Not part of Camtrap DP.",
    "fields": [
        {"name": "deploymentID", "type": "string", "constraints": {"required": True}},
        *(
            {
                "name": name,
                "type": "datetime",
                "format": "%Y-%m-%dT%H:%M:%S%z",
                "constraints": {"required": True},
            }
            for name in ("gapStart", "gapEnd")
        ),
        {
            "name": "reason",
            "type": "string",
            "constraints": {"required": True, "enum": list(REASONS)},
        },
    ],
    "missingValues": ["", "NA", "NaN", "nan"],
    "foreignKeys": [
        {"fields": "deploymentID", "reference": {"resource": "deployments", "fields": "deploymentID"}}
    ],
}


def describe(
    name: str,
    project: Project,
    created: datetime,
    places: Sequence[Place],
    dates: Sequence[str],
    taxa: Iterable[str],
) -> dict[str, Any]:
    """The descriptor of a package with deployments at these places, one at least, and on these dates."""
    return {
        "profile": f"{_STANDARD}/camtrap-dp-profile.json",
        "name": _plain(name),
        "created": iso(created),
        "title": project.title,
        "contributors": [_contributor(one) for one in project.contributors],
        **_known(description=project.description, bibliographicCitation=project.citation),
        "sources": [{"title": "trapsync", "version": __version__}],
        **_licenses(project),
        "project": _project(project),
        "spatial": _spatial(places),
        "temporal": {"start": min(dates), "end": max(dates)},
        "taxonomic": [{"scientificName": one} for one in sorted(taxa)],
        "resources": [*(_resource(one) for one in ("deployments", "media", "observations")), _gaps()],
    }


def _known(**texts: str) -> dict[str, str]:
    """Without what is empty: the profile has no empty texts."""
    return {key: value for key, value in texts.items() if value}


def _plain(name: str) -> str:
    """A name as Data Packages have it: small letters, digits and `-._/`."""
    return re.sub("[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "camtrap-dp"


def _contributor(one: Any) -> dict[str, str]:
    more = _known(email=one.email, path=one.website, organization=one.organization)
    return {"title": one.title, "role": one.role, **more}


def _licenses(project: Project) -> dict[str, Any]:
    scopes = {"data": project.data_license, "media": project.media_license}
    if not all(scopes.values()):
        return {}
    return {"licenses": [{_kind_of(name): name, "scope": scope} for scope, name in scopes.items()]}


def _kind_of(license_: str) -> str:
    return "path" if license_.startswith(("https://", "http://")) else "name"


def _project(project: Project) -> dict[str, Any]:
    return {
        "title": project.title,
        **_known(acronym=project.acronym, description=project.description, path=project.website),
        "samplingDesign": project.sampling_design,
        "captureMethod": ["timeLapse"],
        "individualAnimals": False,
        "observationLevel": ["media"],
    }


def _spatial(places: Sequence[Place]) -> dict[str, Any]:
    """GeoJSON (RFC 7946): one place is a point, several are points; with the box around them."""
    points = sorted({(longitude, latitude) for latitude, longitude in places})
    west, east = points[0][0], points[-1][0]
    south, north = (one(latitude for _, latitude in points) for one in (min, max))
    box = [west, south, east, north]
    if len(points) == 1:
        return {"type": "Point", "bbox": box, "coordinates": list(points[0])}
    return {"type": "MultiPoint", "bbox": box, "coordinates": [list(point) for point in points]}


def _resource(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": f"{name}.csv",
        "profile": "tabular-data-resource",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "dialect": _DIALECT,
        "schema": f"{_STANDARD}/{name}-table-schema.json",
    }


def _gaps() -> dict[str, Any]:
    return _resource("sampling-gaps") | {"schema": _GAPS}
