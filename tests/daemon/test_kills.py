"""Nothing is lost and nothing arrives twice, however often the daemon is killed and however its server behaves."""

import sys
from pathlib import Path

import pytest

import hub_server
from fault_server import FaultServer, Forwarding
from random_kills import Torment

KILLS = 75  # in each of four tests; `scripts/torture` kills a thousand times


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("seed", "prune"), [(1, False), (2, True), (3, False), (4, True)])
def test_killed_at_random_moments_with_other_settings_each_time_it_loses_nothing_and_sends_nothing_twice(
    tmp_path: Path, seed: int, prune: bool
) -> None:
    with hub_server.running(tmp_path / "hub") as hub, FaultServer(Forwarding(hub.url)) as front:
        report = Torment(tmp_path, hub, front, seed=seed, prune=prune).run(KILLS)
    sys.stdout.write(f"{report}\n")  # shown by -rP
    assert report.kills == KILLS
    assert report.images > KILLS
    assert report.children > 5
    assert report.faults > 20
    assert len(report.phases) >= 5, report.phases
    assert report.phases.keys() >= {
        "starting",
        "a file without its row",
        "pending, not sent",
        "at the hub, not marked",
    }
    assert report.quarantined > 3
    assert report.pruned > 3
    assert len(report.changes) == 6, report.changes
    assert report.changes.total() > KILLS / 3
