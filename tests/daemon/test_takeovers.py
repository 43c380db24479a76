"""What whoever takes over a hub, a broker, a bucket, a trap or a key gets from three real traps; the next push ends it.

Each test prints a row of the table in SECURITY.md: run with `-rP`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from paho.mqtt import publish

import drawings
import hub_server
import mosquitto
import signed
from daemon_process import Daemon
from trapsync.clock import SystemClock
from trapsync.fleet.connection import Connection, FolderConnection, HubConnection
from trapsync.fleet.mqtt import BrokerConnection
from trapsync.fleet.operator_key import OperatorKey, keep_secret
from trapsync.fleet.operator_settings import Operator
from trapsync.net.slots import topic_of
from trapsync.remote import document, record
from trapsync.remote.document import PrivateKey
from trapsync.remote.record import LARGEST_NUMBER
from trapsync.settings.schema import HubMqtt

DEVICES = ("0a1b2c3d", "0a1b2c3e", "0a1b2c3f")
FAR = LARGEST_NUMBER - 1
CONFIG = """
[remote]
enabled = true
keys = ["{first}", "{second}"]
groups = ["valley"]
trial = "1 s"
"""
Put = Callable[[str, bytes], object]
Forge = Callable[[str, dict[str, Any]], object]
Place = tuple[str, tuple[str, ...], Put, Connection, Forge | None]


@dataclass
class Fleet:
    """Three traps, an operator with two keys, and the one place that they share."""

    desk: Path
    traps: list[Daemon]
    where: tuple[str, ...]
    put: Put  # what lies in a slot, as whoever holds the place may set it
    connection: Connection
    forge: Callable[[str, dict[str, Any]], object] | None = None  # a heartbeat of this device

    def key(self, name: str) -> PrivateKey:
        return OperatorKey.read(self.desk / name).private

    def say(self, *words: str) -> str:
        """The operator types a command; what it said."""
        command = [sys.executable, "-m", "trapsync", *words, *self.where]
        environment = os.environ | {"TRAPSYNC_OWNER": str(self.desk / "none.toml")}
        done = subprocess.run(
            command, cwd=self.desk, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def push(self, quality: int, key: str = "first") -> None:
        """Publish a quality for all, and wait until every trap has committed it."""
        (self.desk / "one.toml").write_text(f"[camera]\nquality = {quality}\n")
        self.say("push", "one.toml", "--to", "all", "--key", key, "--yes")
        for trap in self.traps:
            self.until(trap, lambda found: self.quality(found) == quality and found.state == "committed")

    def until(self, trap: Daemon, claim: Callable[[record.Record], object]) -> None:
        deadline = time.monotonic() + 90
        while not claim(record.read(trap.folder / "state")):
            assert trap.poll() is None, trap.text()
            assert time.monotonic() < deadline, f"{record.read(trap.folder / 'state')}\n{trap.text()[-6000:]}"
            time.sleep(0.1)  # another process is to come so far

    def quality(self, found: record.Record) -> int | None:
        """The quality that was sent and is in force."""
        taken = found.in_force
        return int(taken.tables["camera"]["quality"]) if taken else None

    def qualities(self) -> list[int | None]:
        return [self.quality(record.read(trap.folder / "state")) for trap in self.traps]

    def accepted(self) -> int:
        """How many documents the traps said to have accepted."""
        return sum(trap.text().count(", accepted:") for trap in self.traps)

    def heard(self, since: list[int], text: str) -> None:
        """Wait until every trap has said so, after so much of its log."""
        for trap, before in zip(self.traps, since, strict=True):
            trap.until_log(text, 60, since=before)

    def logs(self) -> list[int]:
        return [len(trap.text()) for trap in self.traps]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def hub(desk: Path) -> Iterator[Place]:
    """A hub of which the attacker has the database."""
    with hub_server.running(desk / "hub") as running:
        running.auth("owner")
        for device in DEVICES:
            running.join(device, hub_server.PASSWORD, ("valley",))
        table = f'[hub]\nurl = "{running.url}"\nusername = "DEVICE"\npassword_file = "{desk / "password"}"\nevery = "1 s"\n'
        where = ("--hub", running.url, "--user", "owner", "--password-file", str(desk / "password"))

        def put(slot: str, data: bytes) -> None:
            with running.hub.database.writing() as connection:
                name = document.document_hash(data)
                connection.execute(
                    "INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?)", (slot, data, name, "x", "x")
                )

        def forge(device: str, beat: dict[str, Any]) -> None:
            running.hub.fleet.take(device, json.dumps(beat).encode(), device)

        operator = Operator(hub=running.url, username="owner", password_file=desk / "password")
        yield table, where, put, HubConnection(operator, SystemClock(), time.sleep), forge


@contextmanager
def broker(desk: Path) -> Iterator[Place]:
    """A broker on which the attacker may write whatever he likes."""
    with mosquitto.running(desk / "broker") as running:
        table = f'[hub]\nevery = "1 s"\n{running.table}'
        files = ("--password-file", str(running.secret), "--ca-file", str(running.authority))
        where = ("--broker", f"{running.host}:{running.port}", "--user", "owner", *files)

        def put(slot: str, data: bytes) -> None:
            publish.single(f"trapsync/{topic_of(slot)}", data, qos=1, retain=True, **mosquitto.owner(running))

        def forge(device: str, beat: dict[str, Any]) -> None:
            topic, data = f"trapsync/traps/{device}/heartbeat", json.dumps(beat)
            publish.single(topic, data, qos=1, retain=True, **mosquitto.owner(running))

        mqtt = HubMqtt(
            host=running.host,
            port=running.port,
            username="owner",
            password_file=running.secret,
            ca_file=running.authority,
        )
        yield table, where, put, BrokerConnection(mqtt, SystemClock()), forge


@contextmanager
def bucket(desk: Path) -> Iterator[Place]:
    """A folder of a web server into which the attacker may write."""
    (desk / "www").mkdir()
    handler = partial(Quiet, directory=str(desk / "www"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        table = f'[hub]\nurl = "{url}"\nheartbeat_url = "none"\nevery = "1 s"\n'

        def put(slot: str, data: bytes) -> None:
            (desk / "www/pushed").mkdir(exist_ok=True)
            new = desk / "new"
            new.write_bytes(data)
            new.replace(desk / "www/pushed" / slot)

        yield table, ("--folder", str(desk / "www")), put, FolderConnection(desk / "www"), None
    finally:
        server.shutdown()
        server.server_close()


def row(*cells: str) -> None:
    """Show a row of the table."""
    sys.stdout.write(f"| {' | '.join(cells)} |\n")


PLACES = {"hub": hub, "broker": broker, "bucket": bucket}


@contextmanager
def fleet(folder: Path, kind: str) -> Iterator[Fleet]:
    desk = folder / "desk"
    desk.mkdir()
    (desk / "password").write_text(hub_server.PASSWORD)
    (desk / "password").chmod(0o600)
    for name in ("first", "second"):
        keep_secret(desk / name, f"{document.new_key()}\n")
    with ExitStack() as stack:
        table, where, put, connection, forge = stack.enter_context(PLACES[kind](desk))
        public = {name: OperatorKey.read(desk / name).private.public for name in ("first", "second")}
        traps = []
        for device in DEVICES:
            trap = Daemon(folder / device, table.replace("DEVICE", device) + CONFIG.format(**public))
            trap.config.write_text(trap.config.read_text().replace(drawings.DEVICE, device))
            trap.start()
            stack.callback(_end, trap)
            traps.append(trap)
        for trap in traps:
            trap.until_log("watching over", 60)
        yield Fleet(desk, traps, where, put, connection, forge)


def _end(trap: Daemon) -> None:
    if trap.poll() is None:
        trap.kill()


def forgeries(found: Fleet, owners: bytes) -> dict[str, list[tuple[str, bytes]]]:
    """What whoever holds a place can put into its slots, without a key; `owners` is a document that was had."""
    slots = ["all.settings", "group-valley.settings", *(f"device-{device}.settings" for device in DEVICES)]
    one = replace(signed.DOCUMENT, version=FAR, settings={"camera": {"quality": 50}})
    line, _, _ = owners.partition(b"\n")

    def addressed(slot: str) -> document.Document:
        return replace(one, to=slot.removesuffix(".settings").replace("-", ":", 1))

    stranger = {slot: document.sign(document.compose(addressed(slot)), signed.STRANGER) for slot in slots}
    return {
        "signed by a stranger": list(stranger.items()),
        "with the operator's signature of another": [
            (slot, line + b"\n" + data.partition(b"\n")[2]) for slot, data in stranger.items()
        ],
        "with a zero for a signature": [
            (slot, line[:35] + b"0" * 128 + b"\n" + data.partition(b"\n")[2])
            for slot, data in stranger.items()
        ],
        "the operator's, with one bit changed": [
            (slots[0], owners[:-3] + bytes([owners[-3] ^ 1]) + owners[-2:])
        ],
        "the operator's, from before": [(slot, owners) for slot in slots],
        "keys, revoked by a stranger": [
            (
                f"key-{found.key('first').public.id}.keys",
                signed.keys(FAR, found.key("first"), found.key("second"), key=signed.STRANGER),
            )
        ],
    }


@pytest.mark.parametrize("kind", PLACES)
def test_whoever_takes_over_the_place_gets_no_trap_to_do_anything_and_the_next_push_steers(
    tmp_path: Path, kind: str
) -> None:
    with fleet(tmp_path, kind) as found:
        found.push(80)
        first = found.connection.documents()["all.settings"]
        found.push(70)
        before, logs, accepted = found.qualities(), found.logs(), found.accepted()
        count = 0
        for forged in forgeries(found, first).values():
            for slot, data in forged:
                found.put(slot, data)
                count += 1
            time.sleep(1.5)  # the traps call once a second
        if found.forge:
            for device in ("deadbeef", *DEVICES):
                remote = {"version": FAR, "key": found.key("first").public.id, "epoch": FAR}
                found.forge(device, {"device": device, "verdict": "ok", "remote": remote, "pushed": remote})
        found.heard(logs, ", key: ")
        assert found.qualities() == before == [70, 70, 70]
        assert found.accepted() == accepted
        for slot in (
            "group-valley.settings",
            *(f"device-{device}.settings" for device in DEVICES),
        ):
            found.put(slot, b"")  # what the operator finds is what was left in the one that is used
        found.push(60)
        assert OperatorKey.read(found.desk / "first").last == 3
        row(kind, f"{count} forged documents, heartbeats with the highest number", "0 accepted", "next push")


def test_a_stolen_trap_steers_nobody_and_the_next_push_reaches_the_others(tmp_path: Path) -> None:
    with fleet(tmp_path, "hub") as found:
        found.push(80)
        stolen = found.traps.pop()
        stolen.kill()
        url, auth = found.where[1], (DEVICES[-1], (found.desk / "password").read_text())
        first = requests.get(f"{url}/pushed/all.settings", auth=auth, timeout=30).content
        forged = forgeries(found, first)
        put = [
            requests.put(f"{url}/pushed/{slot}", data, auth=auth, timeout=30).status_code
            for pairs in forged.values()
            for slot, data in pairs
        ]
        beats = []
        for device in ("deadbeef", *DEVICES[:-1]):
            remote = {"version": FAR, "key": found.key("first").public.id}
            beat = {"device": device, "verdict": "ok", "remote": remote}
            beats.append(
                requests.post(f"{url}/heartbeats/{device}", json=beat, auth=auth, timeout=30).status_code
            )
        assert set(put) == set(beats) == {403}
        found.say("hub", "revoke", DEVICES[-1], "--yes")
        assert requests.get(f"{url}/pushed/all.settings", auth=auth, timeout=30).status_code == 401
        found.push(60)
        assert (found.qualities(), OperatorKey.read(found.desk / "first").last) == ([60, 60], 2)
        tried = f"{len(put)} documents, {len(beats)} heartbeats of others"
        row(
            "stolen trap",
            tried,
            "0 published, 0 heartbeats taken, and none of its own once revoked",
            "next push",
        )


def test_a_stolen_key_is_revoked_by_the_other_and_the_second_push_steers(tmp_path: Path) -> None:
    """The thief has the hub's account for operators too, and is first."""
    with fleet(tmp_path, "hub") as found:
        found.push(80)
        thief = found.key("first")
        now = document.parse(found.connection.documents()["all.settings"].partition(b"\n")[2])

        def sign(**changes: Any) -> bytes:
            return document.sign(document.compose(replace(now, **changes)), thief)

        far = {"version": FAR, "kind": "keys", "settings": {}, "revoke": ("0" * 16,)}
        found.put(f"key-{thief.public.id}.keys", sign(**far))
        for trap in found.traps:
            found.until(trap, lambda one: one.guard.revoked)
        found.put("all.settings", sign(version=FAR + 1, settings={"camera": {"quality": 50}}))
        for trap in found.traps:
            found.until(trap, lambda one: found.quality(one) == 50 and one.state == "committed")
        found.say("keys", "revoke", thief.public.id, "--key", "second", "--yes")
        for trap in found.traps:
            found.until(trap, lambda one: thief.public.id in one.guard.revoked)
        found.push(60, "second")
        logs = found.logs()
        found.put("all.settings", sign(version=FAR + 1, settings={"camera": {"quality": 40}}))
        found.put(
            f"key-{thief.public.id}.keys",
            sign(**far | {"version": FAR + 1, "revoke": (found.key("second").public.id,)}),
        )
        found.heard(logs, "was revoked by")
        assert found.qualities() == [60, 60, 60]
        got = "3 of 3 traps until it was revoked, then 0"
        row("stolen key", "the highest number, settings within the traps' limits", got, "second push")
