"""The trap as the daemon and the commands share it: its lock, its clock, its place, its catalog."""

import logging
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from trapsync.catalog import Catalog
from trapsync.catalog.card_reserve import Reserve
from trapsync.catalog.integrity import BESIDE
from trapsync.catalog.stop_marks import damage_mark
from trapsync.clock import Clock, SystemClock
from trapsync.errors import CatalogDamaged, CatalogError, CatalogOfNewer, SettingsError, StorageError
from trapsync.files import durable, failpoint
from trapsync.files.locks import locked
from trapsync.settings import schedule
from trapsync.settings.schema import Settings
from trapsync.settings.time_zone import zone
from trapsync.spool import quarantine

log = logging.getLogger(__name__)

_NO_ROOM = 100_000  # bytes: SQLite needs 32 kB beside the catalog even to read it


class Occupied(StorageError):
    """Another process holds the trap's lock."""


@contextmanager
def lock(state: Path) -> Iterator[None]:
    """Hold the trap's lock: the one daemon has it, or a command that stands in for it. Its file holds the process id.

    Raises Occupied when another process has it, StorageError when the card refuses.
    """
    path = state / "daemon.lock"
    with ExitStack() as stack:
        try:
            durable.make_folder(state)
            # On a card that is full there must be room for the catalog before it is opened.
            Reserve(state).give_up()
            descriptor = stack.enter_context(locked(path, os.O_RDWR, wait=False))
        except BlockingIOError:
            raise Occupied(f"another trapsync (process {holder(state)}) is running here") from None
        except OSError as error:
            raise StorageError(durable.explain(error, path)) from error
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # no room even for that: the lock holds without it
            os.write(descriptor, b"%d\n" % os.getpid())
        yield


def holder(state: Path) -> int | None:
    """The process id of the daemon that is running on this state folder; None when none is.

    0 if the lock is held, and what stands in the file is no process id. Send a signal by `tell_daemon` only.
    """
    import fcntl  # a trap has it; Windows, where operator commands run, has not

    try:
        descriptor = durable.open_plain(state / "daemon.lock", os.O_RDONLY)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read(32).strip()
            return int(text) if re.fullmatch(rb"[1-9]\d{0,9}", text) else 0
    return None


def began(state: Path, now: float) -> float:
    """When the daemon began that runs, or the last single run, as the wall clock was then; now if there is no telling."""
    try:
        return (state / "daemon.lock").stat().st_mtime
    except OSError:
        return now


def tell_daemon(process: int, number: signal.Signals) -> None:
    """Send a signal to the daemon that stands in the lock's file; StorageError if it is not to be sent.

    The file may name any process. So it must be one of the account whose work this is, a trapsync, and one that
    the signal does not end.
    """
    try:
        descriptor = os.pidfd_open(process)  # whoever it is now: the number may pass to another process
    except (OSError, OverflowError):
        raise StorageError(f"there is no process {process}, which should be the daemon") from None
    try:
        _require_daemon(process, number)
        signal.pidfd_send_signal(descriptor, number)
    except PermissionError:
        raise _another_users(process) from None
    except OSError as error:
        raise StorageError(f"process {process}, which should be the daemon: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _require_daemon(process: int, number: signal.Signals) -> None:
    status = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", Path(f"/proc/{process}/status").read_text()))
    if set(status["Uid"].split()) != {str(os.geteuid())}:
        raise _another_users(process)
    # One that begins again blocks it; one that runs catches it.
    survives = (int(status["SigCgt"], 16) | int(status["SigBlk"], 16)) >> (number - 1) & 1
    if not survives or b"trapsync" not in _command_line(process):
        raise StorageError(
            f"process {process} stands in daemon.lock and is no daemon; if it is another command: wait for its end"
        )


def _another_users(process: int) -> StorageError:
    advice = "" if os.geteuid() == 0 else "; run this as that user, or with sudo"
    return StorageError(f"process {process}, which should be the daemon, belongs to another user{advice}")


def _command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def system_clock(settings: Settings) -> SystemClock:
    """The machine's clock, trusted as the settings say."""
    return SystemClock(always_trusted=settings.trap.clock == "trusted")


def bytes_per_day(settings: Settings, clock: Clock, size: float) -> float:
    """Bytes of pictures that a day brings with these settings, if each picture has `size` bytes."""
    capture = settings.capture
    return schedule.pictures_a_day(capture.schedule, place(settings), clock.wall(), capture.every) * size


def place(settings: Settings) -> schedule.Place:
    """Where the trap hangs; SettingsError for an unknown time zone, or if the sun needs a place or opens a window never."""
    trap, windows = settings.trap, settings.capture.schedule
    timezone = zone(settings)
    if schedule.needs_place(windows) and not trap.has_place:
        raise SettingsError("capture.schedule: the sun needs a place; set trap.latitude and trap.longitude")
    at = schedule.Place(trap.latitude, trap.longitude, timezone)
    if never := schedule.never_open(windows, at):
        raise SettingsError(
            f"capture.schedule: {never!r} opens on no day of the year at this trap's place, so no picture is ever "
            f"taken in it; write smaller offsets"
        )
    return at


def open_catalog(settings: Settings, clock: Clock) -> Catalog:
    """Open the catalog; keep a damaged one aside and begin a new one, which the sweep fills again.

    Not beside a running daemon, which would go on writing into the one that was put aside: CatalogError.
    """
    path = settings.storage.catalog
    Reserve(settings.storage.state).give_up()
    is_ours = holder(settings.storage.state) in {None, os.getpid()}
    try:
        catalog = _open_sound(path, clock) if is_ours else _open_beside(path, clock)
    except CatalogError as error:
        raise _explained(error, path) from error
    if is_ours:
        quarantine.reconcile(catalog, settings.storage)
    return catalog


def _open_sound(path: Path, clock: Clock) -> Catalog:
    try:
        return Catalog.open(path, clock)
    except CatalogDamaged as error:
        aside = _keep_aside(path)
        text = "%s; kept as %s, and rebuilt from the spool: %s"
        log.error(text, _line(error), aside.name, _cost(error, aside, path))
        return Catalog.open(path, clock)


def _cost(error: CatalogDamaged, aside: Path, path: Path) -> str:
    """What a catalog that is put aside costs: nothing that a trap holds."""
    if not isinstance(error, CatalogOfNewer):
        return "nothing is lost"
    return (
        "no picture is lost, but what had left the card is not counted any more; to have that back: stop the daemon, "
        f"install the newer trapsync again, and run: mv {aside} {path}"
    )


def _open_beside(path: Path, clock: Clock) -> Catalog:
    try:
        return Catalog.open(path, clock, beside=True)
    except CatalogDamaged as error:
        raise CatalogError(f"{_line(error)}; restarting the daemon rebuilds it from the spool") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())  # SQLite takes several lines for it


def open_to_read(settings: Settings, clock: Clock) -> Catalog:
    """Open the catalog to look into it; the CatalogError says what to do if that cannot be."""
    path = settings.storage.catalog
    try:
        path.stat()
        return Catalog.open_to_read(path, clock)
    except FileNotFoundError:
        raise CatalogError(
            f"there is no catalog at {path}: the daemon never ran; start it: sudo systemctl start trapsync, or trapsync run"
        ) from None
    except (OSError, CatalogError) as error:
        raise _explained(error, path, "restarting the daemon rebuilds it from the spool") from error


def _explained(error: Exception, path: Path, advice: str = "") -> CatalogError:
    """The same error with what to do. SQLite must write beside the file even in order to read it."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return CatalogError(f"{path}: no permission; run this as the daemon's user, or with sudo")
    if shutil.disk_usage(path.parent).free < _NO_ROOM:
        return CatalogError(f"{path}: the card is full; free some space")
    return CatalogError(f"{error}; {advice}" if advice else str(error))


def _keep_aside(path: Path) -> Path:
    """Two generations of damaged catalogs are kept, the older one goes."""
    newest, older = path.with_suffix(".damaged-1"), path.with_suffix(".damaged-2")
    try:
        is_there = any(os.path.lexists(f"{path}{suffix}") for suffix in ("", *BESIDE))
        for source, target in ((newest, older), (path, newest)) if is_there else ():
            # The log first: left alone beside a new catalog, SQLite would play it into that.
            for suffix in (*BESIDE, ""):
                _move(Path(f"{source}{suffix}"), Path(f"{target}{suffix}"))
        durable.flush_folder(path.parent)
        failpoint.hit("catalog: kept aside")
        # Last: killed before this, the next start finds nothing to keep aside, and takes the mark away.
        damage_mark(path).unlink(missing_ok=True)
        failpoint.hit("catalog: mark of damage removed")
        durable.flush_folder(path.parent)
    except OSError as error:
        raise CatalogError(durable.explain(error, path)) from error
    return newest


def _move(source: Path, target: Path) -> None:
    """Move what is there, file or folder, in the place of whatever was."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        source.rename(target)
        failpoint.hit("catalog: moved aside")
