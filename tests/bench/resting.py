"""What a trap at rest costs: memory of each process, wake-ups and CPU in an idle hour, and how long commands take.

A real daemon with the simulated camera, a picture every twenty minutes, and a hub. The first picture is taken, examined
and delivered; then nothing happens, and that is measured for some minutes and scaled to an hour.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from subprocess import run

import daemon_process
import drawings
import hub_server
from bench import examining, pictures
from bench.costs import in_a_process, in_turns, repeated
from bench.receiving import Receiver, running
from bench.table import Row

_CONFIG = """\
[trap]
device = "{device}"
clock = "trusted"
[storage]
spool = "spool"
state = "state"
min_free = "1 MB"
[camera]
kind = "simulated"
resolution = {size}
[capture]
every = "20 min"
[destinations.hub]
kind = "stickypi"
url = "{url}"
username = "trap"
password_file = "password"
"""
_LISTENING = 330.0  # seconds: each job of every five minutes falls into it once
_CALM = 80.0  # seconds after the first picture until nothing of the start is left, and every part is calm
_IMAGES = 30  # that may be examined for the CPU of an idle hour
_BACKLOG = 10_000
_BARE = "import requests, sqlite3\nprint(json.dumps({'kb': memory('VmRSS')}))"


@dataclass(frozen=True)
class _Use:
    """What a process has used so far: seconds of CPU, and how often one of its threads was woken."""

    cpu: float
    wakes: int


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """Commands first, then the daemon."""
    yield from _commands(folder / "commands", rounds, warm=not tiny)
    with running(folder / "hub", "127.0.0.1", []) as receiver:
        trap = _trap(folder / "trap", receiver, pictures.TINY if tiny else pictures.FIELD)
        trap.start(TRAPSYNC_AS_ROOT="1")
        try:
            trap.until_log("captured ", 60)
            trap.until(lambda facts: facts["ledger"]["captured"] == 1)
            trap.signal(signal.SIGUSR1)  # deliver now, and not in five minutes
            trap.until_log("delivered to hub: 1")
            time.sleep(0 if tiny else _CALM)
            yield from _memory(trap.pid)
            yield from _idle(trap.pid, folder, tiny)
            yield from _backlog(trap, 5 if tiny else _BACKLOG)
        finally:
            trap.kill()


def _trap(folder: Path, receiver: Receiver, size: tuple[int, int]) -> daemon_process.Daemon:
    trap = daemon_process.Daemon(folder)
    trap.config.write_text(_CONFIG.format(device=drawings.DEVICE, url=receiver.plain, size=list(size)))
    secret = folder / "password"
    secret.write_text(hub_server.PASSWORD)
    secret.chmod(0o600)
    return trap


def _commands(folder: Path, rounds: int, *, warm: bool) -> Iterator[Row]:
    trap = daemon_process.Daemon(folder)

    def call(*arguments: str) -> None:
        run([sys.executable, *arguments], capture_output=True, check=False)

    program = ("-m", "trapsync", "-c", str(trap.config))
    ways = {
        "trapsync --help": partial(call, "-m", "trapsync", "--help"),
        "trapsync status": partial(call, *program, "status"),
        "bare": partial(call, "-c", "import requests, sqlite3"),
    }
    turns = in_turns(ways, rounds, warm)
    for way in ("trapsync --help", "trapsync status"):
        figure, bare = (1e3 * turns.figure(one, "cpu") for one in (way, "bare"))
        reference = f"import requests, sqlite3: {bare:.3g} ms"
        yield Row("rest", f"{way}, CPU", figure, "ms", reference, turns.ratio(way, "bare", "cpu"))


def _memory(parent: int) -> Iterator[Row]:
    bare = in_a_process(_BARE)["kb"] / 1e3
    limit = 60 if find_spec("numpy") else 48  # sqlite_utils imports it if it can
    size = _kilobytes(parent, "VmRSS") / 1e3
    words = f"{limit} MB (import requests, sqlite3: {bare:.3g})"
    yield Row("rest", "memory of the daemon's own process", size, "MB", words, size / limit, 1.0)
    for number, child in enumerate(sorted(_children(parent)), 1):
        size = _kilobytes(child, "VmRSS") / 1e3
        what = f"memory of child {number}: {_role(child)}"
        yield Row("rest", what, size, "MB", f"import requests, sqlite3: {bare:.3g} MB", size / bare)


def _idle(parent: int, folder: Path, tiny: bool) -> Iterator[Row]:
    source = folder / "picture.jpg"
    source.write_bytes(pictures.picture(pictures.TINY if tiny else pictures.FIELD))
    work = repeated(_IMAGES // 3, partial(examining.ours, folder, source.name, folder))
    before, began = _used(parent), time.monotonic()
    time.sleep(0.1 if tiny else _LISTENING)
    after, took = _used(parent), time.monotonic() - began
    examined = in_turns({"one": work}, 3).figure("one", "cpu") * 3
    spent = {who: 3600 / took * (use.cpu - before[who].cpu) for who, use in after.items() if who in before}
    woken = {
        who: 3600 / took * (use.wakes - before[who].wakes) for who, use in after.items() if who in before
    }
    cpu, wakes = sum(spent.values()), sum(woken.values())
    words = f"examining {_IMAGES} images, {examined:.3g} s"
    yield Row("rest", "an idle hour, CPU", cpu, "s", words, cpu / examined, 1.0)
    yield Row("rest", "an idle hour, wake-ups", wakes, "", "one a second", wakes / 3600)
    for who in sorted(spent):
        kind = "own process" if who == parent else f"child {_role(who)}"
        yield Row("rest", f"of that, CPU of the {kind}", spent[who], "s", words, spent[who] / examined)


def _backlog(trap: daemon_process.Daemon, count: int) -> Iterator[Row]:
    before = _kilobytes(trap.pid, "VmRSS") / 1e3
    content = pictures.of_bytes(20_000)
    for number in range(count):
        file = trap.folder / "waiting" / pictures.path(number, every=1)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    for place in (trap.folder / "waiting" / drawings.DEVICE).iterdir():
        shutil.move(place, trap.spool / drawings.DEVICE / place.name)
    trap.until(lambda facts: facts["ledger"]["captured"] > count, seconds=300)
    trap.signal(signal.SIGUSR1)
    trap.until(lambda facts: facts["ledger"]["delivered"] > count, seconds=600)
    peak = _kilobytes(trap.pid, "VmHWM") / 1e3
    what = f"peak of the daemon's own process, a backlog of {count:,} drained"
    yield Row("rest", what, peak, "MB", f"at rest, {before:.3g} MB", peak / before)


def _kilobytes(pid: int, key: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{key}:")[2].split()[0])


def _children(parent: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _role(pid: int) -> str:
    """What a child is, by what it has loaded."""
    if "resource_tracker" in Path(f"/proc/{pid}/cmdline").read_text():
        return "the resource tracker"
    maps = Path(f"/proc/{pid}/maps").read_text()
    return "the camera or an examiner (libvips)" if "vips" in maps else "without libvips"


def _used(parent: int) -> dict[int, _Use]:
    """By process; a descendant's threads count."""
    found = {}
    for pid in (parent, *_children(parent)):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        runs = sum(_nanoseconds(task) for task in Path(f"/proc/{pid}/task").iterdir())
        wakes = sum(_switches(task) for task in Path(f"/proc/{pid}/task").iterdir())
        found[pid] = _Use(runs / 1e9 if runs else (int(fields[11]) + int(fields[12])) / 100, wakes)
    return found


def _nanoseconds(task: Path) -> int:
    """On the CPU, by the scheduler's own account: ticks of 10 ms say nothing about short wake-ups."""
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def _switches(task: Path) -> int:
    return int((task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
