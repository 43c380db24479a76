"""Which reports the hub holds, as it said; see `net.reports`."""

from collections.abc import Iterable
from typing import NamedTuple

from trapsync.catalog.connection import Part

MOST = 25_000  # rows; a hub that names more than it may is not to fill the card


class Known(NamedTuple):
    """The hub that was asked last, by its id, and the number up to which it has said what it holds."""

    hub: str
    number: int


class HeldReport(NamedTuple):
    """A report that the hub holds, by the SHA-256 of its line in hex."""

    kind: str
    key: str
    sha256: str


class Reports(Part):
    """The catalog, as far as reports to the hub go. It remembers one hub at a time."""

    def known(self) -> Known | None:
        """What is known of the hub; None: none has been asked yet."""
        rows = self._connection.query("SELECT hub, number FROM reports_hub")
        return Known(rows[0]["hub"], rows[0]["number"]) if rows else None

    def held(self) -> dict[tuple[str, str], str]:
        """The digests of the reports that the hub holds, by kind and key."""
        rows = self._connection.query("SELECT kind, key, sha256 FROM reports")
        return {(row["kind"], row["key"]): row["sha256"] for row in rows}

    def note(self, known: Known, held: Iterable[HeldReport]) -> None:
        """Remember what the hub said, in one commit; nothing is written where it said nothing new.

        All that was remembered goes if it is another hub, or one that says less than before: it was put back to an older
        copy.
        """
        before = self.known()
        if known == before:
            return
        with self._connection.transaction("note_reports") as db:
            if before and (known.hub != before.hub or known.number < before.number):
                db.execute("DELETE FROM reports")
            for one in held:
                db.execute(
                    "INSERT OR REPLACE INTO reports SELECT ?, ?, ? WHERE (SELECT count(*) FROM reports) < ?",
                    [*one, MOST],
                )
            db.execute("INSERT OR REPLACE INTO reports_hub VALUES (1, ?, ?)", list(known))
