"""Who looks at the pictures that a hub is sent: a process with limits, so that the hub's own decodes none."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trapsync.errors import StorageError
from trapsync.image import Image
from trapsync.jpeg import examination, thumbnail
from trapsync.runtime.examiners import Examiners
from trapsync.runtime.restricted import Rights
from trapsync.settings.schema import Ingest, Storage
from trapsync.settings.units import Duration

_TIMEOUT = 30.0  # seconds for one picture; of 100 MB, a Pi needs some ten
_TASKS = 2000  # most of them without libvips, which creeps; another start takes a fifth of a second of a core
_PATIENCE = 10.0  # seconds until it is one's turn: only a picture that hangs its examiner takes so long


class HubExaminer:
    """One examiner for all threads of a hub, started with the first picture.

    It may read what lies in `incoming` and write into `making`: no stored image, no database.
    """

    def __init__(
        self, incoming: Path, making: Path, look: Callable[[Path, str], Image] | None = None
    ) -> None:
        """`look` is what is done to each file, in the examiner."""
        # An examiner may not ask other programs where libvips is.
        self._look = look or partial(
            examination.examine, believes_sender=bool(thumbnail.missing()), with_digests=False
        )
        self._examiners = Examiners(
            Ingest(timeout=Duration(_TIMEOUT)),
            Storage(spool=incoming, state=making.parent),
            rights=Rights(read=(incoming,), write=(making,)),
            tells_rights=True,
            tasks=_TASKS,
        )
        self._turn = threading.Lock()

    def examine(self, folder: Path, name: str) -> Image:
        """Look at a file that a trap has delivered. Raises as `examination.examine`, and as `_do`."""
        image = self._do(self._look, name)
        if not isinstance(image, Image) or image.path != name:
            raise StorageError("its examiner answered about something else")
        return image

    def make_thumbnails(self, folder: Path, name: str, into: Path) -> None:
        """Make both small copies of a file. Raises as `thumbnail.make`, and as `_do`."""
        self._do(examination.thumbnails, name, into)

    def close(self) -> None:
        """End the examiner, whatever it does."""
        self._examiners.close()

    def _do(self, work: Callable[..., Any], name: str, *more: Any) -> Any:
        """Have it done; DamagedImage where that hung or killed the examiner, TimeoutError where it is busy for long."""
        if not self._turn.acquire(timeout=_PATIENCE):
            raise TimeoutError("the hub is busy with other pictures")
        try:
            return self._examiners.do(work, name, *more)
        finally:
            self._turn.release()
