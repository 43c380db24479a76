"""What an image costs a hub: its CPU beside hashing, writing and recording the same bytes, its rate beside a web server's.

The hub is the program itself. The floor is what no receiver that keeps its word can leave out: the digest, the file and
its name flushed, one row committed; in one process, without a network. The web server is nginx with its own PUT, which
flushes nothing. The viewers go through all pages and pictures without a pause.
"""

import base64
import hashlib
import http.client
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median

import external_programs
import flooded_hub
import hub_server
import processes
from bench import pictures
from bench.table import Row
from rclone_ends import free_port, wait_for
from trapsync.hub.app import Hub
from trapsync.hub.sessions import COOKIE

_SIZE = 300_000  # bytes of an image
_SENDERS = 4
_VIEWERS = 20
_Put = Callable[[http.client.HTTPConnection, int], int]


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """The hub beside the floor, then beside nginx."""
    images = 10 if tiny else 300
    picture = pictures.of_bytes(_SIZE)
    numbers = count()
    with flooded_hub.running(folder) as (process, port, token), ExitStack() as stack:
        hub = _Sender(port, _upload(picture, token[0]), numbers)
        hub.rate(20)  # its examiner starts
        floor = _Floor(folder, picture, numbers)
        costs = [_costs(process.pid, hub, floor, images) for _ in range(rounds)]
        seen = _with_viewers(folder, hub, port, images, rounds)
        memory = flooded_hub.memory_of(process.pid)
        web = _Sender(stack.enter_context(_nginx(folder)), _put(picture), numbers) if _has_nginx() else None
        # At the end: what nginx wrote is still to be flushed, which whoever flushes next has to pay for.
        rates = [(hub.rate(images), web.rate(images)) for _ in range(rounds)] if web else []
    yield Row(
        "store",
        f"CPU of an image of {_SIZE / 1e6:g} MB at the hub, its examiner's included",
        1000 * median(ours for ours, _ in costs),
        "ms",
        "hash, write and flush, one commit",
        median(ours / least for ours, least in costs),
        2.5,
    )
    yield Row(
        "store",
        f"images in a second while {_VIEWERS} viewers fetch pages and pictures",
        median(watched for watched, _ in seen),
        "/s",
        "without viewers",
        median(watched / alone for watched, alone in seen),
        0.9,
        at_least=True,
    )
    yield Row("store", "memory of the hub and its examiner", memory, "MB", "120 MB", memory / 120, 1.0)
    if not web:
        print("store: NOT MEASURED beside nginx: apt install nginx-light", file=sys.stderr)
        return
    yield Row(
        "store",
        f"images of {_SIZE / 1e6:g} MB in a second, {_SENDERS} senders",
        median(ours for ours, _ in rates),
        "/s",
        "nginx, PUT, which flushes nothing",
        median(ours / theirs for ours, theirs in rates),
    )


def _costs(process: int, hub: "_Sender", floor: "_Floor", images: int) -> tuple[float, float]:
    """Seconds of CPU of an image at the hub, and at the least."""
    os.sync()
    before = processes.cpu_seconds(process)
    hub.rate(images)
    ours = (processes.cpu_seconds(process) - before) / images
    os.sync()
    return ours, floor.cost(images)


def _with_viewers(
    folder: Path, hub: "_Sender", port: int, images: int, rounds: int
) -> list[tuple[float, float]]:
    """Images in a second with viewers and without, by turns."""
    seen = []
    for _ in range(rounds):
        alone = hub.rate(images)
        with _viewers(folder, port):
            seen.append((hub.rate(images), alone))
    return seen


@contextmanager
def _viewers(folder: Path, port: int) -> Iterator[None]:
    """Twenty of them, in a process of their own, until the block ends."""
    store = Hub.open(folder / "hub")
    user = store.accounts.named("trap")
    assert user
    secret = store.sessions.begin(user, hub_server.PASSWORD)
    store.database.close()
    command = [sys.executable, "-m", "bench.viewing", str(port), str(_VIEWERS), f"{COOKIE}={secret}"]
    with processes.started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()  # each has had a page
        yield
        process.stdin.close()
        fetched = int(process.stdout.readline())
        if fetched < _VIEWERS:
            raise RuntimeError(f"the viewers have seen {fetched} pages and pictures")


class _Sender:
    """Sends pictures of new names to one server, over kept connections."""

    def __init__(self, port: int, put: _Put, numbers: Iterator[int]) -> None:
        self._port = port
        self._put = put
        self._numbers = numbers

    def rate(self, images: int) -> float:
        """Images per second. Raises RuntimeError where one was not taken."""
        waiting = [next(self._numbers) for _ in range(images)]
        statuses: list[int] = []
        threads = [threading.Thread(target=self._send, args=(waiting, statuses)) for _ in range(_SENDERS)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(statuses) != images or max(statuses) >= 300:
            raise RuntimeError(f"not every picture was taken: {sorted(set(statuses))}")
        return images / (time.perf_counter() - begun)

    def _send(self, waiting: list[int], statuses: list[int]) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self._port)
        while waiting:
            statuses.append(self._put(line, waiting.pop()))
        line.close()


def _upload(picture: bytes, token: str) -> _Put:
    """How the Sticky Pi client sends one."""
    login = "Basic " + base64.b64encode(f"{token}:".encode()).decode()
    headers = {"Authorization": login, "Content-Type": "multipart/form-data; boundary=x"}
    md5 = hashlib.md5(picture, usedforsecurity=False).hexdigest()

    def put(line: http.client.HTTPConnection, number: int) -> int:
        name = Path(pictures.path(number, every=1)).name
        part = "--x\r\nContent-Disposition: form-data; "
        head = f'{part}name="{name}.md5"\r\n\r\n{md5}\r\n{part}name="{name}"; filename="{name}"\r\n\r\n'
        line.request("POST", "/_put_new_images", head.encode() + picture + b"\r\n--x--\r\n", headers)
        answer = line.getresponse()
        answer.read()
        return answer.status

    return put


def _put(picture: bytes) -> _Put:
    """The same picture by WebDAV."""

    def put(line: http.client.HTTPConnection, number: int) -> int:
        line.request("PUT", f"/{number}.jpg", picture)
        answer = line.getresponse()
        answer.read()
        return answer.status

    return put


class _Floor:
    """What cannot be left out: each picture's digest, its file, the name of that, and a row."""

    def __init__(self, folder: Path, picture: bytes, numbers: Iterator[int]) -> None:
        self._folder = folder / "floor"
        self._folder.mkdir()
        self._picture = picture
        self._numbers = numbers
        self._rows = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
        self._rows.execute("PRAGMA journal_mode = WAL")
        self._rows.execute("PRAGMA synchronous = FULL")
        self._rows.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, name TEXT UNIQUE, md5 TEXT)")

    def cost(self, images: int) -> float:
        """Seconds of CPU for each of so many images."""
        before = time.process_time()
        for _ in range(images):
            self._keep(self._folder / f"{next(self._numbers)}.jpg")
        return (time.process_time() - before) / images

    def _keep(self, path: Path) -> None:
        part = path.with_suffix(".part")
        with part.open("xb", buffering=0) as file:
            file.write(self._picture)
            digest = hashlib.md5(self._picture, usedforsecurity=False).hexdigest()
            os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._rows.execute("BEGIN IMMEDIATE")
        self._rows.execute("INSERT INTO images (name, md5) VALUES (?, ?)", (path.name, digest))
        self._rows.execute("COMMIT")


def _has_nginx() -> bool:
    return external_programs.find("nginx") is not None


@contextmanager
def _nginx(folder: Path) -> Iterator[int]:
    """An nginx that takes PUT; its port."""
    place, port = folder / "nginx", free_port()
    (place / "files").mkdir(parents=True)
    user = "user root;" if os.geteuid() == 0 else ""  # the folder is this user's alone
    paths = "".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"{user} pid {place}/pid; error_log {place}/error.log; daemon off; master_process off; events {{}}\n"
        f"http {{ access_log off; {paths} client_max_body_size 100m;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ root {place}/files; dav_methods PUT; }} }} }}\n"
    )
    program = external_programs.find("nginx")
    assert program
    command = [program, "-c", str(place / "nginx.conf"), "-e", f"{place}/error.log"]
    with processes.started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(port, process)
        yield port
