"""A card that is really full: a small filesystem of its own, as only root can mount one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import daemon
import hub_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small filesystem to fill")


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """64 MB of card."""
    folder = tmp_path / "card"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "card", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(card: Path, leave: int) -> Path:
    """Put ballast on the card until only so many bytes are free."""
    ballast = card / "ballast"
    free = os.statvfs(card).f_bavail * os.statvfs(card).f_frsize
    with ballast.open("wb") as file:
        for _ in range(max(0, free - leave) // 65536):
            file.write(bytes(65536))
    return ballast


def whole(spool: Path) -> bool:
    return all(path.read_bytes().endswith(b"\xff\xd9") for path in spool.rglob("*.jpg"))


def test_below_its_floor_the_trap_stops_capturing_loudly_and_goes_on_when_there_is_room(card: Path) -> None:
    with daemon.running(card, camera="simulated") as trap:
        trap.until(lambda f: f["ledger"]["captured"] > 0)
        ballast = fill(card, 900_000)  # below storage.min_free = 1 MB
        facts = trap.until(lambda f: f["verdict"] == "failing")
        assert any("full" in reason for reason in facts["reasons"])
        assert facts["daemon"]["running"]
        ballast.unlink()
        before = trap.status()["ledger"]["captured"]
        trap.until(lambda f: f["ledger"]["captured"] > before and f["verdict"] != "failing")
        assert whole(trap.spool)


def test_without_any_room_nothing_short_gets_a_final_name_and_the_daemon_lives(card: Path) -> None:
    with daemon.running(card, camera="simulated") as trap:
        trap.until(lambda f: f["ledger"]["captured"] > 0)
        trap.stop()
        config = trap.config.read_text().replace('min_free = "1 MB"', 'min_free = "0 B"')
        trap.config.write_text(config.replace("[320, 240]", "[2000, 1500]"))
        ballast = fill(card, 200_000)
        trap.start()
        trap.until_log("the card is full", seconds=30)
        assert whole(trap.spool)
        assert not list(trap.spool.rglob("*.part"))
        ballast.unlink()
        before = trap.status()["ledger"]["captured"]
        facts = trap.until(lambda f: f["ledger"]["captured"] > before)
        assert facts["ledger"]["quarantined"] == 0
        assert "Traceback" not in trap.text()


def test_on_a_full_card_deliveries_go_on(card: Path, tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        port = hub.port
        more = daemon.deliver_to(card, hub.url, hub.user, hub.password)
    with daemon.running(card, more, camera="simulated", arguments=("--captures", "3")) as trap:
        trap.until(lambda f: f["ledger"]["owed"] == 3)
        fill(card, 0)
        with hub_server.running(tmp_path / "hub", port=port) as hub:
            trap.until(lambda f: len(hub.rows()) == 3, seconds=60)
            assert trap.status()["daemon"]["running"]
