"""Style sheet, script and icon: files of our own, kept in memory, at addresses that change with their content."""

import hashlib
from pathlib import Path

from flask import Response
from werkzeug.exceptions import NotFound

_FOLDER = Path(__file__).parent / "assets"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT = "public, max-age=31536000, immutable"


class Assets:
    """What a browser fetches beside the pages; the same for everybody."""

    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.is_file()}
        self._versions = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self._files.items()}

    def address(self, name: str) -> str:
        """Where a browser finds a file; with other content it is another address."""
        return f"/assets/{name}?v={self._versions[name]}"

    def send(self, name: str) -> Response:
        """Send a file."""
        if name not in self._files:
            raise NotFound
        kind = f"{_KINDS[Path(name).suffix]}; charset=utf-8"
        return Response(self._files[name], content_type=kind, headers={"Cache-Control": _KEPT})
