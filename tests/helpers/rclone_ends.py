"""Real other ends for rclone on the loopback, each with a folder behind it: OpenSSH, WebDAV, FTP with TLS, SeaweedFS.

::

    with sftp(folder) as end:
        config.write_text(end.section("nas"))
        ... rclone copy ... nas:pictures ...
        assert end.stored() == {"pictures/one.jpg": b"..."}

`Link` is a connection in front of one that can be cut, slow or silent.
"""

import contextlib
import getpass
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import external_programs
import processes
from s3_store import Store

DEBIANS = "/usr/bin/rclone"
TODAYS = str(Path(sys.executable).with_name("rclone"))
PASSWORD = "moth-in-the-dark"


def versions() -> list[str]:
    """The rclone of Debian and the one of today, as far as they are here."""
    external_programs.require("rclone", shows="rclone as a Pi gets it from Debian")
    return [DEBIANS, TODAYS]


def obscured(secret: str) -> str:
    """A password as rclone's config file holds it."""
    return subprocess.run(
        [TODAYS, "obscure", secret], capture_output=True, text=True, check=True
    ).stdout.strip()


@dataclass
class End:
    """One other end: the keys of its section in rclone.conf, the path to deliver to, and what is stored below that."""

    keys: dict[str, str]
    path: str
    stored: Callable[[], dict[str, bytes]]
    # Puts a file there, as somebody else may: the name below the path, and its bytes.
    put: Callable[[str, bytes], None]
    port: int = 0
    # What a section says the port in, so that a link can be put in front.
    port_key: str = "port"
    folder: Path = Path("/nowhere")

    def section(self, name: str, port: int = 0, **changes: str) -> str:
        """Its section in rclone.conf; with the port of a link in front."""
        keys = self.keys | changes
        if port:
            keys[self.port_key] = keys[self.port_key].replace(str(self.port), str(port))
        return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def _files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _in_folder(folder: Path) -> tuple[Callable[[], dict[str, bytes]], Callable[[str, bytes], None]]:
    """What is stored in a folder, and how to put something there."""

    def put(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return lambda: _files_below(folder), put


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[Any] | None" = None) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process is None or process.poll() is None, "it ended"
        time.sleep(0.02)
    raise AssertionError("it does not listen")


@contextmanager
def sftp(folder: Path) -> Iterator[End]:
    """OpenSSH's server: it hashes files by the shell's md5sum."""
    external_programs.require("sshd", shows="a folder by SFTP")
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for name in ("host", "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copy(folder / "key.pub", folder / "allowed")
    port = free_port()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "allowed",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "PidFile": "none",
        "MaxStartups": "100",
        "Subsystem": "sftp internal-sftp",
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    kind, key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    command = [str(external_programs.find("sshd")), "-D", "-e", "-f", str(config)]
    with (folder / "log").open("wb") as log, processes.started(command, stderr=log) as server:
        wait_for(port, server)
        keys = {
            "type": "sftp",
            "host": "127.0.0.1",
            "port": str(port),
            "user": getpass.getuser(),
            "key_file": str(folder / "key"),
            "shell_type": "unix",
            "md5sum_command": "md5sum",
            "sha1sum_command": "sha1sum",
        }
        yield End(keys, str(pictures), *_in_folder(pictures), port, folder=folder)


@contextmanager
def webdav(folder: Path) -> Iterator[End]:
    """WsgiDAV, with a password."""
    from cheroot.wsgi import Server
    from wsgidav.fs_dav_provider import FilesystemProvider
    from wsgidav.wsgidav_app import WsgiDAVApp

    folder.mkdir(parents=True)
    port = free_port()
    config = {
        "provider_mapping": {"/": FilesystemProvider(str(folder))},
        "simple_dc": {"user_mapping": {"*": {"trap": {"password": PASSWORD}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "verbose": 0,
        "logging": {"enable": False},
        "hotfixes": {},
    }
    server = Server(("127.0.0.1", port), WsgiDAVApp(config), numthreads=8)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    keys = {
        "type": "webdav",
        "url": f"http://127.0.0.1:{port}",
        "vendor": "other",
        "user": "trap",
        "pass": obscured(PASSWORD),
    }
    try:
        yield End(keys, "pictures", *_in_folder(folder / "pictures"), port, "url", folder)
    finally:
        server.stop()


@contextmanager
def ftp(folder: Path) -> Iterator[End]:
    """pyftpdlib, which takes nobody's login without TLS."""
    with warnings.catch_warnings(action="ignore"):  # of the parts of Python that it uses
        from pyftpdlib.handlers import TLS_FTPHandler
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.servers import ThreadedFTPServer

    external_programs.require("openssl", shows="a folder by FTP with TLS")
    folder.mkdir(parents=True)
    certificate = folder.with_name(folder.name + ".pem")
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(certificate), "-out", str(certificate)]
    with contextlib.ExitStack() as stack:
        key = certificate.with_suffix(".key")
        files[1] = str(key)
        subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        people = DummyAuthorizer()
        people.add_user("trap", PASSWORD, str(folder), perm="elradfmwMT")

        class Handler(TLS_FTPHandler):  # type: ignore[misc]
            """As other servers do, it says 550 of what is not there (RFC 959), not 501."""

            authorizer = people
            tls_control_required = tls_data_required = True
            auth_failed_timeout = 0

            def respond(self, answer: str, *more: Any, **named: Any) -> None:
                super().respond(answer.replace("501 No such", "550 No such"), *more, **named)

        Handler.certfile = str(certificate)
        logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
        server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
        port = int(server.address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.close_all)
        keys = {
            "type": "ftp",
            "host": "127.0.0.1",
            "port": str(port),
            "user": "trap",
            "pass": obscured(PASSWORD),
            "explicit_tls": "true",
            "no_check_certificate": "true",
        }
        yield End(keys, "pictures", *_in_folder(folder / "pictures"), port, folder=folder)


def s3(store: Store, prefix: str) -> End:
    """A folder in a bucket of a SeaweedFS that runs."""
    keys = {
        "type": "s3",
        "provider": "Other",
        "access_key_id": store.access_key,
        "secret_access_key": store.secret,
        "endpoint": store.url,
        "no_check_bucket": "true",
    }

    def stored() -> dict[str, bytes]:
        return {key.removeprefix(f"{prefix}/"): body for key, body in store.objects(prefix).items()}

    def put(name: str, content: bytes) -> None:
        store.put(f"{prefix}/{name}", content)

    return End(keys, f"{store.bucket}/{prefix}", stored, put, store.port, "endpoint")


class Link:
    """A connection to a port of the loopback that can be cut, slow, silent, or lead nowhere.

    `cut_after` bytes sent by the client the connection breaks, `times` times. `is_silent`: it passes no bytes on. `rate` is
    in bytes per second; 0 is without a limit.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut_after = -1
        self.times = 0
        self.is_silent = False
        self.rate = 0
        self.cuts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._open: list[socket.socket] = []

    def __enter__(self) -> "Link":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Break what is open."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    other = socket.create_connection(("127.0.0.1", self.target), 10)
                except OSError:
                    client.close()
                    continue
                self._open += [client, other]
                threading.Thread(target=self._pass_on, args=(client, other, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(other, client, False), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, is_sent: bool) -> None:
        passed = 0
        with suppress(OSError):
            while chunk := one.recv(16384):
                passed += len(chunk)
                while self.is_silent:
                    time.sleep(0.05)
                if is_sent and self.times and 0 <= self.cut_after < passed:
                    self.times -= 1
                    self.cuts += 1
                    other.sendall(chunk[: len(chunk) // 2])
                    break
                if self.rate:
                    time.sleep(len(chunk) / self.rate)
                other.sendall(chunk)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def stores_rclone(folder: Path) -> None:
    """Both versions of rclone at each other end under all faults, cuts and kills: part of `scripts/torture --stores`."""
    tests = Path(__file__).parents[1]
    names = ("unit/test_rclone.py", "unit/test_rclone_ends.py", "daemon/test_rclone_memory.py")
    files = [str(tests / name) for name in names]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={folder / 'rclone'}",
    ]
    done = subprocess.run([*command, *files], env=os.environ | {"TRAPSYNC_EVERY_STORE": "1"}, check=False)
    assert done.returncode == 0, "rclone and its other ends: see above"
