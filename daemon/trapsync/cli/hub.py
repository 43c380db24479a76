"""The hub: a small receiver for the lab, for a field station, and for trying things out."""

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click

from trapsync.cli.common import start_logging
from trapsync.errors import SettingsError
from trapsync.files.private_memory import keep_memory_private


@click.command(short_help="Run a small receiver for images.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("trapsync-hub"),
    show_default=True,
    help="Where it stores images.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for the whole network.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one."
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, readable=False),
    help="Holds the password of the user trapsync; needed when others can reach the hub.",
)
@click.option(
    "--trap-password-file",
    type=click.Path(path_type=Path, readable=False),
    help="Holds the password of the user trap, for the traps: they can upload, ask and report.",
)
@click.option(
    "--owner-key",
    "keys",
    multiple=True,
    metavar="KEY",
    help="Accept only settings that this key signed, ed25519:…; may be given twice.",
)
def hub(
    folder: Path,
    host: str,
    port: int,
    password_file: Path | None,
    trap_password_file: Path | None,
    keys: tuple[str, ...],
) -> None:
    """Run a small receiver that speaks the Sticky Pi upload protocol.

    For trying trapsync, for the lab, and for a field station that collects from traps on the local Wi-Fi.
    """
    try:
        import fcntl  # noqa: F401 - the hub locks its folder; Windows has no such module

        from trapsync.hub.server import serve
        from trapsync.hub.store import INCOMING
        from trapsync.hub.thumbnails import MAKING
    except ModuleNotFoundError as error:
        if error.name == "fcntl":
            raise SettingsError("the hub runs on Linux and macOS only") from None
        raise SettingsError(
            f"the hub needs {error.name}: run `pipx inject trapsync flask waitress`"
        ) from None
    from trapsync.runtime.hub_examiner import HubExaminer

    start_logging()
    keep_memory_private()
    folder = folder.absolute()
    with closing(HubExaminer(folder / INCOMING, folder / MAKING)) as examiner:
        serve(
            folder,
            host=host,
            port=port,
            password_file=password_file,
            trap_password_file=trap_password_file,
            verify=_verify(keys) if keys else None,
            examiner=examiner,
            say=logging.getLogger("trapsync.hub").info,
        )


def _verify(keys: tuple[str, ...]) -> Callable[[bytes], object]:
    from trapsync.remote import document

    trusted = [document.public_from_text(key, "--owner-key") for key in keys]
    return lambda data: document.verify(data, trusted)


COMMANDS = (hub,)
