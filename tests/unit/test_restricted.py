"""What child processes may do: an examiner or a camera that is taken over gets nothing, and all else works as before."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import child_faults
import drawings
import escapes
from trapsync import doctor
from trapsync.errors import CameraError
from trapsync.hub.app import Hub
from trapsync.hub.thumbnails import MAKING
from trapsync.image import Found, Image
from trapsync.jpeg.examination import examine
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.examiners import Examiners
from trapsync.runtime.hub_examiner import HubExaminer
from trapsync.runtime.restricted import Rights
from trapsync.settings.schema import Camera, Ingest, Sensors, Settings, Storage
from trapsync.settings.units import Duration, Size
from trapsync.spool.scan import stat_file

HELPERS = Path(escapes.__file__).parent
# What the camera's process may do, as restricted as it is itself.
OF_THE_CAMERA = {"run a program", "fork"}


def probe(*before: str) -> str:
    """What the doctor hears of this kernel, or of one that `before` makes of it."""
    command = [*before, sys.executable, "-c", doctor._RESTRICTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("lacking:").strip()


@pytest.fixture(scope="module")
def kernel() -> None:
    """A kernel that has all of it."""
    if text := probe():
        pytest.skip(f"on this kernel {text}")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    one = Storage(spool=tmp_path / "spool", state=tmp_path / "state", min_free=Size(0))
    one.spool.mkdir()
    one.thumbnails.mkdir(parents=True)
    return one


@pytest.fixture
def targets(storage: Storage, tmp_path: Path) -> Iterator[escapes.Targets]:
    """Secrets, folders, servers and a daemon of the same account."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "password").write_text("secret")
    (tmp_path / "config" / "password").chmod(0o600)
    for name in ("pushed.json", "catalog.sqlite"):
        (storage.state / name).write_text("{}")
    abstract = f"trapsync-{os.getpid()}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp4,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as tcp6,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as in_no_folder,
        subprocess.Popen(
            [sys.executable, escapes.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as daemon,
    ):
        unix.bind(str(tmp_path / "socket"))
        in_no_folder.bind("\0" + abstract)
        unix.listen()
        in_no_folder.listen()
        assert daemon.stdout
        address = int(daemon.stdout.readline())
        one = escapes.Targets(
            secret=str(tmp_path / "config" / "password"),
            state=str(storage.state),
            config=str(tmp_path / "config"),
            tcp4=tcp4.getsockname()[1],
            tcp6=tcp6.getsockname()[1],
            unix=str(tmp_path / "socket"),
            abstract=abstract,
            process=daemon.pid,
            address=address,
        )
        one.write(storage.spool / "targets")
        yield one
        daemon.kill()


def offer(spool: Path, name: str) -> list[Found]:
    drawings.put(spool, drawings.trap(seed=1), name)
    one = stat_file(spool, name)
    assert one
    return [one]


@pytest.fixture
def taken_over(storage: Storage) -> Iterator[Examiners]:
    some = Examiners(Ingest(timeout=Duration(30)), storage, escapes.look)
    yield some
    some.close()


@pytest.fixture
def camera(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Iterator[CameraProcess]:
    monkeypatch.setenv("ESCAPES_SPOOL", str(storage.spool))
    settings = Settings(storage=storage, camera=Camera(timeout=Duration(30)))
    process = CameraProcess(settings, drawings.DEVICE, child_faults.StillClock(), escapes.make)
    yield process
    process.close()


def test_without_restrictions_all_of_it_is_possible(targets: escapes.Targets, storage: Storage) -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=escapes.unrestricted, args=(theirs, storage.spool))
    process.start()
    theirs.close()
    outcomes = ours.recv()
    process.join()
    assert {name: came for name, came in outcomes.items() if came != "done"} == {}


def test_an_examiner_that_is_taken_over_gets_nothing(
    kernel: None, taken_over: Examiners, targets: escapes.Targets, storage: Storage
) -> None:
    [(_, image)] = taken_over.examine(offer(storage.spool, "a.jpg"))
    assert isinstance(image, Image), image
    assert {name: came for name, came in image.metadata.items() if came != "refused"} == {}
    assert len(image.metadata) > 20
    assert sorted(path.name for path in storage.state.iterdir()) == [
        "catalog.sqlite",
        "pushed.json",
        "thumbnails",
    ]


def test_the_examiner_of_a_hub_that_is_taken_over_gets_neither_its_database_nor_stored_pictures(
    kernel: None, targets: escapes.Targets, storage: Storage, tmp_path: Path
) -> None:
    hub = Hub.open(tmp_path / "hub")
    stored = hub.store.images / drawings.put(hub.store.images, drawings.trap())
    incoming = hub.store.incoming
    drawings.put(incoming, drawings.trap(), "a.jpg")
    with closing(HubExaminer(incoming, tmp_path / "hub" / MAKING, escapes.look)) as examiner:
        for secret in (hub.database.path, stored):
            replace(targets, secret=str(secret), config=str(tmp_path / "hub")).write(incoming / "targets")
            outcomes = examiner.examine(incoming, "a.jpg").metadata
            assert {name: came for name, came in outcomes.items() if came != "refused"} == {}
            assert len(outcomes) > 20
    hub.database.close()


def test_a_camera_that_is_taken_over_gets_nothing_and_its_programs_neither(
    kernel: None, camera: CameraProcess, targets: escapes.Targets, storage: Storage
) -> None:
    with pytest.raises(CameraError) as told:
        camera.capture()
    outcomes = json.loads(str(told.value))
    # A program that runs and gets nothing ends with an error of its own.
    of_programs = outcomes.pop("have a program read the secret")
    assert "CalledProcessError" in of_programs
    assert {name for name, came in outcomes.items() if came != "refused"} == OF_THE_CAMERA
    assert {outcomes[name] for name in OF_THE_CAMERA} == {"done"}


def test_nothing_runs_here_that_an_examiner_puts_into_its_answer(
    taken_over: Examiners, storage: Storage
) -> None:
    [(_, outcome)] = taken_over.examine(offer(storage.spool, "pickle.jpg"))
    assert not (storage.spool / "ran").exists()
    assert not isinstance(outcome, Image)


def test_nothing_runs_here_that_the_camera_puts_into_its_answer(
    camera: CameraProcess, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (storage.spool / "pickle").touch()
    with pytest.raises(CameraError):
        camera.capture()
    assert not (storage.spool / "ran").exists()


def test_a_camera_with_a_pin_can_make_the_pipe_of_lgpio_whatever_folder_is_its_current_one(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    (storage.spool / "pin").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("LG_WD", raising=False)  # which the first pin sets, for the whole process
    monkeypatch.setenv("ESCAPES_SPOOL", str(storage.spool))
    settings = Settings(storage=storage, camera=Camera(timeout=Duration(30)), sensors=Sensors(button=17))
    process = CameraProcess(settings, drawings.DEVICE, child_faults.StillClock(), escapes.make)
    try:
        for _ in range(2):
            with pytest.raises(CameraError, match="there is a pipe"):
                process.capture()
    finally:
        process.close()


def test_an_examiner_that_answers_about_another_file_is_not_believed(
    taken_over: Examiners, storage: Storage
) -> None:
    [(_, outcome)] = taken_over.examine(offer(storage.spool, "another.jpg"))
    assert "about another file" in str(outcome)


def put_another_folder_at(spool: Path) -> None:
    """As where a disk is mounted there: the path is the same, the folder another."""
    spool.rename(spool.with_name(f"before {spool.stat().st_ino}"))
    spool.mkdir()


@pytest.fixture(params=["another", "the same disk"])
def mounted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one can see that what is mounted is another file system: the same disk keeps its numbers."""
    if request.param == "the same disk":
        monkeypatch.setattr(Rights, "identity", lambda _self: [])


def test_another_folder_at_the_spools_path_is_examined_by_new_workers(
    storage: Storage, mounted: None
) -> None:
    some = Examiners(Ingest(timeout=Duration(30)), storage)
    try:
        for _ in range(2):
            files = offer(storage.spool, "a.jpg")
            expected = examine(storage.spool, "a.jpg")
            assert list(some.examine(files)) == [(files[0], expected)]
            assert some.make_thumbnails(expected, "a.jpg")
            put_another_folder_at(storage.spool)
    finally:
        some.close()


def test_another_folder_at_the_spools_path_takes_the_pictures_of_a_new_camera_process(
    storage: Storage, mounted: None
) -> None:
    settings = Settings(
        storage=storage, camera=Camera(kind="simulated", resolution=(160, 120), warm_up=Duration(0))
    )
    process = CameraProcess(settings, drawings.DEVICE, child_faults.StillClock())
    try:
        for _ in range(2):
            path = process.capture()
            assert (storage.spool / path).is_file()
            put_another_folder_at(storage.spool)
    finally:
        process.close()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("ENOSYS", "this kernel has no Landlock"),
        ("EOPNOTSUPP", "switched off: see systemd/README.md, lsm="),
        ("EPERM", "SystemCallFilter"),
        ("filter", "the network and other processes (the kernel takes no filter of system calls"),
    ],
)
def test_where_the_kernel_does_not_do_it_all_works_as_before_and_it_is_told(
    storage: Storage, how: str, why: str
) -> None:
    offer(storage.spool, "a.jpg")
    refusing = [sys.executable, str(HELPERS / "refusing_kernel.py"), how]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*refusing, sys.executable, "-c", WORKING, str(storage.spool), str(storage.state)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert why in done.stdout, done.stdout
    assert why in probe(*refusing)


WORKING = """
import logging, sys
from pathlib import Path
import child_faults, drawings
from trapsync.runtime.camera_process import CameraProcess
from trapsync.runtime.examiners import Examiners
from trapsync.settings.schema import Camera, Ingest, Settings, Storage
from trapsync.settings.units import Duration, Size
from trapsync.spool.scan import stat_file

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    storage = Storage(spool=Path(sys.argv[1]), state=Path(sys.argv[2]), min_free=Size(0))
    camera = Camera(kind="simulated", resolution=(160, 120), warm_up=Duration(0))
    process = CameraProcess(Settings(storage=storage, camera=camera), drawings.DEVICE, child_faults.StillClock())
    path = process.capture()
    process.close()
    examiners = Examiners(Ingest(timeout=Duration(30)), storage, tells_rights=True)
    for name in ("a.jpg", path):
        [(_, image)] = examiners.examine([stat_file(storage.spool, name)])
        assert examiners.make_thumbnails(image, name)
    examiners.close()
"""
