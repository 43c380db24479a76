"""Every durable side effect has a name, the program is killed at each of them, and nothing comes of it."""

import ast
import os
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from failpoints import HITS, MODULES, ROOT, Victim, declared, together
from side_effects import unnamed
from trapsync.files import failpoint

# So many names share a trap, and it is killed twice at each; `scripts/torture --failpoints` gives each name a trap
# of its own and five kills. A number of 1 tells which of them a failure comes from.
TOGETHER = int(os.environ.get("TRAPSYNC_TOGETHER", "10"))
KILLS = 2


# ── Every side effect has a name ─────────────────────────────────────────────────────────────────────

# A note in memory; what each caller has a name for; and the operator's own computer, where no trap is killed
# (`test_push_numbers.py` cuts a push short).
_NOT_ON_THE_CARD = {
    "files/durable.py: remove",
    "files/process_note.py: close",
    "fleet/operator_key.py: keep_secret",
    "fleet/operator_key.py: replace_secret",
}


def test_every_durable_side_effect_has_a_failpoint() -> None:
    found = [f"{path.relative_to(ROOT)}: {name}" for path, tree in MODULES.items() for name in unnamed(tree)]
    advice = "each function that changes something durable needs a failpoint.hit('what: happened') beside it"
    assert sorted({*found} - _NOT_ON_THE_CARD) == [], advice


def test_a_side_effect_without_a_failpoint_is_seen() -> None:
    tree = ast.parse("def f(p):\n    p.unlink()\ndef g(p):\n    failpoint.hit('x')\n    p.rename(p)\n")
    assert unnamed(tree) == ["f"]


def test_there_are_as_many_names_as_we_think() -> None:
    assert len(declared()) >= 120


# ── The device itself ────────────────────────────────────────────────────────────────────────────────


def test_a_failpoint_that_is_not_armed_costs_nothing() -> None:
    assert os.environ.get(failpoint.VARIABLE) is None
    best = min(
        timeit.repeat('hit("write: renamed")', globals={"hit": failpoint.hit}, number=10_000, repeat=5)
    )
    assert best / 10_000 < 1e-6  # 30 ns here; the rest is for a busy machine


def test_an_armed_failpoint_kills_at_the_hit_that_was_ordered() -> None:
    code = (
        "from trapsync.files import failpoint as f; "
        "f.hit('b'); f.hit('a'); print('1', flush=True); f.hit('a'); print('2')"
    )
    environment = os.environ | {failpoint.VARIABLE: "a#2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n")


# ── Killed at every one of them ──────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", together(TOGETHER), ids=", ".join)
def test_killed_there_again_and_again_nothing_is_lost_and_nothing_is_there_twice(
    folder_in_memory: Path, names: list[str]
) -> None:
    victim = Victim(folder_in_memory / "trap")
    for name in names:
        for nth in HITS[:KILLS]:
            victim.kill_at(name, nth)
    assert victim.kills == KILLS * len(names)
    victim.live_in_peace()
    victim.check()


def test_every_name_has_a_trap_on_which_it_is_killed() -> None:
    assert sorted(name for names in together(TOGETHER) for name in names) == declared()
