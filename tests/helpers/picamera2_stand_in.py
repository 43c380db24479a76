"""A stand-in for picamera2 and libcamera, as far as a still camera needs them.

It has the signatures, and raises the errors, of picamera2 0.3.38; tests/unit/test_picamera.py holds the signatures
against the real package, and scripts/test-camera drives that one itself. What neither can show: whether libcamera takes
these controls on a given sensor, how long a frame takes, how the picture looks, and what the hardware does when
it hangs. That needs a Raspberry Pi.
"""

import types
from collections.abc import Callable
from typing import Any

import drawings

METADATA = {"ExposureTime": 66642, "AnalogueGain": 2.0, "DigitalGain": 1.25, "LensPosition": 4.5}
# Of a Camera Module 3 (IMX708) at full size: least, greatest, default.
CONTROLS: dict[str, tuple[Any, ...]] = {
    "AeEnable": (False, True, None),
    "AfMode": (0, 2, 0),
    "AfTrigger": (0, 1, 0),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "AwbEnable": (False, True, None),
    "ColourGains": (0.0, 32.0, None),
    "ExposureTime": (27, 112_015_096, 20000),
    "FrameDurationLimits": (69669, 112_015_443, 33333),
    "LensPosition": (0.0, 32.0, 1.0),
    "NoiseReductionMode": (0, 4, 0),
    "ScalerCrop": ((0, 0, 64, 64), (16, 8, 4608, 2592), (16, 8, 4608, 2592)),
    "ScalerCrops": ((0, 0, 64, 64), (16, 8, 4608, 2592), (16, 8, 4608, 2592)),
}
MODES = [(1536, 864), (2304, 1296), (4608, 2592)]
CONFIGURED = {"NoiseReductionMode": 2, "FrameDurationLimits": (100, 1_000_000_000)}


class Job:
    """picamera2.job.Job: a future, and a time-out that raises."""

    def __init__(self, result: Any, *, is_late: bool = False) -> None:
        self._result = result
        self._is_late = is_late

    def get_result(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "would wait for ever"
        if self._is_late:
            raise TimeoutError
        return self._result


class CompletedRequest:
    """picamera2.request.CompletedRequest."""

    def __init__(self, request: Any, picam2: "Picamera2") -> None:
        self.picam2 = picam2
        self.is_held = True

    def get_metadata(self) -> dict[str, Any]:
        return METADATA

    def save(self, name: str, file_output: Any, format: str | None = None, exif_data: Any = None) -> None:  # noqa: A002
        if self.picam2.breaks_on_save:
            raise RuntimeError("Stream 'main' is not defined")
        assert (name, format) == ("main", "jpeg")
        # The real one puts EXIF of its own there, with the Make that our servers do not take.
        file_output.write(drawings.sticky_pi_2022(make=b"Raspberry Pi"))
        self.picam2.calls.append("save")

    def release(self) -> None:
        assert self.is_held, "lock now has negative ref_count"
        self.is_held = False


class Picamera2:
    """picamera2.Picamera2. What happened to the last one stands in `calls`."""

    found: list[dict[str, Any]] = [{"Model": "imx708", "Num": 0}]  # noqa: RUF012
    failure: Exception | None = None
    last: "Picamera2"

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return Picamera2.found

    def __init__(
        self, camera_num: int = 0, verbose_console: Any = None, tuning: Any = None, allocator: Any = None
    ) -> None:
        if Picamera2.failure is not None:
            raise RuntimeError("Camera __init__ sequence did not complete.") from Picamera2.failure
        Picamera2.last = self
        self.camera = types.SimpleNamespace(generate_configuration=_generate_configuration)
        self.camera_properties = {
            "Model": "imx708",
            "ColorFilterArrangement": 0,
            "ScalerCropMaximum": (16, 8, 4608, 2592),
        }
        self.camera_controls = dict(CONTROLS)
        self.sensor_resolution = (4608, 2592)
        self.options: dict[str, Any] = {}
        self.configuration: dict[str, Any] = {}
        self.sent: dict[str, Any] = {}  # the controls that the next start sends
        self.started_with: list[dict[str, Any]] = []
        self.requests: list[CompletedRequest] = []
        self.flushes: list[bool | None] = []
        self.calls: list[str] = []
        self.is_silent = self.breaks_on_save = self.finds_no_focus = self.cannot_stop = False

    def create_still_configuration(
        self,
        main: dict[str, Any] = {},  # noqa: B006 - as the real one
        lores: Any = None,
        raw: Any = {},  # noqa: B006
        transform: Any = None,
        colour_space: Any = None,
        buffer_count: int = 1,
        controls: dict[str, Any] = {},  # noqa: B006
        display: Any = None,
        encode: Any = None,
        queue: bool = True,
        sensor: dict[str, Any] = {},  # noqa: B006
        use_case: str = "still",
    ) -> dict[str, Any]:
        assert main.keys() <= {"size", "format", "preserve_ar"}, "Bad key"
        assert sensor.keys() <= {"bit_depth", "output_size"}, "Unexpected keys"
        return {
            "main": main,
            "raw": raw,
            "sensor": sensor,
            "transform": transform,
            "buffer_count": buffer_count,
            "controls": CONFIGURED | controls,
        }

    def configure(self, camera_config: Any = None) -> None:
        assert all(side % 2 == 0 for side in camera_config["main"]["size"]), "width and height should be even"
        self.calls.append("configure")
        self.configuration = camera_config
        self.set_controls(camera_config["controls"])

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def set_controls(self, controls: dict[str, Any]) -> None:
        for name in controls:
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        self.sent |= controls

    def start(self, config: Any = None, show_preview: bool = False) -> None:
        self.calls.append("start")
        self.started_with.append(self.sent)
        self.sent = {}

    def stop_(self, request: Any = None) -> tuple[bool, None]:
        self.calls.append("stop")
        return True, None

    def dispatch_functions(
        self,
        functions: list[Callable[[], Any]],
        wait: Any,
        signal_function: Any = None,
        immediate: bool = False,
    ) -> Job:
        assert wait is False, "would wait for ever"
        assert immediate, "would wait for the next frame"
        if self.cannot_stop:
            return Job(None, is_late=True)
        return Job([function() for function in functions])

    def autofocus_cycle(self, wait: Any = None, signal_function: Any = None) -> Job:
        assert wait is False
        self.set_controls({"AfMode": 1, "AfTrigger": 0})
        self.calls.append("focus")
        return Job(not self.finds_no_focus, is_late=self.is_silent)

    def capture_request(self, wait: Any = None, signal_function: Any = None, flush: Any = None) -> Job:
        assert wait is False
        self.calls.append("capture")
        self.flushes.append(flush)
        # One buffer: whoever still holds a request gets no other.
        if self.is_silent or any(request.is_held for request in self.requests):
            return Job(None, is_late=True)
        self.requests.append(CompletedRequest(None, self))
        return Job(self.requests[-1])

    def cancel_all_and_flush(self) -> None:
        self.calls.append("cancel")

    def close(self) -> None:
        self.calls.append("close")


def _generate_configuration(roles: list[str]) -> Any:
    """libcamera.Camera.generate_configuration, as far as the sizes of the raw modes go."""
    assert roles == ["raw"]
    sizes = [types.SimpleNamespace(width=width, height=height) for width, height in MODES]
    formats = types.SimpleNamespace(pixel_formats=["SRGGB10_CSI2P"], sizes=lambda _kind: sizes)
    return types.SimpleNamespace(at=lambda _index: types.SimpleNamespace(formats=formats))


def modules() -> dict[str, types.ModuleType]:
    """`picamera2` and `libcamera`, to be put into sys.modules."""
    picamera2, libcamera = types.ModuleType("picamera2"), types.ModuleType("libcamera")
    vars(picamera2)["Picamera2"] = Picamera2
    vars(libcamera)["Transform"] = types.SimpleNamespace
    vars(libcamera)["StreamRole"] = types.SimpleNamespace(Raw="raw")
    return {"picamera2": picamera2, "libcamera": libcamera}
