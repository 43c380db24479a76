"""What must hold in a hostile world, looked at from outside: in files, the hub's own store, the status and the log."""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import drawings
from daemon_process import Daemon
from hub_server import RunningHub
from odd_entries import Made

_POLL = 0.4  # seconds
# Seconds until all that is good is where it belongs, and all else is told: on a machine with much other work, too.
LIMIT = float(os.environ.get("HOSTILE_LIMIT", "120"))
_LINE = re.compile(r"\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL) +\S")
_LOUD = (
    "Traceback",
    "failed unexpectedly",
    "CRITICAL",
    "cannot be ingested",
    "cannot be recorded",
    "failed: see",
    "a bug",
)


class Account:
    """What is known of every picture that was ever laid into the spool of a trap, held against what is there."""

    def __init__(self, daemon: Daemon, hub: RunningHub, stick: Path) -> None:
        self.daemon, self.hub, self.stick = daemon, hub, stick
        self.good: dict[str, str] = {}  # digest -> where it was laid
        self.at_hub: dict[str, str] = {}  # md5 -> name, of those that belong to the hub too
        self.broken: dict[str, str] = {}
        self.kept: list[Made] = []  # what keeps something good from being taken in or delivered, now
        self.aside: dict[Path, tuple[int, str]] = {}  # what is of others, and how it was
        self._digests: dict[tuple[str, str, int, int, int], str] = {}
        self.nobodys: dict[str, str] = {}  # what must not be delivered
        self.left_alone = 0  # entries of the spool that are to be counted as left alone
        self._since: dict[str, float] = {}  # when a picture was first seen undelivered
        self._read = 0

    def alive(self) -> None:
        """The same process as at the start."""
        assert self.daemon.poll() is None, "the daemon ended"

    def until(self, wrong: Callable[[dict[str, Any]], list[str]], seconds: float, what: str) -> None:
        """Wait until nothing is wrong any more."""
        deadline = time.monotonic() + seconds
        while True:
            self.alive()
            facts = self.daemon.status()
            left = wrong(facts)
            if not left:
                return
            assert time.monotonic() < deadline, f"{len(left)} times: {what}: {left[:5]}\n{_short(facts)}"
            time.sleep(_POLL)  # another process is to come so far

    def missing(self, _facts: dict[str, Any]) -> list[str]:
        """What is good and not yet at the stick, or at the hub."""
        there = set(self._digests_in(self.stick).values())
        left = [f"at the stick: {where}" for digest, where in self.good.items() if digest not in there]
        rows = self.hub.rows()
        held = {row["md5"] for row in rows if self._md5(self.hub.store.path(row)) == row["md5"]}
        assert len(held) == len(rows), "the hub has an image twice, or other bytes than it says"
        return left + [f"at the hub: {name}" for md5, name in self.at_hub.items() if md5 not in held]

    def untold(self, facts: dict[str, Any]) -> list[str]:
        """What is good, is not delivered, and of which nothing is said."""
        left = [made.what for made in self.kept if made.shown and not made.shown(facts)]
        # Beyond what was put there: whatever lies in the spool as a picture is delivered, or there is a word of it.
        there = set(self._digests_in(self.stick).values())
        kept = {digest(one) for made in self.kept for one in made.kept}
        is_stopped = any(made.shown is is_not_ok for made in self.kept)  # nothing is delivered for now
        lying = {} if is_stopped else self._digests_in(self.daemon.spool)
        for path, one in lying.items():
            if one not in there | kept and self._is_late(path):
                left.append(f"nothing is said of {path!r}")
        told = {one["kind"]: one["count"] for one in facts["not_taken_in"]}
        if not is_stopped and told.get("left_alone", 0) < self.left_alone:
            left.append(
                f"{told.get('left_alone', 0)} entries are told to be left alone, and not {self.left_alone}"
            )
        left += [
            f"told as {kind}, which nothing here is" for kind in told.keys() - {"unreadable", "left_alone"}
        ]
        if self.kept and not left:
            assert facts["verdict"] != "ok", (
                f"the verdict is ok, and this is kept: {[m.what for m in self.kept]}"
            )
            assert facts["reasons"]
        ledger = facts["ledger"]
        parts = sum(ledger[key] for key in ("delivered", "pending", "quarantined", "dropped"))
        assert ledger["captured"] == parts + ledger["lost"], ledger
        return left

    def _is_late(self, path: str) -> bool:
        """Whether a picture should be delivered by now. The camera takes one at any moment."""
        since = self._since.setdefault(path, time.monotonic())
        return not self._is_of_camera(path) or time.monotonic() - since > LIMIT

    def _is_of_camera(self, path: str) -> bool:
        return path.startswith(f"{self.daemon.spool / drawings.DEVICE}/") and "/2026-06-21/" not in path

    def unmoved(self, _facts: dict[str, Any]) -> list[str]:
        """What is broken and still in the spool."""
        lying = self._digests_in(self.daemon.spool)
        return [path for path, digest in lying.items() if digest in self.broken and digest not in self.good]

    def untouched(self) -> None:
        """Nothing good was removed or put into quarantine, and what is of others is as it was."""
        quarantine = self.daemon.spool / ".quarantine"
        aside = set()
        for path in quarantine.iterdir() if quarantine.is_dir() else ():
            if (
                stat.S_ISREG(path.lstat().st_mode)
                and not path.name.endswith(".reason")
                and path.stat().st_size < 10**8
            ):
                aside.add(digest(path.read_bytes()))
        kept = {digest(one): made.what for made in self.kept for one in made.kept}
        wrong = [where for digest, where in (self.good | kept).items() if digest in aside]
        assert not wrong, f"in quarantine, and not broken: {wrong}"
        lying = set(self._digests_in(self.daemon.spool).values())
        gone = [where for digest, where in self.good.items() if digest not in lying]
        assert not gone, f"removed from the spool: {gone}"
        copies = [path for path in self.stick.rglob("x.jpg") if stat.S_ISREG(path.lstat().st_mode)]
        there = {digest(path.read_bytes()) for path in copies}
        sent = [where for one, where in self.nobodys.items() if one in there]
        assert not sent, f"delivered, and to be left alone: {sent}"
        changed = [str(path) for path, before in self.aside.items() if seen(path) != before]
        assert not changed, f"changed, and of others: {changed}"

    def quiet(self) -> None:
        """The log has one line for each record, and no bug in it."""
        text = self.daemon.log.read_bytes()[self._read :].decode("utf-8", "strict")
        whole = text.rpartition("\n")[0]
        self._read += len(whole.encode())
        for line in filter(None, whole.split("\n")):
            assert _LINE.match(line), f"no record of the log: {line[:500]!r}"
            assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line), (
                f"an odd line: {line[:500]!r}"
            )
            assert not any(loud in line for loud in _LOUD), f"a bug: {line[:3000]}"
        bug = self.daemon.status().get("bug")
        assert not bug, bug

    # Reading files

    def _digests_in(self, folder: Path) -> dict[str, str]:
        """Path to digest of each file that is an image by its name and place, as far as one gets."""
        found = {}
        for where, folders, names in os.walk(folder):
            folders[:] = [
                name for name in folders if not name.startswith(".") and name.lower() not in _OTHERS
            ]
            if folder == self.daemon.spool and os.path.lexists(Path(where) / ".trapsync-destination"):
                folders[:] = []
                continue
            for name in names:
                path = f"{where}/{name}"
                if name.startswith(".") or not name.lower().endswith((".jpg", ".jpeg")):
                    continue
                with suppress(OSError):  # gone meanwhile
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_size < 10**8:
                        found[path] = self._digest_of(path, status)
        return found

    def _md5(self, path: Path) -> str:
        return self._digest_of(str(path), path.stat(), "md5")

    def _digest_of(self, path: str, status: os.stat_result, how: str = "sha256") -> str:
        key = (how, path, status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in self._digests:
            self._digests[key] = hashlib.new(how, Path(path).read_bytes()).hexdigest()
        return self._digests[key]


_OTHERS = {"@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information", "__macosx"}


def is_not_ok(facts: dict[str, Any]) -> bool:
    return bool(facts["verdict"] != "ok")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seen(path: Path) -> tuple[int, str]:
    """What lies there: its mode, and its content or where it leads to."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return mode, str(path.readlink())
        return mode, digest(path.read_bytes()) if stat.S_ISREG(mode) else ""
    return 0, "gone"


def _short(facts: dict[str, Any]) -> str:
    keys = ("verdict", "reasons", "ledger", "not_taken_in", "destinations")
    return "\n".join(f"{key}: {str(facts[key])[:1500]}" for key in keys)
