"""From the service account to root: root types each command while the account's folders hold something odd.

The account was taken over. In the place of one file or folder of its own it has put a link to root's, a FIFO, a device, a
socket, something damaged or huge; then root types a command. Looked at from outside: nothing of root's is created, changed
or removed, nothing in the account's folders is root's afterwards, no process of root's or of the account's gets a signal,
the command ends in time, and says what is wrong without a traceback.

A process with everything imported forks for each case, so hundreds take seconds; and the interpreter's library may lie where
only root can read it.
"""

import fcntl
import importlib
import json
import os
import pkgutil
import random
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import click

import drawings
import processes
import trapsync
from trapsync.cli import cli, main
from trapsync.net.invitation import Code, Terms

ACCOUNT = 4242  # a number without a name will do
LIMIT = float(
    os.environ.get("HOSTILE_LIMIT", "60")
)  # seconds for a command: on a machine with much other work, too
_MEMORY = 2 * 10**9  # bytes of addresses
_SECRET = "what only root may read"
CONFIG = """\
[trap]
device = "{device}"
clock = "trusted"
[storage]
spool = "{trap}/spool"
state = "{trap}/state"
min_free = "1 MB"
[camera]
kind = "none"
[ingest]
stable_after = "0 s"
[prune]
keep_free = "9000 GB"
min_age = "0 s"
[destinations.copies]
kind = "directory"
path = "{trap}/media"
[destinations.stick]
kind = "directory"
path = "{trap}/stick"
hotplug = true
required = false
"""

# What is imported only when it is needed, in our libraries and in Python's.
_LATE = """
_strptime encodings.idna encodings.utf_8_sig multiprocessing.popen_fork multiprocessing.popen_spawn_posix pyvips
rich.console rich.live rich.progress rich.table sqlite3 zoneinfo
"""

# How each command is typed. One that is new fails the test until it stands here.
TYPED = {
    "run": ["run"],  # until it gets a SIGTERM
    "once": ["once --deadline 1s"],
    "status": ["status", "status --json"],
    "clock": ["clock"],
    "spool": ["spool", "spool --accept"],
    "doctor": ["doctor"],
    "focus": ["focus --pictures 1"],
    "settings check": ["settings check"],
    "settings show": ["settings show"],
    "settings set": ["settings set trap.name Meadow"],
    "settings unset": ["settings unset trap.clock"],
    "settings take": ["settings take {trap}/media/settings.signed"],
    "join": ["join {code}"],
    "deployment show": ["deployment show", "deployment show --json"],
    "deployment start": ["deployment start"],
    "deployment end": ["deployment end"],
    "images": ["images", "images --url", "images --layout antenna"],
    "quarantine": ["quarantine", "quarantine --release 1"],
    "deliver": ["deliver"],
    "retry": ["retry"],
    "acknowledge": ["acknowledge"],
    "prune": ["prune --yes"],
    "verify": ["verify --bytes --resend"],
    "labels": ["labels"],
    "labels export": ["labels export"],
    "effort": ["effort", "effort --calendar"],
    "export csv": ["export csv -", "export csv {trap}/stick/images.csv"],
    "export camtrap-dp": ["export camtrap-dp {trap}/stick/package --copy"],
    "stick": ["stick --check --folder {trap}/stick", "stick --patience 100ms --folder {trap}/stick"],
}
# These read nothing of a trap's: they are for the operator's computer, or only print.
OTHERS = {
    *("keys", "keys new", "keys show", "keys jump", "keys revoke"),
    *("push", "resend", "fleet", "hub", "help", "completion"),
    *("hub login", "hub invite", "hub devices", "hub groups", "hub revoke", "hub forget", "hub effort"),
    *("hub export", "hub export camtrap-dp", "hub check", "hub example", "hub backup", "hub notify"),
    *("hub users", "hub users list", "hub users add", "hub users remove"),
    *("settings", "settings example", "export", "deployment"),
}
_OWN_FILE = (
    "settings set",
    "settings unset",
    "join",
)  # which change root's config file, and what lies beside it
_TERMS = Terms(groups=("valley",))


class Case(NamedTuple):
    """Root types `words` while `entry`, below the account's folder, is `oddity`."""

    words: str
    entry: str
    oddity: str


def commands(group: click.Group = cli, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command of the program, by its words."""
    for name, command in group.commands.items():
        yield " ".join((*above, name))
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))


# ── What the account puts in the place of what was there ─────────────────────────────────────────────


def _link(target: Callable[[Path], Path]) -> Callable[[Path, Path], None]:
    return lambda place, roots: place.symlink_to(target(roots))


def _folder(place: Path, _roots: Path) -> None:
    place.mkdir()
    (place / "full").write_text("x")


def _socket(place: Path, _roots: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        descriptor = os.open(place.parent, os.O_PATH)
        made.bind(f"/proc/self/fd/{descriptor}/{place.name}")  # a path of 108 bytes at most
        os.close(descriptor)


def _damaged(place: Path, _roots: Path) -> None:
    place.write_bytes(random.Random(str(place)).randbytes(5000))


def _huge(place: Path, _roots: Path) -> None:
    with place.open("wb") as file:
        file.truncate(10**9)


ODDITIES: dict[str, Callable[[Path, Path], None]] = {
    "link to a file of root's": _link(lambda roots: roots / "secret"),
    "link to a folder of root's": _link(lambda roots: roots / "folder"),
    "link to nothing": _link(lambda roots: roots / "new"),
    "link to a device": _link(lambda _roots: Path("/dev/zero")),
    "FIFO": lambda place, _roots: os.mkfifo(place),
    "device": lambda place, _roots: os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "socket": _socket,
    "folder, or file in its place": _folder,
    "damaged": _damaged,
    "a GB of nothing": _huge,
}
# Names that something may have at other moments than the one that is looked at.
_MORE = (
    *(f"state/catalog{suffix}" for suffix in (".sqlite-wal", ".sqlite-shm", ".sqlite-journal")),
    *(f"state/catalog{suffix}" for suffix in (".damaged", ".doubted", ".closed", ".damaged-1", ".damaged-2")),
    *("state/focus.jpg", "state/.focus.jpg.part", "state/pushed.json", "state/pushed.lock"),
    *("state/remote_settings.json", "state/.remote_settings.json.part", "state/replay_guard.json"),
    *("state/remote_settings.lock", "state/.last_good_config.json.part", "media/settings.signed"),
    *("media/.trapsync-destination.part", "spool/new.jpg"),
)


_IMAGE = f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}"
# What hung, led a command away or ended in a traceback when it was first tried: always among those that are.
FOUND = [
    *(Case("status", f"state/catalog.sqlite{suffix}", "FIFO") for suffix in ("", "-wal", "-shm", "-journal")),
    *(Case("retry", f"state/catalog.sqlite{suffix}", "FIFO") for suffix in ("", "-wal", "-shm", "-journal")),
    Case("retry", "state/catalog.damaged-1", "link to a folder of root's"),
    Case("run", "state/reserve", "FIFO"),
    Case("verify --bytes --resend", f"spool/{_IMAGE}", "FIFO"),
    Case("verify --bytes --resend", f"spool/{_IMAGE}", "link to a device"),
    *(
        Case(TYPED["settings take"][0], "media/settings.signed", oddity)
        for oddity in ("FIFO", "link to a folder of root's", "link to a file of root's", "device")
    ),
]


class Site:
    """Root's files, and a trap of the account's that is made anew for each case."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.roots, self.etc, self.trap = folder / "roots", folder / "etc", folder / "trap"
        self._good, self._folder = folder / "good", folder
        self.code = ""  # of a hub
        for made in (self.etc, self.roots, self.roots / "folder"):
            made.mkdir()
        (self.roots / "secret").write_text(_SECRET)
        (self.roots / "secret").chmod(0o600)
        (self.roots / "folder" / "file").write_text("of root's")
        (self.roots / "folder" / "0a1b2c3d.2026-06-21_20-19-15.jpg").write_bytes(drawings.plain())
        self.config = self.etc / "trapsync.toml"
        self._text = CONFIG.format(device=drawings.DEVICE, trap=self.trap)
        self.config.write_text(self._text)
        self._live()
        self.before = self._seen()
        self.entries = sorted(
            {str(path.relative_to(self._good)) for path in self._good.rglob("*")}.union(_MORE)
        )

    def _live(self) -> None:
        """Let a trap live for a moment; it is the account's afterwards."""
        spool, media = self.trap / "spool", self.trap / "media"
        for made in (spool, media, self.trap / "stick"):
            made.mkdir(parents=True)
        (media / ".trapsync-destination").touch()
        (media / "settings.signed").write_text("nothing that anybody signed\n")
        drawings.put(spool, drawings.plain(), f"{drawings.DEVICE}/2026-06-21/{drawings.NAME}")
        drawings.put(spool, drawings.plain()[:900], "cut.jpg")
        own = os.environ | {"TRAPSYNC_AS_ROOT": "1"}
        command = [sys.executable, "-m", "trapsync", "-c", str(self.config)]
        done = subprocess.run([*command, "deliver"], env=own, capture_output=True, timeout=120, check=False)
        assert (self.trap / "state" / "catalog.sqlite").exists(), done.stderr
        drawings.put(spool, drawings.plain(seed=3), "waiting.jpg")
        subprocess.run(["chown", "-R", f"{ACCOUNT}:{ACCOUNT}", self.trap], check=True)
        self.trap.rename(self._good)

    def prepare(self, case: Case) -> None:
        """The trap as it was, but for the odd entry."""
        shutil.rmtree(self.trap, ignore_errors=True)
        subprocess.run(["cp", "-a", self._good, self.trap], check=True)
        place = self.trap / case.entry
        was_folder = place.is_dir()
        if was_folder:
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        if was_folder and case.oddity == "folder, or file in its place":
            place.write_text("x")
        else:
            ODDITIES[case.oddity](place, self.roots)
        for made in (place, *(place.iterdir() if place.is_dir() and not place.is_symlink() else ())):
            os.chown(made, ACCOUNT, ACCOUNT, follow_symlinks=False)

    def _seen(self) -> dict[str, Any]:
        """All that is there and not the account's: mode, owner, which file it is, when it was changed, what is in it."""
        return {str(path): look(path) for top in (self.roots, self.etc) for path in [top, *top.rglob("*")]}

    def wrong(self, case: Case) -> Iterator[str]:
        """What the command did to root's files, and what it left in the account's folders."""
        own = case.words.startswith(_OWN_FILE)
        now = self._seen()
        for path in self.before.keys() | now.keys():
            if self.before.get(path) != now.get(path) and not (own and Path(path).is_relative_to(self.etc)):
                yield f"{path} was {self.before.get(path)}, and is {now.get(path)}"
        for name in {path.name for path in self._folder.iterdir()} - {"roots", "etc", "trap", "good"}:
            yield f"{name} is new"
        for there in self.trap.rglob("*"):
            if there.lstat().st_uid != ACCOUNT:
                yield f"{there} belongs to {there.lstat().st_uid}"
        if own:
            for there in set(self.etc.iterdir()) - {self.config}:
                status, is_secret = there.stat(), there.suffix == ".token"
                group, most = (ACCOUNT, 0o640) if is_secret else (0, 0o644)
                if (status.st_uid, status.st_gid) != (0, group) or status.st_mode & 0o777 & ~most:
                    yield f"{there} is another's, or open: {status}"
                there.unlink()
            self.config.write_text(self._text)
            self.before = self._seen()


def look(path: Path) -> tuple[Any, ...]:
    found = path.lstat()
    content = sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(found.st_mode) else ""
    return found.st_mode, found.st_uid, found.st_gid, found.st_ino, found.st_mtime_ns, content


# ── Root types ───────────────────────────────────────────────────────────────────────────────────────


def import_all() -> None:
    """Whatever is imported while a command runs."""
    for module in pkgutil.walk_packages(trapsync.__path__, "trapsync."):
        if not module.name.endswith(("__main__", "picamera")):
            importlib.import_module(module.name)
    for name in _LATE.split():
        importlib.import_module(name)
    examiners: Any = importlib.import_module("trapsync.runtime.examiners")
    examiners.spawn = get_context("fork")  # one that begins anew would read the library


def call(site: Site, words: str, run_for: float = 0.8) -> tuple[float, str, int]:
    """Have root type a command: how long it took (LIMIT: it was killed), what it said, and as whom it ended.

    A daemon is told to end after `run_for` seconds; where it had not even begun then, it is given more.
    """
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            _command(site, words, said.fileno())
        began = time.monotonic()
        descriptor = os.pidfd_open(child)
        if words == "run" and not select.select([descriptor], [], [], run_for)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], LIMIT)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
        _, ended = os.waitpid(child, 0)
        if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGTERM and run_for < LIMIT / 4:
            return call(site, words, run_for * 4)
        took = time.monotonic() - began
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        said.seek(0)
        text, _, user = said.read().decode("utf-8", "replace").rpartition("done by ")
        return took, text, int(user) if user.strip().isdigit() else -1


def _command(site: Site, words: str, said: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.environ.pop("TRAPSYNC_AS_ROOT", None)
    sys.argv = ["trapsync", "-c", str(site.config), *words.format(trap=site.trap, code=site.code).split()]
    from trapsync.runtime import service

    service.os._exit = _leave  # type: ignore[attr-defined]
    try:
        main()
    except SystemExit:
        pass
    except BaseException:
        import traceback

        traceback.print_exc()
    _leave(0)


_exit = os._exit


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, f"done by {os.geteuid()}".encode())
    _exit(code)


def cases(site: Site, seed: int, share: int) -> list[Case]:
    """One of so many cases of the table, drawn from a seed."""
    found = [
        Case(words, entry, oddity)
        for some in TYPED.values()
        for words in some
        for entry in site.entries
        for oddity in ODDITIES
    ]
    random.Random(seed).shuffle(found)
    return FOUND + found[::share]


def try_all(seed: int, share: int = 1, part: int = 0, parts: int = 1) -> tuple[Counter[str], list[str]]:
    """Type one of `share` cases; how many of what, and what went wrong."""
    import_all()
    count: Counter[str] = Counter()
    failures = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trapsync-account-")))
        site = Site(folder)
        site.code = str(Code.new(stack.enter_context(hub()), _TERMS))
        victims = [stack.enter_context(processes.started(["sleep", "1d"], user=one)) for one in (0, ACCOUNT)]
        for case in cases(site, seed, share)[part::parts]:
            site.prepare(case)
            with _locked(site, case, victims):
                took, said, user = call(site, case.words)
            count.update(["cases", case.words.partition(" -")[0]])
            wrong = [*_wrong(case, took, said, user), *site.wrong(case)]
            wrong += [f"process {victim.pid} ended" for victim in victims if victim.poll() is not None]
            if wrong:
                failures.append(f"{case}: {'; '.join(wrong)}\n{said[-3000:]}")
    return count, failures


class _Hub(BaseHTTPRequestHandler):
    """A hub that lets everybody join."""

    def do_POST(self) -> None:
        """Answer with what the code promises."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"keys": [], "groups": _TERMS.groups, "images": True}).encode())

    def do_GET(self) -> None:
        """There is no document."""
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hub() -> Iterator[str]:
    """The address of a hub, in a process of its own: this one forks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    child = os.fork()
    if child == 0:
        server.serve_forever()
    server.server_close()
    yield f"http://127.0.0.1:{server.server_port}"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _wrong(case: Case, took: float, said: str, user: int) -> Iterator[str]:
    """What the command should not have said or been."""
    if took >= LIMIT:
        yield f"it hangs: {took:.0f} s"
    if user != (0 if case.words.startswith(_OWN_FILE) else ACCOUNT):
        yield f"it ended as {user}"
    if _SECRET in said:
        yield "it tells what only root may read"
    if "Traceback" in said:
        yield "a traceback"


def _locked(site: Site, case: Case, victims: "list[subprocess.Popen[Any]]") -> Any:
    """Every third time the account holds the trap's lock, with the process id of somebody in it."""
    stack = ExitStack()
    path = site.trap / "state" / "daemon.lock"
    number = sum(map(ord, "".join(case))) % 6
    if number < 2 and path.is_file() and not path.is_symlink() and case.words != "run":
        file = stack.enter_context(path.open("w"))
        file.write(f"{victims[number].pid}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
    return stack


if __name__ == "__main__":
    result = try_all(*map(int, sys.argv[1:]))
    sys.stdout.write(json.dumps(result))
