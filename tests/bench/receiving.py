"""The other end, in a process of its own: the hub, bare or behind TLS, and a sink for bytes.

Run as a program: `python -m bench.receiving FOLDER ADDRESS`. It says in one line of JSON where it listens, answers each
line on stdin with the number of requests it has had, and ends when stdin does.
"""

import asyncio
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import external_programs
import hub_server
import processes
from trapsync.hub.app import Hub, make_app
from trapsync.hub.server import listen


@dataclass(frozen=True)
class Receiver:
    """Where the other end listens."""

    process: "subprocess.Popen[str]"
    plain: str
    tls: str
    sink: tuple[str, int]
    token: str
    certificate: Path

    def requests(self) -> int:
        """How many the hub has had."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def running(folder: Path, address: str, where: list[str]) -> Iterator[Receiver]:
    """The other end, until the block ends; `where` is put before its command."""
    folder.mkdir(parents=True)
    command = [*where, sys.executable, "-m", "bench.receiving", str(folder), address]
    with processes.started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        facts = json.loads(process.stdout.readline())
        yield Receiver(
            process, facts["plain"], facts["tls"], tuple(facts["sink"]), facts["token"], folder / "hub.pem"
        )
        process.stdin.close()
        process.wait(10)


def main() -> None:
    """Serve until stdin ends."""
    folder, address = Path(sys.argv[1]), sys.argv[2]
    hub = Hub.open(folder / "hub", examiner=hub_server.InThisProcess())
    hub.accounts.add("trap", hub_server.PASSWORD, "manager")
    account = hub.accounts.named("trap")
    assert account
    app, count = make_app(hub), [0]
    inner = app.wsgi_app

    def counting(environment: Any, start: Any) -> Any:
        count[0] += 1
        return inner(environment, start)

    setattr(app, "wsgi_app", counting)  # noqa: B010 - mypy minds a method that is replaced
    server = listen(app, address, 0)
    port = server.effective_port
    threading.Thread(target=server.run, daemon=True).start()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    ports = asyncio.run_coroutine_threadsafe(_listen(folder, address, port), loop).result()
    facts = {
        "plain": f"http://{address}:{port}",
        "tls": f"https://{address}:{ports[0]}",
        "sink": [address, ports[1]],
        "token": hub.accounts.token(account)[0],
    }
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(count[0], flush=True)


async def _listen(folder: Path, address: str, port: int) -> tuple[int, int]:
    """TLS in front of the hub, and a sink that answers with a byte when all is there; their ports."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(folder, address))

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(address, port)
        await asyncio.gather(_pipe(reader, ours), _pipe(theirs, writer))

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass
        writer.write(b".")
        await writer.drain()
        writer.close()

    servers = (
        await asyncio.start_server(forward, address, 0, ssl=context),
        await asyncio.start_server(swallow, address, 0),
    )
    first, second = (server.sockets[0].getsockname()[1] for server in servers)
    return first, second


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(ConnectionError, RuntimeError):
        writer.close()


def _certificate(folder: Path, address: str) -> tuple[Path, Path]:
    openssl = external_programs.find("openssl")
    assert openssl
    certificate, key = folder / "hub.pem", folder / "hub.key"
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hub"]
    names = ["-addext", f"subjectAltName=IP:{address}"]
    command = [openssl, "req", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


if __name__ == "__main__":
    main()
