"""Who may log in at the hub: people, the vendor's client, and each trap; roles, hashed passwords, and tokens for a day.

========  =============================================================================================
admin     everything: publish settings, invite and revoke traps, delete images
manager   upload images and annotations of any device, send heartbeats of traps without an account, read
viewer    read
trap      what is of its own device: made when the trap joins, see `enrolment`
========  =============================================================================================
"""

import functools
import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from werkzeug.security import check_password_hash, generate_password_hash

from trapsync.clock import Clock, SystemClock
from trapsync.errors import SettingsError
from trapsync.hub.database import Database
from trapsync.net.invitation import hash_of
from trapsync.settings.schema import DEVICE

Role = Literal["admin", "manager", "viewer", "trap"]
PEOPLE: tuple[Role, ...] = ("admin", "manager", "viewer")

_MOST_REMEMBERED = 10_000
_RANDOM = "sha256:"  # before the hash of a password that was drawn at random
TOKEN_LIFE = 86400  # seconds, as on the Sticky Pi server
# Good enough for the five-minute demo on loopback; anywhere else the hub refuses to start with it.
DEFAULT_NAME = DEFAULT_PASSWORD = "trapsync"  # noqa: S105


@dataclass(frozen=True, slots=True)
class User:
    """A user who has logged in with a password or a token."""

    id: int
    name: str
    role: Role

    @property
    def device(self) -> str | None:
        """The one device whose images, heartbeats and slots this account is for; None for people, who may see all."""
        return self.name if self.role == "trap" else None

    def may_see(self, device: str) -> bool:
        """Whether the images of this device, in any spelling, are for this account."""
        return self.device in {None, device.lower()}


class Accounts:
    """The users of one hub."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._remembered: set[bytes] = set()
        self._tokens: dict[bytes, _Token] = {}  # that were right before, by a keyed digest
        self._own = secrets.token_bytes(32)
        self._serializer = URLSafeTimedSerializer(
            database.secret("key"),
            salt="token",
            signer=_ClockedSigner,
            signer_kwargs={"clock": self._clock},
        )

    def add(self, name: str, password: str, role: Role = "manager") -> None:
        """Make a user, or give one that exists a new password and role: old tokens end with that.

        Raises SettingsError for an empty name or password, a name with a colon or like a trap's, or an unknown role.
        """
        if not name or ":" in name or not name.isprintable():
            raise SettingsError(f"{name!r} cannot be a user name: it must not be empty or contain a colon")
        if DEVICE.fullmatch(name):
            raise SettingsError(f"{name!r} cannot be a user name: it is written like the id of a trap")
        if not password:
            raise SettingsError(f"the password of {name!r} is empty; give one")
        if role not in PEOPLE:
            raise SettingsError(f"{role!r} is not a role; choose one of: {', '.join(PEOPLE)}")
        with self._database.writing() as connection:
            put_user(connection, name, generate_password_hash(password), role)

    def remove(self, name: str) -> None:
        """Remove a person's account: password, tokens and links end at once. Raises SettingsError for an unknown name."""
        with self._database.writing() as connection:
            sql = "DELETE FROM users WHERE name = ? AND role != 'trap'"
            if connection.execute(sql, (name,)).rowcount != 1:
                raise SettingsError(f"there is no user {name!r}; see: trapsync hub users list")

    def people(self) -> list[User]:
        """All users but the traps."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM users WHERE role != 'trap' ORDER BY name")
            return [_user(row) for row in rows]

    def names(self) -> list[str]:
        """The names of all users but the traps."""
        return [user.name for user in self.people()]

    def named(self, name: str) -> User | None:
        """The user of that name."""
        row = self._find("name", name)
        return _user(row) if row else None

    def with_default_password(self) -> list[str]:
        """The users with a default password, which everybody can know."""
        with self._database.reading() as connection:
            sql = "SELECT name, password_hash FROM users WHERE role != 'trap'"
            rows = connection.execute(sql).fetchall()
        return [
            row["name"]
            for row in rows
            if any(
                check_password_hash(row["password_hash"], known) for known in {DEFAULT_PASSWORD, row["name"]}
            )
        ]

    def recognise(self, name_or_token: str, password: str) -> User | None:
        """The user who logs in; None for a stranger. A token is given as the name, with any password."""
        return self.recognise_at_once(name_or_token, password) or self.recognise_slowly(
            name_or_token, password
        )

    def recognise_at_once(self, name_or_token: str, password: str) -> User | None:
        """The user, where a look suffices: a token, a trap's own password, or one that was right before.

        None says nothing about a person's password: see `recognise_slowly`.
        """
        if user := self._by_token(name_or_token):
            return user
        row = self._find("name", name_or_token)
        if row is None:
            return None
        stored = row["password_hash"]
        if stored.startswith(_RANDOM):
            known = hmac.compare_digest(stored, random_hash(password))
        else:
            known = self._trace(stored, password) in self._remembered
        return _user(row) if known else None

    def recognise_slowly(self, name: str, password: str) -> User | None:
        """The user with that password, whose hash takes a third of a second of a core, by design; None for a stranger.

        It takes as long for a name that is not there. One that was right is remembered: five hundred traps that
        reconnect cannot wait a minute. What is kept is a keyed digest, in memory only, and tied to the stored hash.
        """
        row = self._find("name", name)
        stored = row["password_hash"] if row else _hash_of_nobody()
        if stored.startswith(_RANDOM) or not check_password_hash(stored, password) or row is None:
            return None
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered.add(self._trace(stored, password))
        return _user(row)

    def token(self, user: User) -> tuple[str, int]:
        """A token for a day, and the unix second, on this machine's clock, when it ends."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM users WHERE id = ?", (user.id,)).fetchone()
        token = self._serializer.dumps({"id": user.id, "password": fingerprint(row["password_hash"])})
        return str(token), int(self._clock.wall()) + TOKEN_LIFE

    def _by_token(self, token: str) -> User | None:
        """The user of a token; what it says is remembered, for a trap sends it with each request."""
        trace = hmac.digest(self._own, token.encode(), "sha256")
        said = self._tokens.get(trace) or self._read(token)
        if said is None or not 0 <= self._clock.wall() - said.made <= TOKEN_LIFE:
            self._tokens.pop(trace, None)
            return None
        if len(self._tokens) >= _MOST_REMEMBERED:
            self._tokens.clear()
        self._tokens[trace] = said
        row = self._find("id", said.user)
        return _user(row) if row and said.password == fingerprint(row["password_hash"]) else None

    def _read(self, token: str) -> "_Token | None":
        """What a token says, if this hub has signed it."""
        try:
            content, made = self._serializer.loads(token, return_timestamp=True)
        except BadData:
            return None
        return _Token(content["id"], str(content.get("password")), made.timestamp())

    def _trace(self, stored: str, password: str) -> bytes:
        return hmac.digest(self._own, f"{stored}\0{password}".encode(), "sha256")

    def _find(self, column: Literal["id", "name"], value: object) -> sqlite3.Row | None:
        with self._database.reading() as connection:
            found = connection.execute(f"SELECT * FROM users WHERE {column} = ?", (value,))  # noqa: S608
            row: sqlite3.Row | None = found.fetchone()
        return row


class _Token(NamedTuple):
    user: int
    password: str  # its fingerprint
    made: float  # unix seconds of this machine's clock


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


def put_user(connection: sqlite3.Connection, name: str, password_hash: str, role: Role) -> None:
    """Make a user, or give one that exists another password and role."""
    connection.execute(
        "INSERT INTO users (name, password_hash, role) VALUES (?, ?, ?) ON CONFLICT (name) "
        "DO UPDATE SET password_hash = excluded.password_hash, role = excluded.role",
        (name, password_hash, role),
    )


def random_hash(password: str) -> str:
    """What is kept of a password that was drawn at random: to try it takes no time, and guessing it is hopeless."""
    return stored_digest(hash_of(password))


def stored_digest(digest: str) -> str:
    """The same, from its SHA-256 in hex."""
    return f"{_RANDOM}{digest}"


def fingerprint(password_hash: str) -> str:
    """Bind a token or a link to the password it was given for: a new password ends the old ones."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:12]
