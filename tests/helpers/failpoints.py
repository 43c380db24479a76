"""The failpoints of the program, and lives of a trap that are killed at them.

::

    victim = Victim(folder)
    victim.kill_at("write: renamed", 2)
    victim.live_in_peace()
    victim.check()
"""

import ast
import json
import multiprocessing
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import every_step
import promises
import reported
import trapsync
from side_effects import hits
from trapsync.destinations.kinds import BUILT_IN
from trapsync.hub.database import Database
from trapsync.hub.store import Store

ROOT = Path(trapsync.__file__).parent
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
# A catalog built anew does not know what was pruned.
ASIDE = {
    *("catalog: moved aside", "catalog: kept aside"),
    *("catalog: marked as damaged", "catalog: mark of damage removed"),
}
CONFLICT = "hub: set aside"  # which happens to an image that finds its name taken at the hub
# At those of the services the program is killed by `conformance.OverHttp`, whose server outlives it; at the others by
# `test_join.py`, `test_camtrap_dp.py`, `test_hub_alert_lives.py` and `test_hub_backup.py`.
SERVICES = set(BUILT_IN) - {"directory", "stickypi"} | {"join", "camtrap-dp", "alerts", "backup"}
HITS = (1, 2, 4, 3, 6)  # which hit of its name each of five kills is

# A life is forked from a server that has loaded everything already: it takes a third of a second, not two.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["every_step"])


def declared() -> list[str]:
    """Every name: as it is written at a hit, and before and after each commit of the catalog."""
    names = set()
    for tree in MODULES.values():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if hits(call) and isinstance(call.args[0], ast.Constant):
                names.add(str(call.args[0].value))
            elif isinstance(call.func, ast.Attribute) and call.func.attr == "transaction":
                (what,) = call.args
                assert isinstance(what, ast.Constant)
                assert isinstance(what.value, str)
                names |= {f"catalog: before {what.value}", f"catalog: after {what.value}"}
    return sorted(name for name in names if name.partition(":")[0] not in SERVICES)


def together(most: int) -> list[list[str]]:
    """The names, so many for one trap; those that need a special trap by themselves."""
    special = {*ASIDE, CONFLICT}
    names = [name for name in declared() if name not in special]
    groups = [names[at : at + most] for at in range(0, len(names), most)]
    alone = sorted(special)
    return groups + [alone[at : at + most] for at in range(0, len(alone), most)]


class Victim:
    """A trap and a hub, killed in one life after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._catalog = folder / "state" / "catalog.sqlite"
        self.kills = 0
        self._lives = 0
        self._names: set[str] = set()
        every_step.prepare(folder)
        every_step.feed(folder, self._lives, "")
        assert self._live("") == 0
        # How often each was hit in that life: to live to the end in vain takes the longest of all.
        self._hits: dict[str, int] = json.loads((folder / "hits").read_text())

    def kill_at(self, name: str, nth: int) -> None:
        """Kill it at the n-th hit of a failpoint; at the first if it is not hit so often in a life."""
        self._names.add(name)
        code = self._live_again(name, nth if nth <= self._hits.get(name, 1) else 1)
        for _ in range(
            2
        ):  # some are hit in every other life only: what a life has sealed, the next one need not
            if code == 0:
                code = self._live_again(name, 1)
        assert code == -signal.SIGKILL, f"life {self._lives} never came to {name!r}: it ended with {code}"
        self.kills += 1

    def _live_again(self, name: str, nth: int) -> int:
        every_step.feed(self.folder, self._lives, name)
        return self._live(f"{name}#{nth}")

    def live_in_peace(self) -> None:
        """Two lives more: what was put back in the first is examined and pruned in the second."""
        for _ in range(2):
            assert self._live("") == 0

    def _live(self, order: str) -> int:
        """Live once more in a process of its own; its exit code, negative for a signal."""
        process = _forks.Process(target=every_step.live, args=(self.folder, self._lives, order))
        process.start()
        process.join(60)
        assert process.exitcode is not None, "it hangs"
        self._lives += 1
        return process.exitcode

    def check(self) -> None:
        """The promises, on everything that was acknowledged."""
        expected = every_step.acknowledged(self.folder)
        assert len(expected) >= 6 * self.kills
        at_hub = self._check_places(expected)
        self._check_account(at_hub)
        self._check_reports()
        self._check_card()

    def _check_places(self, expected: dict[str, str]) -> dict[str, str]:
        """At the hub and on the stick: each image once, whole, under its name; and what the rows say is true."""
        folder = self.folder
        store = Store(folder / "hub", Database(folder / "hub" / "hub.sqlite"))
        at_hub = promises.hub_holds(store, expected, but=[every_step.STRANGER])
        assert promises.copies_are_whole(folder / "stick", at_hub) == at_hub
        if CONFLICT not in self._names:
            assert not list((folder / "hub" / "conflicts").rglob("*.jpg"))
        return at_hub

    def _check_account(self, at_hub: dict[str, str]) -> None:
        """Nothing pending, nothing dropped; quarantine's rows and files are the same ones."""
        promises.catalog_is_sound(self._catalog)
        with closing(sqlite3.connect(self._catalog)) as catalog:
            states = dict(catalog.execute("SELECT state, count(*) FROM images GROUP BY 1"))
            kept_as = {row[0] for row in catalog.execute("SELECT kept_as FROM quarantine")}
            left = catalog.execute(
                "SELECT count(*) FROM images JOIN files ON image_id = images.id"
            ).fetchone()
        assert set(states) == {"delivered"}
        assert self._names & ASIDE or states == {"delivered": len(at_hub)}
        kept = {path.name for path in (self.folder / "spool" / ".quarantine").iterdir()}
        kept = {name for name in kept if name.endswith(".jpg")}
        assert kept == kept_as
        assert len(kept) % 3 == 0
        assert left == (0,)  # all of it was pruned

    def _check_reports(self) -> None:
        """The hub has the night of each life once, as it was last told, and the trap knows that."""
        database = Database(self.folder / "hub" / "hub.sqlite")
        nights = [reported.night(number, taken=4) for number in range(self._lives - 1)]
        nights.append(reported.night(self._lives - 1, taken=3))
        expected = {one["night"]: reported.line(one).sha256 for one in nights}
        with database.reading() as hub, closing(sqlite3.connect(self._catalog)) as catalog:
            at_hub = dict(map(tuple, hub.execute("SELECT key, sha256 FROM reports")))
            assert at_hub == expected == dict(catalog.execute("SELECT key, sha256 FROM reports"))

    def _check_card(self) -> None:
        """Nothing is left but what is in quarantine, and there is no litter anywhere."""
        promises.nothing_is_left_over(*(self.folder / place for place in ("spool", "stick", "hub")))
        spool = self.folder / "spool"
        assert promises.images_in(spool) == set()
        assert not list((self.folder / "hub" / "images" / ".incoming").iterdir())
