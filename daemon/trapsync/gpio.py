"""The pins of the Pi's header: the one door to gpiozero.

gpiozero comes from the system (`apt install python3-gpiozero python3-lgpio`) or with the extra `gpio`, and is
loaded only where a pin is set. Pins are named by their BCM number, as in `GPIO17`.
"""

from typing import Any

from trapsync.errors import GpioError

_NOT_INSTALLED = (
    "gpiozero is missing: run `sudo apt install python3-gpiozero python3-lgpio`, "
    "or `pip install 'trapsync[gpio]'`"
)


class Output:
    """A pin that is switched on and off; off to begin with. GpioError when it is not to be had.

    `active_high` says which level is "on". When its process ends, however it does, the kernel takes the pin
    back; most then float, and what hangs on them goes off by its own pull-down.
    """

    def __init__(self, pin: int, *, active_high: bool = True) -> None:
        self._name = f"GPIO{pin}"
        self._device = self._made(pin, active_high)

    def _made(self, pin: int, active_high: bool) -> Any:
        try:
            from gpiozero import OutputDevice
        except ImportError as error:
            raise GpioError(f"{_NOT_INSTALLED} ({error})") from None
        try:
            return OutputDevice(pin, active_high=active_high, initial_value=False)
        except Exception as error:  # each of its pin factories has errors of its own
            words = " ".join(str(error).split()) or type(error).__name__
            raise GpioError(
                f"{self._name} cannot be used ({words}): is another program using it, "
                f"and is the daemon's user in the group gpio?"
            ) from error

    def on(self) -> None:
        """Switch it on."""
        self._device.on()

    def off(self) -> None:
        """Switch it off; also when it is off."""
        self._device.off()

    def close(self) -> None:
        """Switch it off and give the pin back. May be called twice."""
        if not self._device.closed:
            self._device.off()
            self._device.close()
