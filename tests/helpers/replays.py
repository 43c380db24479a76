"""Any order of documents, clocks, keys, starts and damage: nothing old is accepted, and a trusted key is heard in the end.

What is a replay is counted here, from outside, by what the trap answered. For `tests/unit/test_replay_guard.py`, and
`scripts/torture --attacks`, where there are more of them.
"""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import signed
from fake_time import FakeTime
from signed import ISSUED, OWNER, STRANGER
from trapsync.clock import utc
from trapsync.remote.document import PrivateKey
from trapsync.remote.in_force import load, report
from trapsync.remote.remote_settings import RemoteSettings
from trapsync.settings.layers import Files

KEYS = [OWNER, STRANGER]
FILES = ["remote_settings.json", "replay_guard.json"]


@dataclass(frozen=True)
class Signed:
    """A document that the operator has signed."""

    key: PrivateKey
    kind: str
    number: int
    issued: float
    data: bytes


class ReplayedTrap(RuleBasedStateMachine):
    """One trap with two keys, its operator, and whoever holds the hub, the clock and the card."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="trapsync-replay-"))
        self.true = ISSUED.timestamp()
        self.time = FakeTime(self.true)
        self.numbers = [0, 0]
        self.documents: list[Signed] = []
        self.had: dict[tuple[int, str], Signed] = {}  # accepted last, by key and kind
        self.last: Signed | None = None  # of the settings
        self.trusted = [0, 1]
        self.revoked: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "trap"):
            self.heard_in_the_end()
        shutil.rmtree(self.folder)

    @initialize()
    def first_start(self) -> None:
        self.start()

    @rule()
    def start(self) -> None:
        keys = ", ".join(f'"{KEYS[one].public}"' for one in self.trusted)
        table = f'[remote]\nenabled = true\nkeys = [{keys}]\ngroups = ["valley"]\n'
        self.trap = RemoteSettings(Files(signed.prepare(self.folder, pushed=table)), self.time)
        self.trap.begin()

    @rule(seconds=st.sampled_from([1.0, 3600.0, 86400.0 * 5, 86400.0 * 80]))
    def time_passes(self, seconds: float) -> None:
        self.true += seconds
        self.time.sleep(seconds)

    @rule(years=st.floats(-40, 80), is_trusted=st.booleans())
    def the_clock_lies(self, years: float, is_trusted: bool) -> None:
        self.time.step_wall(self.true + years * 365.25 * 86400 - self.time.wall())
        self.time.is_trusted = is_trusted

    @rule(is_trusted=st.booleans())
    def the_clock_is_right(self, is_trusted: bool) -> None:
        self.time.step_wall(self.true - self.time.wall())
        self.time.is_trusted = is_trusted

    @rule()
    def the_daemon_looks_at_the_clock(self) -> None:
        self.trap.note_time()

    @rule(
        key=st.integers(0, 1),
        kind=st.sampled_from(["settings", "resend", "keys"]),
        skipped=st.sampled_from([0, 0, 0, 9, 1000]),
    )
    def the_operator_signs(self, key: int, kind: str, skipped: int) -> None:
        self.documents.append(self.signed(key, kind, skipped))

    def signed(self, key: int, kind: str, skipped: int = 0) -> Signed:
        self.true += 1.0
        self.time.sleep(1.0)
        self.numbers[key] += 1 + skipped
        number, issued = self.numbers[key], utc(self.true).replace(microsecond=0)
        times: dict[str, Any] = {"issued": issued, "expires": issued + timedelta(days=90)}
        if kind == "settings":
            data = signed.settings(
                number, {"camera": {"quality": 30 + number % 60}}, KEYS[key], to="all", **times
            )
        elif kind == "resend":
            data = signed.resend(number, ISSUED, ISSUED + timedelta(days=1), key=KEYS[key])
        else:
            data = signed.keys(number, key=KEYS[key], **times)
        return Signed(KEYS[key], kind, number, issued.timestamp(), data)

    @precondition(lambda self: self.documents)
    @rule(chance=st.randoms(use_true_random=False), count=st.integers(1, 6))
    def whoever_holds_the_hub_hands_out_what_he_has(self, chance: Any, count: int) -> None:
        for _ in range(count):
            self.hand(chance.choice(self.documents))

    def hand(self, one: Signed) -> str:
        code = self.trap.accept(one.data).code
        if code == "accepted":
            self.accepted(one)
        return code

    def accepted(self, one: Signed) -> None:
        """A document was accepted: it must be new, or the last one again whose effect a damaged card lost."""
        key = KEYS.index(one.key)
        assert key in self.trusted
        assert key not in self.revoked
        before = self.had.get((key, one.kind))
        assert before is None or one.number > before.number or one.data == before.data
        if (
            one.kind == "settings"
            and self.last
            and self.last.key != one.key
            and KEYS.index(self.last.key) in self.usable
        ):
            assert one.issued >= self.last.issued
        self.had[key, one.kind] = one
        if one.kind == "settings":
            self.last = one
        for gone in {0, 1} - set(self.trusted):  # which takes its numbers along
            self.had = {name: had for name, had in self.had.items() if name[0] != gone}

    @property
    def usable(self) -> set[int]:
        return set(self.trusted) - self.revoked

    @rule(keys=st.sampled_from([[0, 1], [1, 0], [0], [1]]))
    def keys_are_put_in_and_taken_out(self, keys: list[int]) -> None:
        self.trusted = keys
        self.start()

    @precondition(lambda self: len(self.trusted) == 2 and not self.revoked)
    @rule(key=st.integers(0, 1))
    def a_key_is_revoked_by_the_other(self, key: int) -> None:
        self.the_clock_is_right(is_trusted=True)
        self.numbers[1 - key] += 1
        issued = utc(self.true).replace(microsecond=0)
        data = signed.keys(
            self.numbers[1 - key],
            KEYS[key],
            key=KEYS[1 - key],
            issued=issued,
            expires=issued + timedelta(days=3650),
        )
        assert self.trap.accept(data).code == "accepted"
        self.had[1 - key, "keys"] = Signed(
            KEYS[1 - key], "keys", self.numbers[1 - key], issued.timestamp(), data
        )
        self.revoked.add(key)

    @rule(name=st.sampled_from(FILES), how=st.sampled_from(["empty", "half", "zeros", "gone", "nonsense"]))
    def the_card_damages_a_file_and_the_daemon_starts_again(self, name: str, how: str) -> None:
        file = self.folder / "state" / name
        if not file.exists():
            return
        content = file.read_bytes()
        match how:
            case "empty":
                file.write_bytes(b"")
            case "half":
                file.write_bytes(content[: len(content) // 2])
            case "zeros":
                file.write_bytes(bytes(len(content)))
            case "gone":
                file.unlink()
            case _:
                file.write_text('{"state": "committed", "guard": {"floor": "x"}}')
        self.start()

    @invariant()
    def the_state_can_be_told(self) -> None:
        if hasattr(self, "trap"):
            report(load(self.folder / "trapsync.toml"))

    def heard_in_the_end(self) -> None:
        """Where the clock is right and the key is trusted, the operator's next push is accepted."""
        self.the_clock_is_right(is_trusted=True)
        self.trap.note_time()
        for key in self.usable:
            fresh = self.signed(key, "settings")
            assert self.hand(fresh) == "accepted", self.trap.accept(fresh.data)
