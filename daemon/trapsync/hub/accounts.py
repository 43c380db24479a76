"""The users of the hub: roles, hashed passwords, and tokens."""

import functools
import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal, get_args

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from trapsync.clock import Clock, SystemClock
from trapsync.errors import SettingsError
from trapsync.hub.database import Database

Role = Literal["admin", "read-write", "read-only"]

_MOST_REMEMBERED = 10_000
TOKEN_LIFE = 86400  # seconds, as on the Sticky Pi server
# Good enough for the five-minute demo on loopback; anywhere else the hub refuses to start with it.
DEFAULT_NAME = DEFAULT_PASSWORD = "trapsync"  # noqa: S105


@dataclass(frozen=True, slots=True)
class User:
    """A user who has logged in with a password or a token."""

    id: int
    name: str
    role: Role


class Accounts:
    """The users of one hub."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._remembered: set[bytes] = set()
        self._own = secrets.token_bytes(32)
        self._serializer = URLSafeTimedSerializer(
            database.secret("key"),
            salt="token",
            signer=_ClockedSigner,
            signer_kwargs={"clock": self._clock},
        )

    def add(self, name: str, password: str, role: Role = "read-write") -> None:
        """Make a user, or give one that exists a new password and role: old tokens end with that.

        Raises SettingsError for an empty name or password, a name with a colon, or an unknown role.
        """
        if not name or ":" in name:
            raise SettingsError(f"{name!r} cannot be a user name: it must not be empty or contain a colon")
        if not password:
            raise SettingsError(f"the password of {name!r} is empty; give one")
        if role not in get_args(Role):
            raise SettingsError(f"{role!r} is not a role; choose one of: {', '.join(get_args(Role))}")
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO users (name, password_hash, role) VALUES (?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role",
                (name, generate_password_hash(password), role),
            )

    def names(self) -> list[str]:
        """The names of all users."""
        with self._database.reading() as connection:
            return [row["name"] for row in connection.execute("SELECT name FROM users ORDER BY name")]

    def named(self, name: str) -> User | None:
        """The user of that name."""
        row = self._find("name", name)
        return _user(row) if row else None

    def with_default_password(self) -> list[str]:
        """The users with a default password, which everybody can know."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT name, password_hash FROM users").fetchall()
        return [
            row["name"]
            for row in rows
            if any(
                check_password_hash(row["password_hash"], known) for known in {DEFAULT_PASSWORD, row["name"]}
            )
        ]

    def recognise(self, name_or_token: str, password: str) -> User | None:
        """The user who logs in; None for a stranger. A token is given as the name, with any password."""
        return self._by_token(name_or_token) or self._by_password(name_or_token, password)

    def token(self, user: User) -> tuple[str, int]:
        """A token for a day, and the unix second, on this machine's clock, when it ends."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM users WHERE id = ?", (user.id,)).fetchone()
        token = self._serializer.dumps({"id": user.id, "password": _fingerprint(row["password_hash"])})
        return str(token), int(self._clock.wall()) + TOKEN_LIFE

    def _by_token(self, token: str) -> User | None:
        try:
            content = self._serializer.loads(token, max_age=TOKEN_LIFE)
        except BadData:
            return None
        row = self._find("id", content["id"])
        if row is None or content.get("password") != _fingerprint(row["password_hash"]):
            return None
        return _user(row)

    def _by_password(self, name: str, password: str) -> User | None:
        row = self._find("name", name)
        stored = row["password_hash"] if row else _hash_of_nobody()
        known = self._is_remembered(stored, password) or self._matches(stored, password)
        return _user(row) if row and known else None

    def _matches(self, stored: str, password: str) -> bool:
        """Check a password against its hash, which takes a tenth of a second of a core, by design."""
        if not check_password_hash(stored, password):
            return False
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered.add(self._trace(stored, password))
        return True

    def _is_remembered(self, stored: str, password: str) -> bool:
        """Whether this password was right before: five hundred traps that reconnect cannot wait a minute.

        What is kept is a keyed digest, in memory only, and tied to the stored hash: a new password ends it.
        A wrong one takes as long as ever.
        """
        return self._trace(stored, password) in self._remembered

    def _trace(self, stored: str, password: str) -> bytes:
        return hmac.digest(self._own, f"{stored}\0{password}".encode(), "sha256")

    def _find(self, column: Literal["id", "name"], value: object) -> sqlite3.Row | None:
        with self._database.reading() as connection:
            found = connection.execute(f"SELECT * FROM users WHERE {column} = ?", (value,))  # noqa: S608
            row: sqlite3.Row | None = found.fetchone()
        return row


class _ClockedSigner(TimestampSigner):
    """Take the time from the given clock; itsdangerous would ask the machine."""

    def __init__(self, *args: Any, clock: Clock, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._clock = clock

    def get_timestamp(self) -> int:
        """Unix seconds."""
        return int(self._clock.wall())


@functools.cache
def _hash_of_nobody() -> str:
    """A hash for unknown names: checking against it takes as long as checking a real one."""
    return generate_password_hash("")


def _user(row: sqlite3.Row) -> User:
    return User(row["id"], row["name"], row["role"])


def _fingerprint(password_hash: str) -> str:
    """Bind a token to the password it was given for: a new password ends the old tokens."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:12]
