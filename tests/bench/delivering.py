"""How fast a backlog drains: to the hub on this machine beside curl, and over a slow link beside what it carries.

The slow link is the field's: 10 Mbit/s, 100 ms there and back. Its best is one long plain TCP transfer, measured in
the same turn. The peer's way is a new connection for each image, one after another.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

from bench import slow_link
from bench.receiving import Receiver, running
from bench.sending import Job
from bench.table import Row

PARALLEL = 4
_SMALL, _LARGE = 300_000, 2_000_000  # bytes of an image
_RATE, _ROUND_TRIP = 10e6, 0.1


@dataclass
class _Bench:
    """A hub to send to, and from where."""

    receiver: Receiver
    where: list[str]
    folder: Path
    names: Iterator[int] = field(default_factory=lambda: count(0, 10_000))

    def rate(self, way: str, size: int, images: int, *, parallel: int = 1, tls: bool = False) -> float:
        """Images per second."""
        first = next(self.names)
        receiver = self.receiver
        url = receiver.tls if tls else receiver.plain
        if way == "sink":
            url = "{}:{}".format(*receiver.sink)
        folder = self.folder / f"{first}"
        folder.mkdir(parents=True)
        certificate = str(receiver.certificate)
        job = Job(way, url, receiver.token, certificate, str(folder), first, images, size, parallel)
        try:
            return images / job.run(self.where)
        finally:
            shutil.rmtree(folder)


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """Loopback, then the slow link where one can be made."""
    with running(folder / "loopback-hub", "127.0.0.1", []) as receiver:
        yield from _loopback(_Bench(receiver, [], folder), rounds, 6 if tiny else 1000)
    if reason := slow_link.missing():
        print(f"deliver: NOT MEASURED over a slow link: {reason}", file=sys.stderr)
        return
    rate, round_trip = (200e6, 0.005) if tiny else (_RATE, _ROUND_TRIP)
    with (
        slow_link.up(rate, round_trip) as link,
        running(folder / "far-hub", slow_link.FAR, link.far) as receiver,
    ):
        yield from _slow(_Bench(receiver, link.near, folder / "far"), link, min(rounds, 3), tiny)


def _loopback(bench: _Bench, rounds: int, images: int) -> Iterator[Row]:
    for size in (_SMALL, _LARGE)[: 1 if images < 20 else 2]:
        n = images if size == _SMALL else images // 10
        rates: dict[str, list[float]] = {"ours": [], "curl": [], "alone": []}
        asked = 0
        for _ in range(rounds):
            before = bench.receiver.requests()
            rates["ours"].append(bench.rate("ours", size, n, parallel=PARALLEL))
            asked += bench.receiver.requests() - before
            rates["curl"].append(bench.rate("curl", size, n, parallel=PARALLEL))
            rates["alone"].append(bench.rate("curl", size, n))
        kind = f"loopback, {size / 1e6:g} MB, {PARALLEL} at a time"
        yield _faster(kind, rates, "curl", f"curl, {PARALLEL} at a time", 0.9)
        yield _faster(kind, rates, "alone", "curl, one after another", None)
        if size == _SMALL:
            each = asked / rounds / n  # the log-in and the question about all of them included
            what = f"loopback, a backlog of {n}: requests per image"
            yield Row("deliver", what, each, "requests", "one", each, 1.02)


def _slow(bench: _Bench, link: slow_link.SlowLink, rounds: int, tiny: bool) -> Iterator[Row]:
    for size, target, times in ((_SMALL, 0.90, 3.0), (_LARGE, 0.95, 1.35))[: 1 if tiny else 2]:
        n, few = (4, 2) if tiny else (120, 12) if size == _SMALL else (32, 4)
        rates: dict[str, list[float]] = {"ours": [], "plain": [], "peer": [], "best": []}
        carried = []
        for _ in range(rounds):
            before = link.sent()
            rates["ours"].append(bench.rate("ours", size, n, parallel=PARALLEL, tls=True))
            carried.append((link.sent() - before) / (n * size))
            rates["best"].append(bench.rate("sink", size, few))
            rates["peer"].append(bench.rate("peer", size, few, tls=True))
            rates["plain"].append(bench.rate("ours", size, n, parallel=PARALLEL))
        kind = f"slow link, TLS, {size / 1e6:g} MB"
        best = f"what the link carries, {median(rates['best']) * size / 1e6:.3g} MB/s"
        yield _faster(kind, rates, "best", best, target)
        yield _faster(kind, rates, "peer", "the peer's way", times)
        yield _faster(f"slow link, plain, {size / 1e6:g} MB", rates, "best", best, None, ours="plain")
        wire = median(carried)
        yield Row("deliver", f"{kind}: bytes on the wire per byte", wire, "", "the images' own", wire)


def _faster(
    what: str,
    rates: dict[str, list[float]],
    reference: str,
    words: str,
    target: float | None,
    *,
    ours: str = "ours",
) -> Row:
    ratio = median(one / other for one, other in zip(rates[ours], rates[reference], strict=True))
    reference = f"{words}, {median(rates[reference]):.3g}/s"
    return Row("deliver", what, median(rates[ours]), "images/s", reference, ratio, target, at_least=True)
