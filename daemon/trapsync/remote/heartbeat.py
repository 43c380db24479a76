"""The heartbeat: the status, cut to what a metered link can afford."""

import json
from typing import Any

from trapsync.status.model import Status

LARGEST = 2000  # bytes of JSON
_REASONS = 5
_LONGEST = 160  # characters of one reason


def compose(status: Status, every: float) -> bytes:
    """A status as a heartbeat, in fewer than 2,000 bytes of JSON.

    Ages are in seconds and were true at `at`, which is the trap's own time, right or wrong. `every_s` is the
    time to the next one, by which a reader knows silence. What is unknown is left out.
    """
    beat = _plain(status) | {"every_s": round(every), "remote": status.plain().get("remote", {})}
    beat["reasons"] = [_cut(reason, _LONGEST) for reason in status.reasons[:_REASONS]]
    if left_out := len(status.reasons) - _REASONS:
        beat["reasons"] += [f"… and {left_out} more"] if left_out > 0 else []
    return _small(beat)


def _plain(status: Status) -> dict[str, Any]:
    destinations, plain = status.destinations.values(), status.plain()
    beat: dict[str, Any] = {
        "schema": 1,
        "device": status.device,
        "name": _cut(status.name, 60),
        "version": status.version,
        "at": status.at,
        "verdict": status.verdict,
        "newest_image": plain["newest_image"],
        "deployment": _deployment(status),
        "schedule_open": status.schedule.open if status.schedule else None,
        "next_picture_s": _next_picture(status),
        "last_night": plain.get("last_night"),
        "newest_delivery": max((d.last_delivery for d in destinations if d.last_delivery), default=None),
        "newest_delivery_age_s": min(
            (d.delivery_age_s for d in destinations if d.delivery_age_s is not None), default=None
        ),
        "ledger": plain["ledger"],
        "refused": sum(d.refused for d in destinations),
        "disk": plain["disk"],
        "not_taken_in": sum(one.count for one in status.not_taken_in if one.kind != "left_alone"),
        "capture_failures": status.capture.failures if status.capture else 0,
        "clock": plain["clock"],
        "battery": status.battery,
        "battery_days": status.battery_days,
    }
    return {key: value for key, value in beat.items() if value is not None}


def _deployment(status: Status) -> dict[str, str] | None:
    """The deployment that is under way."""
    one = status.deployment
    return {"id": one.id, "since": one.since} if one and not one.ended else None


def _next_picture(status: Status) -> int | None:
    """Seconds from `at` until the next picture is due."""
    left = status.schedule.until_next(status.at) if status.schedule else None
    return None if left is None else round(left)


def _small(beat: dict[str, Any]) -> bytes:
    """Encode it; what does not fit is cut, the longest text first. What counts is numbers, and they fit."""
    longest = _LONGEST
    data = _encoded(beat)
    while len(data) > LARGEST and longest > 10:
        longest //= 2
        data = _encoded(_shortened(beat, longest))
    return data


def _shortened(value: Any, longest: int) -> Any:
    if isinstance(value, dict):
        return {key: inner if key == "id" else _shortened(inner, longest) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner, longest) for inner in value]
    # A hash is of use whole or not at all, and always has its 64 characters.
    return _cut(value, longest) if isinstance(value, str) and len(value) != 64 else value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _encoded(beat: dict[str, Any]) -> bytes:
    return json.dumps(beat, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
