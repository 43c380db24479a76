"""Deployments: where the trap stood and when it took pictures, from which moment until which.

The table is a list of moments: from each of them on a deployment is in force, or none, until the next one. So
deployments never overlap, and one ends in the very moment in which the next begins. What a deployment is, and its terms:
the standard Camtrap DP (camtrap-dp.tdwg.org, version 1.0.2).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from trapsync.catalog.connection import Part, Transaction
from trapsync.catalog.rows import HELD, to_json
from trapsync.clock import Clock, evidence, iso, utc
from trapsync.errors import CatalogError

Terms = dict[str, Any]
"""What the settings said at a deployment, as `settings.deployment.terms` gives it; unknown ones are not in it."""

# Another one of these is another place, or another plan: a new deployment. All others can be corrected.
_PLACE = ("latitude", "longitude", "every", "schedule")
# A name that a place gets is no other place; one that is exchanged, or taken away, is.
_NAMES = ("location_id", "location_name")
_NEAR = 1e-4  # degrees, 11 m: a picture's EXIF holds five decimals
_MOST_FOUND = (
    10_000  # deployments in images: a trap has one a day at the most, and foreign images are bounded
)
_SLICE = 5000  # images that are looked at in one query
_OURS = "boot_id IS NOT NULL AND key LIKE :device || '.%'"  # an image that this trap took
_SURE = f"(timing IS NULL OR NOT {HELD})"  # of an image: its time is known


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment. `began` and `ended` are unix seconds; `ended` is None while it goes on.

    `is_sure`: its beginning is known; else the trap's clock was not set then, and may be in time. `is_whole`: all of its
    terms are known; else the catalog was lost, and they are those that stood in its images.
    """

    id: str
    began: float
    ended: float | None
    terms: Terms
    is_sure: bool = True
    is_whole: bool = True

    def plain(self) -> dict[str, Any]:
        """As JSON has it, for programs and for the hub. Moments are UTC text."""
        return {
            "id": self.id,
            "began": iso(utc(self.began)),
            "ended": None if self.ended is None else iso(utc(self.ended)),
            "is_sure": self.is_sure,
            "is_whole": self.is_whole,
            "terms": self.terms,
        }


class _Moment(NamedTuple):
    """A moment in whole unix seconds; `boot_id` and `monotonic` while it may yet be corrected."""

    at: float
    boot_id: str | None = None
    monotonic: float | None = None


class Deployments(Part):
    """The deployments of this trap."""

    def all(self) -> list[Deployment]:
        """Every deployment, oldest first; none overlap, and only the last may have no end."""
        rows = self._connection.query("SELECT * FROM deployments ORDER BY number")
        with self._connection.refusing("read"):
            return list(_deployments(rows))

    def current(self) -> Deployment | None:
        """The deployment in force; None where the owner ended it, and before the first one."""
        known = self.all()
        return known[-1] if known and known[-1].ended is None else None

    def current_id(self) -> str | None:
        """The id of the deployment in force; None where there is none."""
        rows = self._connection.query("SELECT id FROM deployments ORDER BY number DESC LIMIT 1")
        return rows[0]["id"] if rows else None

    # By command

    def start(self, device: str, terms: Terms, at: float | None = None) -> Deployment:
        """Begin a deployment now, or at a moment of the past; it ends the one before.

        Raises CatalogError for a moment that cannot be.
        """
        self._recover(device, terms, is_begun=True)
        with self._connection.transaction("deployments") as db:
            self._begin(db, device, terms, self._given(device, at))
        return self._last()

    def end(self, device: str, at: float | None = None) -> Deployment:
        """End the deployment in force, now or at a moment of the past. Raises CatalogError."""
        with self._connection.transaction("deployments") as db:
            if self.current() is None:
                raise CatalogError("no deployment is under way; to begin one: trapsync deployment start")
            self._insert(db, None, self._given(device, at), {})
        return self._last()

    # By themselves

    def keep(self, device: str, terms: Terms) -> Deployment | None:
        """Note with which terms the trap works from now on: another place, or another plan, is another deployment.

        Other terms that change neither are corrected in the one in force. Nothing happens before `settle`, and where the
        owner ended the deployment.
        """
        current = self.current()
        if current is None or (current.terms == terms and current.is_whole):
            return current
        with self._connection.transaction("deployments") as db:
            if _is_other(current, terms):
                self._begin(db, device, terms, self._now())
            else:
                db.execute(
                    """UPDATE deployments SET terms = ?, is_whole = 1
                       WHERE number = (SELECT max(number) FROM deployments)""",
                    [to_json(terms)],
                )
        return self._last()

    def settle(self, device: str, terms: Terms) -> Deployment | None:
        """The same for a trap whose images are all in the catalog, which may be new: see that there is a deployment.

        The first one begins with the first image, or now. Those of a catalog that was lost are found in the images.
        """
        self._recover(device, terms)
        return self.keep(device, terms)

    def is_settled(self) -> bool:
        """Whether there is, or was, a deployment."""
        return bool(self._connection.query("SELECT 1 FROM deployments LIMIT 1"))

    def correct_times(self) -> int:
        """Correct when deployments began, and ended, of boots whose clock was set meanwhile; how many such moments."""
        rows = self._connection.query(
            """SELECT deployments.number, monotonic + clock_offset AS began FROM deployments JOIN boots USING (boot_id)
               WHERE clock_offset IS NOT NULL"""
        )
        if rows:
            with self._connection.transaction("deployments") as db:
                for row in rows:
                    db.execute(
                        "UPDATE deployments SET began = ?, boot_id = NULL, monotonic = NULL WHERE number = ?",
                        [float(math.floor(row["began"])), row["number"]],
                    )
        return len(rows)

    # Writing

    def _begin(self, db: Transaction, device: str, terms: Terms, moment: _Moment) -> None:
        self._insert(db, _new_id(db, device, moment), moment, terms)

    def _insert(self, db: Transaction, deployment_id: str | None, moment: _Moment, terms: Terms) -> None:
        db.execute(
            "INSERT INTO deployments (id, began, boot_id, monotonic, terms) VALUES (?, ?, ?, ?, ?)",
            [deployment_id, *moment, to_json(terms)],
        )

    def _now(self) -> _Moment:
        return _moment(self._connection.clock, self._offset(self._connection.clock.boot_id()))

    def _offset(self, boot_id: str) -> float | None:
        """What the monotonic clock of a boot lacked to the wall, if that is known."""
        rows = self._connection.query("SELECT clock_offset FROM boots WHERE boot_id = :boot", boot=boot_id)
        return rows[0]["clock_offset"] if rows else None

    def _last(self) -> Deployment:
        return self.all()[-1]

    def _given(self, device: str, at: float | None) -> _Moment:
        """The moment that a person names, where it can be; now, without one."""
        now = self._now()
        if at is None:
            return now
        if now.boot_id is not None:
            raise CatalogError("the clock is not set, so no moment of the past can be told; leave out --at")
        if at > now.at:
            raise CatalogError(f"{iso(utc(at))} is in the future; name a moment that is over")
        last = self.all()[-1:]
        floor = max([max(one.began, one.ended or 0.0) for one in last], default=-math.inf)
        if at < floor:
            raise CatalogError(f"{iso(utc(at))} is before {iso(utc(floor))}, when the last change was")
        newest = self._newest_image(device)
        if last and newest is not None and at <= newest:
            raise CatalogError(
                f"{iso(utc(at))} is before the newest picture, of {iso(utc(newest))}, which says in its EXIF to which "
                f"deployment it belongs; name a later moment"
            )
        return _Moment(float(math.floor(at)))

    def _newest_image(self, device: str) -> float | None:
        """When the newest image of this trap was taken whose time is known."""
        rows = self._connection.query(
            f"SELECT rank FROM images WHERE {_OURS} AND {_SURE} ORDER BY rank DESC LIMIT 1", device=device
        )
        return float(rows[0]["rank"]) if rows else None

    # From the images

    def _recover(self, device: str, terms: Terms, *, is_begun: bool = False) -> None:
        """In a catalog without deployments: find them in the images, or begin the first.

        `is_begun`: one is to begin anyway; then there is another first one only if there are images of before.
        """
        if self.is_settled():
            return
        found = sorted(self._in_images(device), key=lambda one: one[1].at)[-_MOST_FOUND:]
        with self._connection.transaction("deployments") as db:
            for deployment_id, moment, known in found:
                self._insert(db, deployment_id, moment, known)
            db.execute("UPDATE deployments SET is_whole = 0")
            first = self._first_moment(device) or (None if is_begun else self._now())
            if not found and first:
                self._begin(db, device, terms, first)

    def _in_images(self, device: str) -> Iterator[tuple[str, _Moment, Terms]]:
        """The deployments of this trap that its images name, with what these say of each."""
        firsts: dict[str, dict[str, Any]] = {}
        for row in self._naming_images(device):
            known = firsts.setdefault(row["deployment"], row)
            if row["rank"] < known["rank"]:
                firsts[row["deployment"]] = row
        now = self._now()
        for deployment_id, row in firsts.items():
            moment = _in_id(deployment_id) or self._moment_of(row)
            if now.boot_id is None:  # a clock that was in the future must not keep all later ones there
                moment = moment._replace(at=min(moment.at, now.at))
            yield deployment_id, moment, _terms_in(json.loads(row["metadata"]))

    def _naming_images(self, device: str) -> Iterator[dict[str, Any]]:
        """Of each slice of the images: the first of each deployment. In slices, since others wait for the catalog."""
        last = self._connection.query("SELECT coalesce(max(id), 0) AS id FROM images")[0]["id"]
        for after in range(0, last, _SLICE):
            yield from self._connection.query(
                """SELECT json_extract(metadata, '$.deployment') AS deployment, min(rank) AS rank, boot_id, monotonic,
                       timing, metadata
                   FROM images WHERE id > :after AND id <= :until AND metadata LIKE '%"deployment"%'
                   AND boot_id IS NOT NULL GROUP BY deployment HAVING substr(deployment, 1, 9) = :device || '-'""",
                after=after,
                until=after + _SLICE,
                device=device,
            )

    def _first_moment(self, device: str) -> _Moment | None:
        """When the first image of this trap was taken, as far as that is known."""
        sure, held = (
            self._connection.query(
                f"""SELECT rank, boot_id, monotonic, timing FROM images
                    WHERE {_OURS} AND {which} ORDER BY {order} LIMIT 1""",
                device=device,
            )
            for which, order in ((_SURE, "rank"), (HELD, "id"))
        )
        known = [self._moment_of(row) for row in (*sure, *held)]
        return min(known, key=lambda one: (one.boot_id is not None, one.at), default=None)

    def _moment_of(self, image: dict[str, Any]) -> _Moment:
        """When an image was taken."""
        if image["timing"] not in {"held", "unsure"}:
            return _Moment(image["rank"])
        offset = self._offset(image["boot_id"])
        if offset is not None:
            return _Moment(float(math.floor(image["monotonic"] + offset)))
        return _Moment(image["rank"], image["boot_id"], image["monotonic"])


def _deployments(rows: Sequence[dict[str, Any]]) -> Iterator[Deployment]:
    moments = _in_order([(row["began"], row["boot_id"] is None) for row in rows])
    for row, began, ended in zip(rows, moments, [*moments, None][1:], strict=True):
        if row["id"] is not None:
            terms = json.loads(row["terms"])
            yield Deployment(
                row["id"], began, ended, terms, is_sure=row["boot_id"] is None, is_whole=bool(row["is_whole"])
            )


def _in_order(moments: Sequence[tuple[float, bool]]) -> list[float]:
    """Moments of which none is before the one before it: what is sure goes first, what is not lies between."""
    known, earliest = [], -math.inf
    for at, is_sure in moments:
        earliest = max(earliest, at) if is_sure else earliest
        known.append((earliest if is_sure else at, is_sure))
    latest, bounded = math.inf, []
    for at, is_sure in reversed(known):
        latest = at if is_sure else latest
        bounded.append(min(at, latest))
    return list(accumulate(reversed(bounded), max))


def _moment(clock: Clock, offset: float | None) -> _Moment:
    """Now, by the wall clock if it can be trusted, else by what is known of this boot's."""
    seen = evidence(clock)
    is_sure = seen.trusted or offset is not None or not seen.boot_id
    at = float(math.floor(seen.wall if seen.trusted or offset is None else seen.monotonic + offset))
    return _Moment(at) if is_sure else _Moment(at, seen.boot_id, seen.monotonic)


def _is_other(known: Deployment, terms: Terms) -> bool:
    """Whether these terms are of another place, or of another plan."""
    if not known.is_whole:
        return any(
            abs(known.terms[key] - (terms.get(key) or 0.0)) > _NEAR
            for key in ("latitude", "longitude")
            if key in known.terms
        )
    is_renamed = any(known.terms.get(key) not in (None, terms.get(key)) for key in _NAMES)
    return is_renamed or any(known.terms.get(key) != terms.get(key) for key in _PLACE)


_OF_TIME = re.compile(r"[0-9a-f]{8}-(\d{8}T\d{6}Z)(?:-\d+)?", re.ASCII)


def _new_id(db: Transaction, device: str, moment: _Moment) -> str:
    """An id that no other deployment has: of the trap and the second, or of a boot and a second of it."""
    if moment.boot_id is None:
        name = f"{device}-{utc(moment.at):%Y%m%dT%H%M%SZ}"
    else:
        boot = re.sub("[^0-9A-Za-z]", "", moment.boot_id)[:8]
        name = f"{device}-boot-{boot}-{moment.monotonic:.0f}"
    taken = {row[0] for row in db.execute("SELECT id FROM deployments WHERE id IS NOT NULL")}
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(one for one in names if one not in taken)


def _in_id(deployment_id: str) -> _Moment | None:
    """The second in an id; None for one that began before the clock was set."""
    match = _OF_TIME.fullmatch(deployment_id)
    try:
        return _Moment(datetime.strptime(match[1], "%Y%m%dT%H%M%S%z").timestamp()) if match else None
    except ValueError:  # the 31st of February
        return None


def _terms_in(metadata: Mapping[str, Any]) -> Terms:
    """What an image says of its deployment."""
    place = {"latitude": "lat", "longitude": "lng", "altitude": "alt"}
    found = {term: metadata.get(key) for term, key in place.items()}
    return {term: value for term, value in found.items() if isinstance(value, float)}
