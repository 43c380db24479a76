"""The Raspberry Pi's own camera: the one door to picamera2, and through it to libcamera.

picamera2 comes from the system (`apt install python3-picamera2`), bound to the system's libcamera, so it is
imported only when a camera is opened. It is configured once: to configure or open again leaks contiguous
memory (picamera2 issues 887, 1125, 1130). The encoder's own EXIF is thrown away later, by `exif.dress`: it is
written from the local clock, and its `Make` is one that the Sticky Pi server fails on.

It needs picamera2 0.3.20 (July 2024) or later: older ones cannot give up a wait.
"""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from trapsync import jpeg
from trapsync.cameras import Frame
from trapsync.errors import CameraError, DamagedImage
from trapsync.settings import Camera as CameraSettings

_NOT_INSTALLED = (
    "picamera2 is not installed for this Python: run `sudo apt install python3-picamera2`, "
    "and make the virtual environment with --system-site-packages"
)
_NOT_FOUND = "no camera found: check the cable and its direction, then run `rpicam-hello --list-cameras`"
_BUSY = "another program holds the camera: stop it (`sudo fuser -v /dev/media*` shows which)"
_SILENT = "the camera gave no picture in time: check the cable and the power supply"

# libcamera's numbers, the same since its 0.0: controls.AfModeEnum.
_AF_MANUAL, _AF_CONTINUOUS = 0, 2
_READOUT = 0.2  # seconds: an allowance for reading a frame out, on top of its exposure

T = TypeVar("T")


class Picamera:
    """The first camera that libcamera knows, set up for stills and left running.

    A running camera has settled exposure and white balance, so a picture is one frame away. `sleep` is how
    the first settling is waited for.
    """

    def __init__(self, settings: CameraSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._camera: Any = None
        self._model = ""

    def open(self) -> None:
        """Claim the camera, configure it, start it, and give it `camera.settle` to find its exposure."""
        kind = _picamera2()
        with _explained("the camera cannot be opened"):
            if not kind.global_camera_info():
                raise CameraError(_NOT_FOUND)
            self._camera = kind()
        try:
            with _explained("the camera cannot be started"):
                self._start()
        except BaseException:
            self.close()
            raise
        self._sleep(float(self._settings.settle))

    def capture(self, moment: datetime) -> Frame:
        """Take the next whole frame; `moment` is not needed, for what is seen is seen now."""
        if self._camera is None:
            raise CameraError("the camera is not open")
        with _explained("the camera gave no picture"):
            request = self._next_request()
            # The pixels and what is said of them come from one request; it must go back, or the camera,
            # which has this one buffer, never gives another.
            try:
                metadata = request.get_metadata()
                picture = io.BytesIO()
                request.save("main", picture, format="jpeg")
            finally:
                request.release()
        return self._frame(picture.getvalue(), metadata)

    def close(self) -> None:
        """Let the camera go, whatever state it is in."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with suppress(Exception):
                camera.cancel_all_and_flush()  # or close() would wait for a frame that never comes
            with suppress(Exception):
                camera.close()

    def _start(self) -> None:
        import libcamera

        camera, settings = self._camera, self._settings
        self._model = str(camera.camera_properties.get("Model") or "unknown")
        turned = settings.rotation == 180
        width, height = settings.resolution
        configuration = camera.create_still_configuration(
            main={"size": (width - width % 2, height - height % 2)},  # odd ones are refused
            buffer_count=1,
            transform=libcamera.Transform(hflip=turned, vflip=turned),
            controls=self._controls(),
        )
        camera.configure(configuration)
        camera.options["quality"] = settings.quality
        # Only a configured camera knows how much of its sensor this mode can show.
        camera.set_controls(self._known(_crop(settings, camera)))
        camera.start(show_preview=False)

    def _controls(self) -> dict[str, Any]:
        """The settings as libcamera's controls, without those that this camera does not have."""
        settings = self._settings
        controls: dict[str, Any] = {"AwbEnable": settings.white_balance == "auto"}
        # With one of the two set, the automatic goes on and finds the other.
        if settings.exposure and settings.gain != "auto":
            controls["AeEnable"] = False
        if settings.exposure:
            microseconds = round(settings.exposure * 1e6)
            controls["ExposureTime"] = microseconds
            # A frame cannot be exposed for longer than it lasts.
            controls["FrameDurationLimits"] = (microseconds, microseconds + round(_READOUT * 1e6))
        if settings.gain != "auto":
            controls["AnalogueGain"] = float(settings.gain)
        if settings.white_balance != "auto":
            controls["ColourGains"] = tuple(float(gain) for gain in settings.white_balance)
        controls |= _focus(settings)
        return self._known(controls)

    def _known(self, controls: dict[str, Any]) -> dict[str, Any]:
        """Those that this camera has: a lens without a motor knows no position, and picamera2 raises."""
        available = self._camera.camera_controls
        return {name: value for name, value in controls.items() if name in available}

    def _next_request(self) -> Any:
        """The next frame that the sensor finishes: with one buffer none can be left over from before.

        It is waited for a little less than the caller does, so that the reason is known. A frame that comes
        after that would be handed to nobody and keep the buffer, so the wait for it is taken back.
        """
        longest = 0.8 * float(self._settings.deadline) + 2 * float(self._settings.exposure)
        job = self._camera.capture_request(wait=False)
        try:
            return job.get_result(timeout=longest)
        except TimeoutError:
            self._camera.cancel_all_and_flush()
            raise CameraError(_SILENT) from None

    def _frame(self, content: bytes, metadata: dict[str, Any]) -> Frame:
        try:
            header = jpeg.header(content)
        except DamagedImage as error:
            raise CameraError(f"the camera's picture is no JPEG: {error}") from None
        return Frame(
            jpeg=content,
            width=header.width,
            height=header.height,
            model=self._model,
            exposure=_seconds(metadata.get("ExposureTime")),
            gain=_product(metadata.get("AnalogueGain"), metadata.get("DigitalGain")),
            lens_position=_number(metadata.get("LensPosition")),
        )


def _picamera2() -> Any:
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        # libcamera's bindings are built for the system's Python alone; say which of them is missing.
        raise CameraError(f"{_NOT_INSTALLED} ({error})") from None
    return Picamera2


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever picamera2 raises (RuntimeError, ValueError, TypeError, KeyError ...) becomes one line."""
    try:
        yield
    except CameraError:
        raise
    except Exception as error:
        raise CameraError(f"{what}: {_advice(error)}") from error


def _advice(error: BaseException) -> str:
    """What to do, by the words of the error or of what caused it; picamera2 wraps the true one twice."""
    words = []
    cause: BaseException | None = error
    while cause is not None:
        words.append(" ".join(str(cause).split()) or type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    text = " / ".join(words).lower()
    if isinstance(error, TypeError):
        return f"this picamera2 is too old ({words[0]}): run `sudo apt full-upgrade`"
    if "busy" in text or "acquire" in text:
        return f"{_BUSY} ({words[-1]})"
    if "not found" in text or "list index out of range" in text:
        return _NOT_FOUND
    if "permission denied" in text:
        return "no permission: add the daemon's user to the group video"
    if "cannot allocate memory" in text:
        return f"no contiguous memory left ({words[-1]}): lower camera.resolution, or reboot"
    return f"{words[0]}; see `rpicam-hello --list-cameras` for what this camera can do"


def _focus(settings: CameraSettings) -> dict[str, Any]:
    """A set lens position, in dioptres, needs the autofocus off; without one it runs on."""
    if settings.lens_position == "auto":
        return {"AfMode": _AF_CONTINUOUS}
    return {"AfMode": _AF_MANUAL, "LensPosition": float(settings.lens_position)}


def _crop(settings: CameraSettings, camera: Any) -> dict[str, Any]:
    """`camera.zoom` as the part of the sensor to show, in its pixels; nothing for the whole sensor.

    The part is cut to the shape of the picture, about its centre: libcamera would stretch it instead.
    """
    if settings.zoom == (0.0, 0.0, 1.0, 1.0):
        return {}
    left, top, width, height = _whole_field(camera)
    x, y, w, h = settings.zoom
    wide, high = w * width, h * height
    shape = settings.resolution[0] / settings.resolution[1]
    cut_wide, cut_high = min(wide, high * shape), min(high, wide / shape)
    box = (
        left + round(x * width + (wide - cut_wide) / 2),
        top + round(y * height + (high - cut_high) / 2),
        round(cut_wide),
        round(cut_high),
    )
    # A Pi with the newer control (one box for each stream) goes by it alone, and picamera2 always sets it.
    return {"ScalerCrop": box, "ScalerCrops": [box]}


def _whole_field(camera: Any) -> tuple[int, int, int, int]:
    """What the sensor shows in this mode: libcamera's property, or the bounds of the control."""
    field = camera.camera_properties.get("ScalerCropMaximum")
    if not field or not field[2]:
        field = camera.camera_controls["ScalerCrop"][1]
    left, top, width, height = field
    return left, top, width, height


def _seconds(microseconds: object) -> float | None:
    number = _number(microseconds)
    return None if number is None else number / 1e6


def _product(*factors: object) -> float | None:
    """The gain: analogue times digital; a missing digital one is 1."""
    numbers = [number for number in map(_number, factors) if number is not None]
    return numbers[0] * numbers[1] if len(numbers) == 2 else numbers[0] if numbers else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
