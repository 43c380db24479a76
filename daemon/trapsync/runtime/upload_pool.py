"""Threads that send several images to one destination at the same time."""

import math
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from trapsync.clock import Clock
from trapsync.destinations import Receipt
from trapsync.image import Image
from trapsync.settings.schema import Destination

_POLL = 0.1  # seconds


class UploadPool:
    """Send up to `settings.transfers` images at the same time: the `pipeline.Uploads` of one turn."""

    def __init__(self, settings: Destination, clock: Clock) -> None:
        self._threads = settings.transfers
        self._clock = clock
        # A send has its own deadlines, and may be begun anew: at a quarter of the slowest rate it hangs.
        self._min_rate = min(settings.slowest(), settings.bandwidth / settings.transfers or math.inf) / 4
        self._pool = ThreadPoolExecutor(settings.transfers, thread_name_prefix="send")
        self._uploads: dict[Future[Receipt], Image] = {}
        self._late_at: dict[Future[Receipt], float] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more can be started."""
        return len(self._uploads) < self._threads

    @property
    def is_busy(self) -> bool:
        """Whether there is one that `finished` has not returned yet."""
        return bool(self._uploads)

    def start(self, image: Image, send: Callable[[Image], Receipt]) -> None:
        """Send an image in a thread. Its upload is late when it has taken longer than its size allows."""
        late_at = self._clock.monotonic() + image.size / self._min_rate
        upload = self._pool.submit(send, image)
        self._uploads[upload], self._late_at[upload] = image, late_at

    def finished(self, within: float) -> tuple[Image, Receipt | Exception] | None:
        """Wait for one that ends within so many seconds, and return what became of it; None if none does.

        Raises what is no Exception and ended an upload: the daemon stops.
        """
        for upload in wait(self._uploads, within, FIRST_COMPLETED).done:
            del self._late_at[upload]
            return self._uploads.pop(upload), _outcome(upload)
        return None

    def time_left(self) -> float:
        """Seconds until the first one is late, negative when it is; 0 when none is under way."""
        return min(self._late_at.values()) - self._clock.monotonic() if self._late_at else 0.0

    def drain(self, pause: Callable[[float], object]) -> None:
        """Start no more, and wait for those under way after a turn that ended in an error; they stay pending.

        `pause` waits for some seconds; what it raises ends this.
        """
        self._pool.shutdown(wait=False)
        while not all(upload.done() for upload in self._uploads):
            pause(_POLL)


def _outcome(upload: Future[Receipt]) -> Receipt | Exception:
    error = upload.exception()
    if error is None:
        return upload.result()
    if isinstance(error, Exception):
        return error
    raise error
