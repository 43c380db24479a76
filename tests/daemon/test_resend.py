"""The owner asks for images again: what is on the card is owed again, what is not is counted, and all is once."""

from datetime import UTC, datetime
from pathlib import Path

import daemon_process
import drawings
import signed
import trap_bench as bench
from trapsync.remote import resend
from trapsync.remote.record import Asked

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


def test_images_of_the_time_are_delivered_again_to_the_destination_that_lost_them(tmp_path: Path) -> None:
    home, stick = bench.Memory("home"), bench.Memory("stick")
    trap = delivered(tmp_path, home, stick)
    held = dict(home.stored)
    home.stored.clear()
    done = resend.owe_again(trap.catalog, Asked("hash", SINCE + 1, SINCE + 4, "home"))
    assert (done.again, done.gone) == (3, 0)
    assert trap.ledger() == (6, 3, 3, 0, 0)
    stick.sent.clear()
    assert (trap.deliver(home).delivered, trap.deliver(stick).delivered) == (3, 0)
    assert home.stored.items() <= held.items()
    assert (len(home.stored), stick.sent, trap.ledger()) == (3, [], (6, 6, 0, 0, 0))


def test_what_left_the_card_is_counted_and_said(tmp_path: Path) -> None:
    home = bench.Memory("home")
    trap = delivered(tmp_path, home)
    (first,) = [image for image in trap.catalog.on_card(0, 1)]  # noqa: C416
    trap.catalog.mark_pruned([first.id])
    done = resend.owe_again(trap.catalog, Asked("hash", SINCE, SINCE + 100))
    assert (done.again, done.gone) == (5, 1)
    assert trap.ledger() == (6, 1, 5, 0, 0)


def test_asked_twice_is_asked_once_and_what_the_destination_holds_is_not_sent(tmp_path: Path) -> None:
    home = bench.Memory("home")
    trap = delivered(tmp_path, home)
    asked = Asked("hash", SINCE, SINCE + 100)
    assert [resend.owe_again(trap.catalog, asked).again for _ in range(2)] == [6, 0]
    home.sent.clear()
    assert (trap.deliver(home).delivered, home.sent) == (6, [])


def test_outside_the_time_nothing_is_owed_again(tmp_path: Path) -> None:
    trap = delivered(tmp_path, bench.Memory("home"))
    done = resend.owe_again(trap.catalog, Asked("hash", SINCE + 6, SINCE + 100))
    assert (done.again, done.gone) == (0, 0)


def test_more_images_than_one_handful_are_all_found(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(resend, "_HANDFUL", 2)
    home, stick = bench.Memory("home"), bench.Memory("stick")
    trap = delivered(tmp_path, home, stick, images=5)
    assert resend.owe_again(trap.catalog, Asked("hash", SINCE, SINCE + 100)).again == 5
    assert [row["owed"] for row in trap.catalog.destinations()] == [5, 5]


def test_a_running_daemon_sends_again_what_its_owner_asks_for(tmp_path: Path) -> None:
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
        assert trap.run("settings", "take", str(document)).stdout.startswith("accepted: images from ")
        facts = trap.until(lambda f: (f["pushed"].get("resend") or {}).get("again") == 1 and copy.exists())
        assert facts["pushed"]["resend"]["gone"] == 0
        trap.until(lambda f: f["ledger"]["delivered"] == 1)
        assert len(list(stick.rglob("*.jpg"))) == 1
