"""The commands: one function each, and the only place that prints.

Exit codes: 0 well, 1 an error or a warning, 2 wrong usage; `status` and `doctor` exit with 0, 1 or 2
for ok, warning and failing. Costly packages are imported by the commands that need them.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync import __version__
from trapsync import settings as config
from trapsync.errors import SettingsError, TrapsyncError
from trapsync.settings import Settings

if TYPE_CHECKING:
    from trapsync.destinations import Finding, Tools

_COLOURS = {"ok": "green", "warning": "yellow", "failing": "red"}
_SYSLOG = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def main() -> None:
    """Run a command. What a person did wrong is one line, never a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except TrapsyncError as error:
        click.echo(f"trapsync: {error}", err=True)
        code = 1
    except PermissionError as error:  # the one error of the system's that a person can always mend
        advice = "no permission; run this as the daemon's user, or with sudo"
        click.echo(f"trapsync: {error.filename or error}: {advice}", err=True)
        code = 1
    except BrokenPipeError:  # `trapsync images | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


class _InOrder(click.Group):
    """Lists the commands as they stand in this file: the daemon, how it is, what one can do."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="trapsync %(version)s")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, readable=False),
    help=f"The config file; else ${config.ENVIRONMENT_KEY}, else {config.DEFAULT_PATH}.",
)
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Bring every picture of a camera trap home.

    The daemon takes pictures, looks after them on the card and delivers each one to its destinations;
    the other commands show how that goes, and help where it does not.
    """
    context.obj = config
    if os.environ.get("NO_COLOR"):  # no-color.org
        context.color = False


class _Trap:
    """The settings of one call, read when the command needs them."""

    def __init__(self, path: Path | None) -> None:
        from trapsync.trap import system_clock

        self.source = config.find(path)
        self.settings: Settings = config.load(self.source)
        self.clock = system_clock(self.settings)

    def tools(self) -> "Tools":
        from trapsync.destinations import Tools

        return Tools(self.clock, time.sleep, self.settings.trap.device)


def _with_trap(command: Callable[..., Any]) -> Callable[..., Any]:
    """Read the settings before the command runs, and hand them over as its first argument."""
    import functools

    @click.pass_context
    @functools.wraps(command)
    def wrapped(context: click.Context, *arguments: Any, **options: Any) -> Any:
        return command(_Trap(context.find_root().obj), *arguments, **options)

    return wrapped


def _giving_a_verdict(command: Callable[..., Any]) -> Callable[..., Any]:
    """An error is the worst verdict: a monitor that reads exit codes must not take it for a warning."""
    import functools

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except TrapsyncError as error:
            click.echo(f"trapsync: {error}", err=True)
            return 2

    return wrapped


def _destination_names(context: click.Context, _parameter: click.Parameter, typed: str) -> list[str]:
    """For shell completion: the destinations of the config file that begin with what is typed."""
    try:
        settings = config.load(config.find(context.find_root().params.get("config")))
    except SettingsError:
        return []
    return [name for name in settings.destinations if name.startswith(typed)]


# ── The daemon ───────────────────────────────────────────────────────────────────────────────────────


@cli.command()
@click.option("-v", "--verbose", is_flag=True, help="Log every step.")
@click.option("--captures", type=click.IntRange(min=0), metavar="N", help="Take no more than N pictures.")
@_with_trap
def run(trap: _Trap, verbose: bool, captures: int | None) -> None:
    """Run the daemon in the foreground.

    SIGTERM and Ctrl-C end it within ten seconds, SIGHUP reads the config file again, SIGUSR1 delivers now.
    """
    from trapsync import service

    _start_logging(verbose)
    daemon = service.Service(trap.settings, trap.source, captures)
    try:
        daemon.run()
    except TrapsyncError as error:
        logging.getLogger("trapsync").critical("%s", error)
        service.leave(1)
    except Exception:
        logging.getLogger("trapsync").critical("the daemon failed", exc_info=True)
        service.leave(1)
    if daemon.reload:
        service.restart(["--config", str(trap.source), "run", *(["--verbose"] if verbose else [])])
    service.leave()


def _start_logging(verbose: bool = False) -> None:
    """To standard error: with levels for the journal, with the time of day for a terminal."""
    handler = logging.StreamHandler()
    if os.environ.get("JOURNAL_STREAM"):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("trapsync").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a job still at work is no news


class _JournalFormatter(logging.Formatter):
    """Prefix each line with its syslog level, as journald reads it (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        level = _SYSLOG.get(record.levelno, 6)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


# ── How it is ────────────────────────────────────────────────────────────────────────────────────────


@cli.command(short_help="Show how the trap is.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@_giving_a_verdict
@_with_trap
def status(trap: _Trap, as_json: bool, watch: bool) -> int:
    """Show how the trap is. Exit code 0 ok, 1 warning, 2 failing.

    True also when the daemon is dead: it reads the catalog, the card and the daemon's lock.
    """
    from trapsync.device import device_id
    from trapsync.status import VERDICTS, lines, snapshot

    device = device_id(trap.settings.trap)
    while True:
        facts = snapshot(trap.settings, trap.clock, device)
        if watch:
            click.clear()
        if as_json:
            click.echo(json.dumps(facts, indent=2))
        else:
            _show_lines(lines(facts))
        if not watch:
            return VERDICTS.index(facts["verdict"])
        time.sleep(2)


def _show_lines(lines: list[tuple[str, str]]) -> None:
    """Two columns; a verdict in its colour, and what explains it indented."""
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        column = click.style(f"{label:<{width}}", fg=_COLOURS.get(label), bold=label in _COLOURS)
        click.echo(f"{column}  {text}")


@cli.command(short_help="List images and the state of their deliveries.")
@click.option("--owed", "state", flag_value="owed", help="Only those still to be delivered.")
@click.option("--delivered", "state", flag_value="delivered", help="Only those delivered.")
@click.option("--dropped", "state", flag_value="dropped", help="Only those that left the card undelivered.")
@click.option("--refused", "state", flag_value="refused", help="Only those that a destination refused.")
@click.option("--held", "state", flag_value="held", help="Only those held until their time is known.")
@click.option("--conflicts", "state", flag_value="conflict", help="Only those with the name of another.")
@click.option("-n", "--limit", default=20, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_with_trap
def images(trap: _Trap, state: str | None, limit: int, as_json: bool) -> None:
    """List images, the newest first, with the state of each delivery."""
    from trapsync import timing

    with _reading(trap) as catalog:
        rows = catalog.listing(state, limit)
        boots = catalog.boots() if any(row["timing"] in {"unsure", "released"} for row in rows) else []
    for row in rows:
        if row["timing"] in {"unsure", "released"}:
            earliest, latest = timing.bounds(boots, row["boot_id"], row["monotonic"])
            row |= {"not_before": timing.moment(earliest), "not_after": timing.moment(latest)}
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [
        (
            row["key"],
            _state(row),
            f"{row['size'] / 1e6:.2f} MB",
            f"{row['width']}×{row['height']}",
            _deliveries(row),
        )
        for row in rows
    ]
    _show_table(("image", "state", "size", "pixels", "deliveries"), table, "no such images")


def _state(row: dict[str, Any]) -> str:
    match row["timing"]:
        case "held" if row["state"] == "owed":
            return "held until the clock is set"
        case "corrected":
            return f"{row['state']}, corrected" + (f" from {row['was']}" if row["was"] else "")
        case "unsure" | "released":
            held = "held, " if row["timing"] == "unsure" and row["state"] == "owed" else f"{row['state']}, "
            return f"{held}taken {_between(row)}"
    return str(row["state"])


def _between(bounds: dict[str, Any]) -> str:
    """In words, between which moments something was."""
    match bounds["not_before"], bounds["not_after"]:
        case None, None:
            return "nobody knows when"
        case earliest, None:
            return f"after {earliest}"
        case None, latest:
            return f"before {latest}"
        case earliest, latest:
            return f"between {earliest} and {latest}"
    raise AssertionError(bounds)


def _deliveries(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}: {delivery['state']}" + (f" ({delivery['error']})" if delivery["error"] else "")
        for name, delivery in row["deliveries"].items()
    )


@cli.command()
@click.option("--release", type=int, metavar="NUMBER", help="Put a file back, to be examined again.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_with_trap
def quarantine(trap: _Trap, release: int | None, as_json: bool) -> None:
    """List damaged files with their reasons, or put one back."""
    from trapsync import by_hand

    if release is not None:
        with by_hand.opened(trap.settings, trap.source, trap.tools()) as bench:
            path = by_hand.release(trap.settings, bench.catalog, release)
        click.echo(f"{path} is back in the spool; the next sweep examines it again")
        return
    with _reading(trap) as catalog:
        rows = catalog.quarantined()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = [(str(row["id"]), row["path"], row["reason"], str(row["size"])) for row in rows]
    _show_table(("number", "file", "reason", "bytes"), table, "nothing is in quarantine")
    if rows:
        click.echo(f"\nThe files are kept in {trap.settings.storage.quarantine}")


@cli.command(short_help="Show whether the clock is right, and the times of images.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_with_trap
def clock(trap: _Trap, as_json: bool) -> None:
    """Show whether the clock can be trusted, when the trap was started, and what that means for images.

    An image that was taken before the clock was set is held until it is, and then corrected. It is unsure when
    the trap was switched off first.
    """
    from trapsync import timing

    with _reading(trap) as catalog:
        facts = timing.snapshot(catalog, trap.clock, trap.clock.trusted_by())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    by = f"synchronised, says {facts['trusted_by']}" if facts["trusted"] else "not synchronised"
    counts = ", ".join(f"{n} {name}" for name, n in facts["images"].items() if n)
    _show_lines([("clock", f"{facts['now']}, {by}"), ("images", counts or "all taken at a known time")])
    table = [
        (
            boot["boot_id"][:8] + (" (now)" if boot["is_this"] else ""),
            boot["began"] or _between(boot),
            boot["trusted_at"] or "never",
            "" if boot["offset_s"] is None else f"{boot['offset_s']:.3f} s",
            ", ".join(f"{n} {name}" for name, n in boot["images"].items() if n),
        )
        for boot in facts["boots"][-20:]
    ]
    click.echo()
    _show_table(("boot", "began", "clock set", "offset", "images"), table, "the daemon never ran")


@cli.command(short_help="Look for what could keep this trap from working.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@_giving_a_verdict
@_with_trap
def doctor(trap: _Trap, as_json: bool) -> int:
    """Look for what could keep this trap from working, and say what to do. Sends no image."""
    from trapsync.doctor import examine_trap
    from trapsync.status import VERDICTS

    findings = examine_trap(trap.settings, trap.clock, trap.tools(), trap.source)
    if as_json:
        click.echo(
            json.dumps(
                [{"verdict": f.verdict, "subject": f.subject, "text": f.text} for f in findings], indent=2
            )
        )
    else:
        _show_findings(findings)
    return max(VERDICTS.index(finding.verdict) for finding in findings)


def _show_findings(findings: "list[Finding]") -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        verdict = click.style(f"{finding.verdict:<8}", fg=_COLOURS[finding.verdict])
        click.echo(f"{verdict} {finding.subject:<{width}}  {finding.text}")


# ── What one can do ──────────────────────────────────────────────────────────────────────────────────


@cli.command(short_help="Deliver now what is owed.")
@click.argument("destination", required=False, shell_complete=_destination_names)
@_with_trap
def deliver(trap: _Trap, destination: str | None) -> int:
    """Deliver now what is owed, to all destinations or to one.

    A running daemon is asked to do it; without one it is done here.
    """
    from trapsync import by_hand
    from trapsync.trap import holder

    by_hand.require(trap.settings, trap.source, destination)
    process = holder(trap.settings.storage.state)
    if process:
        since = trap.clock.wall()
        by_hand.wake_daemon(process)
        return _follow_daemon(trap, destination, since)
    return _deliver_here(trap, destination)


def _deliver_here(trap: _Trap, destination: str | None) -> int:
    from trapsync import by_hand
    from trapsync.trap import lock

    _start_logging()
    with (
        lock(trap.settings.storage.state),
        by_hand.opened(trap.settings, trap.source, trap.tools()) as bench,
        _progress("delivering") as progress,
    ):
        turns = by_hand.deliver(bench, progress, destination)
    for name, turn in turns.items():
        trouble = f"; {turn.trouble}" if turn.trouble else ""
        click.echo(
            f"{name}: {turn.delivered} delivered, {turn.refused} refused, {turn.postponed} postponed{trouble}"
        )
    return int(any(turn.trouble or turn.refused or turn.postponed for turn in turns.values()))


def _follow_daemon(trap: _Trap, destination: str | None, since: float) -> int:
    """Show how the daemon works it off; end when nothing is due any more, or it meets trouble."""
    from trapsync.trap import holder

    with _progress("the daemon delivers") as progress:
        time.sleep(2)  # it takes up a signal within one tick
        while True:
            with _reading(trap) as catalog:
                rows = [row for row in catalog.destinations() if destination in (None, row["name"])]
                is_due = any(catalog.due(row["name"], "newest", 1) for row in rows)
            owed = sum(row["owed"] for row in rows)
            progress(owed)
            trouble = [f"{row['name']}: {row['error']}" for row in rows if _failed(row, since)]
            if holder(trap.settings.storage.state) is None:
                trouble.append("the daemon has stopped")
            if trouble or not is_due:
                break
            time.sleep(1)
    waiting = f"{owed} must wait; see: trapsync images --owed" if owed else ""
    click.echo("; ".join(trouble) or waiting or "everything is delivered, or refused")
    return int(bool(trouble or owed))


def _failed(row: dict[str, Any], since: float) -> bool:
    """Whether a destination that is owed images could not be reached since then."""
    return bool(row["owed"] and row["error"] and row["error_at"] >= since)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, fed with how many are still owed; nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda _owed: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(label, total=None)
        most = 0

        def show(owed: int) -> None:
            nonlocal most
            most = max(most, owed)
            bar.update(task, total=most, completed=most - owed)

        yield show


@cli.command(short_help="Owe again what was refused, and end all waits.")
@click.argument("destination", required=False, shell_complete=_destination_names)
@click.option("--image", metavar="NAME", help="Only this image.")
@_with_trap
def retry(trap: _Trap, destination: str | None, image: str | None) -> None:
    """Owe again what a destination refused, and end all waits after failures."""
    from trapsync import by_hand
    from trapsync.trap import holder

    with by_hand.opened(trap.settings, trap.source, trap.tools(), destination) as bench:
        count = bench.catalog.retry(destination, image)
    click.echo(f"{count} refused deliveries are owed again")
    if process := holder(trap.settings.storage.state):
        by_hand.wake_daemon(process)


@cli.command(short_help="Remove delivered images from the card.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_with_trap
def prune(trap: _Trap, yes: bool) -> None:
    """Remove delivered images from the card, as far as [prune] allows.

    Only images whose digest every required destination confirmed, older than prune.min_age, and only
    until prune.keep_free bytes are free. Works also when prune.enabled is false.
    """
    from trapsync import by_hand, pipeline

    settings = trap.settings
    free = pipeline.free_bytes(settings.storage.spool)
    if free >= settings.prune.keep_free:
        click.echo(f"{free / 1e9:.1f} GB are free, as prune.keep_free asks: nothing to do")
        return
    if not yes and not click.confirm("Remove images that are safe at their destinations from this card?"):
        click.echo("nothing was removed")
        return
    with by_hand.opened(settings, trap.source, trap.tools()) as bench:
        removed = pipeline.prune(bench.catalog, settings.storage, settings.prune, trap.clock)
    click.echo(
        f"{removed} images removed; {pipeline.free_bytes(settings.storage.spool) / 1e9:.1f} GB are free"
    )


@cli.command(short_help="Hash the card again, and ask the destinations.")
@click.option("--resend", is_flag=True, help="Owe again what a destination no longer holds.")
@_with_trap
def verify(trap: _Trap, resend: bool) -> int:
    """Hash every image on the card again, and ask the destinations what they hold."""
    from trapsync import by_hand
    from trapsync import verify as verification
    from trapsync.errors import Unreachable

    code = 0
    with by_hand.opened(trap.settings, trap.source, trap.tools()) as bench:
        with _counter("reading the card") as progress:
            result = verification.verify_card(bench.catalog, trap.settings.storage.spool, progress)
        code |= _show_verified("card", result)
        for destination in bench.destinations:
            try:
                with _counter(f"asking {destination.name}") as progress:
                    result = verification.verify_destination(bench.catalog, destination, progress)
            except Unreachable as error:
                click.echo(f"{destination.name}: {error}")
                code = 1
                continue
            code |= _show_verified(destination.name, result)
            if resend:
                bench.catalog.owe_again(destination.name, result.lost)
    return code


def _show_verified(where: str, result: Any) -> int:
    click.echo(f"{where}: {result.compared} images compared, {len(result.wrong)} wrong")
    for name, problem in result.wrong:
        click.echo(f"  {name}: {problem}")
    return int(bool(result.wrong))


@contextmanager
def _counter(label: str) -> Iterator[Callable[[int], None]]:
    """A bar that counts up on a terminal; nothing elsewhere."""
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


# ── The hub ──────────────────────────────────────────────────────────────────────────────────────────


@cli.command(short_help="Run a small receiver for images.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("trapsync-hub"),
    show_default=True,
    help="Where it keeps images.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for the whole network.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, readable=False),
    help="Holds the password of the user trapsync; needed when others can reach the hub.",
)
def hub(folder: Path, host: str, port: int, password_file: Path | None) -> None:
    """Run a small receiver that speaks the Sticky Pi upload protocol.

    For trying trapsync, for the lab, and for a hut that collects from traps on the local Wi-Fi.
    """
    try:
        from trapsync.hub.server import serve
    except ModuleNotFoundError as error:
        raise SettingsError(f"the hub needs {error.name}: pip install 'trapsync[hub]'") from None
    _start_logging()
    serve(
        folder, host=host, port=port, password_file=password_file, say=logging.getLogger("trapsync.hub").info
    )


# ── Settings and shell ───────────────────────────────────────────────────────────────────────────────


@cli.group(name="settings")
def settings_group() -> None:
    """Show or check the config file."""


@settings_group.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check the config file; nothing is touched."""
    from trapsync import destinations
    from trapsync.trap import place

    source = config.find(context.find_root().obj)
    settings = config.load(source)
    place(settings)
    for name, table in settings.destinations.items():
        destinations.check(name, table, source)
    click.echo(f"{source}: well")


@settings_group.command()
@click.pass_context
def show(context: click.Context) -> None:
    """Show the settings in force, defaults included. Secrets are not among them: they are in files."""
    source = config.find(context.find_root().obj)
    click.echo(config.to_text(config.load(source)), nl=False)


@cli.command(short_help="Print the script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for shell completion: eval "$(trapsync completion bash)"."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise SettingsError(f"there is no completion for {shell}")
    click.echo(completion_class(cli, {}, "trapsync", "_TRAPSYNC_COMPLETE").source())


# ── Helpers ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _reading(trap: _Trap) -> Iterator[Any]:
    from trapsync.trap import open_to_read

    catalog = open_to_read(trap.settings, trap.clock)
    try:
        yield catalog
    finally:
        catalog.close_reader()


def _show_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str) -> None:
    """A table that fits the terminal; in a pipe, plain columns of any width."""
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 400
    console = Console(highlight=False, markup=False, width=width)
    console.print(table)
