"""The ways home as the trap remembers them: how each was, told by `status`, and when silence is worth a warning.

What is remembered of a way: when it was last `reached` and `since` when it fails (unix seconds or None), and the
`error`, None if it is well.
"""

from typing import Any

from trapsync.clock import iso, utc

_OLD = 3  # intervals after which silence is worth a warning; an owner's table has the same


def described(ways: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was remembered, for `status`: moments as UTC text."""
    return {
        way: {
            "reached": iso(utc(known["reached"])) if known["reached"] else None,
            "failing_since": iso(utc(known["since"])) if known["since"] else None,
            "error": known["error"],
        }
        for way, known in ways.items()
    }


def complaint(ways: dict[str, Any], every: float, now: float) -> str | None:
    """What to warn of, if home has not been reached for a while by any way; None if all is well."""
    if not ways or any(known["error"] is None for known in ways.values()):
        return None
    silent = min(now - (known["reached"] or known["since"]) for known in ways.values())
    if silent < max(_OLD * every, 3600.0):
        return None
    error = next(iter(ways.values()))["error"]
    return f"no heartbeat went home for {silent / 3600:.0f} h: {error}"
