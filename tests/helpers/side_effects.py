"""What a module changes that lasts, and whether a failpoint stands beside it: read from its source."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

from trapsync.destinations import kinds

_DURABLE = {"rename", "unlink", "fsync", "fdatasync", "flush_folder", "link", "hardlink_to", "rmdir"}
_DURABLE |= {"write_bytes", "write_text", "posix_fallocate"}
# What is flushed there has no name on the card: the doctor measures how long a flush takes.
_WITHOUT_A_TRACE = {"_flushes"}


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls in a function's own body; those of functions inside it are theirs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child
        if not isinstance(child, ast.FunctionDef):
            yield from calls(child)


def hits(call: ast.Call) -> bool:
    """Whether this call is a failpoint."""
    return ast.unparse(call.func) == "failpoint.hit"


def is_durable(call: ast.Call) -> bool:
    """Whether this call changes something that lasts."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    return name in _DURABLE or ast.unparse(call.func) == "os.replace" or "COMMIT" in words


def unnamed(tree: ast.Module) -> list[str]:
    """The functions that do something durable and hit no failpoint."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    functions = [function for function in functions if function.name not in _WITHOUT_A_TRACE]
    return [f.name for f in functions if any(map(is_durable, calls(f))) and not any(map(hits, calls(f)))]


def modules_of(kind: str) -> dict[Path, ast.Module]:
    """The source of a kind of destination, whoever added it: its module, or all in its folder."""
    file = Path(inspect.getfile(cast("ModuleType", kinds.load(kind))))
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def failpoints_of(kind: str) -> set[str]:
    """The failpoints of a kind of destination: those whose names begin with it."""
    nodes = (node for tree in modules_of(kind).values() for node in ast.walk(tree))
    found = (node for node in nodes if isinstance(node, ast.Call) and hits(node))
    names = {call.args[0].value for call in found if isinstance(call.args[0], ast.Constant)}
    return {name for name in names if isinstance(name, str) and name.startswith(f"{kind}: ")}
