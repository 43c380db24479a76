"""Any storage that rclone knows: Google Drive, Nextcloud, OneDrive, SFTP, SMB, FTP and seventy more.

What shapes this module: rclone is a program of its own, of 45 to 70 MB while it runs. So a batch of images is one child
process: links to them in a folder, laid out as they shall lie there, which `rclone copy --immutable` copies; then one
question for names, sizes and checksums, as before each batch. `copyto` is never used: it overwrites, even with
`--immutable`, in all versions until September 2026 (rclone#4921). A checksum is a proof only where the other end
computed it (`remotes.HASHES`); else the receipt is an echo, and no image leaves the card for it. Older versions write
under the final name: where a transfer was cut, a beginning of the image lies there, which is told by its bytes.
"""

import re
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trapsync.destinations import DestinationContext, Finding, Receipt, SimpleDestination, finding
from trapsync.destinations.layouts import Keys, WithLayout
from trapsync.destinations.rclone import child, reasons, remotes, rows
from trapsync.destinations.rclone.rows import OtherBytes, Row, unfit
from trapsync.errors import DeliveryError, Failed, Refused, TrapsyncError, Unreachable, Unresolved, one_line
from trapsync.files import durable, failpoint
from trapsync.image import Image
from trapsync.net import foreign_json
from trapsync.net.http_body import FilePiece, opened

__all__ = ["Rclone", "Settings", "connect"]

_NAME = re.compile(r"[\w.+@][\w .+@-]*")
_CONTROL = re.compile("[\0-\x1f\x7f]")
_LOG = ("--use-json-log", "--log-level", "ERROR")
# It asks nobody, and tries little by itself: what fails is tried again by our own rules.
_ALWAYS = (*_LOG, "--ask-password=false", "--retries", "1", "--low-level-retries", "3", "--contimeout", "30s")
_LIST = ("--no-traverse", "--files-from-raw", "-")
_COPY = (
    "--immutable",
    "--checksum",
    "--copy-links",
    "--transfers",
    "1",
    "--checkers",
    "1",
    "--buffer-size",
    "1M",
)
_QUESTION = ("-R", "--files-only", "--no-modtime", "--no-mimetype", "--checkers", "4")

_QUESTION_WITHIN = 300.0  # seconds
_COPY_WITHIN = 300.0  # and what its bytes take at the slowest rate
_LARGEST_PART = 32_000_000  # bytes of a beginning that are read back
_CHUNK = 256 * 1024
_OLDEST = (1, 60)  # what Debian 12 has; older ones were not tried
_WRITES_ASIDE = (1, 63)  # from here on a file has its name when it is whole


class Settings(WithLayout, frozen=True, kw_only=True):
    """[destinations.NAME] with kind = "rclone"."""

    remote: str
    config_file: Path
    path: str = ""
    binary: str = "rclone"
    transfers: int = 1

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        super().__post_init__()
        if self.transfers != 1:
            raise ValueError("transfers: must be 1: one rclone sends several images, one after another")
        if not _NAME.fullmatch(self.remote_name):
            raise ValueError(
                f'remote: {self.remote!r} is not the name of a remote in the config file of rclone, such as "drive"'
            )
        if _CONTROL.search(self.path) or ".." in self.path.split("/"):
            raise ValueError(f"path: {self.path!r} is no path of a folder there")
        if not self.binary or _CONTROL.search(self.binary):
            raise ValueError("binary: must be the name or the path of a program")

    @property
    def tasks(self) -> int:
        """One child that sends and one that asks, each with the threads that Go gives it: 6 to 8 were seen on 2 cores."""
        return 2 * 10

    @property
    def remote_name(self) -> str:
        """The name of the section."""
        return self.remote.removesuffix(":")

    @property
    def folder(self) -> str:
        """The path in its one spelling."""
        begin = "/" if self.path.startswith("/") else ""
        return begin + "/".join(part for part in self.path.split("/") if part not in {"", "."})


def connect(name: str, settings: Settings, context: DestinationContext) -> "Rclone":
    """Make the destination; rclone is not started yet."""
    return Rclone(name, settings, context)


class Rclone(SimpleDestination):
    """One folder of one remote. One child sends at a time, and one asks."""

    # A question for each name is one request or so; its answer must come while a job may be silent.
    batch = 64
    # With `next_upload`'s bytes: a child for each image would cost more than the image, and more of them would keep a new
    # picture waiting.
    deliver_batch = 16

    def __init__(self, name: str, settings: Settings, context: DestinationContext) -> None:
        self.name = name
        self.settings = settings
        self._context = context
        self._keys = Keys(settings, context)
        self._links = context.state / "rclone" / name
        self._sending, self._asking = threading.Lock(), threading.Lock()
        # Where a beginning of our own image lies, of a transfer that was cut.
        self._parts: set[str] = set()
        self._old_version: bool | None = None
        self._is_clear = False  # of what a crash left
        self._place = ""

    def close(self) -> None:
        """Nothing is held open between calls."""

    def place(self) -> str:
        """The server, account and folder that the config file says today.

        From then on another one is unreachable, until it is asked again which place this is.
        """
        self._place = ""
        self._place = self._remote().place
        return self._place

    def _remote(self) -> remotes.Remote:
        settings = self.settings
        setting = f"destinations.{self.name}.config_file"
        remote = remotes.read(settings.config_file, settings.remote_name, settings.folder, setting)
        if self._place not in {"", remote.place}:
            raise Unreachable(
                f"{settings.config_file} says another place than before: asked again at the next turn"
            )
        return remote

    # --- Asking -----------------------------------------------------------------------------------------

    def find_existing(self, images: Sequence[Image]) -> Mapping[int, Receipt | Exception]:
        """Ask for each under the names that its layouts gave it, all at once."""
        with self._sending:
            if not self._is_clear:
                self._clear()
        names = {image.id: self._keys.all_of(image) for image in images}
        found = self._answers(images, names)
        for image in images:
            answer = found.get(image.id)
            if isinstance(answer, OtherBytes) and self._is_part(image, answer):
                del found[image.id]
        return found

    def confirm(
        self, images: Sequence[Image], at: Mapping[int, str], *, by_bytes: bool = False
    ) -> Mapping[int, Receipt | Exception]:
        """Ask for each where it was put, whatever the layout says now."""
        return self._answers(
            images, {i.id: [at[i.id]] if i.id in at else self._keys.all_of(i) for i in images}
        )

    def _answers(
        self, images: Sequence[Image], names: Mapping[int, Sequence[str]]
    ) -> dict[int, Receipt | Exception]:
        """What is known of each: a receipt under any of its names, else what is in the way under the first of them."""
        remote = self._remote()
        odd = [image for image in images if _CONTROL.search(names[image.id][0])]
        found: dict[int, Receipt | Exception] = {image.id: unfit(names[image.id][0]) for image in odd}
        asked = [image for image in images if image.id not in found]
        there = self._rows({name for image in asked for name in names[image.id]}, remote)
        held = [image for image in asked if any(name in there for name in names[image.id])]
        own = self._own_hashes(held, remote)
        for image in asked:
            answers = [
                self._compare(image, name, there[name], own, remote)
                for name in names[image.id]
                if name in there
            ]
            receipt = next((answer for answer in answers if isinstance(answer, Receipt)), None)
            if receipt:
                found[image.id] = receipt
            elif names[image.id][0] in there:
                found[image.id] = answers[0]
        return found

    def _compare(
        self, image: Image, name: str, row: Row | Failed, own: Mapping[int, str], remote: remotes.Remote
    ) -> Receipt | DeliveryError:
        if isinstance(row, Failed):
            return row
        wanted = own.get(image.id, "")
        if row.size != image.size or (row.hash and wanted and row.hash != wanted):
            return OtherBytes(name, row)
        if not (row.hash and wanted and remote.proves):
            return Receipt(f"echo:{image.sha256}", at=name)
        if remote.hash == "md5":
            return Receipt(f"md5:{image.md5}", at=name)
        # The file with our SHA-256 has the checksum that the other end computed.
        return Receipt(f"sha256:{image.sha256}", {"by": f"{remote.hash}:{row.hash}"}, at=name)

    def _rows(self, names: Iterable[str], remote: remotes.Remote) -> dict[str, Row | Failed]:
        """What lies under these names; Failed where that cannot be asked. Raises Unreachable."""
        wanted = list(dict.fromkeys(name for name in names if not _CONTROL.search(name)))
        if not wanted:
            return {}
        hashes = ["--hash", "--hash-type", remote.hash] if remote.hash else []
        done = self._run("lsjson", self._target(), *_QUESTION, *hashes, *_LIST, names=wanted)
        if not done.code:
            return dict(rows.read(done.output, remote.hash))
        if trouble := reasons.of_question(done, self.settings.remote_name):
            raise trouble
        if not reasons.is_of_one(done):
            raise reasons.of_nothing_done(done, self.settings.remote_name)
        # One of the names is to blame. Today's rclone says which one; of an older one, halves are asked.
        if odd := {one.name: reasons.of_one(done, one.name) for one in done.said if one.name in wanted}:
            return rows.read(done.output, remote.hash) | odd
        if len(wanted) == 1:
            return {wanted[0]: reasons.of_one(done, wanted[0])}
        half = len(wanted) // 2
        return self._rows(wanted[:half], remote) | self._rows(wanted[half:], remote)

    def _own_hashes(self, images: Sequence[Image], remote: remotes.Remote) -> dict[int, str]:
        """Each image's own checksum of the remote's kind, by its id, as far as it is known or its file is here."""
        if remote.hash in {"md5", "sha256", ""}:
            return {image.id: getattr(image, remote.hash) for image in images if remote.hash}
        paths = {self._file(image): image for image in images if not _CONTROL.search(str(self._file(image)))}
        if not paths:
            return {}
        # One reading gives both: bytes of our SHA-256 have this checksum.
        wanted = [str(path).removeprefix("/") for path in paths]
        types = ("--hash", "--hash-type", "sha256", "--hash-type", remote.hash)
        done = self._run("lsjson", "/", *_QUESTION, "--copy-links", *types, *_LIST, names=wanted)
        whole, theirs = rows.read(done.output, "sha256"), rows.read(done.output, remote.hash)
        known: dict[int, str] = {}
        for path, image in paths.items():
            name = str(path).removeprefix("/")
            if name in whole and whole[name].hash == image.sha256:
                known[image.id] = theirs[name].hash
        return known

    def _file(self, image: Image) -> Path:
        return (self._context.spool / image.path).absolute()

    def _is_part(self, image: Image, other: OtherBytes) -> bool:
        """Whether what lies there is a beginning of this very image, which may be replaced: a transfer was cut.

        Its bytes are read back. From then on it is removed when the image is sent.
        """
        size = other.row.size
        if not 0 <= size < min(image.size, _LARGEST_PART + 1):
            return False
        try:
            with self._file(image).open("rb") as file:
                own = file.read(size)
        except OSError:
            return False
        if size:
            done = self._run("cat", self._target(other.name), most=size)
            if done.code and (trouble := reasons.of_all(done, self.settings.remote_name)):
                raise trouble
            if done.code or done.output != own:
                return False
        self._parts.add(other.name)
        return True

    # --- Sending ----------------------------------------------------------------------------------------

    def deliver(self, image: Image, path: Path) -> Receipt:
        """Send one image."""
        answer = self.deliver_all([(image, path)])[image.id]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def deliver_all(self, images: Sequence[tuple[Image, Path]]) -> Mapping[int, Receipt | Exception]:
        """Send several images by one child, and ask what lies there then: whatever rclone says, that counts."""
        answers: dict[int, Receipt | Exception] = {}
        linked: dict[str, Image] = {}
        with self._sending:
            try:
                self._clear()
                for image, path in images:
                    try:
                        linked[self._link(image, path, linked)] = image
                    except (DeliveryError, FileNotFoundError) as error:
                        answers[image.id] = error
                done = self._copy(linked) if linked else None
            finally:
                self._clear()
        if done:
            answers |= self._arrived(linked, done)
        return answers

    def _link(self, image: Image, path: Path, taken: Mapping[str, Image]) -> str:
        """Read an image's file through, and link to it under the name that it will have there."""
        name = self._keys.of(image)
        if _CONTROL.search(name):
            raise unfit(name)
        if name in taken:
            raise Failed("another image of this name is being sent")
        with opened(image, path) as file:
            piece = FilePiece(file, image.size, image.md5)
            while piece.read(_CHUNK):
                pass
        link = self._links / name
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        except OSError as error:
            raise Failed(f"no link to it can be made: {durable.explain(error, link)}") from None
        failpoint.hit("rclone: linked")
        return name

    def _copy(self, linked: Mapping[str, Image]) -> child.Done:
        """Copy what is linked to where it belongs. Raises Unreachable for trouble that is of no single image."""
        remote = self._remote()
        self._keys.remember()
        for name in self._parts & linked.keys():
            self._remove_part(name)
        more = ["--bwlimit", f"{self.settings.bandwidth}B"] if self.settings.bandwidth else []
        if remote.type == "sftp" and self._writes_in_place():
            more.append("--sftp-disable-concurrent-writes")  # what is cut is then a beginning, without holes
        size = sum(image.size for image in linked.values())
        rate = min(self.settings.slowest(), self.settings.bandwidth or self.settings.slowest())
        names = list(linked)
        arguments = ("copy", str(self._links), self._target(), *_COPY, *more, *_LIST)
        done = self._run(*arguments, names=names, within=_COPY_WITHIN + size / rate)
        failpoint.hit("rclone: copied")
        if done.code and (trouble := reasons.of_all(done, self.settings.remote_name)):
            raise trouble
        return done

    def _arrived(self, linked: Mapping[str, Image], done: child.Done) -> dict[int, Receipt | Exception]:
        """Ask about what was sent. What is not there was not taken: all of it, or one of them."""
        answers = dict(self.find_existing(list(linked.values())))
        for name, image in linked.items():
            if image.id not in answers and name in self._parts:
                answers[image.id] = Unresolved(
                    "a beginning of it lies there, of a transfer that was cut; it is sent again"
                )
            elif image.id not in answers:
                answers[image.id] = reasons.of_one(done, name)
        is_of_one = any(one.name in linked for one in done.said)
        is_known = any(isinstance(one, Receipt | Refused | Unresolved) for one in answers.values())
        if done.code and not is_of_one and not is_known:
            raise reasons.of_nothing_done(done, self.settings.remote_name)
        return answers

    def _remove_part(self, name: str) -> None:
        """Remove a beginning of our own image, which is about to be sent whole."""
        done = self._run("deletefile", self._target(name))
        failpoint.hit("rclone: part removed")
        if done.code and (trouble := reasons.of_all(done, self.settings.remote_name)):
            raise trouble
        self._parts.discard(name)

    def _clear(self) -> None:
        """Remove the links, those that a crash left too."""
        shutil.rmtree(self._links, ignore_errors=True)
        self._is_clear = True
        failpoint.hit("rclone: links removed")

    # --- The child --------------------------------------------------------------------------------------

    def _target(self, name: str = "") -> str:
        """What rclone calls the folder there, or a file in it. The slash says that it is a folder, and no key of S3's."""
        folder = self.settings.folder
        slash = "/" if folder and not folder.endswith("/") else ""
        return f"{self.settings.remote_name}:{folder}{slash}{name}"

    def _run(
        self,
        *arguments: str,
        names: Sequence[str] = (),
        within: float = _QUESTION_WITHIN,
        most: int = rows.LARGEST,
    ) -> child.Done:
        """Run rclone; `names` are what it is given as a list."""
        always = ("--config", str(self.settings.config_file), *_ALWAYS)
        given = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        context, binary = self._context, self.settings.binary
        command = [*arguments[:1], *always, *arguments[1:]]
        if arguments[0] in {"copy", "deletefile"}:
            return child.run(binary, command, given, context.clock, context.sleep, within=within, most=most)
        with self._asking:
            return child.run(binary, command, given, context.clock, context.sleep, within=within, most=most)

    def _version(self) -> tuple[int, ...]:
        done = self._run("version")
        found = re.search(rb"v(\d+)\.(\d+)", done.output)
        if not found:
            raise Unreachable(
                f"{self.settings.binary} does not say its version, as rclone does: {one_line(done.output)}"
            )
        return int(found[1]), int(found[2])

    def _writes_in_place(self) -> bool:
        if self._old_version is None:
            self._old_version = self._version() < _WRITES_ASIDE
        return self._old_version

    # --- The doctor -------------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        """Whether rclone is there and new enough, and the remote known, reachable and not full."""
        try:
            remote, version = self._remote(), self._version()
            self._rows(["trapsync asks whether this is there"], remote)
            room = self._room()
        except TrapsyncError as error:
            return [finding(self.name, error)]
        shown = ".".join(map(str, version))
        told = "" if remote.proves else "; it computes no checksum itself, so no image leaves the card for it"
        text = f"rclone {shown} reaches {self.settings.remote_name}: ({remote.type}){room}{told}"
        found = [Finding("ok", self.name, text)]
        if version < _OLDEST:
            found.append(
                Finding("warning", self.name, f"rclone {shown} is older than 1.60, and was never tried")
            )
        return found

    def _room(self) -> str:
        """How much room there is, where the remote says."""
        done = self._run("about", f"{self.settings.remote_name}:", "--json")
        try:
            free = foreign_json.decode(done.output, rows.LARGEST).get("free")
        except (ValueError, AttributeError):
            return ""
        return f", {free / 1e9:.1f} GB free" if isinstance(free, int) and not isinstance(free, bool) else ""
