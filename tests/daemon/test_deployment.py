"""Deployments of a trap that runs: in its pictures, by its settings, and again after its catalog was lost."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import daemon_process
import drawings
import signed
from fake_time import FakeTime
from trapsync.catalog import Catalog
from trapsync.jpeg import exif
from trapsync.remote.in_force import InForce
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.runtime.context import Context
from trapsync.runtime.deployment_keeper import DeploymentKeeper
from trapsync.runtime.liveness import Liveness
from trapsync.settings.layers import Files
from trapsync.spool.inbox import Inbox

OLDER = Path(__file__).parents[1] / "helpers" / "older"
NOW = signed.ISSUED.timestamp() + 3600


# ── The daemon ───────────────────────────────────────────────────────────────────────────────────────


def ids(trap: daemon_process.Daemon) -> list[str]:
    """The ids of its deployments."""
    with suppress(sqlite3.Error):  # before there is a catalog
        address = f"file:{trap.folder}/state/catalog.sqlite?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as db:
            return [row[0] for row in db.execute("SELECT id FROM deployments ORDER BY number")]
    return []


def named(trap: daemon_process.Daemon) -> list[str]:
    """The deployments that its pictures name, in their order."""
    pictures = sorted(trap.spool.rglob("*.jpg"))
    metadata = [exif.read(drawings.block_of(one.read_bytes()))[0] for one in pictures]
    found = [one["deployment"] for one in metadata if "deployment" in one]
    return list(dict.fromkeys(found))


@contextmanager
def at(trap: daemon_process.Daemon, latitude: float) -> Iterator[None]:
    """The trap runs at this place; then its power is cut."""
    lines = [line for line in trap.config.read_text().splitlines() if not line.startswith("latitude")]
    lines.insert(lines.index("[trap]") + 1, f"latitude = {latitude}")
    trap.config.write_text("\n".join(lines))
    trap.start()
    yield
    trap.kill()


def test_pictures_name_their_deployment_and_a_lost_catalog_has_them_all_again(tmp_path: Path) -> None:
    trap = daemon_process.Daemon(tmp_path, camera="simulated")
    for count, place in enumerate((46.2, 46.3), start=1):
        with at(trap, place):
            trap.until(lambda _, count=count: len(named(trap)) == count)  # type: ignore[misc]
    known = ids(trap)
    assert len(known) == 2
    for file in (tmp_path / "state").glob("catalog.sqlite*"):
        file.unlink()
    with at(trap, 46.3):
        trap.until(lambda _: ids(trap) == known)
    assert named(trap) == known


# ── What keeps them ──────────────────────────────────────────────────────────────────────────────────


def opened(folder: Path, found: InForce) -> tuple[DeploymentKeeper, Catalog]:
    """What keeps the deployments of a trap with these settings in force, and its catalog."""
    time = FakeTime(NOW)
    catalog = Catalog.open(folder / "state" / "catalog.sqlite", time)
    context = Context(
        *(found.settings, drawings.DEVICE, time, catalog),
        *(Inbox(time), Liveness(time), threading.Event()),
    )
    return DeploymentKeeper(context, found), catalog


def start(source: Path) -> tuple[DeploymentKeeper, Catalog, RemoteSettings]:
    """A start of the trap, with its catalog."""
    remote = RemoteSettings(Files(source), FakeTime(NOW))
    keeper, catalog = opened(source.parent, remote.begin())
    keeper.begin()
    keeper.settle()
    return keeper, catalog, remote


def count(source: Path) -> int:
    """How many deployments there are after another start."""
    _, catalog, _ = start(source)
    known = len(catalog.deployments.all())
    catalog.close()
    return known


def trap_with_a_camera(folder: Path) -> Path:
    """The config file of a trap that takes the owner's settings, and has a deployment."""
    source = signed.prepare(folder / "trap")
    source.write_text(source.read_text().replace('kind = "none"', 'kind = "simulated"'))
    assert count(source) == 1
    return source


def test_settings_on_trial_begin_no_deployment_until_they_are_committed(tmp_path: Path) -> None:
    source = trap_with_a_camera(tmp_path)
    remote = RemoteSettings(Files(source), FakeTime(NOW))
    assert remote.accept(signed.settings(1, {"capture": {"every": "5 min"}})).is_accepted
    keeper, catalog, remote = start(source)
    assert len(catalog.deployments.all()) == 1
    remote.commit()
    keeper.commit()
    assert [one.terms["every"] for one in catalog.deployments.all()] == [1200.0, 300.0]
    catalog.close()
    assert count(source) == 2


def test_settings_that_are_rolled_back_leave_no_deployment(tmp_path: Path) -> None:
    source = trap_with_a_camera(tmp_path)
    remote = RemoteSettings(Files(source), FakeTime(NOW))
    assert remote.accept(signed.settings(1, {"capture": {"every": "5 min"}})).is_accepted
    _, catalog, remote = start(source)
    remote.roll_back("camera", "no pictures")
    catalog.close()
    assert count(source) == 1


def test_another_location_that_is_sent_is_another_deployment_and_a_comment_is_not(tmp_path: Path) -> None:
    source = trap_with_a_camera(tmp_path)
    sent: list[tuple[dict[str, str], int]] = [
        ({"location_name": "Creek"}, 1),
        ({"location_name": "Creek", "comments": "fog"}, 1),
        ({"location_name": "Meadow"}, 2),
    ]
    for number, (texts, known) in enumerate(sent, start=1):
        remote = RemoteSettings(Files(source), FakeTime(NOW))
        assert remote.accept(signed.settings(number, {"deployment": texts})).is_accepted
        assert count(source) == known


def test_a_trap_without_a_camera_has_no_deployment(tmp_path: Path) -> None:
    assert count(signed.prepare(tmp_path / "trap")) == 0


def test_the_catalog_of_an_older_trap_gets_one_from_its_first_image_on(tmp_path: Path) -> None:
    source = signed.prepare(tmp_path / "trap")
    source.write_text(source.read_text().replace('kind = "none"', 'kind = "simulated"'))
    (source.parent / "state").mkdir()
    with closing(sqlite3.connect(source.parent / "state" / "catalog.sqlite")) as db:
        db.executescript((OLDER / "catalog-13fe5f4.sql").read_text())
        (first,) = db.execute("SELECT min(rank) FROM images WHERE boot_id IS NOT NULL").fetchone()
        (device,) = db.execute("SELECT substr(key, 1, 8) FROM images ORDER BY rank LIMIT 1").fetchone()
    source.write_text(source.read_text().replace(drawings.DEVICE, device))
    _, catalog, _ = start(source)
    (one,) = catalog.deployments.all()
    assert (one.began, one.ended, one.terms["camera"]) == (first, None, "simulated")
    catalog.close()
