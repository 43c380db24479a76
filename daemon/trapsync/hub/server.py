"""Run the hub: its port, the accounts of a first start, and the end at a signal."""

import logging
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import MultiSocketServer

from trapsync.errors import SettingsError, StorageError
from trapsync.files.locks import locked
from trapsync.hub.accounts import DEFAULT_NAME, DEFAULT_PASSWORD
from trapsync.hub.admission import Admission
from trapsync.hub.app import LARGEST_BODY, Hub, make_app
from trapsync.hub.channel import CONNECTIONS, IN_MEMORY, Gate, Server
from trapsync.hub.fleet import Verify
from trapsync.hub.threads import Threads
from trapsync.hub.thumbnails import NO_EXAMINER, Examiner
from trapsync.settings import config_file
from trapsync.settings.hub import Hub as Settings
from trapsync.settings.open_links import is_loopback
from trapsync.settings.project import Project
from trapsync.spool import overlap

log = logging.getLogger(__name__)
# It warns of each request that queues while a fleet reconnects.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

# Runs beside a hub that listens at an address, until its block ends.
Beside = Callable[[Hub, str], AbstractContextManager[None]]

_LARGEST_HEAD = 16 * 1024  # bytes
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(
    settings: Settings,
    *,
    project: Project | None = None,
    verify: Verify | None = None,
    examiner: Examiner = NO_EXAMINER,
    beside: Beside | None = None,
    say: Callable[[str], None] = log.info,
) -> None:
    """Run the hub in its folder until SIGTERM or SIGINT; to be called in the main thread.

    The file `password_file` holds the password of the user `trapsync`, an admin; on any address but loopback it is
    needed unless there are users already. `project` is what packages of Camtrap DP say of the study. `verify` checks
    published documents, `examiner` looks at pictures, `beside` does what is to be done while the hub listens. `say` gets
    what a person should know. Raises SettingsError or StorageError, one line, when it cannot start.
    """
    with _only_one(settings.folder):
        _allow_files(2 * CONNECTIONS + 200)  # each with the file of a body
        hub = Hub.open(
            settings.folder, examiner=examiner, verify=verify, min_free=settings.min_free, project=project
        )
        prepare_accounts(
            hub, settings.host, settings.password_file, say, behind_proxy=bool(settings.behind_proxy)
        )
        if hub.accounts.named("trap"):
            say(
                "traps share the account 'trap', with which a stolen one speaks for all; let each join with a code "
                "(trapsync hub invite), and then: trapsync hub users remove trap"
            )
        server = listen(
            make_app(hub),
            settings.host,
            settings.port,
            behind_proxy=settings.behind_proxy,
            url=settings.url,
        )
        for number in _SIGNALS:
            signal.signal(number, _end)
        with (
            _temporary_files_in(hub.store.incoming),
            beside(hub, address(server)) if beside else nullcontext(),
            suppress(SystemExit),
        ):  # which waitress catches when it runs
            say(f"the hub listens on {address(server)} and keeps images in {hub.store.images}")
            server.run()
        hub.database.close()
        say("the hub has stopped")


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have waitress and werkzeug keep bodies here: /tmp may be memory."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def prepare_accounts(
    hub: Hub,
    host: str,
    password_file: Path | None = None,
    say: Callable[[str], None] = log.info,
    *,
    behind_proxy: bool = False,
) -> None:
    """Make sure that somebody can log in, and that nobody on the network can guess a password.

    Raises SettingsError on an address that others can reach, by a proxy too, when nobody has set a password.
    """
    only_here = is_loopback(host) and not behind_proxy
    reached = f"others can reach {host}{' by the proxy' if behind_proxy else ''}"
    if password_file is not None:
        password = config_file.read_secret(password_file.absolute(), "hub.password_file")
        hub.accounts.add(DEFAULT_NAME, password, "admin")
    elif not hub.accounts.names() and only_here:
        hub.accounts.add(DEFAULT_NAME, DEFAULT_PASSWORD, "admin")
        say(f"made a user for this machine only: {DEFAULT_NAME}, with the password {DEFAULT_PASSWORD}")
    if only_here:
        return
    if not hub.accounts.names():
        raise SettingsError(
            f"{reached}, and nobody can log in; first type: trapsync hub users add NAME --role admin "
            f"--folder {hub.folder}"
        )
    weak = hub.accounts.with_default_password()
    if weak:
        raise SettingsError(
            f"{reached}, and {weak[0]!r} has a default password: set another with --password-file"
        )


def listen(
    app: Flask,
    host: str,
    port: int,
    sockets: dict[int, Any] | None = None,
    *,
    behind_proxy: str = "",
    url: str = "",
) -> Any:
    """Bind the port and return waitress's server. Its `run` serves until SystemExit. Raises SettingsError.

    After SystemExit the requests under way have five seconds. An upload that is cut is asked for and sent again.
    `sockets` receives what is opened, for a process that goes on without the server.
    """
    sockets = {} if sockets is None else sockets
    hub: Hub = app.extensions["hub"]
    only_here = is_loopback(host) and not behind_proxy
    gate = Gate(
        admission=Admission(hub.accounts, app, hub.guesses, hub.refusals, only_here=only_here),
        passwords=hub.passwords,
        clock=hub.clock,
        room=hub.room,
        proxy=behind_proxy,
        url=url,
    )
    try:
        settings = Adjustments(
            host=host,
            port=port,
            asyncore_use_poll=True,  # select(2) knows no file descriptor beyond 1023
            ident="trapsync-hub",
            recv_bytes=256 * 1024,
            max_request_header_size=_LARGEST_HEAD,
            # Each endpoint has a limit of its own.
            max_request_body_size=LARGEST_BODY + 64 * 1024,
            inbuf_overflow=IN_MEMORY,
            log_socket_errors=False,
            clear_untrusted_proxy_headers=True,
        )
        dispatcher = Threads(hub.clock)
        servers = [
            Server(gate, app, sockets, dispatcher=dispatcher, adj=settings, sockinfo=one)
            for one in settings.listen
        ]
    except (OSError, ValueError) as error:
        wasyncore.close_all(sockets)
        raise SettingsError(_why_not(error, host, port)) from error
    if len(servers) == 1:
        return servers[0]
    listening = [(one.effective_host, one.effective_port) for one in servers]  # as for "localhost"
    return MultiSocketServer(sockets, settings, listening, dispatcher)


def address(server: Any) -> str:
    """The URL of a server that listens. With port 0 the system chose the port."""
    if hasattr(server, "effective_listen"):  # on several sockets, as for "localhost"
        host, port = server.effective_listen[0]
    else:
        host, port = server.effective_host, server.effective_port
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _end(*_signal: object) -> NoReturn:
    """End `run` at the first signal; more of them must not cut the requests under way."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit


def _why_not(error: Exception, host: str, port: int) -> str:
    text = str(error).lower()
    if "in use" in text:
        return f"port {port} is in use; choose another with --port"
    if "permission" in text:
        return f"port {port} is for root only; choose one from 1024 on with --port"
    return f"cannot listen on {host}, port {port}: {error}"


def _allow_files(count: int) -> None:
    """Raise the limit of open files, as far as this process may."""
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Lock the folder: two hubs in one would move each other's files."""
    overlap.require_own_folder(folder)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / "hub.lock", wait=False, mode=0o600))
        except BlockingIOError:
            raise StorageError(f"{folder}: another hub is running there") from None
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror}; choose another folder for the hub") from error
        yield
