"""Read a config file, decode its tables, write settings as text, and read secrets.

Whatever is wrong ends as one `SettingsError` of one line: the file, the key, the reason, and for a typing mistake the
nearest key that exists.
"""

import difflib
import errno
import os
import stat
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trapsync.errors import SettingsError
from trapsync.files import durable
from trapsync.settings.messages import dotted, explain
from trapsync.settings.schema import Settings
from trapsync.settings.table import Table
from trapsync.settings.units import Duration, Exposure, Size, exactly

DEFAULT_PATH = Path("/etc/trapsync/trapsync.toml")
_HERE = Path(__file__).resolve().parent
_FIRST_PERSON = 1000  # from this number on the accounts are those of people
_LONGEST_SECRET = 65536  # characters
_MISSING = (
    "there is no such config file; to begin one: trapsync settings example > trapsync.toml, "
    "and name it: --config trapsync.toml"
)
ENVIRONMENT_KEY = "TRAPSYNC_CONFIG"

T = TypeVar("T", bound=Table)


def find(path: Path | None = None) -> Path:
    """The config file to read: the one named, else $TRAPSYNC_CONFIG, else the system's."""
    return path or Path(os.environ.get(ENVIRONMENT_KEY) or DEFAULT_PATH)


def load(path: Path) -> Settings:
    """Read a config file. Paths in it are taken relative to its own folder.

    Raises SettingsError, one line, for whatever is wrong: no such file, no permission, not TOML,
    an unknown key, a wrong type, a value out of range.
    """
    return from_tables(read(path), path)


def read(path: Path) -> dict[str, Any]:
    """The tables of a config file as they stand there, undecoded. Raises SettingsError."""
    return tables(read_text(path), path)


def read_text(path: Path, missing: str = _MISSING) -> str:
    """The text of a config file. Raises SettingsError, with the text `missing` where there is no such file."""
    try:
        return path.read_text(encoding="utf-8-sig")  # an editor of Windows may have put a mark in front
    except FileNotFoundError:
        raise SettingsError(f"{path}: {missing}") from None
    except PermissionError:
        raise SettingsError(
            f"{path}: no permission to read it; run this as the daemon's user, or with sudo"
        ) from None
    except IsADirectoryError:
        raise SettingsError(f"{path}: is a folder; name the config file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text; save it as UTF-8"
        raise SettingsError(f"{path}: cannot be read: {reason}") from None


def from_tables(content: dict[str, Any], path: Path) -> Settings:
    """Decode the tables of the config file at `path`; paths in them are relative to its folder."""
    return rooted(decode(content, Settings, path), path.absolute().parent)


def replace(path: Path, text: str) -> None:
    """Replace the text of a config file durably; owner, group and mode stay. Raises StorageError."""
    file = path.resolve()  # a link stays one
    before = file.stat()
    write_as(file, text, before.st_uid, before.st_gid, stat.S_IMODE(before.st_mode))


def write_as(path: Path, text: str, user: int, group: int, mode: int) -> None:
    """Write a file durably that has this owner, group and mode before it has its name. Raises StorageError."""

    def give(temporary: Path) -> None:
        now = temporary.stat()
        if (now.st_uid, now.st_gid) != (user, group):
            os.chown(temporary, user, group)
        temporary.chmod(mode)

    durable.write(path, [text.encode()], verify=give)


def example(*, complete: bool) -> str:
    """The text of a config file to begin with, or of one with every setting and its default."""
    return shipped("trapsync.toml" if complete else "minimal.toml")


def shipped(name: str) -> str:
    """The text of a file of the folder config."""
    # In a wheel the files lie beside this one, in a checkout in the folder config.
    folder = next(one for one in (_HERE, _HERE.parents[2] / "config") if (one / name).is_file())
    return (folder / name).read_text(encoding="utf-8")


def parse(text: str, source: object) -> Settings:
    """Decode the text of a config file; `source` is what errors call it."""
    return decode(tables(text, source), Settings, source)


def tables(text: str, source: object) -> dict[str, Any]:
    """The tables in the text of a config file, undecoded. Raises SettingsError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError(f"{source}: is not TOML: too many brackets in one another") from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise SettingsError(f"{source}: is not TOML: {error}") from None


def decode(table: dict[str, Any], kind: type[T], source: object, at: str = "") -> T:
    """Decode one table into its type: the one parser, for the file, for destinations, for pushes.

    `at` is the dotted path of the table in its file, for the error's text.
    """
    _refuse_unknown(table, kind, source, at)
    try:
        return msgspec.convert(table, kind, dec_hook=_from_toml)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {explain(str(error), table, kind, at)}") from None


def _refuse_unknown(table: dict[str, Any], kind: type[Table], source: object, at: str) -> None:
    """msgspec would refuse an unknown key too, but could not say which one was meant."""
    known = typing.get_type_hints(kind)
    for key, value in table.items():
        where = dotted(at, key)
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise SettingsError(f"{source}: {where}: there is no such setting; {hint}")
        inner = known[key]
        if isinstance(value, list):  # of tables, perhaps
            inner = (*typing.get_args(inner), None)[0]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and isinstance(inner, type) and issubclass(inner, Table):
                _refuse_unknown(one, inner, source, where)


def _from_toml(kind: type, value: object) -> object:
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError("must be a path in quotes")
        if not value or "\0" in value:
            raise ValueError("must not be empty, and hold no zero byte")
        try:
            return Path(value).expanduser()
        except RuntimeError:
            raise ValueError("there is no such user, whose home it could be in") from None
    if issubclass(kind, Duration | Size):
        return kind.parse(value)
    raise NotImplementedError(kind)


def to_text(settings: Table) -> str:
    """Write settings as TOML that `parse` reads back to the same; durations and sizes with their units."""
    return dumped(plain(settings))


def dumped(tables: dict[str, Any]) -> str:
    """Write tables as TOML."""
    import tomli_w

    return tomli_w.dumps(tables)


def plain(value: Any) -> Any:
    """Settings as tables, written as in a config file."""
    if isinstance(value, Table):
        fields = ((key, getattr(value, key)) for key in value.__struct_fields__)
        return {key: plain(inner) for key, inner in fields if inner is not None}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Exposure) and not value:
        return "auto"
    if isinstance(value, Duration | Size):
        return exactly(value)
    return str(value) if isinstance(value, Path) else value


def changed(table: T, **changes: Any) -> T:
    """The same table with other values, which are checked like those of a file: ValueError."""
    return msgspec.structs.replace(table, **changes)


def rooted(table: T, folder: Path) -> T:
    """The same table with relative paths made absolute, from the config file's own folder."""
    changes: dict[str, Any] = {}
    for key in table.__struct_fields__:
        value = getattr(table, key)
        if isinstance(value, Path):
            changes[key] = folder / value
        elif isinstance(value, Table):
            changes[key] = rooted(value, folder)
    return msgspec.structs.replace(table, **changes)


def read_secret(name: Path, key: str) -> str:
    """Read a secret from its file, or from the systemd credential that is called as its key.

    What editors add goes: the newline at the end, as Unix or Windows write it, and a byte order mark.

    Raises SettingsError when it is missing, empty or no text, or when others can read or change it.
    """
    path = _credential(key) or name
    try:
        descriptor = durable.open_plain(path.resolve(), os.O_RDONLY)  # a FIFO would be waited for, for ever
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status, secret = os.fstat(descriptor), file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        reason = f"{key}: the secret {path} cannot be read: {error.strerror}"
        is_closed = error.errno == errno.EACCES and hasattr(os, "geteuid")  # not on Windows
        fix = f"; run: {_closing(path, 0)}" if is_closed else ""
        raise SettingsError(f"{reason}{fix}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{key}: the secret {path} is not UTF-8 text") from None
    if len(secret) > _LONGEST_SECRET:
        raise SettingsError(f"{key}: {path} holds more than a secret")
    if path == name:  # systemd closes a credential itself
        _require_closed(status, path, key)
    if not (secret := secret.removeprefix("\ufeff").rstrip("\r\n")):
        raise SettingsError(f"{key}: the secret {path} is empty")
    return secret


def _credential(key: str) -> Path | None:
    """The systemd credential of this key, if there is one: two files of one name must not be one secret."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, key) if folder and "/" not in key else None
    return path if path and path.exists() else None


def _require_closed(status: os.stat_result, path: Path, key: str) -> None:
    """SettingsError where others than root and we can read or change a secret's file, with the command that fixes it.

    As OpenSSH has it: the file is ours or root's, and nobody else may change it. A group of ours may read it: so
    the daemon's account reads what root has put into /etc/trapsync.
    """
    if not hasattr(os, "geteuid"):  # Windows shows no such thing
        return
    us, mode = os.geteuid(), status.st_mode
    is_foreign = us != 0 and status.st_gid not in {os.getegid(), *os.getgroups()}
    wrong = (
        ("belongs to another user, who can change", us != 0 and status.st_uid not in {us, 0}),
        ("is open, and everybody can read", mode & stat.S_IROTH),
        ("is open, and everybody can change", mode & stat.S_IWOTH),
        ("is open, and its group can change", mode & stat.S_IWGRP),
        ("is open, and a group that is not ours can read", mode & stat.S_IRGRP and is_foreign),
    )
    for what, is_so in wrong:
        if is_so:
            raise SettingsError(f"{key}: the secret {path} {what} it; run: {_closing(path, status.st_uid)}")
    if problem := replaceable(path):
        raise SettingsError(f"{key}: {problem}")


def require_authorities(path: Path, key: str) -> None:
    """SettingsError where a file of certificate authorities is missing, or another user could put others into it."""
    if not path.is_file():
        raise SettingsError(f"{key}: there is no file {path}")
    if problem := replaceable(path):
        raise SettingsError(f"{key}: {problem}")


def replaceable(path: Path) -> str | None:
    """Who else could put another file in the place of this one, and the command against it; None where nobody could.

    As OpenSSH's StrictModes has it: the file and each folder above it are ours or root's, and nobody else may write
    there. A group that is our own, as many systems give one to each user, may write into a folder; and so may everybody
    where nobody can take away what is another's, as in /tmp.
    """
    if not hasattr(os, "geteuid"):
        return None
    us, group = os.geteuid(), os.getegid()
    here, there = path.absolute(), path.resolve()  # a link itself can be replaced, too
    for place in dict.fromkeys((there, *here.parents, *there.parents)):
        try:
            status = place.stat()
        except OSError:  # which is told where it is opened
            continue
        open_to = stat.S_IWOTH if status.st_gid == group and place != there else stat.S_IWOTH | stat.S_IWGRP
        is_open = status.st_mode & open_to and not status.st_mode & stat.S_ISVTX
        if us != 0 and status.st_uid not in {us, 0}:
            fix = (
                f"run: sudo chown root {path}"
                if place == there
                else "move it into a folder of your own, or root's"
            )
            return f"{place} belongs to another user, who can change {path}; {fix}"
        if is_open:
            who = "everybody" if status.st_mode & stat.S_IWOTH else "its group"
            return f"{place} is open, and {who} can change {path}; run: sudo chmod go-w {place}"
    return None


def _closing(path: Path, owner: int) -> str:
    """The command after which we can read a secret, and nobody else but root: ours, or root's with our group."""
    us = os.geteuid()
    sudo = "sudo " if us < _FIRST_PERSON else ""  # nobody logs in as the daemon's account
    if owner == us:
        return f"{sudo}chmod 600 {path}"
    return f"sudo chown root:{durable.group()} {path} && sudo chmod 640 {path}"
