"""The pictures on pages: `/picture/<full|small|mini>/<file name>`."""

from typing import TYPE_CHECKING

from flask import Response, send_file

from trapsync.clock import iso
from trapsync.errors import StorageError
from trapsync.files import durable
from trapsync.hub.links import What
from trapsync.hub.pages.frame import NoSuchPage
from trapsync.hub.store import by_keys
from trapsync.image import parse_name

if TYPE_CHECKING:
    from trapsync.hub.app import Hub

_SIZES: dict[str, What] = {"full": "image", "small": "thumbnail", "mini": "thumbnail-mini"}
_KEPT = "private, max-age=86400"  # by the browser of who is logged in, and by no proxy


class Pictures:
    """Sends pictures; only those that have a row, whatever the address says."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def send(self, size: str, name: str) -> Response:
        """Send a picture, or its small copy; where none can be made, the picture."""
        named = parse_name(name)
        if size not in _SIZES or named is None:
            raise NoSuchPage("There is no such picture.")
        found = list(self._hub.store.find(by_keys([(named.device, iso(named.taken))])))
        if not found:
            raise NoSuchPage("This hub does not have the picture.")
        path, what = self._hub.store.path(found[0]), _SIZES[size]
        try:
            sent = path if what == "image" else self._hub.thumbnails.get(path, what)
            mark = found[0]["md5"] if sent == path else f"{found[0]['md5']}-{size}"
            answer = send_file(sent, mimetype="image/jpeg", etag=mark, conditional=True)
        except FileNotFoundError:
            raise NoSuchPage("The file of this picture is missing at the hub.") from None
        except OSError as error:
            raise StorageError(durable.explain(error, path)) from None
        answer.headers["Cache-Control"] = _KEPT
        return answer
