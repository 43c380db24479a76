"""The README's pictures: scripts/demo on a terminal as an SVG, and the simulated camera's card as a small JPEG."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyvips
from rich.console import Console
from rich.text import Text

from trapsync.cameras.simulated import SimulatedCamera
from trapsync.settings.schema import Camera

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "images"
COLUMNS = 92

# Like rich's own, but for the fonts: a reader's browser is to fetch nothing.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }}
.{unique_id}-title {{ font: bold 18px sans-serif }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""

# What the demonstration's live picture uses of a terminal: it goes up, and takes whole lines away.
CONTROL = re.compile(r"\x1b\[1A|\x1b\[2K|\x1b\[\?25[lh]|\r|\n")


def main() -> None:
    """Make both pictures."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "demo.svg").write_text(terminal(demonstration()), encoding="utf-8")
    (FOLDER / "sticky-card.jpg").write_bytes(sticky_card())
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def demonstration() -> str:
    """Run scripts/demo on a terminal; what it wrote there, control sequences and all."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    demo = subprocess.Popen(["scripts/demo"], cwd=ROOT, env=environment, stdout=its, stderr=its)
    os.close(its)
    written = b""
    with suppress(OSError):  # so a terminal says that nobody writes any more
        while some := os.read(ours, 65536):
            written += some
    if code := demo.wait():
        sys.exit(f"scripts/demo ended with {code}:\n{written.decode()}")
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that stand on the terminal in the end, with their colours."""
    lines, row, last = [""], 0, 0
    for found in CONTROL.finditer(written + "\n"):
        lines[row] += written[last : found.start()]
        last = found.end()
        if found[0] == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif found[0].endswith("A"):
            row -= 1
        elif found[0].endswith("K"):
            lines[row] = ""
    return lines


def terminal(written: str) -> str:
    """The end of the demonstration as an SVG, without the folders of this machine, which are told last."""
    lines = screen(written)
    end = next(number for number, line in enumerate(lines) if line.startswith("pictures:"))
    shown = "\n".join(["$ scripts/demo", *lines[:end]]).rstrip()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown))
    svg = console.export_svg(title="scripts/demo", code_format=SVG, unique_id="demo")
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def sticky_card() -> bytes:
    """What the simulated camera sees on a June morning, small enough for a page."""
    camera = SimulatedCamera(Camera(kind="simulated", resolution=(2028, 1520)), "7a3f09c1")
    camera.open()
    frame = camera.capture(datetime(2026, 6, 23, 10, tzinfo=UTC))
    small = pyvips.Image.thumbnail_buffer(frame.jpeg, 800)
    return bytes(small.jpegsave_buffer(Q=72, optimize_coding=True, strip=True))


if __name__ == "__main__":
    main()
