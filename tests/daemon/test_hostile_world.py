"""A trap lives on in a hostile world, its good pictures arrive, and whatever is kept from arriving is told."""

import sys
from pathlib import Path

import pytest

import hostile_world

WORLDS = 5  # of each of four seeds, one after another; `scripts/torture --world` lives through more


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 6, 7, 8])
def test_fifty_oddities_in_each_world_cost_no_good_picture(folder_in_memory: Path, seed: int) -> None:
    with hostile_world.running(folder_in_memory, seed) as world:
        world.alone()
        world.run(WORLDS)
    sys.stdout.write(f"{world}\n")  # shown by -rP
    assert world.world == WORLDS
    assert sum(world.counted.values()) >= WORLDS * hostile_world.ODDITIES
    assert world.between.given.total() > 5 * WORLDS
