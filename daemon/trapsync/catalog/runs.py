"""Runs of the daemon and captures that failed: what is known of when pictures were due, and why there are none.

Nothing is written for a picture, nor for one that is due: its own row says that it was taken. `effort` makes slots and
reasons of these tables.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from trapsync.catalog.connection import Part, Transaction
from trapsync.catalog.rows import HELD
from trapsync.clock import evidence

# How a run ended: it was told to stop, it began again with other settings, the card refused, or something else failed.
Ending = Literal["stopped", "settings", "card", "failed"]
FailureReason = Literal["camera", "card"]

# Another failure of the same reason belongs to the same span if it follows within so many intervals, or seconds.
_INTERVALS, _SECONDS = 3.0, 3600.0
_PAGE = 5000  # rows of pictures in memory at a time
# Pictures of our own whose time is known: unlike those of other programs they were due by a schedule.
# The + keeps SQLite from the index by boots, where the one by time is the short one.
_CERTAIN = f"+boot_id IS NOT NULL AND NOT coalesce({HELD} OR timing = 'released', 0)"


class Schedule(NamedTuple):
    """What the settings said of captures: seconds between two, the windows, and the place that these go by."""

    every: float
    windows: tuple[str, ...]
    latitude: float
    longitude: float
    timezone: str


class Moment(NamedTuple):
    """A moment of a boot: `at` in unix seconds if that is known, and the seconds of its monotonic clock."""

    at: float | None
    monotonic: float


class Run(NamedTuple):
    """A run of the daemon; or single runs one after another, of which `boot_id` is the last one's boot.

    `schedule` is None without a camera. `ended`: an orderly end, or the newest of the single runs.
    """

    id: int
    boot_id: str
    is_single: bool
    schedule: Schedule | None
    began: Moment
    ended: Moment | None
    ending: Ending | None


class Failures(NamedTuple):
    """A span in which captures of a run failed: its first and its last failure."""

    run: int
    boot_id: str
    reason: FailureReason
    first: Moment
    last: Moment


class Runs(Part):
    """The catalog, as far as it remembers runs of the daemon."""

    _run: int | None = None
    _every = 0.0

    def begin(self, schedule: Schedule | None, *, is_single: bool) -> None:
        """A run begins. Single runs one after another share a row, as there may be hundreds a day."""
        self._every = schedule.every if schedule else 0.0
        now = self._now()
        with self._connection.transaction("begin_run") as db:
            known = _schedule_id(db, schedule) if schedule else None
            last = db.execute(
                f"""SELECT id, schedule, is_single, {_at("began", "first_boot")} IS NOT NULL FROM runs
                    ORDER BY id DESC LIMIT 1"""
            ).fetchone()
            if is_single and last and last[1:3] == (known, 1):
                self._run = int(last[0])
                self._go_on(db, now, is_placed=bool(last[3]))
                return
            row = db.execute(
                """INSERT INTO runs (boot_id, began, began_wall, began_trusted, schedule, is_single, first_boot)
                   VALUES (?, ?, ?, ?, ?, ?, ?)""",
                [*now, known, is_single, now[0]],
            )
            self._run = row.lastrowid

    def _go_on(self, db: Transaction, now: Sequence[Any], *, is_placed: bool) -> None:
        """Another single run; it is the first one as long as it is not known when that was."""
        which = "boot_id = ?, ended = ?, ended_wall = ?, ended_trusted = ?"
        db.execute(f"UPDATE runs SET {which} WHERE id = ?", [*now, self._run])
        if not is_placed:
            which = "first_boot = ?, began = ?, began_wall = ?, began_trusted = ?"
            db.execute(f"UPDATE runs SET {which} WHERE id = ?", [*now, self._run])

    def end(self, ending: Ending) -> None:
        """The run of this process ends. Not flushed by itself: the catalog is closed next, which does."""
        if self._run is None:
            return
        with self._connection.unflushed(), self._connection.transaction("end_run") as db:
            db.execute(
                """UPDATE runs SET ended = ?, ended_wall = ?, ended_trusted = ?, ending = ?
                   WHERE id = ? AND NOT is_single""",
                [*self._now()[1:], ending, self._run],
            )

    def note_failure(self, reason: FailureReason, error: str) -> None:
        """A capture failed."""
        if self._run is None:
            return
        now = self._now()
        with self._connection.transaction("note_failure") as db:
            known = db.execute(
                "SELECT id, reason, last, boot_id FROM failures WHERE run = ? ORDER BY id DESC LIMIT 1",
                [self._run],
            ).fetchone()
            longest = max(_INTERVALS * self._every, _SECONDS)
            if known and known[1] == reason and known[3] == now[0] and now[1] - known[2] <= longest:
                db.execute(
                    "UPDATE failures SET last = ?, last_wall = ?, last_trusted = ?, count = count + 1 WHERE id = ?",
                    [*now[1:], known[0]],
                )
                return
            db.execute(
                """INSERT INTO failures (run, boot_id, reason, first, first_wall, first_trusted, last, last_wall,
                       last_trusted, count, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)""",
                [self._run, now[0], reason, *now[1:], *now[1:], error],
            )

    def _now(self) -> tuple[str, float, float, bool]:
        """Boot, monotonic and wall time, and whether the wall clock is trusted."""
        seen = evidence(self._connection.clock)
        return seen.boot_id, seen.monotonic, seen.wall, seen.trusted

    # What there was

    def all(self) -> list[Run]:
        """Every run, in the order in which they began."""
        rows = self._connection.query(
            f"""SELECT runs.id, runs.boot_id, is_single, ending, began, ended,
                    {_at("began", "first_boot")} AS began_at, {_at("ended", "boot_id")} AS ended_at,
                    every, windows, latitude, longitude, timezone
                FROM runs LEFT JOIN schedules ON schedules.id = schedule ORDER BY runs.id"""
        )
        return [_run(row) for row in rows]

    def failures(self) -> list[Failures]:
        """Every span of failed captures, in the order in which they began."""
        rows = self._connection.query(
            f"""SELECT run, boot_id, reason, first, last,
                    {_at("first", "boot_id", "failures")} AS first_at, {_at("last", "boot_id", "failures")} AS last_at
                FROM failures ORDER BY id"""
        )
        return [
            Failures(
                *(row["run"], row["boot_id"], row["reason"]),
                *(Moment(row["first_at"], row["first"]), Moment(row["last_at"], row["last"])),
            )
            for row in rows
        ]

    def last_of_boot(self, boot_id: str) -> float:
        """The latest moment of a boot (seconds of its monotonic clock) from which there is anything."""
        (row,) = self._connection.query(
            """SELECT max(coalesce((SELECT max(monotonic) FROM images WHERE boot_id = :boot), 0),
                   coalesce((SELECT max(max(began, coalesce(ended, 0))) FROM runs WHERE boot_id = :boot), 0),
                   coalesce((SELECT max(last) FROM failures WHERE boot_id = :boot), 0)) AS last""",
            boot=boot_id,
        )
        return float(row["last"])

    def unsure_boots(self) -> set[str]:
        """The boots whose clock was never known to be right."""
        rows = self._connection.query(
            "SELECT boot_id FROM boots WHERE clock_offset IS NULL AND number IS NOT NULL"
        )
        return {row["boot_id"] for row in rows}

    def pictures(self, since: float, until: float) -> Iterator[float]:
        """When pictures of our own were taken whose time is known, in order (unix seconds, whole ones)."""
        last: dict[str, Any] = {"rank": since, "id": -1}
        while rows := self._connection.query(
            f"""SELECT rank, id FROM images WHERE (rank, id) > (:rank, :id) AND rank < :until AND {_CERTAIN}
                ORDER BY rank, id LIMIT {_PAGE}""",
            until=until,
            **last,
        ):
            yield from (row["rank"] for row in rows)
            last = rows[-1]

    def first_picture_before(self, until: float, silence: float) -> float | None:
        """When the first of those was taken that lead up to a moment, with never more than `silence` seconds in between."""
        before = f"FROM images WHERE rank < :until AND {_CERTAIN}"
        rows = self._connection.query(f"SELECT rank {before} ORDER BY rank DESC LIMIT 1", until=until)
        if not rows or rows[0]["rank"] < until - silence:
            return None
        (row,) = self._connection.query(
            f"""SELECT rank FROM (SELECT rank, rank - lag(rank) OVER (ORDER BY rank) AS passed {before})
                WHERE passed IS NULL OR passed > :silence ORDER BY rank DESC LIMIT 1""",
            until=until,
            silence=silence,
        )
        return float(row["rank"])

    def last_picture(self, boot_id: str, since: float, until: float) -> tuple[float, float] | None:
        """The last of these pictures in a span of a boot's monotonic clock: when it was taken, and that clock then."""
        return self._picture(f"{_CERTAIN} AND monotonic >= :since AND monotonic < :until ORDER BY monotonic DESC",
                             boot=boot_id, since=since, until=until)  # fmt: skip

    def next_picture(self, boot_id: str, after: float) -> float | None:
        """When the next one was taken in a boot, after a moment of its monotonic clock."""
        found = self._picture(
            f"{_CERTAIN} AND monotonic > :after ORDER BY monotonic", boot=boot_id, after=after
        )
        return found[0] if found else None

    def _picture(self, which: str, **values: Any) -> tuple[float, float] | None:
        rows = self._connection.query(
            f"SELECT rank, monotonic FROM images WHERE boot_id = :boot AND {which} LIMIT 1", **values
        )
        return (rows[0]["rank"], rows[0]["monotonic"]) if rows else None

    def clock_steps(self, least: float, since: float) -> list[tuple[float, float]]:
        """Between which pictures of a boot the wall clock went ahead by more than `least` seconds, from `since` on.

        The first picture is the last one before that.
        """
        return [
            (row["before"], row["rank"])
            for row in self._connection.query(
                f"""SELECT before, rank FROM (
                        SELECT rank, lag(rank) OVER boot AS before, monotonic - lag(monotonic) OVER boot AS passed
                        FROM images WHERE rank >= coalesce(
                            (SELECT max(rank) FROM images WHERE rank < :since AND {_CERTAIN}), :since) AND {_CERTAIN}
                        WINDOW boot AS (PARTITION BY boot_id ORDER BY monotonic))
                    WHERE rank - before - passed > :least""",
                least=least,
                since=since,
            )
        ]

    def counts_by_quarter(self, since: float, until: float) -> list[tuple[float, int]]:
        """How many of these were taken in each quarter of an hour: its begin, and the count."""
        return [
            (row["quarter"] * 900.0, row["n"])
            for row in self._connection.query(
                f"""SELECT CAST(floor(rank / 900) AS INTEGER) AS quarter, count(*) AS n FROM images
                    WHERE rank >= :since AND rank < :until AND {_CERTAIN} GROUP BY quarter ORDER BY quarter""",
                since=since,
                until=until,
            )
        ]

    def unsure_pictures(self) -> int:
        """How many pictures of our own there are whose time is not known."""
        (row,) = self._connection.query(
            f"SELECT count(*) AS n FROM images WHERE boot_id IS NOT NULL AND NOT ({_CERTAIN})"
        )
        return int(row["n"])

    def next_certain(self, after: float) -> float:
        """When the next of these was taken, in whatever boot; inf: none was."""
        rows = self._connection.query(
            f"SELECT rank FROM images WHERE rank > :after AND {_CERTAIN} ORDER BY rank LIMIT 1", after=after
        )
        return rows[0]["rank"] if rows else math.inf

    def battery_at(self, at: float) -> float | None:
        """What the last picture before a moment says of the battery (per cent)."""
        rows = self._connection.query(
            f"""SELECT json_extract(metadata, '$.bat') AS level FROM images
                WHERE rank <= :at AND {_CERTAIN} ORDER BY rank DESC LIMIT 1""",
            at=at,
        )
        level = rows[0]["level"] if rows else None
        return float(level) if isinstance(level, int | float) and level >= 0 else None


def _schedule_id(db: Transaction, schedule: Schedule) -> int:
    row: Sequence[Any] = (
        schedule.every,
        "\n".join(schedule.windows),
        schedule.latitude,
        schedule.longitude,
        schedule.timezone,
    )
    db.execute(
        "INSERT OR IGNORE INTO schedules (every, windows, latitude, longitude, timezone) VALUES (?, ?, ?, ?, ?)",
        row,
    )
    which = "every = ? AND windows = ? AND latitude = ? AND longitude = ? AND timezone = ?"
    return int(db.execute(f"SELECT id FROM schedules WHERE {which}", row).fetchone()[0])


def _at(moment: str, boot: str, table: str = "runs") -> str:
    """The unix seconds of a moment of a row: by what the boot's clock lacked, else by the wall clock if it was trusted."""
    return f"""coalesce((SELECT boots.clock_offset FROM boots WHERE boots.boot_id = {table}.{boot}) + {table}.{moment},
                iif({table}.{moment}_trusted, {table}.{moment}_wall, NULL))"""


def _run(row: dict[str, Any]) -> Run:
    schedule = None
    if row["every"] is not None:
        windows = tuple(row["windows"].splitlines())
        schedule = Schedule(row["every"], windows, row["latitude"], row["longitude"], row["timezone"])
    ended = None if row["ended"] is None else Moment(row["ended_at"], row["ended"])
    began = Moment(row["began_at"], row["began"])
    return Run(row["id"], row["boot_id"], bool(row["is_single"]), schedule, began, ended, row["ending"])
