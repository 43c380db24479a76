"""The pages of traps and nights in a real browser: who can read and reach them, keys, fingers and zoom, without a script."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

import browser
import hub_server
import night_site
from browser import Visit
from fake_time import FakeTime
from filled_hub import NOW
from hub_server import RunningHub
from night_site import NIGHT, TRAP

PICTURE = f"{NIGHT}?image=2026-06-24T20:30:00Z"
PATHS = {"trap": TRAP, "night": NIGHT, "picture": PICTURE, "empty-night": f"{TRAP}/2026-06-21"}
_SWIPE = """([from, to]) => {
  const viewer = document.querySelector('.viewer');
  const touch = x => new Touch({identifier: 1, target: viewer, clientX: x, clientY: 300});
  const send = (kind, on, changed) => viewer.dispatchEvent(
    new TouchEvent(kind, {touches: on, changedTouches: changed, bubbles: true}));
  send('touchstart', [touch(from)], [touch(from)]);
  send('touchend', [], [touch(to)]);
}"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """With a trap of some nights, hostile texts, and a picture of which there can be no small copy."""
    folder = tmp_path_factory.mktemp("hub") / "hub"
    with hub_server.cheap_passwords(), hub_server.running(folder, clock=FakeTime(NOW.timestamp())) as running:
        names = night_site.furnish(running)
        (row,) = [row for row in running.rows() if running.store.path(row).name == names[3]]
        path = running.store.path(row)
        path.write_bytes(path.read_bytes()[:700])  # broken on the hub's disk
        yield running


@pytest.fixture(params=list(browser.SCREENS))
def visit(request: pytest.FixtureRequest, chromium: Browser, hub: RunningHub) -> Iterator[Visit]:
    """A visit on each kind of screen."""
    with browser.visit(chromium, hub, "owner", request.param) as one:
        yield one


def test_the_pages_can_be_read_and_touched(visit: Visit) -> None:
    for name, path in PATHS.items():
        visit.open(path)
        visit.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        visit.page.wait_for_load_state("networkidle")
        visit.shoot(name)
        browser.require_readable(visit)
        browser.require_large_targets(visit)


def test_the_tab_key_leads_to_everything(chromium: Browser, hub: RunningHub) -> None:
    with browser.visit(chromium, hub, "owner", "desktop") as visit:
        for path in (TRAP, NIGHT, PICTURE):
            visit.open(path)
            browser.require_keyboard(visit)


def test_keys_lead_through_the_pictures_and_back_to_the_night(chromium: Browser, hub: RunningHub) -> None:
    with browser.visit(chromium, hub, "reader", "desktop") as visit:
        visit.open(PICTURE)
        heading = visit.page.get_by_role("heading", level=1)
        visit.page.keyboard.press("ArrowRight")
        expect(heading).to_have_text("Wed 24 Jun 2026 23:35:00")
        visit.page.keyboard.press("ArrowRight")  # it is the last one
        expect(heading).to_have_text("Wed 24 Jun 2026 23:35:00")
        for before in ("Wed 24 Jun 2026 22:30:00", "Wed 24 Jun 2026 22:00:00", "Mon 22 Jun 2026 23:35:00"):
            visit.page.keyboard.press("ArrowLeft")
            expect(heading).to_have_text(before)
        visit.page.keyboard.press("Escape")
        expect(heading).to_have_text("Monday, 22 June 2026")


def test_keys_and_a_click_zoom(chromium: Browser, hub: RunningHub) -> None:
    with browser.visit(chromium, hub, "reader", "desktop") as visit:
        visit.open(PICTURE)
        picture = visit.page.locator(".viewer img")
        before = width(visit)
        visit.page.keyboard.press("+")
        visit.page.keyboard.press("+")
        assert width(visit) > 2 * before
        visit.page.keyboard.press("-")
        visit.page.keyboard.press("Escape")  # first out of the zoom
        assert width(visit) == before
        picture.click()
        assert width(visit) > 2 * before
        assert visit.page.evaluate("document.querySelector('.viewer').scrollLeft") > 0
        expect(visit.page).to_have_url(hub.url + PICTURE)


def test_a_swipe_leads_to_the_picture_beside(chromium: Browser, hub: RunningHub) -> None:
    with browser.visit(chromium, hub, "reader", "phone") as visit:
        visit.open(PICTURE)
        heading = visit.page.get_by_role("heading", level=1)
        visit.page.evaluate(_SWIPE, [200, 180])  # too short
        expect(heading).to_have_text("Wed 24 Jun 2026 22:30:00")
        visit.page.evaluate(_SWIPE, [300, 100])
        expect(heading).to_have_text("Wed 24 Jun 2026 23:35:00")
        visit.page.evaluate(_SWIPE, [100, 300])
        expect(heading).to_have_text("Wed 24 Jun 2026 22:30:00")


def test_who_has_enlarged_the_page_moves_it_and_stays_at_the_picture(
    chromium: Browser, hub: RunningHub
) -> None:
    with browser.visit(chromium, hub, "reader", "phone") as visit:
        visit.open(PICTURE)
        enlarge = (
            "scale => Object.defineProperty(visualViewport, 'scale', {value: scale, configurable: true})"
        )
        visit.page.evaluate(enlarge, 2)
        visit.page.evaluate(_SWIPE, [100, 300])
        visit.page.evaluate(enlarge, 1)
        visit.page.evaluate(_SWIPE, [300, 100])
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Wed 24 Jun 2026 23:35:00")


def test_without_a_script_links_do_the_same(chromium: Browser, hub: RunningHub) -> None:
    # Chromium says in its console that it runs no script.
    with browser.visit(chromium, hub, "reader", java_script_enabled=False, may_fail=True) as visit:
        visit.open(TRAP)
        heading = visit.page.get_by_role("heading", level=1)
        visit.page.locator(".strips a").first.click()
        expect(heading).to_have_text("Wednesday, 24 June 2026")
        visit.page.locator(".gallery a").first.click()
        expect(heading).to_have_text("Wed 24 Jun 2026 22:00:00")
        visit.page.locator('a[rel="next"]').click()
        expect(heading).to_have_text("Wed 24 Jun 2026 22:30:00")
        visit.page.locator(".viewer a").click()
        assert visit.page.url.endswith(".jpg")


def test_a_night_is_downloaded_by_a_click(chromium: Browser, hub: RunningHub, tmp_path: Path) -> None:
    with browser.visit(chromium, hub, "reader", "desktop") as visit:
        visit.open(f"{TRAP}/2026-06-22")
        with visit.page.expect_download() as download:
            visit.page.get_by_role("link", name="Download the pictures").click()
        assert download.value.suggested_filename == f"{night_site.DEVICE}-2026-06-22.zip"
        assert download.value.path().stat().st_size > 10_000


def test_the_calendar_and_the_choice_of_time_are_links(chromium: Browser, hub: RunningHub) -> None:
    with browser.visit(chromium, hub, "reader", "desktop") as visit:
        visit.open(TRAP)
        visit.page.get_by_role("link", name="2 days", exact=True).click()
        expect(visit.page.locator(".plots figure")).to_have_count(6)
        visit.page.locator(".calendar a").nth(3).click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sunday, 21 June 2026")


def width(visit: Visit) -> float:
    """How wide the picture is."""
    return float(visit.page.evaluate("document.querySelector('.viewer img').getBoundingClientRect().width"))
