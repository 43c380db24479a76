"""A card that is really full: a small filesystem of its own, as only root can mount one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import daemon_process
import drawings
import hub_server
from processes import cpu_seconds

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small filesystem to fill")


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """64 MB of card."""
    folder = tmp_path / "card"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M,mode=755", "card", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def free(card: Path) -> int:
    """The free bytes of the card."""
    return os.statvfs(card).f_bavail * os.statvfs(card).f_frsize


def fill(card: Path, leave: int) -> Path:
    """Put ballast on the card until only so many bytes are free; a trap may be writing there meanwhile."""
    ballast = card / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while free(card) - leave >= 65536:
            file.write(bytes(65536))
    assert free(card) < leave + 4 * 65536, "the card could not be filled"
    return ballast


def whole(spool: Path) -> bool:
    return all(path.read_bytes().endswith(b"\xff\xd9") for path in spool.rglob("*.jpg"))


def test_below_its_floor_the_trap_stops_capturing_loudly_and_goes_on_when_there_is_room(card: Path) -> None:
    with daemon_process.running(card, camera="simulated") as trap:
        trap.until(lambda f: f["ledger"]["captured"] > 0)
        ballast = fill(card, 900_000)  # below storage.min_free = 1 MB
        # The reserve, if it was made by then, is given up for the catalog; it is filled too.
        facts = trap.until(lambda f: f["verdict"] == "failing" or not fill(card, 900_000))
        assert any("full" in reason for reason in facts["reasons"])
        assert facts["daemon"]["running"]
        ballast.unlink()
        before = trap.status()["ledger"]["captured"]
        trap.until(lambda f: f["ledger"]["captured"] > before and f["verdict"] != "failing")
        assert whole(trap.spool)


def test_without_any_room_nothing_short_gets_a_final_name_and_the_daemon_lives(card: Path) -> None:
    with daemon_process.running(card, camera="simulated") as trap:
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
        more = daemon_process.deliver_to(card, hub.url, hub.user, hub.password)
    with daemon_process.running(card, more, camera="simulated", arguments=("--captures", "3")) as trap:
        trap.until(lambda f: f["ledger"]["pending"] == 3)
        fill(card, 0)
        with hub_server.running(tmp_path / "hub", port=port) as hub:
            trap.until(lambda f: len(hub.rows()) == 3, seconds=60)
            assert trap.status()["daemon"]["running"]


def test_a_hub_on_a_full_disk_says_so_and_whatever_it_has_confirmed_is_whole(
    card: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(card, 3_000_000)
    with hub_server.running(card / "hub") as hub:
        hub.auth()
        confirmed, statuses = set[str](), list[int]()
        while statuses[-5:] != [507] * 5:
            assert len(statuses) < 2000
            second = len(statuses)
            name = f"{drawings.DEVICE}.2026-06-21_{second // 3600:02}-{second // 60 % 60:02}-{second % 60:02}.jpg"
            statuses.append(hub.upload(name, drawings.trap()).status_code)
            if statuses[-1] == 200:
                confirmed.add(name)
        assert set(statuses) == {200, 507}
        assert set(hub.stored()) == confirmed
        assert all(hub.store.path(row).read_bytes() == drawings.trap() for row in hub.rows())
        assert not list((card / "hub" / "images" / ".incoming").iterdir())
        (card / "ballast").unlink()
        assert hub.upload(name, drawings.trap()).status_code == 200
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("where", ["spool", "state", "stick"])
def test_whichever_part_is_full_nothing_short_gets_a_name_and_all_goes_on_when_there_is_room(
    card: Path, tmp_path: Path, where: str
) -> None:
    """The spool (pictures, quarantine), the state (catalog, its log, small copies), or a destination."""
    places = {name: card if name == where else tmp_path / name for name in ("spool", "state", "stick")}
    places["stick"].mkdir(exist_ok=True)
    (places["stick"] / ".trapsync-destination").touch()
    more = f"""[destinations.stick]
kind = "directory"
path = "{places["stick"]}"
every = "1 s"
retry_initial = "100 ms"
retry_max = "1 s"
"""
    with daemon_process.running(tmp_path / "trap", more, camera="simulated") as trap:
        trap.stop()
        config = trap.config.read_text().replace('min_free = "1 MB"', 'min_free = "0 B"')
        for name in ("spool", "state"):
            config = config.replace(f'{name} = "{name}"', f'{name} = "{places[name]}/{name}"')
        trap.config.write_text(config)
        fill(card, 9_000_000)  # no room for the reserve, so that it really ends
        trap.start()
        trap.until(lambda f: f["ledger"]["delivered"] > 1)
        ballast = fill_to_the_last_byte(card)
        spool = places["spool"] / "spool"
        put_if_there_is_room(spool / "cut-off.jpg", drawings.trap()[:-100])
        put_if_there_is_room(spool / "empty.jpg", b"")
        began, used = time.monotonic(), cpu_seconds(trap.pid)
        passes(trap, 10)
        share = (cpu_seconds(trap.pid) - used) / (time.monotonic() - began)
        assert share < 0.5, f"a busy loop: {share:.0%} of a CPU"
        assert sound(places["stick"])
        assert sound(spool, "cut-off.jpg", "empty.jpg")
        ballast.unlink()
        (card / "more ballast").unlink()
        before = trap.status()["ledger"]["delivered"]
        trap.until(lambda f: f["ledger"]["delivered"] > before + 1, seconds=60)
        facts = trap.until(lambda f: f["ledger"]["quarantined"] == 2 - len(list(spool.glob("*.jpg"))))
        assert facts["ledger"]["captured"] == sum(
            facts["ledger"][state] for state in ("delivered", "pending", "quarantined", "dropped")
        )
        assert "Traceback" not in trap.text()
        sys.stdout.write(f"{where} full: {share:.1%} of a CPU\n")


def fill_to_the_last_byte(card: Path) -> Path:
    """Leave no byte; a second file takes what is given up within a moment, such as a reserve."""
    ballast = fill(card, 0)
    with suppress(OSError), (card / "more ballast").open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    return ballast


def put_if_there_is_room(path: Path, content: bytes) -> None:
    with suppress(OSError):
        path.write_bytes(content)


def sound(folder: Path, *others: str) -> bool:
    """Whether every JPEG has its end, those of other programs aside."""
    ours = (path for path in folder.rglob("*.jpg") if not path.name.endswith(others or "\0"))
    return all(path.read_bytes().endswith(b"\xff\xd9") for path in ours)


def passes(trap: daemon_process.Daemon, seconds: float) -> None:
    """Let the daemon live for so long."""
    with pytest.raises(subprocess.TimeoutExpired):
        trap.wait(seconds)


def test_on_a_card_that_fills_up_safe_images_make_room_and_capture_never_stops(
    card: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f"""[prune]
enabled = true
keep_free = "0 B"
[destinations.stick]
kind = "directory"
path = "{stick}"
every = "1 s"
"""
    with daemon_process.running(card, more, camera="simulated") as trap:
        trap.until(lambda f: f["ledger"]["delivered"] > 3)
        trap.stop()
        fill(card, 3_000_000)  # an hour of pictures takes far more than that
        trap.start()
        trap.until(lambda f: f["ledger"]["captured"] > len(list(trap.spool.rglob("*.jpg"))))
        assert sound(trap.spool)
        facts = trap.status()
        assert (facts["verdict"], facts["ledger"]["dropped"]) == ("ok", 0)
        kept = {path.name for path in stick.rglob("*.jpg")}
        assert len(kept) >= facts["ledger"]["delivered"]
