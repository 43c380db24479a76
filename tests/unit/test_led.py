"""The light: its code, when it shines, and what befalls it. The pins are gpiozero's own pretended ones."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import daemon_process
from fake_time import FakeTime
from trapsync.errors import CatalogError, SettingsError
from trapsync.hardware import usb_stick
from trapsync.hardware.led import Led, LedState, pattern
from trapsync.settings import config_file
from trapsync.settings.schema import Led as Settings
from trapsync.settings.units import Duration


@pytest.fixture
def pins() -> Iterator[Any]:
    from gpiozero import Device
    from gpiozero.pins.mock import MockFactory

    before = Device.pin_factory
    Device.pin_factory = MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = before


def shown(
    pins: Any, word: Callable[[], str], seconds: float, *, active_high: bool = True, off_after: float = 600
) -> list[tuple[bool, float]]:
    """What is to be seen in so many seconds: light or dark, and how long."""
    time, seen = FakeTime(), list[tuple[bool, float]]()
    end = time.monotonic() + seconds

    def wait(length: float) -> bool:
        is_lit = bool(pins.pin(27).state) is active_high
        so_far = seen.pop()[1] if seen and seen[-1][0] == is_lit else 0.0
        seen.append((is_lit, round(so_far + length, 3)))
        time.sleep(length)
        return time.monotonic() >= end

    settings = Settings(pin=27, active_high=active_high, off_after=Duration(off_after))
    led = Led(settings, time, word, wait)
    led.steady()
    led.run()
    led.close()
    return seen


@pytest.mark.parametrize(("word", "blinks"), [("ok", 1), ("warning", 2), ("failing", 3)])
def test_it_blinks_for_the_verdict_every_five_seconds_and_is_dark_in_between(
    pins: Any, word: str, blinks: int
) -> None:
    seen = shown(pins, lambda: word, 9.9)
    assert [lit for lit, _ in seen] == [True, False] * blinks * 2
    assert sum(pattern(word)) == pytest.approx(5.0)
    assert sum(length for lit, length in seen if lit) == pytest.approx(0.2 * blinks)


def test_it_is_bright_for_the_shortest_part_of_the_time_but_for_a_stick() -> None:
    share = {
        word: sum(pattern(word)[::2]) / sum(pattern(word)) for word in ("ok", "failing", "writing", "done")
    }
    assert share["failing"] < 0.07
    assert share["writing"] == pytest.approx(0.5)
    assert share["done"] >= 0.7


def test_it_is_steady_until_there_is_a_verdict(pins: Any) -> None:
    assert {lit for lit, _ in shown(pins, lambda: "starting", 20)} == {True}


@pytest.mark.parametrize("active_high", [True, False])
def test_after_a_while_it_stays_dark_so_that_no_moth_comes(pins: Any, active_high: bool) -> None:
    seen = shown(pins, lambda: "failing", 60, active_high=active_high, off_after=10)
    assert seen[-1][0] is False
    assert seen[-1][1] > 45
    assert seen[0] == (True, 0.1)


def test_a_stick_is_told_of_however_late_it_is(pins: Any) -> None:
    words = iter(["ok"] * 8 + ["done"] * 1000)
    seen = shown(pins, lambda: next(words), 60, off_after=10)
    assert {(True, 2.0), (False, 0.5)} <= set(seen[-4:])


def test_it_never_stays_dark_where_that_is_wanted(pins: Any) -> None:
    assert max(length for _, length in shown(pins, lambda: "ok", 3600, off_after=0)) < 5


def test_woken_it_shines_again(pins: Any) -> None:
    time = FakeTime()
    led = Led(Settings(pin=27, off_after=Duration(10)), time, lambda: "ok", lambda _seconds: True)
    led.steady()
    led.run()
    time.sleep(11)
    assert led._is_dark("ok")
    led.wake()
    assert not led._is_dark("ok")


def test_a_light_that_cannot_be_had_or_fails_is_said_once_and_stops_nothing(
    pins: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    first = Led(Settings(pin=27), FakeTime(), lambda: "ok", lambda _seconds: True)
    first.steady()
    second = Led(Settings(pin=27), FakeTime(), lambda: "ok", lambda _seconds: False)
    second.steady()
    second.run()
    assert caplog.text.count("no LED: GPIO27 cannot be used") == 1
    first._lamp._device.close()  # type: ignore[union-attr]
    first.run()
    first.steady()
    assert caplog.text.count("no LED") == 2


def test_without_a_pin_there_is_none() -> None:
    led = Led(Settings(), FakeTime(), lambda: "ok", lambda _seconds: False)
    led.steady()
    led.run()
    led.close()
    assert not led.is_set


def test_its_pin_is_nobody_elses() -> None:
    with pytest.raises(SettingsError, match=r"led.pin: 17 is that of camera.flash already"):
        config_file.parse("[led]\npin = 17\n[camera.flash]\npin = 17\n", "trap.toml")
    with pytest.raises(SettingsError, match=r"led.pin: 28 is not between 0 and 27"):
        config_file.parse("[led]\npin = 28\n", "trap.toml")


def test_only_known_words_about_a_stick_are_believed(tmp_path: Path) -> None:
    assert usb_stick.word(tmp_path / "word") is None
    for written, read in (
        ("done\n", "done"),
        ("writing", "writing"),
        ("rm -rf /", None),
        ("\xff" * 100, None),
    ):
        (tmp_path / "word").write_text(written)
        assert usb_stick.word(tmp_path / "word") == read


@pytest.mark.parametrize(("pins_are", "complaints"), [("mock", 0), ("none of these", 1)])
def test_the_real_daemon_has_it_or_says_once_why_not_and_goes_on(
    tmp_path: Path, pins_are: str, complaints: int
) -> None:
    trap = daemon_process.Daemon(tmp_path / "trap", "[led]\npin = 27\n")
    trap.start("--verbose", GPIOZERO_PIN_FACTORY=pins_are)
    try:
        trap.until_log("watching over")
        trap.signal(signal.SIGUSR1)
        assert trap.stop() == 0
    finally:
        if trap.poll() is None:
            trap.kill()
    assert trap.text().count("no LED: ") == complaints, trap.text()
    assert "Traceback" not in trap.text()


@pytest.mark.parametrize(
    ("stick_says", "shown"),
    [(None, "warning"), ("writing", "writing"), ("done", "done"), ("failed", "failing")],
)
def test_a_stick_goes_before_the_verdict(
    monkeypatch: pytest.MonkeyPatch, stick_says: str | None, shown: str
) -> None:
    monkeypatch.setattr("trapsync.hardware.usb_stick.word", lambda: stick_says)
    assert LedState(FakeTime(), lambda: "warning")() == shown


def test_the_verdict_is_looked_at_now_and_then_and_the_last_one_goes_on_where_it_cannot_be() -> None:
    time, verdicts = FakeTime(), iter(["ok", "failing"])

    def verdict() -> str:
        try:
            return next(verdicts)
        except StopIteration:
            raise CatalogError("the catalog cannot be read") from None

    word, said = LedState(time, verdict), []
    for _ in range(5):
        said.append(word())
        time.sleep(15)
    assert said == ["ok", "ok", "failing", "failing", "failing"]
