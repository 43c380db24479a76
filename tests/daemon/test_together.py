"""One trap, the real daemon, and every service at once."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import daemon_process
import drawings
import hub_server
import s3_store
from fault_server import FaultServer
from imagekit_stub import ImageKit
from s3_store import Store
from scale_stub import PROJECT, TEST_KEY, Scale
from skylab_stub import BASE, PROFILE, Skylab

IMAGES = 4
QUICK = {"every": "1 s", "retry_initial": "200 ms", "retry_max": "1 s"}


class World:
    """A hub, a bucket, ImageKit, Skylab Studio and Scale AI, each on a port of its own."""

    def __init__(self, folder: Path, stack: ExitStack, store: Store) -> None:
        self.folder = folder
        self.addresses_from = "gallery"  # where Scale fetches images
        self.bucket = stack.enter_context(s3_store.site(store, folder))
        self.hub = stack.enter_context(hub_server.running(folder / "hub"))
        self.imagekit, self.skylab, self.scale = ImageKit(), Skylab(), Scale()
        self.gallery = stack.enter_context(FaultServer(self.imagekit))
        self.studio = stack.enter_context(FaultServer(self.skylab))
        self.office = stack.enter_context(FaultServer(self.scale))
        self.skylab.url = self.studio.url

    def tables(self) -> dict[str, dict[str, Any]]:
        """Their tables in a config file: only the hub and the bucket must have an image before it may be pruned."""
        gallery = self.gallery.url
        return {
            "labels": {
                "kind": "scale",
                "depends_on": self.addresses_from,
                "url": f"{self.office.url}/v1",
                "api_key_file": self._secret("scale", TEST_KEY),
                "project": PROJECT,
                "allow_upload": False,
            },
            "gallery": {
                "kind": "imagekit",
                "private_key_file": self._secret("imagekit", self.imagekit.key),
                "url_endpoint": f"{gallery}/demo",
                "upload_url": gallery,
                "api_url": gallery,
            },
            "studio": {
                "kind": "skylab",
                "url": self.studio.url + BASE,
                "key_file": self._secret("skylab", self.skylab.key),
                "profile": PROFILE,
            },
            "bucket": self.bucket.table(layout="antenna"),
            "hub": {
                "kind": "stickypi",
                "url": self.hub.url,
                "username": self.hub.user,
                "password_file": self._secret("hub", self.hub.password),
            },
        }

    def config(self) -> str:
        """The same, as text."""
        return tomli_w.dumps({"destinations": {name: t | QUICK for name, t in self.tables().items()}})

    def _secret(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.secret"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)


@pytest.fixture
def world(tmp_path: Path, seaweed: Store) -> Iterator[World]:
    """All of them listen."""
    with ExitStack() as stack:
        yield World(tmp_path, stack, seaweed)


def put_images(folder: Path) -> dict[str, str]:
    """Put images into the spool; name to MD5."""
    for second in range(IMAGES):
        taken = f"2026-06-21_20-19-{second:02d}"
        drawings.put(folder / "spool", drawings.trap(seed=second + 1), f"in/{drawings.DEVICE}.{taken}.jpg")
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in (folder / "spool").rglob("*.jpg")}


@pytest.mark.parametrize("at", ["gallery", "bucket"])
def test_every_service_has_each_image_once_and_scale_fetched_them_at_another(
    world: World, tmp_path: Path, at: str
) -> None:
    world.addresses_from = at
    names = put_images(tmp_path)
    with daemon_process.running(tmp_path, world.config()) as trap:
        facts = trap.until(
            lambda f: all(row["delivered"] == IMAGES for row in f["destinations"].values()), seconds=90
        )
        trap.stop()
    assert facts["ledger"]["delivered"] == IMAGES
    assert facts["destinations"]["labels"]["depends_on"] == at
    assert world.hub.stored() == names
    in_bucket = {hashlib.md5(content).hexdigest() for content in world.bucket.stored().values()}
    assert in_bucket == set(names.values())
    stored = {file.name: hashlib.md5(file.content).hexdigest() for file in world.imagekit.files.values()}
    assert stored == names
    assert sorted(hashlib.md5(one).hexdigest() for one in world.skylab.stored().values()) == sorted(
        names.values()
    )
    tasks = world.scale.mode.tasks.values()
    assert sorted(task["metadata"]["image"] for task in tasks) == sorted(names)
    assert world.office.received["/v1/files/upload"] == 0  # no image crossed the trap's link twice
    fetched = {hashlib.md5(content).hexdigest() for content in world.scale.contents.values()}
    assert fetched == set(names.values())


def test_services_that_are_down_for_good_stop_nothing_and_fill_nothing(world: World, tmp_path: Path) -> None:
    names = put_images(tmp_path)
    prune = '\n[prune]\nenabled = true\nmin_age = "0 s"\nkeep_free = "10000 GB"\n'
    with (
        world.gallery.down(),
        world.studio.down(),
        world.office.down(),
        daemon_process.running(tmp_path, prune + world.config()) as trap,
    ):
        facts = trap.until(lambda f: f["ledger"]["delivered"] == IMAGES)
        trap.stop()
        trap.run("prune", "--yes")
    assert not list((tmp_path / "spool").rglob("*.jpg"))
    assert world.hub.stored() == names
    assert facts["verdict"] != "failing"
    assert all(facts["destinations"][name]["required"] is False for name in ("gallery", "studio", "labels"))
