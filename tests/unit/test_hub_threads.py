"""Who answers at the hub: viewers take no thread that a trap waits for, and rest while pictures come in."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

import drawings
import hub_server
from fake_time import FakeTime
from hub_server import PASSWORD
from trapsync.hub.sessions import COOKIE
from trapsync.hub.threads import Threads

OTHER = f"{drawings.DEVICE}.2026-06-21_20-39-15.jpg"


def test_viewers_who_wait_for_small_copies_hold_no_upload_up(tmp_path: Path) -> None:
    with hub_server.running(tmp_path) as hub:
        hub.upload(drawings.NAME, drawings.trap())
        user = hub.hub.accounts.named("trap")
        assert user
        cookie = {COOKIE: hub.hub.sessions.begin(user, PASSWORD)}
        address = f"{hub.url}/picture/small/{drawings.NAME}"
        statuses: list[int] = []

        def look() -> None:
            statuses.append(requests.get(address, cookies=cookie, timeout=60).status_code)

        viewers = [threading.Thread(target=look) for _ in range(6)]
        with hub.hub.thumbnails._one_at_a_time:  # for each of which they wait five seconds
            for viewer in viewers:
                viewer.start()
            assert hub.upload(OTHER, drawings.trap(seed=2)).status_code == 200
            assert statuses == []
        for viewer in viewers:
            viewer.join()
        assert statuses == [200] * 6


class Rests:
    """In the place of an event: whoever waits for it lets time pass, while `meanwhile` happens."""

    def __init__(self, clock: FakeTime, meanwhile: Callable[[], object]) -> None:
        self._clock = clock
        self._meanwhile = meanwhile

    def wait(self, seconds: float) -> bool:
        self._clock.sleep(seconds)
        self._meanwhile()
        return False


class Page:
    """A page that takes a tenth of a second."""

    asks_for_page, sends_picture = True, False

    def __init__(self, clock: FakeTime) -> None:
        self._clock = clock

    def service(self) -> None:
        self._clock.sleep(0.1)

    def cancel(self) -> None:
        raise AssertionError("nobody ends")


@pytest.mark.parametrize(
    ("still_come", "came", "spent"), [(True, True, 2.1), (False, True, 0.52), (False, False, 0.1)]
)
def test_after_a_page_its_thread_rests_while_pictures_come(
    still_come: bool, came: bool, spent: float
) -> None:
    clock = FakeTime()
    threads = Threads(clock)
    threads._ends = Rests(clock, threads.note_picture if still_come else lambda: None)  # type: ignore[assignment]
    if came:
        threads.note_picture()
    begun = clock.monotonic()
    threads.answer_page(Page(clock))
    threads._ends = threading.Event()
    threads.shutdown()
    assert clock.monotonic() - begun == pytest.approx(spent, abs=0.03)
