"""How a cost is taken: several ways of doing one thing take turns, so that what else the machine does hits all."""

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Seconds of one piece of work: on the wall, and of CPU, that of processes which it waited for included."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Turns:
    """What each way cost, turn by turn."""

    costs: Mapping[str, list[Cost]]

    def figure(self, way: str, kind: str = "wall") -> float:
        """The median of one way, in seconds."""
        return float(median(getattr(cost, kind) for cost in self.costs[way]))

    def ratio(self, way: str, reference: str, kind: str = "wall") -> float:
        """The median over the turns of what one way cost, divided by what the other did in the same turn."""
        pairs = zip(self.costs[way], self.costs[reference], strict=True)
        return float(median(getattr(one, kind) / max(getattr(other, kind), 1e-9) for one, other in pairs))


def in_turns(ways: Mapping[str, Work], rounds: int, warm: bool = True) -> Turns:
    """Do each way once, not counted (`warm`), and then all of them in turn so often."""
    if warm:
        for work in ways.values():
            work()
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            gc.collect()
            costs[name].append(_cost(work))
    return Turns(costs)


def repeated(times: int, work: Work) -> Work:
    """The work, so many times over."""

    def do() -> None:
        for _ in range(times):
            work()

    return do


def _cost(work: Work) -> Cost:
    wall, cpu = time.perf_counter(), _cpu()
    work()
    return Cost(time.perf_counter() - wall, _cpu() - cpu)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_a_process(code: str, *arguments: object) -> dict[str, Any]:
    """Run Python code in a process of its own; what it prints last is JSON.

    It finds `sys.argv[1:]`, and `memory(key)`: kilobytes by a key of /proc/self/status.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY + code, *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


_MEMORY = """
import gc, json, sys
from pathlib import Path
def memory(key):
    return int(Path("/proc/self/status").read_text().partition(key + ":")[2].split()[0])
"""
