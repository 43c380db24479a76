"""The daemon and the state of the trap: run, once, status, clock, spool, doctor."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from trapsync.cli.common import (
    Trap,
    between,
    giving_a_verdict,
    reading,
    show_lines,
    show_table,
    start_logging,
    with_trap,
)
from trapsync.errors import SettingsError, StorageError, TrapsyncError
from trapsync.settings.units import Duration

_verbose = click.option("-v", "--verbose", is_flag=True, help="Log every step.")
_as_root = click.option(
    "--as-root", is_flag=True, envvar="TRAPSYNC_AS_ROOT", help="Run as root, if its files belong to root."
)


def _require_no_root(trap: Trap, as_root: bool) -> None:
    if os.geteuid() == 0 and not as_root:
        raise StorageError(
            f"{trap.settings.storage.state}: belongs to root, and the daemon does not run as root; give it an account "
            "of its own, as scripts/install does, or use --as-root"
        )


def _tell_of_config(trap: Trap) -> None:
    """Log that an invalid config file is not in force; SettingsError where nothing else is."""
    if (fallback := trap.found.files.fallback) and fallback.since is None:
        raise SettingsError(fallback.problem)
    if trap.problem:
        logging.getLogger("trapsync").error("%s", trap.problem)


@contextmanager
def _leaving(code: int) -> Iterator[None]:
    """Log whatever goes wrong, and end the process at once: its threads would delay the end."""
    from trapsync.runtime import service

    try:
        yield
    except TrapsyncError as error:
        logging.getLogger("trapsync").critical("%s", error)
        service.leave(code)
    except Exception:
        logging.getLogger("trapsync").critical("the daemon failed", exc_info=True)
        service.leave(code)


@click.command()
@_verbose
@click.option("--captures", type=click.IntRange(min=0), metavar="N", help="Take no more than N pictures.")
@_as_root
@with_trap
def run(trap: Trap, verbose: bool, captures: int | None, as_root: bool) -> None:
    """Run the daemon in the foreground.

    SIGTERM and Ctrl-C end it within ten seconds, SIGHUP reads the config file again, SIGUSR1 delivers now.
    Called by root, it runs as the user that the state folder belongs to; see scripts/README.md.
    """
    from trapsync.runtime import service, signals, trial

    start_logging(verbose)
    _require_no_root(trap, as_root)
    signals.block()
    _tell_of_config(trap)
    daemon = trial.begin(trap.found, lambda found: service.Service(found, captures))
    with _leaving(1):
        daemon.run()
    if daemon.reload:
        left = daemon.captures_left
        options = [flag for flag, given in (("--verbose", verbose), ("--as-root", as_root)) if given]
        options += [] if left is None else ["--captures", str(left)]
        service.restart(["--config", str(trap.source), "run", *options])
    service.leave()


@click.command(short_help="Take one picture, deliver what is pending, and end.")
@_verbose
@click.option("--deadline", default="5 min", show_default=True, help="End by then, whatever is left.")
@_as_root
@with_trap
def once(trap: Trap, verbose: bool, deadline: str, as_root: bool) -> None:
    """Take one picture, deliver what is pending, and end: a single run, for a trap that a timer powers.

    Exit code 0: all is delivered. 1: the picture is safe on the card, but something is pending. 2: there is no
    picture. 3: it could not run at all. After each of them the power may be cut.
    """
    from trapsync.runtime import service, signals, trial
    from trapsync.runtime.single_run import SingleRun

    start_logging(verbose)
    try:
        seconds = Duration.parse(deadline)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--deadline") from None
    with _leaving(3):
        _require_no_root(trap, as_root)
        signals.block()
        _tell_of_config(trap)
        outcome = trial.begin(trap.found, lambda found: SingleRun(found, seconds)).run()
    service.leave(outcome)


@click.command(short_help="Show the state of the trap.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@giving_a_verdict
@with_trap
def status(trap: Trap, as_json: bool, watch: bool) -> int:
    """Show the state of the trap. Exit code 0 ok, 1 warning, 2 failing.

    It works without the daemon too: it reads the catalog, the card and the daemon's lock.
    """
    from trapsync.cli.show_status import lines
    from trapsync.hardware.device_id import device_id
    from trapsync.remote.in_force import report
    from trapsync.runtime import config_check
    from trapsync.settings.time_zone import zone
    from trapsync.status import snapshot
    from trapsync.status.model import VERDICTS

    found, device = trap.found, device_id(trap.settings.trap)
    while True:
        config = config_check.shown(found.files)
        now = snapshot(found.settings, trap.clock, device, report(found), config=config)
        if watch:
            click.clear()
        if as_json:
            click.echo(json.dumps(now.plain(), indent=2))
        else:
            show_lines(lines(now, zone(found.settings)))
        if not watch:
            return VERDICTS.index(now.verdict)
        time.sleep(2)
        found = config_check.load(found.source)


@click.command(short_help="Show whether the clock is right, and the times of images.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@with_trap
def clock(trap: Trap, as_json: bool) -> None:
    """Show whether the clock is right, when the trap was started, and what that means for images.

    An image that was taken before the clock was set is held until it is, and then corrected. Its time is
    unsure if the trap was switched off first.
    """
    from trapsync.runtime import clock_correction
    from trapsync.settings.time_zone import zone
    from trapsync.settings.words import full

    with reading(trap) as catalog:
        facts = clock_correction.snapshot(catalog, trap.clock, trap.clock.trusted_by())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    timezone = zone(trap.settings)
    counts = ", ".join(f"{n} {name}" for name, n in facts["images"].items() if n)
    now = f"{full(facts['now'], timezone)} {timezone}, {_trusted(facts['trusted_by'])}"
    show_lines([("clock", now), ("images", counts or "the times of all are known")])
    table = [
        (
            boot["boot_id"][:8] + (" (now)" if boot["is_this"] else ""),
            full(boot["began"], timezone) if boot["began"] else between(boot, timezone),
            full(boot["trusted_at"], timezone, "never"),
            ", ".join(f"{n} {name}" for name, n in boot["images"].items() if n),
        )
        for boot in facts["boots"][-20:]
    ]
    click.echo()
    show_table(("boot", "began", "clock set", "images"), table, "the daemon has not run yet")


def _trusted(by: str | None) -> str:
    if by == "trap.clock":
        return "trusted, as trap.clock says"
    return f"synchronised by {by}" if by else "not synchronised"


@click.command(short_help="Show whether the spool is the same as before.")
@click.option("--accept", is_flag=True, help="Accept what is there now as the spool.")
@with_trap
def spool(trap: Trap, accept: bool) -> int:
    """Show whether the spool is the same as before. Exit code 0 if it is, else 1.

    The daemon marks its spool. Where the mark is missing, or is another, no image is taken, sent or removed: the
    disk may not be mounted. --accept makes what is there now the spool; images that were in the other one are then
    reported as having left the card.
    """
    from trapsync.spool import spool_mark

    storage = trap.settings.storage
    if accept:
        spool_mark.accept(storage)
    text, known = spool_mark.problem(storage), spool_mark.remembered(storage)
    state = text or ("the same as before" if known else "not marked yet: the daemon does it when it starts")
    show_lines([("spool", str(storage.spool)), ("id", known or "none"), ("", state)])
    return 1 if text else 0


@click.command(short_help="Check what could keep this trap from working.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@giving_a_verdict
@with_trap
def doctor(trap: Trap, as_json: bool) -> int:
    """Check what could keep this trap from working, and say what to do. Sends no image."""
    from trapsync.doctor import examine_trap
    from trapsync.status.model import VERDICTS

    findings = examine_trap(trap.found, trap.clock, time.sleep)
    if as_json:
        click.echo(
            json.dumps(
                [{"verdict": f.verdict, "subject": f.subject, "text": f.text} for f in findings], indent=2
            )
        )
    else:
        show_lines([(finding.verdict, finding.subject, finding.text) for finding in findings])
    return max(VERDICTS.index(finding.verdict) for finding in findings)


COMMANDS = (run, once, status, clock, spool, doctor)
