"""Which traps belong to this hub: the codes that the operator made, the traps that joined with them, and those that went.

A code says which keys and groups a trap gets; the hub keeps the hash of its secret alone. A trap that joins makes its own
password, of which the hub is given the hash. It has one account, named like its device; another trap's, or that of one
that was stolen, it cannot get: a device joins once, until the operator has revoked or forgotten it, and after that only
with a code that was made later.
"""

import json
import sqlite3
from typing import Any

import msgspec

from trapsync.clock import Clock, iso, utc
from trapsync.errors import TrapsyncError, one_line
from trapsync.hub.accounts import put_user, stored_digest
from trapsync.hub.database import Database
from trapsync.net import foreign_json
from trapsync.net.invitation import DIGEST, PUBLIC_KEY, Terms, hash_of
from trapsync.settings.schema import DEVICE, GROUP, MOST_KEYS

LARGEST_REQUEST = 8 * 1024  # bytes of any body here
_MOST_USES, _MOST_DAYS = 1000, 400
_MOST_GROUPS = 20
_MOST_CODES = 1000


class NotJoined(TrapsyncError):
    """This code does not let this trap join."""


class JoinedAlready(TrapsyncError):
    """The trap has an account already, with another password."""


class NoSuchTrap(TrapsyncError):
    """The hub knows no trap, or no code, of that name."""


class BadTerms(TrapsyncError):
    """A request about traps or codes that makes no sense."""


class Invite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the operator's command asks for. `until`: unix seconds."""

    secret_hash: str
    until: float
    keys: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    images: bool = True
    uses: int = 1


class Join(msgspec.Struct, frozen=True):
    """What a trap asks that joins. `token_sha256`: the SHA-256, in hex, of the password that it made.

    `fingerprint` is the other half of the code: a slip of the pen in it shall not cost a use, nor make an account.
    """

    secret: str
    device: str
    token_sha256: str
    fingerprint: str
    name: str = ""


class Groups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The groups of a trap."""

    groups: tuple[str, ...]


class Enrolment:
    """The codes and the traps of one hub."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def invite(self, body: bytes, user: str) -> dict[str, Any]:
        """Keep a code that the operator made; `{"id": 1}`. Raises BadTerms."""
        asked = _read(body, Invite)
        now = self._clock.wall()
        _require(bool(DIGEST.fullmatch(asked.secret_hash)), "secret_hash is no SHA-256 in hex")
        _require(1 <= asked.uses <= _MOST_USES, f"a code is for 1 to {_MOST_USES} traps")
        _require(now < asked.until <= now + _MOST_DAYS * 86400, f"a code ends within {_MOST_DAYS} days")
        _require(
            len(asked.keys) <= MOST_KEYS and all(map(PUBLIC_KEY.fullmatch, asked.keys)),
            f"a trap trusts {MOST_KEYS} keys at most, written ed25519:…, as `trapsync keys new` prints them",
        )
        terms = {"keys": list(asked.keys), "groups": _groups(asked.groups), "images": asked.images}
        with self._database.writing() as connection:
            connection.execute("DELETE FROM invitations WHERE until < ?", (now,))
            (count,) = connection.execute("SELECT count(*) FROM invitations").fetchone()
            _require(count < _MOST_CODES, f"there are {count} codes; withdraw some")
            row = connection.execute(
                "INSERT INTO invitations (secret_hash, terms, uses, made, until, user) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (secret_hash) DO UPDATE SET secret_hash = excluded.secret_hash RETURNING id",
                (asked.secret_hash, json.dumps(terms), asked.uses, now, asked.until, user),
            ).fetchone()
        return {"id": row["id"]}

    def invitations(self) -> list[dict[str, Any]]:
        """The codes that can still be used, without their secrets."""
        sql = "SELECT * FROM invitations WHERE until >= ? AND used < uses ORDER BY id"
        with self._database.reading() as connection:
            return [
                {
                    "id": row["id"],
                    **json.loads(row["terms"]),
                    "uses": row["uses"],
                    "used": row["used"],
                    "made": iso(utc(row["made"])),
                    "until": iso(utc(row["until"])),
                    "user": row["user"],
                }
                for row in connection.execute(sql, (self._clock.wall(),))
            ]

    def withdraw(self, number: int) -> dict[str, Any]:
        """Have nobody join with a code from now on. Raises NoSuchTrap."""
        with self._database.writing() as connection:
            if connection.execute("DELETE FROM invitations WHERE id = ?", (number,)).rowcount != 1:
                raise NoSuchTrap(f"there is no code {number}; see: trapsync hub invite --list")
        return {"id": number}

    def join(self, body: bytes) -> dict[str, Any]:
        """Make a trap's account; what the code's terms are. Asked again, the same request has the same answer.

        Raises BadTerms, NotJoined or JoinedAlready.
        """
        asked = _read(body, Join)
        _require(bool(DEVICE.fullmatch(asked.device)), "a device is 8 hexadecimal digits in lower case")
        _require(bool(DIGEST.fullmatch(asked.token_sha256)), "token_sha256 is no SHA-256 in hex")
        stored = stored_digest(asked.token_sha256)
        with self._database.reading() as connection:  # who only guesses holds no writer up
            self._code(connection, asked.secret)
        with self._database.writing() as connection:
            code = self._code(connection, asked.secret)
            terms = json.loads(code["terms"])
            if asked.fingerprint != Terms(**terms).fingerprint():
                raise NotJoined("the end of the code is not right: copy all of it once more")
            trap = connection.execute("SELECT * FROM traps WHERE device = ?", (asked.device,)).fetchone()
            if trap and trap["ended"] is not None and code["made"] <= trap["ended"]:
                raise NotJoined(
                    f"trap {asked.device} was revoked after this code was made; a new code lets it join again"
                )
            user = connection.execute("SELECT * FROM users WHERE name = ?", (asked.device,)).fetchone()
            if user is None:
                self._enter(connection, asked, stored, code, terms)
            elif user["password_hash"] != stored:
                raise JoinedAlready(
                    f"trap {asked.device} has joined already; if its card is a new one, type at the operator's computer "
                    f"trapsync hub forget {asked.device}, and make a new code"
                )
        return {"device": asked.device, **terms}

    def traps(self) -> list[dict[str, Any]]:
        """The traps that are not forgotten: `state` is joined, revoked, or shared for one without an account of its own."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT * FROM traps WHERE NOT forgotten ORDER BY device").fetchall()
        return [_entry(row) for row in rows]

    def trap(self, device: str) -> dict[str, Any] | None:
        """The same of one trap; None for one that is not known, or was forgotten."""
        sql = "SELECT * FROM traps WHERE device = ? AND NOT forgotten"
        with self._database.reading() as connection:
            row = connection.execute(sql, (device,)).fetchone()
        return _entry(row) if row else None

    def groups(self, device: str) -> tuple[str, ...]:
        """The groups that a trap was given."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT groups FROM traps WHERE device = ?", (device,)).fetchone()
        return tuple(json.loads(row["groups"])) if row else ()

    def regroup(self, device: str, body: bytes) -> dict[str, Any]:
        """Give a trap other groups: which slots it may read. Raises BadTerms or NoSuchTrap."""
        groups = _groups(_read(body, Groups).groups)
        sql = "UPDATE traps SET groups = ? WHERE device = ? AND NOT forgotten"
        with self._database.writing() as connection:
            if connection.execute(sql, (json.dumps(groups), device)).rowcount != 1:
                raise _unknown(device)
        return {"device": device, "groups": groups}

    def revoke(self, device: str) -> dict[str, Any]:
        """Lock a trap out: a stolen one, say. It stays in the list, and its images stay. Raises NoSuchTrap."""
        return self._end(device, forgotten=False)

    def forget(self, device: str) -> dict[str, Any]:
        """Lock a trap out and show it no more: its heartbeats go, its images stay. Raises NoSuchTrap."""
        return self._end(device, forgotten=True)

    def _end(self, device: str, *, forgotten: bool) -> dict[str, Any]:
        sql = "UPDATE traps SET ended = ?, joined = NULL, forgotten = ? WHERE device = ? AND NOT forgotten"
        with self._database.writing() as connection:
            if connection.execute(sql, (self._clock.wall(), forgotten, device)).rowcount != 1:
                raise _unknown(device)
            connection.execute("DELETE FROM users WHERE name = ? AND role = 'trap'", (device,))
            if forgotten:
                connection.execute("DELETE FROM heartbeats WHERE device = ?", (device,))
        return {"device": device}

    def _code(self, connection: sqlite3.Connection, secret: str) -> sqlite3.Row:
        """The code with that secret. Raises NotJoined."""
        row: sqlite3.Row | None = connection.execute(
            "SELECT * FROM invitations WHERE secret_hash = ?", (hash_of(secret),)
        ).fetchone()
        if row is None:
            raise NotJoined(
                "this hub does not know the code, or it was withdrawn; ask its operator for another"
            )
        if row["until"] < self._clock.wall():
            raise NotJoined(f"the code ended at {iso(utc(row['until']))}; ask the hub's operator for another")
        return row

    def _enter(
        self, connection: sqlite3.Connection, asked: Join, stored: str, code: sqlite3.Row, terms: Any
    ) -> None:
        if code["used"] >= code["uses"]:
            raise NotJoined(
                f"the code was for {code['uses']} and is used up; ask the hub's operator for another"
            )
        now = self._clock.wall()
        connection.execute("UPDATE invitations SET used = used + 1 WHERE id = ?", (code["id"],))
        put_user(connection, asked.device, stored, "trap")
        connection.execute(
            "INSERT INTO traps (device, name, named, groups, joined) VALUES (?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE "
            "SET groups = excluded.groups, joined = excluded.joined, ended = NULL, forgotten = 0",
            (asked.device, one_line(asked.name, 100), now, json.dumps(terms["groups"]), now),
        )


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(foreign_json.decode(body, LARGEST_REQUEST, strict=True), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise BadTerms(f"the request makes no sense: {one_line(error, 150)}") from None


def _groups(groups: tuple[str, ...]) -> list[str]:
    _require(
        len(groups) <= _MOST_GROUPS and all(map(GROUP.fullmatch, groups)),
        "a group is written in lower case, with digits, - and _",
    )
    return list(groups)


def _require(is_true: bool, otherwise: str) -> None:
    if not is_true:
        raise BadTerms(otherwise)


def _unknown(device: str) -> NoSuchTrap:
    return NoSuchTrap(f"there is no trap {one_line(device, 20)} here; see: trapsync hub devices")


def _entry(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "device": row["device"],
        "name": row["name"],
        "named": _moment(row["named"]),
        "groups": json.loads(row["groups"]),
        "state": _state(row),
        "joined": _moment(row["joined"]),
        "ended": _moment(row["ended"]),
    }


def _state(row: sqlite3.Row) -> str:
    if row["ended"] is not None:
        return "revoked"
    return "shared" if row["joined"] is None else "joined"


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else iso(utc(seconds))
