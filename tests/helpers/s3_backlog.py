"""A backlog that goes to a bucket over the field's slow link: how much of what the link carries is the images' own."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import s3_store
from bench import slow_link
from bench.sending import Job

_SINK = """
import socket, sys
server = socket.create_server((sys.argv[1], 9))
print("up", flush=True)
while True:
    connection, _ = server.accept()
    while connection.recv(65536):
        pass
    connection.sendall(b".")
    connection.close()
"""


def stores_s3(
    folder: Path,
    *,
    images: int = 1000,
    size: int = 300_000,
    rate: float = 10e6,
    delay: float = 0.1,
    parallel: int = 8,
) -> float:
    """Deliver them to a SeaweedFS at the other end: how much faster or slower that was than one long plain transfer.

    Eight at a time: what each waits for its questions and answers is filled by the others then. With four, the default, it
    was 0.93, with two 0.7. 1,000 images of 0.3 MB over 10 Mbit/s take four minutes.
    """
    with (
        slow_link.up(rate, delay) as link,
        s3_store.seaweed(folder / "far", slow_link.FAR, link.far) as store,
        subprocess.Popen(
            [*link.far, sys.executable, "-c", _SINK, slow_link.FAR], stdout=subprocess.PIPE
        ) as sink,
    ):
        try:
            assert sink.stdout
            sink.stdout.readline()
            job = Job("s3", store.url, "", "", str(folder / "near"), 0, images, size, parallel=parallel)
            Path(job.folder).mkdir(parents=True)
            before = link.sent()
            seconds = job.run(link.near)
            carried = link.sent() - before
            few = max(2, images // 10)
            best = replace(job, way="sink", url=f"{slow_link.FAR}:9", count=few).run(link.near)
        finally:
            sink.kill()
    ours, plain = (n * size / took / (rate / 8) for n, took in ((images, seconds), (few, best)))
    sys.stdout.write(
        f"s3: {images} images of {size / 1e6:g} MB over {rate / 1e6:g} Mbit/s and {delay * 1000:g} ms, {parallel} at a "
        f"time, in {seconds:.1f} s: {ours:.3f} of the link, where one long plain transfer gets {plain:.3f}: "
        f"{ours / plain:.3f} of that; {carried / (images * size):.4f} bytes on the wire for each of theirs\n"
    )
    return ours / plain
