"""`scripts/bench`: measure, print the table, and with --check say which ratios fall short."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from bench.table import Row, plain, text

# What can be measured, by the name for --only, in the order of the table.
MEASURED = {
    "examine": "bench.examining",
    "known": "bench.known",
    "catalog": "bench.cataloguing",
    "deliver": "bench.delivering",
    "prune": "bench.pruning",
    "rest": "bench.resting",
    "store": "bench.storing",
    "card": "bench.card",
    "pages": "bench.showing",
}


def measured(names: list[str], folder: Path, *, rounds: int, tiny: bool = False) -> Iterator[Row]:
    """The rows of the table, as they come. `tiny` is for seeing that all of it works."""
    for name in names:
        place = folder / name
        place.mkdir()
        yield from import_module(MEASURED[name]).rows(place, rounds=rounds, tiny=tiny)


def main() -> int:
    """Measure what was asked for; 1 if --check found something that falls short."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASURED, metavar="NAME", help=", ".join(MEASURED))
    parser.add_argument(
        "--rounds", type=int, default=7, help="turns of which the median is taken (default 7)"
    )
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    parser.add_argument("--check", action="store_true", help="compare the ratios with their targets")
    parser.add_argument("--tiny", action="store_true", help="small sizes: no figures, but quick")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trapsync-bench-") as name:
        rows = []
        for row in measured(asked.only or list(MEASURED), Path(name), rounds=asked.rounds, tiny=asked.tiny):
            rows.append(row)
            print(f"{row.name}: {row.what}: {row.ratio:.3g} {row.wanted}", file=sys.stderr, flush=True)
    print(plain(rows) if asked.json else text(rows))
    short = [row for row in rows if row.falls_short]
    if asked.check:
        for row in short:
            print(
                f"falls short: {row.name}: {row.what}: {row.ratio:.3g}, and not {row.wanted}", file=sys.stderr
            )
        print(f"{len(rows)} rows, {len(short)} fall short", file=sys.stderr)
    return 1 if asked.check and short else 0


if __name__ == "__main__":
    sys.exit(main())
