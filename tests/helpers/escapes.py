"""What a child process tries that somebody has taken over: run there by the tests, so it must be importable there.

The targets stand in the file that the child is given: see `Targets`.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

from trapsync.cameras import AlwaysReady, Frame
from trapsync.errors import CameraError
from trapsync.image import Image
from trapsync.runtime.child_process import become_child
from trapsync.settings.schema import Camera as CameraSettings

_SEIZE = 0x4206  # PTRACE_SEIZE, ptrace(2)
_NEW_USERS = 0x10000000  # CLONE_NEWUSER


@dataclass(frozen=True)
class Targets:
    """What there is to be had: files and folders of the account, listening servers, a process that stands for the daemon."""

    secret: str
    state: str
    config: str
    tcp4: int
    tcp6: int
    unix: str
    abstract: str
    process: int
    address: int

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(file: Path) -> "Targets":
        return Targets(**json.loads(file.read_text()))


def victim() -> None:
    """Stand for the daemon: tell where something lies in this process's memory, and stay."""
    buffer = ctypes.create_string_buffer(b"a password")
    sys.stdout.write(f"{ctypes.addressof(buffer)}\n")
    sys.stdout.flush()
    sys.stdin.read()


def attempts(to: Targets, spool: Path) -> dict[str, Callable[[], object]]:
    """Each thing that is tried: it raises where it is refused."""
    state, config = Path(to.state), Path(to.config)
    return {
        "read a secret": Path(to.secret).read_text,
        "read a secret through a link": lambda: _linked(spool / "link", Path(to.secret)).read_text(),
        "list the state folder": lambda: os.listdir(state),  # noqa: PTH208
        "write into the state folder": lambda: (state / "override.toml").write_text("x"),
        "cut a file there": lambda: os.truncate(state / "pushed.json", 0),
        "remove a file there": (state / "catalog.sqlite").unlink,
        "move a file out of it": lambda: (state / "pushed.json").rename(spool / "moved"),
        "write into the config folder": lambda: (config / "trapsync.toml").write_text("x"),
        "write a picture elsewhere": lambda: (state.parent / "picture.jpg").write_bytes(b"\xff\xd8"),
        "open the state folder to everybody": lambda: state.chmod(0o777),
        "connect by TCP": lambda: socket.create_connection(("127.0.0.1", to.tcp4)),
        "connect by TCP over IPv6": lambda: socket.create_connection(("::1", to.tcp6)),
        "send by UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
            b"x", ("127.0.0.1", 9)
        ),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "connect to a socket in a folder": lambda: socket.socket(socket.AF_UNIX).connect(to.unix),
        "connect to an abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\0" + to.abstract),
        "read the daemon's memory": lambda: _memory(to),
        "write the daemon's memory": lambda: os.close(os.open(f"/proc/{to.process}/mem", os.O_RDWR)),
        "read the daemon's environment": Path(f"/proc/{to.process}/environ").read_bytes,
        "look into the daemon's descriptors": lambda: os.listdir(f"/proc/{to.process}/fd"),  # noqa: PTH208
        "trace the daemon": lambda: _c("ptrace", _SEIZE, to.process, None, None),
        "signal the daemon": lambda: os.kill(to.process, signal.SIGURG),
        "signal it by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(to.process), signal.SIGURG),
        "limit the daemon": lambda: resource.prlimit(to.process, resource.RLIMIT_CPU),
        "run a program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": _fork,
        "begin a namespace": lambda: _c("unshare", _NEW_USERS),
        "have a program read the secret": lambda: subprocess.run(
            ["/bin/cat", to.secret], check=True, capture_output=True
        ),
    }


def _linked(link: Path, target: Path) -> Path:
    if not link.is_symlink():
        link.symlink_to(target)
    return link


def _memory(to: Targets) -> None:
    with Path(f"/proc/{to.process}/mem").open("rb", buffering=0) as file:
        file.seek(to.address)
        assert file.read(10) == b"a password"


def _c(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def tried(spool: Path) -> dict[str, str]:
    """Try everything; what came of each: "done", "refused", or what else went wrong."""
    return {
        name: _outcome(attempt) for name, attempt in attempts(Targets.read(spool / "targets"), spool).items()
    }


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return "refused" if error.errno in (errno.EPERM, errno.EACCES) else repr(error)
    except Exception as error:  # a program that failed, say
        return repr(error)
    return "done"


# ── In the children ──────────────────────────────────────────────────────────────────────────────────


class Runs:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self._folder),)


def look(spool: Path, path: str) -> Image:
    """Be an examiner that a picture has taken over; the picture's name says what it does."""
    if "pickle" in path:
        return Runs(spool / "ran")  # type: ignore[return-value]
    if "another" in path:
        return Image("../state/catalog.sqlite", 0, "", "", 0, 0)
    return Image(path, 0, "", "", 0, 0, metadata=tried(spool))


class Camera(AlwaysReady):
    """A camera whose driver has taken its process over."""

    def __init__(self, settings: CameraSettings) -> None:
        self._spool = Path(os.environ["ESCAPES_SPOOL"])

    def open(self) -> None:
        pass

    def capture(self, moment: datetime) -> Frame:
        if (self._spool / "pin").exists():  # what lgpio does as it is imported
            pipe = Path(os.environ["TMPDIR"]) / f"trapsync-gpio-{os.geteuid()}" / ".lgd-nfy0"
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe, 0o664)
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
            raise CameraError("there is a pipe")
        if (self._spool / "pickle").exists():
            return Frame(b"", 0, 0, "", remark=Runs(self._spool / "ran"))  # type: ignore[arg-type]
        raise CameraError(json.dumps(tried(self._spool)))

    def close(self) -> None:
        pass


def make(settings: CameraSettings, device: str) -> Camera:
    return Camera(settings)


def unrestricted(pipe: Connection, spool: Path) -> None:
    """A child as all were before: what it can is what the account can."""
    become_child()
    pipe.send(tried(spool))


if __name__ == "__main__":
    victim()
