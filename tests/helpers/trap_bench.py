"""A trap on the bench: a real spool and a real catalog, time that stands still, and a destination in memory."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import drawings
from fake_time import FakeTime
from trapsync import pipeline
from trapsync.catalog import Catalog
from trapsync.destinations import Checked, Destination, Finding, Receipt, SimpleDestination
from trapsync.destinations.outcomes import Outcome, Send, Turn
from trapsync.errors import DamagedImage
from trapsync.image import Found, Image
from trapsync.jpeg.examination import examine
from trapsync.runtime.destination_context import TrapContext, registered
from trapsync.settings.schema import Destination as DestinationSettings
from trapsync.settings.schema import Prune, Settings, Storage
from trapsync.settings.schema import Trap as TrapSettings
from trapsync.settings.units import Duration, Size
from trapsync.spool.undecided import UndecidedFiles

_COUNTED = """SELECT '', state, count(*) FROM images GROUP BY state
    UNION ALL SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state"""


class Memory(SimpleDestination):
    """A destination that keeps what it is given, asked and told in lists; trouble can be put in its way."""

    def __init__(
        self, name: str = "home", *, required: bool = True, batch: int = 100, after: str = ""
    ) -> None:
        self.name = name
        self.identity = f"memory {name}"
        self.settings = DestinationSettings(
            kind="memory",
            required=required,
            depends_on=after,
            retry_initial=Duration(10),
            retry_max=Duration(1000),
        )
        self.batch = batch
        self.stored: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.confirmed: list[list[str]] = []
        self.sent: list[str] = []
        # What to raise: for a question, and for an image by its key.
        self.deaf: Exception | None = None
        self.trouble: dict[str, Exception] = {}

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        self.asked.append([image.key for image in images])
        return self._held(images, {})

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        self.confirmed.append([image.key for image in images])
        return self._held(images, at)

    def _held(self, images: Sequence[Image], at: Mapping[int, str]) -> dict[int, Receipt | Exception]:
        if self.deaf:
            raise self.deaf
        keys = {image.id: at.get(image.id) or image.key for image in images}
        return {
            one.id: Receipt(f"sha256:{one.sha256}", at=keys[one.id])
            for one in images
            if self.stored.get(keys[one.id]) == one.sha256
        }

    def deliver(self, image: Image, path: Path) -> Receipt:
        self.sent.append(image.key)
        if image.key in self.trouble:
            raise self.trouble[image.key]
        self.stored[image.key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return Receipt(f"sha256:{self.stored[image.key]}", at=image.key)

    def check(self) -> list[Finding]:
        return []

    def close(self) -> None:
        pass


class OneByOne:
    """`pipeline.Uploads` in the calling thread: each upload is made before the next one is started."""

    def __init__(self) -> None:
        self._started: list[tuple[Sequence[Image], Send]] = []
        self._ended: list[tuple[Image, Outcome]] = []

    @property
    def has_room(self) -> bool:
        return not self._started

    @property
    def is_busy(self) -> bool:
        return bool(self._started or self._ended)

    def start(self, images: Sequence[Image], send: Send) -> None:
        self._started.append((images, send))

    def finished(self, within: float) -> tuple[Image, Outcome] | None:
        if self._started:
            self._ended += self.make(*self._started.pop())
        return self._ended.pop(0) if self._ended else None

    @staticmethod
    def make(images: Sequence[Image], send: Send) -> list[tuple[Image, Outcome]]:
        """Make one upload; what became of its images."""
        try:
            answers = send(images)
        except Exception as error:
            return [(image, error) for image in images]
        return [(image, answers[image.id]) for image in images]

    def time_left(self) -> float:
        return 0.0


def examiner(spool: Path, examined: list[str] | None = None) -> pipeline.Examiner:
    """Examinations in this very process; the paths of what is examined are added to the list."""

    def look(files: Iterable[Found]) -> Iterator[tuple[Found, Image | DamagedImage]]:
        for found in files:
            if examined is not None:
                examined.append(found.path)
            try:
                yield found, examine(spool, found.path)
            except DamagedImage as error:
                yield found, error

    return look


@dataclass
class Trap:
    """The trap: its spool, catalog and time, and the steps of the pipeline with all they need."""

    folder: Path
    time: FakeTime = field(default_factory=FakeTime)
    settle: float = 120.0

    def __post_init__(self) -> None:
        self.storage = Storage(spool=self.folder / "spool", state=self.folder / "state", min_free=Size(0))
        self.storage.spool.mkdir(parents=True)
        self.undecided = UndecidedFiles(self.settle)
        self.examined: list[str] = []
        self.catalog = Catalog.open(self.storage.catalog, self.time)
        self.destinations: Sequence[Destination] = ()

    def register(self, *destinations: Destination) -> None:
        self.destinations = destinations
        self.catalog.places.register(registered(destinations))

    def put(self, second: int = 0, *, seed: int = 1, path: str | None = None) -> str:
        """Another program puts a good image into the spool; its path there."""
        taken = drawings.TAKEN + timedelta(seconds=second)
        path = path or f"{drawings.DEVICE}/{taken:%Y-%m-%d}/{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        drawings.put(self.storage.spool, drawings.trap(seed=seed, taken=taken), path)
        return path

    def ingest(self, *paths: str) -> pipeline.Ingested:
        """Ingest these, or what a sweep finds."""
        found = list(paths)
        if not found:
            pipeline.sweep(self.catalog, self.storage, found.append)
        return pipeline.ingest(self.catalog, self.storage, found, self._examiner, self.undecided, self.time)

    def _examiner(self, files: Iterable[Found]) -> Iterator[tuple[Found, Image | Exception]]:
        return examiner(self.storage.spool, self.examined)(files)

    def deliver(self, destination: Destination, uploads: pipeline.Uploads | None = None) -> Turn:
        uploads = uploads or OneByOne()
        return pipeline.deliver(self.catalog, destination, self.storage.spool, self.time, uploads)

    def prune(self, **settings: object) -> int:
        """Prune as if the card were full, whatever the age of images, unless told otherwise."""
        wanted = {"enabled": True, "min_age": Duration(0), "keep_free": Size(10**13)} | settings
        limits = Prune(**wanted)  # type: ignore[arg-type]
        return pipeline.prune(self.catalog, self.storage, limits, self.time, self.destinations)

    def context(self, name: str, **others: Destination) -> TrapContext:
        """What a destination of this name is given that comes after another one, if any."""
        checked = Checked(name, DestinationSettings(kind="memory", depends_on=next(iter(others), "")))
        settings = Settings(trap=TrapSettings(device=drawings.DEVICE), storage=self.storage)
        return TrapContext(checked, settings, self.catalog, self.time, self.time.sleep, others)

    def restart(self, *, reboot: bool = False) -> None:
        """The daemon starts anew, perhaps after a reboot; what it held in memory is gone."""
        self.catalog.close()
        if reboot:
            self.time.reboot()
        self.catalog = Catalog.open(self.storage.catalog, self.time)
        self.undecided = UndecidedFiles(self.settle)

    def ledger(self) -> tuple[int, int, int, int, int]:
        """captured, delivered, pending, quarantined, dropped (or lost): held to the accounting identity."""
        one = self.catalog.counts.ledger()
        assert one.captured == one.delivered + one.pending + one.quarantined + one.dropped + one.lost
        # It is told from the tallies, so those must be what a count would be.
        assert sorted(self.catalog.connection._db.execute(_COUNTED).fetchall()) == sorted(
            self.catalog.connection._db.execute("SELECT * FROM tallies WHERE n != 0").fetchall()
        )
        return one.captured, one.delivered, one.pending, one.quarantined, one.dropped + one.lost

    def on_card(self) -> set[str]:
        """The images in the spool, by path."""
        spool = self.storage.spool
        return {
            str(path.relative_to(spool))
            for path in spool.rglob("*.jpg")
            if ".quarantine" not in path.parts and not path.is_symlink()
        }
