"""Kill the real daemon at random moments, under a server that misbehaves, and see what is left.

::

    report = Torment(tmp_path, hub, front, seed=1).run(kills=75)

A camera takes pictures as fast as it may, another program lays files into the spool (whole, in two halves,
damaged), the server commits every fault that leaves an image in doubt, the camera's process and the
examiners are shot now and then, and after a second or so the daemon itself. Between two lives the owner changes
settings: whether images are pruned, whether the stick must have them, which stick it is, how the hub's address is
written, the order, how many at once. What `run` ends with are the promises: whatever was acknowledged is at the hub
once, byte for byte; it is on the card, or left it only when it was also at each place that had to have it then; what
is on the card in the end is on the stick, too; and the accounts agree. All of that is counted from outside.
"""

import hashlib
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import piexif

import daemon_process
import drawings
import promises
from fault_server import FaultServer
from hub_server import RunningHub

PUT, ASK, TOKEN = "/_put_new_images", "/get_images/metadata", "/get_token"

# NOTE: not 413: that is final until the owner says retry. And 500 to an upload only here and there: five
# times for one image while others pass is final too.
FAULTS = {
    PUT: [
        *("answer lost", "500 though stored", "no echo", "wrong digest", "wrong device", "truncated"),
        *("half JSON", "JSON as HTML", "cut before body", "cut in body", "cut after body", "redirect"),
        *("portal", "401", "403", "500", "502", "503", "507", "slow", "stall", "wrong date"),
    ],
    ASK: ["cut before body", "cut after body", "401", "503", "half JSON", "portal", "redirect", "truncated"],
    TOKEN: ["500", "portal", "401", "cut after body"],
}
STICK = """
[destinations.stick]
kind = "directory"
path = "stick"
required = true
every = "1 s"
retry_initial = "100 ms"
retry_max = "500 ms"
"""
PRUNE = """
[prune]
enabled = {enabled}
min_age = "0 s"
keep_free = "9000 GB"
"""
MARK = ".trapsync-destination"
STICKS = 3  # that the owner has


@dataclass
class Report:
    """What happened. `phases` counts, per kill, all that was half done then."""

    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    children: int = 0
    images: int = 0
    quarantined: int = 0
    faults: int = 0
    sent_again: int = 0
    pruned: int = 0
    changes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        phases = ", ".join(f"{phase} {count}" for phase, count in self.phases.most_common())
        changes = ", ".join(f"{change} {count}" for change, count in self.changes.most_common())
        return (
            f"{self.kills} kills of the daemon ({phases}), {self.children} of its children, {self.faults} faults "
            f"of the server: {self.images} images, 0 lost, 0 stored twice, 0 damaged; {self.quarantined} files "
            f"in quarantine, {self.pruned} images pruned, {self.sent_again} sent though the hub had them; "
            f"settings changed between lives: {changes}"
        )


class Stores(logging.Handler):
    """Counts what the hub stores, and what it is sent though it has it, from the hub's own log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.stored: Counter[str] = Counter()
        self.sent_again = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one line of it."""
        if record.msg.startswith("stored "):
            self.stored[str(record.args[0])] += 1  # type: ignore[index]
        elif "stored already, sent again" in record.msg:
            self.sent_again += 1

    def __enter__(self) -> "Stores":
        log = logging.getLogger("trapsync.hub.intake")
        self._level = log.level
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log = logging.getLogger("trapsync.hub.intake")
        log.removeHandler(self)
        log.setLevel(self._level)


class Torment:
    """One trap under torment."""

    def __init__(
        self, folder: Path, hub: RunningHub, front: FaultServer, *, seed: int, prune: bool = False
    ) -> None:
        self.chance = Random(seed)
        self.hub, self.front = hub, front
        self.report = Report()
        self._stores = Stores()
        self.spool, self.state, self.stick = folder / "spool", folder / "state", folder / "stick"
        self._elsewhere = folder / "elsewhere"
        # What was acknowledged: a file that stood under its final name, or that the log speaks of.
        self.acknowledged: dict[str, str] = {}
        self._bad = 0
        self._number = 0
        self._seen: set[Path] = set()
        self._read = 0
        self._prune, self._is_pruning = prune, prune
        # The stick that is in the trap is `stick`; the others lie in a drawer.
        self._drawer, self._stick, self._is_required = folder / "drawer", 0, True
        self._left: set[str] = set()  # of the acknowledged: no longer on the card
        for number in range(STICKS):
            (self._drawer / f"{number}").mkdir(parents=True)
            (self._drawer / f"{number}" / MARK).touch()
        (self._drawer / "0").rename(self.stick)
        self._elsewhere.mkdir()
        hub_table = daemon_process.deliver_to(folder, front.url, hub.user, hub.password) + 'timeout = "2 s"\n'
        hub_table += 'order = "newest"\ntransfers = 4\n'
        more = hub_table + STICK + PRUNE.format(enabled=str(prune).lower())
        self.trap = daemon_process.Daemon(folder, more, camera="simulated")
        self._rewrite(
            'stable_after = "1 s"', 'stable_after = "15 s"'
        )  # nobody writes his halves that far apart

    def _rewrite(self, old: str, new: str) -> None:
        text = self.trap.config.read_text()
        assert old in text
        self.trap.config.write_text(text.replace(old, new))

    # The torment

    def run(self, kills: int) -> Report:
        """So many lives, each ended by SIGKILL; then a last one in peace, and the promises."""
        with self._stores:
            try:
                while self.report.kills < kills:
                    self._live_and_die()
                    self._change_settings()
                self._be_as_in_the_beginning()
                self._rewrite('kind = "simulated"', 'kind = "none"')
                self.trap.start(TORMENT=str(self.state))
                self._settle()
                self._check()
            finally:
                self.front.released.set()
                self._end()
        return self.report

    def _end(self) -> None:
        for pid in self._survivors():
            os.kill(pid, signal.SIGKILL)

    def _live_and_die(self) -> None:
        self._plan_faults()
        began = time.monotonic()
        self.trap.start(TORMENT=str(self.state))
        length = self.chance.uniform(0, 0.35)
        if self.chance.random() < 0.8:  # on a machine that is busy it takes its time to start
            self._live_until_true(self._is_watching, began + 20)
            began, length = (
                time.monotonic(),
                self.chance.choice((0.1, 0.5, 1.2)) * self.chance.uniform(0.2, 1.3),
            )
        deeds: list[Callable[[], object]] = [self._put] * self.chance.randint(0, 5)
        if self.chance.random() < 0.25:
            deeds.append(self._shoot_a_child)
        if self.chance.random() < 0.1:
            deeds.append(self._go_away_for_a_moment)
        if self.chance.random() < 0.5:
            deeds.append(self._say_deliver)
        for at, deed in sorted(((self.chance.uniform(0, length), d) for d in deeds), key=lambda one: one[0]):
            self._live_until(began + at)
            deed()
        self._live_until(began + length)
        if self.chance.random() < 0.4:  # a moment of which there are few: something has just arrived
            self._say_deliver()
            self._live_until_stored(began + 2)
        self.trap.kill()
        self.report.kills += 1
        self._look_what_is_left()

    def _live_until_stored(self, latest: float) -> None:
        before = self._stores.stored.total()
        self._live_until_true(lambda: self._stores.stored.total() > before, latest)
        self._live_until(time.monotonic() + self.chance.uniform(0, 0.03))

    def _live_until_true(self, claim: Callable[[], object], latest: float) -> None:
        while not claim() and time.monotonic() < latest:
            self._live_until(time.monotonic() + 0.003)

    def _is_watching(self) -> bool:
        return "watching over" in self.trap.text()[self._read :]

    def _live_until(self, moment: float) -> None:
        try:
            code = self.trap.wait(max(0.0, moment - time.monotonic()))
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"the daemon ended by itself with {code}:\n{self.trap.text()[-4000:]}")

    def _plan_faults(self) -> None:
        for path, faults in FAULTS.items():
            likely = {PUT: 0.9, ASK: 0.4, TOKEN: 0.15}[path]
            if self.front.left(path) < 3 and self.chance.random() < likely:
                self.front.plan(path, self.chance.choice(faults))

    def _go_away_for_a_moment(self) -> None:
        with self.front.down():
            self._put()

    def _shoot_a_child(self) -> None:
        """The camera's process, or an examiner: never one of multiprocessing's own helpers."""

        def born() -> list[int]:
            return [pid for pid, words in _children(self.trap.pid).items() if "spawn_main" in words]

        self._live_until_true(born, time.monotonic() + 2)
        if pids := born():
            os.kill(self.chance.choice(pids), signal.SIGKILL)
            self.report.children += 1

    def _say_deliver(self) -> None:
        """As `trapsync deliver` does: an account that was refused is left alone for a quarter of an hour."""
        if self._is_watching():  # before that it would be the end
            self.trap.signal(signal.SIGUSR1)

    # The other program

    def _put(self) -> None:
        """Another program lays a file into the spool: renamed into it, in two halves, or damaged."""
        self._number += 1
        taken = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=self._number)
        path = self.spool / "others" / f"0a1b2c3e.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = drawings.trap(seed=self._number % 50, taken=taken)
        way = self.chance.random()
        if way < 0.1:
            path.with_name(f"bad-{self._number}.jpg").write_bytes(b"GIF89a" + content)
            self._bad += 1
        elif way < 0.3:
            with path.open("wb") as file:
                file.write(content[:3000])
                file.flush()
                self._live_until(time.monotonic() + 0.05)
                file.write(content[3000:])
        elif way < 0.6:
            path.write_bytes(content)
        else:
            (self._elsewhere / path.name).write_bytes(content)
            (self._elsewhere / path.name).rename(path)
        if way >= 0.1:
            self.acknowledged[path.name] = hashlib.md5(content).hexdigest()

    # The owner, while the daemon is dead

    def _change_settings(self) -> None:
        """Between two lives: each time one or two settings, or none."""
        changes: dict[str, Callable[[], object]] = {
            "pruned or not": lambda: self._prune_or_not(not self._is_pruning),
            "the stick required or not": lambda: self._require_stick(not self._is_required),
            "another stick": lambda: self._put_in_stick(self.chance.randrange(STICKS)),
            "the hub's address": self._write_address_otherwise,
            "the order": lambda: self._set("order", self.chance.choice(('"newest"', '"oldest"'))),
            "how many at once": lambda: self._set("transfers", str(self.chance.randint(1, 6))),
        }
        for name in self.chance.sample(sorted(changes), self.chance.choice((0, 1, 1, 2))):
            changes[name]()
            self.report.changes[name] += 1

    def _set(self, key: str, value: str) -> None:
        """Of the hub, which is the first in the file that has such a key."""
        text = self.trap.config.read_text()
        changed, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
        assert count
        self.trap.config.write_text(changed)

    def _prune_or_not(self, is_pruning: bool) -> None:
        self._is_pruning = is_pruning
        self._set("enabled", str(is_pruning).lower())

    def _require_stick(self, is_required: bool) -> None:
        self._is_required = is_required
        self._set("required", str(is_required).lower())

    def _put_in_stick(self, number: int) -> None:
        """Another folder under the same path: another place under the same name."""
        if number != self._stick:
            self.stick.rename(self._drawer / f"{self._stick}")
            (self._drawer / f"{number}").rename(self.stick)
            self._stick = number

    def _write_address_otherwise(self) -> None:
        """The same place: the same scheme, host and port."""
        host = self.front.url.removeprefix("http://")
        self._set("url", f'"{self.chance.choice((f"http://{host}", f"http://{host}/", f"HTTP://{host}"))}"')

    def _be_as_in_the_beginning(self) -> None:
        self._prune_or_not(self._prune)
        self._require_stick(True)

    # What is left after a kill

    def _look_what_is_left(self) -> None:
        new = self._new_log()
        logged = [line.split()[-1] for line in new.splitlines() if " captured " in line]
        for path in promises.images_in(self.spool) - self._seen:
            self._seen.add(path)
            if not path.name.startswith("bad-"):
                md5 = hashlib.md5(path.read_bytes()).hexdigest()
                assert self.acknowledged.setdefault(path.name, md5) == md5, f"{path} was written over"
        for name in {Path(path).name for path in logged} - set(self.acknowledged):
            # Pruned already: the hub's own digest must do, which was compared when it was sent.
            self.acknowledged[name] = self.hub.stored().get(name, "lost")
        self._account_for_what_left()
        self.report.phases.update(self._phases(new))

    def _account_for_what_left(self) -> None:
        """What left the card in this life, or is marked to, is byte for byte at each place that must have it now.

        What is marked when it is killed may go in the next life, though its owner changed the places meanwhile.
        """
        on_card = {path.name for path in promises.images_in(self.spool)} - self._marked()
        self._left -= on_card  # whose marks were taken back
        places = {"the hub": self.hub.store.images}
        if self._is_required:
            places[f"stick {self._stick}"] = self.stick
        left = self.acknowledged.keys() - on_card - self._left
        for name, folder in places.items():
            there = {path.name: path for path in promises.images_in(folder)} if left else {}
            missing = sorted(left - there.keys())
            assert not missing, (
                f"they left the card and are not at {name}: {missing}\n{self.trap.text()[-6000:]}"
            )
            for image in left:
                digest = hashlib.md5(there[image].read_bytes()).hexdigest()
                assert digest == self.acknowledged[image], f"{image} is damaged at {name}"
        self._left |= left

    def _marked(self) -> set[str]:
        """The names of the files that are to be removed as pruned."""
        catalog = self.state / "catalog.sqlite"
        if not catalog.exists():
            return set()
        with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchone():
                return set()
            return {name for (name,) in connection.execute("SELECT name FROM files WHERE leaving = 1")}

    def _kept(self) -> list[Path]:
        """What is in quarantine; beside each of them lies its reason."""
        return list((self.spool / ".quarantine").glob("*.jpg"))

    def _new_log(self) -> str:
        text = self.trap.text()[self._read :]
        self._read += len(text)
        return text

    def _phases(self, log: str) -> set[str]:
        """What was half done when it was killed. The catalog is looked at as the next start will find it."""
        phases = set() if "watching over" in log else {"starting"}
        if any(self.spool.rglob(".*.part")):
            phases.add("writing a picture")
        if any(self.stick.rglob(".*.part")):
            phases.add("copying to the stick")
        catalog = self.state / "catalog.sqlite"
        if catalog.exists():
            with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
                    assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
                    phases |= self._phases_in(connection)
        return phases or {"nothing to do"}

    def _phases_in(self, catalog: sqlite3.Connection) -> set[str]:
        known = {
            self.spool / folder / name for folder, name in catalog.execute("SELECT folder, name FROM files")
        }
        pending: dict[str, set[str]] = {"hub": set(), "stick": set()}
        for destination, path in catalog.execute(
            """SELECT destinations.name, path FROM deliveries JOIN destinations ON destinations.key = destination AND active
               JOIN images ON id = image_id WHERE deliveries.state = 'pending'"""
        ):
            pending[destination].add(Path(path).name)
        there = {
            "hub": set(self.hub.stored()),
            "stick": {path.name for path in promises.images_in(self.stick)},
        }
        (unmoved,) = catalog.execute("SELECT count(*) FROM quarantine").fetchone()
        (pruned,) = catalog.execute(
            "SELECT count(*) FROM images JOIN files ON image_id = images.id WHERE gone_why = 'pruned'"
        ).fetchone()
        claims = {
            "a file without its row": bool(promises.images_in(self.spool) - known),
            "pending, not sent": any(pending[name] - there[name] for name in pending),
            "at the hub, not marked": bool(pending["hub"] & there["hub"]),
            "on the stick, not marked": bool(pending["stick"] & there["stick"]),
            "quarantined, not moved": unmoved > len(self._kept()),
            "marked as pruned, not removed": bool(pruned),
        }
        return {phase for phase, is_so in claims.items() if is_so}

    # Peace

    def _settle(self) -> None:
        """Every fault that is still planned happens, and everything arrives."""
        while any(self.front.left(path) for path in FAULTS):
            if self.front.left(TOKEN):  # a token is fetched anew only at a start
                self.trap.kill()
                self.trap.start(TORMENT=str(self.state))
            self._put()
            self._until_delivered()
        self._until_delivered()
        if self._prune:  # which it does first thing after a start
            self.trap.kill()
            self.trap.start(TORMENT=str(self.state))
            self.trap.until(lambda _: not promises.images_in(self.spool))

    def _until_delivered(self) -> None:
        wanted = (len(self.acknowledged), self._bad)

        def is_done(facts: dict[str, Any]) -> bool:
            if facts["destinations"]["hub"]["next_attempt"]:
                self._say_deliver()
            ledger = facts["ledger"]
            return (ledger["delivered"], ledger["quarantined"]) == wanted and bool(facts["daemon"]["running"])

        self.trap.until(is_done, seconds=60)

    def _check(self) -> None:
        """The accounts, the hub's store, the stick and the card agree."""
        expected = self.acknowledged
        ledger = self.trap.status()["ledger"]
        assert ledger == {
            "captured": len(expected) + self._bad,
            "delivered": len(expected),
            "pending": 0,
            "quarantined": self._bad,
            "dropped": 0,
            "lost": 0,
        }
        assert self.trap.stop() == 0
        self._check_effort(expected)
        self._account_for_what_left()
        # 0 lost, 0 damaged: at the hub, byte for byte; what is on the card is on the stick, too.
        assert promises.hub_holds(self.hub.store, expected) == expected
        assert promises.digests_in(self.hub.store.images) == expected
        for folder in (self.stick, *self._drawer.iterdir()):
            promises.copies_are_whole(folder, expected)
        # 0 twice: nothing was stored a second time, and nothing else under the same name.
        assert set(self._stores.stored) == set(expected)
        assert max(self._stores.stored.values()) == 1
        assert not promises.images_in(self.hub.store.conflicts)
        # The card: every image is there with the same bytes, unless it was pruned.
        on_card = promises.copies_are_whole(self.spool, expected)
        assert on_card.keys() == expected.keys() - self._left
        assert on_card.items() <= promises.digests_in(self.stick).items()
        assert not (self._prune and on_card)
        assert len(self._kept()) == self._bad
        # However its address was written, the hub is one place; and the sticks are as many as there were.
        with closing(sqlite3.connect(self.state / "catalog.sqlite")) as catalog:
            places = dict(catalog.execute("SELECT name, count(*) FROM destinations GROUP BY 1"))
        assert places["hub"] == 1
        assert 1 <= places["stick"] <= STICKS
        # Every start found its catalog sound, none was put aside.
        assert not list(self.state.glob("*damaged*"))
        assert "kept as" not in self.trap.text()
        promises.catalog_is_sound(self.state / "catalog.sqlite")
        assert not any((self.spool / drawings.DEVICE).rglob(".*"))
        # No error that we did not foresee; a child whose parent was shot while it was born may say so.
        text = self.trap.text()
        assert text.count("Traceback") == text.count('(most recent call last):\n  File "<string>", line 1')
        self.front.assert_injected()
        assert not self._survivors()
        self.report.images, self.report.quarantined = len(expected), self._bad
        self.report.faults = sum(self.front.injected.values())
        self.report.sent_again = self._stores.sent_again
        self.report.pruned = len(expected) - len(on_card)

    def _check_effort(self, expected: dict[str, str]) -> None:
        """Each hour has the pictures that were taken in it, and what was due and is not there has a reason."""
        shown = self.trap.run("effort", "--by", "hour", "--json")
        rows = json.loads(shown.stdout)["rows"]
        assert all(row["expected"] - row["taken"] == sum(row["missed"].values()) for row in rows)
        taken = Counter(
            f"{path.name[9:19]}T{path.name[20:22]}:00:00Z"
            for path in promises.images_in(self.hub.store.images)
            if path.name in expected and piexif.load(str(path))["Exif"].get(piexif.ExifIFD.MakerNote)
        )
        assert {row["since"]: row["pictures"] for row in rows if row["pictures"]} == taken

    def _survivors(self) -> list[int]:
        """Processes of any of the trap's lives: they name its config, or are children that outlived it."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if f"TORMENT={self.state}".encode() in environment.split(b"\0"):
                found.append(int(path.name))
        return found


def _children(pid: int) -> dict[int, str]:
    """The child processes with their command lines."""
    found = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for number in children.read_text().split():
                found[int(number)] = Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
    return found
