"""Where a document lies at a hub, in a bucket or on a broker: a slot for each address and kind, which holds the newest one.

::

    device-0123abcd.settings   group-valley.resend   all.settings    for traps
    key-0123456789abcdef.keys                                        what that key says about keys

On a broker the same are topics, `pushed/device/0123abcd/settings`, below its prefix. The hub, the operator's computer and
the trap share this.
"""

import re
from collections.abc import Sequence

from trapsync.settings.schema import DEVICE, GROUP

SLOT = re.compile(
    rf"(?:device-{DEVICE.pattern}|group-{GROUP.pattern}|all)\.(?:settings|resend)|key-[0-9a-f]{{16}}\.keys",
    re.ASCII,
)


def slot_of(to: str, kind: str) -> str:
    """The slot of an addressee: `device:0123abcd` and settings lie in `device-0123abcd.settings`."""
    return f"{to.replace(':', '-', 1)}.{kind}"


def slots_of_trap(device: str, groups: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The slots that a trap asks for. Keys come first, for what a key signs may depend on it; then the most particular."""
    places = [f"device-{device}", *(f"group-{group}" for group in groups), "all"]
    of_keys = [f"key-{key}.keys" for key in keys]
    return [*of_keys, *(f"{place}.{kind}" for place in places for kind in ("settings", "resend"))]


def topic_of(slot: str) -> str:
    """The topic of a slot, below a broker's prefix."""
    place, _, kind = slot.rpartition(".")
    return f"pushed/{place.replace('-', '/', 1)}/{kind}"


def slot_at(topic: str) -> str | None:
    """The slot of a topic; None if it is the topic of none."""
    head, _, rest = topic.partition("/")
    place, _, kind = rest.rpartition("/")
    slot = f"{place.replace('/', '-', 1)}.{kind}"
    return slot if head == "pushed" and SLOT.fullmatch(slot) and topic_of(slot) == topic else None
