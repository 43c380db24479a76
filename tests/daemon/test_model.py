"""A trap's whole life: see `life`. CI draws its lives from fixed seeds; `scripts/torture --lives` from random ones.

`TRAPSYNC_EXAMPLES` is how many lives there are, `TRAPSYNC_STEPS` how long each may last, and with
`TRAPSYNC_SHRINK=1` a life that fails is made as short as it can be.
"""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import run_state_machine_as_test

from generated_life import Life

EXAMPLES = int(os.environ.get("TRAPSYNC_EXAMPLES", "260"))
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


@pytest.fixture
def same_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis mixes constants of whatever modules are loaded into what it draws; here a seed means the same lives."""
    providers.CONSTANTS_CACHE.cache.clear()
    monkeypatch.setattr(providers, "_get_local_constants", Constants)


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("same_lives")
@pytest.mark.parametrize("number", SEEDS)
def test_whatever_befalls_a_trap_no_picture_is_lost_doubled_or_broken(number: int) -> None:
    run_state_machine_as_test(seed(number)(Life), settings=HOW)


# Lives that failed once, step by step.
EXAMPLES_OF_FAILURES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "a picture put back is deleted by the word of a destination that is no longer in the config": [
        ("begin", {"gallery": False, "stick": None}),
        ("capture", {"seconds": 600.0}),
        ("ingest", {"wait": False}),
        ("back_a_picture_up", {"number": 0}),
        ("deliver", {"wait": True}),
        ("prune", {}),
        ("put_a_picture_back", {"number": 0}),
        ("configure", {"gallery": False, "home": None, "stick": None}),
        ("kill", {"reboot": True}),
        ("ingest", {"wait": False}),
        ("a_morning_without_a_clock", {}),
    ],
    "another server under the old name is given nothing, and the card is emptied": [
        ("begin", {"gallery": False, "stick": None}),
        ("a_good_day", {}),
        ("stand_for_another_server", {"name": "home", "kind": "memory", "is_back": False}),
        ("prune", {}),
        ("deliver", {"wait": True}),
        ("prune", {}),
    ],
    "a server that lost what it confirmed keeps its proof": [
        ("begin", {"gallery": False, "stick": None}),
        ("a_good_day", {}),
        ("lose_an_image_at_a_server", {"name": "home", "number": 0, "others": True}),
        ("ask_about_some", {"days": 8}),
        ("prune", {}),
    ],
    "a copy on the stick is the picture itself": [
        ("begin", {"gallery": False, "stick": True}),
        ("capture", {"seconds": 600.0}),
        ("ingest", {"wait": False}),
        ("lead_the_stick_back_to_the_spool", {"number": 1}),
        ("deliver", {"wait": True}),
        ("prune", {}),
    ],
    "a mark of one stick empties the card though another one is in": [
        ("begin", {"gallery": False, "stick": True}),
        ("a_good_day", {}),
        ("kill_in_the_middle", {"step": "prune", "hits": 3, "reboot": False}),
        ("put_another_stick_in", {"is_back": False}),
        ("prune", {}),
    ],
    # The model's own mistake: the copy is dropped, and the picture is not.
    "a person takes away the copy of a picture whose time was corrected": [
        ("begin", {"gallery": False, "stick": None}),
        ("a_morning_without_a_clock", {}),
        ("copy", {"folder": "copies", "number": 0}),
        ("settle", {}),
        ("a_good_day", {}),
        ("take_away", {"number": 62}),
        ("a_day_offline", {}),
        ("prune", {}),
    ],
}


@pytest.mark.parametrize("what", EXAMPLES_OF_FAILURES)
def test_a_life_that_failed_once_goes_well(what: str) -> None:
    life = Life()
    try:
        for step, values in EXAMPLES_OF_FAILURES[what]:
            getattr(life, step)(**values)
            for claim in life.claims():
                claim()
    finally:
        life.teardown()
