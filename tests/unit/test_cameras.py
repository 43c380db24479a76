"""The camera that draws, as people will use it; and what all cameras have in common."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import drawings
from fake_time import FakeTime
from trapsync import cameras, pipeline
from trapsync.cameras import Frame
from trapsync.cameras.simulated import SimulatedCamera, card
from trapsync.errors import CameraError
from trapsync.jpeg import exif, structure
from trapsync.settings.schema import Camera, Settings, Storage
from trapsync.settings.schema import SimulatedCamera as SimulatedSettings
from trapsync.settings.units import Exposure, Size

NOON = datetime(2026, 6, 22, 12, 0, tzinfo=UTC)
SMALL = Camera(kind="simulated", resolution=(320, 240))


def simulated(**changes: Any) -> SimulatedCamera:
    camera = SimulatedCamera(msgspec.structs.replace(SMALL, **changes), drawings.DEVICE)
    camera.open()
    return camera


def insects(moment: datetime) -> int:
    return card(SMALL, drawings.DEVICE, moment).count('<g transform="translate(')


# --- Simulated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["picamera", "simulated"])
def test_the_kind_that_is_set_is_made(kind: str) -> None:
    camera = cameras.make(msgspec.structs.replace(SMALL, kind=kind), drawings.DEVICE)

    assert type(camera).__name__.lower().startswith(kind)


def test_the_clock_is_read_when_the_camera_is_ready_and_not_before(tmp_path: Path) -> None:
    time = FakeTime(NOON.timestamp())

    class Slow(SimulatedCamera):
        @contextmanager
        def ready(self) -> Iterator[None]:
            time.sleep(7)
            yield

    storage = Storage(spool=tmp_path, state=tmp_path / "state", min_free=Size(0))
    settings = Settings(storage=storage, camera=SMALL)

    path = pipeline.capture(Slow(SMALL, drawings.DEVICE), settings, drawings.DEVICE, time)

    assert path.endswith("2026-06-22_12-00-07.jpg")


def test_no_camera_is_an_error_in_words() -> None:
    with pytest.raises(CameraError, match="no camera"):
        cameras.make(Camera(kind="none"), drawings.DEVICE)


@pytest.mark.parametrize("size", [(64, 64), (333, 251), (1920, 1080), (4056, 3040)])
def test_a_drawn_picture_has_exactly_the_resolution_that_is_set(size: tuple[int, int]) -> None:
    frame = simulated(resolution=size).capture(NOON)

    header = structure.header(frame.jpeg)
    assert (header.width, header.height) == (frame.width, frame.height) == size
    assert frame.jpeg.endswith(structure.END_OF_IMAGE)


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
        return {
            part[:14] for part in card(SMALL, drawings.DEVICE, moment).split('<g transform="translate(')[1:]
        }

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

    dressed = exif.embed_metadata(frame.jpeg, drawings.facts(exposure=frame.exposure, gain=frame.gain))

    assert exif.read(drawings.block_of(dressed))[0]["ISOSpeedRatings"] == 100


def test_without_libvips_the_drawing_camera_says_what_to_install_or_to_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)

    with pytest.raises(CameraError, match=r"pipx inject trapsync pyvips.*camera.simulated.replay"):
        simulated()


def test_a_folder_is_replayed_in_the_order_of_names_over_and_over_without_libvips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["b.jpg", "a.JPG", ".hidden.jpg", "c.jpeg"]):
        drawings.put(tmp_path, drawings.plain(seed=seed), name)
    (tmp_path / "notes.txt").write_text("not a picture")
    monkeypatch.setitem(sys.modules, "pyvips", None)
    camera = simulated(simulated=SimulatedSettings(replay=tmp_path))

    frames = [camera.capture(NOON) for _ in range(4)]

    assert [frame.jpeg for frame in frames] == [drawings.plain(seed=seed) for seed in (1, 0, 3, 1)]
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
    drawings.put(tmp_path, b"no picture", "a.jpg")

    with pytest.raises(CameraError, match=r"a\.jpg: not a JPEG"):
        simulated(simulated=SimulatedSettings(replay=tmp_path)).capture(NOON)
