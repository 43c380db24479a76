"""The statements of a script in SQL, one by one."""

import sqlite3
from collections.abc import Iterator


def statements(script: str) -> Iterator[str]:
    """Yield each statement of a script in which a line ends at most one.

    `executescript` of sqlite3 would commit the transaction around it; that of sqlite_utils asks SQLite after each
    character whether the statement ends there, which took 70 of the 90 ms for an empty catalog.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
