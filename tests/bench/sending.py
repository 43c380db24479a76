"""One way of sending some images to a hub, in a process of its own, so that it can be put behind a slow link.

Run as a program: `python -m bench.sending` with a `Job` as JSON. It prints the seconds that it took.
"""

import hashlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import requests

import hub_server
import s3_store
from bench import pictures
from memory_context import MemoryContext
from trap_bench import Trap, examiner
from trapsync import pipeline
from trapsync.catalog.rows import Proof
from trapsync.clock import SystemClock
from trapsync.destinations import s3
from trapsync.destinations.stickypi import Settings, connect
from trapsync.runtime.upload_pool import UploadPool
from trapsync.settings.schema import Prune
from trapsync.settings.units import Duration, Size
from trapsync.spool.undecided import UndecidedFiles


@dataclass(frozen=True)
class Job:
    """So many images of so many bytes, by one way: ours, s3 (a bucket), peer, curl, or sink (bytes and nothing else).

    No two jobs may share a number from `first` on: that is the images' names.
    """

    way: str
    url: str
    token: str
    certificate: str
    folder: str
    first: int
    count: int
    size: int
    parallel: int = 1

    def run(self, where: list[str]) -> float:
        """Do it in a process; the seconds."""
        command = [*where, sys.executable, "-m", "bench.sending", json.dumps(asdict(self))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return float(done.stdout)

    def paths(self) -> list[str]:
        """Where its images lie in its folder's spool."""
        return [pictures.path(number, every=1) for number in range(self.first, self.first + self.count)]


def _connected(job: Job) -> Any:
    secret = Path(job.folder) / "password"
    secret.write_text(s3_store.SECRET if job.way == "s3" else hub_server.PASSWORD)
    secret.chmod(0o600)
    context = MemoryContext(SystemClock(always_trusted=True), time.sleep, "0a1b2c3d")
    if job.way == "s3":
        bucket = s3.Settings(
            kind="s3",
            endpoint=job.url,
            bucket="pictures",
            access_key=s3_store.ACCESS_KEY,
            secret_file=secret,
            transfers=job.parallel,
        )
        return s3.connect("home", bucket, context)
    settings = Settings(
        kind="stickypi",
        url=job.url,
        username="trap",
        password_file=secret,
        ca_file=Path(job.certificate) if job.url.startswith("https") else None,
        transfers=job.parallel,
    )
    return connect("home", settings, context)


def ours(job: Job) -> float:
    """What the daemon does in a turn of deliveries, the log-in and the question included."""
    clock = SystemClock(always_trusted=True)
    trap, destination = Trap(Path(job.folder)), _connected(job)
    lay(job)
    trap.register(destination)
    look = examiner(trap.storage.spool)
    pipeline.ingest(trap.catalog, trap.storage, job.paths(), look, UndecidedFiles(0), clock)
    began = time.monotonic()
    uploads = UploadPool(destination.settings, clock)
    turn = pipeline.deliver(trap.catalog, destination, trap.storage.spool, clock, uploads)
    took = time.monotonic() - began
    assert turn.delivered == job.count, turn
    return took


def prune(job: Job, *, is_fresh: bool) -> float:
    """Empty a card of delivered images; those that are not `is_fresh` are asked for first, as a day later."""
    clock = SystemClock(always_trusted=True)
    trap, destination = Trap(Path(job.folder)), _connected(job)
    lay(job)
    trap.register(destination)
    look = examiner(trap.storage.spool)
    paths = job.paths()
    for at in range(0, len(paths), 500):
        pipeline.ingest(trap.catalog, trap.storage, paths[at : at + 500], look, UndecidedFiles(0), clock)
    images = trap.catalog.images.on_card(0, len(paths))
    proofs = [Proof(one.id, f"md5:{one.md5}", noted=not is_fresh) for one in images]
    trap.catalog.deliveries.mark_delivered("home", proofs)
    settings = Prune(enabled=True, min_age=Duration(0), keep_free=Size(10**13))
    began = time.monotonic()
    removed = pipeline.prune(trap.catalog, trap.storage, settings, clock, [destination])
    took = time.monotonic() - began
    assert removed == job.count, removed
    return took


def peer(job: Job) -> float:
    """One after another, each over a connection of its own."""
    began = time.monotonic()
    for path in job.paths():
        file = Path(job.folder) / "spool" / path
        content = file.read_bytes()
        answer = requests.post(
            f"{job.url}/_put_new_images",
            files={file.name: (file.name, content, "image/jpeg")},
            data={f"{file.name}.md5": hashlib.md5(content).hexdigest()},
            auth=(job.token, ""),
            verify=job.certificate,
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
    return time.monotonic() - began


def curl(job: Job) -> float:
    """The same requests by curl, several at a time, over connections that stay."""
    lines = []
    for path in job.paths():
        file = Path(job.folder) / "spool" / path
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        lines += [
            f'url = "{job.url}/_put_new_images"',
            f'user = "{job.token}:"',
            f'form = "{file.name}=@{file};type=image/jpeg"',
            f'form-string = "{file.name}.md5={digest}"',
            'header = "Expect:"',
            'output = "/dev/null"',
            'write-out = "%{http_code} "',
            f'cacert = "{job.certificate}"',
            "next",
        ]
    config = Path(job.folder) / "curl"
    config.write_text("\n".join(lines[:-1]))
    parallel = ["--parallel", "--parallel-max", str(job.parallel)] if job.parallel > 1 else []
    command = ["curl", "--silent", *parallel, "--config", str(config)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.monotonic() - began
    assert done.stdout.split() == ["200"] * job.count, done
    return took


def sink(job: Job) -> float:
    """So many bytes over one connection: what the link carries at best."""
    host, port = job.url.split(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(bytes(job.count * job.size))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"."
    return time.monotonic() - began


def lay(job: Job) -> None:
    """Write the images into the spool."""
    content = pictures.of_bytes(job.size)
    for path in job.paths():
        file = Path(job.folder) / "spool" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def main() -> None:
    """Do one job."""
    job = Job(**json.loads(sys.argv[1]))
    if job.way in {"peer", "curl"}:
        lay(job)
    ways: dict[str, Callable[[Job], float]] = {
        "ours": ours,
        "s3": ours,
        "peer": peer,
        "curl": curl,
        "sink": sink,
        "prune": partial(prune, is_fresh=True),
        "prune asking": partial(prune, is_fresh=False),
    }
    print(ways[job.way](job))


if __name__ == "__main__":
    main()
