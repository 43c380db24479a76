"""The LED: shows how the trap is to a person in front of it.

::

    one short blink every five seconds     ok
    two                                    a warning: look at `trapsync status`
    three                                  failing
    flickering                             writing to a stick: do not pull it
    long light, short dark                 all is on the stick: it is safe to pull
    steady                                 starting or stopping

Between blinks it is dark, and after a while it stays dark: light costs energy, and attracts moths.
"""

import logging
from collections.abc import Callable
from contextlib import suppress

from trapsync.clock import Clock
from trapsync.errors import TrapsyncError
from trapsync.hardware import usb_stick
from trapsync.hardware.gpio import Output
from trapsync.settings.schema import Led as Settings

log = logging.getLogger(__name__)

_ROUND = 5.0  # seconds
_BLINK, _GAP = 0.1, 0.3
_STEADY = (1.0,)
_LOOK_AGAIN = 20.0  # seconds between two looks at the verdict
_DARK = 2.0  # seconds between two looks whether it is to be lit again

Pattern = tuple[float, ...]


def _blinks(times: int) -> Pattern:
    ends = _ROUND - times * _BLINK - (times - 1) * _GAP
    return (*(_BLINK, _GAP) * (times - 1), _BLINK, round(ends, 3))


# Seconds of light and dark in turns.
_PATTERNS: dict[str, Pattern] = {
    "ok": _blinks(1),
    "warning": _blinks(2),
    "failing": _blinks(3),
    "writing": (0.1, 0.1) * 5,
    "done": (2.0, 0.5),
}


def pattern(state: str) -> Pattern:
    """Return seconds of light and dark in turns: one round for a state; steady light for an unknown one."""
    return _PATTERNS.get(state, _STEADY)


class LedState:
    """What the LED shows: how a USB stick is being written, or else the verdict, which is read now and then.

    `verdict` returns the present verdict; where it fails, the last one stays.
    """

    def __init__(self, clock: Clock, verdict: Callable[[], str]) -> None:
        self._clock = clock
        self._look = verdict
        self._verdict, self._look_again = "starting", 0.0

    def __call__(self) -> str:
        """Return the state, as `pattern` takes it."""
        if word := usb_stick.word():
            return "failing" if word == "failed" else word
        if self._clock.monotonic() >= self._look_again:
            self._look_again = self._clock.monotonic() + _LOOK_AGAIN
            with suppress(TrapsyncError, OSError):
                self._verdict = self._look()
        return self._verdict


class Led:
    """The LED of [led]; without a pin there is none, and all of this does nothing.

    `state` returns what to show, as `pattern` takes it. `wait` waits so many seconds and returns whether to end. An LED
    that fails costs no picture; it is logged once.
    """

    def __init__(
        self, settings: Settings, clock: Clock, state: Callable[[], str], wait: Callable[[float], bool]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._state = state
        self._wait = wait
        self._lamp: Output | None = None
        self._is_given_up = False
        self._shines_until = 0.0

    @property
    def is_set(self) -> bool:
        """Return whether there is an LED."""
        return self._settings.pin is not None

    def wake(self) -> None:
        """Show the state for a while from now on: a person is there."""
        self._shines_until = self._clock.monotonic() + self._settings.off_after

    def steady(self) -> None:
        """Light it steadily, for starting or stopping, until something else is shown or the process ends."""
        if self._is_given_up:
            return
        try:
            if self._lamp is None and self._settings.pin is not None:
                self._lamp = Output(self._settings.pin, active_high=self._settings.active_high)
            if self._lamp:
                self._lamp.on()
        except Exception as error:  # a GpioError, or one of the pin factories' own
            self._give_up(error)

    def run(self) -> None:
        """Show the state, until the end."""
        self.wake()
        try:
            while self._lamp and not self._round(self._lamp):
                pass
        except Exception as error:  # each of gpiozero's pin factories has errors of its own
            self._give_up(error)

    def _round(self, lamp: Output) -> bool:
        """Show one round of the pattern; return True at the end."""
        state = self._state()
        if self._is_dark(state):
            lamp.off()
            return self._wait(_DARK)
        for number, seconds in enumerate(pattern(state)):
            (lamp.off if number % 2 else lamp.on)()
            if self._wait(seconds):
                return True
        return False

    def _is_dark(self, state: str) -> bool:
        """Return whether it is dark by now; never while a person waits for a stick."""
        if not self._settings.off_after or state in {"writing", "done"}:
            return False
        return self._clock.monotonic() >= self._shines_until

    def _give_up(self, error: Exception) -> None:
        self._is_given_up = True
        log.error("no LED: %s", error)

    def close(self) -> None:
        """Switch it off, and release the pin."""
        lamp, self._lamp = self._lamp, None
        with suppress(Exception):
            if lamp:
                lamp.close()
