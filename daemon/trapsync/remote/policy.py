"""What may be pushed to a trap, and how far: decided here and by the trap's own config file, never by who sends.

`PUSHABLE` is all that can ever be; `[remote] allow` cuts it down, `[remote.limits]` bounds the values. Nothing
in it is an address, a credential, a key, a path or a command, or deletes anything earlier than before.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from trapsync import destinations
from trapsync.errors import RefusedDocument, SettingsError
from trapsync.settings import config_file, layers, schedule
from trapsync.settings.deployment import Deployment
from trapsync.settings.layers import Files, Key
from trapsync.settings.schema import Camera, Destination, Settings, Warnings
from trapsync.trap import place

PUSHABLE = frozenset(
    {
        *(("capture", key) for key in ("every", "schedule", "format")),
        *(("camera", key) for key in ("exposure", "gain", "white_balance", "lens_position", "quality")),
        *(("camera", key) for key in ("zoom", "rotation", "resolution")),
        ("ingest", "thumbnails"),
        *(("prune", key) for key in ("min_age", "keep_free")),
        *(("warnings", key) for key in Warnings.__struct_fields__),
        *(("deployment", key) for key in Deployment.__struct_fields__),
        *(("destinations", "*", key) for key in ("every", "order", "transfers", "bandwidth")),
        *(("destinations", "*", key) for key in ("retry_initial", "retry_max")),
    }
)

# A destination must go on being tried often enough, and with room to send: no setting could bring it back otherwise.
_MAX_WAIT = 86400.0  # seconds
_MIN_BANDWIDTH = 2000  # bytes per second
_MIN_OPEN = 900  # seconds of the coming day
_MOST_SHOWN = 700  # characters
# What a picture can show, by each of these: pixels, the part of the scene, detail.
_OF_A_PICTURE: dict[str, Callable[[Camera], float]] = {
    "resolution": lambda camera: camera.resolution[0] * camera.resolution[1],
    "zoom": lambda camera: camera.zoom[2] * camera.zoom[3],
    "quality": lambda camera: camera.quality,
}

_NAME = "the remote settings"


def with_remote(files: Files, tables: dict[str, Any]) -> Settings:
    """The settings in force with these tables pushed; RefusedDocument with the code of what is wrong with them."""
    _require_destinations(tables, files.local)
    try:
        settings = files.with_remote(tables, _NAME)
        place(settings)
        new = {name: _decoded(name, table) for name, table in settings.destinations.items()}
        destinations.check_order(settings.destinations, Path(_NAME))
    except SettingsError as error:
        raise RefusedDocument("settings", str(error)) from None
    _require_allowed(tables, files.local)
    _require_within_limits(settings, files.local)
    for name, table in new.items():
        if settings.destinations[name] != files.local.destinations[name]:
            _require_open(name, table)
    return settings


def can_be_remote(key: Key) -> bool:
    """Whether this key can be pushed at all, to whatever trap."""
    is_destination = key[0] == "destinations" and len(key) == 3
    return (("destinations", "*", key[2]) if is_destination else key) in PUSHABLE


def needs_trial(tables: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether the trap could work otherwise with these tables than with those of before: texts about it change nothing."""
    return {**tables, "deployment": None} != {**before, "deployment": None}


def values(settings: Settings) -> dict[str, Any] | None:
    """What can be set remotely and is not as by default, as in the config file; None if that is too much for a heartbeat.

    Without the texts of [deployment], which are long.
    """
    tables, default = config_file.plain(settings), config_file.plain(Settings())
    found = {
        ".".join(key): value
        for key in layers.keys(tables)
        if can_be_remote(key)
        and key[0] != "deployment"
        and (value := layers.value_at(tables, key)) != layers.value_at(default, key)
    }
    return found if len(str(found)) <= _MOST_SHOWN else None


def _decoded(name: str, table: dict[str, Any]) -> Destination:
    return destinations.check(name, table, Path(_NAME)).settings


def _require_destinations(tables: dict[str, Any], local: Settings) -> None:
    """The destinations must be this trap's own: else whatever is wrong with their tables says nothing."""
    named = tables.get("destinations")
    for name in named if isinstance(named, dict) else ():
        if name not in local.destinations:
            raise RefusedDocument("forbidden", f"destinations.{name}: this trap has no such destination")


def _require_allowed(tables: dict[str, Any], local: Settings) -> None:
    for key in layers.keys(tables):
        dotted = ".".join(key)
        if not can_be_remote(key):
            raise RefusedDocument("forbidden", f"{dotted}: can never be set remotely")
        if not any(f"{dotted}.".startswith(f"{allowed}.") for allowed in local.remote.allow):
            raise RefusedDocument("forbidden", f"{dotted}: is not among this trap's remote.allow")


def _require_within_limits(new: Settings, local: Settings) -> None:
    limits, every = local.remote.limits, new.capture.every
    _require(
        every == local.capture.every or limits.min_interval <= every <= limits.max_interval,
        f"capture.every: {every:g} s is not between this trap's min_interval and max_interval, "
        f"{limits.min_interval:g} s and {limits.max_interval:g} s",
    )
    _require(
        new.prune.min_age >= local.prune.min_age and new.prune.keep_free <= local.prune.keep_free,
        "prune: images would leave the card earlier than by this trap's own settings",
    )
    for key, size in _OF_A_PICTURE.items():
        _require(
            size(new.camera) >= limits.min_picture * size(local.camera),
            f"camera.{key}: the pictures would have less than {limits.min_picture:g} of what this trap's own settings "
            "give them, its remote.limits.min_picture",
        )


def _require_open(name: str, new: Destination) -> None:
    longest = max(new.every, new.retry_initial, new.retry_max)
    _require(
        longest <= _MAX_WAIT,
        f"destinations.{name}: to wait {longest:g} s is too long; {_MAX_WAIT:g} s are the most",
    )
    _require(
        not new.bandwidth or new.bandwidth >= _MIN_BANDWIDTH,
        f"destinations.{name}.bandwidth: {new.bandwidth} B is too little; {_MIN_BANDWIDTH} B are the least",
    )


def require_awake(new: Settings, now: datetime) -> None:
    """RefusedDocument if the trap would hardly ever be awake."""
    _require(
        round(schedule.seconds_open(new.capture.schedule, place(new), now.timestamp())) >= _MIN_OPEN,
        "capture.schedule: open for less than a quarter of an hour in the coming day",
    )


def _require(claim: object, otherwise: str) -> None:
    if not claim:
        raise RefusedDocument("limits", otherwise)
