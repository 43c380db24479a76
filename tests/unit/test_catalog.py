"""The catalog beside other processes, and with a great many rows."""

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

import drawings
from trap_bench import Memory, Trap
from trapsync.catalog import integrity
from trapsync.errors import CatalogDamaged, CatalogError, Unstorable
from trapsync.image import Found, Label
from trapsync.runtime import clock_correction
from trapsync.settings.schema import Trap as TrapSettings


def test_a_catalog_that_another_process_keeps_locked_refuses_in_our_own_words(trap: Trap) -> None:
    trap.catalog.connection._db.execute("PRAGMA busy_timeout=10").fetchall()
    other = sqlite3.connect(trap.storage.catalog)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogError, match="refuses a write: database is locked"):
        trap.catalog.facts.set("bug", 1)
    other.close()
    trap.catalog.facts.set("bug", 1)
    assert trap.catalog.facts.read().bug == 1


@pytest.mark.parametrize(
    "found",
    [Found(os.fsdecode(b"Fl\xfcgel/a.jpg"), 1, 1), Found("a.jpg", 1, 2**63), Found("a.jpg", -(2**64), 1)],
)
def test_a_value_that_sqlite_cannot_hold_is_told_apart_from_a_catalog_that_refuses(
    trap: Trap, found: Found
) -> None:
    with pytest.raises(Unstorable):
        trap.catalog.images.is_known(found)
    with pytest.raises(Unstorable, match="constraint failed"):
        trap.catalog.quarantine.add("a.jpg", None, "none", 1)  # type: ignore[arg-type]
    assert trap.catalog.connection.damage is None
    assert trap.ingest(trap.put()).new == 1


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "a\ud800", {"deep": {"\udfff": 1}}, {"n": float("nan")}]
)
def test_what_no_column_holds_as_it_is_never_comes_into_the_catalog(trap: Trap, value: Any) -> None:
    trap.register(Memory("home"))
    trap.put()
    trap.ingest()
    (image,) = trap.catalog.images.listing(None, 9)
    writes: list[Callable[[], object]] = [
        lambda: trap.catalog.facts.set("bug", value),
        lambda: trap.catalog.notes.put("home", "key", value),
        lambda: trap.catalog.deliveries.mark_delivered("home", [(image["id"], "md5:x", {"id": value})]),
        lambda: trap.catalog.labels.put("home", {image["id"]: Label("t", "done", [{"shape": value}])}),
    ]
    if not isinstance(value, dict):
        writes.append(lambda: trap.catalog.deliveries.postpone("home", image["id"], value, value))
    for write in writes:
        with pytest.raises(Unstorable):
            write()

    assert trap.catalog.connection.damage is None
    assert integrity.problem(trap.catalog.connection._db.conn) is None
    assert trap.ledger()[:3] == (1, 0, 1)


def test_no_other_process_writes_between_what_a_transaction_reads_and_what_it_writes(trap: Trap) -> None:
    other = sqlite3.connect(trap.storage.catalog, timeout=0, isolation_level=None)
    with trap.catalog.together():
        trap.catalog.facts.read()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("DELETE FROM facts")
        trap.catalog.facts.set("bug", 1)
    other.close()
    assert trap.catalog.facts.read().bug == 1


def test_only_the_mark_of_small_copies_is_not_flushed(trap: Trap) -> None:
    levels = []
    trap.catalog.connection._db.conn.set_trace_callback(
        lambda sql: levels.append(sql) if sql.startswith(("PRAGMA sync", "COMMIT")) else None
    )
    trap.put()
    trap.ingest()
    assert levels == ["COMMIT"]
    (image,) = trap.catalog.images.without_thumbnails(1)
    trap.catalog.images.mark_thumbnails({image.id: True})
    assert levels[1:] == ["PRAGMA synchronous=NORMAL", "COMMIT", "PRAGMA synchronous=FULL"]
    assert trap.catalog.connection._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert trap.catalog.images.without_thumbnails(1) == []


def test_what_is_no_news_waits_for_no_other_process(trap: Trap) -> None:
    trap.catalog.facts.set("capture", {"failures": 0})
    other = sqlite3.connect(trap.storage.catalog)
    other.execute("BEGIN IMMEDIATE")
    trap.catalog.connection._db.execute("PRAGMA busy_timeout=10").fetchall()
    trap.catalog.facts.set("capture", {"failures": 0})
    with pytest.raises(CatalogError):
        trap.catalog.facts.set("capture", {"failures": 1})
    other.close()


def test_a_reader_that_stays_holds_up_no_checkpoint_and_no_end(trap: Trap) -> None:
    trap.register(Memory())
    reader = sqlite3.connect(trap.storage.catalog)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM destinations").fetchall()
    trap.catalog.facts.set("bug", 1)
    began = time.monotonic()
    trap.catalog.connection.checkpoint()
    trap.restart()
    assert time.monotonic() - began < 4
    assert trap.catalog.facts.read().bug == 1
    reader.close()


def test_damage_that_shows_only_in_use_is_told_from_a_refusal(trap: Trap) -> None:
    for second in range(40):
        trap.put(second, seed=second % 5)
    trap.ingest()
    trap.restart()
    assert trap.catalog.connection.damage is None
    with trap.storage.catalog.open("r+b") as file:
        file.seek(4096)  # all but the first page, which holds the schema
        file.write(b"\xa5" * (trap.storage.catalog.stat().st_size - 4096))
    trap.catalog.connection._db.execute("PRAGMA shrink_memory").fetchall()
    with pytest.raises(CatalogDamaged, match="malformed"):
        trap.catalog.images.on_card(0, 99)
    assert trap.catalog.connection.damage


def test_an_image_from_the_future_is_not_the_newest(trap: Trap) -> None:
    now = int(trap.time.wall() - drawings.TAKEN.timestamp())
    trap.put(now + 90 * 86400, seed=1)
    trap.ingest()
    assert trap.catalog.images.newest() is not None  # better than none
    path = trap.put(now - 30, seed=2)
    trap.ingest()
    newest = trap.catalog.images.newest()
    assert newest
    assert newest.path == path


def test_what_the_daemon_asks_every_minute_reads_no_table_from_end_to_end(trap: Trap) -> None:
    home = Memory()
    trap.register(home)
    asked: list[str] = []
    trap.catalog.connection._db.conn.set_trace_callback(asked.append)
    trap.put(0, seed=1)
    trap.put(1, seed=2)
    trap.ingest()
    trap.deliver(home)
    trap.prune()
    trap.catalog.counts.conflicts()
    trap.catalog.counts.vanished()
    trap.catalog.images.without_thumbnails(1)
    trap.catalog.images.newest()
    trap.catalog.proofs.delivered_to("home", 0, 9)
    failures = clock_correction.Failures(trap.time)
    clock_correction.correct_times(
        trap.catalog, trap.storage, TrapSettings(), lambda _corrections: iter(()), failures
    )
    trap.catalog.times.timings()
    trap.catalog.connection._db.conn.set_trace_callback(None)
    asked = [one for one in asked if one.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE"))]
    assert len(asked) > 20
    for one in asked:
        for *_, step in trap.catalog.connection._db.execute(
            f"EXPLAIN QUERY PLAN {one.replace('Inf', '9e999')}"
        ).fetchall():
            assert step not in ("SCAN images", "SCAN deliveries"), one
