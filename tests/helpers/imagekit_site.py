"""ImageKit's stub as a site of the conformance tests."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fake_time import FakeTime
from fault_server import FaultServer
from imagekit_stub import ImageKit as Stub
from memory_context import SOURCE, context
from trapsync import destinations
from trapsync.destinations import imagekit
from trapsync.destinations.imagekit import ImageKit, Settings


class Account:
    """A site: a fault server in front of an account in memory."""

    def __init__(self, front: FaultServer, stub: Stub, folder: Path) -> None:
        self.front = front
        self.stub = stub
        self.time = FakeTime()
        self.copies = folder / "thumbnails"
        self.can_be_copied = True
        self._key = folder / "private_key"
        self.change_key(stub.key)

    def change_key(self, key: str) -> None:
        """Let the trap's key file say this."""
        self._key.write_text(key + "\n")
        self._key.chmod(0o600)

    def tables(self) -> dict[str, dict[str, Any]]:
        """As an owner would write it."""
        return {"gallery": self.table()}

    def table(self, **more: Any) -> dict[str, Any]:
        """The one table, with more keys."""
        return {
            "kind": "imagekit",
            "private_key_file": str(self._key),
            "url_endpoint": "https://ik.imagekit.io/demo",
            "upload_url": self.front.url,
            "api_url": self.front.url,
            "tags": ["north meadow"],
            "create_fields": True,
            "timeout": "20 s",
            **more,
        }

    def connect(self, **more: Any) -> ImageKit:
        """A destination that delivers there."""
        given = context(self.time, thumbnails=self.copies, can_make_thumbnails=self.can_be_copied)
        settings = destinations.check("gallery", self.table(**more), SOURCE).settings
        assert isinstance(settings, Settings)
        return imagekit.connect("gallery", settings, given)

    def stored(self) -> dict[str, bytes]:
        """What the account holds; nothing was ever overwritten or stored under another name."""
        files = self.stub.files.values()
        assert not [file for file in files if file.versions]
        assert len({file.name for file in files}) == len(files)
        return {file.name: file.content for file in files}

    def broken(self) -> AbstractContextManager[None]:
        """Nobody listens."""
        return self.front.down()

    def fetched(self, url: str) -> tuple[int, bytes]:
        """What somebody gets who follows an address."""
        path = url.removeprefix("https://ik.imagekit.io")
        assert path.startswith("/demo/")
        status, _, content = self.stub(f"GET {path}", {}, b"")
        return status, content
