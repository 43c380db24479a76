"""What children answer: data, known records and errors come through as they are, and nothing else comes to life."""

import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pebble.common.types import RemoteException, Result, ResultStatus

from trapsync.errors import DamagedImage, StorageError
from trapsync.image import Evidence, Image
from trapsync.runtime import examiners  # noqa: F401 - it says which records of pebble's are expected
from trapsync.runtime.answers import Answers, Spawn, UnknownError

IMAGE = Image(
    "a.jpg",
    5,
    "m",
    "s",
    4,
    3,
    {"temp": 1.5, "odd": ["x", None]},
    Evidence("boot", 1.0, 2.0, True),
    picture="p",
)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._what = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._what


def answered(answer: object) -> Any:
    """What the daemon reads where a child sends that."""
    ours, theirs = Spawn().Pipe()
    with ours, theirs:
        assert isinstance(ours, Answers)
        theirs.send(answer)
        return ours.recv()


@pytest.mark.parametrize(
    "answer", [IMAGE, None, "text", ("a.jpg", None), Result(ResultStatus.SUCCESS, IMAGE)]
)
def test_what_children_answer_comes_through(answer: object) -> None:
    assert answered(answer) == answer


@pytest.mark.parametrize(
    "error",
    [
        DamagedImage("cut off"),
        StorageError("full"),
        FileNotFoundError(2, "gone", Path("a.jpg")),
        sqlite3.DatabaseError("x"),
    ],
)
def test_errors_come_through(error: Exception) -> None:
    remote = RemoteException(error, "a traceback")  # type: ignore[no-untyped-call] # pebble has no types there
    for one in (answered(error), answered(remote)):
        assert (type(one), one.args, str(one)) == (type(error), error.args, str(error))


def test_the_members_of_an_enum_come_through_as_older_pythons_pickle_them() -> None:
    assert answered(Call(getattr, ResultStatus, "FAILURE")) is ResultStatus.FAILURE


@pytest.mark.parametrize(
    "harm",
    [
        Call(os.system, "touch ran"),
        Call(os.mkdir, "ran"),
        Call(eval, "open('ran', 'w')"),
        Call(getattr, Image, "__init__"),
        Call(pickle.loads, pickle.dumps(Call(os.mkdir, "ran"))),
        Call(SystemExit, 3),
        Call(KeyboardInterrupt),
        os.mkdir,
        [Call(os.mkdir, "ran"), {"key": Call(os.mkdir, "ran")}],
    ],
)
def test_nothing_else_comes_to_life(harm: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = answered(harm)
    parts = [*read, *read[1].values()] if isinstance(read, list) else [read]
    for one in parts:
        assert isinstance(one, UnknownError | dict) or one is UnknownError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x80", b"nonsense", pickle.dumps(IMAGE)[:-3], b"(i)."])
def test_what_is_no_answer_is_an_error_of_the_pipe(content: bytes) -> None:
    ours, theirs = Spawn().Pipe()
    with ours, theirs:
        theirs.send_bytes(content)
        with pytest.raises(OSError, match="nonsense"):
            ours.recv()


def test_an_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trapsync.runtime.answers._LARGEST", 1000)
    with pytest.raises(OSError, match="bad message length"):
        answered(b"x" * 2000)
