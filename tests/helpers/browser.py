"""A real browser at a real hub: Debian's Chromium, driven by Playwright, on a phone and on a desktop.

::

    with browser.started() as chromium, browser.visit(chromium, hub, "reader", browser.PHONE) as visit:
        visit.open("/")
        visit.page.get_by_role("link", name="valley-2").click()
        visit.shoot("fleet")     # a picture for people, in TRAPSYNC_SCREENSHOTS or nowhere

At its end a visit fails where the page asked another host for anything, or something went wrong in the browser's console.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, sync_playwright

import hub_server
from hub_server import RunningHub
from trapsync.hub.sessions import COOKIE

PHONE = {
    "viewport": {"width": 412, "height": 839},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
DARK = {**PHONE, "color_scheme": "dark"}
SCREENS: dict[str, dict[str, Any]] = {"phone": PHONE, "desktop": DESKTOP, "dark": DARK}
# Those that tests go through; dark ones are for pictures, as `require_readable` looks at both colour schemes anyway.
TRIED = list(SCREENS) if "TRAPSYNC_SCREENSHOTS" in os.environ else ["phone", "desktop"]


@dataclass
class Visit:
    """Somebody who looks at a hub. `errors`: of the console, and pages that failed; `elsewhere`: other hosts."""

    hub: RunningHub
    page: Page
    screen: str
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def open(self, path: str) -> Response:
        """Go to a page of the hub, and wait for all that it needs at once."""
        answer = self.page.goto(self.hub.url + path)
        assert answer is not None
        return answer

    def shoot(self, name: str, *, whole: bool = True) -> None:
        """Take a picture of the page, where somebody wants to look at it."""
        if "TRAPSYNC_SCREENSHOTS" in os.environ:
            folder = Path(os.environ["TRAPSYNC_SCREENSHOTS"])
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"{name}-{self.screen}.png", full_page=whole)

    def watch(self) -> None:
        """Note what goes wrong from now on."""
        self.page.on("console", self._noted)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)

    def _noted(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.hub.url).netloc:
            self.elsewhere.append(request.url)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser without a window; the test is skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("NOT SHOWN HERE: pages in a browser; there is no chromium (apt install chromium)")
    with sync_playwright() as playwright:
        # Chromium's own sandbox wants no root, which many a machine that tests is; its pages here are ours.
        one = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield one
        one.close()


@contextmanager
def visit(
    chromium: Browser,
    hub: RunningHub,
    name: str = "",
    screen: str = "phone",
    *,
    may_fail: bool = False,
    **more: Any,
) -> Iterator[Visit]:
    """A visit to the hub: a browser of its own, logged in as one of `hub_server.USERS` if one is named.

    `may_fail`: errors of the console are meant, a page that is not there say. `more`: as `javaScriptEnabled` for Playwright.
    """
    context = chromium.new_context(**SCREENS[screen], **more)
    context.set_default_timeout(20_000)
    if name:
        hub.auth(name)  # makes the account
        user = hub.hub.accounts.named(name)
        assert user
        secret = hub.hub.sessions.begin(user, hub_server.PASSWORD)
        context.add_cookies(
            [{"name": COOKIE, "value": secret, "url": hub.url, "httpOnly": True, "sameSite": "Lax"}]
        )
    one = Visit(hub, context.new_page(), screen)
    one.watch()
    try:
        yield one
        assert one.elsewhere == [], "a page asks no other host"
        assert may_fail or one.errors == []
    finally:
        context.close()


# ── What everybody can read, and reach without a mouse ───────────────────────────────────────────────

# The contrast of each text with what is painted behind it, by WCAG 2's formulas; a text's ground is that of the nearest
# element around it that has one. What is not shown, or has no letters, does not count.
_CONTRASTS = """() => {
  const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const numbers = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.checkVisibility() || e.tagName === 'TITLE') continue;
    const style = getComputedStyle(e), inPlot = e.closest('svg');
    const ink = light(numbers(inPlot ? style.fill : style.color)), under = light(ground(e));
    const ratio = (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return found;
}"""

# What can be used by hand, and is smaller than a finger: links within a line of text may be.
_SMALL = """() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea, summary')]
  .filter(e => e.checkVisibility() && !e.classList.contains('skip') && getComputedStyle(e).display !== 'inline')
  .filter(e => !e.closest('svg'))
  .map(e => [e, (/checkbox|radio/.test(e.type) ? e.closest('label') : e).getBoundingClientRect()])
  .filter(([e, box]) => box.width > 0 && box.height < 43.5)
  .map(([e, box]) => `${e.outerHTML.slice(0, 80)}: ${box.width} x ${box.height}`)"""

_FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const style = getComputedStyle(e);
  window.reached = window.reached || new Set();
  const isNew = !window.reached.has(e);
  window.reached.add(e);
  return {isNew, seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, html: e.outerHTML.slice(0, 80)};
}"""

_MISSED = """() => [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')]
  .filter(e => e.checkVisibility() && e.tabIndex >= 0 && !window.reached.has(e)).map(e => e.outerHTML.slice(0, 80))"""


def require_readable(visit: Visit) -> None:
    """Every text stands out from its ground in both colour schemes, and the page is no wider than its screen."""
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        assert visit.page.evaluate(_CONTRASTS) == [], scheme
    visit.page.emulate_media(color_scheme="dark" if visit.screen == "dark" else "light")
    assert visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (
        "wider than the screen"
    )


def require_large_targets(visit: Visit) -> None:
    """Whatever is touched is as large as a finger."""
    assert visit.page.evaluate(_SMALL) == []


def require_keyboard(visit: Visit) -> None:
    """The tab key leads to everything that can be used, and each time one sees where one is."""
    for _ in range(2000):
        visit.page.keyboard.press("Tab")
        at = visit.page.evaluate(_FOCUSED)
        if at is None or not at["isNew"]:
            break
        assert at["seen"], f"nobody sees that this has the focus: {at['html']}"
    assert visit.page.evaluate(_MISSED) == []
