"""The operator asks for images again: what a destination lost is sent again, once, and what it has stays."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import daemon_process
import drawings
import signed
import trap_bench as bench
from trapsync.errors import Unreachable
from trapsync.remote import resend
from trapsync.remote.record import ResendRequest

SINCE = drawings.TAKEN.timestamp()


def delivered(folder: Path, *destinations: bench.Memory, images: int = 6) -> bench.Trap:
    """A trap whose images, one a second, were delivered to all of them."""
    trap = bench.Trap(folder)
    trap.register(*destinations)
    for second in range(images):
        trap.put(second, seed=second)
    trap.ingest()
    for destination in destinations:
        trap.deliver(destination)
    return trap


def answered(
    trap: bench.Trap, asked: ResendRequest, remembered: list[ResendRequest] | None = None
) -> ResendRequest:
    """What becomes of the request in one go."""
    remember = [] if remembered is None else remembered
    return resend.answer(trap.catalog, trap.destinations, asked, remember.append)


def test_images_of_the_time_are_delivered_again_to_the_destination_that_lost_them(tmp_path: Path) -> None:
    home, stick = bench.Memory("home"), bench.Memory("stick")
    trap = delivered(tmp_path, home, stick)
    held = dict(home.stored)
    home.stored.clear()
    done = answered(trap, ResendRequest("hash", SINCE + 1, SINCE + 4, "home"))
    assert (done.again, done.gone) == (3, 0)
    assert trap.ledger() == (6, 3, 3, 0, 0)
    stick.sent.clear()
    assert (trap.deliver(home).delivered, trap.deliver(stick).delivered) == (3, 0)
    assert home.stored.items() <= held.items()
    assert (len(home.stored), stick.sent, trap.ledger()) == (3, [], (6, 6, 0, 0, 0))


def test_each_destination_is_asked_and_what_it_holds_stays(tmp_path: Path) -> None:
    home, stick = bench.Memory("home"), bench.Memory("stick")
    trap = delivered(tmp_path, home, stick)
    home.sent.clear()
    lost = min(stick.stored)
    del stick.stored[lost]
    stick.sent.clear()
    done = answered(trap, ResendRequest("hash", SINCE, SINCE + 100))
    assert (done.again, done.gone, trap.ledger()) == (1, 0, (6, 5, 1, 0, 0))
    assert (trap.deliver(home).delivered, trap.deliver(stick).delivered) == (0, 1)
    assert (home.sent, stick.sent) == ([], [lost])


def test_what_left_the_card_is_lost_if_it_is_not_there_either_and_said(tmp_path: Path) -> None:
    home = bench.Memory("home")
    trap = delivered(tmp_path, home)
    trap.time.sleep(10)
    assert trap.prune() == 6
    there, lost = sorted(home.stored)[:2], sorted(home.stored)[2:]
    for key in lost:
        del home.stored[key]
    done = answered(trap, ResendRequest("hash", SINCE, SINCE + 100))
    assert (done.again, done.gone) == (0, 4)
    assert (trap.ledger(), sorted(home.stored)) == ((6, 2, 0, 0, 4), there)


def test_outside_the_time_nothing_is_asked(tmp_path: Path) -> None:
    home = bench.Memory("home")
    trap = delivered(tmp_path, home)
    done = answered(trap, ResendRequest("hash", SINCE + 6, SINCE + 100))
    assert (done.again, done.gone, home.confirmed) == (0, 0, [])


def test_a_destination_that_does_not_keep_images_is_not_asked(tmp_path: Path) -> None:
    studio = bench.Memory("studio")
    trap = delivered(tmp_path, studio)
    studio.keeps = False
    studio.stored.clear()
    assert answered(trap, ResendRequest("hash", SINCE, SINCE + 100)).again == 0
    assert studio.confirmed == []


def test_it_goes_on_after_the_last_slice_when_it_was_cut_short(tmp_path: Path) -> None:
    home, stick = bench.Memory("home", batch=2), bench.Memory("stick")
    trap = delivered(tmp_path, home, stick)
    home.stored.clear()
    remembered: list[ResendRequest] = []
    told = home.confirm

    def cut_short(*arguments: Any, **more: Any) -> Any:
        if len(home.confirmed) == 2:
            raise Unreachable("the link is down")
        return told(*arguments, **more)

    home.confirm = cut_short  # type: ignore[method-assign]
    assert answered(trap, ResendRequest("hash", SINCE, SINCE + 100), remembered).again is None
    home.confirm = told  # type: ignore[method-assign]
    trap.restart()
    trap.register(home, stick)
    stick.confirmed.clear()
    done = answered(trap, remembered[-1])
    assert (done.again, done.gone, trap.ledger()) == (6, 0, (6, 0, 6, 0, 0))
    assert ([len(some) for some in home.confirmed], stick.confirmed) == ([2, 2, 2], [])


def test_a_destination_that_is_left_alone_after_a_failure_is_asked_later(tmp_path: Path) -> None:
    home = bench.Memory("home")
    trap = delivered(tmp_path, home)
    trap.catalog.deliveries.destination_failed("home", "no route", 10.0)
    waiting = answered(trap, ResendRequest("hash", SINCE, SINCE + 100))
    assert (waiting.again, home.confirmed) == (None, [])
    trap.time.sleep(11)
    assert answered(trap, waiting).again == 0


def test_a_running_daemon_sends_again_what_its_operator_asks_for(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / ".trapsync-destination").touch()
    more = f'[destinations.stick]\nkind = "directory"\nevery = "1 s"\npath = "{stick}"\n' + signed.TRUSTING
    drawings.put(tmp_path / "trap" / "spool", drawings.trap(), drawings.NAME)
    with daemon_process.running(tmp_path / "trap", more) as trap:
        trap.until(lambda f: f["ledger"]["delivered"] == 1)
        (copy,) = stick.rglob("*.jpg")
        copy.unlink()
        document = tmp_path / "document"
        document.write_bytes(
            signed.resend(1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
        )
        assert trap.run("settings", "take", str(document)).stdout.startswith(
            "accepted: number 1: images from "
        )
        facts = trap.until(lambda f: (f["remote"].get("resend") or {}).get("again") == 1 and copy.exists())
        assert facts["remote"]["resend"]["gone"] == 0
        trap.until(lambda f: f["ledger"]["delivered"] == 1)
        assert len(list(stick.rglob("*.jpg"))) == 1
