"""A trap that runs for long, in scaled time: what grows?

Pictures are taken, ingested, delivered and pruned by the real pipeline, on a real card with a real catalog;
time passes only in the trap's mind, and the destination is a memory that keeps nothing. Now and then the
link is down, a file is damaged, the trap reboots.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import drawings
import trap_bench as bench
from trapsync import cameras, pipeline
from trapsync.destinations import Receipt
from trapsync.errors import Unreachable
from trapsync.image import Image
from trapsync.runtime.upload_pool import UploadPool
from trapsync.settings.schema import Camera, Capture, Settings, SimulatedCamera

# What may grow in 100,000 pictures: memory for the catalog's cache, nothing else. WAL: its limit is 1 MiB
# after a checkpoint, and a long turn of deliveries may double it.
MOST = {"memory": 24 * 2**20, "descriptors": 2, "threads": 1, "wal": 4 * 2**20}
_ENOUGH = 50_000
_SAMPLES = 50
_BURST = 100  # pictures between two turns of deliveries


class Oblivious(bench.Memory):
    """Remembers no image, only how many there were, and that each came once and as it was."""

    def __init__(self) -> None:
        super().__init__("home")
        self.count = 0
        self.digests = 0  # the sum of all digests, which shows an image that came twice or not at all

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """It holds none of those that are pending; or it is out of reach."""
        if self.deaf:
            raise self.deaf
        return {}

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Count it."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with _COUNTING:
            self.count += 1
            self.digests += int(digest, 16)
        return Receipt(f"sha256:{digest}")


_COUNTING = threading.Lock()


@dataclass
class Report:
    """What was done, and samples of what might grow."""

    captured: int = 0
    delivered: int = 0
    pruned: int = 0
    quarantined: int = 0
    samples: dict[str, list[int]] = field(default_factory=dict)

    def grown(self, what: str) -> float:
        """By how much it grew per 100,000 pictures: the slope of a line through the later samples."""
        values = self.samples[what][len(self.samples[what]) // 5 :]
        middle = (len(values) - 1) / 2
        mean = sum(values) / len(values)
        slope = sum((x - middle) * (y - mean) for x, y in enumerate(values)) / sum(
            (x - middle) ** 2 for x in range(len(values))
        )
        pictures = self.captured / len(self.samples[what])
        return slope / pictures * 100_000

    def lines(self) -> list[str]:
        """For people."""
        done = f"{self.captured} captured, {self.delivered} delivered, {self.pruned} pruned"
        lines = [f"{done}, {self.quarantined} in quarantine"]
        for what, values in self.samples.items():
            lines.append(
                f"{what:12} first {values[0]:>10} last {values[-1]:>10} most {max(values):>10}; "
                f"per 100,000 pictures {self.grown(what):+12.1f} (allowed {MOST[what]})"
            )
        return lines

    def check(self) -> None:
        """Nothing may grow, and the WAL must stay small. Sizes find their measure only over many."""
        for what, most in MOST.items():
            if self.captured >= _ENOUGH or what in {"descriptors", "threads"}:
                assert self.grown(what) <= most, self.lines()
        assert max(self.samples["wal"]) <= MOST["wal"], self.lines()


def soak(folder: Path, pictures: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """So many pictures through the whole pipeline; the promises hold at the end."""
    report, trap, home = Report(), bench.Trap(folder, settle=0.0), Oblivious()
    trap.register(home)
    (folder / "replay").mkdir()
    (folder / "replay" / "one.jpg").write_bytes(drawings.plain(quality=30))
    settings = Settings(
        storage=trap.storage,
        camera=Camera(kind="simulated", simulated=SimulatedCamera(replay=folder / "replay")),
        capture=Capture(every=1),  # type: ignore[arg-type]
    )
    camera = cameras.make(settings.camera, drawings.DEVICE)
    camera.open()
    wanted = 0
    every = max(_BURST, pictures // _SAMPLES // _BURST * _BURST)
    while report.captured < pictures:
        paths = []
        for _ in range(_BURST):
            paths.append(pipeline.capture(camera, settings, drawings.DEVICE, trap.time))
            wanted += int(hashlib.sha256((trap.storage.spool / paths[-1]).read_bytes()).hexdigest(), 16)
            trap.time.sleep(1)
            trap.time.slept.clear()  # a list of ours that would grow
        report.captured += _BURST
        turn = report.captured // _BURST
        if turn % 7 == 0:
            bad = drawings.put(trap.storage.spool, b"GIF89a %d" % turn, f"bad-{turn}.jpg")
            paths.append(bad)
            report.quarantined += 1
        for start in range(0, len(paths), 32):
            trap.ingest(*paths[start : start + 32])
        trap.examined.clear()
        home.deaf = Unreachable("the link is down") if turn % 10 in {3, 4} else None
        trap.catalog.deliveries.end_waits()
        trap.deliver(home, UploadPool(home.settings, trap.time))
        if turn % 10 == 0:
            pipeline.sweep(trap.catalog, trap.storage, lambda path: None)
            report.pruned += trap.prune()
        if turn % 3 == 0:
            trap.catalog.connection.checkpoint()
        if turn % 500 == 0:
            trap.restart(reboot=True)
        if report.captured % every == 0:
            _sample(report, trap.storage.catalog)
            say(f"{report.captured} pictures, {report.samples['memory'][-1] / 2**20:.1f} MB")
    home.deaf = None
    trap.catalog.deliveries.end_waits()
    trap.deliver(home, UploadPool(home.settings, trap.time))
    report.pruned += trap.prune()
    report.delivered = home.count
    assert (home.count, home.digests) == (report.captured, wanted)
    assert trap.ledger() == (
        report.captured + report.quarantined,
        report.captured,
        0,
        report.quarantined,
        0,
    )
    assert report.pruned == report.captured
    assert trap.on_card() == set()
    trap.catalog.close()
    return report


def _sample(report: Report, catalog: Path) -> None:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    wal = catalog.with_name(f"{catalog.name}-wal")
    for what, value in {
        "memory": int(status["VmRSS"].split()[0]) * 1024,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(status["Threads"]),
        "wal": wal.stat().st_size if wal.exists() else 0,
    }.items():
        report.samples.setdefault(what, []).append(value)
