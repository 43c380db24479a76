"""A trap after some good days, whose catalog is to be damaged."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import drawings
from trap_bench import Memory, Trap
from trapsync.catalog import integrity
from trapsync.errors import CatalogDamaged, CatalogError
from trapsync.settings.schema import Settings
from trapsync.trap import open_catalog


class Well(Trap):
    """A trap after some good days: images pruned, delivered, refused nowhere, pending, and two in quarantine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.home, self.stick = Memory("home"), Memory("stick", required=False)
        self.register(self.home, self.stick)
        for second in range(4):
            self.put(second, seed=second + 1)
        self.ingest()
        self.deliver(self.home)
        self.time.sleep(100)
        assert self.prune() == 4
        for second in range(4, 16):
            self.put(second, seed=second + 1)
        self.put(path="DCIM/IMG_0001.JPG", seed=20)
        self.put(5, seed=6, path="copy/0a1b2c3d.2026-06-21_20-19-20.jpg")
        drawings.put(self.storage.spool, b"GIF89a", "rubbish.jpg")
        drawings.put(self.storage.spool, b"", "empty.jpg")
        self.settle = 0
        self.restart()
        self.ingest()
        self.deliver(self.home)
        for second in range(16, 20):
            self.put(second, seed=second + 1)
        self.ingest()
        self.catalog.connection.checkpoint()

    def begin_again(self, damage: Callable[[Path], object], *, first: Callable[[], object] = int) -> None:
        """The daemon was killed, its catalog is damaged; it starts, finds, examines, asks and delivers.

        `first`: what it does until the check comes to an end.
        """
        files = [Path(f"{self.storage.catalog}{suffix}") for suffix in ("", "-wal")]
        left = [file.read_bytes() for file in files]
        self.catalog.connection._db.close()  # which would fold the log in, as no kill does
        for file, content in zip(files, left, strict=True):
            file.write_bytes(content)
        damage(self.storage.catalog)
        self.home.sent.clear()
        self.start_and_check(first)
        self.ingest()
        self.deliver(self.home)
        self.catalog.connection.checkpoint()

    def start_and_check(self, first: Callable[[], object] = int) -> None:
        """Start; where damage is found, in use or by the check, the daemon ends and starts again: once is enough."""
        try:
            self.start()
            first()
            if problem := integrity.check_file(self.storage.catalog):
                raise self.catalog.connection.found_damaged(problem)
        except CatalogDamaged:
            self.catalog.close()
            self.start()
            assert integrity.check_file(self.storage.catalog) is None

    def work(self) -> None:
        """A day's work on a catalog that was not checked yet; what fails is tried again, as the daemon does."""
        self.time.sleep(8 * 86400)  # the longest wait that is believed
        for step in (self.ingest, lambda: self.deliver(self.home), self.prune):
            with suppress(CatalogError, ValueError, TypeError, LookupError):
                step()
        if self.catalog.connection.damage:
            raise self.catalog.connection.damage

    def start(self) -> None:
        """As the service opens the catalog."""
        self.catalog = open_catalog(Settings(storage=self.storage), self.time)
        self.register(self.home, self.stick)

    def contents(self) -> dict[str, set[str]]:
        """What lies on the card: the digests, by the images' keys."""
        found: dict[str, set[str]] = {}
        for path in self.on_card():
            key = path if path.startswith("DCIM") else Path(path).name
            digest = hashlib.sha256((self.storage.spool / path).read_bytes()).hexdigest()
            found.setdefault(key, set()).add(digest)
        return found

    def assert_well(self, card: dict[str, set[str]], held: dict[str, str]) -> None:
        """Everything of before is where it was or safe at home, and only what was not there was sent."""
        assert self.contents() == card
        self.assert_safe(card, held)

    def assert_safe(self, card: dict[str, set[str]], held: dict[str, str]) -> None:
        """Everything of before is safe at home, what is on the card is as it was, and only what was not there was sent."""
        assert self.contents().items() <= card.items()
        assert self.home.stored.items() >= held.items()
        assert {key: {digest} for key, digest in self.home.stored.items() if key in card} == card
        assert not set(self.home.sent) & held.keys()
        assert len(self.home.sent) == len(set(self.home.sent))
        _, _, pending, quarantined, dropped = self.ledger()
        assert (pending, quarantined, dropped) == (0, 2, 0)

    def assert_reasons(self) -> None:
        """Why files are in quarantine is still known."""
        assert {row["path"]: row["reason"] for row in self.catalog.quarantine.listing()} == {
            "rubbish.jpg": "not a JPEG: it does not begin like one",
            "empty.jpg": "cut off: the file is empty",
        }
