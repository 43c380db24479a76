"""Kill the daemon a thousand times under faults, then take a hundred thousand pictures in scaled time.

With --failpoints also kill the program five times at each durable step, each on a trap of its own. With --steps also
let Hypothesis make up lives of a trap (`tests/helpers/generated_life.py`), so many steps, from a random seed. With --mutants
instead: put faults into a copy of the program, one at a time, and see that a test fails for each. With --world instead: let
traps live in a hostile world (`tests/helpers/hostile_world.py`), so many worlds of fifty oddities. With --world-checks
instead: take one check at a door to the outside after the other out of a copy, and see that the worlds notice it. With
--attacks instead: attack at full numbers (`tests/helpers/attacks.py`). With --enrolment instead: have thirty traps join a
hub (`tests/helpers/enrolled_fleet.py`). With --account instead: have root type each command
while the account's folders hold something odd (`tests/helpers/taken_over.py`). With --stores instead: send a backlog to a
bucket over a slow link (`tests/helpers/s3_backlog.py`), and let both versions of rclone meet all faults at each other end.
With --packages instead: export 100,000 pictures as a package of Camtrap DP (`tests/helpers/camtrap_packages.py`).
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

import attacks
import camtrap_packages
import enrolled_fleet
import failpoints
import hostile_world
import hub_server
import long_run
import mutants
import rclone_ends
import s3_backlog
import taken_over
import world_checks
from fault_server import FaultServer, Forwarding
from generated_life import Life
from random_kills import Torment
from replays import ReplayedTrap

_KILLS = 100  # on one trap; then another
_STEPS_OF_A_LIFE = 50
_LIVES = 200  # from one seed
_REPLAYS = 400  # traps to which old documents are sent
_FLEET = 30  # traps that join
_PICTURES = 100_000  # of one package
_WORLDS = 10  # of one trap; then another


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
    parser.add_argument(
        "--mutants", action="store_true", help="put faults into the program, and nothing else"
    )
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="of made-up lives (100000, say)")
    parser.add_argument(
        "--world", type=int, default=0, metavar="N", help="worlds of oddities, and nothing else"
    )
    parser.add_argument(
        "--account", action="store_true", help="from the service account to root, and nothing else"
    )
    parser.add_argument("--world-checks", action="store_true", help="take checks out, one at a time")
    parser.add_argument("--enrolment", action="store_true", help="thirty traps join a hub, and nothing else")
    parser.add_argument("--stores", action="store_true", help="buckets and rclone storages, and nothing else")
    parser.add_argument("--attacks", action="store_true", help="attacks at full numbers, and nothing else")
    parser.add_argument(
        "--packages", action="store_true", help="a package of 100,000 pictures, and nothing else"
    )
    asked = parser.parse_args()
    if asked.mutants:
        look_for_survivors()
    elif asked.world:
        live_in_worlds(asked.world, asked.seed)
    elif asked.account:
        take_over(asked.seed)
    elif asked.world_checks:
        take_checks_out(asked.seed)
    elif asked.enrolment:
        enrol()
    elif asked.stores:
        fill_stores()
    elif asked.packages:
        write_package()
    elif asked.attacks:
        attack(asked.seed)
    else:
        torture(asked)


def torture(asked: argparse.Namespace) -> None:
    """Kill, and take pictures, as often as was asked for."""
    print(
        f"scripts/torture --kills {asked.kills} --hours {asked.hours:g} --steps {asked.steps} --seed {asked.seed}",
        flush=True,
    )
    if asked.failpoints:
        kill_at_failpoints()
    if asked.steps:
        live(asked.steps, asked.seed)
    for done in range(0, asked.kills, _KILLS):
        kill(min(_KILLS, asked.kills - done), asked.seed + done)
    if asked.hours:
        take(round(asked.hours * 3600))


def fill_stores() -> None:
    """A backlog over a slow link to a bucket; then every fault between rclone and each of its other ends."""
    with tempfile.TemporaryDirectory(prefix="trapsync-torture-") as folder:
        assert s3_backlog.stores_s3(Path(folder)) >= 0.95, "of what one long plain transfer gets of the link"
        rclone_ends.stores_rclone(Path(folder))


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


def live(steps: int, number: int) -> None:
    """So many steps of lives that Hypothesis makes up; the outside account holds after each of them."""
    logging.disable(logging.CRITICAL)  # of a hundred thousand misfortunes
    began, lives = time.monotonic(), 0
    how = _made_up(_LIVES)
    while Life.steps < steps:  # many a life ends early
        run_state_machine_as_test(seeded(number + lives)(Life), settings=how)
        lives += _LIVES
        print(f"{lives} lives, {Life.steps} steps, in {time.monotonic() - began:.0f} s", flush=True)
    logging.disable(logging.NOTSET)
    print("0 violations", flush=True)


def _made_up(lives: int) -> settings:
    """How Hypothesis makes up so many lives."""
    return settings(
        max_examples=lives,
        stateful_step_count=_STEPS_OF_A_LIFE,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


def live_in_worlds(worlds: int, seed: int) -> None:
    """So many worlds of fifty oddities each, some on one trap, then on another from the next seed."""
    logging.disable(logging.CRITICAL)  # of what the hub refuses
    began = time.monotonic()
    for done in range(0, worlds, _WORLDS):
        with (
            tempfile.TemporaryDirectory(prefix="trapsync-world-", dir=hostile_world.MEMORY) as name,
            hostile_world.running(Path(name), seed + done // _WORLDS) as world,
        ):
            world.alone()
            world.run(min(_WORLDS, worlds - done))
        print(f"{world}; {time.monotonic() - began:.0f} s", flush=True)
    print(f"{worlds} worlds: 0 deaths, 0 good pictures lost, never ok while one was kept", flush=True)


def attack(seed: int) -> None:
    """Make each attack at its full number; ends with an AssertionError where one succeeds."""
    for name in attacks.ATTACKS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="trapsync-attack-", dir=hostile_world.MEMORY) as folder:
            seen = attacks.attack(name, Path(folder) / "attack", seed, fully=True)
        print(f"{name}: {seen}; {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    logging.disable(logging.CRITICAL)  # of damaged records
    how = _made_up(_REPLAYS)
    run_state_machine_as_test(seeded(seed)(ReplayedTrap), settings=how)
    logging.disable(logging.NOTSET)
    print(
        f"replays: {_REPLAYS} traps of {_STEPS_OF_A_LIFE} steps; {time.monotonic() - began:.0f} s", flush=True
    )
    print(f"{len(attacks.ATTACKS)} kinds of attacks: 0 successes (seed {seed})", flush=True)


def enrol() -> None:
    """Have thirty traps join a hub with one code; what was typed, and how long it took."""
    with (
        tempfile.TemporaryDirectory(prefix="trapsync-enrolment-") as folder,
        enrolled_fleet.enrolled(Path(folder), _FLEET) as fleet,
    ):
        typed = enrolled_fleet.commands_by_place(fleet.typed)
        shown = len(fleet.heard())
        assert shown == _FLEET
        print(f"{_FLEET} traps: typed {typed}, {fleet.seconds:.0f} s until the fleet shows all {shown}")
        enrolled_fleet.lock_out(fleet)
        print(f"one revoked, one forgotten: strangers; {len(fleet.heard())} in the fleet")
        enrolled_fleet.be_lied_to(fleet, Path(folder))
        print("a hub that names keys of its own: refused, nothing changed")


def take_over(seed: int) -> None:
    """Every case of the table of commands, entries of the account's folders and oddities; ends with 1 after a failure."""
    began = time.monotonic()
    count, failures = taken_over.try_all(seed)
    print(*failures, sep="\n")
    print(
        f"{count['cases']} cases, {len(failures)} failures, in {time.monotonic() - began:.0f} s; {dict(count)}"
    )
    sys.exit(bool(failures))


def take_checks_out(seed: int) -> None:
    """Take each check of `tests/helpers/world_checks.py` out; ends with 1 where the worlds do not notice it."""
    try:
        unnoticed = world_checks.run(world_checks.CHECKS, seed, lambda line: print(line, flush=True))
    except mutants.Stale as error:
        sys.exit(f"tests/helpers/world_checks.py: {error}")
    sys.exit(bool(unnoticed))


def look_for_survivors() -> None:
    """Put each fault of `tests/helpers/mutants.py` into the program; ends with 1 where one survives."""
    try:
        survivors = mutants.run(mutants.MUTANTS, lambda line: print(line, flush=True))
    except mutants.Stale as error:
        sys.exit(f"tests/helpers/mutants.py: {error}")
    sys.exit(bool(survivors))


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
        report = long_run.soak(Path(name), pictures, lambda line: print(line, flush=True))
    print(*report.lines(), f"in {time.monotonic() - began:.0f} s", sep="\n", flush=True)
    report.check()


def write_package() -> None:
    """Export as many pictures as thirty traps take in a month; it is valid, and quick and small enough."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory = camtrap_packages.weigh(Path(folder), _PICTURES, every=60.0)
        print(f"{_PICTURES} pictures: {seconds:.1f} s of CPU, {memory / 1000:.1f} MB")
        assert seconds <= 60
        assert memory <= 100_000
        assert camtrap_packages.problems(Path(folder, "package")) == []


if __name__ == "__main__":
    main()
