"""A status of a trap that is well, for tests of what is made of one."""

from typing import Any

import msgspec

from trapsync.status.model import Status

DEVICE = "0a5bb6f4"


def destination(at: str | None = None, age: int | None = None, refused: int = 0) -> dict[str, Any]:
    """A destination that confirmed something then."""
    return {
        "kind": "directory",
        "required": True,
        "depends_on": None,
        "hotplug": False,
        "pending": 0,
        "delivered": 1,
        "refused": refused,
        "refused_unseen": 0,
        "place": None,
        "last_delivery": at,
        "delivery_age_s": age,
        "next_attempt": None,
        "last_error": None,
    }


def status(**more: Any) -> Status:
    """A status with these fields, given as JSON has them."""
    plain = {
        "device": DEVICE,
        "name": "north slope",
        "version": "1",
        "at": "2026-06-21T20:19:15Z",
        "clock": {"trusted": True, "held": 0, "unsure": 0},
        "daemon": {"running": True},
        "disk": {"free_bytes": 10**10, "days_left": 12.5},
        "ledger": dict.fromkeys(("captured", "delivered", "pending", "quarantined", "dropped", "lost"), 3),
        "newest_image": {"name": "x.jpg", "age_s": 61.0},
        "capture": {"failures": 0, "error": None},
        "destinations": {
            "far": destination("2026-06-21T19:00:00Z", 4755, 1),
            "near": destination("2026-06-21T20:00:00Z", 1155, 1),
            "new": destination(),
        },
    }
    return msgspec.convert(plain | more, Status)
