"""Make the README's picture of the hub's pages: the demonstration's own trap, in Debian's Chromium."""

import sys
import tempfile
import time
from pathlib import Path

import demo
from playwright.sync_api import Browser, ViewportSize, sync_playwright

ROOT = Path(__file__).parents[1]
TARGET = ROOT / ".github" / "images" / "hub.jpg"
CHROMIUM = "/usr/bin/chromium"
PICTURES = 12
SIZE: ViewportSize = {"width": 960, "height": 640}
LARGEST = 150_000  # bytes


def main() -> None:
    """Let the demonstration's trap deliver some pictures, and take a picture of its page."""
    folder = Path(tempfile.mkdtemp(prefix="trapsync-demo-"))
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    with demo._stage(folder) as (port, _hub):
        config = demo._write_config(folder, port)
        trap = demo.Program("--config", str(config), "run", "--captures", str(PICTURES))
        try:
            _wait_for_pictures(config)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                _shoot(browser, f"http://127.0.0.1:{port}", target)
        finally:
            trap.stop()
    size = target.stat().st_size
    print(f"{target}: {size} bytes")
    if size > LARGEST:
        sys.exit(f"that is more than {LARGEST}")


def _wait_for_pictures(config: Path) -> None:
    deadline = time.monotonic() + 200
    while (facts := demo._status(config))["ledger"]["delivered"] < PICTURES:
        if time.monotonic() > deadline:
            sys.exit(f"the trap did not deliver its pictures in time: {facts}")
        time.sleep(0.5)
    time.sleep(3)  # for a heartbeat that says so


def _shoot(browser: Browser, url: str, target: Path) -> None:
    page = browser.new_page(viewport=SIZE)
    page.goto(url)
    page.fill("input[name=name]", "trapsync")
    page.fill("input[name=password]", "trapsync")
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"{url}/")
    page.goto(f"{url}/trap/7a3f09c1")
    page.wait_for_load_state("networkidle")
    target.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=target, type="jpeg", quality=75)


if __name__ == "__main__":
    main()
