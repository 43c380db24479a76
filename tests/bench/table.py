"""The table: rows of a figure, a reference from the same run, their ratio, and the target it is held to."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is what is judged: at most `target`, or at least that where `at_least`.

    A row without a target is there to be read. `reference` says what the figure was divided by.
    """

    name: str
    what: str
    figure: float
    unit: str
    reference: str
    ratio: float
    target: float | None = None
    at_least: bool = False

    @property
    def falls_short(self) -> bool:
        """Whether the ratio misses its target."""
        if self.target is None:
            return False
        return self.ratio < self.target if self.at_least else self.ratio > self.target

    @property
    def wanted(self) -> str:
        """The target, for people."""
        if self.target is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.target:g}" + (" ✗" if self.falls_short else "")


def text(rows: Iterable[Row]) -> str:
    """The table for people, in Markdown."""
    lines = ["| name | what | figure | ÷ | ratio | target |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.name,
            row.what,
            f"{_short(row.figure)} {row.unit}",
            row.reference,
            _short(row.ratio),
            row.wanted,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plain(rows: Iterable[Row]) -> str:
    """The table as JSON: a list of rows."""
    facts: list[dict[str, Any]] = [asdict(row) | {"falls_short": row.falls_short} for row in rows]
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _short(number: float) -> str:
    """Three digits that count, never in powers of ten."""
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"
