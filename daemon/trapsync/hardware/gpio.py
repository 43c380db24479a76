"""The pins of the Pi's header: the one door to gpiozero.

gpiozero comes from the system (`apt install python3-gpiozero python3-lgpio`) or with the extra `gpio`, and is
loaded only where a pin is set. Pins are named by their BCM number, as in `GPIO17`.
"""

import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from trapsync.errors import GpioError

log = logging.getLogger(__name__)

_PIPES = "LG_WD"  # the variable by which lgpio is told where to make its pipe
_NOT_INSTALLED = "gpiozero is missing: run `sudo apt install python3-gpiozero python3-lgpio`"


class Output:
    """A pin that is switched on and off; off to begin with. GpioError when it is not to be had.

    `active_high` says which level is "on". When its process ends, however it does, the kernel takes the pin
    back; most then float, and what hangs on them goes off by its own pull-down.
    """

    def __init__(self, pin: int, *, active_high: bool = True) -> None:
        self._device = _made(pin, "OutputDevice", active_high=active_high, initial_value=False)

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


class Button:
    """A button between a pin and ground, held up by the Pi's own resistor; without a pin there is none.

    It is no reason to miss a picture: one that cannot be read is not pressed, and that is said once.
    """

    def __init__(self, pin: int | None) -> None:
        self._device: Any = None
        try:
            if pin is not None:
                self._device = _made(pin, "InputDevice", pull_up=True)
        except GpioError as error:
            log.error("no button: %s", error)

    def is_pressed(self) -> bool:
        """Whether somebody holds it down now."""
        with suppress(Exception):  # each of gpiozero's pin factories has errors of its own
            return self._device is not None and bool(self._device.is_active)
        return False


def pipe_folder() -> Path | None:
    """A folder of this account's alone in which lgpio makes a pipe as it is imported; None where there can be none.

    Its own choice is the current folder, which is `/` in a service, and read-only.
    """
    folder = Path(os.environ.get(_PIPES) or Path(tempfile.gettempdir(), f"trapsync-gpio-{os.geteuid()}"))
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if is_ours else None


def _made(pin: int, kind: str, **options: Any) -> Any:
    try:
        import gpiozero
    except ImportError as error:
        raise GpioError(f"{_NOT_INSTALLED} ({error})") from None
    before = Path.cwd()
    if folder := pipe_folder():
        os.environ[_PIPES] = str(folder)
    try:
        return getattr(gpiozero, kind)(pin, **options)
    except Exception as error:  # each of its pin factories has errors of its own
        words = " ".join(str(error).split()) or type(error).__name__
        raise GpioError(
            f"GPIO{pin} cannot be used ({words}): is another program using it, "
            f"and is the daemon's user in the group gpio?"
        ) from error
    finally:
        os.chdir(before)  # lgpio goes into its folder
