"""The full check of the catalog, in a process of its own: it reads every row, which takes minutes on a large one."""

import logging
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from trapsync.catalog import Catalog, integrity
from trapsync.runtime.child_process import become_child, start

log = logging.getLogger(__name__)

EVERY = 86400.0  # seconds between two looks whether a check is due
AFTER_START = 60.0  # seconds: first the trap takes pictures
_MAX_TIME = 3600.0  # seconds
_MAX_MEMORY = 256 * 10**6  # bytes of address space
_NICE = 19
_LOOK = 1.0  # seconds between two signs of life


def check(catalog: Catalog, path: Path, progress: Callable[[], object]) -> None:
    """Check the catalog; what is found marks it as damaged, and the next start rebuilds it.

    `progress` is called about every second, and may raise to end the check.
    """
    process, ours = start(_run, path, name="catalog check")
    try:
        for _ in range(int(_MAX_TIME / _LOOK)):
            if ours.poll(_LOOK):
                _heed(catalog, path, ours.recv())
                return
            progress()
        log.warning("the catalog was not checked: that takes longer than %.0f s", _MAX_TIME)
    except EOFError:
        process.join(_LOOK)
        log.warning("the catalog was not checked: its process ended (exit code %s)", process.exitcode)
    finally:
        process.kill()
        process.join(_LOOK)
        ours.close()


def _heed(catalog: Catalog, path: Path, finding: str | sqlite3.Error | None) -> None:
    if isinstance(finding, sqlite3.Error):
        log.warning("the catalog was not checked: %s", finding)
    elif finding is None:
        catalog.connection.note_checked()
    else:
        log.error(
            "%s",
            catalog.connection.found_damaged(
                f"{path}: it is damaged ({finding}); the next start rebuilds it"
            ),
        )


def _run(pipe: Connection, path: Path) -> None:
    """Check, in the child."""
    become_child()
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    with suppress(OSError):  # politeness only, and the service may not do it
        os.nice(_NICE)
    finding: str | sqlite3.Error | None
    try:
        finding = integrity.check_file(path)
    except sqlite3.Error as error:
        finding = error
    pipe.send(finding)
