"""What may befall a child process: run there by the tests, so it must be importable there."""

import ctypes
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import drawn
from trapsync.cameras import Frame
from trapsync.errors import CameraError
from trapsync.examine import examine
from trapsync.image import Image
from trapsync.settings import Camera as CameraSettings


def look(spool: Path, path: str) -> Image:
    """Examine a file; its name says what befalls the examiner."""
    if "hang" in path:
        time.sleep(60)
    if "crash" in path:
        ctypes.string_at(0)  # a segmentation fault, as a decoder's would be
    if "greedy" in path:
        return Image(str(len(bytearray(4 << 30))), 0, "", "", 0, 0)
    if "bug" in path:
        raise ZeroDivisionError("a mistake of our own")
    return examine(spool, path)


@dataclass(frozen=True)
class StillClock:
    """A clock that stands still, in every process: the pictures of one second."""

    def monotonic(self) -> float:
        return 1000.0

    def wall(self) -> float:
        return drawn.TAKEN.timestamp() + 0.25

    def boot_id(self) -> str:
        return "5b0c0d5e-0000-4000-8000-000000000000"

    def trusted(self) -> bool:
        return True


class Camera:
    """A camera whose n-th picture goes as the n-th word of the file `script` in the current folder says."""

    def __init__(self, settings: CameraSettings, device: str) -> None:
        self._script = Path(os.environ["CAMERA_SCRIPT"])
        self._opened = 0

    def open(self) -> None:
        self._opened += 1

    def capture(self, moment: datetime) -> Frame:
        word, *rest = self._script.read_text().split()
        self._script.write_text(" ".join(rest))
        if word == "hang":
            time.sleep(60)
        if word == "die":
            os._exit(3)
        if word == "fail":
            raise CameraError("the cable is loose")
        return Frame(drawn.plain(), 160, 120, f"opened {self._opened} pid {os.getpid()}")

    def close(self) -> None:
        pass


def make(settings: CameraSettings, device: str) -> Camera:
    """What the camera process is given in place of `cameras.make`."""
    return Camera(settings, device)
