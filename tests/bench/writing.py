"""Images through capture, ingest and delivery in one process, to be watched from outside while it writes.

Run as a program: `python -m bench.writing FOLDER COUNT AT_ONCE`. It prints as JSON what it wrote to the card (bytes),
what of that were the images' own, and how many transactions changed the catalog.
"""

import json
import sys
from pathlib import Path

import drawings
from bench import pictures
from trap_bench import Memory, Trap, examiner
from trapsync import pipeline
from trapsync.files import durable, failpoint
from trapsync.jpeg.examination import thumbnails


def main() -> None:
    """Each image by itself (AT_ONCE 1: a trap with time), or so many at once (a backlog)."""
    folder, count, at_once = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    trap, home = Trap(folder), Memory("home")
    trap.register(home)
    content = pictures.picture(pictures.FIELD if count >= 32 else pictures.TINY)
    look = examiner(trap.storage.spool)
    commits = [0]
    hit = failpoint.hit

    def count_commits(name: str) -> None:
        commits[0] += name.startswith("catalog: after ")
        hit(name)

    failpoint.hit = count_commits
    # The first one makes folders and tables; then it begins.
    _bring(trap, home, look, content, [100_000])
    trap.catalog.connection.checkpoint()
    commits[0], before, copies = 0, _written(), _copies(trap)
    for first in range(0, count, at_once):
        _bring(trap, home, look, content, list(range(first, min(count, first + at_once))))
    trap.catalog.connection.checkpoint()
    facts = {
        "written": _written() - before,
        "own": count * len(content),
        "copies": _copies(trap) - copies,
        "commits": commits[0],
        "images": count,
    }
    trap.catalog.close()
    print(json.dumps(facts))


def _bring(trap: Trap, home: Memory, look: pipeline.Examiner, content: bytes, numbers: list[int]) -> None:
    """As the daemon does it: pictures, examinations in handfuls, small copies, a turn of deliveries."""
    paths = [pictures.path(number) for number in numbers]
    for path in paths:
        durable.write(trap.storage.spool / path, [content], replace=False)
    assert pipeline.ingest(trap.catalog, trap.storage, paths, look, trap.undecided, trap.time).new == len(
        paths
    )
    waiting = trap.catalog.images.without_thumbnails(len(paths))
    for image in waiting:
        thumbnails(trap.storage.spool, image.path, trap.storage.thumbnails)
    trap.catalog.images.mark_thumbnails({image.id: True for image in waiting})
    assert trap.deliver(home).delivered == len(paths)


def _copies(trap: Trap) -> int:
    return sum(file.stat().st_size for file in trap.storage.thumbnails.rglob("*.jpg"))


def _written() -> int:
    """Bytes that this process had written to a storage so far."""
    return int(Path("/proc/self/io").read_text().partition("write_bytes:")[2].split()[0])


if __name__ == "__main__":
    drawings.plain()  # loads libvips
    main()
