"""Settings of a camera in libcamera's words: which mode of the sensor, and which controls.

Nothing here touches a camera. Names and numbers are libcamera's, and the same since its 0.0; times are in
microseconds.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trapsync.errors import CameraError
from trapsync.settings.schema import Camera as CameraSettings
from trapsync.settings.units import Exposure

# controls.AfModeEnum: a lens that stays where it is put, or that looks for the focus when it is told to.
_AF_MANUAL, _AF_AUTO = 0, 1
_READOUT = 0.2  # seconds: an allowance for reading a frame out, on top of its exposure

Size = tuple[int, int]
Box = tuple[int, int, int, int]


def size(settings: CameraSettings) -> Size:
    """The pictures' size; picamera2 refuses odd numbers."""
    width, height = settings.resolution
    return width - width % 2, height - height % 2


def mode(settings: CameraSettings, whole: Size, sizes: Iterable[Size]) -> Size:
    """The size at which the sensor is to be read out: one that shows all that it sees.

    Left to itself libcamera takes the mode that is nearest in size, and among small ones that is often one that
    shows the middle only (1536 x 864 of an IMX708, 1332 x 990 of an IMX477). Exactly half the width and height
    is the sensor binned, two by two, with its whole field; where that has pixels enough it takes a quarter of
    the memory, and is less noisy. Else it is `whole`.
    """
    half = (whole[0] // 2, whole[1] // 2)
    wide, high = _cut(settings, half)
    width, height = size(settings)
    return half if half in sizes and round(wide) >= width and round(high) >= height else whole


def controls(settings: CameraSettings, known: Mapping[str, tuple[Any, ...]], field: Box) -> dict[str, Any]:
    """The settings as controls, without those that this camera does not have.

    `known` are its controls with their least and greatest values, `field` is what it sees in this mode.
    CameraError for a value that is set and beyond what it can do.
    """
    wanted = _exposure(settings) | _colours(settings) | _focus(settings) | _zoom(settings, field)
    _check(settings, known)
    return {name: value for name, value in wanted.items() if name in known}


def _exposure(settings: CameraSettings) -> dict[str, Any]:
    """With one of exposure and gain set, the automatic goes on and finds the other."""
    found: dict[str, Any] = {}
    if settings.exposure and settings.gain != "auto":
        found["AeEnable"] = False
    if settings.exposure:
        microseconds = round(settings.exposure * 1e6)
        found["ExposureTime"] = microseconds
        # A frame cannot be exposed for longer than it lasts, and libcamera gives a frame five times as long
        # as it should last before it calls the camera dead.
        found["FrameDurationLimits"] = (microseconds, microseconds + round(_READOUT * 1e6))
    if settings.gain != "auto":
        found["AnalogueGain"] = float(settings.gain)
    return found


def _colours(settings: CameraSettings) -> dict[str, Any]:
    if settings.white_balance == "auto":
        return {"AwbEnable": True}
    return {"AwbEnable": False, "ColourGains": tuple(float(gain) for gain in settings.white_balance)}


def _focus(settings: CameraSettings) -> dict[str, Any]:
    """A lens position is in dioptres; without one, the lens is told before each picture to look for it."""
    if settings.lens_position == "auto":
        return {"AfMode": _AF_AUTO}
    return {"AfMode": _AF_MANUAL, "LensPosition": float(settings.lens_position)}


def _zoom(settings: CameraSettings, field: Box) -> dict[str, Any]:
    """`camera.zoom` as the part of the sensor to show, in its pixels; nothing for the whole sensor."""
    if settings.zoom == (0.0, 0.0, 1.0, 1.0):
        return {}
    left, top, width, height = field
    x, y, w, h = settings.zoom
    cut_wide, cut_high = _cut(settings, (width, height))
    box = (
        left + round(x * width + (w * width - cut_wide) / 2),
        top + round(y * height + (h * height - cut_high) / 2),
        round(cut_wide),
        round(cut_high),
    )
    # A Pi with the newer control (one box for each stream) goes by it alone, and picamera2 always sets it.
    return {"ScalerCrop": box, "ScalerCrops": [box]}


def _cut(settings: CameraSettings, field: Size) -> tuple[float, float]:
    """The part of the field that is shown, cut to the shape of the picture: libcamera would stretch it."""
    wide, high = settings.zoom[2] * field[0], settings.zoom[3] * field[1]
    shape = settings.resolution[0] / settings.resolution[1]
    return min(wide, high * shape), min(high, wide / shape)


def _check(settings: CameraSettings, known: Mapping[str, tuple[Any, ...]]) -> None:
    """CameraError for what this sensor or lens cannot do: it would silently do something else instead."""
    named: tuple[tuple[str, str, float | str], ...] = (
        ("exposure", "ExposureTime", settings.exposure * 1e6 or "auto"),
        ("gain", "AnalogueGain", settings.gain),
        ("lens_position", "LensPosition", settings.lens_position),
    )
    for key, control, value in named:
        if isinstance(value, str) or control not in known:
            continue
        least, most = known[control][:2]
        if value > most or value < least:
            raise CameraError(
                f"camera.{key} = {_written(key, value)}: this camera takes from {_written(key, least)} "
                f"to {_written(key, most)}"
            )


def _written(key: str, value: float) -> str:
    if key != "exposure":
        return f"{value:g}"
    seconds = Exposure(value / 1e6)
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"
