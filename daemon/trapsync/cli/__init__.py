"""The commands: one function each, and the only place that prints.

Exit codes: 0 OK, 1 an error or a warning, 2 wrong usage; `status` and `doctor` exit with 0, 1 or 2
for ok, warning and failing. Costly packages are imported by the commands that need them.
"""

import os
import sys
import traceback
from pathlib import Path

import click

from trapsync import __version__
from trapsync.cli import deliveries, fleet, focus, hub, images, labels, settings, trap, usb_stick
from trapsync.errors import TrapsyncError
from trapsync.settings import config_file


def main() -> None:
    """Run a command. What a person did wrong is one line, never a traceback.

    `once` exits with 3 whatever keeps it from running: its 1 and 2 say how the picture is.
    """
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
        click.echo(f"trapsync: {error.filename or error}: {advice}", err=True)
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


class _InOrder(click.Group):
    """Lists the commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


# The modules of this package bring their COMMANDS, and `trapsync --help` lists them in this order.
for module in (  # one line for each
    trap,
    images,
    deliveries,
    focus,
    labels,
    fleet,
    hub,
    settings,
    usb_stick,
):
    for command in module.COMMANDS:
        cli.add_command(command)
