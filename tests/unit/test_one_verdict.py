"""One cause has one verdict: in status, doctor, heartbeat, fleet and light.

Each case is a trap with one thing wrong, as far as can be by the same hands as in the field (files, settings, servers), else
by what the daemon would have told. The last test holds the cases against the program: each reason that it gives is in one.
"""

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import drawings
import heartbeat_schema
import trap_bench as bench
from fault_server import FaultServer, Original
from trapsync import destinations, doctor, trap
from trapsync.catalog.counts import Counts
from trapsync.clock import utc
from trapsync.doctor.machine import Machine
from trapsync.hardware import board, prepared_card, usb_stick
from trapsync.hardware.board import Board
from trapsync.hardware.led import LedState
from trapsync.image import Evidence
from trapsync.net import heartbeat as read_heartbeat
from trapsync.net import judgement
from trapsync.remote import heartbeat
from trapsync.remote.in_force import load
from trapsync.runtime.destination_context import connect_all
from trapsync.spool import spool_mark
from trapsync.status import judged, reasons, snapshot
from trapsync.status.model import VERDICTS

HOUR = 3600.0
NONE = '[camera]\nkind = "none"\n'
SIMULATED = '[camera]\nkind = "simulated"\n'
STICK = '[destinations.stick]\nkind = "directory"\npath = "stick"\n'
# What the doctor says of a trap with nothing wrong: of a camera that is none, and of this machine.
ALWAYS = ("none: only files that others", "simulated: these are no real", "stick is on the system's own disk")

# What the status judges alone; the doctor tries out the destinations and the hub, and looks at the machine.
JUDGED = {"daemon", "camera", "not taken in", "card", "battery", "clock", "schedule", "images", "catalog"}
JUDGED |= {"deployment", "destinations", "remote settings", "computer", "joined"}

given: set[tuple[str, int]] = set()  # the reasons that were given, by file and line


@dataclass
class Case:
    """A trap with something wrong. `known` are facts, as the daemon tells them."""

    text: str = NONE
    do: Callable[["Bench"], object] = lambda _bench: None
    known: dict[str, Any] = field(default_factory=dict)
    board: Board = field(default_factory=Board)
    report: dict[str, Any] | None = None
    runs: bool = True
    stick: str = STICK


@dataclass
class Bench:
    """What a case may lay its hands on."""

    trap: bench.Trap
    patch: pytest.MonkeyPatch
    server: FaultServer

    @property
    def source(self) -> Path:
        return self.trap.folder / "trap.toml"

    def picture(self) -> None:
        """One is taken, and ingested."""
        self.trap.put()
        self.trap.ingest()

    def turns(self, number: int) -> None:
        """Turns of the only destination, as its back-off lets them be."""
        settings = load(self.source).settings
        ((name, values),) = settings.destinations.items()
        checked = destinations.check(name, values, self.source)
        (one,) = connect_all(settings, [checked], self.trap.catalog, self.trap.time, self.trap.time.sleep)
        self.trap.register(one)
        self.picture()
        for _ in range(number):
            self.trap.deliver(one)
            self.trap.time.sleep(HOUR)
        one.close()

    def counts(self, what: str) -> None:
        """The catalog counts one of these."""
        self.patch.setattr(Counts, what, lambda _self: 1)

    def row(self, **more: Any) -> None:
        """The row of the destination says so."""
        self.turns(1)
        rows = self.trap.catalog.counts.destinations()
        self.patch.setattr(Counts, "destinations", lambda _self: [rows[0] | more])


def server(one: Bench, *faults: str) -> None:
    """The destination is a server that answers so."""
    password = one.trap.folder / "password"
    password.write_text("x")
    password.chmod(0o600)
    text = f'kind = "stickypi"\nurl = "{one.server.url}"\nusername = "trap"\npassword_file = "password"\n'
    one.source.write_text(f"{one.source.read_text()}[destinations.far]\n{text}")
    one.server.plan("/get_token", *faults * 40)
    one.turns(2)


def quarantined(one: Bench) -> None:
    drawings.put(one.trap.storage.spool, b"no picture at all", "x.jpg")
    one.trap.ingest()


def unsure(one: Bench) -> None:
    """A boot ended before its clock was set, and its image was the only one of it."""
    not_set(one)
    for second in range(2):
        one.trap.catalog.times.note_boot()
        wall = drawings.TAKEN.timestamp() + second
        seen = Evidence(one.trap.time.boot_id(), one.trap.time.monotonic(), wall, trusted=False)
        picture = drawings.trap(seed=second, taken=utc(wall), evidence=seen)
        drawings.put(one.trap.storage.spool, picture, f"{drawings.DEVICE}.2026-06-21_20-19-{15 + second}.jpg")
        one.trap.ingest()
        one.trap.restart(reboot=not second)
    one.trap.catalog.times.give_up()


def full_in_a_day(one: Bench) -> None:
    one.picture()
    free = os.statvfs(one.trap.folder)
    least = free.f_bavail * free.f_frsize - 10**9
    one.source.write_text(one.source.read_text().replace("[storage]", f'[storage]\nmin_free = "{least} B"'))


def without_mark(one: Bench) -> None:
    spool_mark.accept(one.trap.storage)
    next(one.trap.storage.spool.glob(".trapsync*")).unlink()


def unmarked(_one: Bench) -> None:
    """The stick that a case has anyway has no mark: it is away."""
    _one.turns(1)


def not_set(one: Bench) -> None:
    one.trap.time.is_trusted = False


def in_the_past(one: Bench) -> None:
    one.trap.time.step_wall(-9 * 365 * 86400)


def old_image(one: Bench, hours: float, *, began: float) -> None:
    one.picture()
    one.trap.time.sleep(hours * HOUR)
    at = one.trap.time.wall() - began * HOUR
    os.utime(one.trap.storage.state / "daemon.lock", (at, at))


def ended(one: Bench) -> None:
    """The owner ended the deployment, and the trap goes on."""
    one.trap.catalog.deployments.start(drawings.DEVICE, {})
    one.trap.catalog.deployments.end(drawings.DEVICE)
    one.trap.time.sleep(60)
    one.trap.put(30)
    one.trap.ingest()


def broken_catalog(one: Bench) -> None:
    one.trap.catalog.close()
    one.trap.storage.catalog.write_bytes(b"no catalog" * 1000)


def read_only(one: Bench) -> None:
    for module in ("status", "status.reasons", "files.mounts"):
        one.patch.setattr(f"trapsync.{module}.read_only_card", lambda *_: "the card is read-only")


def one_kind(kind: str) -> Case:
    return Case(
        known={"not_taken_in": [{"kind": kind, "count": 1, "example": "x", "since": 0, "reason": "y"}]}
    )


def capture(**known: Any) -> Case:
    return Case(SIMULATED, known={"capture": known})


SILENT = {"hub": {"web": {"reached": 1.0, "since": 2.0, "error": "no answer"}}}
CASES = {
    "under-voltage now": Case(board=Board(1, 50.0)),
    "under-voltage before": Case(board=Board(0x10000, 50.0)),
    "too hot": Case(board=Board(0, 86.0)),
    "hot": Case(board=Board(0, 78.0)),
    "slowed down": Case(board=Board(4, 50.0)),
    "settings rolled back": Case(report={"state": "rolled_back", "code": "camera", "reason": "x"}),
    "settings refused": Case(report={"state": "trial", "code": "limits", "reason": "x", "refused": 2}),
    "settings lost": Case(report={"damaged": "the record is damaged"}),
    "a bug": Case(known={"bug": "x"}),
    "no daemon": Case(runs=False),
    "jobs that fail": Case(known={"jobs": {"sweep": "x"}}),
    "camera software missing": Case('[camera]\nkind = "picamera"\n'),
    "three failures": capture(failures=3, error="no camera"),
    "one failure": capture(failures=1, error="no camera"),
    "black pictures": capture(oddity="the pictures show next to nothing"),
    "no pictures": Case(SIMULATED, lambda one: old_image(one, 5, began=9)),
    "off at night": Case(
        SIMULATED
        + '[capture]\nschedule = ["22:00 - 23:00"]\n[trap]\ntimezone = "UTC"\ndevice = "0a1b2c3d"\n',
        lambda one: old_image(one, 12, began=1),
    ),
    "unreadable": one_kind("unreadable"),
    "failed": one_kind("failed"),
    "stopped": one_kind("stopped"),
    "card full": Case(NONE.replace("[camera]", '[storage]\nmin_free = "9000000 GB"\n[camera]')),
    "card full soon": Case(
        f'{SIMULATED}[capture]\nevery = "1 s"\n[warnings]\ncard_days = 50.0\n', full_in_a_day
    ),
    "low battery": Case(f"{NONE}[warnings]\nbattery = 90.0\n", Bench.picture),
    "clock not set": Case(do=not_set),
    "clock that cannot be": Case(f'{NONE}[trap]\nclock = "trusted"\ndevice = "0a1b2c3d"\n', in_the_past),
    "times unsure": Case(do=unsure),
    "times stuck": Case(known={"times": {"images": 1, "error": "x"}}),
    "schedule ignored": Case(f'{SIMULATED}[capture]\nschedule = ["21:00 - 22:00"]\n', not_set),
    "deployment ended": Case(SIMULATED, ended),
    "quarantine": Case(do=quarantined),
    **{what: Case(do=lambda one, what=what: one.counts(what)) for what in ("lost", "missing", "unasked")},  # type: ignore[misc]
    **{what: Case(do=lambda one, what=what: one.counts(what)) for what in ("vanished", "conflicts")},  # type: ignore[misc]
    "no thumbnails": Case(known={"thumbnails": "libvips is missing"}),
    "not asked before pruning": Case(known={"unpruned": {"far": "no answer"}}),
    "not to be removed": Case(known={"stuck": {"images": 1, "error": "x"}}),
    "no destination": Case(stick=""),
    "stick away": Case(do=unmarked),
    "refused": Case(do=lambda one: one.row(refused_unseen=1, refused=1, unseen=1, pending=0)),
    "not taken": Case(do=lambda one: one.row(failing=1, failing_key="x", failing_error="y")),
    "not proven": Case(do=lambda one: one.row(error=None, delivered=0, delivered_at=None)),
    "server down": Case(do=lambda one: server(one, "cut before body"), stick=""),
    "server says no": Case(do=lambda one: server(one, "401"), stick=""),
    "what follows fails": Case(
        known={"follow_ups": {"stick": {"attempts": 2, "error": "x", "boot": "", "until": 0}}}
    ),
    "not joined": Case(do=lambda one: one.patch.setattr(prepared_card, "waiting", lambda: "not joined yet")),
    "stick helper failed": Case(do=lambda one: one.patch.setattr(usb_stick, "word", lambda: "failed")),
    "catalog broken": Case(do=broken_catalog),
    "card read-only": Case(do=read_only),
    "spool without its mark": Case(do=without_mark),
    "config invalid at the start": Case(known={"config": "2026-06-20 10:00"}),
    "hub silent": Case(f'{NONE}[hub]\nurl = "http://127.0.0.1:9"\n', known=SILENT),
}


@pytest.fixture(autouse=True)
def _noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note which line of the program gives a reason."""
    kind = reasons.Reason

    def noted(*values: str) -> reasons.Reason:
        frame = sys._getframe(1)
        given.add((Path(frame.f_code.co_filename).name, frame.f_lineno))
        return kind(*values)

    for module in ("status", "status.reasons"):
        monkeypatch.setattr(f"trapsync.{module}.Reason", noted)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "picamera2" else found(name)
    )


@pytest.fixture
def far() -> Iterator[FaultServer]:
    with FaultServer(Original()) as server:
        yield server


def machine(folder: Path, known: Board) -> Machine:
    """One of which the doctor finds the same as the status."""
    for path, value in (
        ("proc/device-tree/model", "Raspberry Pi"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", known.throttled and f"{known.throttled:x}"),
        ("sys/class/thermal/thermal_zone0/temp", known.temperature and int(known.temperature * 1000)),
    ):
        if known != Board():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(f"{value or 0}\n")
    libvips = "libvips 8.15"
    return Machine(folder, lambda command: libvips if command[0] == sys.executable else None)


def worst(found: Sequence[Any]) -> dict[str, str]:
    """The worst verdict by subject."""
    return {one.subject: one.verdict for one in sorted(found, key=lambda one: VERDICTS.index(one.verdict))}


def judge(name: str, tmp_path: Path, far: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the verdicts of this case against each other."""
    case, on_bench = CASES[name], bench.Trap(tmp_path / "trap")
    source = on_bench.folder / "trap.toml"
    text = case.text if "[storage]" in case.text else f"[storage]\n{case.text}"
    source.write_text(text.replace("[storage]", '[storage]\nspool = "spool"\nstate = "state"') + case.stick)
    if "[trap]" not in text:
        source.write_text(source.read_text() + '[trap]\ndevice = "0a1b2c3d"\n')
    monkeypatch.setattr(board, "read", lambda: case.board)
    report: dict[str, Any] = {"state": "none", "code": None, "damaged": None} | (case.report or {})
    for where in ("doctor", "doctor.network"):
        monkeypatch.setattr(f"trapsync.{where}.report", lambda _found: report)
    for fact, value in case.known.items():
        on_bench.catalog.facts.set(fact, value)  # type: ignore[arg-type]
    with trap.lock(on_bench.storage.state) if case.runs else nullcontext():
        case.do(Bench(on_bench, monkeypatch, far))
        found, time = load(source), on_bench.time
        status, why = judged(found.settings, time, "0a1b2c3d", report)
        findings = doctor.examine_trap(found, time, time.sleep, machine(tmp_path / "pi", case.board))
        seen = LedState(time, lambda: snapshot(found.settings, time, "0a1b2c3d", report).verdict)()
    on_bench.catalog.close()
    # The doctor says of each subject what the status says. What it looks at itself may be wrong besides.
    said = worst([one for one in findings if not any(text in one.text for text in ALWAYS)])
    assert worst(why), f"{name}: nothing is wrong"
    assert {subject: said.get(subject) for subject in worst(why)} == worst(why), name
    assert {subject for subject in JUDGED & set(said) if said[subject] != "ok"} <= set(worst(why)), name
    # Heartbeat, fleet and light have the verdict of the status.
    sent = read_heartbeat.decode(heartbeat.compose(status, 900))
    heartbeat_schema.require(sent)
    beat = read_heartbeat.read(sent)
    (row,) = judgement.traps({"traps": [{"device": "0a1b2c3d", "age_s": 5, "heartbeat": beat.plain()}]})
    assert [beat.verdict, row.verdict] == [status.verdict, status.verdict], name
    assert seen == ("failing" if name == "stick helper failed" else status.verdict), name


def test_one_cause_has_one_verdict_and_each_reason_that_the_program_can_give_is_in_a_case(
    tmp_path: Path, far: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(CASES):
        with monkeypatch.context() as patch:
            judge(name, tmp_path / str(number), far, patch)
    expected = set()  # drawn from the code
    for module in (reasons, sys.modules["trapsync.status"]):
        file = Path(str(module.__file__))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_reason = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Reason"
            if is_reason and getattr(node.args[0], "value", "") != "ok":  # type: ignore[attr-defined]
                expected.add((file.name, node.lineno))  # type: ignore[attr-defined]
    assert expected == {one for one in given if one in expected}
