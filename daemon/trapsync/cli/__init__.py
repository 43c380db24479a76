"""The commands: one function each, and the only place that prints.

Exit codes: 0 OK, 1 an error or a warning, 2 wrong usage; `status` and `doctor` exit with 0, 1 or 2
for ok, warning and failing. Costly packages are imported by the commands that need them.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trapsync import __version__
from trapsync.cli import (
    deliveries,
    deployment,
    effort,
    export,
    fleet,
    focus,
    hub,
    images,
    join,
    labels,
    settings,
    trap,
    usb_stick,
)
from trapsync.errors import TrapsyncError, printable
from trapsync.files.private_memory import keep_memory_private
from trapsync.settings import config_file


def main() -> None:
    """Run a command. What a person did wrong is one line, never a traceback.

    `once` exits with 3 whatever keeps it from running: its 1 and 2 say how the picture is.
    """
    keep_memory_private()  # passwords and keys are read by most commands
    not_run = 3 if "once" in sys.argv[1:] else 0
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = not_run or error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = not_run or 130
    except TrapsyncError as error:
        click.echo(f"trapsync: {error}", err=True)
        code = not_run or 1
    except PermissionError as error:  # the one system error that a person can always fix
        advice = "no permission; run this as the daemon's user, or with sudo"
        click.echo(printable(f"trapsync: {error.filename or error}: {advice}"), err=True)
        code = not_run or 1
    except BrokenPipeError:  # `trapsync images | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = not_run
    except Exception:
        if not not_run:
            raise
        traceback.print_exc()
        code = not_run
    sys.exit(code if isinstance(code, int) else 0)


class _InSections(click.Group):
    """Lists the commands by what they are about, each section in the order in which they were added."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sections: dict[str, list[click.Command]] = {}

    def add_section(self, title: str, some: Sequence[click.Command]) -> None:
        """Add commands under a title."""
        self.sections[title] = list(some)
        for command in some:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section, its texts below those of the others."""
        width = max(map(len, self.commands))
        for title, some in self.sections.items():
            with formatter.section(title):
                room = formatter.width - width - 6
                rows = [(f"{one.name:<{width}}", one.get_short_help_str(room)) for one in some]
                formatter.write_dl(rows)


@click.group(
    cls=_InSections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", message="trapsync %(version)s")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, readable=False),
    help=f"The config file; else ${config_file.ENVIRONMENT_KEY}, else {config_file.DEFAULT_PATH}.",
)
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Take the pictures of a camera trap, and deliver every one of them.

    The daemon takes pictures, keeps them safe on the card and delivers each one to its destinations.
    The other commands show how that goes, and help where it does not.
    """
    context.obj = config
    if os.environ.get("NO_COLOR"):  # no-color.org
        context.color = False


@click.command(name="help", short_help="Show the help of a command.")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, or of the program."""
    shown = context.find_root()
    for word in words:
        group = shown.command
        found = group.get_command(shown, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"No such command '{word}'.", shown)
        shown = click.Context(found, shown, word)
    click.echo(shown.get_help())


# `trapsync --help` lists them in this order.
cli.add_section(
    "Trap", (*trap.COMMANDS, *deployment.COMMANDS, *focus.COMMANDS, settings.settings_group, *join.COMMANDS)
)
cli.add_section(
    "Images", (*images.COMMANDS, *effort.COMMANDS, *deliveries.COMMANDS, *labels.COMMANDS, *export.COMMANDS)
)
cli.add_section("Remote settings", (fleet.keys, fleet.push, fleet.resend))
cli.add_section("Fleet", (fleet.fleet,))
cli.add_section("Hub", hub.COMMANDS)
cli.add_section("Help", (help_, settings.completion))
for one in usb_stick.COMMANDS:
    cli.add_command(one)
