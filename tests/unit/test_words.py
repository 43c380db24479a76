"""The words that users see: retired words and phrases of DESIGN 2 and users.md 3 stay out of every text for people.

`python tests/unit/test_words.py` lists each place that is left, and prints the table NOT_YET anew.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "daemon" / "trapsync"

# A retired word or phrase, and what to say instead.
RETIRED = {
    r"errands?": "single run; runs on a timer (`trapsync once`)",
    r"from afar|settings of afar": "remote settings; remotely",
    r"by hand": "manually; a local override; from a file",
    r"(?:are|is) undone|were undone|was undone": "rolled back",
    r"out of reach": "unreachable",
    r"nobody knows": "unknown",
    r"ow(?:e|es|ed|ing)\b(?! to)": "pending",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"desks?": "operator; fleet commands",
    r"way home|ways home|home by|went home|homewards": "hub; uplink",
    r"rhythms?": "interval, schedule",
    r"burn(?:s|ed|t|ing)?": "the LED is on; write an SD card",
    r"lamps?": "LED, light",
    r"huts?": "field station",
    r"(?:is|are|all|looks?) well(?! known)|: well": "OK, valid, correct",
    r"no such images": "no image is pending",
    r"a flush takes": "write latency (fsync)",
    r"refuses this account": "login rejected (401)",
    r"refuses the connection": "connection refused",
    r"handed in": "submitted, queued",
    r"whoever stands at": "local settings take precedence",
    r"(?:its|doctor's|leaves a|last) word": "report, result, status",
    r"away with it|takes the program away": "uninstall, remove",
    r"goes back by itself": "rolls back automatically",
    r"take them up": "apply the settings",
    r"eats": "deletes, overwrites",
    r"lies in http": "published number … for …",
    r"of somebody's own|in his hand": "say who, plainly",
}
PATTERNS = {
    re.compile(rf"(?<![\w./-])(?:{words})(?![\w-])", re.IGNORECASE): say for words, say in RETIRED.items()
}

# What is still to be said anew: a file, and how many places of it. Lower a number whenever you can; never raise one.
NOT_YET: dict[str, int] = {}


class Place(NamedTuple):
    """A text that users see, and where it stands."""

    path: str
    line: int
    text: str


# ── Texts of the program ─────────────────────────────────────────────────────────────────────────────

_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|PRAGMA|WHERE)\b")


def texts_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every text of a module with a space in it, and the help of its commands. Other docstrings and SQL are not shown."""
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            first = node.body[0]
            assert isinstance(first, ast.Expr)
            docstrings.add(first.value)
            if isinstance(node, ast.FunctionDef) and is_command(node):
                yield first.lineno, ast.get_docstring(node) or ""
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr):
            continue
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)  # type: ignore[misc]
        elif (
            isinstance(node, ast.Constant) and node not in docstrings | inner and isinstance(node.value, str)
        ):
            text = node.value
        if " " in text and not _SQL.search(text):
            yield node.lineno, text


def is_command(function: ast.FunctionDef) -> bool:
    """Whether click shows its docstring."""
    decorators = [ast.unparse(one) for one in function.decorator_list]
    return any(".command(" in one or ".group(" in one for one in decorators)


# ── Texts of other files ─────────────────────────────────────────────────────────────────────────────


def texts_of_prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a document, without what stands in backticks: keys, commands, names."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, re.sub(r"`[^`]*`", "…", line)


def texts_of_comments(text: str) -> Iterator[tuple[int, str]]:
    """The comments of a config file."""
    yield from ((n, line) for n, line in enumerate(text.splitlines(), 1) if line.startswith("#"))


def texts_of_script(text: str) -> Iterator[tuple[int, str]]:
    """What a shell script prints: texts in quotes with a space in them, outside comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#"):
            quoted = re.findall(r"'([^']* [^']*)'|\"([^\"]* [^\"]*)\"", line)
            yield from ((number, one or other) for one, other in quoted)


def places() -> Iterator[Place]:
    """Every text for users."""

    def of(path: Path, found: Iterator[tuple[int, str]]) -> Iterator[Place]:
        yield from (Place(str(path.relative_to(ROOT)), line, text) for line, text in found)

    for path in sorted(PROGRAM.rglob("*.py")):
        yield from of(path, texts_of(ast.parse(path.read_text(encoding="utf-8"))))
    rooms = ("scripts", "systemd", "daemon/trapsync/hub")
    documents = (ROOT / "README.md", *(ROOT / one / "README.md" for one in rooms))
    for path in (*documents, *sorted((ROOT / "config").glob("*.md"))):
        yield from of(path, texts_of_prose(path.read_text(encoding="utf-8")))
    for path in sorted((ROOT / "config").glob("*.toml")):
        yield from of(path, texts_of_comments(path.read_text(encoding="utf-8")))
    for path in sorted([*(ROOT / "scripts").iterdir(), *(ROOT / "systemd").iterdir()]):
        if path.is_file() and path.read_bytes().startswith(b"#!") and b"sh\n" in path.read_bytes()[:30]:
            yield from of(path, texts_of_script(path.read_text(encoding="utf-8")))


def retired_in(place: Place) -> Iterator[str]:
    """What is wrong with a text, each in one line."""
    for pattern, say in PATTERNS.items():
        for found in pattern.finditer(place.text):
            line = place.line + place.text.count("\n", 0, found.start())
            yield f"{place.path}:{line}: {found[0]!r}: say {say}"


def left() -> dict[str, list[str]]:
    """Every use of a retired word, by file."""
    found: dict[str, list[str]] = {}
    for place in places():
        for one in retired_in(place):
            found.setdefault(place.path, []).append(one)
    return found


def test_users_see_no_retired_word() -> None:
    more = [line for path, lines in left().items() if len(lines) > NOT_YET.get(path, 0) for line in lines]
    assert more == [], "say it in the words of DESIGN 2"


def test_what_is_not_yet_done_stands_in_files_that_are_there() -> None:
    assert [path for path in NOT_YET if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ('log.warning("%s is out of reach", x)', 1),
        ('raise Error(\n    f"{x} is out of reach"\n)', 2),
        ('@click.command()\ndef go():\n    """Go.\n\n    It is out of reach.\n    """', 5),
    ],
)
def test_a_retired_word_is_found_where_it_stands(code: str, line: int) -> None:
    texts = list(texts_of(ast.parse(code)))
    found = [one for number, text in texts for one in retired_in(Place("a.py", number, text))]
    assert found == [f"a.py:{line}: 'out of reach': say unreachable"]


@pytest.mark.parametrize(
    "code", ['"""It is out of reach."""', 'x = "owed"', 'x = "SELECT 1 WHERE state = owed"']
)
def test_what_users_do_not_see_does_not_count(code: str) -> None:
    texts = list(texts_of(ast.parse(code)))
    assert [one for number, text in texts for one in retired_in(Place("a.py", number, text))] == []


def test_a_document_may_name_keys_and_scripts_may_comment() -> None:
    assert list(texts_of_prose("see `--owed` here")) == [(1, "see … here")]
    assert list(texts_of_script("# by hand\nsay 'it is by hand' \"and so\"")) == [
        (2, "it is by hand"),
        (2, "and so"),
    ]
    assert list(texts_of_comments("# one\nkey = 1\n")) == [(1, "# one")]


def show() -> None:
    """Print each place that is left, and the table NOT_YET anew."""
    found = left()
    lines = [line for some in found.values() for line in some]
    table = [f'    "{path}": {len(some)},' for path, some in found.items()]
    sys.stdout.write("\n".join([*lines, *table, ""]))


if __name__ == "__main__":
    show()
