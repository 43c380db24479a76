"""What follows from what, within a transaction: which images are pending where, and what state that leaves them in."""

from typing import Any

from trapsync.catalog.connection import Transaction
from trapsync.catalog.rows import HELD, HELD_SOMEWHERE, STATE


def judge_anew(db: Transaction) -> None:
    """The destinations are others than they were: what is pending where, and what counts as delivered."""
    # What is missing on the card may be at the new place: it is asked for there, too.
    make_pending(db, "(images.gone_at IS NULL OR images.state = 'pending')")
    # What has left the card as delivered stays so: a new destination cannot have it. Whether that is so of what
    # is marked to leave, only a look at the card can tell: see `withdrawn_marks`.
    db.execute(
        f"""UPDATE images SET state = {STATE} WHERE state != 'dropped' AND state != {STATE}
            AND (gone_at IS NULL OR state = 'pending')"""
    )
    # What was nowhere by the settings of before may be where it must be by those of today.
    db.execute(
        f"""UPDATE images SET state = 'delivered', gone_why = iif(gone_why = 'lost', 'pruned', gone_why)
            WHERE state = 'dropped' AND {STATE} = 'delivered'"""
    )
    db.execute(
        f"""UPDATE images SET state = 'delivered', gone_why = 'pruned'
            WHERE state = 'dropped' AND gone_why = 'lost' AND {HELD_SOMEWHERE}"""
    )
    drop_missing(db)


def make_pending(db: Transaction, which: str, *parameters: Any) -> None:
    """Make images pending for every active destination that has no delivery of them yet; not those that are held."""
    db.execute(
        f"""INSERT INTO deliveries (destination, image_id, state, rank)
            SELECT destinations.key, images.id, 'pending', images.rank FROM images, destinations
            WHERE destinations.active AND {which} AND {HELD} IS NOT TRUE ON CONFLICT DO NOTHING""",
        list(parameters),
    )


def revive(db: Transaction, image_id: int) -> None:
    """A file of this image is on the card: look for it there; it is pending wherever it was not delivered.

    One that was pruned and is put back is judged by the destinations of today.
    """
    # Any file of it that is not an uncorrected one (leaving = 2), which goes; the path stays if it is one of them.
    here = """SELECT iif(folder = '', name, folder || '/' || name) FROM files
              WHERE image_id = images.id AND leaving != 2"""
    db.execute(f"UPDATE images SET path = ({here} LIMIT 1) WHERE id = ? AND path NOT IN ({here})", [image_id])
    # Whoever puts back what was pruned may know that it is not there any more: it is asked for before it goes.
    db.execute(
        """UPDATE deliveries SET confirmed_at = NULL, confirmed_boot = NULL, confirmed_mono = NULL
           WHERE image_id = :id AND confirmed_at IS NOT NULL
           AND EXISTS (SELECT 1 FROM images WHERE id = :id AND gone_why = 'pruned')
           AND EXISTS (SELECT 1 FROM files WHERE image_id = :id AND leaving = 0)""",
        {"id": image_id},
    )
    # Only a file that is not marked to leave brings an image back: the marked one is what pruning is about to remove.
    changed = db.execute(
        """UPDATE images SET gone_at = NULL, gone_why = NULL, unasked = 0, acknowledged_at = NULL
           WHERE id = ? AND gone_at IS NOT NULL AND EXISTS
               (SELECT 1 FROM files WHERE image_id = images.id AND leaving = 0)""",
        [image_id],
    ).rowcount
    if changed:
        # Refused because it was lost and could not be sent: now it can.
        db.execute(
            """UPDATE deliveries SET state = 'pending', attempts = 0, blamed = 0, acknowledged_at = NULL
               WHERE image_id = ? AND state = 'refused' AND error LIKE '%and the card has it no longer'""",
            [image_id],
        )
        db.execute("UPDATE files SET leaving = 0 WHERE image_id = ? AND leaving = 1", [image_id])
        make_pending(db, "images.id = ?", image_id)
        db.execute(f"UPDATE images SET state = {STATE} WHERE id = ?", [image_id])


def unmark(db: Transaction, image_id: int) -> None:
    """Take back that an image is to be pruned: its file lies on the card, and stays, as it stands today."""
    db.execute("UPDATE files SET leaving = 0 WHERE image_id = ? AND leaving = 1", [image_id])
    db.execute(
        """UPDATE images SET gone_at = NULL, gone_why = NULL, unasked = 0
           WHERE id = ? AND gone_why = 'pruned'""",
        [image_id],
    )
    make_pending(db, "images.id = ?", image_id)
    db.execute(f"UPDATE images SET state = {STATE} WHERE id = ? AND state != 'dropped'", [image_id])


def drop_missing(db: Transaction, image_id: int | None = None) -> int:
    """Images (or one) that are missing on the card, and that no destination is asked for any more; how many.

    Some of them were there all the same: those are delivered. The others are dropped.
    """
    missing = f"""state = 'pending' AND gone_at IS NOT NULL AND {"1" if image_id is None else "id = ?"}
        AND NOT EXISTS (SELECT 1 FROM deliveries JOIN destinations ON key = destination AND active
                        WHERE image_id = images.id AND deliveries.state = 'pending')"""
    which = [] if image_id is None else [image_id]
    db.execute(f"UPDATE images SET state = {STATE} WHERE {missing} AND {STATE} = 'delivered'", list(which))
    # What was pruned once was everywhere, and is delivered as long as one that must have it holds it.
    db.execute(
        f"""UPDATE images SET state = 'delivered', gone_why = 'pruned'
            WHERE {missing} AND gone_why IN ('pruned', 'lost') AND {HELD_SOMEWHERE}""",
        list(which),
    )
    dropped = db.execute(
        f"""UPDATE images SET state = 'dropped', gone_why = iif(gone_why = 'pruned', 'lost', gone_why)
            WHERE {missing}""",
        list(which),
    ).rowcount
    return int(dropped)


def lose(db: Transaction, image_id: int) -> None:
    """An image that left the card is lost when no destination that must have it holds it any more."""
    db.execute(
        f"""UPDATE images SET state = 'dropped', gone_why = 'lost', unasked = 0, acknowledged_at = NULL
            WHERE id = ? AND gone_at IS NOT NULL AND state = 'delivered' AND NOT {HELD_SOMEWHERE}""",
        [image_id],
    )
