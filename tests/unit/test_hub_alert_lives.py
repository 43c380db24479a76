"""Generated lives of traps, and what was told of them: each change once, and none lost where the hub was killed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerted import MINUTE, NOON, Bench
from trapsync.errors import NotSent
from trapsync.files import failpoint
from trapsync.hub.alerts import outbox, texts
from trapsync.hub.alerts.changes import Change

DEVICES = ("00000001", "00000002", "00000003", "00000004")
STEP = 10  # minutes
ENDING = 30  # steps: until quiet hours are over, and the hour of the last message
QUIET = range(14 * 60, 17 * 60)  # minutes of the day, UTC: a life begins at noon
POINTS = ("hub: before the commit", "hub: committed", "alerts: before a message", "alerts: message sent")

# What each trap says in ten minutes, if anything.
SAYS = st.sampled_from(["ok", "failing", "nothing"])
LIVES = st.lists(st.tuples(*[SAYS] * len(DEVICES)), min_size=10, max_size=40)
KILLS = st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 4)), min_size=1, max_size=8)
quickly = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Killed(BaseException):
    """The hub's process, here a turn, ends at a failpoint."""


class Life:
    """A hub that is told what happened in each ten minutes, and the changes that came with each message."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(
            folder, most_an_hour=2, quiet="14:00 - 17:00", rules=("failing", "silent", "recovered")
        )
        self.tried: list[list[Change]] = []
        self.told: list[Change] = []
        self.bench.phone.fails = self._take

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note which changes each message is about."""
        compose: Callable[..., texts.Message] = texts.compose

        def note(changes: list[Change], *more: object, **others: object) -> texts.Message:
            self.tried.append(changes)
            return compose(changes, *more, **others)

        with mock.patch.object(outbox, "compose", note):
            yield

    def _take(self, _url: str) -> NotSent | None:
        self.told += self.tried[-1]
        return None

    def happen(self, says: tuple[str, ...]) -> None:
        """Ten minutes."""
        for device, verdict in zip(DEVICES, says, strict=True):
            if verdict != "nothing":
                self.bench.beat(device, verdict=verdict)
        self.bench.turn(STEP)

    def end(self) -> None:
        """Let the traps be well until all is told."""
        for _ in range(ENDING):
            self.happen(("ok",) * len(DEVICES))

    def require_manners(self) -> None:
        """Nothing was told in quiet hours, and never more than twice an hour."""
        times = [one.at for one in self.bench.phone.told]
        assert not [at for at in times if (at - NOON + 12 * 3600) % 86400 // MINUTE in QUIET]
        assert all(sum(at - 3600 < other <= at for other in times) <= 2 for at in times)


def expected(life: list[tuple[str, ...]]) -> dict[tuple[str, str], list[bool]]:
    """Each change of a rule for a trap, worked out from what the traps said alone."""
    found: dict[tuple[str, str], list[bool]] = {}
    heard: dict[str, int] = {}
    holds: dict[tuple[str, str], bool] = {}
    for number, says in enumerate(life):
        for device, verdict in zip(DEVICES, says, strict=True):
            if verdict != "nothing":
                heard[device] = number
            if device not in heard:
                continue
            is_silent = (number - heard[device]) * STEP > 45
            now = {(device, "silent"): is_silent}
            if not is_silent:
                now[device, "failing"] = life[heard[device]][DEVICES.index(device)] == "failing"
            for key, value in now.items():
                if holds.get(key, False) != value:
                    found.setdefault(key, []).append(value)
                holds[key] = value
    return found


def by_trap(told: list[Change]) -> dict[tuple[str, str], list[bool]]:
    """The same of what was told."""
    found: dict[tuple[str, str], list[bool]] = {}
    for change in told:
        found.setdefault((change.device, change.rule), []).append(change.is_on)
    return found


@quickly
@given(life=LIVES)
def test_every_change_is_told_exactly_once(life: list[tuple[str, ...]]) -> None:
    with TemporaryDirectory() as folder:
        lived = Life(Path(folder))
        with lived.watched():
            for says in life:
                lived.happen(says)
            lived.end()
        numbers = [change.number for change in lived.told]
        assert numbers == sorted(set(numbers))
        assert by_trap(lived.told) == expected(life + [("ok",) * len(DEVICES)] * ENDING)
        lived.require_manners()


@quickly
@given(life=LIVES, kills=KILLS)
def test_no_change_is_lost_where_the_hub_is_killed(
    life: list[tuple[str, ...]], kills: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        lived = Life(Path(folder))
        left = list(kills)

        def hit(name: str) -> None:
            if left and left[0][0] == name:
                name, number = left.pop(0)
                if number == 1:
                    raise Killed
                left.insert(0, (name, number - 1))

        with lived.watched():
            for says in life:
                for device, verdict in zip(DEVICES, says, strict=True):
                    if verdict != "nothing":
                        lived.bench.beat(device, verdict=verdict)
                with mock.patch.object(failpoint, "hit", hit):
                    try:
                        lived.bench.watch.turn()
                    except Killed:
                        left, later = [], left
                        lived.bench.start()
                        left = later
                lived.bench.clock.sleep(STEP * MINUTE)
            lived.end()
        once = {change.number: change for change in lived.told}
        with lived.bench.hub.database.reading() as connection:
            (made,) = connection.execute(
                "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'alert_changes'), 0)"
            ).fetchone()
            assert connection.execute("SELECT count(*) FROM alert_states").fetchone()[0] == 0
        assert sorted(once) == list(range(1, made + 1))
        for states in by_trap([once[number] for number in sorted(once)]).values():
            assert states == [True, False] * (len(states) // 2)
        lived.require_manners()
