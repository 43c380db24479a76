"""A card that turns read-only under a running trap, as a worn one does: a real ext4, and the kernel's own error."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import daemon_process

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="only root can mount a file system to break"
)


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """A card of 48 MB that turns read-only after an error."""
    image, folder = tmp_path / "image", tmp_path / "card"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * 10**6)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    done = subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, folder], check=False)
    if done.returncode:
        pytest.skip("no loop device to mount a file system on")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def error(card: Path) -> None:
    """Let the kernel find an error on it."""
    device = card.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")


@pytest.mark.parametrize("every", [1, 900])
def test_a_card_that_turns_read_only_is_failing_at_once_and_named_and_the_daemon_lives(
    card: Path, every: int
) -> None:
    trap = daemon_process.Daemon(card, camera="simulated")
    trap.config.write_text(trap.config.read_text().replace('every = "1 s"', f'every = "{every} s"'))
    trap.start()
    try:
        trap.until(lambda facts: facts["ledger"]["captured"] > 0)
        error(card)
        began = time.monotonic()
        facts = trap.until(lambda facts: facts["verdict"] == "failing", 60)
        took = time.monotonic() - began
        assert facts["reasons"][0].startswith(
            f"{card}/spool: the card is read-only: it is failing, or damaged"
        )
        assert not [reason for reason in facts["reasons"] if "does the camera work" in reason]
        if every == 1:  # what the catalog cannot keep
            facts = trap.until(lambda facts: any("failures in a row" in one for one in facts["reasons"]), 60)
            assert facts["capture"]["failures"] >= 3
        assert facts["daemon"]["running"]
        assert took < 10, f"a picture every {every} s: failing after {took:.1f} s only"
    finally:
        trap.kill()
