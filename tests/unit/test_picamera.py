"""The Raspberry Pi's camera: the backend against a stand-in, and the stand-in against the real package.

scripts/test-camera drives the real package itself.
"""

import concurrent.futures
import inspect
import io
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest

import drawings
import picamera2_stand_in as stand_ins
from picamera2_stand_in import Picamera2 as StandIn
from trapsync import cameras
from trapsync.cameras import Frame
from trapsync.cameras.controls import mode
from trapsync.cameras.picamera import Picamera
from trapsync.errors import CameraError
from trapsync.jpeg import exif
from trapsync.settings.schema import Camera, Flash
from trapsync.settings.units import Duration, Exposure

NOON = datetime(2026, 6, 22, 12, 0, tzinfo=UTC)
AUTOMATIC = stand_ins.CONFIGURED | {"AwbEnable": True, "AfMode": 1}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """picamera2 and libcamera as modules; each test begins with one camera found."""
    for name, module in stand_ins.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(StandIn, "found", [{"Model": "imx708", "Num": 0}])
    monkeypatch.setattr(StandIn, "failure", None)
    return StandIn


def opened(**changes: Any) -> Picamera:
    camera = Picamera(msgspec.structs.replace(Camera(), **changes), sleep=lambda _: None)
    camera.open()
    return camera


def taken(camera: Picamera) -> Frame:
    """A picture as `pipeline.capture` takes it."""
    with camera.ready():
        return camera.capture(NOON)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A camera that lacks these controls."""
    make = StandIn.__init__

    def lacking(self: StandIn) -> None:
        make(self)
        for name in names:
            del self.camera_controls[name]

    monkeypatch.setattr(StandIn, "__init__", lacking)


# --- A picture ----------------------------------------------------------------------------------------------


def test_pixels_and_metadata_come_from_one_request_which_goes_back(stand_in: type[StandIn]) -> None:
    frame = taken(opened())

    assert (frame.width, frame.height, frame.model) == (160, 120, "imx708")
    assert (frame.exposure, frame.gain, frame.lens_position) == (0.066642, 2.5, 4.5)
    assert [request.is_held for request in stand_in.last.requests] == [False]


def test_the_camera_is_configured_once_for_any_number_of_pictures(stand_in: type[StandIn]) -> None:
    camera = opened(lens_position=3)

    for _ in range(3):
        taken(camera)
    camera.rest()
    camera.rest()
    taken(camera)

    assert stand_in.last.calls == [
        *("configure", "start"),
        *(3 * ["capture", "save"]),
        *("stop", "start", "capture", "save"),
    ]


def test_it_waits_for_the_exposure_to_settle_after_each_rest(stand_in: type[StandIn]) -> None:
    waits: list[float] = []
    camera = Picamera(Camera(warm_up=Duration(3)), sleep=waits.append)
    camera.open()
    assert waits == []

    taken(camera)
    taken(camera)
    camera.rest()
    taken(camera)

    assert waits == [3.0, 3.0]


def test_every_start_sends_all_controls_for_picamera2_forgets_them(stand_in: type[StandIn]) -> None:
    camera = opened(exposure=Exposure(0.01), gain=2, zoom=(0, 0, 0.5, 0.5))

    for _ in range(3):
        taken(camera)
        camera.rest()

    first, *others = stand_in.last.started_with
    assert {"ExposureTime", "AnalogueGain", "ScalerCrop", "NoiseReductionMode"} <= first.keys()
    # What the lens was told last is still to be sent, and harmless.
    assert [{**first, **other} for other in others] == [first | {"AfTrigger": 0}] * 2


def test_on_its_own_it_leaves_exposure_and_colours_to_the_camera(stand_in: type[StandIn]) -> None:
    taken(opened(quality=85))

    assert stand_in.last.configuration == {
        "main": {"size": (4056, 3040), "format": "YUV420"},
        "raw": None,
        "sensor": {"output_size": (4608, 2592)},
        "transform": types.SimpleNamespace(hflip=False, vflip=False),
        "buffer_count": 1,
        "controls": stand_ins.CONFIGURED,
    }
    assert stand_in.last.options["quality"] == 85
    assert stand_in.last.started_with == [AUTOMATIC]


def test_set_values_become_libcameras_controls_in_its_units(stand_in: type[StandIn]) -> None:
    taken(opened(exposure=Exposure(2.5), gain=4, white_balance=(1.5, 2.0), lens_position=7.5, rotation=180))

    assert stand_in.last.configuration["transform"] == types.SimpleNamespace(hflip=True, vflip=True)
    assert stand_in.last.started_with == [
        {
            "NoiseReductionMode": 2,
            "AeEnable": False,
            "ExposureTime": 2_500_000,
            "FrameDurationLimits": (2_500_000, 2_700_000),
            "AnalogueGain": 4.0,
            "AwbEnable": False,
            "ColourGains": (1.5, 2.0),
            "AfMode": 0,
            "LensPosition": 7.5,
        }
    ]


def test_an_odd_resolution_is_made_even_because_picamera2_refuses_it(stand_in: type[StandIn]) -> None:
    opened(resolution=(1001, 751))

    assert stand_in.last.configuration["main"]["size"] == (1000, 750)


@pytest.mark.parametrize(
    ("zoom", "resolution", "box"),
    [
        ((0.5, 0.5, 0.5, 0.5), (4608, 2592), (2320, 1304, 2304, 1296)),
        ((0.0, 0.0, 0.5, 0.5), (1296, 1296), (520, 8, 1296, 1296)),
        ((0.0, 0.0, 0.5, 1.0), (4608, 2592), (16, 656, 2304, 1296)),
    ],
)
def test_zoom_is_a_part_of_the_sensor_cut_to_the_pictures_shape(
    stand_in: type[StandIn],
    zoom: tuple[float, float, float, float],
    resolution: tuple[int, int],
    box: tuple[int, int, int, int],
) -> None:
    taken(opened(zoom=zoom, resolution=resolution))

    assert stand_in.last.started_with[0]["ScalerCrop"] == box
    assert stand_in.last.started_with[0]["ScalerCrops"] == [box]


def test_a_control_that_this_camera_does_not_have_is_left_out(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "AfMode", "LensPosition", "ScalerCrops")

    taken(opened(lens_position=3, zoom=(0, 0, 0.5, 0.5), resolution=(4608, 2592)))

    assert stand_in.last.started_with[0].keys() == {*stand_ins.CONFIGURED, "AwbEnable", "ScalerCrop"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exposure": Exposure(200)}, "camera.exposure = 200 s: .* from 0.027 ms to 112.015 s"),
        ({"exposure": Exposure(0.00001)}, "camera.exposure = 0.01 ms: .* from 0.027 ms"),
        ({"gain": 20}, "camera.gain = 20: .* from 1 to 16"),
        ({"lens_position": 40}, "camera.lens_position = 40: .* from 0 to 32"),
    ],
)
def test_a_value_beyond_what_the_sensor_can_do_is_an_error_that_says_what_it_can(
    stand_in: type[StandIn], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CameraError, match=reason):
        opened(**changes)

    assert stand_in.last.calls[-1] == "close"


# Modes as the Raspberry Pi's kernel drivers list them; the small ones of the first two show the middle only.
IMX708 = [(1536, 864), (2304, 1296), (4608, 2592)]
IMX477 = [(1332, 990), (2028, 1080), (2028, 1520), (4056, 3040)]
IMX219 = [(640, 480), (1640, 1232), (1920, 1080), (3280, 2464)]
IMX296 = [(1456, 1088)]


@pytest.mark.parametrize(
    ("sizes", "resolution", "zoom", "expected"),
    [
        (IMX708, (4608, 2592), 1.0, (4608, 2592)),
        (IMX708, (2304, 1296), 1.0, (2304, 1296)),
        (IMX708, (1280, 720), 1.0, (2304, 1296)),  # not 1536 x 864
        (IMX708, (1280, 720), 0.5, (4608, 2592)),  # half of 2304 would be too few
        (IMX708, (1152, 648), 0.5, (2304, 1296)),
        (IMX477, (1280, 960), 1.0, (2028, 1520)),  # not 1332 x 990
        (IMX477, (1920, 1080), 1.0, (2028, 1520)),
        (IMX477, (2029, 1521), 1.0, (2028, 1520)),  # odd ones are made even
        (IMX477, (2030, 1522), 1.0, (4056, 3040)),
        (IMX219, (1920, 1080), 1.0, (3280, 2464)),  # not the mode of that size
        (IMX219, (640, 480), 1.0, (1640, 1232)),
        (IMX296, (640, 480), 1.0, (1456, 1088)),
    ],
)
def test_the_sensor_mode_is_the_smallest_that_has_the_whole_field_and_pixels_enough(
    sizes: list[tuple[int, int]], resolution: tuple[int, int], zoom: float, expected: tuple[int, int]
) -> None:
    settings = Camera(resolution=resolution, zoom=(0.0, 0.0, zoom, zoom))

    assert mode(settings, max(sizes), sizes) == expected


def test_the_encoders_own_exif_does_not_survive(stand_in: type[StandIn]) -> None:
    frame = taken(opened())

    assert b"Raspberry Pi" in frame.jpeg
    assert b"Raspberry Pi" not in exif.embed_metadata(frame.jpeg, drawings.facts())
    assert io.BytesIO(frame.jpeg).read(2) == b"\xff\xd8"


# --- Focus --------------------------------------------------------------------------------------------------


def test_a_lens_with_a_motor_is_told_to_focus_before_each_picture(stand_in: type[StandIn]) -> None:
    camera = opened()

    taken(camera)
    taken(camera)

    assert stand_in.last.calls[1:] == ["start", *(2 * ["focus", "capture", "save"])]


@pytest.mark.parametrize("why", ["finds_no_focus", "is_silent"])
def test_a_picture_out_of_focus_is_a_picture_and_said_to_be_so(stand_in: type[StandIn], why: str) -> None:
    camera = opened(resolution=(160, 120))
    setattr(stand_in.last, why, True)

    with camera.ready():
        stand_in.last.is_silent = False
        frame = camera.capture(NOON)

    assert "autofocus found nothing sharp" in str(cameras.oddity(frame, Camera(resolution=(160, 120))))
    stand_in.last.finds_no_focus = False
    assert taken(camera).remark is None


@pytest.mark.parametrize("has_motor", [True, False])
def test_a_lens_that_is_set_or_has_no_motor_is_left_alone(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch, has_motor: bool
) -> None:
    if not has_motor:
        without(monkeypatch, "AfMode", "LensPosition")
    camera = opened(lens_position=3 if has_motor else "auto")

    taken(camera)

    assert "focus" not in stand_in.last.calls


# --- The flash ----------------------------------------------------------------------------------------------


@pytest.fixture
def pin() -> Iterator[Any]:
    """GPIO17 of a Pi that is made of nothing."""
    from gpiozero import Device
    from gpiozero.pins.mock import MockFactory

    before = Device.pin_factory
    Device.pin_factory = MockFactory()
    yield Device.pin_factory.pin(17)
    Device.pin_factory.reset()
    Device.pin_factory = before


LIT = Flash(pin=17, warm_up=Duration(0.5))


def test_the_flash_burns_from_before_the_camera_settles_until_the_exposure_is_over(
    stand_in: type[StandIn], pin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    steps = [(StandIn, "start"), (StandIn, "autofocus_cycle"), (StandIn, "capture_request")]
    for kind, name in [*steps, (stand_ins.CompletedRequest, "save")]:
        original = getattr(kind, name)

        def spied(*arguments: Any, original: Any = original, name: str = name, **options: Any) -> Any:
            seen.append((name, pin.state))
            return original(*arguments, **options)

        monkeypatch.setattr(kind, name, spied)
    camera = Picamera(Camera(flash=LIT), sleep=lambda seconds: seen.append((f"{seconds} s", pin.state)))

    camera.open()
    assert pin.state == 0
    taken(camera)

    assert seen == [
        *(("0.5 s", 1), ("start", 1), ("2.0 s", 1), ("autofocus_cycle", 1), ("capture_request", 1)),
        ("save", 0),
    ]
    # The frame that was under way when the lamp went on is not the one.
    assert stand_in.last.flushes == [True]


def _take_and_fail(camera: Picamera, pin: Any, is_ours: bool) -> None:
    with camera.ready():
        assert pin.state == 1
        assert not 1 / (not is_ours) > 1
        camera.capture(NOON)


@pytest.mark.parametrize("trouble", ["cannot start", "silent", "broken on save", "ours"])
def test_the_flash_goes_out_whatever_happens(
    stand_in: type[StandIn], pin: Any, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        assert pin.state == 1
        raise RuntimeError("cannot")

    camera = opened(flash=LIT)
    if trouble == "cannot start":
        monkeypatch.setattr(StandIn, "start", broken)
    stand_in.last.is_silent = trouble == "silent"
    stand_in.last.breaks_on_save = trouble == "broken on save"

    with pytest.raises((CameraError, ZeroDivisionError)):
        _take_and_fail(camera, pin, trouble == "ours")

    assert pin.state == 0


def test_a_lamp_that_lights_on_low_is_off_at_high(stand_in: type[StandIn], pin: Any) -> None:
    camera = opened(flash=msgspec.structs.replace(LIT, active_high=False))
    assert pin.state == 1

    with camera.ready():
        assert pin.state == 0

    assert pin.state == 1


def test_what_a_killed_process_left_on_is_switched_off(pin: Any) -> None:
    from trapsync.cameras.flash import switch_off

    pin.function = "output"
    pin.state = 1

    switch_off(LIT)

    assert pin.state == 0


def test_a_flash_that_cannot_be_switched_is_an_error_that_names_its_pin(
    stand_in: type[StandIn], pin: Any
) -> None:
    from gpiozero import OutputDevice

    with OutputDevice(17), pytest.raises(CameraError, match=r"camera\.flash: GPIO17 .* group gpio"):
        opened(flash=LIT)


def test_without_gpiozero_it_says_what_to_install(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)

    with pytest.raises(CameraError, match=r"apt install python3-gpiozero python3-lgpio"):
        opened(flash=LIT)


def test_without_a_pin_there_is_no_flash_and_gpiozero_is_not_needed(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)

    taken(opened())

    assert stand_in.last.flushes == [None]


# --- What goes wrong ----------------------------------------------------------------------------------------


def test_a_camera_that_falls_silent_is_given_up_and_its_wait_taken_back(stand_in: type[StandIn]) -> None:
    camera = opened()
    stand_in.last.is_silent = True

    with pytest.raises(CameraError, match=r"no picture in time.*cable"):
        taken(camera)

    assert stand_in.last.calls[-1] == "cancel"


def test_a_camera_that_does_not_stop_is_given_up(stand_in: type[StandIn]) -> None:
    camera = opened()
    taken(camera)
    stand_in.last.cannot_stop = True

    with pytest.raises(CameraError, match="no picture in time"):
        camera.rest()


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 12),
        ({"exposure": Exposure(5)}, 12 + 10 * 5),
        ({"exposure": Exposure(5), "gain": 1, "white_balance": (1.0, 1.0)}, 12 + 3 * 5),
        ({"flash": LIT}, 12.5),
    ],
)
def test_the_patience_with_a_camera_follows_its_exposure(changes: dict[str, Any], seconds: float) -> None:
    assert cameras.timeout(msgspec.structs.replace(Camera(), **changes)) == seconds


def test_a_failed_picture_gives_its_buffer_back_so_that_the_next_one_comes(stand_in: type[StandIn]) -> None:
    camera = opened()
    stand_in.last.breaks_on_save = True
    with pytest.raises(CameraError, match="Stream 'main' is not defined"):
        taken(camera)

    stand_in.last.breaks_on_save = False

    assert taken(camera).width == 160


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (
            RuntimeError("Failed to acquire camera: Device or resource busy"),
            "another program holds the camera",
        ),
        (RuntimeError("Camera(s) not found (Do not forget to disable legacy camera)"), "check the cable"),
        (IndexError("list index out of range"), "check the cable"),
        (RuntimeError("No camera number 0 found - use rpicam-hello"), "check the cable"),
        (PermissionError(13, "Permission denied"), "group video"),
        (OSError(12, "Cannot allocate memory"), "no contiguous memory"),
        (RuntimeError("Stream format YUV420 not supported for PIL images"), "too old.*full-upgrade"),
        (ValueError("Bad key 'x'"), "did not complete"),
    ],
)
def test_what_picamera2_raises_becomes_one_line_of_advice(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch, failure: Exception, advice: str
) -> None:
    monkeypatch.setattr(StandIn, "failure", failure)

    with pytest.raises(CameraError, match=advice) as caught:
        opened()

    assert "\n" not in str(caught.value)


def test_no_camera_found_says_what_to_check(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "found", [])

    with pytest.raises(CameraError, match="no camera found: check the cable"):
        opened()


def test_without_picamera2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)

    with pytest.raises(CameraError, match=r"apt install python3-picamera2.*--system-site-packages"):
        opened()


def test_a_camera_that_cannot_be_set_up_is_let_go(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: StandIn, camera_config: dict[str, Any]) -> None:
        raise RuntimeError("Configuration failed: {}")

    monkeypatch.setattr(StandIn, "configure", broken)

    with pytest.raises(CameraError, match="cannot be set up: Configuration failed"):
        opened()

    assert stand_in.last.calls == ["cancel", "close"]


def test_closing_twice_or_unopened_does_no_harm(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: StandIn) -> None:
        raise RuntimeError("cannot")

    camera = opened()
    monkeypatch.setattr(StandIn, "close", broken)
    camera.close()
    camera.close()
    camera.rest()

    with pytest.raises(CameraError, match="not open"):
        camera.capture(NOON)


def test_a_camera_on_usb_chooses_its_mode_itself(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = StandIn.__init__

    def on_usb(self: StandIn) -> None:
        make(self)
        self.camera_controls = {}
        self.camera_properties = {"Model": "a webcam"}
        self.camera = None  # type: ignore[assignment] # it would not be asked for modes

    monkeypatch.setattr(StandIn, "__init__", on_usb)
    monkeypatch.setattr(stand_ins, "CONFIGURED", {})

    taken(opened())

    assert stand_in.last.configuration["sensor"] == {}


# --- The stand-in, held against the real package ------------------------------------------------------------

VERSION = "0.3.38"


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """picamera2 from PyPI, unpacked beside the environment, without what it needs; fetched once."""
    folder = Path(sys.prefix) / "share" / f"picamera2-{VERSION}"
    if not folder.exists():
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = ["install", "--quiet", "--no-deps", "--target", str(temporary), f"picamera2=={VERSION}"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"THE REAL PICAMERA2 COULD NOT BE FETCHED: {done.stderr.strip()[-200:]}")
        try:
            temporary.rename(folder)
        except OSError:  # another worker was quicker
            assert folder.exists()
    return folder


class Mocks:
    """Finds whatever picamera2 needs and this machine lacks: libcamera, pykms, numpy, the codecs."""

    PACKAGES = (
        *("libcamera", "pykms", "numpy", "PIL", "simplejpeg", "pidng", "prctl", "videodev2", "av"),
        *("libarchive", "jsonschema", "tqdm", "OpenEXR", "Imath", "cv2"),
    )

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.split(".")[0] in self.PACKAGES else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Any:
        return MagicMock(__name__=spec.name, __path__=[], __spec__=spec)

    def exec_module(self, module: object) -> None:
        pass


@pytest.fixture
def real(real_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The real package, with libcamera and all other hardware mocked."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(real_folder))
    monkeypatch.setattr(sys, "meta_path", [Mocks(), *sys.meta_path])
    import picamera2

    yield picamera2
    for name in set(sys.modules) - before:
        if name.split(".")[0] in {"picamera2", *Mocks.PACKAGES}:
            del sys.modules[name]


def signature(function: Any) -> list[tuple[str, Any]]:
    """Names and kinds of the parameters."""
    return [(one.name, one.kind) for one in inspect.signature(function).parameters.values()]


def test_the_stand_in_has_the_signatures_of_the_real_package(real: Any) -> None:
    compared = []
    for mine, theirs in (
        (StandIn, real.Picamera2),
        (stand_ins.CompletedRequest, real.CompletedRequest),
        (stand_ins.Job, real.picamera2.Job),
    ):
        for name, function in vars(mine).items():
            if inspect.isfunction(function) and (mine, name) != (stand_ins.Job, "__init__"):
                assert signature(function) == signature(getattr(theirs, name)), name
                compared.append(name)
    assert len(compared) == 17


def bare(real: Any) -> Any:
    """A real Picamera2 without a camera: its own state, and none of libcamera's."""
    camera = object.__new__(real.Picamera2)
    camera._preview, camera.is_open = None, False
    camera._reset_flags()
    camera._requestslock = camera.request_lock = camera.lock
    camera.notifyme_r, camera.notifyme_w = os.pipe2(os.O_NONBLOCK)
    return camera


def test_the_real_package_takes_our_configuration_and_adds_its_controls(
    real: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real.picamera2.utils, "convert_from_libcamera_type", lambda value: value)
    camera = bare(real)
    camera.camera = MagicMock()
    camera.camera_properties_ = {"ColorFilterArrangement": 0}
    camera.camera_ctrl_info = {name: MagicMock() for name in stand_ins.CONFIGURED}
    camera.sensor_resolution, camera.sensor_format = (4608, 2592), "SRGGB10"

    configuration = camera.create_still_configuration(
        main={"size": (2304, 1296), "format": "YUV420"},
        raw=None,
        buffer_count=1,
        transform="",
        sensor={"output_size": (2304, 1296)},
    )

    assert configuration["main"] == {"size": (2304, 1296), "format": "YUV420", "preserve_ar": True}
    assert configuration["raw"] is None
    assert configuration["sensor"] == {"output_size": (2304, 1296)}
    assert configuration["controls"].keys() == stand_ins.CONFIGURED.keys()
    camera.check_stream_config(configuration["main"], "main")


def test_the_real_packages_jobs_time_out_and_are_taken_back(real: Any) -> None:
    camera = bare(real)

    job = camera.capture_request(wait=False, flush=None)
    with pytest.raises(TimeoutError):
        job.get_result(timeout=0.01)
    camera.cancel_all_and_flush()

    assert camera._job_list == []
    with pytest.raises(concurrent.futures.CancelledError):
        job.get_result(timeout=1)


def test_the_real_packages_event_loop_gives_a_job_the_next_frame_and_keeps_none(real: Any) -> None:
    camera = bare(real)
    camera._max_queue_len = 0  # as with one buffer
    frames = [MagicMock(ref_count=1) for _ in range(2)]
    camera._cm = MagicMock()
    job = camera.capture_request(wait=False, flush=None)

    for frame in frames:
        camera.completed_requests.append(frame)
        for one in [job for job in camera._job_list if job.execute()]:
            camera._job_list.remove(one)
            one.signal()

    assert job.get_result(timeout=1) is frames[0]


def test_the_real_package_forgets_controls_once_it_has_sent_them(real: Any) -> None:
    """Why `Picamera` sends them with each start."""
    camera = bare(real)
    camera.camera, camera.camera_config = MagicMock(), {"main": {}}
    camera.camera_ctrl_info = {"AwbEnable": (MagicMock(), None)}
    camera.allocator = MagicMock(buffers=lambda _stream: [])
    camera.streams = ["main"]
    camera.camera_idx = 0
    camera.set_controls({"AwbEnable": True})

    camera.start_()
    camera.started = False
    camera.start_()

    sent = [len(call.args[0]) for call in camera.camera.start.call_args_list]
    assert sent == [1, 0]
