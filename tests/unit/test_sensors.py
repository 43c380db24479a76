"""The sensors: files of the kernel's, commands of the owner's, and what befalls them."""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import drawings
from fake_time import FakeTime
from trapsync import cameras, pipeline
from trapsync.errors import SettingsError
from trapsync.hardware.gpio import Button
from trapsync.hardware.sensors import Sensors
from trapsync.image import Reading
from trapsync.jpeg.examination import examine
from trapsync.settings import config_file, schema
from trapsync.settings.schema import Camera, Storage
from trapsync.settings.schema import Sensors as Settings
from trapsync.settings.units import Size


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A /sys with a Pi's own sensor in it, which says nothing about the air."""
    put(tmp_path, "class/hwmon/hwmon0/name", "cpu_thermal")
    put(tmp_path, "class/hwmon/hwmon0/temp1_input", "61000")
    return tmp_path


def put(system: Path, file: str, content: str) -> Path:
    path = system / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")
    return path


def read(settings: Settings, system: Path, seconds: float = 5.0) -> Reading:
    """Begin, wait until all are done or the time is over, and read."""
    sensors = Sensors(settings, system)
    sensors.begin()
    settled(sensors, seconds)
    reading = sensors.reading()
    sensors.close()
    return reading


def settled(sensors: Sensors, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while any(reader.poll() is None for reader in sensors._readers.values()) and time.monotonic() < ends:
        os.sched_yield()


def wait_for(reader: Any, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while reader.poll() is None:
        assert time.monotonic() < ends


def test_an_iio_sensor_is_found_by_itself(system: Path) -> None:
    put(system, "bus/iio/devices/iio:device0/in_temp_input", "21700")
    put(system, "bus/iio/devices/iio:device0/in_humidityrelative_input", "63500")
    assert read(Settings(), system) == Reading(21.7, 63.5)


def test_an_hwmon_sensor_is_found_by_itself_and_the_processor_is_not_the_air(system: Path) -> None:
    assert read(Settings(), system) == Reading()
    put(system, "class/hwmon/hwmon1/name", "sht3x")
    put(system, "class/hwmon/hwmon1/temp1_input", "-4250")
    put(system, "class/hwmon/hwmon1/humidity1_input", "99900")
    assert read(Settings(), system) == Reading(-4.25, 99.9)


def test_a_named_file_goes_before_what_is_found_and_nothing_is_nothing(system: Path) -> None:
    put(system, "bus/iio/devices/iio:device0/in_temp_input", "21700")
    put(system, "bus/iio/devices/iio:device0/in_humidityrelative_input", "63500")
    other = put(system, "elsewhere", "3000")
    assert read(Settings(temperature=str(other), humidity=""), system) == Reading(3.0)


@pytest.mark.parametrize("key", ["battery", "battery_command"])
def test_the_battery_is_a_file_or_a_command(system: Path, key: str) -> None:
    file = put(system, "capacity", "87")
    value: Any = file if key == "battery" else ("sh", "-c", "echo 87")
    assert read(Settings(**{key: value}), system) == Reading(battery=87.0)


@pytest.mark.parametrize("content", ["", "warm", "nan", "999999", "-61000", "1" * 100])
def test_what_cannot_be_is_unknown(system: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    put(system, "bus/iio/devices/iio:device0/in_temp_input", content)
    assert read(Settings(), system) == Reading()
    assert "no temperature" in caplog.text


def test_a_sensor_that_hangs_costs_nothing_but_its_own_value(
    system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = system / "bus/iio/devices/iio:device0/in_temp_input"
    hanging.parent.mkdir(parents=True)
    os.mkfifo(hanging)
    put(system, "bus/iio/devices/iio:device0/in_humidityrelative_input", "63500")
    sensors = Sensors(Settings(), system)
    began = time.monotonic()
    for _ in range(3):
        sensors.begin()
        readers = dict(sensors._readers)
        while readers["humidity"].poll() is None:
            os.sched_yield()
        assert readers["temperature"].poll() is None
        assert sensors.reading() == Reading(humidity=63.5)
        wait_for(readers["temperature"], 5)
    assert time.monotonic() - began < 5
    assert caplog.text.count("no temperature: no answer in time") == 1
    sensors.close()


def test_a_reader_that_cannot_be_killed_is_not_joined_by_others(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = system / "bus/iio/devices/iio:device0/in_temp_input"
    hanging.parent.mkdir(parents=True)
    os.mkfifo(hanging)
    sensors = Sensors(Settings(humidity=""), system)
    with monkeypatch.context() as stuck:
        stuck.setattr(os, "killpg", lambda *_: None)
        sensors.begin()
        (first,) = sensors._readers.values()
        assert sensors.reading() == Reading()
        sensors.begin()
        assert list(sensors._readers.values()) == [first]
    sensors.close()
    wait_for(first, 5)


def test_a_sensor_that_answers_again_is_heard_and_said(
    system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = put(system, "capacity", "?")
    sensors = Sensors(Settings(battery=file), system)
    for content, battery in (("?", None), ("?", None), ("12", 12.0)):
        file.write_text(content)
        with caplog.at_level(logging.INFO):
            sensors.begin()
            settled(sensors, 5)
            assert sensors.reading() == Reading(battery=battery)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_command_that_is_not_there_is_no_reason_to_stop(
    system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(Settings(battery_command=("/no/such/meter",)), system) == Reading()
    assert "/no/such/meter: No such file" in caplog.text


def test_a_command_gets_the_signals_that_the_daemon_blocks(system: Path) -> None:
    script = "kill -TERM $$; echo 12"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        assert read(Settings(battery_command=("sh", "-c", script)), system) == Reading()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_child_of_a_command_that_lives_on_holds_nothing_up(system: Path) -> None:
    command = ("sh", "-c", "sleep 60 & [ -n '' ] || exit 0")
    began = time.monotonic()
    assert read(Settings(battery_command=command), system) == Reading()
    assert time.monotonic() - began < 30


def test_readers_leave_no_descriptor_behind(system: Path) -> None:
    hanging = system / "bus/iio/devices/iio:device0/in_temp_input"
    hanging.parent.mkdir(parents=True)
    os.mkfifo(hanging)
    put(system, "bus/iio/devices/iio:device0/in_humidityrelative_input", "63500")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        sensors = Sensors(Settings(), system)
        for _ in range(3):
            sensors.begin()
            sensors.reading()
        sensors.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('temperature = "warm"', 'sensors.temperature: must be "auto", "" or the path'),
        ('battery = "/x"\nbattery_command = ["y"]', "sensors.battery_command: there is battery as well"),
        ('read_before = "2 h"', "sensors.read_before: 2 h is not between"),
    ],
)
def test_settings_that_cannot_be_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        config_file.parse(f"[sensors]\n{text}", "trap.toml")


@pytest.fixture
def pins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """gpiozero's own pretended pins."""
    from gpiozero import Device
    from gpiozero.pins.mock import MockFactory

    monkeypatch.setattr(Device, "pin_factory", MockFactory())
    yield Device.pin_factory
    Device.pin_factory.reset()


def test_a_button_is_pressed_while_it_pulls_its_pin_down(pins: Any) -> None:
    button = Button(17)
    assert not button.is_pressed()
    pins.pin(17).drive_low()
    assert button.is_pressed()
    pins.pin(17).drive_high()
    assert not button.is_pressed()


def test_a_button_that_cannot_be_had_is_said_once_and_not_pressed(
    pins: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Button(17), Button(17)
    assert not second.is_pressed()
    assert caplog.text.count("no button: GPIO17 cannot be used") == 1
    assert not Button(None).is_pressed()
    assert not first.is_pressed()


def test_what_the_sensors_say_travels_to_the_catalog_and_what_they_do_not_say_is_left_out(
    tmp_path: Path,
) -> None:
    told = metadata(tmp_path, Reading(21.7, 63.5, 87.0, button=True))
    assert (told["temp"], told["hum"], told["bat"], told["but"]) == (21.7, 63.5, 87.0, True)
    told = metadata(tmp_path, Reading())
    assert not {"temp", "hum", "bat", "lat", "lng", "alt"} & told.keys()
    assert told["but"] is False


def metadata(folder: Path, reading: Reading) -> dict[str, Any]:
    """What stands in the catalog of an image that was taken with this reading."""
    storage = Storage(spool=folder / "spool", state=folder / "state", min_free=Size(0))
    settings = schema.Settings(storage=storage, camera=Camera(kind="simulated", resolution=(320, 240)))
    camera = cameras.make(settings.camera, drawings.DEVICE)
    path = pipeline.capture(camera, settings, drawings.DEVICE, FakeTime(), (), reading)
    image = examine(storage.spool, path)
    (storage.spool / path).unlink()
    return image.metadata
