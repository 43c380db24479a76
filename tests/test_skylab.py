"""Skylab Studio: the protocol, jobs by the night, results, against a stub that refuses what the real one refuses."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from conformance import Card, OverHttp, tools
from fake_time import FakeTime
from fault_server import FaultServer
from skylab_stub import BASE, PROFILE, STORAGE, Skylab
from trapsync.destinations import Scratch, skylab
from trapsync.destinations.skylab import Settings
from trapsync.quantities import Duration

FIND, JOBS = f"GET {BASE}/jobs/find_by_name", f"{BASE}/jobs"
LIST, PHOTOS = f"GET {BASE}/photos/list_for_job", f"{BASE}/photos"
URL, PUT = f"GET {BASE}/photos/upload_url", f"PUT {STORAGE}"
NIGHT = "trapsync-0a1b2c3d-2026-06-21"


class Owing(Scratch):
    """A notebook of a destination that is owed as many images as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def owed(self, _since: float, _until: float) -> int:
        return self.count


class Studio:
    """A site: a fault server in front of the stub. Notes outlive a connection, unless the catalog is lost."""

    def __init__(self, front: FaultServer, stub: Skylab, folder: Path) -> None:
        self.front = front
        self.stub = stub
        self.time = FakeTime()
        self.notes = Owing()
        self.results = folder / "results"
        self.room = 10**9
        self._key = folder / "key"
        self.change_key(stub.key)

    def change_key(self, key: str) -> None:
        """Let the trap's key file say this."""
        self._key.write_text(key + "\n")
        self._key.chmod(0o600)

    def table(self, **more: Any) -> dict[str, Any]:
        """As an owner would write it."""
        table = {"kind": "skylab", "url": self.front.url + BASE, "key_file": str(self._key)}
        return {**table, "profile": PROFILE, **more}

    def tables(self) -> dict[str, dict[str, Any]]:
        """The whole of it: jobs are handed in and their results fetched."""
        return {"studio": self.table(download=True)}

    def connect(self, **more: Any) -> skylab.Skylab:
        """A destination that delivers there."""
        settings = Settings(**{**self.table(patience=Duration(20), **more), "key_file": self._key})
        given = tools(self.time, notebook=self.notes, results=self.results, room=lambda: self.room)
        return skylab.connect("studio", settings, given)

    def stored(self) -> dict[str, bytes]:
        """What the service holds; nothing was ever replaced, and no job handed in twice."""
        assert len(set(self.stub.queued)) == len(self.stub.queued)
        return self.stub.stored()

    def broken(self) -> AbstractContextManager[None]:
        """Nobody listens."""
        return self.front.down()


class LostCatalog(Studio):
    """The same, with the notes of each connection lost when the next one begins."""

    def connect(self, **more: Any) -> skylab.Skylab:
        """With an empty notebook."""
        self.notes = Owing()
        return super().connect(**more)


@pytest.fixture
def stub() -> Skylab:
    """The service."""
    return Skylab()


@pytest.fixture
def front(stub: Skylab) -> Iterator[FaultServer]:
    """It listens."""
    with FaultServer(stub) as front:
        stub.url = front.url
        yield front


@pytest.fixture
def site(front: FaultServer, stub: Skylab, tmp_path: Path) -> Studio:
    """An account there."""
    return Studio(front, stub, tmp_path)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """An empty spool."""
    return Card(tmp_path / "spool")


class TestSkylab(OverHttp):
    """The promises that all destinations make."""

    kind = "skylab"
    steps = (JOBS, LIST, PHOTOS, URL, PUT)
    upload = PUT

    @pytest.fixture
    def stub(self) -> Skylab:
        """One that is quick, so that the program meets all that there is when it is killed."""
        stub = Skylab()
        stub.is_quick = True
        return stub


class TestLostCatalog(OverHttp):
    """The same, where nothing is remembered from one connection to the next."""

    kind = "skylab"
    steps = (FIND, LIST, PHOTOS, URL, PUT)
    upload = PUT

    @pytest.fixture
    def site(self, front: FaultServer, stub: Skylab, tmp_path: Path) -> Studio:
        """Without a memory."""
        return LostCatalog(front, stub, tmp_path)

    def test_killed_at_each_failpoint_every_image_is_there_once(self, *_: object) -> None:
        """Above: the program has a real catalog there."""
