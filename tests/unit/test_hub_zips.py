"""A zip that is put together as it is read: other programs read it, at whatever pace and in whatever steps it was read."""

import io
import random
import shutil
import subprocess
import zipfile
import zlib
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from waitress.buffers import ReadOnlyFileBasedBuffer

from trapsync.hub.zips import Member, Zip

AT = datetime(2026, 6, 21, 22, 19, 14)


@pytest.fixture
def files() -> dict[str, bytes]:
    """Files of odd lengths and names."""
    sizes = {"a.jpg": 70_001, "empty": 0, "Wiese/ü.jpg": 65_536, "b.jpg": 1}
    return {name: random.Random(name).randbytes(size) for name, size in sizes.items()}


def members(folder: Path, files: dict[str, bytes]) -> list[Member]:
    """The files on the disk."""
    found = []
    for number, (name, data) in enumerate(files.items()):
        path = folder / str(number)
        path.write_bytes(data)
        found.append(Member.of_file(name, path, AT))
    return found


def content(data: bytes) -> dict[str, bytes]:
    """What another program finds in it."""
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.testzip() is None
        assert {info.date_time for info in found.infolist()} == {(2026, 6, 21, 22, 19, 14)}
        return {name: found.read(name) for name in found.namelist()}


def test_a_zip_has_the_length_that_it_said_and_the_files(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = Zip([*members(tmp_path, files), Member.of_text("note.txt", "grüezi\n", AT)])
    data = made.read()
    assert len(data) == made.length == made.tell()
    assert content(data) == {**files, "note.txt": "grüezi\n".encode()}


@pytest.mark.parametrize("seed", range(5))
def test_it_does_not_matter_in_which_steps_it_is_read(
    tmp_path: Path, files: dict[str, bytes], seed: int
) -> None:
    """As waitress reads: some, then back, and on by as much as the network took."""
    made, chance, data = Zip(members(tmp_path, files)), random.Random(seed), b""
    buffer = ReadOnlyFileBasedBuffer(made)
    left = buffer.prepare(made.length)
    while left:
        piece = buffer.get(chance.choice([1, 17, 4096, 18_000, 70_000]))
        sent = chance.randint(1, len(piece))
        data += piece[:sent]
        buffer.skip(sent, True)
        left -= sent
    buffer.close()
    assert content(data) == files
    assert made.length == len(data)


def test_who_begins_at_the_end_gets_the_same_bytes(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = Zip(members(tmp_path, files))
    whole = made.read()
    again = Zip(members(tmp_path, files))
    again.seek(-100, io.SEEK_END)
    assert again.read() == whole[-100:]
    again.seek(0)
    assert again.read() == whole


def test_a_file_that_goes_meanwhile_ends_the_download_and_is_told(
    tmp_path: Path, files: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    made = Zip(members(tmp_path, files))
    (tmp_path / "2").unlink()
    with pytest.raises(FileNotFoundError):
        made.read()
    assert "a download was ended: Wiese/ü.jpg cannot be read" in caplog.text


def test_a_file_that_became_shorter_ends_the_download(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = Zip(members(tmp_path, files))
    (tmp_path / "0").write_bytes(b"short")
    with pytest.raises(OSError, match="shorter"):
        made.read()


def test_a_file_that_grew_is_as_long_as_it_was(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = Zip(members(tmp_path, files))
    with (tmp_path / "3").open("ab") as file:
        file.write(b"more")
    assert content(made.read()) == files


def test_one_file_is_open_at_a_time_and_none_at_the_end(tmp_path: Path, files: dict[str, bytes]) -> None:
    opened = list[IO[bytes]]()

    def watched(member: Member) -> IO[bytes]:
        opened.append(member.open())
        return opened[-1]

    made = Zip([one._replace(open=partial(watched, one)) for one in members(tmp_path, files)])
    while made.read(1000):
        assert sum(not file.closed for file in opened) <= 1
    made.close()
    assert all(file.closed for file in opened)
    assert len(opened) == 3  # of an empty one nothing is read


def test_beyond_four_gigabytes_other_programs_find_the_files() -> None:
    """The directory has 64-bit offsets there. The large file is not read: its checksum is given."""
    large, size = Member("large.jpg", 2**32 - 2, AT, lambda: io.BytesIO()), 2**32 + 100
    made = Zip([large, large._replace(name="second.jpg"), Member.of_text("last.txt", "here", AT)])
    made._sums = {0: 0, 1: 0}
    assert made.length > 2 * size - 200
    with zipfile.ZipFile(made) as found:
        assert found.namelist() == ["large.jpg", "second.jpg", "last.txt"]
        assert found.read("last.txt") == b"here"


def test_more_than_65535_files_are_found() -> None:
    made = Zip([Member.of_text(f"{number}.txt", "x", AT) for number in range(66_000)])
    made._sums = dict.fromkeys(range(66_000), zlib.crc32(b"x"))  # so that only the directory is read
    with zipfile.ZipFile(made) as found:
        assert len(found.namelist()) == 66_000
        assert found.read("65999.txt") == b"x"


def test_a_zip_of_nothing_is_one() -> None:
    made = Zip([])
    with zipfile.ZipFile(io.BytesIO(made.read())) as found:
        assert found.namelist() == []


@pytest.mark.skipif(not shutil.which("unzip"), reason="there is no unzip")
def test_unzip_takes_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "all.zip"
    path.write_bytes(Zip(members(tmp_path, files)).read())
    done = subprocess.run(["unzip", "-t", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "No errors" in done.stdout) == (0, True), done.stdout
