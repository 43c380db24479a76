"""[deployment]: what people know of the place and of how the trap stands there, in the terms of Camtrap DP 1.0.2.

Terms, units and fixed words are those of its table of deployments (camtrap-dp.tdwg.org/data), written as settings are:
`cameraHeight` is `camera_height`. Coordinates stand in [trap].
"""

from typing import TYPE_CHECKING, Any, Literal

from trapsync.image import UNWRITABLE
from trapsync.settings.table import Table, within

if TYPE_CHECKING:
    from trapsync.settings.schema import Settings

FeatureType = Literal[
    "",
    "roadPaved",
    "roadDirt",
    "trailHiking",
    "trailGame",
    "roadUnderpass",
    "roadOverpass",
    "roadBridge",
    "culvert",
    "burrow",
    "nestSite",
    "carcass",
    "waterSource",
    "fruitingTree",
]

# Characters. The hub keeps these texts, and they cross metered links once for each change.
_LONGEST = {"location_id": 100, "location_name": 200, "setup_by": 200, "habitat": 300, "comments": 1000}
_MOST, _LONGEST_OF_LIST = 20, 100  # of the groups and of the tags
_METRES = {"camera_height": 50.0, "detection_distance": 500.0, "coordinate_uncertainty": 100_000}


class Deployment(Table, frozen=True):
    """[deployment]: the place, and how the trap stands there. None and an empty text are unknown."""

    location_id: str = ""
    location_name: str = ""
    coordinate_uncertainty: int | None = None
    setup_by: str = ""
    camera_height: float | None = None
    camera_tilt: int | None = None
    camera_heading: int | None = None
    detection_distance: float | None = None
    bait_use: bool | None = None
    feature_type: FeatureType = ""
    habitat: str = ""
    groups: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    comments: str = ""

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        within(self, camera_tilt=(-90, 90), camera_heading=(0, 360))
        for key, most in _METRES.items():
            least, value = int(key == "coordinate_uncertainty"), getattr(self, key)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{key}: {value:g} is not between {least} and {most:g} metres")
        for key, longest in _LONGEST.items():
            _require_line(key, getattr(self, key), longest)
        for key in ("groups", "tags"):
            _require_list(key, getattr(self, key))


def _require_line(key: str, text: str, longest: int) -> None:
    if len(text) > longest or UNWRITABLE.search(text):
        raise ValueError(f"{key}: must be one line of at most {longest} characters")


def _require_list(key: str, texts: tuple[str, ...]) -> None:
    if len(texts) > _MOST:
        raise ValueError(f"{key}: has {len(texts)} entries; {_MOST} are the most")
    for text in texts:
        _require_line(key, text, _LONGEST_OF_LIST)
        if "|" in text or not text.strip():
            raise ValueError(
                f'{key}: {text!r} must not be empty, nor hold "|", which stands between two of them'
            )


def terms(settings: "Settings") -> dict[str, Any]:
    """What the settings say of a deployment, as JSON has it; what is unknown is left out.

    The keys of [deployment], and besides: `name` of the trap, `latitude`, `longitude`, `altitude`, `camera` (its kind),
    `every` (seconds), `schedule` (as in [capture]).
    """
    trap, capture = settings.trap, settings.capture
    has_place = trap.has_place
    said = {
        "name": trap.name,
        "latitude": trap.latitude if has_place else None,
        "longitude": trap.longitude if has_place else None,
        "altitude": trap.altitude,
        "camera": settings.camera.kind,
        "every": float(capture.every),
        "schedule": list(capture.schedule),
        **{key: getattr(settings.deployment, key) for key in Deployment.__struct_fields__},
    }
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}
    return {key: value for key, value in plain.items() if value not in (None, "", [])}
