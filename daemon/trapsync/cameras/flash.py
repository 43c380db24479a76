"""The flash: a lamp on a pin that is on only while a picture is taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trapsync.errors import CameraError, GpioError
from trapsync.hardware.gpio import Output
from trapsync.settings.schema import Flash as FlashSettings


class Flash:
    """The lamp of `camera.flash`; without a pin there is none, and all of this does nothing.

    `sleep` waits while it warms up.
    """

    def __init__(self, settings: FlashSettings, sleep: Callable[[float], None]) -> None:
        self._settings = settings
        self._sleep = sleep
        self._lamp: Output | None = None

    @property
    def is_set(self) -> bool:
        """Return whether there is a flash."""
        return self._settings.pin is not None

    def open(self) -> None:
        """Take the pin, and switch off what an earlier process may have left on. CameraError if it cannot."""
        if self._settings.pin is None or self._lamp is not None:
            return
        try:
            self._lamp = Output(self._settings.pin, active_high=self._settings.active_high)
        except GpioError as error:
            raise CameraError(f"camera.flash: {error}") from error

    @contextmanager
    def lit(self) -> Iterator[None]:
        """Keep it on, already warm, until the end or `off`, whatever happens in between."""
        try:
            if self._lamp is not None:
                self._lamp.on()
                self._sleep(float(self._settings.warm_up))
            yield
        finally:
            self.off()

    def off(self) -> None:
        """Switch it off: the exposure is over."""
        if self._lamp is not None:
            self._lamp.off()

    def close(self) -> None:
        """Switch it off, and release the pin."""
        lamp, self._lamp = self._lamp, None
        if lamp is not None:
            lamp.close()


def switch_off(settings: FlashSettings) -> None:
    """Switch off what a process that was killed may have left on."""
    flash = Flash(settings, sleep=lambda _seconds: None)
    flash.open()
    flash.close()
