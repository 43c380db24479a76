"""A whole trap with a real catalog that is killed (SIGKILL) at a failpoint of a destination, and started again.

The other end lives on in the test's own process, as a server would::

    program = Program(folder, {"service": {"kind": "imagekit", ...}})
    program.lay_in([path, ...])
    assert program.killed_at("imagekit: uploaded", 1)
    assert program.deliver() == 0
"""

import importlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

import drawings
import trap_bench as bench
from trapsync import pipeline, trap
from trapsync.files import failpoint
from trapsync.jpeg.examination import thumbnails
from trapsync.runtime.destination_context import check_all, connect_all
from trapsync.settings import config_file
from trapsync.spool.undecided import UndecidedFiles

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["every_step", "killed_trap"])


class Program:
    """The trap's folder; every run is a process of its own."""

    def __init__(self, folder: Path, tables: dict[str, dict[str, Any]]) -> None:
        self.spool = folder / "spool"
        self.spool.mkdir(parents=True)
        self.config = folder / "trapsync.toml"
        config = {
            "trap": {"device": drawings.DEVICE, "clock": "trusted"},
            "storage": {"spool": "spool", "state": "state", "min_free": "0 B"},
            "camera": {"kind": "none"},
            "destinations": tables,
        }
        self.config.write_text(tomli_w.dumps(config))

    def lay_in(self, images: Iterable[Path]) -> None:
        """Put copies of these files into its spool."""
        for path in images:
            shutil.copy2(path, self.spool / path.name)

    def deliver(self) -> int:
        """A turn to each destination, in their order; how many images are pending after it. Fails if it dies."""
        code = self._run("")
        assert 0 <= code < 100, f"it ended with {code}"
        return code

    def killed_at(self, name: str, nth: int) -> bool:
        """The same, armed. Whether it came to the n-th hit, and died there."""
        return self._run(f"{name}#{nth}") == -signal.SIGKILL

    def _run(self, order: str) -> int:
        process = _forks.Process(target=_live, args=(self.config, order))
        process.start()
        process.join(60)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode


def _live(config: Path, order: str) -> None:
    os.environ[failpoint.VARIABLE] = order
    importlib.reload(failpoint)
    pending = 100
    try:
        pending = _deliver(config)
    finally:
        os._exit(min(pending, 100))


def _deliver(config: Path) -> int:
    values = config_file.load(config)
    clock = trap.system_clock(values)
    with trap.lock(values.storage.state):
        catalog = trap.open_catalog(values, clock)
        checked = check_all(values, config)
        connected = connect_all(values, checked, catalog, clock, lambda _seconds: None)
        catalog.places.register((one.name, one.settings.kind, one.settings.required) for one in connected)
        found: list[str] = []
        spool = values.storage.spool
        pipeline.sweep(catalog, values.storage, found.append)
        pipeline.ingest(catalog, values.storage, found, bench.examiner(spool), UndecidedFiles(0), clock)
        for image in catalog.images.without_thumbnails(100):
            thumbnails(spool, image.path, values.storage.thumbnails)
            catalog.images.mark_thumbnails({image.id: True})
        for one in connected:
            pipeline.deliver(catalog, one, spool, clock, bench.OneByOne())
            one.close()
        pending = sum(row["pending"] for row in catalog.counts.destinations())
        catalog.close()
    return int(pending)
