"""Help with focusing a manual lens: a number that grows with the sharpness in the middle of the picture."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trapsync.cli.common import Trap, with_trap
from trapsync.errors import CameraError
from trapsync.files import durable

if TYPE_CHECKING:
    from trapsync.cameras import Frame
    from trapsync.settings.schema import Camera

_HINT = "Turn the lens slowly until the number is greatest. Ctrl-C ends it, and saves a whole picture."
_WIDTH = 40  # characters: the bar


@click.command(short_help="Show live how sharp the picture is.")
@click.option("--pictures", type=click.IntRange(min=1), metavar="N", help="End after so many pictures.")
@click.option(
    "--still",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to save a whole picture at the end; else focus.jpg in the state folder.",
)
@with_trap
def focus(trap: Trap, pictures: int | None, still: Path | None) -> None:
    """Show live how sharp the middle of the picture is, for a manual-focus lens.

    It needs the camera for itself: stop the daemon first. Its pictures are not delivered.
    """
    from trapsync.cameras import close_up
    from trapsync.trap import holder, lock

    state = trap.settings.storage.state
    if process := holder(state):
        raise CameraError(
            f"the daemon (process {process}) has the camera: stop it (sudo systemctl stop trapsync), focus, "
            f"and start it again (sudo systemctl start trapsync)"
        )
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # its messages would disturb the bar
    with lock(state):
        with (
            suppress(KeyboardInterrupt),
            _noting_ctrl_c() as is_over,
            _opened(trap, close_up(trap.settings.camera)) as take,
        ):
            _watch(take, pictures, is_over)
        click.echo("taking a whole picture ...")
        with _opened(trap, trap.settings.camera) as take:
            click.echo(f"it is in {_saved(take().jpeg, still or state / 'focus.jpg')}")


@contextmanager
def _noting_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C, and do not raise it within a library, some of which swallow it; a second one is raised.

    So it ends this also where it was ignored at the start: in a job in the background, say.
    """
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _opened(trap: Trap, settings: "Camera") -> "Iterator[Callable[[], Frame]]":
    """The camera, as a function that takes a picture."""
    from trapsync import cameras
    from trapsync.hardware.device_id import device_id

    camera = cameras.make(settings, device_id(trap.settings.trap))

    def take() -> "Frame":
        with camera.ready():
            return camera.capture(datetime.fromtimestamp(trap.clock.wall(), UTC))

    try:
        camera.open()
        yield take
    finally:
        camera.close()


def _saved(jpeg: bytes, path: Path) -> Path:
    durable.write(path, [jpeg])
    return path


def _watch(take: "Callable[[], Frame]", pictures: int | None, is_over: Callable[[], bool]) -> None:
    """Take one picture after the other, and show how sharp each is beside the best."""
    from trapsync.jpeg.thumbnail import sharpness

    best = 0.0
    with _display() as show:
        for number in count(1):
            frame = take()
            now = sharpness(frame.jpeg)
            best = max(best, now)
            show(now, best, frame)
            if number == pictures or is_over():
                return


@contextmanager
def _display() -> "Iterator[Callable[[float, float, Frame], None]]":
    """Show a moving bar on a terminal; a line for each picture elsewhere."""
    if not sys.stdout.isatty():
        yield lambda now, best, frame: click.echo(f"sharpness {now:.2f}, best {best:.2f}{_lens(frame)}")
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live("waiting for the first picture ...", console=console, auto_refresh=False) as live:
        yield lambda now, best, frame: live.update(_drawn(now, best, frame), refresh=True)


def _drawn(now: float, best: float, frame: "Frame") -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    share = now / best if best else 0.0
    colour = "green" if share > 0.95 else "yellow" if share > 0.7 else "red"
    line = Table.grid(padding=(0, 2))
    line.add_row(
        Text("sharpness"),
        Text(f"{now:7.2f}", style=f"bold {colour}"),
        ProgressBar(total=1.0, completed=share, width=_WIDTH, complete_style=colour, finished_style=colour),
        Text(f"best {best:.2f}{_lens(frame)}"),
    )
    return Group(line, Text(_HINT, style="dim"))


def _lens(frame: "Frame") -> str:
    """What to write into the settings so that a lens with a motor stays where it is."""
    return "" if frame.lens_position is None else f", lens_position = {frame.lens_position:.2f}"


COMMANDS = (focus,)
