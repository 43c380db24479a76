"""Every durable side effect has a name, the program is killed at each of them, and nothing comes of it."""

import ast
import hashlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import timeit
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import one_life
import trapsync
from trapsync import failpoint
from trapsync.destinations import KINDS
from trapsync.hub.database import Database
from trapsync.hub.store import Store

ROOT = Path(trapsync.__file__).parent
KILLS = 5
ASIDE = {"catalog: moved aside", "catalog: kept aside"}  # a catalog built anew does not know what was pruned
# At those of the services the program is killed by `conformance.OverHttp`, whose server outlives it.
SERVICES = set(KINDS) - {"directory", "stickypi"}
_HITS = (1, 2, 4, 3, 6)  # which hit of its name each of the kills is

# A life is forked from a server that has loaded everything already: it takes a third of a second, not two.
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["one_life"])


# ── Every side effect has a name ─────────────────────────────────────────────────────────────────────

MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
_DURABLE = {"rename", "unlink", "fsync", "fdatasync", "flush_folder", "link", "hardlink_to", "rmdir"}
_DURABLE |= {"write_bytes", "write_text", "posix_fallocate"}


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls in a function's own body; those of functions inside it are theirs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, ast.FunctionDef):
            yield from calls(child)


def is_durable(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return name in _DURABLE or ast.unparse(call.func) == "os.replace" or "COMMIT" in words


def hits(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "failpoint.hit"


# What is flushed there has no name on the card: the doctor measures how long a flush takes.
_WITHOUT_A_TRACE = {"_flushes"}


def unnamed(tree: ast.Module) -> list[str]:
    """The functions that do something durable and hit no failpoint."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    functions = [function for function in functions if function.name not in _WITHOUT_A_TRACE]
    return [f.name for f in functions if any(map(is_durable, calls(f))) and not any(map(hits, calls(f)))]


def declared() -> list[str]:
    """Every name: as it is written at a hit, and before and after each commit of the catalog."""
    names = set()
    for tree in MODULES.values():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if hits(call) and isinstance(call.args[0], ast.Constant):
                names.add(str(call.args[0].value))
            elif ast.unparse(call.func) == "self._transaction":
                (what,) = call.args
                assert isinstance(what, ast.Constant)
                assert isinstance(what.value, str)
                names |= {f"catalog: before {what.value}", f"catalog: after {what.value}"}
    return sorted(name for name in names if name.partition(":")[0] not in SERVICES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_durable_side_effect_has_a_failpoint(path: Path) -> None:
    assert unnamed(MODULES[path]) == []


def test_a_side_effect_without_a_failpoint_is_seen() -> None:
    tree = ast.parse("def f(p):\n    p.unlink()\ndef g(p):\n    failpoint.hit('x')\n    p.rename(p)\n")
    assert unnamed(tree) == ["f"]


def test_there_are_as_many_names_as_we_think() -> None:
    assert len(declared()) >= 60


# ── The device itself ────────────────────────────────────────────────────────────────────────────────


def test_a_failpoint_that_is_not_armed_costs_nothing() -> None:
    assert os.environ.get(failpoint.VARIABLE) is None
    best = min(
        timeit.repeat('hit("write: renamed")', globals={"hit": failpoint.hit}, number=10_000, repeat=5)
    )
    assert best / 10_000 < 1e-6  # 30 ns here; the rest is for a busy machine


def test_an_armed_failpoint_kills_at_the_hit_that_was_ordered() -> None:
    code = "from trapsync import failpoint as f; f.hit('b'); f.hit('a'); print('1', flush=True); f.hit('a'); print('2')"
    environment = os.environ | {failpoint.VARIABLE: "a#2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n")


# ── Killed at every one of them ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trap and a hub on which nothing has happened yet."""
    folder = tmp_path_factory.mktemp("template") / "trap"
    one_life.prepare(folder)
    return folder


def live(folder: Path, number: int, order: str) -> int:
    """Live once more in a process of its own; its exit code, negative for a signal."""
    process = _forks.Process(target=one_life.live, args=(folder, number, order))
    process.start()
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", declared())
def test_killed_there_five_times_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, template: Path, name: str
) -> None:
    folder = tmp_path / "trap"
    shutil.copytree(template, folder)
    kills, is_rare = 0, False
    for number, nth in enumerate(_HITS):
        one_life.feed(folder, number, name)
        code = live(folder, number, f"{name}#{1 if is_rare else nth}")
        if code == 0:  # it is not hit so often in a life
            is_rare = True
            one_life.feed(folder, 10 + number, name)
            code = live(folder, 10 + number, f"{name}#1")
        assert code == -signal.SIGKILL, f"life {number} never came to {name!r}"
        kills += 1
    assert kills == KILLS

    assert live(folder, 20, "") == 0
    assert live(folder, 21, "") == 0  # the next day: what was put back is examined and pruned by now
    check(folder, name)


def check(folder: Path, name: str) -> None:
    """The promises, on everything that was acknowledged."""
    expected = one_life.acknowledged(folder)
    assert len(expected) >= 6 * KILLS

    # At the hub and on the stick: each image once, whole, under its name; and what the rows say is true.
    store = Store(folder / "hub", Database(folder / "hub" / "hub.sqlite"))
    rows = [row for row in store.series("%", "0000", "9999") if row["device"] != one_life.STRANGER]
    at_hub = {store.path(row).name: row["md5"] for row in rows}
    assert len(at_hub) == len(rows)
    assert at_hub.items() >= expected.items()
    assert {store.path(row).name: digest(store.path(row)) for row in rows} == at_hub
    on_stick = {path.name: digest(path) for path in (folder / "stick").rglob("*.jpg")}
    assert on_stick == at_hub
    if name != "hub: set aside":
        assert not list((folder / "hub" / "conflicts").rglob("*.jpg"))

    # The account: nothing owed, nothing dropped; quarantine's rows and files are the same ones.
    with closing(sqlite3.connect(folder / "state" / "catalog.sqlite")) as catalog:
        assert catalog.execute("PRAGMA quick_check").fetchone() == ("ok",)
        states = dict(catalog.execute("SELECT state, count(*) FROM images GROUP BY 1"))
        kept_as = {row[0] for row in catalog.execute("SELECT kept_as FROM quarantine")}
        left = catalog.execute("SELECT count(*) FROM images JOIN files ON image_id = images.id").fetchone()
    assert set(states) == {"delivered"}
    assert name in ASIDE or states == {"delivered": len(at_hub)}
    kept = {path.name for path in (folder / "spool" / ".quarantine").iterdir() if path.suffix == ".jpg"}
    assert kept == kept_as
    assert len(kept) % 3 == 0

    # The card: all of it was pruned, and there is no litter.
    assert left == (0,)
    for place in ("spool", "stick", "hub"):
        assert not list((folder / place).rglob(".*.part")), place
    assert not [path for path in (folder / "spool").rglob("*.jpg") if ".quarantine" not in path.parts]
    assert not list((folder / "hub" / "images" / ".incoming").iterdir())


def digest(path: Path) -> str:
    """Its md5, read from where it lies."""
    return hashlib.md5(path.read_bytes()).hexdigest()
