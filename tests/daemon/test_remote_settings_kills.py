"""Killed twenty times on the way to every state: the old settings are in force or the new ones, never some of each."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import remote_settings_life
from remote_settings_life import NEW, OLD

KILLS = 20

# Which settings may be in force after the kill, and how it may stand in the end when life goes on. On the way
# to a third start the trial was counted twice already: the next start ends it.
MAY_BE = {
    "taken": ([OLD], {"committed"}),
    "first start": ([OLD, NEW], {"committed"}),
    "second start": ([NEW], {"committed", "rolled_back"}),
    "third start": ([OLD, NEW], {"rolled_back"}),
    "kept": ([NEW], {"committed"}),
    "undone": ([OLD, NEW], {"committed", "rolled_back"}),
}


def lives(folder: Path, step: str) -> list[dict[str, Any]]:
    """What was found after each kill."""
    command = [sys.executable, remote_settings_life.__file__, str(folder), step, str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("step", remote_settings_life.STEPS)
def test_killed_on_the_way_to_a_state_the_old_settings_are_in_force_or_the_new(
    tmp_path: Path, step: str
) -> None:
    kills = lives(tmp_path, step)
    assert [life["killed"] for life in kills] == [True] * KILLS
    in_force, ends = MAY_BE[step]
    assert all(life["in_force"] in in_force for life in kills)
    for life in kills:
        end = life["then"]
        assert end["state"] in ends
        assert end["in_force"] == (NEW if end["state"] == "committed" else OLD)
        # What was undone is undone; what was not has come again and was taken, or was known.
        assert end["code"] in (
            {"accepted", "known"} if end["state"] == "committed" else {"known", "rejected_before"}
        )
    if len(in_force) > 1:  # before the rename it was the old, after it the new, or the other way round
        assert {str(life["in_force"]) for life in kills} == {str(OLD), str(NEW)}
