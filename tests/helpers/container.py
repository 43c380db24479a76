"""A Debian that boots systemd as PID 1, in which the program is installed as on a trap.

::

    with container.booted("bookworm", tmp_path) as box:
        box.run("/src/scripts/install", "--wheels", "/wheels")
        box.run("systemctl", "is-active", "trapsync")

The system is made once by mmdebstrap and kept in the user's cache folder, as are the Python packages; each test gets
an overlay of it, so a second run is quick. There is no network inside but its own loopback: `network` lets this very
thread into it, and whatever server it starts there.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trapsync-tests"
_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,iproute2,sudo"
_FOREIGN = "systemd,python3,python3-venv,procps,util-linux,passwd"  # nothing boots there
_SOURCE = (
    *("pyproject.toml", "README.md", "SECURITY.md", "LICENSE", "CHANGELOG.md"),
    *("daemon", "config", "systemd", "scripts"),
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REBOOT = 133  # how systemd-nspawn ends when the system inside has asked for a reboot
_CLONE_NEWNET = 0x40000000  # setns(2)


def missing() -> str | None:
    """Why no system can be booted here; None where it can, as far as one can see before."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    for program, package in (("systemd-nspawn", "systemd-container"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(program) is None:
            return f"there is no {program} (apt install {package})"
    return None


def root(distribution: str, architecture: str = NATIVE) -> Path:
    """The folder with a fresh system of that kind; made now if it is not there: some two minutes."""
    folder = _CACHE / f"root-{distribution}-{architecture}"
    packages = _PACKAGES if architecture == NATIVE else _FOREIGN
    command = [
        "mmdebstrap",
        f"--arch={architecture}",
        "--variant=minbase",
        f"--include={packages}",
        distribution,
    ]
    _make(folder, lambda target: [*command, str(target)])
    return folder


def wheels(distribution: str, architecture: str = NATIVE) -> Path:
    """The folder with the Python packages for it; fetched now if they are not there."""
    script = ROOT / "scripts" / "wheels"
    lists = sorted((ROOT / "scripts" / "requirements").iterdir())
    kind = hashlib.sha256(b"".join(path.read_bytes() for path in [script, *lists])).hexdigest()[:12]
    folder = _CACHE / f"wheels-{PYTHON[distribution]}-{architecture}-{kind}"
    options = ["--python", PYTHON[distribution], "--arch", architecture, "--hub"]
    _make(folder, lambda target: [str(script), str(target), *options])
    return folder


def _make(folder: Path, command: Callable[[Path], list[str]]) -> None:
    """Make a folder of the cache whole or not at all; one process at a time."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        half = folder.with_suffix(".half")
        subprocess.run(["rm", "-rf", "--one-file-system", half], check=True)
        done = subprocess.run(command(half), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{folder.name} cannot be made:\n{done.stderr}"
        half.rename(folder)


def copy_source(folder: Path) -> Path:
    """A copy of the program's source that a test may break."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in _SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder)
    return folder


class Container:
    """A booted system. `root` is its root folder as seen from outside; /src and /wheels are there inside."""

    def __init__(self, folder: Path, distribution: str) -> None:
        self.source = copy_source(folder / "source")
        self.root = folder / "root"
        for name in ("root", "upper", "work"):
            (folder / name).mkdir()
        layers = f"lowerdir={root(distribution)},upperdir={folder}/upper,workdir={folder}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "trapsync-test", self.root], check=True)
        bound = [f"--bind-ro={self.source}:/src", f"--bind-ro={wheels(distribution)}:/wheels"]
        command = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--register=no", "--keep-unit"]
        # A container refuses these by default, which a machine does not: examiners give up their rights by them.
        landlock = [f"landlock_{call}" for call in ("create_ruleset", "add_rule", "restrict_self")]
        as_a_machine = f"--system-call-filter={' '.join(landlock)}"
        self._command = [*command, "--private-network", as_a_machine, *bound, "-b"]
        self._console = folder / "console"
        self._boot()

    def _boot(self) -> None:
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self.pid or self._state() not in {"running", "degraded"}:
            assert self._nspawn.poll() is None, f"it did not boot: {self._console.read_text()}"
            assert time.monotonic() < deadline, f"it does not boot: {self._console.read_text()}"
            time.sleep(0.2)  # another system is to come so far
        self._pull_the_plug_with_us()

    def _pull_the_plug_with_us(self) -> None:
        """A test that is killed must not leave it running: the next one's units would have the same cgroups.

        Nor mounted: pytest could not remove the folder of that run some runs later, and would end in a traceback.
        """
        script = f"read -r _; kill -KILL {self.pid}; umount --lazy '{self.root}'"
        self._heir = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, start_new_session=True)

    def _disinherit(self) -> None:
        self._heir.kill()
        self._heir.wait()

    def _state(self) -> str:
        return self.says("systemctl", "is-system-running")

    @property
    def pid(self) -> int:
        """Its PID 1, as seen from outside; 0 while there is none."""
        children = subprocess.run(["pgrep", "-P", str(self._nspawn.pid)], capture_output=True, text=True)
        return int(children.stdout.split()[0]) if children.stdout else 0

    def run(
        self, *command: str, check: bool = True, seconds: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, as root with a clean environment."""
        clean = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8"]
        enter = ["nsenter", "-t", str(self.pid), *["-m", "-u", "-i", "-n", "-p", "-r", "-w"]]
        done = subprocess.run(
            [*enter, *clean, *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, (
            f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def says(self, *command: str) -> str:
        """What a command prints, whatever its exit code."""
        return self.run(*command, check=False).stdout.strip()

    def shown(self, key: str, unit: str = "trapsync.service") -> str:
        """A property of a unit."""
        return self.says("systemctl", "show", "-P", key, unit)

    def until(self, claim: Callable[[], object], seconds: float = 60) -> None:
        """Wait until the claim holds; fails with the daemon's log otherwise."""
        deadline = time.monotonic() + seconds
        while not claim():
            if time.monotonic() > deadline:
                raise AssertionError("in vain\n" + self.says("journalctl", "-q", "-o", "cat", "-n", "500"))
            time.sleep(0.2)  # another process is to come so far

    @contextmanager
    def network(self) -> Iterator[None]:
        """Within the block this thread, and whatever it starts, is on the loopback of the container."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open() as ours,
            Path(f"/proc/{self.pid}/ns/net").open() as theirs,
        ):
            assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                libc.setns(ours.fileno(), _CLONE_NEWNET)

    @contextmanager
    def rebooting(self) -> Iterator[None]:
        """Whatever is done in the block reboots it; afterwards it is up again."""
        yield
        assert self._nspawn.wait(90) == _REBOOT
        self._disinherit()
        self._boot()

    def close(self) -> None:
        """Pull the plug."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
        self._disinherit()
        with suppress(subprocess.TimeoutExpired):
            self._nspawn.wait(20)
        self._nspawn.kill()
        subprocess.run(["umount", "--lazy", self.root], check=False)


class Userland:
    """A system of another architecture, in which programs run by emulation and nothing boots; on our own network."""

    def __init__(self, folder: Path, distribution: str, architecture: str) -> None:
        self._emulate(architecture)
        self.root = folder / "root"
        for name in ("root", "upper", "work"):
            (folder / name).mkdir()
        layers = f"lowerdir={root(distribution, architecture)},upperdir={folder}/upper,workdir={folder}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "trapsync-test", self.root], check=True)
        bound = [
            f"--bind-ro={copy_source(folder / 'source')}:/src",
            f"--bind-ro={wheels(distribution, architecture)}:/wheels",
        ]
        enter = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--register=no", "--keep-unit", *bound]
        self.entered = [*enter, "--pipe", "--as-pid2"]

    def _emulate(self, architecture: str) -> None:
        """Tell the kernel who can run such programs, if nobody did."""
        machine = {"arm64": "aarch64"}[architecture]
        known = Path("/proc/sys/fs/binfmt_misc")
        if not (known / "register").exists():
            subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", known], check=True)
        if not (known / f"qemu-{machine}").exists():
            rule = Path(f"/usr/lib/binfmt.d/qemu-{machine}.conf").read_bytes()
            (known / "register").write_bytes(rule)

    def run(self, *command: str, seconds: float = 1800) -> "subprocess.CompletedProcess[str]":
        """Run a command there, as root."""
        done = subprocess.run(
            [*self.entered, *command],
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode in {0, 1, 2}, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def close(self) -> None:
        """Take the system away."""
        subprocess.run(["umount", "--lazy", self.root], check=False)


@contextmanager
def booted(distribution: str, folder: Path) -> Iterator[Container]:
    """A container that runs until the block ends. One at a time on this machine: two would share their cgroups."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "booted.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        box = Container(folder, distribution)
        try:
            yield box
        finally:
            box.close()
