"""Who is logged in by a browser. The cookie of a session counts on pages only, a password or token at the API only.

A cookie holds a random secret, of which the hub keeps the SHA-256. A session ends when its user logs out, after thirty
days without use, with another password, and with the account. So nothing that another site makes a browser send to the
API counts there; what it makes it send to a form lacks the form's token, which is made of the secret.
"""

import hashlib
import hmac
import re
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field

from trapsync.clock import Clock
from trapsync.hub.accounts import DEFAULT_PASSWORD, PEOPLE, User, fingerprint
from trapsync.hub.database import Database
from trapsync.net.invitation import hash_of

COOKIE = "trapsync_session"
LIFE = 30 * 86400  # seconds without use
_NOTED_EVERY = 3600.0  # seconds: a page that is only looked at writes nothing else
_MOST_EACH = 50  # sessions of one user; the oldest go
_SALT = 16  # hexadecimal digits
_SECRET = re.compile(rf"(?:^|;) *{COOKIE}=([A-Za-z0-9_-]{{43}}) *(?:;|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in. `has_default_password`: with one that everybody knows."""

    user: User
    has_default_password: bool
    used: float
    secret: str = field(repr=False)

    def form_token(self) -> str:
        """What each form of a page holds. It is different each time: a compressed page gives nothing of it away."""
        return self._salted(secrets.token_hex(_SALT // 2))

    def has_made(self, token: str) -> bool:
        """Whether this is a form's token of this session."""
        given = token.encode("utf-8", "replace")
        return hmac.compare_digest(given, self._salted(token[:_SALT]).encode("utf-8", "replace"))

    def _salted(self, salt: str) -> str:
        said = f"form {salt}".encode("utf-8", "replace")
        return f"{salt}{hmac.new(self.secret.encode(), said, hashlib.sha256).hexdigest()}"


class Sessions:
    """The sessions of one hub."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin(self, user: User, password: str) -> str:
        """Log a person in, by the password that was right; the secret for the cookie, which is always a new one."""
        secret, now = secrets.token_urlsafe(32), self._clock.wall()
        is_default = password in {DEFAULT_PASSWORD, user.name}
        with self._database.writing() as connection:
            connection.execute("DELETE FROM sessions WHERE used < ?", (now - LIFE,))
            connection.execute(
                "DELETE FROM sessions WHERE user = :user AND secret_hash NOT IN "
                "(SELECT secret_hash FROM sessions WHERE user = :user ORDER BY used DESC LIMIT :most)",
                {"user": user.id, "most": _MOST_EACH - 1},
            )
            row = connection.execute("SELECT password_hash FROM users WHERE id = ?", (user.id,)).fetchone()
            connection.execute(
                "INSERT INTO sessions (secret_hash, user, password, has_default_password, made, used) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (hash_of(secret), user.id, fingerprint(row["password_hash"]), is_default, now, now),
            )
        return secret

    def find(self, secret: str) -> Session | None:
        """The session with this secret, if it has not ended."""
        sql = (
            "SELECT users.*, sessions.* FROM sessions JOIN users ON users.id = sessions.user "
            "WHERE secret_hash = ? AND used >= ?"
        )
        known_as, oldest = hash_of(secret), self._clock.wall() - LIFE
        with self._database.reading() as connection:
            row = connection.execute(sql, (known_as, oldest)).fetchone()
        if row is None or row["role"] not in PEOPLE or row["password"] != fingerprint(row["password_hash"]):
            return None
        user = User(row["user"], row["name"], row["role"])
        return Session(user, bool(row["has_default_password"]), row["used"], secret)

    def note(self, session: Session) -> None:
        """It is in use; written down once an hour, where the disk takes that: a page is shown all the same."""
        now = self._clock.wall()
        if not 0 <= now - session.used < _NOTED_EVERY:
            with suppress(sqlite3.OperationalError), self._database.writing() as connection:
                sql = "UPDATE sessions SET used = ? WHERE secret_hash = ?"
                connection.execute(sql, (now, hash_of(session.secret)))

    def end(self, secret: str) -> None:
        """Log out."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM sessions WHERE secret_hash = ?", (hash_of(secret),))


def secret_of(cookies: str) -> str:
    """The secret in a Cookie header; empty if there is none. Whatever else is in it does not matter."""
    found = _SECRET.search(cookies)
    return found[1] if found else ""
