"""Addresses of images that need no password and expire, as presigned addresses of an S3 do."""

from collections.abc import Callable
from typing import Any, Literal

from itsdangerous import BadData, URLSafeSerializer

from trapsync.clock import Clock, SystemClock
from trapsync.hub.accounts import User, fingerprint
from trapsync.hub.database import Database

What = Literal["image", "thumbnail", "thumbnail-mini"]

LINK_LIFE = 7 * 86400  # seconds, at the least
_STEP = 3600


class Links:
    """Signs addresses of files, and reads signed ones."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._serializer = URLSafeSerializer(database.secret("key"), salt="link")

    def sign(self, number: int, what: What, user: User) -> str:
        """Make the signed part of an address, for one file of the image with this id, and the account that asks.

        It ends with the account's password. The end in time is rounded up to the hour: asked twice, an image has the
        same address, and a client's cache of it holds.
        """
        return self.signer(what, user)(number)

    def signer(self, what: What, user: User) -> Callable[[int], str]:
        """The same for many images: the account is looked at once."""
        until = (int(self._clock.wall()) // _STEP + 1) * _STEP + LINK_LIFE
        mark = self._mark(user.id)
        return lambda number: str(self._serializer.dumps([number, what, until, user.id, mark]))

    def read(self, signed: str) -> tuple[int, What] | None:
        """The image id and the kind of file of an address; None if it is not ours, was changed, or has ended."""
        try:
            content: Any = self._serializer.loads(signed)
        except BadData:
            return None
        if len(content) != 5:  # an earlier hub's, which no account's end could end
            return None
        number, what, until, user, mark = content
        is_valid = mark == self._mark(user) and self._clock.wall() < until
        return (number, what) if is_valid else None

    def _mark(self, user: int) -> str | None:
        """What an account's password is now, without telling it; None for an account that is gone."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT password_hash FROM users WHERE id = ?", (user,)).fetchone()
        return fingerprint(row["password_hash"]) if row else None
