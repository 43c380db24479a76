"""Odd entries of a folder that images are delivered to, and all kinds of oddities with their weights."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import drawings
import odd_pictures
from odd_entries import Entries, Made, at, bind, in_the_way, one_of, write


class Oddities(Entries):
    """Makes entries of the spool and of the stick."""

    last = ""  # the folder to which there is no way

    def manifest(self) -> Made:
        """Something else than a manifest where one belongs, in a folder to which a picture comes."""
        chance, folder = self.chance, self.stick / str(self.number())
        place = folder / "SHA256SUMS"
        folder.mkdir()
        elsewhere = write(self.outside / f"{self.number()}.txt", b"mine\n")
        name = b"a.jpg"
        makers: dict[str, Callable[[], object]] = {
            "a folder": place.mkdir,
            "a link": lambda: place.symlink_to(elsewhere),
            "a pipe": lambda: os.mkfifo(place),
            "NUL bytes": lambda: place.write_bytes(b"\0" * 5000),
            "a long line": lambda: place.write_bytes(b"x" * 100_000),
            "too large": lambda: os.truncate(write(place, b""), 9 * 10**6),
            "odd lines": lambda: place.write_bytes(
                b"# 99999999999999999999 bytes\n" + b"0" * 64 + b"  " + name + b"\n\\\n\xff\n"
            ),
            "lines of Windows": lambda: place.write_bytes(
                b"# 5 bytes\r\n" + b"a" * 64 + b" *" + name + b"\r\n"
            ),
            "a torn line": lambda: place.write_bytes(b"# 12 by"),
            "unreadable": lambda: write(place, b"").chmod(0),
            "its temporary file is a folder": lambda: (folder / ".SHA256SUMS.part").mkdir(),
        }
        what = one_of(chance, makers)
        content = self.image_for(folder)
        return Made(f"a manifest that is none ({what}): {folder.name}", good=[content], aside=[elsewhere])

    def image_for(self, folder: Path) -> bytes:
        """Another program puts an image into the spool whose copy belongs into this folder of the stick; its content."""
        _, content = self.any_whole()
        write(self.spool / folder.name / "a.jpg", content)
        return content

    def in_the_way(self) -> Made:
        """Something where the copy of a picture belongs."""
        folder = self.stick / str(self.number())
        place = folder / "a.jpg"
        folder.mkdir()
        _, content = self.any_whole()
        elsewhere = write(self.outside / f"{self.number()}.jpg", content)
        makers = in_the_way(place, content, elsewhere)
        makers["its temporary file"] = lambda: _temporary(folder).write_bytes(b"x")
        what = one_of(self.chance, makers)
        write(self.spool / folder.name / "a.jpg", content)
        return Made(f"in the way of a copy ({what}): {folder.name}", good=[content], aside=[elsewhere])

    def no_way(self) -> Made:
        """Something where the folder of a picture belongs: it cannot be delivered."""
        chance, folder = self.chance, self.stick / str(self.number())
        self.last = folder.name
        elsewhere = self.outside / str(self.number())
        elsewhere.mkdir()
        makers: dict[str, Callable[[], object]] = {
            "a file": folder.touch,
            "a link to a folder": lambda: folder.symlink_to(elsewhere),
            "a link to nothing": lambda: folder.symlink_to("nowhere"),
            "a pipe": lambda: os.mkfifo(folder),
            "a folder that cannot be read": lambda: folder.mkdir(0),
        }
        what = one_of(chance, makers)
        content = self.image_for(folder)
        return Made(
            f"no way to the folder of a copy ({what}): {folder.name}",
            kept=[content],
            shown=at("stick"),
            undo=lambda: (
                folder.chmod(0o755) if folder.is_dir() and not folder.is_symlink() else folder.unlink()
            ),
        )

    def swapped(self) -> Made:
        """A picture that cannot be delivered, and in whose place is something else once it was taken in."""
        made = self.no_way()
        undo, path = made.undo, self.spool / self.last / "a.jpg"
        makers: dict[str, Callable[[], object]] = {
            "a pipe": lambda: os.mkfifo(path),
            "a folder": path.mkdir,
            "a link to a pipe": lambda: path.symlink_to(self.pipe()),
            "a socket": lambda: bind(path),
        }
        what = self.chance.choice(sorted(makers))
        content = path.read_bytes()

        def swap() -> None:
            path.unlink()
            makers[what]()

        def restore() -> None:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
            path.write_bytes(content)
            assert undo
            undo()

        made.what += f"; then {what} in its place"
        made.later, made.undo = swap, restore
        return made

    def pipe(self) -> Path:
        """A pipe that is in nobody's way."""
        path = self.outside / f"{self.number()}.pipe"
        os.mkfifo(path)
        return path

    def temporary(self) -> Made:
        """A folder under the name that a copy has while it is written."""
        folder = self.stick / str(self.number())
        part = _temporary(folder)
        part.mkdir(parents=True)
        content = self.image_for(folder)
        return Made(
            f"a folder as temporary file of a copy: {part}",
            kept=[content],
            shown=at("stick"),
            undo=part.rmdir,
        )

    def stray(self) -> Made:
        """What has nothing to do with the pictures, at the stick."""
        chance, number = self.chance, self.number()
        make = chance.choice((odd_pictures.name, odd_pictures.no_text))
        path = self.stick / os.fsdecode(make(chance, number))
        match chance.randint(0, 3):
            case 0:
                path.mkdir()
            case 1:
                path.symlink_to(self.spool)
            case 2:
                os.mkfifo(path)
            case _:
                path.write_bytes(b"mine")
        if chance.random() < 0.2:
            with suppress(FileExistsError):
                (self.stick / chance.choice((".trapsync-trial.part", ".trapsync-trial-done.part"))).mkdir()
        return Made(f"of others, on the stick: {str(path)!r}", aside=[path])


def _temporary(folder: Path) -> Path:
    """The name that a copy `a.jpg` has there while it is written."""
    return folder / f".a.jpg.{drawings.DEVICE}.part"


SPOOL = (
    *(
        ("picture", 8),
        ("broken_picture", 6),
        ("changed_picture", 3),
        ("no_text", 4),
        ("dated", 4),
        ("special", 5),
    ),
    *(
        ("folder_like_an_image", 1),
        ("hard_link", 1),
        ("deep", 1),
        ("of_others", 2),
        ("of_no_image", 2),
        ("reserved", 2),
    ),
    *(("large", 1), ("read_only", 1)),
)
STICK = (("manifest", 3), ("in_the_way", 3), ("stray", 2))
# What keeps something good from being taken in or delivered.
KEEPING = (
    ("too_deep", 1),
    ("unreadable", 3),
    ("delivered_to", 1),
    ("no_way", 2),
    ("temporary", 1),
    ("swapped", 2),
)
