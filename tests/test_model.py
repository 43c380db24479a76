"""A trap's whole life: see `life`. CI draws its lives from fixed seeds; `scripts/torture --lives` from random ones.

`TRAPSYNC_EXAMPLES` is how many lives there are, `TRAPSYNC_STEPS` how long each may last, and with
`TRAPSYNC_SHRINK=1` a life that fails is made as short as it can be.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from life import Life

EXAMPLES = int(os.environ.get("TRAPSYNC_EXAMPLES", "520"))
STEPS = int(os.environ.get("TRAPSYNC_STEPS", "30"))
SHRINK = bool(os.environ.get("TRAPSYNC_SHRINK"))
SEEDS = [int(one) for one in os.environ.get("TRAPSYNC_SEEDS", "1,2,3,4").split(",")]

HOW = settings(
    max_examples=-(-EXAMPLES // len(SEEDS)),
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if SHRINK else [])],
)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", SEEDS)
def test_whatever_befalls_a_trap_no_picture_is_lost_doubled_or_broken(number: int) -> None:
    run_state_machine_as_test(seed(number)(Life), settings=HOW)
