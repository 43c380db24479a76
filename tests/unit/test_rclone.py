"""Any storage by rclone: the promises of a destination, and what is its own."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import drawings
import killed_trap
import processes
import rclone_ends
import side_effects
from conformance import Card, Conformance, entries_in_the_way
from memory_context import connected, context
from rclone_ends import DEBIANS, TODAYS
from trap_bench import Trap
from trapsync.clock import SystemClock
from trapsync.destinations import Destination, DestinationContext, Receipt
from trapsync.destinations.rclone import child, remotes
from trapsync.errors import Failed, Refused, SettingsError, Unauthorised, Unreachable, Unresolved
from trapsync.image import Image


class Place:
    """A site: a folder of this machine as a remote, and rclone's config file, in a folder of its own."""

    def __init__(self, folder: Path, card: Card, binary: str, **more: Any) -> None:
        self.card = card
        self.folder = folder / "there"
        self.config = folder / "rclone" / "rclone.conf"
        self.config.parent.mkdir(parents=True)
        self.write_config("[nas]\ntype = local\n")
        self.table = {
            "kind": "rclone",
            "remote": "nas",
            "path": str(self.folder),
            "config_file": str(self.config),
            "binary": binary,
        } | more

    def write_config(self, text: str) -> None:
        self.config.write_text(text)
        self.config.chmod(0o600)

    def connect(self, given: DestinationContext | None = None, **more: Any) -> Destination:
        return connected("far", self.table | more, given or context(spool=self.card.folder))

    def stored(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    @contextmanager
    def broken(self) -> Iterator[None]:
        """The remote's section is gone, and with it all that leads there."""
        before = self.config.read_text()
        self.write_config("[other]\ntype = local\n")
        yield
        self.write_config(before)


@pytest.fixture
def place(tmp_path: Path, card: Card) -> Place:
    return Place(tmp_path, card, rclone_ends.versions()[0])


class TestPromises(Conformance):
    """By today's rclone, to a folder of this machine, which gives no proof; the other tests have Debian's."""

    echoes = True

    @pytest.fixture
    def site(self, tmp_path: Path, card: Card) -> Place:
        return Place(tmp_path, card, TODAYS)

    def strange_entries(self, site: Place, card: Card, image: Image) -> Iterator[str]:
        """Where its copy lies."""
        (copy,) = site.folder.rglob(image.name)
        yield from islice(entries_in_the_way(copy), 0, None, 2)  # each costs ten children: every second one


# ── A batch ──────────────────────────────────────────────────────────────────────────────────────────


def noted(folder: Path, binary: str) -> tuple[str, Path]:
    """A program that writes its command down and goes on as rclone; and where it writes."""
    log, program = folder / "commands", folder / "rclone-noted"
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {binary} "$@"\n')
    program.chmod(0o755)
    return str(program), log


def commands(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()]


def test_a_batch_is_one_child_that_copies_and_questions_before_and_after(
    tmp_path: Path, trap: Trap, card: Card
) -> None:
    binary, log = noted(tmp_path, DEBIANS)
    place = Place(tmp_path, card, binary)
    lab = place.connect(trap.context("lab"))
    trap.register(lab)
    for second in range(20):
        trap.put(second, seed=second + 1)
    trap.ingest()
    assert trap.deliver(lab).delivered == 20
    assert commands(log) == ["lsjson", "copy", "lsjson", "copy", "lsjson"]
    assert "--immutable" in log.read_text()
    assert len(place.stored()) == 20
    assert list((trap.storage.state / "rclone").iterdir()) == []


@pytest.mark.parametrize("binary", rclone_ends.versions())
def test_why_copyto_is_never_used_it_overwrites_and_the_copy_of_a_folder_does_not(
    tmp_path: Path, binary: str
) -> None:
    """rclone#4921; a version that refuses here says that it is repaired, and that this guard may go."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = tmp_path / "ours" / "one.jpg", tmp_path / "theirs" / "one.jpg"
    ours.write_text("ours")
    theirs.write_text("of others")
    config = ["--config", "/dev/null", "--immutable", "-q"]
    refused = subprocess.run([binary, "copy", *config, ours.parent, theirs.parent], check=False)
    assert (refused.returncode, theirs.read_text()) == (6, "of others")
    overwritten = subprocess.run([binary, "copyto", *config, ours, theirs], check=False)
    assert (overwritten.returncode, theirs.read_text()) == (0, "ours")


def test_one_conflict_of_a_batch_costs_only_itself(place: Place, card: Card) -> None:
    images = [card.image(second, seed=second + 1) for second in range(3)]
    lab = place.connect()
    name = lab.deliver(images[1], card.path(images[1])).at
    (place.folder / name).write_bytes(b"of others, and longer than ours" * 10_000)
    held = place.stored()
    answers = lab.deliver_all([(image, card.path(image)) for image in images])
    assert isinstance(answers[images[1].id], Refused)
    assert {type(answers[images[0].id]), type(answers[images[2].id])} == {Receipt}
    assert place.stored() == held | {image.name: card.bytes(image) for image in (images[0], images[2])}


def test_an_odd_name_costs_itself_where_rclone_does_not_say_which_one_it_was(
    place: Place, card: Card
) -> None:
    there, absent = card.image(0), card.image(1)
    lab = place.connect()
    lab.deliver(there, card.path(there))
    (place.folder / "other" / drawings.DEVICE).mkdir(parents=True)
    odd = replace(absent, id=77, path=f"{'x' * 300}.jpg")
    known = lab.find_existing([there, absent, odd])
    assert isinstance(known[there.id], Receipt)
    assert isinstance(known[odd.id], Failed)
    assert absent.id not in known


@pytest.mark.parametrize("kept", [0, 3000])
def test_a_beginning_of_an_image_that_a_cut_transfer_left_is_replaced(
    place: Place, card: Card, trap: Trap, kept: int
) -> None:
    lab = place.connect(trap.context("lab"))
    trap.register(lab)
    path = trap.put()
    copy = place.folder / path
    copy.parent.mkdir(parents=True)
    copy.write_bytes((trap.storage.spool / path).read_bytes()[:kept])
    trap.ingest()
    assert trap.deliver(lab).delivered == 1
    assert place.stored() == {copy.name: (trap.storage.spool / path).read_bytes()}


def test_a_beginning_is_found_by_a_delivery_that_did_not_ask_too(place: Place, card: Card) -> None:
    image = card.image()
    copy = place.folder / image.path
    copy.parent.mkdir(parents=True)
    copy.write_bytes(card.bytes(image)[:1000])
    lab = place.connect()
    with pytest.raises(Unresolved, match="is sent again"):
        lab.deliver(image, card.path(image))
    assert lab.find_existing([image]) == {}
    assert isinstance(lab.deliver(image, card.path(image)), Receipt)


def test_a_shorter_file_that_is_no_beginning_of_it_stays(place: Place, card: Card) -> None:
    image = card.image()
    copy = place.folder / image.path
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"not ours")
    lab = place.connect()
    assert isinstance(lab.find_existing([image])[image.id], Refused)
    with pytest.raises(Refused, match="both are kept"):
        lab.deliver(image, card.path(image))
    assert copy.read_bytes() == b"not ours"


def test_a_new_layout_is_for_new_images_and_older_ones_are_found_where_they_lie(
    place: Place, card: Card
) -> None:
    image, new = card.image(0), card.image(1)
    given = context(spool=card.folder)
    at = place.connect(given).deliver(image, card.path(image)).at
    flat = place.connect(given, layout="flat")
    found = flat.find_existing([image, new])
    known = found[image.id]
    assert isinstance(known, Receipt)
    assert (known.at, new.id in found) == (at, False)
    assert isinstance(flat.confirm([image], {image.id: at})[image.id], Receipt)
    assert flat.deliver(new, card.path(new)).at == new.name


# ── What proves that it is there ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("binary", "kind"),
    [(DEBIANS, "sha1"), (DEBIANS, "dropbox"), (DEBIANS, "quickxor"), (TODAYS, "quickxor")],
)
def test_a_checksum_of_another_kind_proves_an_image_whose_file_has_it(
    tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch, kind: str, binary: str
) -> None:
    """A folder stands for OneDrive, Dropbox or Box: rclone says for it which checksum of theirs a file has."""
    monkeypatch.setitem(remotes.HASHES, "local", (kind, True))
    place = Place(tmp_path, card, binary)
    image, other = card.image(0), card.image(1, seed=2)
    lab = place.connect()
    answers = lab.deliver_all([(one, card.path(one)) for one in (image, other)])
    receipt = answers[image.id]
    assert isinstance(receipt, Receipt)
    assert receipt.digest == f"sha256:{image.sha256}"
    assert str(receipt.detail["by"]).startswith(f"{kind}:")

    (place.folder / other.place).write_bytes(card.bytes(other)[::-1])
    confirmed = lab.confirm([image, other], {image.id: receipt.at})
    assert isinstance(confirmed[image.id], Receipt)
    assert isinstance(confirmed[other.id], Refused)
    card.path(image).write_bytes(
        card.bytes(image)[::-1]
    )  # no longer of our SHA-256: its checksum proves nothing
    unproven = lab.confirm([image], {image.id: receipt.at})[image.id]
    assert isinstance(unproven, Receipt)
    assert unproven.digest == f"echo:{image.sha256}"


@pytest.mark.parametrize(
    ("config", "proves"),
    [
        ("type = s3\nprovider = AWS", True),
        ("type = s3\nserver_side_encryption = AES256", True),
        ("type = s3\nserver_side_encryption = aws:kms", False),
        ("type = s3\nsse_customer_algorithm = AES256", False),
        ("type = s3\ndirectory_bucket = true", False),
        ("type = drive", True),
        ("type = sftp", True),
        ("type = webdav\nvendor = nextcloud", False),
        ("type = crypt\nremote = other:", False),
        ("type = azureblob", False),
        ("type = local", False),
    ],
)
def test_a_checksum_counts_only_where_the_server_computed_it(place: Place, config: str, proves: bool) -> None:
    place.write_config(f"[nas]\n{config}\n")
    assert remotes.read(place.config, "nas", "", "destinations.lab.config_file").proves == proves


def test_what_proves_nothing_lets_no_image_leave_the_card(place: Place, trap: Trap) -> None:
    lab = place.connect(trap.context("lab"))
    trap.register(lab)
    trap.put()
    trap.ingest()
    assert trap.deliver(lab).delivered == 1
    assert trap.prune() == 0
    assert len(trap.on_card()) == 1


# ── The config file ──────────────────────────────────────────────────────────────────────────────────


BAD_CONFIGS: dict[str, tuple[Callable[[Place], object], str]] = {
    "missing": (lambda place: place.config.unlink(), "cannot be read: No such file"),
    "open": (lambda place: place.config.chmod(0o644), "everybody can read it; run: "),
    "encrypted": (
        lambda place: place.write_config(
            "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc\n"
        ),
        "is encrypted",
    ),
    "another remote": (
        lambda place: place.write_config("[drive]\ntype = local\n[box]\ntype = local\n"),
        r"has no remote 'nas'; it has: drive, box",
    ),
    "no config file": (lambda place: place.write_config("hello\n"), "is no config file of rclone"),
    "empty": (lambda place: place.write_config(""), "is empty"),
    "an unknown kind": (lambda place: place.write_config("[nas]\ntype = moon\n"), "moon"),
}


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_a_bad_config_file_is_one_line_that_says_what_to_do(place: Place, card: Card, what: str) -> None:
    change, reason = BAD_CONFIGS[what]
    change(place)
    lab, image = place.connect(), card.image()
    for ask in (
        lambda: lab.find_existing([image]),
        lambda: lab.deliver(image, card.path(image)),
        lambda: lab.confirm([image], {}),
    ):
        with pytest.raises(Unreachable, match=reason) as caught:
            ask()
        assert len(str(caught.value).splitlines()) == 1
    (found,) = lab.check()
    assert found.verdict != "ok"


def test_a_missing_program_is_one_line_that_says_what_to_do(place: Place, card: Card) -> None:
    lab, image = place.connect(binary="rclone-that-is-not-there"), card.image()
    with pytest.raises(Unauthorised, match="is not there; run: sudo apt install rclone"):
        lab.deliver(image, card.path(image))
    assert [found.verdict for found in lab.check()] == ["failing"]


def test_a_login_that_cannot_be_written_back_is_told_before_it_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_config('[nas]\ntype = drive\ntoken = {"access_token": "secret-token"}\n')
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path) != place.config.parent)
    with pytest.raises(Unauthorised, match="may not write there") as caught:
        place.connect().place()
    assert "secret-token" not in str(caught.value)


SFTP = "[nas]\ntype = sftp\nhost = a.example\nuser = moths\npass = abc\n"
SAME = [
    SFTP.replace("abc", "def"),
    SFTP + "shell_type = unix\nmd5sum_command = md5sum\n",
    SFTP + "key_file = /k\n",
    f"[other]\ntype = local\n{SFTP}",
]
OTHERS = [
    SFTP.replace("a.example", "b.example"),
    SFTP.replace("moths", "owls"),
    SFTP + "port = 2222\n",
    SFTP.replace("sftp", "ftp"),
]


def test_another_server_or_account_under_the_same_name_is_another_place_and_another_password_is_not(
    place: Place,
) -> None:
    def of(config: str, **more: str) -> str:
        place.write_config(config)
        return place.connect(None, **more).place()

    first = of(SFTP, path="moths/")
    assert "sftp moths@a.example moths" in first
    assert "abc" not in first
    assert [of(config, path="./moths") for config in SAME] == [first] * len(SAME)
    assert len({of(config, path="moths") for config in OTHERS} | {first, of(SFTP, path="/moths")}) == 6


def test_what_arrives_while_the_config_file_is_exchanged_is_no_proof_for_the_place_of_before(
    place: Place, card: Card
) -> None:
    destination, image = place.connect(), card.image()
    before = destination.place()
    place.write_config("[nas]\ntype = local\nhost = another\n")
    for ask in (
        lambda: destination.deliver(image, card.path(image)),
        lambda: destination.confirm([image], {}),
    ):
        with pytest.raises(Unreachable, match="says another place than before"):
            ask()
    assert destination.place() != before
    destination.deliver(image, card.path(image))


def test_a_remote_made_of_others_is_the_place_that_these_are(place: Place) -> None:
    def of(host: str) -> str:
        place.write_config(
            f"[nas]\ntype = crypt\nremote = base:moths\npassword = x\n[base]\ntype = sftp\nhost = {host}\n"
        )
        return place.connect().place()

    assert of("a.example") != of("b.example")
    assert of("a.example") == of("a.example")


def test_proofs_at_another_place_under_the_name_do_not_count(place: Place, trap: Trap) -> None:
    lab = place.connect(trap.context("lab"))
    trap.register(lab)
    trap.put()
    trap.ingest()
    assert trap.deliver(lab).delivered == 1
    assert trap.deliver(lab).delivered == 0
    place.write_config("[nas]\ntype = local\nencoding = Slash\n")
    shutil.rmtree(place.folder)
    assert trap.deliver(lab).delivered == 1
    assert len(place.stored()) == 1


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("remote", "", "not the name of a remote"),
        ("remote", ":sftp,host=a.example,pass=x:", "not the name of a remote"),
        ("remote", "-nas", "not the name of a remote"),
        ("path", "a/../b", "no path of a folder"),
        ("path", "a\nb", "no path of a folder"),
        ("binary", "", "name or the path of a program"),
        ("transfers", 2, "transfers: must be 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(place: Place, key: str, value: object, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        place.connect(None, **{key: value})
    assert len(str(caught.value).splitlines()) == 1


# ── The child ────────────────────────────────────────────────────────────────────────────────────────


def script(folder: Path, text: str) -> str:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def run(
    binary: str,
    *,
    given: bytes = b"",
    pause: Callable[[float], object] = bool,
    within: float = 60,
    most: int = 10_000,
) -> child.Done:
    return child.run(binary, [], given, SystemClock(), pause, within=within, most=most)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_is_given_no_option_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RCLONE_CONFIG_PASS", "RCLONE_TRANSFERS", "HTTPS_PROXY", "SSH_AUTH_SOCK", "AWS_PROFILE"):
        monkeypatch.setenv(name, "x")
    done = run(script(tmp_path, "env"))
    names = {line.partition("=")[0] for line in done.output.decode().splitlines()}
    shells = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert names - shells - child._OF_GO.keys() <= {"PATH", "HOME", "LANG", "TMPDIR", "TZ"}
    assert "GOMEMLIMIT" in names


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("sleep 60 & sleep 60", {"within": 0.5}, "did not end within"),
        ("sleep 60 & exit", {"within": 1.0}, "did not end within"),
        ("yes", {"most": 100_000}, "more than 100000 bytes"),
        ("exec 1>&- 2>&-; sleep 60", {}, "does not end"),
    ],
)
def test_a_child_that_hangs_or_answers_without_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limits: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(child, "_END", 1.0)
    binary = script(tmp_path, f"echo $$ >{tmp_path}/pid; {text}")
    with pytest.raises(Unreachable, match=reason):
        run(binary, **limits)
    group = int((tmp_path / "pid").read_text())
    until(lambda: not [pid for pid, _ in processes_of(group)])


def processes_of(group: int) -> list[tuple[int, str]]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, fields = path.read_text().rpartition(")")
            state, _, its_group = fields.split()[:3]
            if int(its_group) == group and state != "Z":
                found.append((int(path.parent.name), name))
    return found


def test_what_it_writes_into_its_log_is_bounded_cleaned_and_without_secrets(tmp_path: Path) -> None:
    url = "https://moths:hunter2@cloud.example/dav?token=abc"
    line = json.dumps({"msg": f'Put "{url}": \x1b[31m\u202e refused', "object": "one.jpg"})
    text = (
        f"cat >&2 <<'END'\n{line}\n2026/11/30 08:28:07 Failed to copy: late\nEND\nyes x | head -c 1000000 >&2"
    )
    done = run(script(tmp_path, text))
    assert [one.text for one in done.said[:2]] == [
        'Put "https://cloud.example/dav?…": ?[31m? refused',
        "Failed to copy: late",
    ]
    assert done.said[0].name == "one.jpg"
    assert len(done.said) < 100_000


def test_a_child_ends_when_the_daemon_stops(tmp_path: Path) -> None:
    class Stopping(BaseException):
        pass

    def stop(_seconds: float) -> None:
        if (tmp_path / "pid").exists():
            raise Stopping

    binary = script(tmp_path, f"echo $$ >{tmp_path}/pid; sleep 60")
    with pytest.raises(Stopping):
        run(binary, pause=stop)
    until(lambda: not processes_of(int((tmp_path / "pid").read_text())))


def test_a_child_does_not_outlive_a_daemon_that_is_killed(tmp_path: Path) -> None:
    binary = script(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 60")
    code = (
        "from trapsync.clock import SystemClock; from trapsync.destinations.rclone import child; "
        f"child.run({binary!r}, [], b'', SystemClock(), bool, within=60, most=1)"
    )
    with processes.started([sys.executable, "-c", code]) as daemon:
        until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        daemon.kill()
    until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_a_child_that_is_killed_says_nothing_against_an_image(
    place: Place, card: Card, tmp_path: Path
) -> None:
    lab = place.connect(binary=script(tmp_path, "kill -9 $$"))
    with pytest.raises(Unreachable, match="too little memory"):
        lab.find_existing([card.image()])


# ── Kills ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(300)
def test_killed_at_each_failpoint_every_image_is_there_once_and_no_link_is_left(
    place: Place, card: Card, tmp_path: Path
) -> None:
    program = killed_trap.Program(tmp_path / "trap", {"lab": place.table})
    images: list[Image] = []
    for failpoint in sorted(side_effects.failpoints_of("rclone")):
        images.append(card.image(len(images), seed=len(images) + 1))
        begun = place.folder / images[-1].place  # as a transfer that was cut leaves it
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.write_bytes(card.bytes(images[-1])[:500])
        program.lay_in([card.path(images[-1])])
        assert program.killed_at(failpoint, 1), f"never came to {failpoint!r}"
        program.deliver()
        assert place.stored() == {image.name: card.bytes(image) for image in images}, failpoint
        assert list((tmp_path / "trap" / "state" / "rclone").iterdir()) == []


@pytest.mark.parametrize("version", rclone_ends.versions())
def test_where_rclone_itself_is_killed_in_the_middle_the_image_is_sent_again_whole(
    trap: Trap, card: Card, tmp_path: Path, version: str
) -> None:
    """The program is slow, and killed once the copy has begun."""
    begun = f"find {tmp_path}/there -type f -size +0 2>/dev/null | grep -q ."
    slowly = f'exec 3<&0; {version} "$@" --bwlimit 40k <&3 &'
    dies = f'case "$1" in copy) {slowly} until {begun}; do sleep 0.05; done; kill -9 $! $$;; esac'
    place = Place(tmp_path, card, script(tmp_path, f'{dies}\nexec {version} "$@"'))
    lab = place.connect(trap.context("lab"))
    trap.register(lab)
    (trap.storage.spool / "IMG_0001.JPG").write_bytes(drawings.plain(1200, 900, quality=95))
    trap.ingest("IMG_0001.JPG")
    turn = trap.deliver(lab)
    assert (turn.delivered, str(turn.trouble)[:17]) == (0, "rclone was killed")
    (left,) = place.stored().values()
    assert 0 < len(left) < (trap.storage.spool / "IMG_0001.JPG").stat().st_size
    again = place.connect(trap.context("lab"), binary=version)
    assert trap.deliver(again).delivered == 1
    assert place.stored() == {"IMG_0001.JPG": (trap.storage.spool / "IMG_0001.JPG").read_bytes()}
