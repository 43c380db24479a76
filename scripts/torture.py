"""Kill the daemon a thousand times under faults, then take a hundred thousand pictures in scaled time.

With --failpoints also kill the program five times at each durable step, each on a trap of its own.
"""

import argparse
import tempfile
import time
from pathlib import Path

import failpoints
import hub_server
import soak
from fault_server import FaultServer, Forwarding
from kills import Torment

_KILLS = 100  # on one trap; then another


def main() -> None:
    """Do what was asked for; ends with an AssertionError where a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="of the daemon (default 1000)")
    parser.add_argument(
        "--hours",
        type=float,
        default=28.0,
        metavar="H",
        help="of the trap's time, at a picture a second (default 28: 100,800 pictures)",
    )
    parser.add_argument(
        "--failpoints", action="store_true", help="kill it five times at each durable step, too"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is left to chance")
    asked = parser.parse_args()
    print(f"scripts/torture --kills {asked.kills} --hours {asked.hours:g} --seed {asked.seed}", flush=True)
    if asked.failpoints:
        kill_at_failpoints()
    for done in range(0, asked.kills, _KILLS):
        kill(min(_KILLS, asked.kills - done), asked.seed + done)
    if asked.hours:
        take(round(asked.hours * 3600))


def kill_at_failpoints() -> None:
    """Kill five times at each failpoint, each on a trap of its own."""
    names = failpoints.declared()
    for name in names:
        with tempfile.TemporaryDirectory(prefix="trapsync-torture-") as folder:
            victim = failpoints.Victim(Path(folder) / "trap")
            for nth in failpoints.HITS:
                victim.kill_at(name, nth)
            victim.live_in_peace()
            victim.check()
    print(f"{len(names)} failpoints, {len(failpoints.HITS)} kills at each: 0 lost, 0 twice", flush=True)


def kill(kills: int, seed: int) -> None:
    """Kill the daemon of one trap so often; every other trap prunes."""
    with tempfile.TemporaryDirectory(prefix="trapsync-torture-") as name:
        folder = Path(name)
        with hub_server.running(folder / "hub") as hub, FaultServer(Forwarding(hub.url)) as front:
            prune = bool(seed // _KILLS % 2)
            print(Torment(folder, hub, front, seed=seed, prune=prune).run(kills), flush=True)


def take(pictures: int) -> None:
    """Take so many pictures, and see what grows."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trapsync-torture-") as name:
        report = soak.soak(Path(name), pictures, lambda line: print(line, flush=True))
    print(*report.lines(), f"in {time.monotonic() - began:.0f} s", sep="\n", flush=True)
    report.check()


if __name__ == "__main__":
    main()
