"""The sensors: temperature, humidity, battery.

The kernel knows the sensors (overlays for DHT22, BME280, SHT3x and their like): they are files below
`/sys`, in thousandths of a degree Celsius and of a per cent. To read one may take seconds, fail now and
then (a DHT22 does), or hang in the kernel for good. So each is read by a small process of its own, begun
some seconds before a picture: whatever has come by then counts, whatever has not is unknown, and a reader
that hangs costs nothing but itself.
"""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trapsync.image import Reading
from trapsync.settings.schema import Sensors as Settings

log = logging.getLogger(__name__)

_SYS = Path("/sys")
# What a DHT22 refuses once it gives on the next try; it wants two seconds between them.
_TRY_THRICE = 'for _ in 1 2 3; do cat "$0" 2>/dev/null && exit; sleep 2; done; exit 1'
# Chips that measure the air and appear as hwmon; the others there are about the machine itself.
_AIR = ("sht3x", "sht4x", "shtc1", "shtc3", "sht21", "aht10", "aht20", "hs3001", "chipcap2")
_LONGEST_ANSWER = 64  # bytes


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to be measured: the command that prints a number, its unit, and the bounds of a possible value."""

    name: str
    command: Sequence[str]
    unit: float
    least: float
    most: float


class Sensors:
    """All sensors of a trap. Call `begin` before a picture, `reading` when it is due; neither ever waits."""

    def __init__(self, settings: Settings, system: Path = _SYS) -> None:
        self._sources = sources(settings, system)
        self._lead = settings.read_before
        self._readers: dict[str, _Reader] = {}
        self._silent: set[str] = set()

    @property
    def lead(self) -> float:
        """Return how many seconds before a picture to begin; 0 where there are no sensors."""
        return float(self._lead) if self._sources else 0.0

    def begin(self) -> None:
        """Start to read each sensor. One whose last reader still hangs is left alone."""
        for source in self._sources:
            last = self._readers.get(source.name)
            if last and last.poll() is None:
                continue
            if last:
                last.close()
            try:
                self._readers[source.name] = _Reader(source.command)
            except OSError as error:
                self._tell(source, f"{source.command[0]}: {error.strerror}")

    def reading(self) -> Reading:
        """Return what was read since `begin`; a reader that has not finished is stopped, and its value is unknown."""
        values = {source.name: self._value(source) for source in self._sources}
        return Reading(values.get("temperature"), values.get("humidity"), values.get("battery"))

    def close(self) -> None:
        """Stop the readers."""
        for reader in self._readers.values():
            reader.kill()
            reader.close()

    def _value(self, source: Source) -> float | None:
        reader = self._readers.get(source.name)
        if reader is None:
            return None
        try:
            value = _answer(source, reader)
        except _Unknown as reason:
            self._tell(source, str(reason))
            return None
        finally:
            if reader.poll() is not None:
                self._readers.pop(source.name).close()
        if source.name in self._silent:
            self._silent.discard(source.name)
            log.info("the %s sensor answers again", source.name)
        return value

    def _tell(self, source: Source, reason: str) -> None:
        """Log once that a sensor fails; its images hold the mark for unknown."""
        if source.name not in self._silent:
            self._silent.add(source.name)
            log.warning("no %s: %s (%s)", source.name, reason, " ".join(source.command[-1:]))


class _Unknown(Exception):
    """Why there is no value."""


class _Reader:
    """A process that reads one sensor, in a session of its own. OSError if it cannot be started.

    The daemon's threads block the signals that its main thread waits for; a command must get those that it knows.
    `subprocess` cannot say so without running Python between fork and exec.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._code: int | None = None
        self._output, output = os.pipe()
        os.set_blocking(self._output, False)
        try:
            self._pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE,),
            )
        except BaseException:
            self.close()
            raise
        finally:
            os.close(output)

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def answer(self) -> bytes:
        """Return what it printed, once it has ended; a child of its own may still hold the pipe."""
        with suppress(BlockingIOError):
            return os.read(self._output, _LONGEST_ANSWER)
        return b""

    def kill(self) -> None:
        """Kill it, and do not wait: a process that is stuck in the kernel would take us with it."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Close its output."""
        output, self._output = self._output, -1
        if output >= 0:
            os.close(output)


def _answer(source: Source, reader: _Reader) -> float:
    code = reader.poll()
    if code is None:
        reader.kill()
        raise _Unknown("no answer in time")
    text = reader.answer()
    if code:
        raise _Unknown("it cannot be read")
    try:
        value = float(text.decode("ascii")) * source.unit
    except ValueError:
        raise _Unknown(f"its answer is no number: {text!r}") from None
    if not source.least <= value <= source.most:
        raise _Unknown(f"{value:g} cannot be")
    return value


def sources(settings: Settings, system: Path = _SYS) -> list[Source]:
    """Return the sensors of the settings that are there, those to be searched for included."""
    found = []
    for name, wanted, files, bounds in (
        ("temperature", settings.temperature, ("in_temp_input", "temp1_input"), (-60.0, 100.0)),
        ("humidity", settings.humidity, ("in_humidityrelative_input", "humidity1_input"), (0.0, 100.0)),
    ):
        path = _look_for(system, files) if wanted == "auto" else Path(wanted) if wanted else None
        if path:
            found.append(Source(name, _reader(path), 0.001, *bounds))
    if settings.battery_command:
        found.append(Source("battery", settings.battery_command, 1.0, 0.0, 100.0))
    elif settings.battery:
        found.append(Source("battery", _reader(settings.battery), 1.0, 0.0, 100.0))
    return found


def _reader(path: Path) -> Sequence[str]:
    return ("sh", "-c", _TRY_THRICE, str(path))


def _look_for(system: Path, files: Sequence[str]) -> Path | None:
    """Return the first sensor of the air that the kernel knows."""
    iio, hwmon = files
    folders: tuple[tuple[str, str, Callable[[Path], bool]], ...] = (
        ("bus/iio/devices", iio, lambda _folder: True),
        ("class/hwmon", hwmon, _measures_air),
    )
    for place, file, is_meant in folders:
        for folder in sorted((system / place).glob("*")):
            if (folder / file).exists() and is_meant(folder):
                return folder / file
    return None


def _measures_air(folder: Path) -> bool:
    with suppress(OSError):
        return (folder / "name").read_text().strip().startswith(_AIR)
    return False
