"""YAML 1.2 files as plain values that know where they stand.

The core schema of YAML 1.2.2 (section 10.3) is used for plain scalars, so `on`, `yes` and dates stay text. Keys are
text, duplicate keys, merge keys and foreign tags are refused, aliases are counted in full, sizes are bounded.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import LoadError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

MAX_BYTES: Final = 1_000_000
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 64
KEPT: Final = 20_000
"""Characters up to which a text's syntax tree is kept, for who opens a workspace again (a drill does at every case)."""

_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NULLS: Final = {"", "~", "null", "Null", "NULL"}
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value")}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def error(self, message: str, *, fix: str | None = None) -> LoadError:
        """A LoadError that points here."""
        return LoadError(message, file=self.file, line=self.line, column=self.column, fix=fix)


class MarkedStr(str):
    """Text from a file. `style` is the YAML style: `""` plain, `'`, `"`, `|` or `>`; `indent` that of a block."""

    __slots__ = ("indent", "mark", "style")

    mark: Mark
    style: str
    indent: int

    def place(self, line: int, column: int) -> Mark:
        """Where a position inside the text (counted from 1) stands in the file; exact except in folded text."""
        start = self.mark
        if self.style == "|":
            return Mark(start.file, start.line + line, self.indent + column)
        if self.style == ">" or line > 1:
            return Mark(start.file, start.line + (1 if self.style == ">" else line - 1), max(self.indent, 0) + 1)
        return Mark(
            start.file, start.line, start.column + column - 1 + (1 if self.style in "'\"" and self.style else 0)
        )


class MarkedDict(dict[str, Any]):
    """A mapping from a file: `keys_at` and `values_at` say where each key and value stands."""

    __slots__ = ("keys_at", "mark", "values_at")

    def __init__(self, mark: Mark | None = None) -> None:
        super().__init__()
        self.mark = mark
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}

    def put(self, key: str, value: Any, key_mark: Mark | None, value_mark: Mark | None) -> None:
        """Set a key and where it stands."""
        self[key] = value
        if key_mark is not None:
            self.keys_at[key] = key_mark
        if value_mark is not None:
            self.values_at[key] = value_mark


class MarkedList(list[Any]):
    """A sequence from a file: `items_at` says where each item stands."""

    __slots__ = ("items_at", "mark")

    def __init__(self, mark: Mark | None = None) -> None:
        super().__init__()
        self.mark = mark
        self.items_at: list[Mark] = []


def mark_of(value: Any) -> Mark | None:
    """Where a value from a file stands, if it says."""
    return getattr(value, "mark", None)


def find_mark(root: Any, path: Iterable[str | int], *, key: bool = False) -> Mark | None:
    """The mark of the deepest part of `path` that exists below `root`.

    Parts that do not exist are passed over. With `key`, the key's own place instead of its value's.
    """
    mark, value = mark_of(root), root
    for part in path:
        if isinstance(value, MarkedDict) and part in value:
            places = value.keys_at if key else value.values_at
            mark, value = places.get(str(part), mark), value[str(part)]
        elif isinstance(value, MarkedList) and isinstance(part, int) and part < len(value):
            mark, value = value.items_at[part], value[part]
    return mark


def plain(value: Any) -> Any:
    """The same value as ordinary dicts, lists and strings."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?` for the nearest known word, else the list of known words (at most 12)."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if not words:
        return "there are none to choose from"
    shown = ", ".join(words[:12])
    return f"use one of: {shown}" + (", …" if len(words) > 12 else "")


def parse_source(data: bytes | str, name: str) -> Any:
    """The content of YAML text, with marks.

    Args:
        data: the text.
        name: what errors call it (its path below the workspace).

    Raises:
        LoadError: larger than 1 MB, not UTF-8, not YAML, or beyond the limits of this loader.
    """
    if len(data) > MAX_BYTES:
        raise LoadError(
            f"the file is larger than {MAX_BYTES // 1000} kB",
            file=name,
            line=1,
            column=1,
            fix="split it, or move data out",
        )
    text = data if isinstance(data, str) else _decode(data, name)
    node = _compose(text, name)
    if node is None:
        raise LoadError("the file is empty", file=name, line=1, column=1, fix="write its content, or delete the file")
    return _Reader(name, text).value(node, 0)


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise LoadError(
            "the file is not UTF-8 text", file=name, line=line, column=column, fix="save it with the encoding UTF-8"
        ) from None


def _tree(text: str) -> Node | None:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).compose(text)


_kept_tree = functools.lru_cache(maxsize=128)(_tree)  # nobody changes a tree: values are made from it anew


def _compose(text: str, name: str) -> Node | None:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        return _kept_tree(text) if len(text) <= KEPT else _tree(text)
    except ReaderError as error:
        position = int(error.position)
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        raise LoadError(
            "the file holds a control character", file=name, line=line, column=column, fix="delete that character"
        ) from None
    except MarkedYAMLError as error:
        raise _yaml_error(error, text, name) from None
    except RecursionError:
        raise LoadError(
            "the file is nested too deeply", file=name, line=1, column=1, fix=f"use at most {MAX_DEPTH} levels"
        ) from None
    except (YAMLError, ValueError) as error:
        raise LoadError(f"this is no YAML: {error}", file=name, line=1, column=1, fix="correct the file") from None


_FIXES: Final = (
    ("cannot start any token", "put the value in quotes if it begins with a special character"),
    ("mapping values are not allowed", "put the text in quotes if it holds ': ', or correct the indentation"),
    ("expected <block end>", "let the items of one list or mapping begin in the same column"),
    ("undefined alias", "quote the text if it begins with '*', or declare the anchor first"),
    ("single document", "keep one document per file: delete the second '---'"),
    ("unexpected end of stream", "close the quote"),
    ("expected ',' or", "close the bracket, or put a comma between the items"),
    ("could not find expected ':'", "write 'key: value'"),
)


def _yaml_error(error: Any, text: str, name: str) -> LoadError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = str(error.problem or error.context or "malformed")
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    if "\t" in source[: len(source) - len(source.lstrip())] or "'\\t'" in problem:
        message, fix = "a tab stands in the indentation", "indent with spaces"
    else:
        message = f"this is no YAML: {problem}"
        said = f"{problem} {error.context or ''}"
        fix = next((advice for hint, advice in _FIXES if hint in said), "correct the line, or the one above it")
    return LoadError(message, file=name, line=line, column=column, fix=fix)


class _Reader:
    """Turns ruamel's nodes into marked values."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.split("\n")
        self._count = 0
        self._open: set[int] = set()

    def _mark(self, node: Node) -> Mark:
        return Mark(self._name, node.start_mark.line + 1, node.start_mark.column + 1)

    def value(self, node: Node, depth: int) -> Any:
        """The node's value."""
        from ruamel.yaml.nodes import MappingNode, ScalarNode

        self._count += 1
        mark = self._mark(node)
        if self._count > MAX_NODES:
            raise mark.error("the file holds too many values (aliases count in full)", fix=f"stay under {MAX_NODES}")
        if depth > MAX_DEPTH:
            raise mark.error("the file is nested too deeply", fix=f"use at most {MAX_DEPTH} levels")
        if isinstance(node, ScalarNode):
            return self._scalar(node, mark)
        if id(node) in self._open:
            raise mark.error("an alias refers to what it stands in", fix="write the value out instead of the alias")
        if str(node.tag) not in (_TAG + "map", _TAG + "seq"):
            raise mark.error(f"the tag {node.tag} is not known here", fix="delete the tag")
        self._open.add(id(node))
        is_mapping = isinstance(node, MappingNode)
        found = self._mapping(node, mark, depth) if is_mapping else self._sequence(node, mark, depth)
        self._open.discard(id(node))
        return found

    def _sequence(self, node: Node, mark: Mark, depth: int) -> MarkedList:
        items = MarkedList(mark)
        for child in node.value:
            items.append(self.value(child, depth + 1))
            items.items_at.append(self._mark(child))
        return items

    def _mapping(self, node: MappingNode, mark: Mark, depth: int) -> MarkedDict:
        found = MarkedDict(mark)
        for key_node, value_node in node.value:
            key_mark = self._mark(key_node)
            if str(key_node.tag) == _TAG + "merge":
                raise key_mark.error("merge keys (<<) are not part of YAML 1.2", fix="write the keys out")
            if isinstance(key_node.value, list):
                raise key_mark.error("a key is text", fix="quote the key, or correct the braces around it")
            key = str(key_node.value)
            if key in found:
                first = found.keys_at[key].line
                raise key_mark.error(
                    f"the key {key!r} stands here twice (first on line {first})", fix="delete one of them"
                )
            found.put(key, self.value(value_node, depth + 1), key_mark, self._mark(value_node))
        return found

    def _scalar(self, node: ScalarNode, mark: Mark) -> Any:
        tag, text, style = str(node.tag), str(node.value), node.style or ""
        if tag not in _PLAIN_TAGS:
            raise mark.error(f"the tag {tag} is not known here", fix="delete the tag")
        explicit_text = tag == _TAG + "str"
        if not style and not explicit_text:
            if text in _NULLS:
                return None
            if text in _BOOLS:
                return _BOOLS[text]
            number = _number(text)
            if number is not None:
                if not -(2**63) <= number < 2**63:
                    raise mark.error(f"the number {text[:24]} is too large", fix="put it in quotes if it is text")
                return number
        if text == "" and not style:
            return None
        return self._text(text, style, mark)

    def _text(self, text: str, style: str, mark: Mark) -> MarkedStr:
        found = MarkedStr(text)
        found.mark, found.style, found.indent = mark, style, 0
        if style in ("|", ">"):
            below = self._lines[mark.line : mark.line + 50]
            first = next((line for line in below if line.strip()), "")
            found.indent = len(first) - len(first.lstrip(" "))
        return found


def _number(text: str) -> int | float | None:
    if _INT.match(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base) if len(text) <= 40 else float(text)
    if _FLOAT.match(text):
        return float(text)
    return None
