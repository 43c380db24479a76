"""Odd entries of a spool and of a folder that images are delivered to, drawn from a `random.Random`.

Each kind makes one entry, and says what it is and what is to become of it: `Made`.
"""

import os
import random
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import drawings
import odd_pictures

# What `status --json` must show as long as something good is kept from being taken in or delivered.
Shown = Callable[[dict[str, Any]], bool]


@dataclass
class Made:
    """One oddity. `good` are contents that must arrive at the stick, `kept` those that cannot as long as it is there.

    `shown` says whether a status tells of `kept`, `undo` takes the obstacle away; `later` is done once it was
    taken in. `broken` are contents that belong into quarantine, `aside` what must stay as it is.
    """

    what: str
    good: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    shown: Shown | None = None
    undo: Callable[[], object] | None = None
    later: Callable[[], object] | None = None
    nobodys: list[bytes] = field(default_factory=list)  # contents that must not arrive anywhere
    left_alone: int = 0  # entries of the spool that are counted as left alone


def not_taken_in(kind: str) -> Shown:
    """Some file or folder of this kind is told."""
    return lambda facts: any(one["kind"] == kind and one["count"] for one in facts["not_taken_in"])


def at(name: str) -> Shown:
    """A destination is told not to take something."""

    def shown(facts: dict[str, Any]) -> bool:
        one = facts["destinations"][name]
        return bool(one["failing"] or one["refused_unseen"] or (one["pending"] and one["last_error"]))

    return shown


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def one_of(chance: random.Random, makers: Mapping[str, Callable[[], object]]) -> str:
    """Make one of these; which one."""
    what = chance.choice(sorted(makers))
    makers[what]()
    return what


def in_the_way(place: Path, content: bytes, elsewhere: Path) -> dict[str, Callable[[], object]]:
    """What may lie where a file with this content belongs, by its name. `elsewhere` has the same content."""
    return {
        "a folder": place.mkdir,
        "a link to nothing": lambda: place.symlink_to("nowhere"),
        "a link to the same bytes": lambda: place.symlink_to(elsewhere),
        "a link to itself": lambda: place.symlink_to(place.name),
        "a pipe": lambda: os.mkfifo(place),
        "an empty file": place.touch,
        "other bytes": lambda: place.write_bytes(content[::-1]),
    }


class Entries:
    """Makes entries. `spool` and `stick` are the folders, `outside` one that is neither."""

    def __init__(self, chance: random.Random, spool: Path, stick: Path, outside: Path) -> None:
        self.chance = chance
        self.spool = spool
        self.stick = stick
        self.outside = outside
        self._number = 0

    # Contents and places

    def number(self) -> int:
        """Another number each time."""
        self._number += 1
        return self._number

    def plain(self) -> bytes:
        """A plain picture."""
        return drawings.plain(seed=self.chance.randint(1, 5))

    def any_whole(self) -> tuple[str, bytes]:
        """What it is, and a picture that is whole."""
        return odd_pictures.whole(self.chance, self.plain())

    def folder(self) -> Path:
        """A folder of the spool, whose name is text."""
        chance, number = self.chance, self.number()
        if chance.random() < 0.4:
            return self.spool
        name = odd_pictures.folder_name(chance, number)
        return self.spool / os.fsdecode(name)

    def file(self) -> Path:
        """A free place for an image, whose name is text."""
        return self.folder() / os.fsdecode(odd_pictures.name(self.chance, self.number()))

    def simple(self, suffix: str = ".jpg") -> Path:
        """A free place of a simple name."""
        return self.spool / f"{self.number()}{suffix}"

    # Of the spool

    def picture(self) -> Made:
        """A whole picture, in whatever is odd about it, under an odd name."""
        what, content = self.any_whole()
        path = write(self.file(), content)
        return Made(f"{what}: {str(path)!r}", good=[content])

    def broken_picture(self) -> Made:
        """No picture."""
        what, content = odd_pictures.broken(self.chance, self.plain())
        path = write(self.file(), content)
        return Made(f"{what}: {str(path)!r}", broken=[content])

    def changed_picture(self) -> Made:
        """One that may be whole or not."""
        what, content = odd_pictures.changed(self.chance, self.plain())
        path = write(self.file(), content)
        return Made(f"{what}: {str(path)!r}")

    def no_text(self) -> Made:
        """A picture whose name, or that of whose folder, is no text."""
        chance, number = self.chance, self.number()
        _, content = self.any_whole()
        folder = os.fsencode(self.spool)
        if chance.random() < 0.4:
            folder += b"/" + odd_pictures.no_text_folder(chance, number)
            path = folder + b"/a.jpg"
        else:
            path = folder + b"/" + odd_pictures.no_text(chance, number)
        place = Path(os.fsdecode(path))
        if place.exists():
            return Made("nothing")
        write(place, content)
        return Made(f"a name that is no text: {path!r}", broken=[content])

    def dated(self) -> Made:
        """A picture of an odd date."""
        _, content = self.any_whole()
        moment = odd_pictures.mtime_ns(self.chance)
        path = write(self.file(), content)
        with suppress(OverflowError, OSError):  # what the file system does not hold
            os.utime(path, ns=(moment, moment))
        return Made(f"a date of {moment} ns: {str(path)!r}", good=[content])

    def special(self) -> Made:
        """A link, a pipe, a socket, a device or a folder under the name of an image."""
        chance, path = self.chance, self.file()
        path.parent.mkdir(parents=True, exist_ok=True)
        elsewhere = write(self.outside / f"{self.number()}.jpg", self.plain())
        makers: dict[str, Callable[[], object]] = {
            "a link to a picture": lambda: path.symlink_to(elsewhere),
            "a link to nothing": lambda: path.symlink_to("nowhere"),
            "a link to itself": lambda: path.symlink_to(path.name),
            "a link to the spool": lambda: path.symlink_to(self.spool),
            "a link to a folder": lambda: path.symlink_to(self.outside),
            "a pipe": lambda: os.mkfifo(path),
            "a socket": lambda: bind(path),
            "an empty folder": path.mkdir,
        }
        if os.geteuid() == 0:
            makers["a device"] = lambda: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        what = one_of(chance, makers)
        counted = int(what != "an empty folder")
        return Made(f"{what}: {str(path)!r}", aside=[path, elsewhere], left_alone=counted)

    def folder_like_an_image(self) -> Made:
        """A folder with the name of an image, and a picture in it."""
        _, content = self.any_whole()
        path = write(self.file() / "a.jpg", content)
        return Made(f"a picture in a folder with the name of one: {str(path)!r}", good=[content])

    def hard_link(self) -> Made:
        """One picture under two names."""
        _, content = self.any_whole()
        first, second = write(self.file(), content), self.file()
        second.parent.mkdir(parents=True, exist_ok=True)
        second.hardlink_to(first)
        return Made(f"one file of two names: {str(first)!r}, {str(second)!r}", good=[content])

    def deep(self) -> Made:
        """A picture deep down."""
        _, content = self.any_whole()
        path = self.simple("")
        for _ in range(self.chance.choice((20, 200))):
            path /= self.chance.choice(("d", "dd", "a b"))
        write(path / "a.jpg", content)
        return Made(f"a picture {len(path.parts)} folders deep", good=[content])

    def too_deep(self) -> Made:
        """A picture deeper than any path leads."""
        _, content = self.any_whole()
        top = self.simple("")
        top.mkdir()
        descriptor = os.open(top, os.O_RDONLY)
        try:
            for _ in range(20):
                os.mkdir("x" * 250, dir_fd=descriptor)
                below = os.open("x" * 250, os.O_RDONLY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            with os.fdopen(os.open("a.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor), "wb") as file:
                file.write(content)
        finally:
            os.close(descriptor)
        return Made(
            f"a picture deeper than a path leads: {top.name}",
            kept=[content],
            shown=not_taken_in("unreadable"),
            undo=lambda: _lift(top, self.spool / f"{top.name}.jpg"),
        )

    def of_others(self) -> Made:
        """A picture in a folder of another system, or a hidden one; or under a hidden name."""
        chance = self.chance
        names = (
            "@eaDir",
            "#recycle",
            "$RECYCLE.BIN",
            "lost+found",
            ".Trash-1000",
            "System Volume Information",
            "__MACOSX",
        )
        place = self.folder() / chance.choice((*names, ".hidden", "@EADIR")) / "x.jpg"
        _, content = self.any_whole()
        path = write(place if chance.random() < 0.8 else self.spool / f".{self.number()}.jpg", content)
        return Made(f"a picture that is left alone: {str(path)!r}", aside=[path], nobodys=[content])

    def of_no_image(self) -> Made:
        """What is no image by its name."""
        chance = self.chance
        suffix = chance.choice(
            (
                ".png",
                ".HEIC",
                ".jpg ",
                ".jpg.",
                ".jpg~",
                ".jpe",
                "",
                ".reason",
                ".sqlite",
                ".part",
                ".jpg\u200b",
            )
        )
        path = write(self.spool / f"{self.number()}{suffix}", chance.choice((b"", self.plain())))
        return Made(f"no image by its name: {str(path)!r}", aside=[path], left_alone=1)

    def reserved(self) -> Made:
        """A file, a folder or a link under a name that the program gives."""
        chance, number = self.chance, self.number()
        name = chance.choice(
            (
                ".trapsync-spool",
                "SHA256SUMS",
                "catalog.sqlite",
                ".0a1b2c3d.x.part",
                ".trapsync-trial.part",
                "state",
            )
        )
        place = self.spool / str(number) / name
        if chance.random() < 0.3:  # what is already there stays as it is
            place = self.spool / ".quarantine" / f"{number}{chance.choice(('.jpg', '.jpg.reason', name))}"
        place.parent.mkdir(parents=True, exist_ok=True)
        makers: dict[str, Callable[[], object]] = {
            "a folder": place.mkdir,
            "a link to itself": lambda: place.symlink_to(place.name),
            "a pipe": lambda: os.mkfifo(place),
            "NUL bytes": lambda: place.write_bytes(b"\0" * 5000),
            "a long line": lambda: place.write_bytes(b"x" * 200_000),
        }
        what = one_of(chance, makers)
        return Made(f"{what} at {str(place)!r}")

    def large(self) -> Made:
        """A file beyond the limit, all of it a hole."""
        path = self.simple()
        with path.open("wb") as file:
            file.write(self.plain()[:300])
            file.truncate(self.chance.choice((100 * 10**6 + 1, 2**40)))
        return Made(f"an enormous file: {path.name}")

    def read_only(self) -> Made:
        """A picture that nobody may write."""
        _, content = self.any_whole()
        path = write(self.file(), content)
        path.chmod(0o444)
        return Made(f"a picture of mode 444: {str(path)!r}", good=[content])

    def unreadable(self) -> Made:
        """A picture that only its owner, another account, may read; or its folder."""
        _, content = self.any_whole()
        path = locked = self.file()
        # It comes unreadable: the daemon may take in what can be read for a moment.
        hidden = write(self.spool.with_name("unreadable"), content)
        mode = stat.S_IMODE(hidden.stat().st_mode)
        hidden.chmod(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden.rename(path)
        if (
            path.parent != self.spool
            and not any(one != path for one in path.parent.iterdir())
            and self.chance.random() < 0.5
        ):
            locked = path.parent
        before = mode if locked == path else stat.S_IMODE(locked.stat().st_mode)
        locked.chmod(0)
        if locked != path:
            path.chmod(mode)
        return Made(
            f"no permission to read {str(locked)!r}",
            kept=[content],
            shown=not_taken_in("unreadable"),
            undo=lambda: locked.chmod(before),
        )

    def delivered_to(self) -> Made:
        """A folder that has the mark of a destination, with a picture in it."""
        _, content = self.any_whole()
        folder = self.simple("")
        write(folder / "a.jpg", content)
        mark = folder / ".trapsync-destination"
        match self.chance.randint(0, 2):
            case 0:
                mark.touch()
            case 1:
                mark.mkdir()
            case _:
                mark.symlink_to("nowhere")
        return Made(
            f"a folder with a mark of a destination: {folder.name}",
            kept=[content],
            shown=not_taken_in("unreadable"),
            undo=lambda: mark.rmdir() if mark.is_dir() and not mark.is_symlink() else mark.unlink(),
        )


def bind(path: Path) -> None:
    """Bind one, whose path may be longer than a socket's address is."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.bind(f"/proc/self/fd/{folder}/{path.name}")
            except OSError:  # still too long
                os.mkfifo(path)
    finally:
        os.close(folder)


def _lift(top: Path, to: Path) -> None:
    """Move the one picture far below a folder to where a path leads."""
    for _, _, names, descriptor in os.fwalk(top):
        if names:
            above = os.open(to.parent, os.O_RDONLY)
            os.rename(names[0], to.name, src_dir_fd=descriptor, dst_dir_fd=above)
            os.close(above)
            return
    raise AssertionError(f"nothing is in {top}")
