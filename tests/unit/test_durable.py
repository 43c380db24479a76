"""A file that was written is on the storage with its name, or its writer is told that it is not."""

import errno
import os
from pathlib import Path

import pytest

import flushes
from trapsync.errors import StorageError
from trapsync.files import durable


def test_a_file_whose_content_cannot_be_flushed_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes.fail(monkeypatch, errno.EIO, of_folders=False)
    with pytest.raises(StorageError, match="input/output error"):
        durable.write(tmp_path / "c.bin", [b"1"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_cannot_be_flushed_is_not_said_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes.fail(monkeypatch, errno.EIO, of_folders=True)
    with pytest.raises(StorageError, match="input/output error"):
        durable.write(tmp_path / "c.bin", [b"1"])
    assert [path.name for path in tmp_path.iterdir() if path.read_bytes() != b"1"] == []


def test_a_folder_that_cannot_be_flushed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes.fail(monkeypatch, errno.EIO, of_folders=True)
    with pytest.raises(OSError, match="Input/output error"):
        durable.flush_folder(tmp_path)


def test_a_file_its_name_and_the_name_of_each_new_folder_above_it_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = flushes.Flushes(monkeypatch)
    durable.write(tmp_path / "a" / "b" / "c.bin", [b"1", b"23"])
    assert flushed.has_content(tmp_path / "a" / "b" / "c.bin")
    for name in ("a/b/c.bin", "a/b", "a"):
        assert flushed.has_name(tmp_path / name), name


@pytest.mark.parametrize("name", ["L" * 251 + ".jpg", "\u00e9" * 127, "L" * 138, os.fsdecode(b"\xfc" * 255)])
def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"1", b"2"):
        durable.write(path, [content])
    with pytest.raises(FileExistsError):
        durable.write(path, [b"3"], replace=False, writer=".corrected")
    assert path.read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_name_is_hidden_short_and_of_one_name_and_writer_only() -> None:
    names = [letter * length for letter in "ab" for length in (1, 137, 138, 200, 255)]
    temporary = {
        durable.temporary_name(name, writer) for name in names for writer in ("", ".corrected", ".0a1b2c3d")
    }
    assert len(temporary) == 30
    for name in temporary:
        assert name.startswith(".")
        assert name.endswith(".part")
        assert len(name) <= 143
