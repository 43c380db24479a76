"""Which files are in quarantine, and why."""

from collections.abc import Iterable
from typing import Any

from trapsync.catalog.connection import Part


class Quarantine(Part):
    """The files in quarantine."""

    def add(self, path: str, kept_as: str, reason: str, size: int) -> None:
        """Record a damaged file before it is moved; saying it twice is saying it once."""
        self.correct(add=[(path, kept_as, reason, size)])

    def correct(self, *, add: Iterable[tuple[str, str, str, int]] = (), remove: Iterable[int] = ()) -> None:
        """Record files that are in quarantine (path, kept_as, reason, size), and forget rows by their ids."""
        with self._connection.transaction("correct_quarantine") as db:
            for row in add:
                db.execute(
                    """INSERT INTO quarantine (path, kept_as, reason, size, found_at) VALUES (?, ?, ?, ?, ?)
                       ON CONFLICT DO UPDATE SET reason = excluded.reason""",
                    [*row, self._connection.clock.wall()],
                )
            for row_id in remove:
                db.execute("DELETE FROM quarantine WHERE id = ?", [row_id])

    def listing(self) -> list[dict[str, Any]]:
        """What is in quarantine, oldest first."""
        return self._connection.query("SELECT * FROM quarantine ORDER BY id")

    def release(self, quarantine_id: int) -> None:
        """Forget a quarantined file: it is back in the spool, or gone."""
        self.correct(remove=[quarantine_id])
