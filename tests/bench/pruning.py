"""What it costs to ask once more before images leave the card: requests and seconds, over the field's slow link.

A card of delivered images whose last confirmation is older than a day is emptied, and beside it one whose images were
confirmed within the day: the difference is the asking.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import slow_link
from bench.receiving import running
from bench.sending import Job
from bench.table import Row

_RATE, _ROUND_TRIP = 10e6, 0.1
_SIZE = 20_000  # bytes of an image: small, for the asking does not depend on it
PARALLEL = 4


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """Over the slow link, where one can be made."""
    if reason := slow_link.missing():
        print(f"prune: NOT MEASURED over a slow link: {reason}", file=sys.stderr)
        return
    images = 20 if tiny else 10_000
    rate, round_trip = (200e6, 0.005) if tiny else (_RATE, _ROUND_TRIP)
    with (
        slow_link.up(rate, round_trip) as link,
        running(folder / "far-hub", slow_link.FAR, link.far) as receiver,
    ):

        def job(way: str, where: list[str]) -> float:
            own = folder / way
            own.mkdir(parents=True)
            certificate = str(receiver.certificate)
            one = Job(way, receiver.tls, receiver.token, certificate, str(own), 0, images, _SIZE, PARALLEL)
            try:
                return one.run(where)
            finally:
                shutil.rmtree(own)

        job("curl", link.far)  # on the hub's own side: what was delivered long ago
        asked, plain, requests, carried = [], [], 0, 0
        turns = min(rounds, 3)
        for _ in range(turns):
            before, bytes_before = receiver.requests(), link.sent()
            asked.append(job("prune asking", link.near))
            requests += receiver.requests() - before
            carried += link.sent() - bytes_before
            plain.append(job("prune", link.near))
    yield from _told(images, asked, plain, requests / turns, carried / turns / images)


def _told(images: int, asked: list[float], plain: list[float], requests: float, sent: float) -> Iterator[Row]:
    least, seconds = -(-images // 512), median(asked)
    what = f"{images} images asked for again: requests, log-in included"
    yield Row("prune", what, requests, "", f"one for 512: {least}", requests / least, (least + 2) / least)
    reference = f"only removed, {median(plain):.3g} s"
    yield Row("prune", "… asked for and removed", seconds, "s", reference, seconds / median(plain))
    yield Row("prune", "… sent for each", sent, "bytes", "nothing", sent)
