"""What the project's documents hold: code blocks, commands, links, and the lists of commands that are not run.

A block begins with three backquotes and its language. `sh` holds commands, one a line, each complete by itself;
`console` shows a command after `$ ` and what it prints; `toml` is a file, whose name stands in its first line; anything else
is only shown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITH_COMMANDS = [
    "README.md",
    "config/README.md",
    "config/heartbeat.md",
    "config/imagekit.md",
    "config/rclone.md",
    "config/s3.md",
    "config/scale.md",
    "config/skylab.md",
    "scripts/README.md",
    "systemd/README.md",
    "systemd/hub.md",
    "daemon/README.md",
    "daemon/trapsync/destinations/README.md",
    "daemon/trapsync/hub/README.md",
    ".github/CONTRIBUTING.md",
]
LANGUAGES = {"sh", "console", "toml", "ini", "text", ""}
LISTS = "tests/README.md"
NOT_RUN = "Commands in the documents that no test runs"
RUN_ELSEWHERE = "Commands in the documents that have a test of their own"

_FENCE = re.compile(r"^( *)```(.*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_ROW = re.compile(r"^\| `(.+?)` \| (.+) \|$")


@dataclass(frozen=True)
class Block:
    """A code block of a document; `line` is that of its fence, from 1."""

    document: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """The commands in it; a line that ends with a backslash goes on in the next one."""
        if self.language == "console":
            return [line[2:] for line in self.lines if line.startswith("$ ")]
        if self.language != "sh":
            return []
        joined = "\n".join(self.lines).replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def text_of(document: str) -> str:
    """The document."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """Its code blocks, in order."""
    found: list[Block] = []
    indent, language, start, lines = "", "", 0, list[str]()
    for number, line in enumerate(text_of(document).splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and not start:
            indent, language, start, lines = fence[1], fence[2].strip(), number, []
        elif fence:
            found.append(Block(document, start, language, tuple(lines)))
            start = 0
        elif start:
            lines.append(line.removeprefix(indent))
    assert not start, f"{document}:{start}: this code block does not end"
    return found


def prose(document: str) -> str:
    """The document without its code blocks; every other line keeps its number."""
    inside = False
    kept = []
    for line in text_of(document).splitlines():
        fence = _FENCE.match(line)
        kept.append("" if inside or fence else line)
        inside ^= bool(fence)
    return "\n".join(kept)


def without_comment(command: str) -> str:
    """The command as the lists have it: without what follows a # and with single spaces."""
    return " ".join(re.sub(r"\s#\s.*$", "", command).split())


def listed(section: str) -> dict[str, str]:
    """The rows of a table of tests/README.md: a command, and why it is not run or which test runs it."""
    _, heading, rest = text_of(LISTS).partition(f"\n# {section}\n")
    assert heading, f"{LISTS} has no section '{section}'"
    rows = (_ROW.match(line) for line in rest.partition("\n# ")[0].splitlines())
    return {row[1]: row[2] for row in rows if row}


def links(document: str) -> Iterator[str]:
    """The targets of its links and pictures, those to the web excepted."""
    for found in _LINK.finditer(prose(document)):
        target = found[1] or found[2]
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(document: str) -> set[str]:
    """What a link to one of its headings ends with, as GitHub makes it."""
    headings = re.findall(r"^#+ +(.+?)\s*$", prose(document), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}
