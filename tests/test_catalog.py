"""The catalog beside other processes, and with a great many rows."""

import sqlite3
import time

import pytest

from bench import Memory, Trap
from trapsync.errors import CatalogError


def test_a_catalog_that_another_process_keeps_locked_refuses_in_our_own_words(trap: Trap) -> None:
    trap.catalog._db.execute("PRAGMA busy_timeout=10").fetchall()
    other = sqlite3.connect(trap.storage.catalog)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogError, match="refuses a write: database is locked"):
        trap.catalog.set_fact("capture", 1)
    other.close()
    trap.catalog.set_fact("capture", 1)
    assert trap.catalog.facts() == {"capture": 1}


def test_a_reader_that_stays_holds_up_no_checkpoint_and_no_end(trap: Trap) -> None:
    trap.register(Memory())
    reader = sqlite3.connect(trap.storage.catalog)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM destinations").fetchall()
    trap.catalog.set_fact("capture", 1)
    began = time.monotonic()
    trap.catalog.checkpoint()
    trap.restart()
    assert time.monotonic() - began < 4
    assert trap.catalog.facts() == {"capture": 1}
    reader.close()
