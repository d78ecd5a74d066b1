"""What can be known of a workspace's Python files without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightship.core.errors import LoadError
from tightship.workflow.source import MAX_BYTES


@dataclass(frozen=True, slots=True)
class Function:
    """A function at the top of a module."""

    name: str
    line: int
    is_async: bool
    positional: int
    tools: frozenset[str]
    dynamic: bool
    """Whether it, or a helper it calls in its module, calls a tool whose name is not written out."""


@dataclass(frozen=True, slots=True)
class Import:
    """A module that a file imports: its dotted name, how many packages up it is looked for (0: none), the line."""

    name: str
    level: int
    line: int


@dataclass(frozen=True, slots=True)
class PythonFile:
    """A module: its path below the workspace, the name agents use for it, its functions, what it needs to be there."""

    path: str
    module: str
    functions: dict[str, Function]
    imports: tuple[Import, ...] = ()


def read_python(path: Path, name: str, module: str) -> PythonFile:
    """The facts of one file.

    Raises:
        LoadError: unreadable, too large, or not Python.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(
            f"cannot be read: {error.strerror}", file=name, fix="check that it is a readable file"
        ) from None
    if len(data) > MAX_BYTES:
        raise LoadError("the file is larger than 1 MB", file=name, line=1, column=1, fix="move data out of the code")
    try:
        tree = ast.parse(data, filename=name)
    except SyntaxError as error:
        raise LoadError(
            f"this is no Python: {error.msg}",
            file=name,
            line=error.lineno or 1,
            column=error.offset or 1,
            fix="correct the line, or the one above it",
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise LoadError(f"this is no Python: {error}", file=name, line=1, column=1, fix="correct the file") from None
    return PythonFile(name, module, _functions(tree), tuple(_imports(tree.body)))


def _imports(body: Sequence[ast.stmt]) -> Iterator[Import]:
    """What is imported for certain: not where its absence is provided for (`try`), and not for type checkers alone."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(one.name, 0, node.lineno) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [one.name for one in node.names]
            yield from (Import(name, node.level, node.lineno) for name in names)
        elif not isinstance(node, ast.Try | ast.TryStar | ast.If):
            for inner in ("body", "orelse"):
                yield from _imports(getattr(node, inner, ()))
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and node.test.value:
            yield from _imports(node.body)


def _functions(tree: ast.Module) -> dict[str, Function]:
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    tools = {name: _own_tools(node) for name, node in nodes.items()}
    calls = {name: _called(node) & nodes.keys() for name, node in nodes.items()}
    found = dict[str, Function]()
    for name, node in nodes.items():
        reached = _reach(name, calls)
        names = frozenset(tool for one in reached for tool in tools[one][0])
        dynamic = any(tools[one][1] for one in reached)
        positional = len(node.args.posonlyargs) + len(node.args.args)
        found[name] = Function(name, node.lineno, isinstance(node, ast.AsyncFunctionDef), positional, names, dynamic)
    return found


def _reach(name: str, calls: dict[str, set[str]]) -> set[str]:
    """The function and every function of the module that it calls, directly or not."""
    seen, todo = {name}, [name]
    while todo:
        for one in calls[todo.pop()] - seen:
            seen.add(one)
            todo.append(one)
    return seen


def _called(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _own_tools(node: ast.AST) -> tuple[set[str], bool]:
    """The names given to `<something>.tool("name", …)`, and whether one is not a literal."""
    names, dynamic = set[str](), False
    for call in _tool_calls(node):
        first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg in ("name", "tool")), None)
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            names.add(first.value)
        else:
            dynamic = True
    return names, dynamic


def _tool_calls(node: ast.AST) -> Iterator[ast.Call]:
    for one in ast.walk(node):
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr == "tool":
            yield one
