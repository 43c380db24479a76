"""Viewers of a hub: each goes through the links and pictures of its pages, again and again, without a pause.

Run as a program: `python -m bench.viewing PORT COUNT COOKIE`. It prints a line when each has had a page, and at the end of
stdin how many pages and pictures they have had.
"""

import http.client
import random
import re
import sys
import threading
from collections.abc import Callable

_LINKS = re.compile(r'(?:href|src)="(/(?:trap|picture|assets)?[^"#]*)"')
_MOST = 500  # links that a viewer keeps in mind


def main() -> None:
    """View until stdin ends."""
    port, count, cookie = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    fetched, began = [0] * count, threading.Barrier(count + 1)
    for number in range(count):

        def note(number: int = number) -> None:
            fetched[number] += 1

        threading.Thread(target=_view, args=(port, cookie, began, note, number), daemon=True).start()
    began.wait()
    print("all have begun", flush=True)
    sys.stdin.read()
    print(sum(fetched), flush=True)


def _view(port: int, cookie: str, began: threading.Barrier, note: Callable[[], None], seed: int) -> None:
    chance, links = random.Random(seed), ["/"]
    line = http.client.HTTPConnection("127.0.0.1", port)
    has_begun = False
    while True:
        place = chance.choice(links)
        line.request("GET", place, headers={"Cookie": cookie})
        answer = line.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{place}: {answer.status}")
        note()
        if not has_begun:
            began.wait()
            has_begun = True
        if answer.headers["Content-Type"].startswith("text/html"):
            found = {link.replace("&amp;", "&") for link in _LINKS.findall(content.decode())}
            links = sorted({*links, *found})[:_MOST] or ["/"]


if __name__ == "__main__":
    main()
