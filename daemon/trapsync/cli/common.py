"""What the commands share: the settings of a call, the log, and how tables, verdicts and progress are shown."""

import logging
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.clock import SystemClock, utc
from trapsync.errors import SettingsError, TrapsyncError, printable
from trapsync.settings import config_file
from trapsync.settings.units import Duration, Size
from trapsync.settings.words import full

if TYPE_CHECKING:
    from trapsync.catalog import Catalog
    from trapsync.remote.in_force import InForce
    from trapsync.runtime.local_actions import Bench

COLOURS = {"ok": "green", "warning": "yellow", "failing": "red"}
_NARROWEST = 30  # characters in which a text is still read with ease
_WRAPPED: Any = {"break_on_hyphens": False, "break_long_words": False}
_LONGEST_RECORD = 10_000  # characters of at most four bytes; journald cuts a line at 48 kB
_TELL_THEMSELVES = {"run", "once", "status", "doctor"}  # what is wrong with the config file
_SYSLOG = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class Quantity(click.ParamType):  # type: ignore[type-arg]
    """A duration or a size, written with its unit."""

    name = "quantity"

    def __init__(self, kind: type[Duration | Size]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Duration | Size:
        """Read it."""
        try:
            return value if isinstance(value, self._kind) else self._kind.parse(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A moment as people write it: a day, with or without a time, in this machine's zone; or how far away it is."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return it with its time zone."""
        now = utc(SystemClock().wall()).astimezone()
        try:
            if value == "now":
                return now
            if value.endswith(" ago"):
                return now - timedelta(seconds=Duration.parse(value.removesuffix(" ago")))
            if value.startswith("in "):
                return now + timedelta(seconds=Duration.parse(value.removeprefix("in ")))
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no moment; write 2026-11-28, '2026-11-28 21:00', '3 days ago' or 'in 3 days'",
                param,
                ctx,
            )


class Trap:
    """The settings of one call, read when the command needs them."""

    def __init__(self, path: Path | None) -> None:
        from trapsync.trap import system_clock

        self.found = load_settings(path)
        self.source, self.settings = self.found.source, self.found.settings
        self.clock = system_clock(self.settings)

    @property
    def problem(self) -> str | None:
        """What is wrong with the config file, and what is in force; None where it is."""
        from trapsync.runtime import config_check

        return config_check.shown(self.found.files)

    def opened(self, only: str | None = None) -> "AbstractContextManager[Bench]":
        """The catalog, and destinations (all, or the one named), for a command that writes."""
        from trapsync.runtime import local_actions

        return local_actions.opened(self.settings, self.source, self.clock, time.sleep, only)


def load_settings(path: Path | None) -> "InForce":
    """The settings in force. Called by root, this process is the trap's account when it returns.

    Nothing that the account may write is read before: what decides is the config file and override.toml, and where
    those are not root's, their owner is whom root becomes.
    """
    from trapsync.cli.drop_root import step_down
    from trapsync.runtime import config_check
    from trapsync.settings.layers import OVERRIDE

    source = config_file.find(path)
    for file in (source, source.with_name(OVERRIDE)):
        step_down(file)
    return config_check.load(source, step_down)


def with_trap(command: Callable[..., Any]) -> Callable[..., Any]:
    """Read the settings before the command runs, and pass them as its first argument.

    Where the config file is invalid and the last one that ran is in force, the first line says so, on standard error.
    """
    import functools

    @click.pass_context
    @functools.wraps(command)
    def wrapped(context: click.Context, *arguments: Any, **options: Any) -> Any:
        trap = Trap(context.find_root().obj)
        if trap.problem and context.info_name not in _TELL_THEMSELVES:
            click.echo(f"trapsync: {trap.problem}", err=True)
        return command(trap, *arguments, **options)

    return wrapped


def given_password(file: Path | None, question: str, *, twice: bool = False) -> str:
    """The password in a file, or one that is typed; `twice`, where nothing else tells a slip. Raises SettingsError."""
    if file:
        return config_file.read_secret(file.absolute(), "--password-file")
    typed: str = click.prompt(question, hide_input=True, confirmation_prompt=twice)
    return typed


def giving_a_verdict(command: Callable[..., Any]) -> Callable[..., Any]:
    """Exit with 2 after an error: a monitor that reads exit codes must not take it for a warning."""
    import functools

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except TrapsyncError as error:
            click.echo(f"trapsync: {error}", err=True)
            return 2

    return wrapped


def destination_names(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """Complete the name of a destination of the config file, in the shell."""
    try:
        settings = config_file.load(config_file.find(context.find_root().params.get("config")))
    except SettingsError:
        return []
    return [name for name in settings.destinations if name.startswith(typed)]


@contextmanager
def reading(trap: Trap) -> Iterator["Catalog"]:
    """The catalog, for a command that only reads it."""
    from trapsync.trap import open_to_read

    catalog = open_to_read(trap.settings, trap.clock)
    try:
        yield catalog
    finally:
        catalog.close()


def start_logging(verbose: bool = False) -> None:
    """Log to standard error: with levels for the journal, with the time of day for a terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_for_the_journal() if os.environ.get("JOURNAL_STREAM") else _for_a_terminal())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # What no line shows; to find it out takes a third of a record's time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)  # which libraries print, several lines at a time
    logging.getLogger("trapsync").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # it reports each job that is still running


class _OneLine(logging.Formatter):
    """One record is one line of printable characters, whatever is in it; a traceback's lines stand behind one another.

    The last net: who logs a text from outside cleans it (`errors.one_line`), but a library does not.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, cut where it is longer than journald takes one."""
        lines = (line.strip() for line in super().format(record).splitlines())
        text = printable(" | ".join(line for line in lines if line))
        return text if len(text) <= _LONGEST_RECORD else f"{text[:_LONGEST_RECORD]}…"


class _JournalFormatter(_OneLine):
    """Begin the line with its syslog level, as journald reads it (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """The line and its level."""
        return f"<{_SYSLOG.get(record.levelno, 6)}>{super().format(record)}"


def _for_the_journal() -> logging.Formatter:
    return _JournalFormatter("%(message)s")


def _for_a_terminal() -> logging.Formatter:
    return _OneLine("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


def show_lines(rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns, a verdict in its colour. On a terminal a long text in the last one goes on below itself."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    room = shutil.get_terminal_size().columns - indent if sys.stdout.isatty() else 0
    for *cells, text in rows:
        padded = [f"{printable(cell):<{width}}" for cell, width in zip(cells, widths, strict=True)]
        first = click.style(padded[0], fg=COLOURS.get(cells[0]), bold=cells[0] in COLOURS)
        wrap = room >= _NARROWEST
        lines = textwrap.wrap(printable(text), room, **_WRAPPED) if wrap else [printable(text)]
        click.echo("  ".join([first, *padded[1:], f"\n{'':<{indent}}".join(lines)]).rstrip())


def show_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> None:
    """Print a table that fits the terminal, where its last column is folded; in a pipe, plain columns of any width."""
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold", no_wrap=title != header[-1])
    for row in rows:
        table.add_row(*map(printable, row))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 400).print(table)


def between(bounds: dict[str, Any], timezone: tzinfo | None) -> str:
    """Say between which moments something was."""
    known = (bounds[key] and full(bounds[key], timezone) for key in ("not_before", "not_after"))
    match tuple(known):
        case None, None:
            return "unknown"
        case earliest, None:
            return f"after {earliest}"
        case None, latest:
            return f"before {latest}"
        case earliest, latest:
            return f"between {earliest} and {latest}"
    raise AssertionError(bounds)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal, given how many are still pending; nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda _pending: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(label, total=None)
        most = 0

        def show(pending: int) -> None:
            nonlocal most
            most = max(most, pending)
            bar.update(task, total=most, completed=most - pending)

        yield show


@contextmanager
def counter(label: str) -> Iterator[Callable[[int], None]]:
    """Show a counter on a terminal; nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda _more: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.completed} images"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda more: bar.update(task, advance=more)
