"""Threads that send several images to one destination at the same time."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from trapsync.clock import Clock
from trapsync.destinations.outcomes import Outcome, Send
from trapsync.image import Image
from trapsync.settings.schema import Destination

_POLL = 0.1  # seconds


class UploadPool:
    """Make up to `settings.transfers` uploads at the same time: the `pipeline.Uploads` of one turn."""

    def __init__(self, settings: Destination, clock: Clock) -> None:
        self._threads = settings.transfers
        self._clock = clock
        # A send has its own deadlines, and may be begun anew: at a quarter of the slowest rate it hangs.
        self._min_rate = min(settings.slowest(), settings.bandwidth / settings.transfers or math.inf) / 4
        self._pool = ThreadPoolExecutor(settings.transfers, thread_name_prefix="send")
        self._uploads: dict[Future[Mapping[int, Outcome]], Sequence[Image]] = {}
        self._late_at: dict[Future[Mapping[int, Outcome]], float] = {}
        self._ended: deque[tuple[Image, Outcome]] = deque()

    @property
    def has_room(self) -> bool:
        """Whether one more upload can be started."""
        return len(self._uploads) < self._threads

    @property
    def is_busy(self) -> bool:
        """Whether there is an image that `finished` has not returned yet."""
        return bool(self._uploads or self._ended)

    def start(self, images: Sequence[Image], send: Send) -> None:
        """Send images in a thread. Their upload is late when it has taken longer than their sizes allow."""
        late_at = self._clock.monotonic() + sum(image.size for image in images) / self._min_rate
        upload = self._pool.submit(send, images)
        self._uploads[upload], self._late_at[upload] = images, late_at

    def finished(self, within: float) -> tuple[Image, Outcome] | None:
        """Wait for an upload that ends within so many seconds; what became of one of its images. None if none does.

        Raises what is no Exception and ended an upload: the daemon stops.
        """
        if not self._ended:
            for upload in wait(self._uploads, within, FIRST_COMPLETED).done:
                del self._late_at[upload]
                self._ended += _outcomes(self._uploads.pop(upload), upload)
        return self._ended.popleft() if self._ended else None

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


def _outcomes(
    images: Sequence[Image], upload: Future[Mapping[int, Outcome]]
) -> Iterator[tuple[Image, Outcome]]:
    """What became of each image of an upload; an error of the upload as a whole is each one's."""
    error = upload.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    for image in images:
        yield image, error or upload.result().get(image.id) or LookupError("its destination did not say")
