"""What is known of an image, as ImageKit's custom metadata: which fields the account has, and their values.

A value for a field that the account does not have fails the whole upload. So the fields are asked for once,
and made first where the settings allow it.
"""

import json
import math
import threading
from collections.abc import Callable
from typing import Any

from trapsync.clock import iso
from trapsync.files import failpoint
from trapsync.image import Image
from trapsync.net.http_answer import Answer

PATH = "/v1/customMetadataFields"
Ask = Callable[[str, str, bytes], Answer]

# Name, type, and label of each field: the columns of the Sticky Pi table, in their units.
FIELDS: dict[str, tuple[str, str]] = {
    "device": ("Text", "Trap"),
    "taken": ("Date", "Taken (UTC)"),
    "temp": ("Number", "Temperature (°C)"),
    "hum": ("Number", "Humidity (%)"),
    "lum": ("Number", "Light (log10 of 1 / exposure in s)"),
    "bat": ("Number", "Battery (%)"),
    "lat": ("Number", "Latitude (°)"),
    "lng": ("Number", "Longitude (°)"),
    "alt": ("Number", "Altitude (m)"),
    "but": ("Boolean", "Woken by its button"),
    "device_version": ("Text", "Version of the trap"),
}


class Fields:
    """The fields of one account, asked for when first needed; for all threads."""

    def __init__(self, ask: Ask, *, may_create: bool) -> None:
        self._ask = ask
        self._may_create = may_create
        self._lock = threading.Lock()
        self._usable: set[str] | None = None

    def values(self, image: Image) -> dict[str, Any]:
        """What can be said of an image in this account's fields. Raises Unreachable."""
        with self._lock:
            if self._usable is None:
                self._usable = self._prepared()
            return {name: value for name, value in values(image).items() if name in self._usable}

    def forget(self) -> None:
        """Ask again before the next upload: they may have been changed."""
        with self._lock:
            self._usable = None

    def missing(self) -> list[str]:
        """The names that the account has no field for, or one of another type. Makes none."""
        return sorted(set(FIELDS) - _usable(self._present()))

    def _prepared(self) -> set[str]:
        present = self._present()
        usable = _usable(present)
        for name in FIELDS if self._may_create else ():
            # One that exists with another type is not ours, and stays as it is.
            if name not in present and self._create(name):
                usable.add(name)
        return usable

    def _present(self) -> dict[str, str]:
        """Name to type of the fields that there are."""
        rows = self._ask("GET", f"{PATH}?includeDeleted=false", b"").json(list)
        return {str(row.get("name")): _type(row) for row in rows if isinstance(row, dict)}

    def _create(self, name: str) -> bool:
        kind, label = FIELDS[name]
        wanted = {"name": name, "label": label, "schema": {"type": kind}}
        answer = self._ask("POST", PATH, json.dumps(wanted).encode())
        failpoint.hit("imagekit: field made")
        if answer.status == 400:  # the name of a deleted field stays taken: then without it
            return False
        answer.json(dict, status=answer.status if answer.status in {200, 201} else 201)
        return True


def values(image: Image) -> dict[str, Any]:
    """What is known of an image, under the names of FIELDS and in their types."""
    name = image.trap_name
    known = dict(image.metadata)
    if name:
        known |= {"device": name.device, "taken": iso(name.taken)}
    return {key: known[key] for key, (kind, _) in FIELDS.items() if _fits(known.get(key), kind)}


def _fits(value: object, kind: str) -> bool:
    match kind:
        case "Number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case "Boolean":
            return isinstance(value, bool)
        case _:
            return isinstance(value, str) and 0 < len(value) <= 100


def _usable(present: dict[str, str]) -> set[str]:
    return {name for name, (kind, _) in FIELDS.items() if present.get(name) == kind}


def _type(row: dict[str, Any]) -> str:
    schema = row.get("schema")
    return str(schema.get("type")) if isinstance(schema, dict) else ""
