"""Who looks at the pictures that a hub is sent: not its own process, and what befalls the other one is not the hub's."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

import child_faults
import drawings
import hub_server
import processes
from trapsync.errors import DamagedImage, ExaminerKilled, TrapsyncError
from trapsync.hub import thumbnails
from trapsync.hub.store import INCOMING
from trapsync.hub.thumbnails import MAKING
from trapsync.image import Image
from trapsync.jpeg import examination, exif
from trapsync.runtime import hub_examiner
from trapsync.runtime.hub_examiner import HubExaminer

KEY = {"device": drawings.DEVICE, "datetime": "2026-06-21T20:19:15Z"}

# The hub's command; at its end it says what it has loaded.
COMMAND = """
import atexit, sys
atexit.register(lambda: print("loaded", *sorted({name.partition(".")[0] for name in sys.modules})))
from trapsync.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a hub."""
    (tmp_path / INCOMING).mkdir(parents=True)
    (tmp_path / MAKING).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def unlucky(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubExaminer]:
    """What befalls it is in the names of the files."""
    monkeypatch.setattr(hub_examiner, "_TIMEOUT", 1.0)
    with closing(HubExaminer(folder / INCOMING, folder / MAKING, child_faults.look)) as one:
        yield one


def test_a_picture_that_hangs_or_kills_the_examiner_costs_itself_alone(
    folder: Path, unlucky: HubExaminer
) -> None:
    incoming = folder / INCOMING
    raised: dict[str, type[TrapsyncError]] = {
        "hang": DamagedImage,
        "crash": DamagedImage,
        "shot": ExaminerKilled,
    }
    for name, error in raised.items():
        drawings.put(incoming, drawings.trap(), f"{name}.jpg")
        with pytest.raises(error):
            unlucky.examine(incoming, f"{name}.jpg")
        drawings.put(incoming, drawings.trap(), "good.jpg")
        assert unlucky.examine(incoming, "good.jpg") == examination.examine(incoming, "good.jpg")


def test_who_waits_for_the_examiner_for_long_is_asked_to_come_again_and_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_examiner, "_PATIENCE", 0.1)
    with (
        closing(HubExaminer(tmp_path / INCOMING, tmp_path / MAKING)) as examiner,
        hub_server.running(tmp_path, examiner=examiner) as hub,
        examiner._turn,
    ):
        answer = hub.upload(drawings.NAME, drawings.trap())
        assert (answer.status_code, answer.text) == (503, "the hub is busy with other pictures\n")
        assert int(answer.headers["Retry-After"]) > 0
        assert hub.rows() == []
        assert list(hub.folder.rglob("*.jpg")) == []


class TakenOver(hub_server.InThisProcess):
    """Says of each picture what it is not."""

    def examine(self, folder: Path, name: str) -> Image:
        image = super().examine(folder, name)
        return Image(name, 5, "0" * 32, "0" * 64, image.width, image.height, image.metadata)


def test_an_examiner_that_was_taken_over_cannot_lie_about_the_bytes(tmp_path: Path) -> None:
    with hub_server.running(tmp_path, examiner=TakenOver()) as hub:
        (row,) = hub.upload(drawings.NAME, drawings.trap()).json()
        assert row["md5"] == examination.examine(hub.folder / "images", _stored(hub)).md5


def _stored(hub: hub_server.RunningHub) -> str:
    (path,) = (hub.folder / "images").rglob("*.jpg")
    return str(path.relative_to(hub.folder / "images"))


class Weary(hub_server.InThisProcess):
    """Fails at each picture."""

    tries = 0

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        self.tries += 1
        raise DamagedImage("it took too long, twice")


def test_a_picture_of_which_no_small_copy_can_be_made_is_tried_once(tmp_path: Path) -> None:
    examiner = Weary()
    with hub_server.running(tmp_path, examiner=examiner) as hub:
        hub.upload(drawings.NAME, drawings.trap())
        (row,) = hub.ask("get_images/thumbnail", [KEY]).json()
        for _ in range(3):
            assert requests.get(row["url"], timeout=30).content == drawings.trap()
    assert examiner.tries == 1


def test_who_waits_for_a_small_copy_for_long_gets_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "_PATIENCE", 0.1)
    with hub_server.running(tmp_path) as hub, hub.hub.thumbnails._one_at_a_time:
        hub.upload(drawings.NAME, drawings.trap())
        (row,) = hub.ask("get_images/thumbnail", [KEY]).json()
        assert requests.get(row["url"], timeout=30).content == drawings.trap()


def test_a_small_copy_is_made_anew_where_a_crash_left_half_of_one(tmp_path: Path) -> None:
    (tmp_path / MAKING).mkdir(parents=True)
    (tmp_path / MAKING / "half.jpg").write_bytes(b"half")
    with hub_server.running(tmp_path, examiner=hub_server.InThisProcess()) as hub:
        assert list((tmp_path / MAKING).iterdir()) == []
        hub.upload(drawings.NAME, drawings.trap())
        (row,) = hub.ask("get_images/thumbnail-mini", [KEY]).json()
        assert len(requests.get(row["url"], timeout=30).content) < 5000
        assert len(list((tmp_path / "thumbnails").rglob("*.jpg"))) == 2
        assert list((tmp_path / INCOMING).iterdir()) == []


@contextmanager
def command(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real hub, and its address."""
    with processes.started(
        [sys.executable, "-c", COMMAND, "hub", "--folder", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as program:  # fmt: skip
        assert program.stderr
        for line in program.stderr:
            if found := re.search(r"listens on (http://\S+)", line):
                yield program, found[1]
                break


def test_the_hubs_own_process_decodes_nothing_and_all_of_it_needs_little_memory(tmp_path: Path) -> None:
    with hub_server.running(tmp_path / "hub") as hub:
        auth = hub.auth()
    picture = exif.embed_metadata(drawings.plain(4056, 3040, quality=95), drawings.facts())
    with command(tmp_path / "hub") as (program, url):
        assert processes.children(program.pid) == {}  # a hub at rest needs no child
        for second in range(10, 13):
            files = {f"{drawings.DEVICE}.2026-06-21_20-19-{second}.jpg": ("x", picture)}
            assert (
                requests.post(f"{url}/_put_new_images", files=files, auth=auth, timeout=60).status_code == 200
            )
        asked = [{"device": "%", "start_datetime": "2026", "end_datetime": "2027"}]
        rows = requests.post(f"{url}/get_image_series/thumbnail", json=asked, auth=auth, timeout=30).json()
        sizes = [len(requests.get(row["url"], timeout=60).content) for row in rows]
        assert all(1000 < size < len(picture) / 10 for size in sizes), "these are no small copies"
        memory = [processes.peak(pid) for pid in (program.pid, *processes.children(program.pid))]
        program.terminate()
        said = program.communicate(timeout=20)[0]
    print(f"MB at most, the hub and its children: {[round(one / 1e6) for one in memory]}")  # noqa: T201
    assert len(memory) >= 2
    assert sum(memory) < 160e6
    assert "flask" in said.split()
    assert not {"pyvips", "piexif"} & set(said.split())
    assert processes.children(program.pid) == {}
