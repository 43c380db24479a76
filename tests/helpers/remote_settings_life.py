"""Remote settings killed on the way from one state to the next: `python remote_settings_life.py FOLDER STEP KILLS`.

A process of its own, because it forks: each child takes the one step and dies at a failpoint, and its parent
looks at what is left, and then lets life go on. One line of JSON for each kill.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import signed
from fake_time import FakeTime
from trapsync.files import failpoint
from trapsync.remote import record
from trapsync.remote.in_force import load, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files

OLD, NEW = {"every": 360.0, "quality": 85}, {"every": 300.0, "quality": 70}
FIRST = signed.settings(1, {"capture": {"every": "6 min"}, "camera": {"quality": 85}})
SECOND = signed.settings(2, {"capture": {"every": "5 min"}, "camera": {"quality": 70}})
# Where a file is replaced: each of these may be the last that happens.
PLACES = ("write: written", "write: flushed", "write: renamed", "folder: flushed", "write: done")
# How many files a step replaces: what refuses replays comes first, where it changes.
FILES = {"taken": 2}


def before() -> dict[str, Any]:
    """How the trap is when settings come."""
    return {"pictures": True, "open": [], "home": False, "bytes_a_day": 0.0}


Act = Callable[[RemoteSettings], object]
STEPS: dict[str, tuple[list[Act], Act]] = {
    "taken": ([], lambda trap: trap.accept(SECOND, before)),
    "first start": ([lambda trap: trap.accept(SECOND, before)], lambda trap: trap.begin()),
    "second start": (
        [lambda trap: trap.accept(SECOND, before), lambda trap: trap.begin()],
        lambda trap: trap.begin(),
    ),
    "third start": (
        [lambda trap: trap.accept(SECOND, before), lambda trap: trap.begin(), lambda trap: trap.begin()],
        lambda trap: trap.begin(),
    ),
    "kept": (
        [lambda trap: trap.accept(SECOND, before), lambda trap: trap.begin()],
        lambda trap: trap.commit(),
    ),
    "undone": (
        [lambda trap: trap.accept(SECOND, before), lambda trap: trap.begin()],
        lambda trap: trap.roll_back("camera", "dark"),
    ),
}


def prepare(folder: Path, step: str) -> Path:
    """A trap that has kept the first document, right before the step; its config file."""
    source = signed.prepare(folder)
    trap = RemoteSettings(Files(source), FakeTime(signed.ISSUED.timestamp()))
    for act in (
        lambda one: one.accept(FIRST, before),
        lambda one: one.begin(),
        lambda one: one.commit(),
        *STEPS[step][0],
    ):
        act(trap)
    return source


def kill(source: Path, step: str, place: str) -> bool:
    """Take the step in a child that dies there; whether it did."""
    child = os.fork()
    if child == 0:
        failpoint.hit = failpoint._Armed(place)
        STEPS[step][1](RemoteSettings(Files(source), FakeTime(signed.ISSUED.timestamp())))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def found(source: Path) -> dict[str, Any]:
    """The settings in force now."""
    settings = load(source).settings
    return {"every": float(settings.capture.every), "quality": settings.camera.quality}


def go_on(source: Path) -> dict[str, Any]:
    """Life goes on: the document comes again, the daemon starts, and the trial ends well if there is one."""
    trap = RemoteSettings(Files(source), FakeTime(signed.ISSUED.timestamp()))
    code = trap.accept(SECOND, before).code
    trap.begin()
    trap.commit()
    return {"code": code, "state": report(load(source))["state"], "in_force": found(source)}


def main(folder: Path, step: str, kills: int) -> None:
    """So many kills, each on a trap of its own."""
    prepare(folder / "template", step)
    for number in range(kills):
        trap = folder / str(number)
        shutil.copytree(folder / "template", trap)
        source = trap / "trapsync.toml"
        file = 1 + number // len(PLACES) % FILES.get(step, 1)
        was_killed = kill(source, step, f"{PLACES[number % len(PLACES)]}#{file}")
        state = record.read(trap / "state").state
        line = {"killed": was_killed, "state": state, "in_force": found(source), "then": go_on(source)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
