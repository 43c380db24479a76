"""The room that is kept back on the card."""

import os
from pathlib import Path

import pytest

from trapsync.catalog.card_reserve import SIZE, Reserve
from trapsync.errors import StorageError


def test_a_reserve_that_was_being_made_when_the_power_went_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "reserve").touch()
    assert not Reserve(tmp_path).tend()
    assert (tmp_path / "reserve").stat().st_size == SIZE


def test_neither_a_pipe_nor_a_link_is_written_in_its_place(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("another's")
    for make in (os.mkfifo, lambda place: place.symlink_to(victim)):
        make(tmp_path / "reserve")
        assert not Reserve(tmp_path).tend()
        (tmp_path / "reserve").unlink()
    assert victim.read_text() == "another's"


def test_without_its_folder_it_says_which_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="state: No such file"):
        Reserve(tmp_path / "state").tend()
