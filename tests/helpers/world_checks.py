"""Each check at a door to the outside taken out of a copy of the program: the hostile world must notice.

`scripts/torture --world-checks` copies the tree, takes one check out of the copy, and lets traps live in hostile worlds
until one of them notices, for a bounded number of worlds. The checks are written as the faults of `mutants` are.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mutants
from mutants import Mutant

_TRAPS = 2  # each from a seed of its own
_WORLDS = 5  # of one trap, at most
_LIMIT = 600  # seconds for one trap: worlds that hang have noticed something too
_PATIENCE = "40"  # seconds in which a good picture must arrive


def _check(fault: str, file: str, before: str, after: str) -> Mutant:
    return Mutant(fault, file, before, after, ())


CHECKS = (
    # What the file system holds.
    _check("a name that is no text is examined", "pipeline.py", "if not is_text(path):", "if not path:"),
    _check(
        "a folder's name that is no text is asked for",
        "pipeline.py",
        "catalog.images.known_in(folder) if is_text(folder) else {}",
        "catalog.images.known_in(folder)",
    ),
    _check(
        "a date is taken as it is",
        "spool/scan.py",
        "max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))",
        "status.st_mtime_ns",
    ),
    _check(
        "what is no regular file is taken",
        "spool/scan.py",
        "    if stat.S_ISREG(status.st_mode):\n",
        "    if not stat.S_ISDIR(status.st_mode):\n",
    ),
    _check(
        "a file that cannot be read is nobody's business",
        "pipeline.py",
        "                undecided.unreadable(found, reason, now)\n",
        "                undecided.forget(path)\n",
    ),
    _check(
        "a folder that cannot be listed is nobody's business",
        "spool/scan.py",
        "    seen.unreadable.add(path, reason)\n",
        "",
    ),
    _check(
        "folders of other systems are entered",
        "image.py",
        'name.startswith(".") or name.lower() in OTHERS_FOLDERS',
        'name.startswith(".")',
    ),
    _check(
        "a folder with the mark of a destination is entered",
        "spool/scan.py",
        "if folder and os.path.lexists(",
        "if not folder and os.path.lexists(",
    ),
    _check(
        "a size in pixels is believed",
        "jpeg/examination.py",
        "    if header.width * header.height > MAX_PIXELS:\n",
        "    if header.width * header.height < 0:\n",
    ),
    _check(
        "stray bytes in a header are damage",
        "jpeg/examination.py",
        "    elif not thumbnail.is_whole(full, has_strays=findings.has_strays):\n",
        "    elif findings.has_strays or not thumbnail.is_whole(full, has_strays=False):\n",
    ),
    _check(
        "a value may lie beyond its EXIF block",
        "jpeg/exif/tiff.py",
        "and end <= length",
        "and end >= 0",
    ),
    _check(
        "EXIF that cannot be read is the picture's fault",
        "jpeg/exif/reading.py",
        '        return {"exif": True, "exif_error": f"{type(error).__name__}: {clean(str(error))[:200]}"}, None\n',
        "        raise\n",
    ),
    # What lies on a stick.
    _check(
        "links on a stick are followed",
        "files/folder.py",
        "os.open(name, _FOLDER | _NO_LINK, dir_fd=self.descriptor)\n        except",
        "os.open(name, _FOLDER, dir_fd=self.descriptor)\n        except",
    ),
    _check(
        "what is in the way of a copy is an error of the copy",
        "destinations/directory/__init__.py",
        "        except NotRegular:\n            return False\n        with copy:",
        "        except NotRegular:\n            raise\n        with copy:",
    ),
    _check(
        "an error of one entry is the medium's",
        "destinations/directory/disk_errors.py",
        "    if error.errno in _OF_MEDIUM or (error.errno == errno.ENOSPC and not _has_room(root, size)):\n",
        "    if error.errno:\n",
    ),
    _check(
        "what is called a manifest is opened, whatever it is",
        "destinations/directory/manifest.py",
        '        raise NotOurs("it is no regular file") from None\n',
        "        raise\n",
    ),
    _check(
        "a manifest that cannot be opened is an error",
        "destinations/directory/manifest.py",
        "        if error.errno in _NOT_TO_BE_OPENED:\n",
        "        if not error.errno:\n",
    ),
    # What a server says.
    _check(
        "half a surrogate comes in",
        "net/foreign_json.py",
        "        if _HALF.search(text):\n",
        "        if not text:\n",
    ),
    _check(
        "NaN and endless numbers come in",
        "net/foreign_json.py",
        "parse_constant=odd, parse_float=fraction, parse_int=whole",
        "parse_int=whole",
    ),
    _check(
        "numbers of any size come in",
        "net/foreign_json.py",
        "parse_float=fraction, parse_int=whole",
        "parse_float=fraction",
    ),
    _check(
        "JSON may be of any depth",
        "net/foreign_json.py",
        "    except RecursionError:\n",
        "    except ZeroDivisionError:\n",
    ),
    _check(
        "JSON that is none is an error of ours",
        "net/http_answer.py",
        "        except ValueError as error:\n            raise Unreachable(f",
        "        except KeyError as error:\n            raise Unreachable(f",
    ),
    _check(
        "an answer may be of any shape",
        "net/http_answer.py",
        "        if not isinstance(content, shape):\n",
        "        if content is None:\n",
    ),
    _check(
        "a row of an answer is taken for an object",
        "destinations/stickypi/api.py",
        "        except (TypeError, KeyError, AttributeError, ValueError):\n",
        "        except ValueError:\n",
    ),
    _check(
        "a row without a digest contradicts",
        "destinations/stickypi/api.py",
        '    return text if _DIGEST.fullmatch(text) else ""\n',
        "    return text\n",
    ),
    _check(
        "a token may be anything",
        "destinations/stickypi/api.py",
        "if not isinstance(text, str) or not _TOKEN.fullmatch(text):",
        "if not text:",
    ),
    _check(
        "an odd id is kept",
        "destinations/http_service.py",
        "    return value if is_fit else None\n",
        "    return value\n",
    ),
    _check(
        "the hub takes any heartbeat",
        "hub/fleet.py",
        "            heartbeat.read(content)\n",
        "            pass\n",
    ),
    _check(
        "the hub takes any JSON for a heartbeat",
        "net/heartbeat.py",
        "foreign_json.decode(data, LARGEST, deepest=_DEEPEST, strict=True)",
        "__import__('json').loads(data)",
    ),
    # What comes into the log, and what becomes of an error.
    _check(
        "a record of the log may be several lines",
        "cli/common.py",
        'printable(" | ".join(',
        'str("\\n".join(',
    ),
    _check(
        "a text from outside keeps its control characters",
        "errors.py",
        '    return _CONTROL.sub("?", text)\n',
        "    return text\n",
    ),
    _check(
        "a value that no column holds is bound",
        "catalog/connection.py",
        "        require_storable(",
        "        list(",
    ),
    _check(
        "a document is parsed before it is bounded",
        "remote/document.py",
        "    except ValueError as error:  # not UTF-8",
        "    except KeyError as error:  # not UTF-8",
    ),
)


def run(
    checks: Sequence[Mutant], seed: int, tell: Callable[[str], None], root: Path = mutants.ROOT
) -> list[Mutant]:
    """Take each check out of a copy of the tree by itself, and tell whether the worlds noticed; those that they did not.

    Raises Stale for a check that cannot be taken out, and RuntimeError when the worlds fail without any fault.
    """
    with tempfile.TemporaryDirectory(prefix="trapsync-checks-") as name:
        tree = Path(name) / "tree"
        shutil.copytree(root, tree, ignore=mutants.WITHOUT, symlinks=True)
        for check in checks:  # a stale pattern is told before an hour has passed
            (tree / mutants.PROGRAM / check.file).write_text(mutants.mutate(check, tree), encoding="utf-8")
        # By its content and not by its date: a file is changed and changed back within seconds.
        compiling = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
        subprocess.run([sys.executable, *compiling, "daemon", "tests", "scripts"], cwd=tree, check=True)
        if how := _noticed(tree, seed):
            raise RuntimeError(f"the worlds notice something without any fault: {how}")
        unnoticed = [check for check in checks if not _is_noticed(check, tree, seed, tell)]
    tell(f"{len(checks)} checks taken out: {len(checks) - len(unnoticed)} noticed, {len(unnoticed)} not")
    return unnoticed


def _is_noticed(check: Mutant, tree: Path, seed: int, tell: Callable[[str], None]) -> bool:
    before = mutants.mutate(check, tree)
    began = time.monotonic()
    try:
        how = next(filter(None, (_noticed(tree, seed + number) for number in range(_TRAPS))), None)
    finally:
        (tree / mutants.PROGRAM / check.file).write_text(before, encoding="utf-8")
    word = "noticed" if how else "NOT NOTICED"
    tell(f"{word:<11}  {check.fault} ({check.file}; {how or ''}; {time.monotonic() - began:.0f} s)")
    return how is not None


def _noticed(tree: Path, seed: int) -> str | None:
    """In which world of one trap something was wrong, and what; None if nothing was."""
    command = [sys.executable, "scripts/torture.py", "--world", str(_WORLDS), "--seed", str(seed)]
    environment = os.environ | {
        "PYTHONPATH": f"{tree / 'daemon'}:{tree / 'tests'}:{tree / 'tests' / 'helpers'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOSTILE_LIMIT": _PATIENCE,
    }
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return "it hangs"
    if done.returncode == 0:
        return None
    where = re.search(r"seed \d+, world \d+", done.stderr)
    errors = re.findall(r"^(?:\w+\.)*(?:\w*Error|\w*Exception): .*", done.stderr, re.MULTILINE)
    return f"{where[0] if where else f'seed {seed}'}: {(errors or ['?'])[-1][:160]}"
