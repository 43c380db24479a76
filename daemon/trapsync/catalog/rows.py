"""How images stand in the catalog's rows, and the words that its queries share."""

import json
from typing import Any

from trapsync.image import Evidence, Image

# The columns that make an `Image`; its deliveries may be joined to it.
IMAGE = """images.id, path, size, md5, sha256, width, height, metadata,
            images.boot_id, monotonic, wall, clock_trusted, images.clock_offset"""

TIMINGS = ("held", "confirmed", "corrected", "unsure", "released")
# Held: taken under a clock that was not synchronised, and owed to nobody until its time is put right.
HELD = "images.timing IN ('held', 'unsure')"

# An image is delivered when there is a required destination and all of them confirmed its digest.
STATE = """CASE WHEN EXISTS (SELECT 1 FROM destinations WHERE active AND required)
                  AND NOT EXISTS (SELECT 1 FROM destinations AS d WHERE d.active AND d.required
                      AND NOT EXISTS (SELECT 1 FROM deliveries WHERE image_id = images.id
                          AND destination = d.name AND state = 'delivered' AND digest NOT LIKE 'echo:%'))
             THEN 'delivered' ELSE 'owed' END"""


def image_of(row: dict[str, Any]) -> Image:
    """The image that a row with the columns of `IMAGE` stands for."""
    boot_id = row["boot_id"]
    evidence = (
        None
        if boot_id is None
        else Evidence(boot_id, row["monotonic"], row["wall"], bool(row["clock_trusted"]), row["clock_offset"])
    )
    plain = {key: row[key] for key in ("id", "path", "size", "md5", "sha256", "width", "height")}
    return Image(metadata=json.loads(row["metadata"]), evidence=evidence, **plain)


def sealed_values(image: Image) -> list[Any]:
    """The values of `soundness.SEALED`, in their order."""
    seen = image.evidence
    return [
        *(image.key, image.size, image.md5, image.sha256, image.width, image.height),
        json.dumps(image.metadata),
        *((seen.boot_id, seen.monotonic, seen.wall, int(seen.trusted)) if seen else (None,) * 4),
    ]
