"""Texts from outside: one cleaner, and one line for each record of the log."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trapsync import cli
from trapsync.cli import common
from trapsync.errors import RefusedDocument, SettingsError, Unreachable, one_line, printable

EVIL = {
    "a title": "\x1b]0;owned\x07",
    "colours": "\x1b[31mred\x1b[0m",
    "C1": "\x9b2J\x85",
    "another line": "x\n<2>forged\r\u2028\u2029\x0b\x0c\x1c\x1d\x1e",
    "letters turned round": "\u202egpj.exe\u2066\u200f",
    "NUL": "a\0b\x7f",
    "half a surrogate": "a\ud800b",
    "nothing to see": "a\u200b\ufeff\xad\U000e0041b",
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_nothing_that_a_terminal_obeys_is_left_in_a_line(evil: str) -> None:
    for text in (one_line(evil), str(Unreachable(evil)), str(SettingsError(f"/a/{evil}: no"))):
        assert text.isprintable()
        assert text.encode()
        assert len(text.splitlines()) <= 1


def test_a_line_is_cut_and_what_people_write_stays_as_it_is() -> None:
    assert one_line("a" * 300, 10) == "a" * 9 + "…"
    assert one_line(" ein  Flügel\n\U0001f98b 蛾 \u0928\u200d ") == "ein Flügel \U0001f98b 蛾 \u0928\u200d"
    assert one_line([1, "\x1b"]) == "[1, '\\x1b']"
    assert len(str(RefusedDocument("schema", "x" * 10_000))) == 500
    # The name of a file stays right in an error, for it is typed again.
    assert str(SettingsError("/a/two  spaces/\U0001f98b")) == "/a/two  spaces/\U0001f98b"
    assert printable("a\tb") == "a?b"


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_a_file_that_may_not_be_read_is_named_in_one_printable_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], evil: str
) -> None:
    """Finding S11, a sibling: the name of a file that somebody else put into the spool."""

    def fail(**_: object) -> None:
        raise PermissionError(13, "no", f"/spool/{evil}.jpg")

    monkeypatch.setattr(cli.cli, "main", fail)
    monkeypatch.setattr("sys.argv", ["trapsync", "deliver"])
    with pytest.raises(SystemExit):
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "no permission; run this as" in line


@contextmanager
def _log(environment: pytest.MonkeyPatch, *, journal: bool) -> Iterator[io.StringIO]:
    """What goes to standard error, as a command or the service has it set up."""
    written = io.StringIO()
    environment.setattr("sys.stderr", written)
    if journal:
        environment.setenv("JOURNAL_STREAM", "8:1")
    else:
        environment.delenv("JOURNAL_STREAM", raising=False)
    root, ours = logging.getLogger(), logging.getLogger("trapsync")
    before = root.handlers[:], root.level, ours.level
    try:
        common.start_logging()
        yield written
    finally:
        root.handlers[:], root.level = before[:2]
        ours.setLevel(before[2])


def test_a_warning_of_a_library_is_one_line_too() -> None:
    code = (
        "import warnings; from trapsync.cli import common; common.start_logging();"
        "warnings.warn('a bug of a library!\\nTraceback\\n  line')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert "WARNING" in line
    assert "a bug of a library! | Traceback | line" in line


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_one_record_of_the_log_is_one_line(
    monkeypatch: pytest.MonkeyPatch, evil: str, *, journal: bool
) -> None:
    with _log(monkeypatch, journal=journal) as log:
        logging.getLogger("trapsync.test").warning("%s said: %s", evil, evil)
        logging.getLogger("somebody.else").error(evil)
        try:
            raise ValueError(evil)
        except ValueError:
            logging.getLogger("trapsync.test").exception("a bug: %s", evil)
        logging.getLogger("trapsync.test").info("y" * 10**6)

    *lines, last = log.getvalue().split("\n")
    assert (len(lines), last) == (4, "")
    assert all(line.isprintable() and len(line) < 12_000 for line in lines)
    if journal:
        assert [line[:3] for line in lines] == ["<4>", "<3>", "<3>", "<6>"]
    # Of a bug all is told that there is to tell.
    assert "Traceback (most recent call last): | File " in lines[2]
    assert "ValueError: " in lines[2]
    assert 'test_clean_texts.py", line ' in lines[2]
