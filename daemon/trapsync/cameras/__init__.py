"""Where images come from: one protocol, a camera for each kind.

A camera gives JPEG bytes and what was true of that exposure; `pipeline.capture` adds EXIF to them
and stores them. Each kind is a module of its own, imported only when it is the one that is set, in the
camera's own process.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from trapsync.errors import CameraError, DamagedImage
from trapsync.jpeg import structure, thumbnail
from trapsync.settings.config_file import changed
from trapsync.settings.schema import Camera as CameraSettings

NOT_INSTALLED = (
    "picamera2 is not installed for this Python: run `sudo apt install python3-picamera2`, "
    "and make the virtual environment with --system-site-packages"
)
# Bytes per pixel. A picture of a single colour takes 0.016 to 0.020 (a DC and an end-of-block code for each
# block, 4:2:0 to 4:2:2); the noise of a night alone makes it several times as much.
_NEXT_TO_NOTHING = 0.02
# Frames until a picture: the one under way, a first one that some sensors spoil, and ours; and while libcamera
# looks for exposure, gain or colours, those that it keeps to itself until it has found them (its tuning: 6 + 1).
_FRAMES, _FRAMES_TO_CONVERGE = 3, 7


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure, as the camera gave it: a whole JPEG, and the metadata of the same request.

    `exposure` is in seconds, `gain` the product of analogue and digital gain (ISO 100 is 1.0),
    `lens_position` in dioptres; None where the camera does not say. `model` is the sensor's name, `remark`
    what the camera itself finds wrong with the picture.
    """

    jpeg: bytes
    width: int
    height: int
    model: str
    exposure: float | None = None
    gain: float | None = None
    lens_position: float | None = None
    remark: str | None = None


class Camera(Protocol):
    """An opened or openable camera. Calls may hang: whoever calls keeps the deadline, from outside.

    Every failure is a CameraError whose text says what to do.
    """

    def open(self) -> None:
        """Claim the hardware and configure it, once."""

    def ready(self) -> AbstractContextManager[None]:
        """Take the time that it takes to be ready: started, settled, focused, lit. What follows is the exposure."""

    def capture(self, moment: datetime) -> Frame:
        """Take one picture now; `moment` (UTC) is the time it will be filed under."""

    def rest(self) -> None:
        """Save energy until the next picture, which may be long to come."""

    def close(self) -> None:
        """Let the hardware go. Never raises; may be called twice."""


class AlwaysReady:
    """For a camera that needs no time to be ready, and no rest."""

    def ready(self) -> AbstractContextManager[None]:
        """Do nothing: it is ready."""
        return nullcontext()

    def rest(self) -> None:
        """Do nothing: there is no energy to save."""


def frames_at_most(settings: CameraSettings) -> int:
    """How many frames may pass until there is one that is a picture; of a fixed exposure each takes that long."""
    is_fixed = settings.gain != "auto" and settings.white_balance != "auto"
    return _FRAMES if is_fixed else _FRAMES + _FRAMES_TO_CONVERGE


def timeout(settings: CameraSettings) -> float:
    """Return the seconds after which a camera that has given no picture hangs."""
    light = settings.flash.warm_up if settings.flash.pin is not None else 0.0
    exposing = frames_at_most(settings) * settings.exposure
    return float(exposing + settings.warm_up + light + settings.timeout)


def close_up(settings: CameraSettings) -> CameraSettings:
    """The middle of the picture at full detail, and a sixteenth of its pixels: quick, and what a focus shows in."""
    x, y, w, h = settings.zoom
    width, height = (max(64, side // 4) for side in settings.resolution)
    return changed(settings, zoom=(x + w * 3 / 8, y + h * 3 / 8, w / 4, h / 4), resolution=(width, height))


def oddity(frame: Frame, settings: CameraSettings) -> str | None:
    """What looks wrong about a picture, as a line for a person; None where nothing does.

    Such a picture is kept all the same: it may show a night like any other. CameraError if it is none.
    """
    try:
        header = structure.header(frame.jpeg)
    except DamagedImage as error:
        raise CameraError(f"the camera's picture is no JPEG: {error}") from None
    width, height = settings.resolution
    # A sensor may round down to even numbers; pictures that are replayed have the size that they have.
    fits = (header.width, header.height) in {(width, height), (width - width % 2, height - height % 2)}
    if not fits and not (settings.kind == "simulated" and settings.simulated.replay):
        return f"the pictures are {header.width} × {header.height}, not {width} × {height} as set"
    if len(frame.jpeg) - header.scan < _NEXT_TO_NOTHING * header.width * header.height:
        return "the pictures show next to nothing: is the lens covered, or the camera broken?"
    return frame.remark


def missing(settings: CameraSettings) -> str | None:
    """What is missing for this kind of camera, and what to do; None where nothing is. Nothing is loaded for it."""
    if settings.kind == "picamera" and importlib.util.find_spec("picamera2") is None:
        return NOT_INSTALLED
    if settings.kind == "simulated" and not settings.simulated.replay and (text := thumbnail.missing()):
        return f"the simulated camera draws with libvips: {text}"
    return None


def read_for_pictures(settings: CameraSettings) -> list[Path]:
    """The files that a camera of this kind reads, beside those of the system."""
    replay = settings.simulated.replay
    return [replay] if settings.kind == "simulated" and replay else []


def make(settings: CameraSettings, device: str) -> Camera:
    """The camera of the kind that is set, not opened yet; `device` is the trap's id."""
    if settings.kind == "picamera":
        from trapsync.cameras.picamera import Picamera

        return Picamera(settings)
    if settings.kind == "simulated":
        from trapsync.cameras.simulated import SimulatedCamera

        return SimulatedCamera(settings, device)
    raise CameraError('there is no camera: camera.kind is "none"')
