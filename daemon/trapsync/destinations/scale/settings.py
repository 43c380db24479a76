"""The settings of Scale AI."""

from pathlib import Path

from trapsync.destinations import http_service
from trapsync.settings.table import require_address, within
from trapsync.settings.units import Duration

GEOMETRIES = ("box", "polygon", "line", "point", "ellipse", "cuboid")


class Settings(http_service.Settings, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "scale"."""

    required: bool = False
    url: str = "https://api.scale.com/v1"
    api_key_file: Path
    project: str
    prefix: str = ""
    geometries: tuple[str, ...] = ("box",)
    labels: tuple[str, ...] = ("insect",)
    instruction: str = ""
    allow_upload: bool = True
    poll_every: Duration = Duration(6 * 3600)

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        if self.required:
            raise ValueError(
                "required: must be false: a task at Scale is no copy of an image, and proves none"
            )
        require_address("url", self.url, "https://api.scale.com/v1")
        if not self.project:
            raise ValueError("project: must not be empty; it is the name of your project in Scale")
        if unknown := set(self.geometries) - set(GEOMETRIES):
            raise ValueError(f"geometries: {min(unknown)!r} is none of {', '.join(GEOMETRIES)}")
        if bool(self.geometries) != bool(self.labels):
            raise ValueError("labels: and geometries must both be given, or both be [] (as the project says)")
        if not self.allow_upload and not self.depends_on:
            raise ValueError("allow_upload: is false, and no `after` gives addresses: nothing could ever go")
        within(self, poll_every=(60, 30 * 86400))

    @property
    def identity(self) -> str:
        """The service and the project."""
        return http_service.identity("scale", self.url, f"project {self.project}")
