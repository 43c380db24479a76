"""Real daemons that join a real hub with one code: seen by their operator, one revoked, one forgotten; a hub that lies."""

import sys
from pathlib import Path

import pytest

import enrolled_fleet


@pytest.mark.timeout(400)
def test_three_traps_join_with_one_code_and_one_is_revoked_and_one_forgotten(tmp_path: Path) -> None:
    with enrolled_fleet.enrolled(tmp_path, 3) as fleet:
        count = enrolled_fleet.commands_by_place(fleet.typed)
        sys.stdout.write(
            f"3 traps: typed {count}, {fleet.seconds:.0f} s from the code to the last heartbeat\n"
        )
        assert count == {"hub": 2, "operator": 3, "trap": 3}
        assert {trap["name"] for trap in fleet.fleet()} == {"valley-1", "valley-2", "valley-3"}
        stored = fleet.desk / "trapsync-hub" / "images"
        fleet.until(lambda: len(list(stored.glob("0a1b*/*/*.jpg"))) == 3, "a picture of each is at the hub")
        enrolled_fleet.lock_out(fleet)
        enrolled_fleet.be_lied_to(fleet, tmp_path)
