"""The doctor, on Raspberry Pis that are pretended: another /sys, other answers of other programs."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import trap_bench as bench
from fake_time import FakeTime
from trapsync.destinations import Finding
from trapsync.doctor import _isolation, _thumbnails, examine_trap, network
from trapsync.doctor.board import board
from trapsync.doctor.camera import camera
from trapsync.doctor.card import card
from trapsync.doctor.machine import Machine, ask
from trapsync.doctor.service import service
from trapsync.remote.in_force import load
from trapsync.runtime.landlock import SWITCHED_OFF
from trapsync.settings import config_file
from trapsync.settings.schema import Settings
from trapsync.status import judged
from trapsync.trap import lock

MODULE_3 = """Available cameras
-----------------
0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx708@1a)
    Modes: 'SRGGB10_CSI2P' : 1536x864 [120.13 fps - (768, 432)/3072x1728 crop]
                             2304x1296 [56.03 fps - (0, 0)/4608x2592 crop]
                             4608x2592 [14.35 fps - (0, 0)/4608x2592 crop]
"""


class Pi:
    """A pretended Raspberry Pi. `says` is what programs answer, by the beginning of their command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.says: dict[str, str] = {}
        self.asked: list[str] = []
        self.put("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")

    def put(self, file: str, content: object) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")

    def answer(self, command: Sequence[str]) -> str | None:
        self.asked.append(" ".join(command))
        return next((text for said, text in self.says.items() if " ".join(command).startswith(said)), None)

    @property
    def machine(self) -> Machine:
        return Machine(self.root, self.answer)

    def runs_systemd(self, **unit: object) -> None:
        well = {"LoadState": "loaded", "UnitFileState": "enabled", "WatchdogUSec": "2min", "NRestarts": 0}
        (self.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
        self.says["systemctl --no-pager show trapsync.service"] = "\n".join(
            f"{key}={value}" for key, value in (well | {"MainPID": os.getpid()} | unit).items()
        )


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path / "pi")


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def made(folder: Path, text: str = "") -> Settings:
    """Settings whose folders are there."""
    (folder / "spool").mkdir(exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    (folder / "trap.toml").write_text('[storage]\nspool = "spool"\nstate = "state"\n' + text)
    return config_file.load(folder / "trap.toml")


def only(findings: Sequence[Finding], subject: str) -> tuple[str, str]:
    (found,) = [found for found in findings if found.subject == subject]
    return found.verdict, found.text


# ── The machine ──────────────────────────────────────────────────────────────────────────────────────


def test_a_program_that_is_missing_or_hangs_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(("echo", "well")) == "well\n"
    assert ask(("there-is-no-such-program",)) is None
    monkeypatch.setattr("trapsync.doctor.machine._TIMEOUT", 0.05)
    assert ask(("sleep", "60")) is None


def test_this_very_machine_can_be_examined_whatever_it_is(tmp_path: Path, time: FakeTime) -> None:
    made(tmp_path, '[camera]\nkind = "none"\n[trap]\ndevice = "0a1b2c3d"\n')
    before = sorted(tmp_path.rglob("*"))
    findings = examine_trap(load(tmp_path / "trap.toml"), time, time.sleep)
    assert all(found.text and "\n" not in found.text for found in findings)
    assert sorted(tmp_path.rglob("*")) == before, "it left something behind"


def test_folders_in_one_another_are_failing(tmp_path: Path, time: FakeTime) -> None:
    table = '[destinations.home]\nkind = "directory"\npath = "spool/copies"\n'
    source = tmp_path / "trap.toml"
    verdict, text = only(network.destinations(made(tmp_path, table), time, time.sleep, source), "folders")
    assert verdict == "failing"
    assert "lies in storage.spool" in text
    nothing = network.destinations(made(tmp_path, ""), time, time.sleep, source)
    assert [found.subject for found in nothing] == ["destinations"]


# ── The camera ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def with_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


@pytest.mark.usefixtures("with_picamera2")
def test_the_camera_is_named_with_its_modes(pi: Pi, tmp_path: Path) -> None:
    pi.says["rpicam-hello --list-cameras"] = MODULE_3
    assert only(camera(made(tmp_path), pi.machine), "camera") == (
        "ok",
        "imx708, 4608x2592; modes 1536x864, 2304x1296, 4608x2592",
    )


@pytest.mark.usefixtures("with_picamera2")
@pytest.mark.parametrize(
    ("program", "answer", "verdict", "says"),
    [
        (
            "rpicam-hello",
            "No cameras available!",
            "failing",
            "none is connected: power off and check both ends",
        ),
        ("/", '[INFO] libcamera v0.5\n["imx477"]\n', "ok", "imx477"),
        ("/", "[]\n", "failing", "none is connected"),
        ("/", "Traceback ...\nRuntimeError: x\n", "failing", "none is connected"),
        ("nothing", "", "failing", "libcamera does not answer: it hangs"),
    ],
)
def test_a_camera_that_is_not_seen_is_explained(
    pi: Pi, tmp_path: Path, program: str, answer: str, verdict: str, says: str
) -> None:
    pi.says[program] = answer
    found = only(camera(made(tmp_path), pi.machine), "camera")
    assert found[0] == verdict
    assert says in found[1]


@pytest.mark.usefixtures("with_picamera2")
def test_while_the_daemon_has_the_camera_nobody_else_touches_it(pi: Pi, tmp_path: Path) -> None:
    settings = made(tmp_path)
    with lock(settings.storage.state):
        assert only(camera(settings, pi.machine), "camera")[0] == "ok"
    assert pi.asked == []


@pytest.mark.usefixtures("with_picamera2")
def test_who_else_holds_the_camera_is_named(pi: Pi, tmp_path: Path) -> None:
    pi.says["rpicam-hello"] = MODULE_3
    for process, name, device in ((7, "python3", "video0"), (8, "sshd", "null"), (9, "motion", "null")):
        pi.put(f"proc/{process}/comm", name)
        (pi.root / f"proc/{process}/fd").mkdir()
        (pi.root / f"proc/{process}/fd/3").symlink_to(f"/dev/{device}")
    _, *others = camera(made(tmp_path), pi.machine)
    assert [found.text.split(" uses it")[0] for found in others] == [
        "python3 (process 7)",
        "motion (process 9)",
    ]
    assert {found.verdict for found in others} == {"failing"}


def test_libvips_is_loaded_in_a_process_of_its_own() -> None:
    found = _thumbnails(Machine())
    assert (found.verdict, found.text.startswith("enabled (libvips 8.")) == ("ok", True)


@pytest.mark.parametrize(
    ("answer", "verdict", "text"),
    [
        ("lacking: ", "ok", "examiners and camera: no network, and no files but their own"),
        (
            "lacking: they can (this kernel has no Landlock)",
            "ok",
            "camera: they can (this kernel has no Landlock)",
        ),
        (f"lacking: they can ({SWITCHED_OFF})", "warning", f"camera: they can ({SWITCHED_OFF})"),
        ("Traceback\nNameError: x", "warning", "cannot give up rights: NameError: x"),
        ("", "warning", "cannot give up rights: no answer"),
    ],
)
def test_what_examiners_and_camera_cannot_give_up_is_one_line(
    pi: Pi, answer: str, verdict: str, text: str
) -> None:
    pi.says[f"{sys.executable} -I -c from trapsync.runtime"] = answer
    found = _isolation(pi.machine)
    assert (found.verdict, found.text.endswith(text)) == (verdict, True)


# ── The card ─────────────────────────────────────────────────────────────────────────────────────────


def medium(pi: Pi, folder: Path) -> str:
    """The pretended card that the folder lies on: where the kernel tells about it."""
    number = folder.stat().st_dev
    partition = pi.root / "sys/devices/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/mmcblk0p2"
    partition.mkdir(parents=True)
    (partition / "partition").write_text("2\n")
    link = pi.root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(partition)
    return "sys/devices/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0/device"


@pytest.mark.parametrize(
    ("life_time", "reserve", "errors", "verdict", "says"),
    [
        ("", "", 0, "ok", "SD64G 04/2021, does not report its wear"),
        ("0x01 0x02", "0x01", 0, "ok", "up to 20 % of its life is used"),
        ("0x01 0x09", "0x01", 0, "warning", "up to 90 % of its life is used: replace the card soon"),
        ("0x01 0x0b", "0x01", 0, "failing", "up to 100 % of its life"),
        ("0x01 0x01", "0x02", 0, "warning", "80 % of its reserve is used, up to 10 %"),
        ("0x01 0x01", "0x03", 0, "failing", "90 % of its reserve is used"),
        ("", "", 3, "failing", "its file system had 3 errors: copy what is on it"),
    ],
)
def test_a_card_that_wears_out_is_told_in_time(
    pi: Pi, tmp_path: Path, time: FakeTime, life_time: str, reserve: str, errors: int, verdict: str, says: str
) -> None:
    settings = made(tmp_path)
    device = medium(pi, tmp_path)
    pi.put(f"{device}/name", "SD64G")
    pi.put(f"{device}/date", "04/2021")
    pi.put(f"{device}/life_time", life_time)
    pi.put(f"{device}/pre_eol_info", reserve)
    pi.put("sys/fs/ext4/mmcblk0p2/errors_count", errors)
    found = only(card(settings, *judged(settings, time, ""), time, pi.machine), "card's wear")
    assert found[0] == verdict
    assert says in found[1]


@pytest.mark.parametrize(
    ("flushes", "verdict", "says"),
    [
        ([0.004] * 8, "ok", "write latency (fsync) 4 ms, at worst 4 ms"),
        ([0.4] * 8, "warning", "write latency (fsync) 400 ms, at worst 400 ms: slow"),
        ([0.004] * 7 + [3.0], "warning", "write latency (fsync) 4 ms, at worst 3000 ms: slow"),
    ],
)
def test_a_slow_card_is_told(
    pi: Pi,
    tmp_path: Path,
    time: FakeTime,
    monkeypatch: pytest.MonkeyPatch,
    flushes: list[float],
    verdict: str,
    says: str,
) -> None:
    left = list(flushes)
    monkeypatch.setattr("os.fsync", lambda _file: time.sleep(left.pop(0)))
    settings = made(tmp_path)
    found = only(card(settings, *judged(settings, time, ""), time, pi.machine), "card latency")
    assert found[0] == verdict
    assert found[1].startswith(says)
    assert left == []


def test_free_space_is_told_in_days(pi: Pi, trap: bench.Trap, time: FakeTime) -> None:
    settings = made(trap.folder, '[camera]\nkind = "simulated"\n[capture]\nevery = "1 min"\n')
    trap.put()
    trap.ingest()
    verdict, text = only(card(settings, *judged(settings, trap.time, ""), trap.time, pi.machine), "card")
    assert verdict == "ok"
    assert text.endswith(" of pictures")


def test_folders_that_anybody_can_change_are_told(pi: Pi, tmp_path: Path, time: FakeTime) -> None:
    settings = made(tmp_path)
    settings.storage.spool.chmod(0o777)
    verdict, text = only(card(settings, *judged(settings, time, ""), time, pi.machine), "spool")
    assert verdict == "warning"
    assert "everybody on this machine can change what is in it; run: sudo chmod o-w" in text


# ── The board ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bits", "verdict", "says"),
    [
        ("0", "ok", "no under-voltage since the start"),
        ("50005", "failing", "under-voltage now, which damages cards: a stronger supply"),
        ("50000", "warning", "under-voltage at some time since the start, which damages cards"),
        ("80008", "warning", "the computer is slowed down now: give it shade"),
        ("80000", "ok", "no under-voltage since the start"),
    ],
)
@pytest.mark.parametrize("by", ["the kernel", "vcgencmd"])
def test_too_little_power_is_told(
    pi: Pi, tmp_path: Path, time: FakeTime, by: str, bits: str, verdict: str, says: str
) -> None:
    if by == "vcgencmd":
        pi.says["vcgencmd get_throttled"] = f"throttled=0x{bits}\n"
    else:
        pi.put("sys/devices/platform/soc/soc:firmware/get_throttled", bits)
    found = board(made(tmp_path), time, pi.machine)[0]
    assert (found.verdict, found.subject) == (verdict, "computer")
    assert says in found.text


def test_a_machine_without_such_firmware_says_nothing_of_it(pi: Pi, tmp_path: Path, time: FakeTime) -> None:
    pi.put("proc/device-tree/model", "Some PC")
    subjects = {found.subject for found in board(made(tmp_path), time, pi.machine)}
    assert subjects == {"clock"}


@pytest.mark.parametrize(
    ("degrees", "verdict"), [(48.2, "ok"), (76, "warning"), (80, "warning"), (85, "failing")]
)
def test_heat_is_told(pi: Pi, tmp_path: Path, time: FakeTime, degrees: float, verdict: str) -> None:
    pi.put("sys/class/thermal/thermal_zone0/temp", int(degrees * 1000))
    assert only(board(made(tmp_path), time, pi.machine), "computer")[0] == verdict


@pytest.mark.parametrize(
    ("clock", "seconds", "verdict", "says"),
    [
        ("auto", None, "ok", "none: after a power cut images are held"),
        ("trusted", None, "failing", 'there is none, but trap.clock = "trusted" relies on one'),
        ("auto", 0, "ok", "rtc-ds1307: "),
        ("auto", -7200, "warning", "rtc-ds1307 is 7200 s behind: set it, with the right time on the Pi"),
        ("auto", 90, "warning", "rtc-ds1307 is 90 s ahead"),
        ("trusted", -(10**10), "failing", "rtc-ds1307 was never set"),
    ],
)
def test_a_real_time_clock_is_compared_with_the_right_time(
    pi: Pi, tmp_path: Path, time: FakeTime, clock: str, seconds: int | None, verdict: str, says: str
) -> None:
    if seconds is not None:
        pi.put("sys/class/rtc/rtc0/since_epoch", int(time.wall()) + seconds)
        pi.put("sys/class/rtc/rtc0/name", "rtc-ds1307 1-0068")
    found = only(board(made(tmp_path, f'[trap]\nclock = "{clock}"\n'), time, pi.machine), "real-time clock")
    assert found[0] == verdict
    assert says in found[1]


# ── Who keeps it going ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("unit", "verdict", "says"),
    [
        ({}, "ok", "enabled at boot; restarted after 2min without a sign of life"),
        ({"NRestarts": 2}, "ok", "; restarted 2 times"),
        ({"NRestarts": 12}, "warning", "restarted 12 times: sudo journalctl"),
        ({"WatchdogUSec": "infinity"}, "warning", "systemd does not watch it"),
        ({"UnitFileState": "disabled"}, "warning", "not enabled at boot: sudo systemctl enable"),
        ({"MainPID": 1}, "warning", "the daemon was started manually"),
        ({"LoadState": "not-found"}, "warning", "not installed as a service"),
    ],
)
def test_systemd_is_asked_how_it_keeps_the_daemon(
    pi: Pi, tmp_path: Path, unit: dict[str, object], verdict: str, says: str
) -> None:
    settings = made(tmp_path)
    pi.runs_systemd(**unit)
    with lock(settings.storage.state):
        found = only(service(settings, pi.machine), "service")
    assert found[0] == verdict
    assert says in found[1]


def test_where_there_is_no_systemd_nothing_is_asked_of_it(pi: Pi, tmp_path: Path) -> None:
    pi.put("proc/device-tree/model", "Some PC")
    assert service(made(tmp_path), pi.machine) == []
    assert pi.asked == []


@pytest.mark.parametrize(
    ("fed", "state", "verdict"),
    [("15s", "", "ok"), ("0", "active", "ok"), ("0", "inactive", "warning"), ("", "", "warning")],
)
def test_the_hardware_watchdog_is_armed_or_not(
    pi: Pi, tmp_path: Path, fed: str, state: str, verdict: str
) -> None:
    pi.runs_systemd()
    pi.says["systemctl --no-pager show"] = f"RuntimeWatchdogUSec={fed}\n"
    pi.put("sys/class/watchdog/watchdog0/state", state)
    assert only(service(made(tmp_path), pi.machine), "watchdog")[0] == verdict


def test_a_log_without_a_limit_is_told(pi: Pi, tmp_path: Path) -> None:
    pi.runs_systemd()
    settings = made(tmp_path)
    assert only(service(settings, pi.machine), "log") == ("ok", "kept in memory: it is gone after a reboot")
    (pi.root / "var/log/journal").mkdir(parents=True)
    assert only(service(settings, pi.machine), "log")[0] == "warning"
    pi.put("etc/systemd/journald.conf.d/50-trapsync.conf", "[Journal]\nSystemMaxUse=64M")
    assert only(service(settings, pi.machine), "log") == ("ok", "kept, up to 64M")


# ── Far away ─────────────────────────────────────────────────────────────────────────────────────────

HOME = '[hub]\nurl = "https://hub.example.org"\nusername = "u"\npassword_file = "secret"\n'


def test_a_secret_that_others_can_read_or_change_is_told(tmp_path: Path) -> None:
    settings, secret = made(tmp_path, HOME), tmp_path / "secret"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    assert only(network.secrets(settings, tmp_path / "trap.toml"), "secrets")[0] == "ok"
    for mode, says in (
        (0o604, "is open, and everybody can read it"),
        (0o602, "is open, and everybody can change it"),
    ):
        secret.chmod(mode)
        verdict, text = only(network.secrets(settings, tmp_path / "trap.toml"), "secrets")
        assert verdict == "failing"
        assert says in text
        assert "correct horse" not in text


@pytest.mark.parametrize(
    ("content", "verdict"), [("horse ", "warning"), (" horse\n", "warning"), ("a horse\n", "ok")]
)
def test_a_blank_at_either_end_of_a_secret_is_told(tmp_path: Path, content: str, verdict: str) -> None:
    settings, secret = made(tmp_path, HOME), tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(0o600)
    told = only(network.secrets(settings, tmp_path / "trap.toml"), "secrets")
    assert told[0] == verdict
    assert ("begins or ends with a blank" in told[1]) is (verdict == "warning")
    assert "horse" not in told[1]


def test_settings_that_anybody_can_change_are_told(tmp_path: Path) -> None:
    settings = made(tmp_path)
    assert network.secrets(settings, tmp_path / "trap.toml") == []
    (tmp_path / "override.toml").touch()
    for name in ("trap.toml", "override.toml"):  # what stands in the second goes before the first
        (tmp_path / name).chmod(0o666)
        assert only(network.secrets(settings, tmp_path / "trap.toml"), "secrets")[0] == "failing"
        (tmp_path / name).chmod(0o644)


def test_authorities_that_anybody_can_change_are_told(tmp_path: Path) -> None:
    """Finding S22, a sibling: who can write there says which server is trusted with the password."""
    more = '[hub]\nurl = "https://hub.example.org"\nca_file = "certificates/hub.pem"\n'
    more += '[destinations.a]\nkind = "stickypi"\nurl = "https://a.example.org"\nca_file = "a.pem"\n'
    settings, source = made(tmp_path, more), tmp_path / "trap.toml"
    (tmp_path / "certificates").mkdir()
    for file in ("certificates/hub.pem", "a.pem"):
        (tmp_path / file).write_text("")
    assert network.secrets(settings, source) == []
    for place, key in (("certificates", "hub.ca_file"), ("a.pem", "destinations.a.ca_file")):
        mode = (tmp_path / place).stat().st_mode
        (tmp_path / place).chmod(0o777)
        verdict, text = only(network.secrets(settings, source), "secrets")
        assert (verdict, text.startswith(f"{key}: {tmp_path / place} is open, and everybody can change")) == (
            "failing",
            True,
        )
        (tmp_path / place).chmod(mode)


def test_home_is_called_on_but_nothing_is_said_there(tmp_path: Path, time: FakeTime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = made(tmp_path, f'[hub]\nurl = "http://127.0.0.1:{port}"\n')
        assert only(network.hub(settings, time), "hub (HTTPS)")[0] == "ok"
        caller, _ = server.accept()
        with caller:
            assert caller.recv(1) == b""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "there is no such server; check how the name is written"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "no DNS server answers: is the network up?"),
        (ConnectionRefusedError(111, "x"), "hub.example.org:443: connection refused: nothing listens there"),
        (TimeoutError(), "hub.example.org:443: no answer in time"),
    ],
)
def test_a_home_out_of_reach_is_explained(tmp_path: Path, time: FakeTime, error: OSError, says: str) -> None:
    def reach(_host: str, _port: int) -> None:
        raise error

    verdict, text = only(network.hub(made(tmp_path, HOME), time, reach), "hub (HTTPS)")
    assert verdict == "warning"
    assert says in text
