"""The pages about all traps, in a real browser: what they cost, who can read and reach them, hostile texts and pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import browser
import drawings
import hub_server
import large_fleet
from hub_server import RunningHub

PATHS = {
    "fleet": "/",
    "map": "/map",
    "devices": "/devices",
    "device": "/devices/0a000001",
    "forget": "/devices/0a000001/forget",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """Of 24 traps."""
    with hub_server.cheap_passwords(), hub_server.running(tmp_path_factory.mktemp("hub") / "hub") as running:
        large_fleet.fill(running, 24, 240)
        yield running


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunningHub]:
    with hub_server.cheap_passwords(), hub_server.running(tmp_path / "hub") as running:
        yield running


# ── What it costs ────────────────────────────────────────────────────────────────────────────────────

# The policy of the pages forbids `wait_for_function`, which has the page evaluate a text: so the page itself waits.
_COSTS = """async () => {
  await document.images[0].decode();
  const paint = await new Promise(done => new PerformanceObserver(list => {
    for (const one of list.getEntriesByName('first-contentful-paint')) done(one.startTime);
  }).observe({type: 'paint', buffered: true}));
  const all = performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'));
  const sent = all.filter(e => !e.name.includes('/picture/'));
  return {
    paint,
    sent: sent.reduce((sum, e) => sum + e.encodedBodySize, 0),
    whole: sent.reduce((sum, e) => sum + e.decodedBodySize, 0),
    pictures: all.length - sent.length,
  };
}"""


def test_500_traps_are_there_in_a_moment_and_few_bytes(chromium: Browser, tmp_path: Path) -> None:
    with hub_server.cheap_passwords(), hub_server.running(tmp_path / "hub") as hub:
        large_fleet.fill(hub, 500, 200_000)
        with browser.visit(chromium, hub, "reader", "desktop") as visit:
            visit.open("/")
            costs = visit.page.evaluate(_COSTS)
            for _ in range(2):  # beside other tests on the same cores the best of some looks counts
                visit.page.reload()
                costs["paint"] = min(costs["paint"], visit.page.evaluate(_COSTS)["paint"])
            print(f"500 traps, 200,000 images: {costs}")  # noqa: T201
            assert costs["whole"] <= 300_000  # bytes, of which some are sent: pages are compressed
            assert costs["paint"] <= 1500  # ms
            assert 0 < costs["pictures"] < 60, "only those that are near the screen"
            expect(visit.page.locator(".cards > li")).to_have_count(500)


# ── Who can read and reach it ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("screen", browser.TRIED)
def test_everybody_can_read_and_reach_what_is_on_the_pages(
    chromium: Browser, hub: RunningHub, screen: str
) -> None:
    with browser.visit(chromium, hub, "owner", screen) as visit:
        for name, path in PATHS.items():
            visit.open(path)
            visit.shoot(name)
            browser.require_readable(visit)
            browser.require_large_targets(visit)
            browser.require_keyboard(visit)


def test_without_javascript_one_logs_in_sees_the_worst_first_chooses_and_logs_out(
    chromium: Browser, hub: RunningHub
) -> None:
    hub.auth("reader")
    with browser.visit(chromium, hub, java_script_enabled=False) as visit:
        visit.open("/?verdict=warning")
        visit.page.get_by_label("Name").fill("reader")
        visit.page.get_by_label("Password").fill(hub_server.PASSWORD)
        visit.page.get_by_role("button", name="Log in").click()
        expect(visit.page.locator(".verdict")).to_have_text(["warning", "warning"])
        visit.page.get_by_role("link", name="all 24").click()
        assert visit.page.locator(".verdict").all_inner_texts()[:4] == ["failing", "warning", "warning", "ok"]
        visit.page.get_by_role("button", name="Log out").click()
        expect(visit.page.get_by_role("heading")).to_have_text("Log in to this hub")


def test_the_form_for_logging_in_can_be_read_and_reached_and_says_what_was_wrong(
    chromium: Browser, hub: RunningHub
) -> None:
    with browser.visit(chromium, hub, may_fail=True) as visit:  # the console tells of a 401
        visit.open("/")
        visit.page.get_by_label("Name").fill("<b>nobody")
        visit.page.get_by_label("Password").fill("guess")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("alert")).to_have_text("Name or password is wrong.")
        expect(visit.page.get_by_label("Name")).to_have_value("<b>nobody")
        visit.shoot("login")
        browser.require_readable(visit)
        browser.require_large_targets(visit)
        browser.require_keyboard(visit)


def test_a_code_is_made_and_shown_once(chromium: Browser, empty: RunningHub) -> None:
    with browser.visit(chromium, empty, "owner") as visit:
        visit.open("/devices")
        visit.page.get_by_label("Groups, if any").fill("valley")
        visit.page.get_by_label("Public keys").fill("ed25519:yG0BrYsvtpSyL/YOPJ2eftkNtWBHcrdEUNQJE7mpy68=")
        visit.page.get_by_role("button", name="Make a code").click()
        expect(visit.page.get_by_role("heading", name="Code 1")).to_be_visible()
        box = visit.page.locator("svg.qr").bounding_box()
        assert box is not None
        assert box["width"] == box["height"] > 150
        visit.shoot("code")
        browser.require_readable(visit)
        browser.require_keyboard(visit)
        visit.page.get_by_role("link", name="Back to the devices").click()
        visit.shoot("codes")
        browser.require_large_targets(visit)
        visit.page.get_by_role("button", name="Withdraw code 1").click()
        expect(visit.page.get_by_text("No code is open.")).to_be_visible()


def test_a_mark_on_the_map_leads_to_the_trap_and_who_has_no_position_stands_below(
    chromium: Browser, hub: RunningHub
) -> None:
    with browser.visit(chromium, hub, "reader", "desktop") as visit:
        visit.open("/map")
        expect(visit.page.locator(".mark")).to_have_count(22)
        expect(visit.page.locator("h2:has-text('Without a position') + ul li")).to_have_count(2)
        visit.page.locator(".mark.failing").click()
        assert visit.page.url.endswith("/trap/0a000007")


# ── What others send ─────────────────────────────────────────────────────────────────────────────────

HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
TURNED = "\u202ereversed\u0000\u001b[2J\u2028' onclick=\"alert(1)"


def beat(device: str, **more: object) -> bytes:
    """A heartbeat."""
    content = {"schema": 1, "device": device, "verdict": "failing", "every_s": 900}
    return json.dumps(content | more).encode()


def no_script_ran(page: Page) -> bool:
    """Whether the page is as the hub made it."""
    return (
        "taken" not in page.title() and page.locator("script:not([src]), [onclick], [onerror]").count() == 0
    )


def test_hostile_texts_and_pictures_are_shown_as_what_they_are(chromium: Browser, empty: RunningHub) -> None:
    empty.hub.fleet.take(
        "0a1b2c3d", beat("0a1b2c3d", name=HOSTILE, reasons=[TURNED.replace("\0", ""), "x" * 900])
    )
    empty.hub.fleet.take(
        "0a1b2c3e", beat("0a1b2c3e", name="عربي\u202e", battery=-1e15, disk={"days_left": -5})
    )
    empty.upload(drawings.NAME, drawings.trap())
    (row,) = empty.rows()
    empty.store.path(row).write_bytes(b"\xff\xd8\xff\xe0 no picture any more")
    empty.upload("0a1b2c3f.2026-06-21_20-19-15.jpg", drawings.trap())
    with browser.visit(chromium, empty, "reader") as visit:
        visit.open("/")
        visit.shoot("hostile")
        assert visit.page.get_by_text("<script>document").count() == 1
        assert "\u202e" not in visit.page.content()
        assert no_script_ran(visit.page)
        browser.require_readable(visit)


def test_a_picture_whose_file_is_gone_leaves_the_page_as_it_is(chromium: Browser, empty: RunningHub) -> None:
    empty.hub.fleet.take(drawings.DEVICE, beat(drawings.DEVICE))
    empty.upload(drawings.NAME, drawings.trap())
    (row,) = empty.rows()
    empty.store.path(row).unlink()
    with browser.visit(chromium, empty, "reader", may_fail=True) as visit:  # the console tells of a 404
        assert visit.open("/").status == 200
        expect(visit.page.get_by_text(drawings.DEVICE)).to_be_visible()


def test_a_hub_without_a_trap_says_so(chromium: Browser, empty: RunningHub) -> None:
    with browser.visit(chromium, empty, "reader") as visit:
        visit.open("/")
        expect(visit.page.get_by_text("No trap has called this hub yet.")).to_be_visible()
