"""A real broker: Mosquitto on a free port, with TLS, passwords, and rights like those the README asks for."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paho.mqtt import subscribe

import external_programs

PASSWORD = "a password for tests"

_CONFIG = """\
listener {port} {address}
cafile {folder}/broker.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/rights
{user}
"""
_RIGHTS = """\
user owner
topic readwrite trapsync/#
user trap
topic read trapsync/pushed/#
topic write trapsync/traps/#
"""


@dataclass(frozen=True)
class Broker:
    """A broker that listens. `secret` is the file of the password of `trap` and of `owner`."""

    host: str
    port: int
    authority: Path
    secret: Path
    stop: Callable[[], None]
    start: Callable[[], None]

    @property
    def table(self) -> str:
        """The trap's settings for it."""
        return (
            f'[hub.mqtt]\nhost = "{self.host}"\nport = {self.port}\nusername = "trap"\n'
            f'password_file = "{self.secret}"\nca_file = "{self.authority}"\n'
        )


@contextmanager
def running(folder: Path, host: str = "localhost", address: str = "127.0.0.1") -> Iterator[Broker]:
    """A broker that listens until the block ends; `stop` and `start` are an outage. Skips where there is none."""
    external_programs.require("mosquitto", "openssl", shows="settings and heartbeats over a real broker")
    folder.mkdir(parents=True, exist_ok=True)
    _make_certificate(folder, host, address)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    (folder / "rights").write_text(_RIGHTS)
    (folder / "passwords").write_text(f"owner:{PASSWORD}\ntrap:{PASSWORD}\n")
    for file in ("rights", "passwords"):
        (folder / file).chmod(0o600)
    subprocess.run([_tool("mosquitto_passwd"), "-U", folder / "passwords"], check=True, capture_output=True)
    port = _free_port(address)
    user = "user root" if os.geteuid() == 0 else ""  # else it could not read the folder
    (folder / "config").write_text(_CONFIG.format(port=port, address=address, folder=folder, user=user))
    process: subprocess.Popen[bytes] | None = None

    def start() -> None:
        nonlocal process
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [_tool("mosquitto"), "-c", folder / "config", "-v"], stderr=log, stdout=log
            )
        _wait_for(address, port, folder / "log")

    def stop() -> None:
        assert process
        process.terminate()
        process.wait(10)

    start()
    try:
        yield Broker(host, port, folder / "broker.pem", secret, stop, start)
    finally:
        stop()


def _make_certificate(folder: Path, host: str, address: str) -> None:
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host},IP:{address}"]
    files: list[str | Path] = ["-keyout", folder / "broker.key", "-out", folder / "broker.pem"]
    command = [_tool("openssl"), "req", *kind, *names, *files]
    subprocess.run(command, check=True, capture_output=True)


def _tool(name: str) -> str:
    found = external_programs.find(name)
    assert found, name
    return found


def _free_port(address: str) -> int:
    with socket.socket() as one, suppress(OSError):  # an address of another network namespace
        one.bind((address, 0))
        return int(one.getsockname()[1])
    return 18883


def _wait_for(address: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with suppress(OSError), socket.create_connection((address, port), 1):
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)  # another process is to come so far


def until(claim: Callable[[], object], seconds: float = 15) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # another process is to come so far


def owner(broker: Broker) -> dict[str, Any]:
    """How the operator connects, for the functions of paho."""
    return {
        "hostname": broker.host,
        "port": broker.port,
        "auth": {"username": "owner", "password": PASSWORD},
        "tls": {"ca_certs": str(broker.authority)},
    }


def retained(broker: Broker, topic: str) -> bytes:
    """What lies on a topic."""
    message: Any = subscribe.simple(f"trapsync/{topic}", qos=1, **owner(broker))  # type: ignore[no-untyped-call]
    return bytes(message.payload)
