"""The attacks that were tried and held (`findings/security.md`), with their numbers: 0 successes each.

`tests/unit/test_tried_and_held.py` attacks at a tenth of the numbers, `scripts/torture --attacks` at full.
"""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import attacked_documents as documents
import attacked_files as files
import attacked_hub as hub
import attacked_pictures as pictures
import flooded_hub
import odd_requests


class Attack(NamedTuple):
    """One kind. `full`: how often it is made in `scripts/torture`; `share`: which part of that in the suite.

    `make` takes how often, what chance is drawn from, and an empty folder; it says in a few words what was seen.
    """

    full: int
    make: Callable[[int, random.Random, Path], str]
    share: int = 10


def _once(make: Callable[[Path], str]) -> Attack:
    """One that is made as a whole each time."""
    return Attack(1, lambda _count, _chance, folder: make(folder), 1)


def _anywhere(make: Callable[[int, random.Random], str], full: int, share: int = 10) -> Attack:
    """One that needs no folder."""
    return Attack(full, lambda count, chance, _folder: make(count, chance), share)


ATTACKS = {
    "documents altered": _anywhere(documents.altered, 60_000),
    "signatures for lax readers": _once(lambda _: documents.lax()),
    "signed bodies": Attack(15_000, documents.accepted),
    "forbidden keys": _once(documents.forbidden),
    "a link as record": _once(documents.record_that_is_a_link),
    "tokens altered": Attack(30_000, hub.altered_tokens),
    "tokens out of place": _once(hub.tokens_out_of_place),
    "out of the hub's folder": _once(hub.out_of_the_folder),
    "overwriting": _once(hub.overwriting),
    "bodies of 5 and 50 MB": Attack(50_000_000, lambda size, _chance, folder: hub.odd_bodies(size, folder)),
    "made-up requests": Attack(20_000, odd_requests.made_up, 50),
    "a flooded hub": Attack(
        3_000, lambda count, _chance, folder: flooded_hub.no_trap_is_locked_out(count, folder)
    ),
    "JPEGs": _anywhere(pictures.through_the_pool, 3_300),
    "small copies": _anywhere(pictures.thumbnails, 1_500),
    # A tenth would take two minutes of the suite.
    "blocks of EXIF": _anywhere(pictures.exif_blocks, 1_548_848, 200),
    "names of files": _once(files.names),
}


def attack(name: str, folder: Path, seed: int, *, fully: bool) -> str:
    """Make one; AssertionError where it succeeds. Returns how often, and what was seen."""
    one = ATTACKS[name]
    count = one.full if fully else one.full // one.share
    folder.mkdir()
    logging.disable(logging.CRITICAL)  # of some thousand refusals
    try:
        seen = one.make(count, random.Random(seed), folder)
    finally:
        logging.disable(logging.NOTSET)
    return f"{count:,}: {seen}" if count > 1 else seen
