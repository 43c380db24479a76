"""How images stand in the catalog's rows, and the words that its queries share."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from trapsync.errors import Unstorable
from trapsync.image import Evidence, Image, without_unknown

# The columns that make an `Image`; its deliveries may be joined to it.
IMAGE = """images.id, path, size, md5, sha256, width, height, metadata,
            images.boot_id, monotonic, wall, clock_trusted, images.clock_offset"""

TIMINGS = ("held", "confirmed", "corrected", "unsure", "released")
# Held: taken under a clock that was not synchronised, and pending nowhere until its time is put right.
HELD = "images.timing IN ('held', 'unsure')"

# An image is delivered when there is a required destination and all of them confirmed its digest, where they
# are now: a receipt of an earlier place has another key. A digest that only echoes what was sent proves nothing.
STATE = """CASE WHEN EXISTS (SELECT 1 FROM destinations WHERE active AND required)
                  AND NOT EXISTS (SELECT 1 FROM destinations AS d WHERE d.active AND d.required
                      AND NOT EXISTS (SELECT 1 FROM deliveries WHERE image_id = images.id
                          AND destination = d.key AND state = 'delivered' AND digest NOT LIKE 'echo:%'))
             THEN 'delivered' ELSE 'pending' END"""

# Whether any place that must have an image, or had to, confirmed its digest and was not found to be wrong.
HELD_SOMEWHERE = """EXISTS (SELECT 1 FROM deliveries JOIN destinations ON key = destination AND required
                    WHERE image_id = images.id AND deliveries.state = 'delivered' AND digest NOT LIKE 'echo:%')"""

# Whether an image left the card on the last word of a server of today which was not asked since.
UNASKED = """EXISTS (SELECT 1 FROM deliveries JOIN destinations ON key = destination AND active
             WHERE image_id = images.id AND deliveries.state = 'delivered' AND confirmed_boot = '')"""

# The row of `destinations` that the name :destination stands for.
KEY = """coalesce((SELECT d.key FROM destinations AS d WHERE d.name = :destination AND d.current = 1),
           :destination)"""

# Seconds until a wait of a row is over, which ends on the monotonic clock of the boot that it was set in; after a
# reboot it is served once more from its start.
WAIT_LEFT = "max(0.0, iif(wait_boot = :boot, wait_until, wait_for) - :monotonic)"


class Registered(NamedTuple):
    """A destination of the config file: what the catalog knows of it.

    `identity` is which place it is, as far as the settings say it; None where only the place can tell.
    """

    name: str
    kind: str
    required: bool
    identity: str | None = None


class Proof(NamedTuple):
    """That a destination confirmed an image: its id, the digest, and what the receipt says besides.

    `noted`: by a note beside the copy, whose bytes were not read.
    """

    image_id: int
    digest: str
    detail: Mapping[str, Any] = MappingProxyType({})
    at: str = ""
    noted: bool = False


def image_of(row: dict[str, Any]) -> Image:
    """The image that a row with the columns of `IMAGE` stands for."""
    boot_id = row["boot_id"]
    evidence = (
        None
        if boot_id is None
        else Evidence(boot_id, row["monotonic"], row["wall"], bool(row["clock_trusted"]), row["clock_offset"])
    )
    plain = {key: row[key] for key in ("id", "path", "size", "md5", "sha256", "width", "height")}
    return Image(metadata=without_unknown(json.loads(row["metadata"])), evidence=evidence, **plain)


def to_json(value: Any) -> str:
    """JSON for a column. Unstorable for what no reader of JSON takes: NaN, half a surrogate, depth without end."""
    try:
        text = json.dumps(value, allow_nan=False)
        if "\\ud" in text:  # perhaps of a surrogate that lacks its other half
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError, TypeError) as error:
        raise Unstorable(f"the catalog cannot hold a value: {type(error).__name__} in JSON") from error
    return text


def sealed_values(image: Image) -> list[Any]:
    """The values of `soundness.SEALED`, in their order."""
    seen = image.evidence
    return [
        *(image.key, image.size, image.md5, image.sha256, image.width, image.height),
        to_json(image.metadata),
        *((seen.boot_id, seen.monotonic, seen.wall, int(seen.trusted)) if seen else (None,) * 4),
    ]
