"""From a desk to a trap behind a network that only lets connections out, and back: by a hub, and by a broker."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import external_programs
import hub_server
import mosquitto
import processes
from daemon_process import Daemon
from drawings import DEVICE
from mosquitto import retained, until
from trapsync.remote import document

SHOWS = "a push to a trap behind a network that lets connections out only"
_NET = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"  # two workers may be at it
DESK, TRAP = f"{_NET}.1", f"{_NET}.2"
RULES = f"""
table inet one_way {{
  chain input {{
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    ip saddr {DESK} counter drop
  }}
}}
"""
PUSHED = """
[remote]
enabled = true
keys = ["{key}"]
groups = ["valley"]
trial = "4 s"
[remote.limits]
min_interval = "1 s"
min_days = 0.0
"""
HOME = """
[hub]
every = "1 s"
{way}
"""


class Behind(Daemon):
    """A daemon in a network namespace of its own."""

    namespace = ""

    def start(self, *arguments: str, **environment: str) -> None:
        """As `Daemon.start`, in the namespace; `ip` becomes the daemon, so that its process id is the same."""
        command = [sys.executable, "-m", "trapsync", "-c", str(self.config), "run", *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [_tool("ip"), "netns", "exec", self.namespace, *command],
                stderr=log,
                stdout=log,
                env=os.environ | environment,
                start_new_session=True,
            )


@pytest.fixture
def network() -> Iterator[str]:
    """A namespace for the trap, with a cable to the desk, and a firewall that lets nobody in."""
    if os.geteuid() != 0:
        pytest.skip(f"NOT SHOWN HERE: {SHOWS}; only root can make network namespaces")
    external_programs.require("ip", "nft", shows=SHOWS)
    name = f"trap{os.getpid()}"
    near, far = f"desk{os.getpid()}"[:15], f"trap{os.getpid()}"[:15]
    if _ip("netns", "add", name).returncode:
        pytest.skip(f"NOT SHOWN HERE: {SHOWS}; this kernel or container has no network namespaces")
    try:
        for command in (
            ("link", "add", near, "type", "veth", "peer", "name", far, "netns", name),
            ("addr", "add", f"{DESK}/24", "dev", near),
            ("link", "set", near, "up"),
            ("-n", name, "addr", "add", f"{TRAP}/24", "dev", far),
            ("-n", name, "link", "set", far, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        ):
            done = _ip(*command)
            assert done.returncode == 0, done.stderr
        rules = [_tool("ip"), "netns", "exec", name, _tool("nft"), "-f", "-"]
        subprocess.run(rules, input=RULES, text=True, check=True)
        yield name
    finally:
        _ip("netns", "del", name)
        _ip("link", "del", near)


def _ip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([_tool("ip"), *arguments], capture_output=True, text=True, check=False)


def _tool(name: str) -> str:
    found = external_programs.find(name)
    assert found, name
    return found


def dropped(network: str) -> int:
    """How many packets to the trap the firewall has refused."""
    command = [_tool("ip"), "netns", "exec", network, _tool("nft"), "-j", "list", "ruleset"]
    rules = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    parts = [part for entry in rules["nftables"] for part in entry.get("rule", {}).get("expr", [])]
    return sum(part["counter"]["packets"] for part in parts if "counter" in part)


def assert_one_way(network: str) -> None:
    """Something does listen in there, and cannot be reached from the desk."""
    code = f"import socket; s = socket.create_server(('{TRAP}', 7777)); print('up', flush=True); s.accept()"
    command = [_tool("ip"), "netns", "exec", network, sys.executable, "-c", code]
    with processes.started(command, stdout=subprocess.PIPE) as inside:
        assert inside.stdout
        assert inside.stdout.readline() == b"up\n"
        with pytest.raises(TimeoutError):
            socket.create_connection((TRAP, 7777), 1)
        inside.kill()
    assert dropped(network) > 0


class Desk:
    """The owner's laptop: a key, and where the traps call."""

    def __init__(self, folder: Path, settings: str) -> None:
        folder.mkdir()
        key = document.new_key()
        self.public = str(key.public)
        (folder / "key").write_text(str(key))
        (folder / "key").chmod(0o600)
        (folder / "owner.toml").write_text(f'key = "key"\n{settings}')
        (folder / "night.toml").write_text('[capture]\nevery = "2 s"\n')
        self.folder = folder

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command on the laptop."""
        return subprocess.run(
            [sys.executable, "-m", "trapsync", *arguments],
            cwd=self.folder,
            env=os.environ | {"TRAPSYNC_OWNER": str(self.folder / "owner.toml")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def trap(self) -> dict[str, Any]:
        """The one trap of the fleet; nothing before it was heard."""
        done = self.run("fleet", "--json")
        found = json.loads(done.stdout)["traps"] if done.stdout else []
        return found[0] if found else {}

    def until(self, claim: Callable[[dict[str, Any]], object], trap: Daemon) -> dict[str, Any]:
        """Look at the fleet until the claim holds of what was pushed; the trap as it is then."""
        found: dict[str, Any] = {}

        def is_so() -> object:
            found.clear()
            found.update(self.trap())
            return found and claim(found["heartbeat"]["remote"])

        try:
            until(is_so, 80)
        except AssertionError:
            pytest.fail(f"in vain: {found}\n{trap.text()}")
        return found


@contextmanager
def by_hub(folder: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    with hub_server.running(folder / "hub", host=DESK) as hub:
        hub.auth("owner")
        secret = folder / "password"
        secret.write_text(hub.password)
        secret.chmod(0o600)
        account = f'password_file = "{secret}"'
        way = f'url = "{hub.url}"\nusername = "trap"\n{account}\n'

        def held() -> bytes:
            found = hub.hub.fleet.held("group-valley.settings")
            assert found
            return found.data

        yield way, f'hub = "{hub.url}"\nusername = "owner"\n{account}\n', held


@contextmanager
def by_broker(folder: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    with mosquitto.running(folder / "broker", host=DESK, address=DESK) as broker:
        table = broker.table.replace("[hub.mqtt]", "[broker]").replace('"trap"', '"owner"')

        def held() -> bytes:
            return retained(broker, "pushed/group/valley/settings")

        yield broker.table, table, held


@pytest.mark.parametrize("link_lost", [by_hub, by_broker], ids=["hub", "broker"])
def test_a_push_reaches_a_trap_that_nobody_can_reach_and_its_word_comes_back(
    tmp_path: Path, network: str, link_lost: Any
) -> None:
    assert_one_way(network)
    with link_lost(tmp_path) as (way, desks, held):
        desk = Desk(tmp_path / "desk", desks)
        more = PUSHED.format(key=desk.public) + HOME.format(way=way)
        trap = Behind(tmp_path / "trap", more, camera="simulated")
        trap.namespace = network
        trap.start()
        try:
            before = desk.until(lambda report: report["state"] == "none", trap)
            pushed = desk.run("push", "night.toml", "--to", "group:valley", "--yes")
            assert pushed.returncode == 0, pushed.stderr
            assert "capture.every: the trap's own → 2 s" in pushed.stdout
            after = desk.until(lambda report: report["state"] == "committed", trap)
            table = desk.run("fleet").stdout
            settings = trap.run("settings", "show").stdout
        finally:
            trap.kill()

        name = hashlib.sha256(held()).hexdigest()
    report = after["heartbeat"]["remote"]
    assert before["device"] == after["device"] == DEVICE
    assert (report["last_received_hash"], report["effective_hash"]) == (name, name)
    assert (report["key"] is not None, report["version"]) == (True, 1)
    assert '[capture]\nevery = "2 s"' in settings
    assert " 1 " in table.splitlines()[1]
