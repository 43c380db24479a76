"""The power is cut in mid-write, again and again: what was acknowledged is there afterwards.

What such a cut cannot show is written down in the README of the tests.
"""

import hashlib
import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import daemon_process
import power_cut_card
import processes
from trapsync.clock import SystemClock
from trapsync.settings.config_file import load
from trapsync.trap import open_catalog

pytestmark = pytest.mark.skipif(power_cut_card.missing() is not None, reason=str(power_cut_card.missing()))

CUTS = int(os.environ.get("POWER_CUTS", "30"))
SEED = int(os.environ.get("POWER_CUT_SEED", "0")) or random.randrange(10**6)


@pytest.fixture
def card(tmp_path: Path) -> Iterator[power_cut_card.Card]:
    with power_cut_card.Card(tmp_path) as one:
        yield one


@dataclass
class Promised:
    """What the worker was promised, as far as the test heard of it."""

    captured: dict[str, str] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)

    def hear(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "captured" and line.endswith("\n"):
                path, _, digest = rest.partition(" ")
                self.captured[path] = digest
            elif word == "delivered" and line.endswith("\n"):
                self.delivered.add(rest)


def work_until_the_cut(card: power_cut_card.Card, boot: int, chance: random.Random, *more: str) -> str:
    """Let a worker work, and cut the power at some moment; what it said."""
    command = [
        sys.executable,
        power_cut_card.__file__,
        str(card.folder),
        str(card.folder.parent),
        str(boot),
        *more,
    ]
    with processes.started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        assert worker.stdout
        assert worker.stderr
        ready, _, _ = select.select([worker.stdout], [], [], 30)
        assert ready, "the worker never began"
        try:
            worker.wait(chance.uniform(0.0, 0.7))
        except subprocess.TimeoutExpired:
            pass
        else:
            pytest.fail(f"the worker ended before the cut: {worker.stderr.read().decode()}")
        # Only what was said before counts: in the milliseconds that the shutdown takes, ext4 may call a flush
        # done that it then drops. That is a fault of this way to cut; without power nobody answers.
        said = _read_what_is_there(worker.stdout.fileno())
        card.cut()
        worker.kill()
    card.replug()
    return said


def _read_what_is_there(pipe: int) -> str:
    os.set_blocking(pipe, False)
    said = b""
    with suppress(BlockingIOError):
        while more := os.read(pipe, 65536):
            said += more
    return said.decode()


def lost_from(card: power_cut_card.Card, boot: int, promised: Promised) -> list[str]:
    """Start on what is left as the daemon would, and look for everything that was promised."""
    worker = power_cut_card.Worker(card.folder, card.folder.parent, boot)
    try:
        assert not list(worker.storage.state.glob("*.damaged-*"))  # it was sound, and not just rebuilt
        rows = worker.catalog.connection._db.execute(
            "SELECT images.key, deliveries.state, gone_why FROM images JOIN deliveries ON image_id = images.id"
        ).fetchall()
        marks = {key: (state, why) for key, state, why in rows}
        lost = [key for key in promised.delivered if marks.get(key, ("",))[0] != "delivered"]
        for path, digest in promised.captured.items():
            file, name = worker.storage.spool / path, Path(path).name
            if file.exists():
                lost += [] if hashlib.sha256(file.read_bytes()).hexdigest() == digest else [f"{path}: bytes"]
            elif marks.get(name) != ("delivered", "pruned") or worker.home.stored.get(name) != digest:
                lost.append(path)
        worker.ingest()
        worker.deliver()
        ledger = worker.catalog.counts.ledger()
        assert ledger.captured == ledger.delivered + ledger.pending + ledger.quarantined + ledger.dropped
        assert (ledger.pending, ledger.quarantined) == (0, 0)
        assert {Path(path).name for path in promised.captured} <= set(worker.home.stored) | set(lost)
    finally:
        worker.catalog.close()
    return lost


def test_what_was_acknowledged_survives_every_power_cut(card: power_cut_card.Card) -> None:
    chance, promised = random.Random(SEED), Promised()
    sys.stdout.write(f"POWER_CUT_SEED={SEED}\n")
    for boot in range(1, CUTS + 1):
        promised.hear(work_until_the_cut(card, boot, chance))
        assert lost_from(card, boot, promised) == []
    assert len(promised.captured) > 3 * CUTS  # as fast as a busy machine takes them
    assert len(promised.delivered) > CUTS
    stored = (card.folder.parent / "home").read_text().split("\n")
    assert len(stored) == len(set(stored))  # none was sent twice
    captured, delivered = len(promised.captured), len(promised.delivered)
    sys.stdout.write(f"{CUTS} cuts, {captured} captures and {delivered} deliveries acknowledged, 0 lost\n")


def test_without_flushes_the_same_cuts_lose_images(card: power_cut_card.Card) -> None:
    chance, promised = random.Random(SEED), Promised()
    promised.hear(work_until_the_cut(card, 1, chance, "--without-flushes"))
    left = {
        path
        for path, digest in promised.captured.items()
        if (file := card.folder / "spool" / path).exists()
        and hashlib.sha256(file.read_bytes()).hexdigest() == digest
    }
    assert left < set(promised.captured)


def test_the_daemon_keeps_what_it_logged_as_captured(card: power_cut_card.Card, tmp_path: Path) -> None:
    trap = daemon_process.Daemon(tmp_path / "trap", camera="simulated")
    config = trap.config.read_text().replace('"spool"', f'"{card.folder}/spool"')
    trap.config.write_text(config.replace('"state"', f'"{card.folder}/state"'))
    chance, captured = random.Random(SEED), list[str]()
    for _ in range(4):
        begun = len(trap.text()) if trap.log.exists() else 0
        trap.start()
        try:
            trap.until_log("captured", seconds=30, since=begun)
            with pytest.raises(subprocess.TimeoutExpired):
                trap.wait(chance.uniform(0.0, 1.5))
            captured += re.findall(r"captured (\S+\.jpg)", trap.text()[begun:])
            card.cut()
        finally:
            os.killpg(trap.pid, signal.SIGKILL)
            trap.wait()
        card.replug()
    settings = load(trap.config)
    assert len(captured) >= 4
    catalog = open_catalog(settings, SystemClock(always_trusted=True))
    catalog.close()
    assert not list(settings.storage.state.glob("*.damaged-*"))
    for path in captured:
        assert (settings.storage.spool / path).read_bytes().endswith(b"\xff\xd9"), path
