"""One life of a trap and of its hub in a single process: every durable step, one after another.

`live` is what `tests/daemon/test_failpoints.py` runs in a child and kills at a failpoint. It can be killed at any
point and run again in the same folder. What it was told is safe, it writes into `acknowledged` at once.
"""

import hashlib
import importlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

import drawings
import hub_server
import reported
import trap_bench as bench
from fake_time import FakeTime
from memory_context import connected, context
from trapsync import cameras, pipeline, trap
from trapsync.catalog import Catalog, card_reserve, integrity, stop_marks
from trapsync.clock import utc
from trapsync.destinations import Destination, confirmation
from trapsync.errors import Failed, Held, Refused, Unreachable
from trapsync.files import failpoint
from trapsync.image import Correction, Evidence, Image, Label
from trapsync.jpeg import examination, exif
from trapsync.remote.uplink.http import HttpLink
from trapsync.remote.uplink.reports import Report, Reporter
from trapsync.runtime import clock_correction
from trapsync.runtime.destination_context import registered
from trapsync.runtime.startup import schedule_of
from trapsync.settings.schema import Camera, Capture, Hub, Prune, Settings, SimulatedCamera, Storage, Trap
from trapsync.settings.units import Duration, Size
from trapsync.spool import new_files, quarantine, spool_mark
from trapsync.spool.undecided import UndecidedFiles

SOURCE = Path("trapsync.toml")
OTHER = "0a1b2c3e"  # the device of what another program puts in
WRONG = "0a1b2c3c"  # a camera of ours whose clock was wrong
STRANGER = "0a1b2c3f"  # another trap, whose images the hub's admin deletes


def prepare(folder: Path) -> None:
    """A trap and a hub on which nothing has happened yet."""
    for name in ("stick", "replay", "spool", "state", "hub"):
        (folder / name).mkdir(parents=True)
    (folder / "stick" / ".trapsync-destination").touch()
    (folder / "password").write_text(hub_server.PASSWORD)
    (folder / "password").chmod(0o600)
    (folder / "replay" / "one.jpg").write_bytes(drawings.plain())
    with hub_server.cheap_passwords(), hub_server.running(folder / "hub") as hub:
        hub.auth("owner")


def feed(folder: Path, number: int, name: str) -> None:
    """What is there when the n-th life begins: images and rubbish of another program, and left-overs.

    Some failpoints are hit only after something special happened; `name` is the one that is wanted.
    """
    spool, hub = folder / "spool", folder / "hub"
    for second in range(6):
        taken = taken_by_others(number, second)
        file_name = f"{OTHER}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        content = drawings.trap(seed=10 * number + second, taken=taken)
        drawings.put(spool, content, f"others/{number}/{file_name}")
        acknowledge(folder, file_name, content)
        if name == "hub: set aside":  # left there between the rename and the row
            drawings.put(hub / "images", content + b"other", f"{OTHER}/{taken:%Y-%m-%d}/{file_name}")
    feed_wrong_times(folder, number)
    if name.startswith("mark:"):  # another stick, say
        (folder / "stick" / ".trapsync-destination").write_bytes(b"")
    for bad in range(3):
        drawings.put(spool, b"GIF89a %d %d" % (number, bad), f"others/{number}/bad-{bad}.jpg")
    date = spool / drawings.DEVICE / "2026-06-21"
    drawings.put(date, b"half", f".{drawings.DEVICE}.2026-06-21_20-19-{number:02}.jpg.part")
    drawings.put(hub / "images" / ".incoming", b"half", "half.jpg")
    drawings.put(hub / "thumbnails" / ".making", b"half", "half.jpg")
    if name in {"spool: marked", "spool: remembered"}:  # as on first use
        (spool / spool_mark.MARK).unlink(missing_ok=True)
        (folder / "state" / "spool-id").unlink(missing_ok=True)
    if name in {"catalog: moved aside", "catalog: kept aside", "catalog: mark of damage removed"}:
        (folder / "state" / "catalog.sqlite").write_bytes(
            b"no catalog at all, and long enough for a page" * 99
        )


def feed_wrong_times(folder: Path, number: int) -> None:
    """Images of two boots: of one that its last image knows the time of, and of one that nobody does."""
    began, wrong_by = taken_by_others(number, 0).timestamp() + 3600, -90 * 86400
    for second, (error, is_trusted) in enumerate([(wrong_by, False)] * 3 + [(0, False), (0, True)]):
        monotonic = 100.0 + second
        seen = Evidence(f"known-{number}", monotonic, began + monotonic + error, is_trusted)
        _put_wrong_time(folder, seen, began, began + 104.0)
    seen = Evidence(f"over-{number}", 100.0, began + wrong_by + 200.0, trusted=False)
    _put_wrong_time(folder, seen, began + wrong_by + 100.0, 0.0)


def _put_wrong_time(folder: Path, seen: Evidence, offset: float, set_at: float) -> None:
    """Lay such an image into the spool; acknowledged is what is to become of it."""
    showed, taken = utc(seen.wall), utc(seen.monotonic + offset)
    content = drawings.trap(seed=round(seen.monotonic), taken=showed, evidence=seen)
    drawings.put(folder / "spool", content, f"{WRONG}/{WRONG}.{showed:%Y-%m-%d_%H-%M-%S}.jpg")
    if showed != taken:
        content = exif.correct(content, taken, offset, set_at)
    acknowledge(folder, f"{WRONG}.{taken:%Y-%m-%d_%H-%M-%S}.jpg", content)


def taken_by_others(number: int, second: int) -> datetime:
    """When the images of another program were taken."""
    return datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC) + timedelta(days=number)


def acknowledge(folder: Path, name: str, content: bytes) -> None:
    """It is safe from here on: that is what is held against the program in the end."""
    with (folder / "acknowledged").open("a") as file:
        file.write(f"{hashlib.md5(content).hexdigest()} {name}\n")


def acknowledged(folder: Path) -> dict[str, str]:
    """File name to md5."""
    lines = (line.split() for line in (folder / "acknowledged").read_text().splitlines())
    return {name: md5 for md5, name in lines}


class _Examiner(hub_server.InThisProcess):
    """Draws nothing: libvips, which has drawn the pictures, does not survive the fork that each life begins with."""

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        for path in examination.thumbnail_paths(into, name):
            path.write_bytes((folder / name).read_bytes())


def live(folder: Path, number: int, order: str) -> None:
    """A life, to the failpoint of `order`; without an order to its end, and how often each was hit is in `hits`."""
    os.environ[failpoint.VARIABLE] = order
    importlib.reload(failpoint)
    counted: Counter[str] = Counter()
    if not order:
        failpoint.hit = lambda name: counted.update([name])
    with hub_server.running(folder / "hub", examiner=_Examiner()) as hub:
        _Life(folder, number, hub).live()
    if not order:
        (folder / "hits").write_text(json.dumps(counted))
    # Whatever hangs on here (a thread of the server's) has nothing more to do.
    os._exit(0)


class _Life:
    def __init__(self, folder: Path, number: int, hub: hub_server.RunningHub) -> None:
        self.folder, self.number, self.hub = folder, number, hub
        self.time = FakeTime(1_782_073_155.0 + 3600 * number)
        for _ in range(number):  # each life is a boot of its own
            self.time.reboot(uptime=self.time.monotonic())
        self.storage = Storage(spool=folder / "spool", state=folder / "state", min_free=Size(0))
        self.settings = Settings(
            trap=Trap(uncertain_times="deliver"),
            storage=self.storage,
            camera=Camera(kind="simulated", simulated=SimulatedCamera(replay=folder / "replay")),
            capture=Capture(every=Duration(1)),
            prune=Prune(enabled=True, min_age=Duration(0), keep_free=Size(10**13)),
        )
        self.odd = bench.Memory("odd", required=False)

    def live(self) -> None:
        """The steps, in the order in which the daemon would take them."""
        with trap.lock(self.storage.state):
            spool_mark.prepare(self.storage)
            if "mark of doubt" in os.environ[failpoint.VARIABLE]:
                stop_marks.mark_doubt(self.storage.catalog)
            catalog = trap.open_catalog(self.settings, self.time)
            if catalog.connection.is_check_due():
                assert integrity.check_file(self.storage.catalog) is None
                catalog.connection.note_checked()
            self._reserve()
            destinations = [*self._connect(), self.odd]
            catalog.places.register(registered(destinations))
            new_files.remove_unfinished(self.storage.spool, drawings.DEVICE)
            catalog.runs.begin(schedule_of(self.settings), is_single=False)
            self._capture()
            catalog.runs.note_failure("camera", "the cable is loose")
            self._ingest(catalog)
            self._put_times_right(catalog)
            catalog.deployments.settle(drawings.DEVICE, {"every": self.number})
            self._thumbnails(catalog)
            destinations[0].place()
            self._in_the_way(catalog, destinations[0])
            self._deliver(catalog, destinations)
            self._misfortunes(catalog, destinations)
            self._label(catalog)
            self._report(catalog)
            self._stranger()
            pipeline.prune(catalog, self.storage, self.settings.prune, self.time, destinations)
            catalog.facts.set("bug", self.number)
            if "marked as damaged" in os.environ[failpoint.VARIABLE]:
                stop_marks.mark_damage(self.storage.catalog)
            catalog.runs.end("stopped")
            catalog.close()

    def _reserve(self) -> None:
        kept = card_reserve.Reserve(self.storage.state)
        kept.tend()
        full, card_reserve._FULL = card_reserve._FULL, 10**15  # as if the card were full
        assert kept.tend()
        card_reserve._FULL = full
        kept.tend()

    def _connect(self) -> list[Destination]:
        given = context(self.time, name="stick", state=self.storage.state)
        # Its layout is another one in every other life: whatever a kill left, nothing is brought under both names.
        layout = "{night}/{name}.jpg" if self.number % 2 else "standard"
        stick = {"kind": "directory", "path": str(self.folder / "stick"), "layout": layout}
        hub = {
            "kind": "stickypi",
            "url": self.hub.url,
            "username": self.hub.user,
            "password_file": str(self.folder / "password"),
        }
        return [connected("stick", stick, given), connected("hub", hub, given)]

    def _capture(self) -> None:
        camera = cameras.make(self.settings.camera, drawings.DEVICE)
        camera.open()
        for _ in range(4):
            path = self.storage.spool / pipeline.capture(camera, self.settings, drawings.DEVICE, self.time)
            acknowledge(self.folder, path.name, path.read_bytes())
            self.time.sleep(1)

    def _ingest(self, catalog: Catalog) -> None:
        found: list[str] = []
        pipeline.sweep(catalog, self.storage, found.append)
        look = bench.examiner(self.storage.spool)
        pipeline.ingest(catalog, self.storage, found, look, UndecidedFiles(0), self.time)

    def _put_times_right(self, catalog: Catalog) -> None:
        """The first image of this life finds its name taken, and gets it only when it comes again."""
        met: set[int] = set()

        def rewrite(
            corrections: Iterable[Correction],
        ) -> Iterator[tuple[Correction, Image | FileExistsError]]:
            for one in corrections:
                assert one.image.evidence
                is_first = not met and one.image.evidence.boot_id == f"known-{self.number}"
                met.add(one.image.id)
                yield one, FileExistsError() if is_first else examination.rewrite(self.storage.spool, one)

        failures = clock_correction.Failures(self.time)
        while clock_correction.correct_times(catalog, self.storage, self.settings.trap, rewrite, failures):
            pass
        # Somebody copies images back that were corrected already.
        feed_wrong_times(self.folder, self.number)
        self._ingest(catalog)
        while clock_correction.correct_times(catalog, self.storage, self.settings.trap, rewrite, failures):
            pass

    def _thumbnails(self, catalog: Catalog) -> None:
        for one in catalog.images.without_thumbnails(5):
            with suppress(FileNotFoundError):
                examination.thumbnails(self.storage.spool, one.path, self.storage.thumbnails)
            catalog.images.mark_thumbnails({one.id: True})
            if one.id % 2:  # broken by a power cut, and found so
                assert catalog.images.copy_again(one.id)

    def _deliver(self, catalog: Catalog, destinations: Sequence[Destination]) -> None:
        for destination in destinations:
            pipeline.deliver(catalog, destination, self.storage.spool, self.time, bench.OneByOne())

    def _in_the_way(self, catalog: Catalog, stick: Destination) -> None:
        """Where a folder of the stick belongs, somebody has put a file; then a copy that he made himself."""
        if self.number % 2:  # by this layout it belongs elsewhere
            return
        odd = self.folder / "stick" / OTHER / f"{taken_by_others(self.number, 0):%Y-%m-%d}"
        odd.parent.mkdir(exist_ok=True)
        for left_over in [path for path in odd.parent.iterdir() if path.is_file()]:
            left_over.unlink()
        if not odd.exists():
            odd.touch()
            self._deliver(catalog, [stick])
            odd.unlink()
            for path in sorted((self.folder / "spool" / "others" / str(self.number)).glob(f"{OTHER}.*"))[:1]:
                drawings.put(odd, path.read_bytes(), path.name)
            catalog.deliveries.end_waits()

    def _misfortunes(self, catalog: Catalog, destinations: Sequence[Destination]) -> None:
        """A destination that fails in every way, one that lost an image, the owner who says retry."""
        stick = destinations[0]
        kept = catalog.proofs.delivered_to("stick", 0, 1000)[-3:]
        for name in ("stick", "odd"):
            catalog.proofs.withdraw_proofs(name, [one.id for one in kept])
        for place in catalog.proofs.lies_at("stick", [one.id for one in kept]).values():
            (self.folder / "stick" / place).unlink(missing_ok=True)
        self.odd.stored.clear()
        causes = [Refused("too good"), Held("not now"), Failed("not in the mood")]
        self.odd.trouble = {one.key: cause for one, cause in zip(kept, causes, strict=False)}
        self._deliver(catalog, [self.odd])
        self.odd.deaf = Unreachable("nobody there")
        catalog.deliveries.end_waits()
        self._deliver(catalog, [self.odd])
        self.odd.deaf, self.odd.trouble = None, {}
        catalog.deliveries.retry()
        self._deliver(catalog, [self.odd, stick])
        catalog.notes.put("odd", "night", self.number)
        catalog.notes.forget("odd", "night")
        for row in catalog.quarantine.listing()[-2:]:
            quarantine.release(catalog, self.settings.storage, row["id"])
        self._ask_again(catalog)
        self._take_away(catalog)
        self._ingest(catalog)

    def _ask_again(self, catalog: Catalog) -> None:
        """A destination is asked again, has lost an image, and is another place for a moment."""
        some = catalog.proofs.delivered_to("odd", 0, 1000)[-2:]
        self.odd.stored.pop(some[-1].key, None)
        confirmation.ask_again(catalog, self.odd, some)
        catalog.proofs.note_asked("odd")
        catalog.places.settle_place("odd", "memory elsewhere")
        catalog.places.settle_place("odd", "memory odd")
        catalog.proofs.unmark_pruned([])
        catalog.deliveries.acknowledge()
        catalog.deliveries.end_waits()
        self._deliver(catalog, [self.odd])

    def _label(self, catalog: Catalog) -> None:
        """Somebody says what is in some images."""
        some = catalog.proofs.delivered_to("odd", 0, 1000)[-6:]
        for image in some:
            catalog.labels.put("odd", {image.id: Label("task", "done")})

    def _report(self, catalog: Catalog) -> None:
        """The hub is told of a night more in each life, and of how the one before was after all."""
        reported.heard(self.hub.hub)
        secret = self.folder / "password"
        settings = Hub(url=self.hub.url, username=self.hub.user, password_file=secret)
        link = HttpLink(settings, drawings.DEVICE, (), self.time, self.time.sleep)
        nights = [reported.night(number, taken=4) for number in range(self.number)]
        made = [Report("night", one["night"], one) for one in (*nights, reported.night(self.number, taken=3))]
        Reporter(drawings.DEVICE, catalog.reports, [lambda _is_held: made], self.time).send(link.report)
        link.close()

    def _take_away(self, catalog: Catalog) -> None:
        """Somebody takes a picture from the card, sees that it is none of his, and puts it back."""
        for one in catalog.images.on_card(0, 1000)[-1:]:
            path, away = self.storage.spool / one.path, self.folder / "away.jpg"
            content = path.read_bytes()
            path.rename(away)
            self.odd.stored.pop(one.key, None)
            catalog.proofs.withdraw_proofs("odd", [one.id])
            self._ingest(catalog)
            self._deliver(catalog, [self.odd])
            path.write_bytes(content)
            away.unlink()

    def _stranger(self) -> None:
        """Another trap's images come to the hub, get small copies, and are deleted by its admin."""
        taken = taken_by_others(self.number, 0)
        for second in range(3):
            moment = taken + timedelta(seconds=second)
            content = drawings.trap(seed=second, taken=moment)
            self.hub.upload(f"{STRANGER}.{moment:%Y-%m-%d_%H-%M-%S}.jpg", content)
        asked = [
            {"device": STRANGER, "datetime": f"{taken + timedelta(seconds=second):%Y-%m-%d_%H-%M-%S}"}
            for second in range(3)
        ]
        for row in self.hub.ask("get_images/thumbnail", asked).json():
            requests.get(row["url"], timeout=30)
        self.hub.ask("delete_images", asked, "owner")
