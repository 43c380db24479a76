"""Addresses of images that need no password and expire, as presigned addresses of an S3 do."""

from typing import Any, Literal

from itsdangerous import BadData, URLSafeSerializer

from trapsync.clock import Clock, SystemClock
from trapsync.hub.database import Database

What = Literal["image", "thumbnail", "thumbnail-mini"]

LINK_LIFE = 7 * 86400  # seconds, at the least
_STEP = 3600


class Links:
    """Signs and reads what an address stands for."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._serializer = URLSafeSerializer(database.secret("key"), salt="link")

    def sign(self, number: int, what: What) -> str:
        """Stand for one file of the image with this id.

        The end is rounded up to the hour: asked twice, an image has the same address, and a client's
        cache of it holds.
        """
        until = (int(self._clock.wall()) // _STEP + 1) * _STEP + LINK_LIFE
        return str(self._serializer.dumps([number, what, until]))

    def read(self, signed: str) -> tuple[int, What] | None:
        """What an address stands for; None when it is not ours, was changed, or has expired."""
        try:
            content: Any = self._serializer.loads(signed)
        except BadData:
            return None
        number, what, until = content
        return (number, what) if self._clock.wall() < until else None
