"""A machine of a document's own: /etc, /var/lib, /media and the network are private, all else can only be read.

::

    with private_machine.running(tmp_path) as machine:
        done = machine.run("sudo trapsync settings check")

It is a mount namespace and a network namespace with nothing but the loopback, so it needs root. There `sudo` runs the
command as it is, `trapsync` is the program under test, a trap with a simulated camera is installed in /etc/trapsync, and
https://hub.example.org leads to whatever listens on port 8080, as with a web server in front of a hub.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import certifi
import pytest
import tomli_w

import external_programs
import trapsync
from documents import ROOT

# Of a clone it need not be the one that is installed beside this Python.
_UNDER_TEST = Path(trapsync.__file__).parents[1]
CONFIG = "/etc/trapsync/trapsync.toml"
HUB = "hub.example.org"
_PASSWORD = "a password for tests"
_ASKS = re.compile(r"hub users add|hub login")  # for a password, perhaps twice

# What a test's trap has beyond the file that is installed.
_TRAP = {
    "trap": {"device": "0a5bb6f4", "clock": "trusted"},
    "camera": {"kind": "simulated", "resolution": [640, 480]},
    "storage": {"min_free": "1 MB"},
}

_SETUP = """
set -e
mount --make-rprivate /
mount --bind {folder} {folder}
mount -t tmpfs private {folder}/private
for name in etc var/lib; do
  own={folder}/private/$name
  mkdir -p $own/upper $own/work
  mount -t overlay private -o lowerdir=/$name,upperdir=$own/upper,workdir=$own/work /$name
done
mount -t tmpfs private /media
mount --bind {folder}/certificate {certificates}
grep -q ^trapsync: /etc/group || echo 'trapsync:x:64999:' >>/etc/group
echo '127.0.0.1 {hub}' >>/etc/hosts
rm -rf /etc/trapsync /var/lib/trapsync
mkdir -p /etc/trapsync /var/lib/trapsync /media/drive/images
ip link set lo up
while read -r _ where _; do # whatever a document says, nothing else of this machine changes
  case $where in {folder}* | /proc* | /sys* | /dev* | /etc | /var/lib | /media) ;;
    *) mount -o remount,bind,ro "$where" || true ;;
  esac
done </proc/self/mounts
echo ready
exec sleep infinity
"""

# The web server in front of the hub: TLS on port 443, the same bytes on port 8080.
_FRONT = """
import socket, ssl, sys, threading
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = context.wrap_socket(socket.create_server(("127.0.0.1", 443)), server_side=True, do_handshake_on_connect=False)
print("listens", flush=True)
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
while True:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", 8080))
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


class Machine:
    """A private machine. `home` is its user's home folder, where commands begin."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.code = ""  # the last one that was printed, with which a trap joins
        self._folder = folder
        self._running: list[subprocess.Popen[str]] = []
        for name in ("home", "private", "bin", "tmp"):
            (folder / name).mkdir(parents=True)
        self._script("sudo", 'exec "$@"')
        program = Path(sys.executable).with_name("trapsync")
        self._script("trapsync", f'PYTHONPATH="{_UNDER_TEST}" exec "{program}" "$@"')
        self._make_certificate()
        script = _SETUP.format(folder=folder, certificates=certifi.where(), hub=HUB)
        self._holder = self._begin(["unshare", "--mount", "--net", "sh", "-c", script], "ready")
        self.settle({})

    def _script(self, name: str, text: str) -> None:
        path = self._folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _make_certificate(self) -> None:
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = ["-subj", f"/CN={HUB}", "-addext", f"subjectAltName=DNS:{HUB}"]
        files = ["-keyout", str(self._folder / "key"), "-out", str(self._folder / "certificate")]
        subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)

    def _inside(self, command: str) -> list[str]:
        return [
            "nsenter",
            f"--target={self._holder.pid}",
            "--mount",
            "--net",
            f"--wd={self.home}",
            "bash",
            "-c",
            command,
        ]

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{self._folder / 'bin'}:{Path(sys.executable).parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        mark = {name: value for name, value in os.environ.items() if name == "TRAPSYNC_TEST_PROCESS"}
        return mark | {
            "PATH": path,
            "HOME": str(self.home),
            "TMPDIR": str(self._folder / "tmp"),
            "LANG": "C.UTF-8",
            "TRAPSYNC_AS_ROOT": "1",
            "CURL_CA_BUNDLE": str(self._folder / "certificate"),
        }

    def run(self, command: str, answer: str = f"{_PASSWORD}\n") -> "subprocess.CompletedProcess[str]":
        """Run a command as a person would who types `answer` at whatever it asks for."""
        return subprocess.run(
            self._inside(command),
            input=answer if " /dev/stdin" in command else answer * 2 if _ASKS.search(command) else "y\n",
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=120,
        )

    def start(self, command: str, says: str) -> None:
        """Run a command that does not end, until it says something; it ends with the machine."""
        self._begin(self._inside(f"exec {command}"), says)

    def serve_tls(self) -> None:
        """Put the web server in front of port 8080."""
        files = f"{self._folder / 'certificate'} {self._folder / 'key'}"
        self.start(f"{sys.executable} -c {shlex.quote(_FRONT)} {files}", "listens")

    def _begin(self, command: list[str], says: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            env=self._environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running.append(process)
        assert process.stdout
        heard = ""
        for line in process.stdout:
            heard += line
            if re.search(says, line):
                return process
        raise AssertionError(f"{command[-1]} ended:\n{heard}")

    def write(self, path: str, text: str) -> None:
        """Write a file; ~ is the home folder, and a name without a folder is in it."""
        done = subprocess.run(
            self._inside(f'path={path}; mkdir -p "$(dirname "$path")"; cat >"$path"'),
            input=text,
            text=True,
            env=self._environment,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr

    def settle(self, tables: dict[str, Any]) -> None:
        """Edit the trap's settings: these keys in the tables that are there, and new tables."""
        if not tables:  # the file as it is installed
            before = tomllib.loads((ROOT / "config" / "minimal.toml").read_text(encoding="utf-8"))
            tables = _TRAP
        else:
            before = tomllib.loads(self.run(f"cat {CONFIG}").stdout)
        self.write(CONFIG, tomli_w.dumps(_merged(before, tables)))

    def close(self) -> None:
        """End whatever runs there; with the last process the machine is gone."""
        for process in reversed(self._running):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        is_table = isinstance(value, dict) and isinstance(one.get(key), dict)
        merged[key] = _merged(one[key], value) if is_table else value
    return merged


@contextmanager
def running(folder: Path) -> Iterator[Machine]:
    """A machine until the block ends. Skips where none can be made."""
    shows = "the documents' commands, as they are written"
    if os.geteuid() != 0:
        pytest.skip(f"NOT SHOWN HERE: {shows}; only root can make a machine for them")
    external_programs.require("openssl", "ip", "curl", shows=shows)
    machine = Machine(folder)
    try:
        yield machine
    finally:
        machine.close()
