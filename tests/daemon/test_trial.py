"""New settings on trial: the real daemon undoes what does it no good, and keeps what does."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import child_faults
import daemon_process
import signed
from fake_time import FakeTime
from trapsync.errors import SettingsError
from trapsync.remote import record
from trapsync.remote.in_force import InForce, load, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.runtime.service import Service
from trapsync.runtime.trial import begin
from trapsync.settings.layers import Files
from trapsync.trap import lock, open_catalog

PATIENCE = """
[remote.limits]
min_interval = "1 s"
min_picture = 0.1
min_days = 1000.0
[destinations.stick]
kind = "directory"
path = "stick"
every = "1 s"
"""


class Trap:
    """A trap that does badly with some settings, its owner, and systemd, which starts it again."""

    def __init__(self, folder: Path, more: str = PATIENCE, every: str = "1 s", trial: str = "2 s") -> None:
        trusting = signed.TRUSTING + f'trial = "{trial}"\n'
        self.daemon = daemon_process.Daemon(folder, trusting + more, camera="simulated")
        self.daemon.program = (child_faults.__file__, "bad")
        config = self.daemon.config.read_text()
        self.daemon.config.write_text(
            config.replace("[camera]", '[camera]\ntimeout = "3 s"').replace(
                'every = "1 s"', f'every = "{every}"', 1
            )
        )
        (folder / "stick").mkdir()
        (folder / "stick" / ".trapsync-destination").touch()
        self.starts = 0

    def start(self) -> None:
        self.daemon.start()
        self.starts += 1

    def take(self, data: bytes) -> str:
        """Bring a document by hand; what became of it."""
        (self.daemon.folder / "document").write_bytes(data)
        return self.daemon.run("settings", "take", str(self.daemon.folder / "document")).stdout.partition(
            ":"
        )[0]

    def until(self, state: str, seconds: float = 60) -> dict[str, Any]:
        """Live on, started again whenever it dies, until the remote settings are in that state."""
        deadline = time.monotonic() + seconds
        while True:
            if self.daemon.poll() is not None:
                self.start()
            if f'"state": "{state}"' in (self.daemon.folder / "state" / "remote_settings.json").read_text():
                return self.daemon.status()
            assert time.monotonic() < deadline, f"in vain: {self.daemon.status()}\n{self.daemon.text()}"
            time.sleep(0.1)  # another process is to come so far


@contextmanager
def living(folder: Path, every: str = "1 s", trial: str = "2 s") -> Iterator[Trap]:
    """A trap that took pictures, one every so often, and delivered them."""
    trap = Trap(folder / "trap", every=every, trial=trial)
    trap.start()
    try:
        trap.daemon.until(lambda f: f["ledger"]["delivered"] > 0)
        yield trap
    finally:
        if trap.daemon.poll() is None:
            os.killpg(trap.daemon.pid, signal.SIGKILL)
            trap.daemon.wait()


def test_good_settings_are_tried_and_stay(tmp_path: Path) -> None:
    with living(tmp_path, trial="8 s") as trap:  # a start takes some of that
        data = signed.settings(1, {"capture": {"every": "2 s"}, "camera": {"quality": 80}})
        assert trap.take(data) == "accepted"
        trap.daemon.until_log("the remote settings 1 are on trial, start 1")
        facts = trap.until("committed")
        assert (facts["remote"]["version"], facts["remote"]["code"]) == (1, None)
        assert facts["remote"]["effective_hash"] == facts["remote"]["last_received_hash"]
        assert (trap.take(data), trap.starts) == ("known", 1)
        assert "# capture.every: remote 1" in trap.daemon.run("settings", "show").stdout
        assert trap.daemon.stop() == 0


# Where the camera hangs it depends on the machine what is noticed first: failures in a row, or no pictures.
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "crash the daemon": ("starts", {"camera": {"quality": child_faults.CRASHING}}),
    "hang the camera": ("captures", {"camera": {"quality": child_faults.HANGING}}),
    "take a picture every second": ("disk", {"capture": {"every": "1 s"}}),
    "fill the disk": ("disk", {"camera": {"quality": 100, "resolution": [1200, 900]}}),
    "close the way home": ("link_lost", {"destinations": {"stick": {"transfers": child_faults.CLOSING}}}),
}


@pytest.mark.parametrize("harm", BAD)
def test_settings_that_do_harm_are_undone_by_the_trap_itself_reported_and_not_taken_again(
    tmp_path: Path, harm: str
) -> None:
    code, tables = BAD[harm]
    data = signed.settings(1, tables)
    with living(tmp_path, every="2 s" if "every" in str(tables) else "1 s") as trap:
        assert trap.take(data) == "accepted"
        facts = trap.until("rolled_back")
        assert facts["remote"]["code"] in {code, "camera" if code == "captures" else code}
        assert facts["remote"]["effective_hash"] is None
        assert facts["remote"]["reason"]
        assert f"remote settings 1 were rolled back: {facts['remote']['reason']}" in facts["reasons"]
        # It was tried, and by starts of its own only: dead it was only where it crashed.
        assert "are on trial, start" in trap.daemon.text()
        assert trap.starts == (3 if harm == "crash the daemon" else 1)
        # The old settings are in force, pictures are taken and delivered.
        before = trap.daemon.status()["ledger"]
        trap.daemon.until(lambda f: f["ledger"]["delivered"] > before["delivered"] + 1)
        assert trap.take(data) == "rejected_before"
        assert trap.daemon.status()["remote"]["reason"] == facts["remote"]["reason"]


def test_what_the_limits_foresee_is_not_even_tried(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "trap", PATIENCE.replace('min_interval = "1 s"', ""), every="2 s")
    assert trap.take(signed.settings(1, {"capture": {"every": "1 s"}})) == "limits"
    assert trap.take(signed.settings(1, {"destinations": {"stick": {"bandwidth": "1 B"}}})) == "limits"


def test_what_comes_from_afar_begins_with_a_start_and_what_is_refused_does_not(tmp_path: Path) -> None:
    service = begin(load(Trap(tmp_path / "trap").daemon.config), Service)
    service._catalog = open_catalog(service.settings, FakeTime())
    assert service._receive(signed.settings(1, {}, signed.STRANGER)).code == "key"
    assert service.reload is False
    assert service._receive(signed.settings(1, {"camera": {"quality": 80}})).is_accepted
    assert (service.reload, service._stop.is_set()) == (True, True)


def accept(files: Files, data: bytes) -> None:
    assert RemoteSettings(files, FakeTime()).accept(data, lambda: None).is_accepted


def test_settings_with_which_the_daemon_cannot_be_made_are_undone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Trap(tmp_path / "trap").daemon.config
    accept(Files(source), signed.settings(1, {"camera": {"quality": 13}}))
    made = Service.__init__

    def refuse(service: Service, found: InForce, *rest: Any) -> None:
        if found.settings.camera.quality == 13:
            raise SettingsError("not with thirteen")
        made(service, found, *rest)

    monkeypatch.setattr(Service, "__init__", refuse)
    assert begin(load(source), Service).settings.camera.quality == 90
    facts = report(load(source))
    assert (facts["state"], facts["code"], facts["reason"]) == (
        "rolled_back",
        "settings",
        "not with thirteen",
    )


def test_a_second_daemon_that_finds_the_lock_taken_counts_no_start(tmp_path: Path) -> None:
    source = Trap(tmp_path / "trap").daemon.config
    state = source.parent / "state"
    accept(Files(source), signed.settings(1, {"camera": {"quality": 80}}))
    with lock(state):
        begin(load(source), Service)
    assert record.read(state).starts == 0
    begin(load(source), Service)
    assert record.read(state).starts == 1
