"""The hands of a turn of deliveries: threads that send several images at once, and their signs of life."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from trapsync.destinations import Receipt
from trapsync.image import Image
from trapsync.settings.schema import Destination

_LOOK_AGAIN = 0.1  # seconds


class ManyHands:
    """Send with so many threads; the next image is taken only when one of them is free. For one turn.

    `begun` is told each image that is taken.
    """

    def __init__(self, threads: int, begun: Callable[[Image], object] = lambda _image: None) -> None:
        self._threads = threads
        self._begun = begun
        self._flying: dict[Future[Receipt], Image] = {}

    def __call__(
        self, send: Callable[[Image], Receipt], images: Iterator[Image]
    ) -> Iterator[tuple[Image, Receipt | Exception]]:
        """`pipeline.Hands`: what became of each image, in the order in which they end."""
        flying = self._flying
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="send")
        try:
            while True:
                for image in islice(images, self._threads - len(flying)):
                    self._begun(image)
                    flying[pool.submit(send, image)] = image
                if not flying:
                    break
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    yield flying.pop(future), _outcome(future)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def come_home(self, pause: Callable[[float], object]) -> None:
        """Wait for what is still on its way after a turn that ended in an error; those images stay owed.

        `pause` waits for some seconds; what it raises ends this.
        """
        while not all(future.done() for future in self._flying):
            pause(_LOOK_AGAIN)


def _outcome(future: Future[Receipt]) -> Receipt | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error


class SignsOfTurn:
    """The signs of life of one turn. An image on its way gives none: the larger it is, the longer."""

    def __init__(self, settings: Destination, go_on: Callable[[float], object]) -> None:
        """`go_on` gets the seconds for which the turn may now be silent, beyond the usual."""
        # A send has its own deadlines, and may be begun anew: four times as long, and it hangs.
        self._slowest = min(settings.slowest(), settings.bandwidth / settings.parallel or math.inf) / 4
        self._longest = 0.0
        self._go_on = go_on

    def begun(self, image: Image) -> None:
        """This image is on its way."""
        self._longest = max(self._longest, image.size / self._slowest)
        self.progress()

    def progress(self) -> None:
        """The turn lives."""
        self._go_on(self._longest)
