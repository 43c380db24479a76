"""A trap's whole life, as Hypothesis makes it up: every misfortune of the field, in any order.

After each step the account is right, every picture that was ever safe is safe, and nothing arrived twice or
damaged. In the end everything is well again, and then everything must have arrived.

The world counts for itself: it reads the card and the places, byte for byte, and believes nothing that the catalog
says. Every good picture that was ever on the card is on the card or at each place that must have it, was taken away
by a person, or was lost by the place after it had confirmed it.
"""

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import drawings
import trap_bench as bench
from memory_context import context
from trapsync import pipeline
from trapsync.cameras import AlwaysReady, Frame
from trapsync.catalog import Catalog, integrity
from trapsync.catalog.connection import Connection
from trapsync.clock import Clock
from trapsync.destinations import Receipt, confirmation, directory
from trapsync.errors import CatalogError, DamagedImage, Failed, Refused, StorageError, Unreachable
from trapsync.files import durable, failpoint
from trapsync.image import Correction, Image
from trapsync.jpeg import examination, exif
from trapsync.runtime import clock_correction, verification
from trapsync.settings.schema import Prune, Settings, Trap
from trapsync.settings.units import Duration, Size
from trapsync.spool import quarantine, spool_mark
from trapsync.trap import open_catalog

MEMORY = Path("/dev/shm")  # where flushes cost nothing
HOUR, DAY = 3600.0, 86400.0


RUBBISH = {
    "nothing": b"",
    "a GIF": b"GIF89a",
    "a portal's page": b"<html>",
    "half": drawings.plain()[:-1500],
    "no end": drawings.plain()[:-2] + b"\xff\x01",
}


class Killed(BaseException):
    """The process ends here."""


class Server(bench.Memory):
    """A server that minds what it holds: other bytes under a name it refuses, and it counts what comes twice.

    `ever` is whatever it was given once; `robbed` is when, by the true time, it lost or changed what of that.
    """

    def __init__(self, name: str, place: int = 0, kind: str = "memory") -> None:
        super().__init__(name, batch=3)
        self.identity = f"{kind} {name} {place}"
        self.kind = kind
        self.mood = "well"
        self.again = 0
        self.ever: set[str] = set()
        self.robbed: dict[str, float] = {}
        self._patience = 0

    def must(self, required: bool) -> None:
        """What the config says of it."""
        self.settings = type(self.settings)(
            kind=self.kind,
            required=required,
            retry_initial=self.settings.retry_initial,
            retry_max=self.settings.retry_max,
        )

    def rob(self, key: str, put: str | None, now: float) -> None:
        """It loses an image, or holds other bytes under its name; nobody tells the trap."""
        self.robbed[self.stored.pop(key)] = now
        if put:
            self.stored[key] = put

    def be(self, mood: str, patience: int) -> None:
        """From the so many-th image on, behave like this."""
        self.mood, self._patience = mood, patience

    def _held(self, images: Sequence[Image], at: Mapping[int, str]) -> dict[int, Receipt | Exception]:
        if self.mood == "deaf":
            raise Unreachable("no answer")
        keys = {image.id: at.get(image.id) or image.key for image in images}
        return {i.id: self._verdict(i, keys[i.id]) for i in images if keys[i.id] in self.stored}

    def _verdict(self, image: Image, key: str) -> Receipt | Exception:
        if self.stored[key] != image.sha256:
            return Refused("other bytes are here under this name")
        return Receipt(f"sha256:{image.sha256}", at=key)

    def deliver(self, image: Image, path: Path) -> Receipt:
        content = path.read_bytes()
        self._patience -= 1
        if self._patience < 0:
            match self.mood:
                case "portal":
                    raise Unreachable("a portal's page")
                case "failing":
                    raise Failed("500, no reason given")
                case "refusing":
                    raise Refused("too large")
        if image.key in self.stored:
            verdict = self._verdict(image, image.key)
            self.again += isinstance(verdict, Receipt)
            if isinstance(verdict, Refused):
                raise verdict
        if hashlib.sha256(content).hexdigest() != image.sha256:
            raise Failed("the file on the card is not the one that was examined")
        self.stored[image.key] = image.sha256
        self.ever.add(image.sha256)
        self.robbed.pop(image.sha256, None)
        if self.mood == "answers lost" and self._patience < 0:
            raise Unreachable("cut after the body")
        return Receipt(f"sha256:{image.sha256}", at=image.key)


class Camera(AlwaysReady):
    """Gives another picture each time."""

    def __init__(self) -> None:
        self.taken = 0

    def open(self) -> None:
        pass

    def capture(self, moment: object) -> Frame:
        self.taken += 1
        return Frame(drawings.plain(seed=self.taken % 5) + b"%d" % self.taken, 160, 120, "simulated")

    def close(self) -> None:
        pass


class Life(RuleBasedStateMachine):
    """One trap, its two servers and a stick, and what the model knows of every picture, by its digest."""

    steps = 0  # in all lives together

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(
            tempfile.mkdtemp(prefix="trapsync-model-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.trap = bench.Trap(self.folder, settle=60.0)
        self.settings = Settings(storage=self.trap.storage)
        self.home, self.gallery = Server("home"), Server("gallery")
        self.stick_folder = self.folder / "stick"
        self.stick_folder.mkdir()
        (self.stick_folder / directory.MARK).touch()
        self.required = {"home": True, "gallery": False}
        self.former: list[Server] = []  # servers that the names stood for before
        self.sticks: list[Path] = []  # sticks in a drawer
        self.places = 0
        self.stick_robbed: dict[str, float] = {}
        self.yesterday: dict[Path, bytes] | None = None
        self.backups: list[tuple[str, bytes]] = []
        self.aliens: set[str] = set()
        self.is_urgent = False
        self.is_older = False  # whether the catalog once was one of yesterday
        spool_mark.prepare(self.trap.storage)
        self.connect_the_stick()
        self.camera = Camera()
        self.safe: set[str] = set()  # whatever was whole on the card once
        self.taken_away: set[str] = set()  # by people, all copies of them
        self.files_taken: set[str] = set()  # digests of the files that they removed, as they were
        self.pruned: set[str] = set()
        self.proven: set[str] = set()  # these may go at any time
        self.pocket: list[tuple[str, bytes]] = []  # files that were taken away, and where they lay
        self.unfinished: dict[str, bytes] = {}
        self.begun: dict[str, tuple[str, float]] = {}
        self.files = 0
        self.first: dict[str, str] = {}  # digest of a corrected file -> of the one that it replaces
        self.truth: dict[str, tuple[float, str]] = {}  # when each picture was really taken, and in which boot
        self.lied: set[str] = set()  # boots in which a clock that counts as synchronised was stepped
        self.world = self.trap.time.wall() - self.trap.time.monotonic()
        self.failures = clock_correction.Failures(self.trap.time)

    def teardown(self) -> None:
        try:
            self.in_the_end_everything_arrives()
        finally:
            self.trap.catalog.connection._db.close()
            shutil.rmtree(self.folder)

    # What the model sees

    @property
    def spool(self) -> Path:
        return self.trap.storage.spool

    def connect_the_stick(self) -> None:
        required = self.required.get("stick", True)
        table = directory.Settings(kind="directory", path=self.stick_folder, required=required)
        self.stick = directory.connect("stick", table, context(self.trap.time, spool=self.spool))

    def destinations(self) -> list[Any]:
        every: list[Any] = [self.home, self.gallery, self.stick]
        return [one for one in every if one.name in self.required]

    def on_card(self) -> dict[str, str]:
        """Path to digest of every whole picture in the spool; of a corrected one to that of the first file."""
        found = {path: self.origin(digest(self.spool / path)) for path in self.trap.on_card()}
        return {path: one for path, one in found.items() if one in self.safe and path.isprintable()}

    def origin(self, one: str) -> str:
        """The digest that a picture had at first."""
        return self.first.get(one, one)

    def held(self, name: str) -> dict[str, str]:
        """What a destination holds: where, and of which first digest."""
        return {where: self.origin(one) for where, one in self.stored(name).items()}

    def stored(self, name: str) -> dict[str, str]:
        """What a destination holds: where, and of which digest."""
        if name == "stick":
            return copies(self.stick_root())
        return self.server(name).stored

    def stick_root(self) -> Path:
        """Where the stick is that is in, or was pulled last."""
        return self.stick_folder if self.stick_folder.exists() else self.folder / "pulled"

    def server(self, name: str) -> Server:
        return {"home": self.home, "gallery": self.gallery}[name]

    def paths(self) -> list[str]:
        return sorted(path for path in self.trap.on_card() if path.isprintable())

    def choose(self, number: int) -> str | None:
        paths = self.paths()
        return paths[number % len(paths)] if paths else None

    def put(self, path: str, content: bytes) -> None:
        """Some program or person leaves a file there; no two within one tick of the clock of files."""
        self.files += 1
        (self.spool / path).parent.mkdir(parents=True, exist_ok=True)
        self.note_file_taken(path)
        (self.spool / path).write_bytes(content)
        moment = int(self.trap.time.wall() * 1e9) + self.files
        os.utime(self.spool / path, ns=(moment, moment))

    def acknowledge(self, content: bytes) -> None:
        """It is on the card from here on, whatever became of it before."""
        one = self.origin(hashlib.sha256(content).hexdigest())
        self.safe.add(one)
        for what_was in (self.taken_away, self.pruned, self.proven):
            what_was.discard(one)

    def lay_back(self, path: str, content: bytes) -> None:
        """A person copies a whole picture to where it lay, over whatever lies there now."""
        before = self.on_card()
        self.unfinished.pop(path, None)
        self.put(path, content)
        self.acknowledge(content)
        self.note_what_was_taken(before)

    def note_what_was_taken(self, before: dict[str, str]) -> None:
        """People removed something: what has no copy left is not the program's fault."""
        self.taken_away |= set(before.values()) - set(self.on_card().values())

    def note_file_taken(self, path: str) -> None:
        """The file that people are about to remove: perhaps a copy with the time from before its correction."""
        if (self.spool / path).is_file():
            self.files_taken.add(digest(self.spool / path))

    def picture(self) -> bytes:
        return drawings.plain(seed=self.files % 5) + b"of others %d" % self.files

    # Starting and ending

    @initialize(gallery=st.booleans(), stick=st.sampled_from([None, True, False]))
    def begin(self, gallery: bool, stick: bool | None) -> None:
        self.configure(True, gallery, stick)

    def files_left(self) -> dict[Path, bytes]:
        """What a kill at this moment leaves of the catalog."""
        files = [Path(f"{self.trap.storage.catalog}{suffix}") for suffix in ("", "-wal")]
        return {file: file.read_bytes() for file in files if file.exists()}

    def die(self, left: dict[Path, bytes] | None = None) -> None:
        """End as a kill ends it, now or when that was left: what is in the write-ahead log stays there."""
        left = self.files_left() if left is None else left
        self.trap.catalog.connection._db.close()
        for file, content in left.items():
            file.write_bytes(content)

    def reboot(self) -> None:
        """The machine starts anew. Time goes on, and the clock, if it was right, is right again."""
        now = self.now()
        self.trap.time.reboot()
        self.world = now - self.trap.time.monotonic()
        if self.trap.time.is_trusted and abs(self.trap.time.wall() - now) > 1:
            self.lied.add(self.trap.time.boot_id())

    def now(self) -> float:
        """The time that it really is."""
        return self.trap.time.monotonic() + self.world

    def start(self) -> None:
        opening = Catalog.open
        self.was_rebuilt = False

        def remembered(path: Path, clock: Clock, **how: bool) -> Catalog:
            """Killed before it is told, it must be closed all the same: SQLite minds others of its process."""
            self.was_rebuilt = not path.exists()
            self.trap.catalog = opening(path, clock, **how)
            return self.trap.catalog

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Catalog, "open", remembered)
            open_catalog(self.settings, self.trap.time)
        self.failures = clock_correction.Failures(self.trap.time)
        self.trap.undecided = type(self.trap.undecided)(self.trap.settle)
        self.home.must(self.required.get("home", True))
        self.gallery.must(self.required["gallery"])
        self.connect_the_stick()
        self.trap.register(*self.destinations())

    @rule(
        home=st.sampled_from([None, True, True, False]),
        gallery=st.booleans(),
        stick=st.sampled_from([None, True, False]),
    )
    def configure(self, home: bool | None, gallery: bool, stick: bool | None) -> None:
        """The owner changes which destinations there are, and which of them must have every image."""
        self.required = {"gallery": gallery}
        self.required |= {name: one for name, one in (("home", home), ("stick", stick)) if one is not None}
        self.die()
        self.start()

    @rule(reboot=st.booleans())
    def kill(self, reboot: bool) -> None:
        self.die()
        if reboot:
            self.reboot()
        self.start()

    @rule(which=st.sampled_from(["deleted", "deleted with its log", "log deleted", "cut", "empty"]))
    def lose_the_catalog(self, which: str) -> None:
        self.die()
        path = self.trap.storage.catalog
        log = Path(f"{path}-wal")
        if "log" in which:
            log.unlink(missing_ok=True)
        if which.startswith("deleted"):
            path.unlink(missing_ok=True)
        elif which == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif which == "empty":
            os.truncate(path, 0)
        self.start()

    @rule(
        seed=st.integers(0, 2**16),
        flips=st.sampled_from([1, 1, 5, 100]),
        suffix=st.sampled_from(["", "-wal"]),
    )
    def damage_the_catalog(self, seed: int, flips: int, suffix: str) -> None:
        self.die()
        path = Path(f"{self.trap.storage.catalog}{suffix}")
        content = bytearray(path.read_bytes() if path.exists() else b"")
        dice = random.Random(seed)
        for _ in range(flips if content else 0):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        self.start()
        self.check_the_catalog()

    def check_the_catalog(self) -> None:
        """Check it in full, as the daemon does a minute after such a start; what is damaged is rebuilt by the next."""
        connection = self.trap.catalog.connection
        if not connection.is_check_due():
            assert self.was_rebuilt  # by the start itself
            return
        if finding := integrity.check_file(self.trap.storage.catalog):
            connection.found_damaged(finding)
            self.die()
            self.start()

    @rule(
        step=st.sampled_from(["ingest", "deliver", "prune", "capture", "register", "settle"]),
        hits=st.integers(0, 12),
        reboot=st.booleans(),
    )
    def kill_in_the_middle(self, step: str, hits: int, reboot: bool) -> None:
        """At the n-th durable step of whatever it does."""
        before, files = self.on_card(), self.trap.on_card()
        left: dict[Path, bytes] | None = None

        def hit(name: str) -> None:
            nonlocal hits, left
            hits -= 1
            if hits < 0:
                left = self.files_left() if left is None else left
                raise Killed(name)

        steps: dict[str, Callable[[], object]] = {
            "ingest": self.trap.ingest,
            "deliver": self.deliver_all,
            "prune": self.prune_all,
            "capture": self.take_a_picture,
            "register": self.start,
            "settle": self.put_times_right,
        }
        if step == "register":
            self.die()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(failpoint, "hit", hit)
            with suppress(Killed):
                steps[step]()
        self.note_what_was_pruned(before)
        if step == "prune":
            self.prove(self.leaving())
        for path in self.trap.on_card() - files if step == "capture" else ():
            self.acknowledge_capture(path)  # under its final name it is complete
        self.die(left)
        if reboot:
            self.reboot()
        self.start()

    @rule(step=st.sampled_from(["ingest", "deliver", "prune", "capture", "settle"]), after=st.integers(0, 4))
    def fill_the_card(self, step: str, after: int) -> None:
        """No room any more, neither for files nor for the catalog, after some more writes."""
        before = self.on_card()

        def full() -> None:
            nonlocal after
            after -= 1
            if after < 0:
                raise StorageError("the card is full")

        write, transaction = durable.write, Connection.transaction

        def write_or_not(path: Path, *rest: Any, **more: Any) -> None:
            full()
            write(path, *rest, **more)

        def begin(connection: Connection, what: str) -> Any:
            try:
                full()
            except StorageError:
                raise CatalogError("database or disk is full") from None
            return transaction(connection, what)

        steps: dict[str, Callable[[], object]] = {
            "ingest": self.trap.ingest,
            "deliver": self.deliver_all,
            "prune": self.prune_all,
            "capture": self.take_a_picture,
            "settle": self.put_times_right,
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "write", write_or_not)
            patch.setattr(Connection, "transaction", begin)
            with suppress(StorageError, CatalogError):
                steps[step]()
        self.note_what_was_pruned(before)
        if step == "prune":
            self.prove(self.leaving())

    # The four verbs

    @rule(seconds=st.sampled_from([0.0, 1.0, 20.0, 600.0]))
    def capture(self, seconds: float) -> None:
        self.trap.time.sleep(seconds)
        self.take_a_picture()

    def take_a_picture(self) -> None:
        taken = self.trap.catalog.images.names_from(drawings.DEVICE, self.trap.time.wall())
        path = pipeline.capture(self.camera, self.settings, drawings.DEVICE, self.trap.time, taken)
        self.acknowledge_capture(path)

    def acknowledge_capture(self, path: str) -> None:
        content = (self.spool / path).read_bytes()
        self.acknowledge(content)
        self.truth[hashlib.sha256(content).hexdigest()] = self.now(), self.trap.time.boot_id()

    @rule(wait=st.booleans())
    def ingest(self, wait: bool) -> None:
        young = [path for path in self.unfinished if self.is_young(path)]
        self.trap.ingest()
        assert all((self.spool / path).exists() for path in young)  # somebody may still be writing
        if wait:  # until what has no end yet will never have one
            self.trap.time.sleep(self.trap.settle + 1)
            self.trap.ingest()
            assert not self.unfinished.keys() & self.trap.on_card()
        # What is in quarantine is what the folder of that name holds, after a rebuild too.
        kept = {path.name for path in self.trap.storage.quarantine.glob("*.jpg")}
        assert {row["kept_as"] for row in self.trap.catalog.quarantine.listing()} == kept
        # All that is whole on the card is an image that is there; all else is gone, and accounted for.
        rows = self.rows("SELECT sha256, gone_at IS NULL, state FROM images")
        here = {self.origin(one) for one, is_here, _ in rows if is_here}
        assert here == set(self.on_card().values()) - self.leaving()
        for one, is_here, state in rows:
            assert is_here or state in {"dropped", "pending"} or self.origin(one) in self.everywhere()

    def is_young(self, path: str) -> bool:
        """Whether an unfinished file was there for less than its settling time."""
        boot, since = self.begun[path]
        now = self.trap.time
        return boot == now.boot_id() and now.monotonic() - since < self.trap.settle

    def leaving(self) -> set[str]:
        """What is pruned already, and whose file goes with the next pruning."""
        rows = self.rows("SELECT sha256 FROM images JOIN files ON image_id = id WHERE leaving = 1")
        return {self.origin(one) for (one,) in rows}

    def everywhere(self) -> set[str]:
        """Whatever any place was ever given."""
        servers = (one for server in (self.home, self.gallery, *self.former) for one in server.ever)
        sticks = (one for root in (self.stick_root(), *self.sticks) for one in copies(root).values())
        return {self.origin(one) for one in (*servers, *sticks, *self.stick_robbed)}

    @rule(wait=st.booleans())
    def deliver(self, wait: bool) -> None:
        if wait:
            self.trap.time.sleep(8 * DAY)
        self.deliver_all()

    def deliver_all(self) -> None:
        rows = self.rows("SELECT sha256, coalesce(timing IN ('held', 'unsure'), 0) FROM images")
        held = {self.origin(one) for one, is_held in rows if is_held}
        held -= {self.origin(one) for one, is_held in rows if not is_held}  # there twice, corrected once
        before = {name: set(self.held(name).values()) for name in self.required}
        for destination in self.destinations():
            if self.trap.catalog.deliveries.may_go(destination.name):
                self.trap.deliver(destination)
        for name, there in before.items():
            assert not (set(self.held(name).values()) - there) & held, "it was to be held"

    @rule()
    def prune(self) -> None:
        before = self.on_card()
        self.prune_all()
        self.note_what_was_pruned(before)

    @rule(number=st.integers(0, 99))
    def overwrite_what_is_marked_as_pruned(self, number: int) -> None:
        """After the mark that it may go, and before it goes, another picture is put in its place."""
        images = self.trap.catalog.proofs.prunable(self.trap.time.wall(), limit=16)
        before = self.on_card()
        self.trap.catalog.proofs.mark_pruned([image.id for image in images])
        self.die()
        self.start()
        if images:
            path = images[number % len(images)].path
            self.put(path, self.picture())
            self.acknowledge((self.spool / path).read_bytes())
        self.note_what_was_taken(before)
        self.prune()

    def prune_all(self) -> None:
        self.trap.prune()

    @rule()
    def prune_before_capture_stops(self) -> None:
        before, self.is_urgent = self.on_card(), True
        limits = Prune(enabled=True, min_age=Duration(0), keep_free=Size(0))
        pipeline.prune(
            self.trap.catalog, self.trap.storage, limits, self.trap.time, self.destinations(), soon=10**15
        )
        self.note_what_was_pruned(before)
        self.is_urgent = False

    def note_what_was_pruned(self, before: dict[str, str]) -> None:
        """Pruned only with proof: what left the card is held by all who must have it, and by one at least."""
        gone = set(before.values()) - set(self.on_card().values())
        self.prove(gone)
        self.pruned |= gone

    def prove(self, some: set[str]) -> None:
        """Who must have them is said by the settings of the moment in which they were marked."""
        must = [name for name, required in self.required.items() if required]
        for one in some - self.proven:
            assert must
            for name in must:
                assert self.has(name, one), f"{name} does not have it"
        self.proven |= some

    def has(self, name: str, one: str) -> bool:
        """Whether a place has a picture, byte for byte, or lost it less than a day after it had it: so long its word
        counts. Where capture would stop, that of a server which does not answer counts too."""
        if one in self.held(name).values():
            return True
        robbed = self.stick_robbed if name == "stick" else self.server(name).robbed
        if any(self.origin(what) == one and self.now() - at < DAY for what, at in robbed.items()):
            return True
        is_last_word = self.is_urgent and name != "stick" and self.server(name).mood == "deaf"
        return is_last_word and one in {self.origin(what) for what in self.server(name).ever}

    @rule()
    def a_good_day(self) -> None:
        for _ in range(3):
            self.capture(600.0)
            self.trap.ingest()
        self.deliver(True)

    @rule()
    def a_day_offline(self) -> None:
        for _ in range(3):
            self.capture(600.0)
        self.trap.ingest()

    # What people and other programs do

    @rule(trap_name=st.booleans(), folder=st.sampled_from(["", "DCIM", "a/b"]))
    def leave_a_picture(self, trap_name: bool, folder: str) -> None:
        content = self.picture()
        name = f"{drawings.DEVICE}.2026-05-01_10-{self.files // 60 % 60:02}-{self.files % 60:02}.jpg"
        self.put(f"{folder}/{name if trap_name else f'IMG_{self.files:04}.jpg'}".lstrip("/"), content)
        self.acknowledge(content)

    @rule(number=st.integers(0, 99), folder=st.sampled_from(["copies", "more/copies"]))
    def copy(self, number: int, folder: str) -> None:
        if path := self.choose(number):
            content = (self.spool / path).read_bytes()
            before = self.on_card()
            self.put(f"{folder}/{Path(path).name}", content)
            self.taken_away.discard(hashlib.sha256(content).hexdigest())
            self.note_what_was_taken(before)

    @rule(number=st.integers(0, 99))
    def overwrite(self, number: int) -> None:
        if path := self.choose(number):
            before, content = self.on_card(), self.picture()
            self.unfinished.pop(path, None)
            self.put(path, content)
            self.acknowledge(content)
            self.note_what_was_taken(before)

    @rule(number=st.integers(0, 99))
    def take_away(self, number: int) -> None:
        if path := self.choose(number):
            before = self.on_card()
            if path in before:
                self.pocket.append((path, (self.spool / path).read_bytes()))
            self.unfinished.pop(path, None)
            self.note_file_taken(path)
            (self.spool / path).unlink()
            self.note_what_was_taken(before)

    @precondition(lambda self: self.pocket)
    @rule(number=st.integers(0, 99))
    def bring_back(self, number: int) -> None:
        self.lay_back(*self.pocket.pop(number % len(self.pocket)))

    @rule(number=st.integers(0, 99))
    def back_a_picture_up(self, number: int) -> None:
        if (path := self.choose(number)) and path in self.on_card():
            self.backups.append((path, (self.spool / path).read_bytes()))

    @precondition(lambda self: self.backups)
    @rule(number=st.integers(0, 99))
    def put_a_picture_back(self, number: int) -> None:
        """From the owner's backup; it may have been pruned long ago."""
        self.lay_back(*self.backups.pop(number % len(self.backups)))

    @rule(number=st.integers(0, 99))
    def leave_another_picture_of_the_same_name(self, number: int) -> None:
        if path := self.choose(number):
            content = self.picture()
            self.put(f"other-{self.files}/{Path(path).name}", content)
            self.acknowledge(content)

    @rule(number=st.integers(0, 9))
    def move_a_folder(self, number: int) -> None:
        folders = sorted(path for path in self.spool.iterdir() if path.is_dir() and path.name[0] != ".")
        if folders:
            self.files += 1
            folder = folders[number % len(folders)]
            folder.rename(self.spool / f"moved-{self.files}")
            for path in [path for path in self.unfinished if path.startswith(f"{folder.name}/")]:
                moved = path.replace(folder.name, f"moved-{self.files}", 1)
                self.unfinished[moved], self.begun[moved] = self.unfinished.pop(path), self.begun[path]
            self.pocket.clear()

    @rule(part=st.sampled_from([0.0, 0.5, 0.999]), zeros=st.booleans())
    def leave_an_unfinished_file(self, part: float, zeros: bool) -> None:
        content = self.picture()
        content = content[: content.rindex(b"\xff\xd9") + 2]
        content = content[:2] + b"\xff\xfe\x00\x06%04d" % (self.files % 10000) + content[2:]
        path = f"slow/{drawings.DEVICE}.2026-05-02_10-{self.files // 60 % 60:02}-{self.files % 60:02}.jpg"
        head = content[: int(part * len(content))]
        self.put(path, head.ljust(len(content), b"\0") if zeros else head)
        self.unfinished[path] = content
        self.begun[path] = (self.trap.time.boot_id(), self.trap.time.monotonic())

    @precondition(lambda self: self.unfinished)
    @rule()
    def finish_a_file(self) -> None:
        path, content = self.unfinished.popitem()
        if (self.spool / path).exists():  # else it is in quarantine: it took too long
            self.put(path, content)
            self.acknowledge(content)

    @rule(what=st.sampled_from(sorted(RUBBISH)))
    def leave_rubbish(self, what: str) -> None:
        self.put(f"rubbish/{self.files}.jpg", RUBBISH[what])

    @rule()
    def leave_a_file_that_cannot_be_named(self) -> None:
        self.put(f"line\nbreak {self.files}.jpg", drawings.plain())

    @rule()
    def release_from_quarantine(self) -> None:
        for row in self.trap.catalog.quarantine.listing()[:1]:
            with suppress(StorageError, FileNotFoundError):
                path = self.spool / quarantine.release(self.trap.catalog, self.settings.storage, row["id"])
                if (
                    path.read_bytes() == drawings.plain()
                ):  # which was there for its name, and has a better one now
                    self.acknowledge(drawings.plain())

    # The world

    @rule(
        server=st.sampled_from(["home", "gallery"]),
        mood=st.sampled_from(["well", "well", "deaf", "answers lost", "portal", "failing", "refusing"]),
        patience=st.integers(0, 3),
    )
    def change_mood(self, server: str, mood: str, patience: int) -> None:
        (self.home if server == "home" else self.gallery).be(mood, patience)

    @rule(
        name=st.sampled_from(["home", "gallery"]),
        kind=st.sampled_from(["memory", "memory", "other"]),
        is_back=st.booleans(),
    )
    def stand_for_another_server(self, name: str, kind: str, is_back: bool) -> None:
        """The owner writes another address or kind under the old name, or that from before."""
        before = [one for one in self.former if one.name == name]
        if is_back and before:
            new = before[0]
            self.former.remove(new)
        else:
            self.places += 1
            new = Server(name, self.places, kind)
        self.former.append(self.server(name))
        setattr(self, name, new)
        self.die()
        self.start()

    @rule(is_back=st.booleans())
    def put_another_stick_in(self, is_back: bool) -> None:
        self.places += 1
        drawer = self.folder / f"drawer-{self.places}"
        self.stick_root().rename(drawer)
        if is_back and self.sticks:
            self.sticks.pop(0).rename(self.stick_folder)
        else:
            self.stick_folder.mkdir()
            (self.stick_folder / directory.MARK).touch()
        self.sticks.append(drawer)

    @rule(
        name=st.sampled_from(["home", "home", "gallery"]),
        number=st.integers(0, 99),
        others=st.booleans(),
    )
    def lose_an_image_at_a_server(self, name: str, number: int, others: bool) -> None:
        """A restored backup, an admin, a repaired disk: it is gone, or other bytes are under its name."""
        server = self.server(name)
        keys = sorted(server.stored)
        if keys:
            self.files += 1
            alien = hashlib.sha256(b"alien %d" % self.files).hexdigest()
            self.aliens.add(alien)
            server.rob(keys[number % len(keys)], alien if others else None, self.now())

    @rule(step=st.sampled_from(["ingest", "capture"]))
    def unmount_the_spool_for_a_moment(self, step: str) -> None:
        """What lies below the mount point is another spool: nothing goes there, and nothing is forgotten."""
        away = self.folder / "unmounted"
        self.spool.rename(away)
        self.spool.mkdir()
        with pytest.raises(StorageError, match="not the spool of last time"):
            self.trap.ingest() if step == "ingest" else self.take_a_picture()
        self.spool.rmdir()  # for it is empty
        away.rename(self.spool)

    @rule(number=st.integers(0, 99), what=st.sampled_from(["lost", "zeros", "manifest lost"]))
    def lose_a_copy_on_the_stick(self, number: int, what: str) -> None:
        """What a dying stick does, or a person with a file manager."""
        root = self.stick_root()
        places = sorted(copies(root))
        if not places:
            return
        path = root / places[number % len(places)]
        if what == "manifest lost":
            (path.parent / "SHA256SUMS").unlink(missing_ok=True)
            return
        self.stick_robbed[digest(path)] = self.now()
        if what == "lost":
            path.unlink()
            return
        path.write_bytes(bytes(path.stat().st_size))
        self.aliens.add(digest(path))

    @rule(number=st.integers(0, 99))
    def lead_the_stick_back_to_the_spool(self, number: int) -> None:
        """A link on the stick, where a copy or a day of copies would belong."""
        path = self.choose(number)
        if path and "/" in path and self.stick_folder.exists():
            target = self.stick_folder / path
            whole_day = target.parent if number % 2 else target
            if not os.path.lexists(whole_day):
                whole_day.parent.mkdir(parents=True, exist_ok=True)
                if not any(one.is_symlink() for one in whole_day.parents):
                    whole_day.symlink_to(self.spool / whole_day.relative_to(self.stick_folder))

    @rule()
    def leave_odd_entries_on_the_stick(self) -> None:
        if self.stick_folder.exists():
            odd = self.stick_folder / drawings.DEVICE / "2026-05-01"
            if not os.path.lexists(odd) and not (self.stick_folder / drawings.DEVICE).is_symlink():
                odd.parent.mkdir(parents=True, exist_ok=True)
                odd.write_text("notes of the visit")

    @rule(where=st.sampled_from(["spool", "elsewhere"]))
    def leave_a_link(self, where: str) -> None:
        """Another program's: to the newest picture, or to nothing."""
        self.files += 1
        path = self.choose(self.files) if where == "spool" else None
        (self.spool / f"latest-{self.files}.jpg").symlink_to(self.spool / path if path else "/nowhere")

    @rule()
    def verify(self) -> None:
        for destination in self.destinations():
            with suppress(Unreachable):
                verification.verify_destination(self.trap.catalog, destination, lambda _count: None)

    @rule(days=st.sampled_from([0, 1, 8]))
    def ask_about_some(self, days: int) -> None:
        self.trap.time.sleep(days * DAY)
        for destination in self.destinations():
            with suppress(Unreachable):
                confirmation.ask_about_some(self.trap.catalog, destination, self.trap.time)

    @rule()
    def remember_the_catalog(self) -> None:
        self.trap.catalog.connection.checkpoint()
        self.yesterday = self.files_left()

    @precondition(lambda self: self.yesterday)
    @rule()
    def restore_the_catalog_of_yesterday(self) -> None:
        assert self.yesterday
        self.die()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.trap.storage.catalog}{suffix}").unlink(missing_ok=True)
        for file, content in self.yesterday.items():
            file.write_bytes(content)
        self.is_older = True
        self.start()

    @rule()
    def acknowledge_what_was_lost(self) -> None:
        self.trap.catalog.deliveries.acknowledge()

    @rule()
    def pull_the_stick_or_put_it_in(self) -> None:
        pulled = self.folder / "pulled"
        if pulled.exists():
            pulled.rename(self.stick_folder)
        else:
            self.stick_folder.rename(pulled)

    @rule(step=st.sampled_from([-HOUR, HOUR, -90 * DAY, 90 * DAY]))
    def step_the_clock(self, step: float) -> None:
        self.trap.time.step_wall(step)
        if self.trap.time.is_trusted:
            self.lied.add(self.trap.time.boot_id())

    @rule(wrong_by=st.sampled_from([-90 * DAY, -DAY, -1.0]))
    def wake_up_with_a_wrong_clock(self, wrong_by: float) -> None:
        """Without a battery behind it: nobody knows what time it is."""
        self.die()
        self.reboot()
        self.lied.discard(self.trap.time.boot_id())
        self.trap.time.step_wall(self.now() + wrong_by - self.trap.time.wall())
        self.trap.time.is_trusted = False
        self.start()

    @rule()
    def set_the_clock(self) -> None:
        """A time server was reached."""
        self.trap.time.step_wall(self.now() - self.trap.time.wall())
        self.trap.time.is_trusted = True

    @rule(wanted=st.sampled_from(["hold", "hold", "deliver"]))
    def want_unsure_images(self, wanted: Literal["hold", "deliver"]) -> None:
        self.settings = Settings(storage=self.trap.storage, trap=Trap(uncertain_times=wanted))

    @rule()
    def settle(self) -> None:
        self.put_times_right()

    @rule()
    def a_morning_without_a_clock(self) -> None:
        self.wake_up_with_a_wrong_clock(-90 * DAY)
        for _ in range(3):
            self.capture(20.0)
        self.trap.ingest()
        self.put_times_right()
        self.set_the_clock()

    def put_times_right(self) -> None:
        before, storage, trap = self.on_card(), self.trap.storage, self.settings.trap
        while clock_correction.correct_times(self.trap.catalog, storage, trap, self.rewrite, self.failures):
            pass
        self.note_what_was_pruned(before)  # what was marked goes first

    def rewrite(self, corrections: Iterable[Correction]) -> Iterator[Any]:
        """As the examiners do it, in this process; what is to be written is noted before."""
        for one in corrections:
            try:
                old = (self.spool / one.image.path).read_bytes()
                new = exif.correct(old, one.name.taken, one.offset, one.last_sync)
                first = self.origin(hashlib.sha256(old).hexdigest())
                self.first[hashlib.sha256(new).hexdigest()] = first
                yield one, examination.rewrite(self.spool, one)
            except FileNotFoundError:
                yield one, DamagedImage("its file is not on the card")
            except (DamagedImage, FileExistsError) as error:
                yield one, error

    @rule()
    def say_retry(self) -> None:
        self.trap.catalog.deliveries.retry()

    # What is always true

    def claims(self) -> list[Callable[[], None]]:
        """All invariants, for a life that is told step by step."""
        return [
            self.the_account_is_right_and_the_catalog_sound,
            self.what_was_safe_is_safe,
            self.nothing_arrives_twice_or_damaged,
            self.what_counts_as_delivered_is_there,
            self.what_counts_as_dropped_was_taken_away_by_people,
            self.corrected_times_are_right,
        ]

    def rows(self, sql: str) -> list[Any]:
        return list(self.trap.catalog.connection._db.execute(sql).fetchall())

    @invariant()
    def the_account_is_right_and_the_catalog_sound(self) -> None:
        Life.steps += 1
        self.trap.ledger()
        assert integrity.problem(self.trap.catalog.connection._db.conn) is None

    @invariant()
    def what_was_safe_is_safe(self) -> None:
        assert self.safe - self.taken_away - self.pruned <= set(self.on_card().values())

    @invariant()
    def nothing_arrives_twice_or_damaged(self) -> None:
        for server in (self.home, self.gallery):
            assert server.again == 0
        for name in ("home", "gallery", "stick"):
            assert set(self.held(name).values()) <= self.safe | self.aliens, f"{name} got something damaged"

    @invariant()
    def what_counts_as_delivered_is_there(self) -> None:
        stick = self.place_of_the_stick()
        for name, place, key, proof in self.rows(
            """SELECT name, place, lies_at, digest FROM deliveries JOIN images ON id = image_id
               JOIN destinations ON destinations.key = destination AND active
               WHERE deliveries.state = 'delivered'"""
        ):
            one = proof.removeprefix("sha256:")
            if name == "stick":
                is_there = place != stick or one in self.stored(name).values() or one in self.stick_robbed
            else:
                is_there = self.server(name).stored.get(key) == one or one in self.server(name).robbed
            assert is_there, f"{name} does not have {key}"

    def place_of_the_stick(self) -> str | None:
        try:
            return self.stick.place()
        except Unreachable:
            return None

    @invariant()
    def what_counts_as_dropped_was_taken_away_by_people(self) -> None:
        """The account is right about each picture, not only in its sum."""
        rows = self.rows("SELECT sha256 FROM images WHERE state = 'dropped' AND gone_why != 'lost'")
        robbed = {self.origin(one) for s in (self.home, self.gallery, *self.former) for one in s.robbed}
        robbed |= {self.origin(one) for one in self.stick_robbed}
        dropped = {self.origin(one) for (one,) in rows if one not in self.files_taken}
        back = set(self.on_card().values())  # and not ingested again yet
        assert self.is_older or dropped <= self.taken_away | robbed | back

    @invariant()
    def corrected_times_are_right(self) -> None:
        rows = self.rows("SELECT sha256, rank FROM images WHERE timing = 'corrected'")
        for one, named in rows:
            truth, boot = self.truth[self.origin(one)]
            # Pictures of one second have names one after another.
            assert boot in self.lied or abs(named - truth) < 2 + len(rows)

    def in_the_end_everything_arrives(self) -> None:
        """The servers are well, the stick is in, the owner said retry; a week passes."""
        self.home.be("well", 0)
        self.gallery.be("well", 0)
        if (self.folder / "pulled").exists():
            (self.folder / "pulled").rename(self.stick_folder)
        self.trap.ingest()
        self.trap.time.sleep(self.trap.settle + 1)
        self.trap.ingest()
        for link in [path for path in self.stick_folder.rglob("*") if path.is_symlink()]:
            link.unlink()
        odd = self.stick_folder / drawings.DEVICE / "2026-05-01"
        if odd.is_file():
            odd.unlink()
        self.verify()
        self.set_the_clock()
        self.want_unsure_images("deliver")
        self.trap.time.sleep(DAY)  # what failed is tried again once a day
        self.put_times_right()
        assert self.trap.catalog.times.timings() == {"held": 0, "unsure": 0}
        self.trap.catalog.deliveries.retry()
        for _ in range(4):
            self.trap.time.sleep(8 * DAY)
            self.deliver_all()
            self.verify()  # what a note said after a lost catalog may not be so: then it is sent after all
        for destination in self.destinations():
            held = self.held(destination.name)
            refused = {
                self.origin(one)
                for (one,) in self.rows(
                    f"""SELECT sha256 FROM deliveries JOIN images ON id = image_id
                        JOIN destinations ON destinations.key = destination AND current
                        WHERE name = '{destination.name}' AND deliveries.state = 'refused'"""
                )
            }
            for path, one in self.on_card().items():
                if one in self.leaving():
                    continue
                assert one in held.values() or one in refused, f"{path} never arrived at {destination.name}"
            if destination is not self.stick:  # whom it refuses, has another picture's name
                taken = {key for (key,) in self.rows("SELECT key FROM images GROUP BY key")} & held.keys()
                assert len(refused) <= sum(1 for _ in taken) * 9
        self.what_was_safe_is_safe()
        self.delivered_is_at_each_place_that_must_have_it()

    def delivered_is_at_each_place_that_must_have_it(self) -> None:
        """Asked again just now, and so the account is of today."""
        must = [name for name, required in self.required.items() if required]
        rows = self.rows("SELECT sha256 FROM images WHERE state = 'delivered' AND gone_at IS NULL")
        for one in {self.origin(one) for (one,) in rows}:
            assert must
            for name in must:
                assert one in self.held(name).values(), f"delivered, and not at {name}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copies(root: Path) -> dict[str, str]:
    """What lies in a folder of copies: place to digest. No link is followed."""
    found = {}
    for where, _folders, names in os.walk(root):
        for path in (Path(where, name) for name in names if ".jp" in name.lower()):
            if path.is_file() and not path.is_symlink() and not path.name.endswith(".part"):
                found[str(path.relative_to(root))] = digest(path)
    return found
