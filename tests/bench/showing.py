"""What pages of a hub cost that holds much: a million images, and the heartbeats of 500 traps from ninety days.

The reference is the same page of a hub with a thousand images. Both have 500 traps, for a card each is what a fleet costs.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import filled_hub
import hub_server
from bench.costs import in_turns
from bench.table import Row
from fake_time import FakeTime
from filled_hub import NOW, device
from hub_server import InThisProcess
from trapsync.hub.app import Hub, make_app
from trapsync.hub.sessions import COOKIE

_TRAPS = 500
_FEW, _MANY = 1_000, 1_000_000
_DAYS = 90
_A_NIGHT = 30  # images
_TRAP = f"/trap/{device(1)}"
_PAGES = {
    "the fleet": "/",
    "a trap": _TRAP,
    "a trap, all of its time": f"{_TRAP}?span=all",
    "a night": f"{_TRAP}/2026-06-23",
    "a picture": f"{_TRAP}/2026-06-23?image=2026-06-23T21:00:00Z",
}


def rows(folder: Path, *, rounds: int, tiny: bool) -> Iterator[Row]:
    """A page of each kind."""
    few, many, traps = (300, 1_000, 10) if tiny else (_FEW, _MANY, _TRAPS)
    small, large = (_hub(folder / str(images), traps, images, few) for images in (few, many))
    readers = {"large": _Reader(large), "small": _Reader(small)}
    for what, path in _PAGES.items():
        ways = {name: partial(reader.get, path) for name, reader in readers.items()}
        turns = in_turns(ways, rounds)
        figure, reference = (1e3 * turns.figure(way, "cpu") for way in ("large", "small"))
        least = f"the same of {few:,} images, {reference:.3g} ms"
        ratio = turns.ratio("large", "small", "cpu")
        yield Row("pages", f"{what}, of {many:,} images: CPU", figure, "ms", least, ratio, 2.0)
    for hub in (small, large):
        hub.database.close()


class _Reader:
    """Somebody who is logged in."""

    def __init__(self, hub: Hub) -> None:
        with hub_server.cheap_passwords():
            hub.accounts.add("reader", "x", "viewer")
        user = hub.accounts.named("reader")
        assert user
        self._client = make_app(hub).test_client()
        self._client.set_cookie(COOKIE, hub.sessions.begin(user, "x"))

    def get(self, path: str) -> None:
        """Look at a page."""
        answer = self._client.get(path)
        assert answer.status_code == 200, answer.text


def _hub(folder: Path, traps: int, images: int, few: int) -> Hub:
    """A hub of so many traps. Half of the images are of the first one; of `few` all but one of each other trap."""
    hub = Hub.open(folder, FakeTime(NOW.timestamp()), InThisProcess())
    is_small = images == few
    first = images - traps + 1 if is_small else images // 2
    for number in range(1, traps + 1):
        others = 1 if is_small else (images - first) // (traps - 1)
        filled_hub.add_images(hub.database, number, first if number == 1 else others, at_night=_A_NIGHT)
        filled_hub.add_heartbeats(hub.database, number, _DAYS if number == 1 or not is_small else 2)
        filled_hub.add_nights(hub.database, number, _DAYS if number == 1 or not is_small else 1)
    return hub
