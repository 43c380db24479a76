"""What is written to the card beside the images: bytes, flushes and commits for each.

From picture to mark, in one process whose writes the kernel counts and whose flushes strace does. Twice: a trap with
time, each image by itself, and a backlog, in handfuls.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import external_programs
from bench.table import Row

_HANDFUL = 32  # as many as the daemon examines and commits together
_OF_AN_IMAGE = 2  # flushes: its own, and its folder's


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """One by one, and in a burst."""
    del rounds  # these are counts: they do not depend on the moment
    for what, at_once in (("in a burst", _HANDFUL), ("one by one", 1))[: 1 if tiny else 2]:
        count = 2 if tiny else 2 * _HANDFUL
        flushes, facts = _watched(folder / f"{at_once}", count, at_once)
        before, _ = _watched(folder / f"{at_once}-none", 0, at_once)  # of the start alone

        own = facts["own"] + facts["copies"]
        extra = facts["written"] - own
        kind = f"{what}: bytes beyond the image and its small copies"
        yield Row("card", kind, extra / count / 1e3, "kB per image", "their bytes", extra / own, 0.02)
        if flushes is not None and before is not None:
            each = (flushes - before - _OF_AN_IMAGE * count) / count
            yield Row("card", f"{what}: flushes beyond its own two", each, "per image", "one", each, 3.0)
        commits = facts["commits"] / count
        yield Row("card", f"{what}: transactions", commits, "per image", "one", commits)


def _watched(folder: Path, count: int, at_once: int) -> tuple[float | None, dict[str, int]]:
    """The flushes, if strace is there, and what the program says."""
    folder.mkdir(parents=True)
    strace, log = external_programs.find("strace"), folder / "flushes"
    watch = [strace, "-f", "-e", "trace=fsync,fdatasync", "-o", str(log)] if strace else []
    command = [*watch, sys.executable, "-m", "bench.writing", str(folder / "trap"), str(count), str(at_once)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    facts = json.loads(done.stdout)
    if not strace:
        print("card: NOT MEASURED: flushes; there is no strace", file=sys.stderr)
        return None, facts
    return len(re.findall(r"f(?:data)?sync\(", log.read_text())), facts
