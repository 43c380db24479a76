"""What the doctor knows of the machine: the kernel's files, and the answers of other programs within a timeout.

All files are read below one root, so that a test can simulate any Raspberry Pi.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 10.0  # seconds
_LONGEST = 64 * 1024  # bytes of a file of the kernel's

Ask = Callable[[Sequence[str]], str | None]


def ask(command: Sequence[str]) -> str | None:
    """Return what a command prints, errors included; None if there is no such command, or no answer in time."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, or a simulated one: another root, other answers."""

    root: Path = Path("/")
    ask: Ask = ask

    def at(self, path: str) -> Path:
        """A place below the root."""
        return self.root / path.lstrip("/")

    def some(self, pattern: str) -> list[Path]:
        """The paths that match a pattern, sorted."""
        with suppress(OSError):
            return sorted(self.root.glob(pattern.lstrip("/")))
        return []

    def read(self, path: Path | str) -> str:
        """The content of a small file, stripped; empty if it cannot be read."""
        try:
            with (self.at(path) if isinstance(path, str) else path).open("rb") as file:
                return file.read(_LONGEST).decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            return ""

    def number(self, path: Path | str, base: int = 10) -> int | None:
        """The number in a small file; None if there is none."""
        try:
            return int(self.read(path), base)
        except ValueError:
            return None

    @property
    def is_pi(self) -> bool:
        """Whether it is a Raspberry Pi."""
        return "Raspberry Pi" in self.read("/proc/device-tree/model")

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs here."""
        return self.at("/run/systemd/system").is_dir()

    def properties(self, *units: str) -> Mapping[str, str]:
        """The properties of a systemd unit, or of systemd itself; empty without systemd."""
        if not self.has_systemd:
            return {}
        lines = (self.ask(("systemctl", "--no-pager", "show", *units)) or "").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
