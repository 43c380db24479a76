"""The camera: its software, what is connected, and other programs that use it."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path

from trapsync import cameras
from trapsync.destinations import Finding
from trapsync.doctor.machine import Machine
from trapsync.settings.schema import Settings
from trapsync.trap import holder

# `rpicam-hello --list-cameras` prints "0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/...)", then the modes, each
# as "1536x864 [120.13 fps - (768, 432)/3072x1728 crop]".
_CAMERA = re.compile(r"^\d+ : (\S+) \[(\d+x\d+)", re.MULTILINE)
_MODE = re.compile(r"(\d+x\d+) \[[\d.]+ fps")
_PICAMERA2 = (
    "import json; from picamera2 import Picamera2; "
    "print(json.dumps([one['Model'] for one in Picamera2.global_camera_info()]))"
)
_DEVICES = re.compile(r"/dev/(media|video|v4l-subdev)\d+$")
# Programs that people run on a Pi and that keep its camera; not every user may see their open files.
_LIKELY = re.compile(
    r"(rpicam|libcamera)-\S*|raspi(still|vid|mjpeg)|motion\S*|mjpg_streamer|mediamtx|camera-streamer"
)


def camera(settings: Settings, machine: Machine) -> list[Finding]:
    """Check the camera, and other programs that use it."""
    kind = settings.camera.kind
    if kind == "none":
        return [_finding("warning", "none: only files that others put into the spool are delivered")]
    if text := cameras.missing(settings.camera):
        return [_finding("failing", text)]
    if kind == "simulated":
        return [_finding("warning", 'simulated: these are no real pictures; set camera.kind = "picamera"')]
    if holder(settings.storage.state):
        return [_finding("ok", "in use by the daemon; for its pictures see: trapsync status")]
    return [_seen(machine), *_others(machine)]


def _finding(verdict: str, text: str) -> Finding:
    return Finding(verdict, "camera", text)


def _seen(machine: Machine) -> Finding:
    """Ask libcamera in a process of its own, for it may hang."""
    answers = [machine.ask((name, "--list-cameras")) for name in ("rpicam-hello", "libcamera-hello")]
    text = next((answer for answer in answers if answer and "vailable" in answer), "")
    cameras = [f"{name}, {size}" for name, size in _CAMERA.findall(text)]
    modes = sorted(set(_MODE.findall(text)), key=lambda mode: int(mode.split("x")[0]))
    if not text:
        answer = machine.ask((sys.executable, "-I", "-c", _PICAMERA2))
        if answer is None:
            return _finding(
                "failing",
                "libcamera does not answer: it hangs; reboot, and see: sudo dmesg | grep -i -e imx -e unicam",
            )
        with suppress(ValueError, IndexError):
            cameras = json.loads(answer.splitlines()[-1])
    if not cameras:
        return _finding(
            "failing",
            "none is connected: power off and check both ends of the flat cable (contacts towards the board); "
            "for a camera that is not Raspberry Pi's own, name it in /boot/firmware/config.txt",
        )
    return _finding("ok", "; ".join(cameras) + (f"; modes {', '.join(modes)}" if modes else ""))


def _others(machine: Machine) -> list[Finding]:
    """Find programs that have the camera open, as far as this user may see, or will by their name."""
    found = []
    for folder in machine.some("/proc/[0-9]*"):
        name = machine.read(folder / "comm")
        if _holds_camera(folder) or _LIKELY.fullmatch(name):
            found.append(
                _finding(
                    "failing",
                    f"{name} (process {folder.name}) uses it, or will: only one program can; stop it, "
                    f"and keep it from starting: sudo systemctl disable --now {name}",
                )
            )
    return found


def _holds_camera(process: Path) -> bool:
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                if _DEVICES.search(str(link.readlink())):
                    return True
    return False
