"""Where images come from: one protocol, a camera for each kind.

A camera gives JPEG bytes and what was true of that exposure; `pipeline.capture` dresses them with EXIF
and stores them. Each kind is a module of its own, imported only when it is the one that is set, in the
camera's own process.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from trapsync.errors import CameraError
from trapsync.settings import Camera as CameraSettings


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure, as the camera gave it: a whole JPEG, and the metadata of the same request.

    `exposure` is in seconds, `gain` the product of analogue and digital gain (ISO 100 is 1.0),
    `lens_position` in dioptres; None where the camera does not say. `model` is the sensor's name.
    """

    jpeg: bytes
    width: int
    height: int
    model: str
    exposure: float | None = None
    gain: float | None = None
    lens_position: float | None = None


class Camera(Protocol):
    """An opened or openable camera. Calls may hang: whoever calls keeps the deadline, from outside.

    Every failure is a CameraError whose text says what to do.
    """

    def open(self) -> None:
        """Claim the hardware and configure it, once."""

    def capture(self, moment: datetime) -> Frame:
        """Take one picture now; `moment` (UTC) is the time it will be filed under."""

    def close(self) -> None:
        """Let the hardware go. Never raises; may be called twice."""


def make(settings: CameraSettings, device: str) -> Camera:
    """The camera of the kind that is set, not opened yet; `device` is the trap's id."""
    if settings.kind == "picamera":
        from trapsync.cameras.picamera import Picamera

        return Picamera(settings)
    if settings.kind == "simulated":
        from trapsync.cameras.simulated import SimulatedCamera

        return SimulatedCamera(settings, device)
    raise CameraError('there is no camera: camera.kind is "none"')
