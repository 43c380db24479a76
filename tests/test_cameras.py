"""The cameras: the drawn one as people will use it, the real one against a stand-in for picamera2.

The stand-in has the signatures, and raises the errors, of picamera2 0.3.36 as its sources show them. What it
cannot show: whether libcamera takes these controls on a given sensor, how long a frame takes, how the picture
looks, and what the hardware does when it hangs. That needs a Raspberry Pi.
"""

import io
import sys
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import drawn
from trapsync import cameras, exif, jpeg
from trapsync.cameras import Frame
from trapsync.cameras.picamera import Picamera
from trapsync.cameras.simulated import SimulatedCamera, card
from trapsync.errors import CameraError
from trapsync.quantities import Duration, Exposure
from trapsync.settings import Camera
from trapsync.settings import SimulatedCamera as SimulatedSettings

NOON = datetime(2026, 6, 22, 12, 0, tzinfo=UTC)
SMALL = Camera(kind="simulated", resolution=(320, 240))


def simulated(**changes: Any) -> SimulatedCamera:
    camera = SimulatedCamera(msgspec.structs.replace(SMALL, **changes), drawn.DEVICE)
    camera.open()
    return camera


def insects(moment: datetime) -> int:
    return card(SMALL, drawn.DEVICE, moment).count('<g transform="translate(')


# --- Simulated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["picamera", "simulated"])
def test_the_kind_that_is_set_is_made(kind: str) -> None:
    camera = cameras.make(msgspec.structs.replace(SMALL, kind=kind), drawn.DEVICE)

    assert type(camera).__name__.lower().startswith(kind)


def test_no_camera_is_an_error_in_words() -> None:
    with pytest.raises(CameraError, match="no camera"):
        cameras.make(Camera(kind="none"), drawn.DEVICE)


@pytest.mark.parametrize("size", [(64, 64), (333, 251), (1920, 1080), (4056, 3040)])
def test_a_drawn_picture_has_exactly_the_resolution_that_is_set(size: tuple[int, int]) -> None:
    frame = simulated(resolution=size).capture(NOON)

    header = jpeg.header(frame.jpeg)
    assert (header.width, header.height) == (frame.width, frame.height) == size
    assert frame.jpeg.endswith(jpeg.END_OF_IMAGE)


def test_a_picture_of_twelve_megapixels_has_the_size_of_a_real_one() -> None:
    frame = simulated(resolution=(4056, 3040)).capture(NOON)

    assert 0.8e6 < len(frame.jpeg) < 2.5e6


def test_the_same_seed_device_and_moment_give_the_same_bytes() -> None:
    assert simulated().capture(NOON).jpeg == simulated().capture(NOON).jpeg


@pytest.mark.parametrize(
    "other",
    [
        lambda: simulated(simulated=SimulatedSettings(seed=2)).capture(NOON),
        lambda: simulated().capture(NOON + timedelta(seconds=1)),
        lambda: simulated(rotation=180).capture(NOON),
        lambda: simulated(zoom=(0.25, 0.25, 0.5, 0.5)).capture(NOON),
        lambda: simulated(quality=50).capture(NOON),
        lambda: SimulatedCamera(SMALL, "ffffffff").capture(NOON),
    ],
    ids=["seed", "moment", "rotation", "zoom", "quality", "device"],
)
def test_another_seed_moment_or_setting_gives_another_picture(other: Callable[[], Frame]) -> None:
    assert other().jpeg != simulated().capture(NOON).jpeg


def test_insects_only_ever_come_until_the_card_is_changed() -> None:
    thursday = datetime(2026, 6, 18, tzinfo=UTC)  # unix weeks begin on one
    counts = [insects(thursday + timedelta(hours=hours)) for hours in range(0, 168, 6)]

    assert counts == sorted(counts)
    assert counts[0] < 5
    assert counts[-1] > 450
    assert insects(thursday + timedelta(days=7)) < 5


def test_an_insect_that_has_landed_stays_where_it_is() -> None:
    def places(moment: datetime) -> set[str]:
        return {part[:14] for part in card(SMALL, drawn.DEVICE, moment).split('<g transform="translate(')[1:]}

    assert places(NOON) < places(NOON + timedelta(hours=12))


def test_nights_need_more_light_than_noons() -> None:
    noon, night = simulated().capture(NOON), simulated().capture(NOON + timedelta(hours=12))

    assert noon.exposure is not None
    assert night.exposure is not None
    assert noon.exposure < 0.004 < night.exposure < 0.1
    assert (noon.gain, night.gain) == (1.0, 4.0)


def test_a_set_exposure_and_gain_are_reported_as_set() -> None:
    frame = simulated(exposure=Exposure(0.02), gain=2.0).capture(NOON)

    assert (frame.exposure, frame.gain, frame.model) == (0.02, 2.0, "simulated")


def test_half_a_turn_shows_the_card_upside_down() -> None:
    upright = _pixels(simulated(resolution=(640, 480)).capture(NOON))
    turned = _pixels(simulated(resolution=(640, 480), rotation=180).capture(NOON))

    assert (upright - turned.rot180()).abs().avg() * 2 < (upright - turned).abs().avg()


def test_zoom_shows_that_part_of_the_card() -> None:
    whole = _pixels(simulated(resolution=(640, 480)).capture(NOON))
    part = _pixels(simulated(zoom=(0.5, 0.25, 0.5, 0.5)).capture(NOON))

    assert (whole.crop(320, 120, 320, 240) - part).abs().avg() * 2 < (
        whole.crop(0, 0, 320, 240) - part
    ).abs().avg()


def _pixels(frame: Frame) -> Any:
    import pyvips

    return pyvips.Image.new_from_buffer(frame.jpeg, "")


def test_a_drawn_picture_takes_our_metadata() -> None:
    frame = simulated().capture(NOON)

    dressed = exif.dress(frame.jpeg, drawn.facts(exposure=frame.exposure, gain=frame.gain))

    assert exif.read(drawn.block_of(dressed))[0]["ISOSpeedRatings"] == 100


def test_without_libvips_the_drawing_camera_says_what_to_install_or_to_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)

    with pytest.raises(CameraError, match=r"trapsync\[libvips\].*camera.simulated.replay"):
        simulated()


def test_a_folder_is_replayed_in_the_order_of_names_over_and_over_without_libvips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["b.jpg", "a.JPG", ".hidden.jpg", "c.jpeg"]):
        drawn.put(tmp_path, drawn.plain(seed=seed), name)
    (tmp_path / "notes.txt").write_text("not a picture")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    camera = simulated(simulated=SimulatedSettings(replay=tmp_path))

    frames = [camera.capture(NOON) for _ in range(4)]

    assert [frame.jpeg for frame in frames] == [drawn.plain(seed=seed) for seed in (1, 0, 3, 1)]
    assert (frames[0].width, frames[0].height, frames[0].exposure) == (160, 120, None)


@pytest.mark.parametrize(("make", "reason"), [(True, "there is no .jpg"), (False, "No such file")])
def test_a_folder_with_nothing_to_replay_is_an_error_in_words(
    tmp_path: Path, make: bool, reason: str
) -> None:
    folder = tmp_path / "pictures"
    if make:
        folder.mkdir()

    with pytest.raises(CameraError, match=reason):
        simulated(simulated=SimulatedSettings(replay=folder))


def test_a_damaged_file_to_replay_is_named(tmp_path: Path) -> None:
    drawn.put(tmp_path, b"no picture", "a.jpg")

    with pytest.raises(CameraError, match=r"a\.jpg: not a JPEG"):
        simulated(simulated=SimulatedSettings(replay=tmp_path)).capture(NOON)


# --- The stand-in for picamera2 -----------------------------------------------------------------------------


class Job:
    """picamera2.job.Job: a future, and a time-out that raises."""

    def __init__(self, request: "Request | None") -> None:
        self.request = request

    def get_result(self, timeout: float | None = None) -> "Request":
        assert timeout is not None, "would wait for ever"
        if self.request is None:
            raise TimeoutError
        return self.request


class Request:
    """picamera2.request.CompletedRequest."""

    def __init__(self, camera: "StandIn") -> None:
        self.camera = camera
        self.is_held = True

    def get_metadata(self) -> dict[str, Any]:
        return {"ExposureTime": 66642, "AnalogueGain": 2.0, "DigitalGain": 1.25, "LensPosition": 4.5}

    def save(self, name: str, file_output: Any, format: str | None = None, exif_data: Any = None) -> None:  # noqa: A002
        if self.camera.breaks_on_save:
            raise RuntimeError("Stream 'main' is not defined")
        assert (name, format) == ("main", "jpeg")
        # The real one puts EXIF of its own there, with the Make that our servers do not take.
        file_output.write(drawn.sticky_pi_2022(make=b"Raspberry Pi"))

    def release(self) -> None:
        assert self.is_held, "lock now has negative ref_count"
        self.is_held = False


class StandIn:
    """picamera2.Picamera2, as far as a still camera needs it."""

    found: list[dict[str, Any]] = [{"Model": "imx708", "Num": 0}]  # noqa: RUF012
    failure: Exception | None = None
    last: "StandIn"

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return StandIn.found

    def __init__(
        self, camera_num: int = 0, verbose_console: Any = None, tuning: Any = None, allocator: Any = None
    ) -> None:
        if StandIn.failure is not None:
            raise RuntimeError("Camera __init__ sequence did not complete.") from StandIn.failure
        StandIn.last = self
        self.camera_properties = {"Model": "imx708", "ScalerCropMaximum": (16, 8, 4608, 2592)}
        self.camera_controls = dict.fromkeys(
            [
                "AeEnable",
                "ExposureTime",
                "AnalogueGain",
                "AwbEnable",
                "ColourGains",
                "AfMode",
                "LensPosition",
                "FrameDurationLimits",
                "ScalerCrop",
                "ScalerCrops",
            ],
            (0, 0, 0),
        )
        self.options: dict[str, Any] = {}
        self.configuration: dict[str, Any] = {}
        self.requests: list[Request] = []
        self.calls: list[str] = []
        self.is_silent = self.breaks_on_save = False

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
    ) -> dict[str, Any]:
        assert main.keys() <= {"size", "format", "preserve_ar"}, "Bad key"
        return {
            "main": main,
            "transform": transform,
            "buffer_count": buffer_count,
            "controls": dict(controls),
        }

    def configure(self, camera_config: dict[str, Any]) -> None:
        assert all(side % 2 == 0 for side in camera_config["main"]["size"]), "width and height should be even"
        self.calls.append("configure")
        self.configuration = camera_config
        self.set_controls({})

    def set_controls(self, controls: dict[str, Any]) -> None:
        for name in controls.keys() | self.configuration["controls"].keys():
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        self.configuration["controls"] |= controls

    def start(self, config: Any = None, show_preview: bool | None = False) -> None:
        self.calls.append("start")

    def capture_request(self, wait: Any = None, signal_function: Any = None, flush: Any = None) -> Job:
        assert wait is False
        # One buffer: whoever still holds a request gets no other.
        if self.is_silent or any(request.is_held for request in self.requests):
            return Job(None)
        self.requests.append(Request(self))
        return Job(self.requests[-1])

    def cancel_all_and_flush(self) -> None:
        self.calls.append("cancel")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """picamera2 and libcamera as modules; each test begins with one camera found."""
    picamera2, libcamera = types.ModuleType("picamera2"), types.ModuleType("libcamera")
    vars(picamera2)["Picamera2"] = StandIn
    vars(libcamera)["Transform"] = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    monkeypatch.setattr(StandIn, "found", [{"Model": "imx708", "Num": 0}])
    monkeypatch.setattr(StandIn, "failure", None)
    return StandIn


def opened(**changes: Any) -> Picamera:
    camera = Picamera(msgspec.structs.replace(Camera(), **changes), sleep=lambda _: None)
    camera.open()
    return camera


def controls_of(stand_in: type[StandIn]) -> dict[str, Any]:
    controls = stand_in.last.configuration["controls"]
    assert isinstance(controls, dict)
    return controls


# --- Picamera -----------------------------------------------------------------------------------------------


def test_pixels_and_metadata_come_from_one_request_which_goes_back(stand_in: type[StandIn]) -> None:
    frame = opened().capture(NOON)

    assert (frame.width, frame.height, frame.model) == (160, 120, "imx708")
    assert (frame.exposure, frame.gain, frame.lens_position) == (0.066642, 2.5, 4.5)
    assert [request.is_held for request in stand_in.last.requests] == [False]


def test_the_camera_is_configured_once_for_any_number_of_pictures(stand_in: type[StandIn]) -> None:
    camera = opened()

    for _ in range(5):
        camera.capture(NOON)

    assert stand_in.last.calls == ["configure", "start"]


def test_it_waits_for_the_exposure_to_settle(stand_in: type[StandIn]) -> None:
    waits: list[float] = []

    Picamera(Camera(settle=Duration(3)), sleep=waits.append).open()

    assert waits == [3.0]


def test_on_its_own_it_leaves_exposure_and_colours_to_the_camera(stand_in: type[StandIn]) -> None:
    opened(quality=85)

    assert stand_in.last.configuration["main"] == {"size": (4056, 3040)}
    assert stand_in.last.configuration["buffer_count"] == 1
    assert stand_in.last.configuration["transform"] == types.SimpleNamespace(hflip=False, vflip=False)
    assert stand_in.last.options["quality"] == 85
    assert controls_of(stand_in) == {"AwbEnable": True, "AfMode": 2}


def test_set_values_become_libcameras_controls_in_its_units(stand_in: type[StandIn]) -> None:
    opened(exposure=Exposure(2.5), gain=4, white_balance=(1.5, 2.0), lens_position=7.5, rotation=180)

    assert stand_in.last.configuration["transform"] == types.SimpleNamespace(hflip=True, vflip=True)
    assert controls_of(stand_in) == {
        "AeEnable": False,
        "ExposureTime": 2_500_000,
        "FrameDurationLimits": (2_500_000, 2_700_000),
        "AnalogueGain": 4.0,
        "AwbEnable": False,
        "ColourGains": (1.5, 2.0),
        "AfMode": 0,
        "LensPosition": 7.5,
    }


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
    opened(zoom=zoom, resolution=resolution)

    assert controls_of(stand_in)["ScalerCrop"] == box
    assert controls_of(stand_in)["ScalerCrops"] == [box]


def test_a_control_that_this_camera_does_not_have_is_left_out(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = StandIn.__init__

    def without_motor(self: StandIn) -> None:
        make(self)
        for name in ("AfMode", "LensPosition", "ScalerCrops"):
            del self.camera_controls[name]

    monkeypatch.setattr(StandIn, "__init__", without_motor)

    opened(lens_position=3, zoom=(0, 0, 0.5, 0.5), resolution=(4608, 2592))

    assert controls_of(stand_in).keys() == {"AwbEnable", "ScalerCrop"}


def test_a_camera_that_falls_silent_is_given_up_and_its_wait_taken_back(stand_in: type[StandIn]) -> None:
    camera = opened()
    stand_in.last.is_silent = True

    with pytest.raises(CameraError, match=r"no picture in time.*cable"):
        camera.capture(NOON)

    assert stand_in.last.calls[-1] == "cancel"


def test_a_failed_picture_gives_its_buffer_back_so_that_the_next_one_comes(stand_in: type[StandIn]) -> None:
    camera = opened()
    stand_in.last.breaks_on_save = True
    with pytest.raises(CameraError, match="Stream 'main' is not defined"):
        camera.capture(NOON)

    stand_in.last.breaks_on_save = False

    assert camera.capture(NOON).width == 160


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        (
            RuntimeError("Failed to acquire camera: Device or resource busy"),
            "another program holds the camera",
        ),
        (RuntimeError("Camera(s) not found (Do not forget to disable legacy camera)"), "check the cable"),
        (IndexError("list index out of range"), "check the cable"),
        (PermissionError(13, "Permission denied"), "group video"),
        (OSError(12, "Cannot allocate memory"), "no contiguous memory"),
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


def test_a_camera_that_cannot_be_started_is_let_go(
    stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: StandIn, camera_config: dict[str, Any]) -> None:
        raise RuntimeError("Configuration failed: {}")

    monkeypatch.setattr(StandIn, "configure", broken)

    with pytest.raises(CameraError, match="cannot be started: Configuration failed"):
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

    with pytest.raises(CameraError, match="not open"):
        camera.capture(NOON)


def test_the_encoders_own_exif_does_not_survive(stand_in: type[StandIn]) -> None:
    frame = opened().capture(NOON)

    assert b"Raspberry Pi" in frame.jpeg
    assert b"Raspberry Pi" not in exif.dress(frame.jpeg, drawn.facts())
    assert io.BytesIO(frame.jpeg).read(2) == b"\xff\xd8"
