"""The small modules: waiting, time, names, the inbox, systemd, the serial number, durable files."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import without_root
from fake_time import FakeTime
from trapsync import clock
from trapsync.errors import Failed, Held, SettingsError, StorageError, Unreachable, one_line
from trapsync.files import durable
from trapsync.hardware import device_id, gpio
from trapsync.image import Found, Image, TrapName, is_image_name, parse_name, place_of
from trapsync.net import backoff
from trapsync.runtime import signals, systemd
from trapsync.settings.schema import Trap
from trapsync.spool.inbox import Inbox

# ── errors ───────────────────────────────────────────────────────────────────────────────────────────


_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text(st.characters(codec=None), max_size=300), st.integers(5, 200))
def test_what_somebody_else_wrote_becomes_one_short_printable_line(text: str, most: int) -> None:
    line = one_line(text, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    # Not isprintable(): what Python does not know yet may be a letter.
    assert not {unicodedata.category(one) for one in line} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(one) for one in line} & _TURNING
    line.encode()  # has no halves of surrogates


def test_a_line_keeps_what_can_be_read() -> None:
    assert one_line("  Größe:\n 5\t MB ") == "Größe: 5 MB"
    assert one_line("a\x1b[31m\ud800\u202e") == "a?[31m??"
    assert one_line("x" * 201) == "x" * 199 + "…"
    assert one_line({"a": [None]}) == "{'a': [None]}"


@pytest.mark.parametrize("make", [Failed, Held, Unreachable])
def test_the_reason_of_a_delivery_that_failed_is_one_printable_line(make: type[Exception]) -> None:
    reason = str(make("md5 \ud800\n<2>forged line \x1b]0;x\x07 " + "x" * 10**6))
    assert reason.isprintable()
    assert len(reason) == 1000


# ── backoff ──────────────────────────────────────────────────────────────────────────────────────────

waits = st.floats(0.1, 86400)


@given(st.integers(-1, 10**9), waits, waits, st.floats(0, 10**6))
def test_a_wait_is_between_a_tenth_of_its_bound_and_the_bound_but_never_below_what_was_asked(
    attempts: int, first: float, longest: float, least: float
) -> None:
    seconds = backoff.wait(attempts, first=first, longest=longest, least=least)
    bound = min(longest, first * 2.0 ** (min(max(attempts, 1), 61) - 1))
    assert max(least, bound / 10) <= seconds <= max(least, bound)


def test_the_bound_doubles_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _least, most: most)
    seconds = [backoff.wait(attempts, first=30, longest=300) for attempts in range(1, 7)]
    assert seconds == [30, 60, 120, 240, 300, 300]


def test_the_waits_of_many_traps_are_spread_over_the_whole_bound() -> None:
    seconds = [backoff.wait(3, first=25, longest=3600) for _ in range(1000)]
    by_tenth = [sum(10 * n <= second < 10 * n + 10 for second in seconds) for n in range(1, 10)]
    assert min(by_tenth) > 50  # of 111 expected; by chance once in 10**9 runs


# ── clock ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_moment_is_written_in_utc_to_the_second() -> None:
    assert clock.iso(datetime(2022, 5, 17, 18, 46, 57, 999_999, tzinfo=UTC)) == "2022-05-17T18:46:57Z"
    eastern = datetime(2022, 5, 17, 20, 46, 57, tzinfo=timezone(timedelta(hours=2)))
    assert clock.iso(eastern) == "2022-05-17T18:46:57Z"


def test_unix_seconds_become_a_moment_with_its_zone() -> None:
    assert clock.utc(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert clock.iso(clock.utc(1652813217)) == "2022-05-17T18:46:57Z"


def test_the_machines_clock_goes_forward_and_knows_its_boot() -> None:
    machine = clock.SystemClock()
    before = machine.monotonic()
    assert before <= machine.monotonic()
    assert abs(machine.wall() - datetime.now(UTC).timestamp()) < 5
    assert machine.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert isinstance(machine.trusted(), bool)


def test_a_clock_is_trusted_by_settings_by_timesyncd_or_by_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_SYNCHRONISED", tmp_path / "synchronized")
    monkeypatch.setattr(clock, "_kernel_synchronised", lambda: False)
    assert not clock.SystemClock().trusted()
    assert clock.SystemClock(always_trusted=True).trusted()
    (tmp_path / "synchronized").touch()
    assert clock.SystemClock().trusted()
    (tmp_path / "synchronized").unlink()
    monkeypatch.setattr(clock, "_kernel_synchronised", lambda: True)
    assert clock.SystemClock().trusted()


def test_without_a_boot_id_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "none")
    clock._read_boot_id.cache_clear()
    assert clock.SystemClock().boot_id() == ""


def test_evidence_is_all_that_the_clock_shows_at_that_moment() -> None:
    time = FakeTime(is_trusted=False)
    seen = clock.evidence(time)
    assert (seen.boot_id, seen.monotonic, seen.wall) == (time.boot_id(), time.monotonic(), time.wall())
    assert not seen.trusted


# ── image names ──────────────────────────────────────────────────────────────────────────────────────

devices = st.text("0123456789abcdef", min_size=8, max_size=8)
seconds_utc = st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
trap_names = st.builds(TrapName, devices, seconds_utc)


@given(trap_names)
def test_a_name_written_and_read_back_is_the_same(name: TrapName) -> None:
    assert parse_name(str(name)) == name
    assert is_image_name(str(name))


@given(trap_names)
def test_a_name_in_capitals_is_the_same_device_and_a_jpeg_the_same_second(name: TrapName) -> None:
    loud = f"{name.device.upper()}.{name.taken:%Y-%m-%d_%H-%M-%S}.jpeg"
    assert parse_name(loud) == name


@given(st.text(max_size=40))
def test_any_text_is_either_foreign_or_a_name_that_reads_the_same_again(text: str) -> None:
    name = parse_name(text)
    assert name is None or parse_name(str(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "IMG_0001.JPG",
        "0a1b2c3d.2026-02-31_00-00-00.jpg",
        "0a1b2c3d.2026-06-21_24-00-00.jpg",
        "0a1b2c3d.2026-06-21_20-19-60.jpg",
        "0a1b2c3d.0026-06-21_20-19-15.jpg",
        "0a1b2c3d.9999-12-31_23-59-59.jpg",
        "0a1b2c3.2026-06-21_20-19-15.jpg",
        "0a1b2c3g.2026-06-21_20-19-15.jpg",
        "0a1b2c3d.2026-06-21_20-19-15.jpg.part",
        "0a1b2c3d.2026-06-21_20-19-15.jpg\n",
        "x0a1b2c3d.2026-06-21_20-19-15.jpg",
        "0a1b2c3d.२०२६-06-21_20-19-15.jpg",
        "",
    ],
)
def test_a_name_that_no_trap_gave_is_foreign(name: str) -> None:
    assert parse_name(name) is None


@pytest.mark.parametrize("name", ["a.jpg", "A.JPG", "b.jpeg", "c.Jpeg", "a b.c.jpg"])
def test_a_visible_jpeg_is_our_business(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name", [".a.jpg", ".a.jpg.part", "a.jpg.part", "notes.txt", "jpg", ".jpg", "a.png", ""]
)
def test_everything_else_in_the_spool_is_left_alone(name: str) -> None:
    assert not is_image_name(name)


def image(path: str) -> Image:
    """An image at this path; nothing else of it matters."""
    return Image(path, 1, "", "", 1, 1)


def test_a_traps_image_is_its_name_wherever_it_lies_and_belongs_below_device_and_day() -> None:
    some = image("copied by hand/0A1B2C3D.2026-06-21_20-19-15.JPEG".replace("JPEG", "jpeg"))
    assert some.key == "0a1b2c3d.2026-06-21_20-19-15.jpg"
    assert some.place == "0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-15.jpg"
    assert some.name == "0A1B2C3D.2026-06-21_20-19-15.jpeg"


def test_a_foreign_image_is_its_path_and_belongs_where_it_lay() -> None:
    some = image("from phone/IMG_0001.JPG")
    assert some.trap_name is None
    assert some.key == some.place == place_of(some.path) == "from phone/IMG_0001.JPG"


def test_a_found_file_is_taken_apart_into_folder_and_name() -> None:
    assert (Found("a/b/c.jpg", 1, 2).folder, Found("a/b/c.jpg", 1, 2).name) == ("a/b", "c.jpg")
    assert (Found("c.jpg", 1, 2).folder, Found("c.jpg", 1, 2).name) == ("", "c.jpg")


# ── inbox ────────────────────────────────────────────────────────────────────────────────────────────


def test_each_path_is_taken_once_in_the_order_in_which_it_came() -> None:
    inbox = Inbox(FakeTime())
    for path in ("b", "a", "b", "c", "a"):
        inbox.put(path)
    assert inbox.take(10) == ["b", "a", "c"]
    assert inbox.take(10) == []


def test_what_was_taken_may_come_again() -> None:
    inbox = Inbox(FakeTime())
    inbox.put("a")
    inbox.take(1)
    inbox.put("a")
    assert inbox.take(1) == ["a"]


def test_no_more_are_taken_than_asked_for_and_the_rest_stays() -> None:
    inbox = Inbox(FakeTime())
    for path in "abc":
        inbox.put(path)
    assert inbox.take(2) == ["a", "b"]
    assert inbox.take(2) == ["c"]


def test_what_is_put_for_later_comes_when_its_time_has_come() -> None:
    time = FakeTime()
    inbox = Inbox(time)
    inbox.put_later("late", 10)
    inbox.put("soon")
    assert inbox.take(10) == ["soon"]
    time.sleep(9.9)
    assert inbox.take(10) == []
    time.sleep(0.2)
    assert inbox.take(10) == ["late"]


def test_the_sooner_of_two_times_counts() -> None:
    time = FakeTime()
    inbox = Inbox(time)
    inbox.put_later("a", 10)
    inbox.put_later("a", 100)
    inbox.put_later("b", 100)
    inbox.put("b")
    assert inbox.take(10) == ["b"]
    time.sleep(10)
    assert inbox.take(10) == ["a"]


def test_a_full_inbox_takes_no_new_path_but_knows_those_that_it_holds() -> None:
    inbox = Inbox(FakeTime(), limit=2)
    inbox.put_later("a", 100)
    inbox.put("b")
    inbox.put("c")
    inbox.put("a")
    assert inbox.take(10) == ["a", "b"]


def test_waiting_ends_at_once_when_time_is_up_when_something_is_due_and_for_good_when_it_is_closed() -> None:
    inbox = Inbox(FakeTime())
    inbox.wait(0)
    inbox.put("a")
    inbox.wait(3600)
    inbox.take(1)
    inbox.close()
    inbox.wait(3600)


def test_waiting_lasts_no_longer_than_until_the_next_path_is_due() -> None:
    inbox = Inbox(clock.SystemClock())
    inbox.put_later("a", 0.02)
    inbox.wait(3600)
    assert inbox.take(1) == ["a"]


# ── signals ──────────────────────────────────────────────────────────────────────────────────────────

WAITS = """\
import os, signal, threading
from trapsync.runtime import signals
signals.block()
threading.Timer({seconds}, {call}).start()
print(signals.wait(3600))
"""


def heard(call: str, seconds: float) -> str:
    """What a process hears for which a thread of its own does this."""
    command = [sys.executable, "-c", WAITS.format(call=call, seconds=seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


@pytest.mark.parametrize("seconds", [0.0, 0.05])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_the_main_thread_hears_a_signal_whichever_thread_it_comes_from(name: str, seconds: float) -> None:
    call = f"lambda: os.kill(os.getpid(), signal.{name})"
    assert heard(call, seconds) == str(signal.Signals[name].value)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_another_thread_ends_the_wait_of_the_main_thread(seconds: float) -> None:
    assert heard("signals.wake", seconds) == "None"


def test_to_wake_a_process_that_does_not_wait_does_nothing() -> None:
    signals.wake()


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["path", "abstract"])
def notified(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The other end of NOTIFY_SOCKET, a real one, both as a file and in the abstract namespace."""
    name = str(tmp_path / "n") if request.param == "path" else f"@trapsync-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_systemd_hears_each_word_as_one_datagram(notified: socket.socket) -> None:
    systemd.notify("READY=1")
    systemd.notify("WATCHDOG=1")
    assert [notified.recv(100), notified.recv(100)] == [b"READY=1", b"WATCHDOG=1"]


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


def test_a_systemd_that_no_longer_listens_does_not_take_the_daemon_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "self", 30.0),
        ("30000000", "1", None),
        ("", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdogs_limit_is_known_if_it_is_meant_for_us(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, process: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if process:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "self" else process)
    assert systemd.watchdog_seconds() == seconds


# ── device ───────────────────────────────────────────────────────────────────────────────────────────

CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
CPU part\t: 0xd08

Hardware\t: BCM2835
Revision\t: c03111
Serial\t\t: 10000000a1b2c3d4
Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""


@pytest.fixture
def serials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Stand-ins for the two files that know a serial number; neither is there yet."""
    paths = tmp_path / "serial-number", tmp_path / "cpuinfo"
    monkeypatch.setattr(device_id, "_SERIALS", paths)
    monkeypatch.setattr(device_id, "_MACHINE_ID", tmp_path / "machine-id")
    return paths


def test_the_device_tree_knows_the_serial_number(serials: tuple[Path, Path]) -> None:
    serials[0].write_bytes(b"100000007a3f09c1\0")
    serials[1].write_text(CPUINFO)
    assert device_id.device_id(Trap()) == "7a3f09c1"


def test_without_a_device_tree_cpuinfo_is_asked(serials: tuple[Path, Path]) -> None:
    serials[1].write_text(CPUINFO)
    assert device_id.device_id(Trap()) == "a1b2c3d4"


def test_the_setting_goes_before_the_serial_number(serials: tuple[Path, Path]) -> None:
    serials[1].write_text(CPUINFO)
    assert device_id.device_id(Trap(device="00000001")) == "00000001"


@pytest.mark.parametrize(
    "content", ["", "processor\t: 0\nflags : fpu deadbeef cafebabe\n", "Serial\t: none\n"]
)
def test_a_machine_without_a_serial_number_asks_its_owner_for_an_id(
    serials: tuple[Path, Path], content: str
) -> None:
    serials[1].write_text(content)
    serials[1].with_name("machine-id").write_text("uninitialized\n")
    with pytest.raises(SettingsError, match=r'trap.device: .* such as device = "'):
        device_id.device_id(Trap())


def test_a_machine_without_a_serial_number_has_an_id_made_from_its_machine_id(
    serials: tuple[Path, Path],
) -> None:
    serials[1].with_name("machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    command = "echo trapsync 0123456789abcdef0123456789abcdef | sha256sum | cut -c1-8"
    known = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout.strip()
    assert device_id.device_id(Trap()) == known


def test_zeros_are_no_serial_number(serials: tuple[Path, Path]) -> None:
    serials[1].write_text(CPUINFO.replace("10000000a1b2c3d4", "0000000000000000"))
    assert device_id.serial() is None


# ── durable ──────────────────────────────────────────────────────────────────────────────────────────


class Stop(Exception):
    """Something that goes wrong while a file is written."""


def names_in(folder: Path) -> list[str]:
    """Everything below, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_with_the_folders_that_it_needs(tmp_path: Path) -> None:
    durable.write(tmp_path / "a/b/c.bin", [b"1", b"", b"23"])
    assert names_in(tmp_path) == ["a", "a/b", "a/b/c.bin"]
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"123"


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    durable.write(tmp_path / "c.bin", [b"long ago"])
    durable.write(tmp_path / "c.bin", [b"now"])
    assert (tmp_path / "c.bin").read_bytes() == b"now"


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, GeneratorExit])
def test_content_that_fails_half_way_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def content() -> Iterator[bytes]:
        yield b"half"
        raise error

    (tmp_path / "c.bin").write_bytes(b"before")
    with pytest.raises(error):
        durable.write(tmp_path / "c.bin", content())
    assert names_in(tmp_path) == ["c.bin"]
    assert (tmp_path / "c.bin").read_bytes() == b"before"


def test_verify_sees_the_whole_file_before_it_has_its_name(tmp_path: Path) -> None:
    seen = []

    def verify(temporary: Path) -> None:
        seen.append((temporary.read_bytes(), names_in(tmp_path)))

    durable.write(tmp_path / "c.bin", [b"1", b"2"], verify=verify)
    assert seen == [(b"12", [".c.bin.part"])]


def test_what_verify_refuses_gets_no_name(tmp_path: Path) -> None:
    def verify(_: Path) -> None:
        raise Stop

    with pytest.raises(Stop):
        durable.write(tmp_path / "c.bin", [b"1"], verify=verify)
    assert names_in(tmp_path) == []


def test_the_file_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        steps.append("flush " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr("os.fsync", note_fsync)
    monkeypatch.setattr("pathlib.Path.rename", note_rename)
    durable.write(tmp_path / "new" / "c.bin", [b"1"])
    assert steps == [f"flush {tmp_path.name}", "flush .c.bin.part", "rename", "flush new"]


def test_a_folder_of_which_a_part_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path}/a") + r".*: something .* is in the way"):
        durable.write(tmp_path / "a/b.bin", [b"1"])


def test_a_folder_without_permission_is_explained_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    code = "import sys, pathlib; from trapsync.files import durable; durable.write(pathlib.Path(sys.argv[1]), [b'1'])"
    done = without_root.run(["-c", code, str(folder / "c.bin")])
    line = done.stderr.splitlines()[-1]
    assert re.search(r"StorageError: .*: no permission; let the user \w+ write there$", line)
    assert names_in(folder) == []


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EPERM, errno.EMFILE]
)
def test_every_failure_of_the_card_is_one_line_that_names_the_file(number: int) -> None:
    line = durable.explain(OSError(number, os.strerror(number)), Path("/spool/a.jpg"))
    assert line.startswith("/spool/a.jpg: ")
    assert "\n" not in line
    assert "Errno" not in line


def test_an_error_without_a_number_is_explained_too() -> None:
    assert durable.explain(OSError("odd"), Path("/spool/a.jpg")) == "/spool/a.jpg: odd"


def test_a_network_folder_that_cannot_be_flushed_is_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuse)
        durable.flush_folder(tmp_path)


@pytest.fixture
def small_card(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 64 kB; needs root."""
    folder = tmp_path / "card"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "trapsync-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a filesystem: what a really full card does is not tested here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def test_a_card_that_is_really_full_says_so_and_keeps_what_it_had(small_card: Path) -> None:
    durable.write(small_card / "a.bin", [b"a" * 20_000])
    with pytest.raises(StorageError, match=r"a\.bin.*: the card is full; free some space"):
        durable.write(small_card / "a.bin", [b"b" * 4096] * 40)
    assert names_in(small_card) == ["a.bin"]
    assert (small_card / "a.bin").read_bytes() == b"a" * 20_000
    durable.write(small_card / "b.bin", [b"b" * 20_000])  # the room is free again


# ── Where lgpio makes its pipe ───────────────────────────────────────────────────────────────────────


def test_lgpio_has_a_folder_of_the_accounts_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("LG_WD", raising=False)  # which the first pin sets, for the whole process
    folder = gpio.pipe_folder()
    assert folder
    assert folder == gpio.pipe_folder()
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)


@pytest.mark.parametrize("what", ["link", "file", "open"])
def test_lgpio_goes_into_no_folder_that_somebody_else_made_or_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("LG_WD", raising=False)
    place = tmp_path / f"trapsync-gpio-{os.geteuid()}"
    if what == "link":
        place.symlink_to(tmp_path)
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    assert gpio.pipe_folder() is None


def test_making_a_pin_leaves_the_current_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def pin(_number: int, **_options: object) -> None:  # as lgpio does
        os.chdir(os.environ["LG_WD"])
        made.append(Path.cwd())

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("LG_WD", "")
    monkeypatch.setitem(sys.modules, "gpiozero", SimpleNamespace(OutputDevice=pin))
    before = Path.cwd()
    gpio.Output(17)
    assert (made, Path.cwd()) == ([gpio.pipe_folder()], before)
