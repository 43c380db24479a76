"""A trap in a hostile world: a real daemon, a real hub behind odd answers, a stick, and oddities among good pictures.

::

    with hostile_world.running(tmp_path, seed=1) as world:
        world.run(5)                      # five worlds, of fifty oddities each, one after another
        print(world)

All is drawn from the seed. What must hold is looked at from outside, in files, the hub's own store, `status --json` and the
log: nothing dies, every good picture arrives byte for byte at both places and stays where it lies, and the verdict is never
*ok* while something good cannot be taken in or delivered. A failure says the seed, the world, and what was odd.
"""

import hashlib
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import requests

import daemon_process
import drawings
import hub_server
import odd_answers
import odd_copies
import odd_entries
import signed
import without_root
from daemon_process import Daemon
from fault_server import FaultServer
from hostile_account import LIMIT, Account, digest, is_not_ok, seen
from hub_server import RunningHub
from odd_answers import Between
from odd_copies import Oddities
from odd_entries import Made
from trapsync import cli

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # where flushes cost nothing
ODDITIES = 50  # of one world
GOOD = 8  # good pictures of the trap in one world, besides
_TELLING = LIMIT / 2

_HUB = """
[hub]
url = "{url}"
username = "{user}"
password_file = "password"
every = "1 s"
"""
_OTHER = "beef{:04x}"  # devices of other traps


class _Hostile(Daemon):
    """A daemon that is no root: a mode of 000 holds for it as for anybody else."""

    program = (*without_root.PREFIX, "-m", "trapsync")


class World(Account):
    """One trap, its hub and its stick, and what is known of every picture that was ever laid into its spool."""

    def __init__(
        self, folder: Path, hub: RunningHub, front: FaultServer, between: Between, seed: int
    ) -> None:
        more = daemon_process.deliver_to(folder, front.url, hub.user, hub.password)
        more += daemon_process.STICK + _HUB.format(url=front.url, user=hub.user) + signed.TRUSTING
        daemon = _Hostile(folder, more, camera="simulated" if seed % 2 else "none")
        content = daemon.config.read_text().replace('rescan_every = "5 s"', 'rescan_every = "1 s"')
        daemon.config.write_text(content.replace('every = "1 s"\n[ingest]', 'every = "5 s"\n[ingest]'))
        super().__init__(daemon, hub, folder / "stick")
        self.seed, self.front, self.between = seed, front, between
        self.outside = folder / "outside"
        for one in (daemon.spool, self.stick, self.outside):
            one.mkdir(parents=True)
        (self.stick / ".trapsync-destination").touch()
        self.chance = random.Random(seed)
        self.entries = Oddities(self.chance, daemon.spool, self.stick, self.outside)
        self.world = 0
        self.settled: list[str] = []  # names of pictures that were delivered in an earlier world
        self.oddities: list[str] = []
        self.counted = Counter[str]()
        self._pictures = 0
        self._traps = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counted.items()))
        return f"seed {self.seed}: {self.world} worlds, {len(self.good)} good pictures, {kinds}"

    # One world after another

    def run(self, worlds: int) -> None:
        """Live through so many worlds."""
        for _ in range(worlds):
            self.world += 1
            self.oddities = []
            self.between.clear()
            try:
                self.live()
            except Exception as error:
                error.add_note(self.story())
                raise

    def story(self) -> str:
        """How to see a failure again, and what was odd in this world."""
        log = self.daemon.log.read_text(errors="replace").splitlines() if self.daemon.log.exists() else []
        return "\n".join(
            (
                f"seed {self.seed}, world {self.world}: scripts/torture --world {self.world} --seed {self.seed}",
                *(f"  {number}. {what}" for number, what in enumerate(self.oddities, 1)),
                "the log ends:",
                *(f"  {line[:300]}" for line in log[-25:]),
            )
        )

    def live(self) -> None:
        """One world: oddities among good pictures, then all that is good arrives, and all else is told."""
        makers: list[Callable[[], object]] = [self.lay_good] * GOOD
        for maker, count in ((self.spool_entry, 27), (self.stick_entry, 7), (self.answer, 8)):
            makers += [maker] * count
        makers += [self.keeping] * 2 + [self.refused] + [self.document] * 2 + [self.heartbeat] * 3
        assert len(makers) == ODDITIES + GOOD
        self.chance.shuffle(makers)
        for make in makers:
            make()
            self.alive()
        self.until(self.missing, LIMIT, "does not arrive")
        self.settled = [*self.at_hub.values()]
        self.until(self.untold, _TELLING, "is not told")
        self.until(self.unmoved, LIMIT, "is not in quarantine")
        for made in self.kept:
            if made.later:
                made.later()
        self.until(self.untold, _TELLING, "is not told")
        self.untouched()
        self.quiet()
        self.free()

    def alone(self) -> None:
        """A trap that is *ok*, then one thing that keeps a good picture from being delivered: it is *ok* no more."""
        self.lay_good()
        self.until(self.missing, LIMIT, "does not arrive")
        self.until(_not_ok, LIMIT, "keeps it from being ok")
        kinds = [*(name for name, _ in odd_copies.KEEPING), "refused", "spool_mark", "stick_mark"]
        kind = kinds[self.seed % len(kinds)]
        if hasattr(self.entries, kind):
            self._note(getattr(self.entries, kind)())
        else:
            getattr(self, kind)()
        self.until(self.untold, _TELLING, "is not told")
        for made in self.kept:
            if made.later:
                made.later()
                self.lay_good()
        self.until(self.untold, _TELLING, "is not told")
        self.free()
        self.until(self.missing, LIMIT, "does not arrive")
        self.untouched()
        self.quiet()

    def end(self) -> None:
        """What was kept from being delivered arrives too, and the program ends in order."""
        try:
            self.until(self.missing, LIMIT, "does not arrive in the end")
            self.quiet()
            for words in (
                "status",
                "images",
                "images --json",
                "images --refused",
                "images --conflicts",
                "quarantine",
            ):
                self.command(*words.split())
            self.fleet()
            assert self.daemon.stop() == 0
            self.quiet()
        except Exception as error:
            error.add_note(self.story())
            raise

    # What is odd, and what is good

    def lay_good(self) -> None:
        """A picture of the trap, as it takes them."""
        self._pictures += 1
        taken = drawings.TAKEN + timedelta(seconds=self._pictures)
        content = drawings.trap(seed=self._pictures % 5 + 1, taken=taken)
        name = f"{drawings.DEVICE}.{taken:%Y-%m-%d_%H-%M-%S}.jpg"
        self.at_hub[hashlib.md5(content).hexdigest()] = name
        self.good[digest(content)] = drawings.put(
            self.daemon.spool, content, f"{drawings.DEVICE}/2026-06-21/{name}"
        )

    def spool_entry(self) -> None:
        """Something in the spool."""
        if self.world > 1 and self.chance.random() < 0.03:
            self.twin()
        else:
            self._note(self._one_of(odd_copies.SPOOL))

    def stick_entry(self) -> None:
        """Something on the stick."""
        self._note(self._one_of(odd_copies.STICK))

    def keeping(self) -> None:
        """Something that keeps a good picture from being taken in, or delivered."""
        self._note(self._one_of(odd_copies.KEEPING))

    def twin(self) -> None:
        """Another picture under the name of one that was delivered: both are kept, and one is at the hub."""
        name = self.chance.choice(self.settled)
        content = drawings.trap(seed=self.chance.randint(1, 5), taken=drawings.TAKEN) + b"%d" % len(self.good)
        spelled = self.chance.choice((name, name.upper(), name.replace(".jpg", ".jpeg")))
        path = drawings.put(self.daemon.spool, content, f"copies{len(self.good)}/{spelled}")
        self._note(Made(f"another picture of one name: {path}", good=[content]))
        self.counted["twin"] += 1

    def refused(self) -> None:
        """A good picture that the server declines, for now."""
        self.lay_good()
        md5, name = self.at_hub.popitem()
        self.between.refuses.add(name)
        self.counted["refused"] += 1

        def undo() -> None:
            self.between.refuses.discard(name)
            self.at_hub[md5] = name

        shown = odd_entries.at("hub")
        self._note(Made(f"a picture that the hub declines: {name}", kept=[b""], shown=shown, undo=undo))

    def spool_mark(self) -> None:
        """The spool is another one than last time."""
        mark = self.daemon.spool / ".trapsync-spool"
        before = mark.read_bytes()
        other = before.replace(before[-10:-2], b"01234567")
        self._mark(mark, {"another": lambda: mark.write_bytes(other)})

    def stick_mark(self) -> None:
        """The stick is none. With another mark it would be another stick, that has all copies: nothing to tell of."""
        self._mark(self.stick / ".trapsync-destination", {})

    def _mark(self, mark: Path, more: dict[str, Callable[[], object]]) -> None:
        before = mark.read_bytes()
        mark.unlink()
        makers: dict[str, Callable[[], object]] = {
            "a folder": mark.mkdir,
            "a link": lambda: mark.symlink_to("nowhere"),
            "nothing": lambda: None,
            "a pipe": lambda: os.mkfifo(mark),
            **more,
        }
        what = odd_entries.one_of(self.chance, makers)

        def undo() -> None:
            if mark.is_dir() and not mark.is_symlink():
                mark.rmdir()
            else:
                mark.unlink(missing_ok=True)
            mark.write_bytes(before)

        self._note(Made(f"{what} in the place of {mark}", kept=[b""], shown=is_not_ok, undo=undo))
        self.lay_good()

    def _one_of(self, kinds: tuple[tuple[str, int], ...]) -> Made:
        kind = self.chance.choices([name for name, _ in kinds], [weight for _, weight in kinds])[0]
        self.counted[kind.replace("_", " ")] += 1
        made: Made = getattr(self.entries, kind)()
        return made

    def _note(self, made: Made) -> None:
        self.oddities.append(made.what)
        self.good |= {digest(one): made.what for one in made.good}
        self.broken |= {digest(one): made.what for one in made.broken}
        self.left_alone += made.left_alone
        self.nobodys |= {digest(one): made.what for one in made.nobodys}
        for path in made.aside:
            self.aside[path] = seen(path)
        if made.shown:
            self.kept.append(made)

    def answer(self) -> None:
        """Something that the server says."""
        chance = self.chance
        # Of two in a row, the second would be a login that is rejected.
        if chance.random() < 0.1 and not self.between.is_planned("/get_token"):
            what, one = odd_answers.token(chance)
            self.between.plan("/get_images", odd_answers.no_longer)
            self.between.plan("/get_token", one)
        else:
            what, one = odd_answers.change(chance)
            path = chance.choice(
                ("/get_images", "/get_images", "/_put_new_images", "/_put_new_images", "/heartbeats")
            )
            self.between.plan(path, one)
            what = f"{path}: {what}"
        self.oddities.append(what)
        self.counted["answer"] += 1

    def document(self) -> None:
        """A document for the trap that it must not accept."""
        data = odd_answers.odd_document(self.chance)
        self.oddities.append(f"a document: {data[:200]!r}")
        self.counted["document"] += 1
        slot = f"device-{drawings.DEVICE}.{self.chance.choice(('settings', 'resend'))}"
        if self.chance.random() < 0.5:
            self.between.plan("/pushed", odd_answers.document_instead(data))
        else:
            with suppress(Exception):  # that the hub itself takes no such document is well
                self.hub.hub.fleet.put(slot, data, "owner")

    def heartbeat(self) -> None:
        """A heartbeat of another trap: the hub takes it or refuses it, and does not fail."""
        self._traps += 1
        device = _OTHER.format(self._traps % 40)
        beat = odd_answers.heartbeat(self.chance, device)
        self.oddities.append(f"a heartbeat: {beat[:300]!r}")
        self.counted["heartbeat"] += 1
        answer = requests.post(f"{self.hub.url}/heartbeats/{device}", beat, auth=self.hub.auth(), timeout=30)
        assert answer.status_code in {200, 400, 413}, (answer.status_code, answer.text, beat)
        if answer.status_code == 200:
            assert odd_answers.is_sensible(self.hub.hub.fleet.history(device)[0]["heartbeat"]), beat

    def free(self) -> None:
        """Take away what kept good pictures from being delivered: from now on they must arrive."""
        freed, self.kept = self.kept, []
        for made in freed:
            assert made.undo
            made.undo()
            self.good |= {digest(one): made.what for one in made.kept if one}
        if freed:  # what failed again and again was refused, until somebody says this
            self.command("retry")

    def command(self, *words: str) -> str:
        """Run a command, in this process, for it takes half a second to start: it prints lines of printable characters."""
        with redirect_stdout(StringIO()) as printed, redirect_stderr(printed):
            cli.cli.main(["-c", str(self.daemon.config), *words], standalone_mode=False)
        said = printed.getvalue()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", said), (words, said)
        return said

    def fleet(self) -> None:
        """The operator's command goes on, whatever traps have sent."""
        owner = self.daemon.folder / "owner.toml"
        (self.daemon.folder / "owner").write_text(hub_server.PASSWORD)
        (self.daemon.folder / "owner").chmod(0o600)
        self.hub.auth("owner")
        owner.write_text(f'hub = "{self.hub.url}"\nusername = "owner"\npassword_file = "owner"\n')
        os.environ["TRAPSYNC_OWNER"] = str(owner)
        try:
            assert drawings.DEVICE in self.command("fleet")
            what, one = odd_answers.change(self.chance)
            self.oddities.append(f"/fleet: {what}")
            self.between.plan("/fleet", one)
            owner.write_text(owner.read_text().replace(self.hub.url, self.front.url))
            self.command("fleet")
        finally:
            del os.environ["TRAPSYNC_OWNER"]


def _not_ok(facts: dict[str, Any]) -> list[str]:
    return [] if facts["verdict"] == "ok" else facts["reasons"]


@contextmanager
def running(folder: Path, seed: int) -> Iterator[World]:
    """A world that lives until the block ends; its last good pictures arrive before."""
    with hub_server.running(folder / "hub") as hub:
        between = Between(hub.url)
        with FaultServer(between) as front:
            world = World(folder / "trap", hub, front, between, seed)
            world.daemon.start()
            try:
                world.daemon.until_log("watching over", LIMIT)
                yield world
                world.end()
            finally:
                world.free()
                if world.daemon.poll() is None:
                    world.daemon.kill()
                shutil.rmtree(folder / "trap", ignore_errors=True)
