"""What a CEL expression refers to, read from its tokens without evaluating it.

The evaluator (a Rust extension) reports the names of an expression, but not which fields are selected, where, and what
they are compared with; the readiness check and good messages need that. Grammar: the CEL language definition,
section "Syntax" (github.com/google/cel-spec, doc/langdef.md).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<text>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<number>0x[0-9a-fA-F]+u?|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?u?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
_FOREIGN_ESCAPE = re.compile(r"""\\[^\\"'nrt]""")
"""Escapes that CEL and Python do not read alike; such text is simply not compared."""
_WORDS: Final = {"true": True, "false": False, "null": None}
_COMPARE: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
NO_LITERAL: Final = object()


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its offset in the source."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Ref:
    """A name that an expression uses.

    Attributes:
        path: the name and the fields selected from it (`("triage", "urgency")`).
        at: offset in the source.
        guarded: it stands inside `has(…)`.
        exact: the path ends where the selection ends (no computed index follows).
    """

    path: tuple[str, ...]
    at: int
    guarded: bool = False
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """A path compared with literals: `==`, `!=`, `<`, `<=`, `>`, `>=` (path on the left) or `in`."""

    path: tuple[str, ...]
    op: str
    values: tuple[Any, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What an expression holds."""

    refs: tuple[Ref, ...]
    comparisons: tuple[Comparison, ...]
    calls: tuple[tuple[str, int], ...]
    depth: int
    macro_depth: int


def tokenize(source: str) -> list[Token]:
    """The tokens without white space and comments.

    Raises:
        ValueError: a character begins no token; the second argument is its offset.
    """
    tokens, at = list[Token](), 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise ValueError(f"the character {source[at]!r} has no meaning here", at)
        if found.lastgroup != "space":
            tokens.append(Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return tokens


def literal(token: Token) -> Any:
    """The value of a literal token, or NO_LITERAL."""
    if token.kind == "name":
        return _WORDS.get(token.text, NO_LITERAL)
    if token.kind == "number":
        text = token.text.rstrip("u")
        return int(text, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|[1-9][0-9]*|0", text) else float(text)
    if token.kind == "text" and token.text[0] in "\"'" and not _FOREIGN_ESCAPE.search(token.text):
        return ast.literal_eval(token.text)
    return NO_LITERAL


def scan(source: str) -> Scan:
    """Read an expression that is known to parse. Raises ValueError as `tokenize` does."""
    return _Scanner(tokenize(source)).run()


class _Scanner:
    """One pass over the tokens. `_bound` holds the names that macros bind, with the depth at which they end."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._depth = self._deepest = self._deepest_macro = 0
        self._bound: list[tuple[str, int]] = []
        self._guards: list[int] = []
        self._refs: list[Ref] = []
        self._calls: list[tuple[str, int]] = []
        self._comparisons: list[Comparison] = []

    def run(self) -> Scan:
        """Scan all."""
        index = 0
        while index < len(self._tokens):
            index = self._step(index)
        return Scan(tuple(self._refs), tuple(self._comparisons), tuple(self._calls), self._deepest, self._deepest_macro)

    def _text(self, index: int) -> str:
        return self._tokens[index].text if 0 <= index < len(self._tokens) else ""

    def _step(self, index: int) -> int:
        token = self._tokens[index]
        if token.kind == "op":
            self._bracket(token.text)
            return index + 1
        if token.kind != "name" or token.text in _WORDS or token.text == "in":
            return index + 1
        if self._text(index - 1) == ".":
            if self._text(index + 1) == "(":
                self._call(index)
            return index + 1
        if self._text(index + 1) == "(":
            self._call(index)
            return index + 1
        return self._reference(index)

    def _bracket(self, text: str) -> None:
        if text in "([{":
            self._depth += 1
            self._deepest = max(self._deepest, self._depth)
        elif text in ")]}":
            self._depth -= 1
            self._bound = [(name, depth) for name, depth in self._bound if depth <= self._depth]
            self._guards = [depth for depth in self._guards if depth <= self._depth]

    def _call(self, index: int) -> None:
        token = self._tokens[index]
        self._calls.append((token.text, token.at))
        if token.text == "has":
            self._guards.append(self._depth + 1)
        method = self._text(index - 1) == "."
        if method and token.text in MACROS and self._text(index + 3) == ",":
            self._bound.append((self._text(index + 2), self._depth + 1))
            self._deepest_macro = max(self._deepest_macro, len(self._bound))

    def _reference(self, index: int) -> int:
        first = self._tokens[index]
        path, end, exact = [first.text], index + 1, True
        while True:
            following = self._tokens[end + 1] if end + 1 < len(self._tokens) else None
            if self._text(end) == "." and following is not None and following.kind == "name":
                if self._text(end + 2) == "(":
                    exact = False
                    break
                path.append(following.text)
                end += 2
            elif self._text(end) == "[" and following is not None and self._text(end + 2) == "]":
                key = literal(following)
                if not isinstance(key, str):
                    exact = False
                    break
                path.append(key)
                end += 3
            else:
                exact = self._text(end) != "["
                break
        if all(name != first.text for name, _ in self._bound):
            ref = Ref(tuple(path), first.at, bool(self._guards), exact)
            self._refs.append(ref)
            if exact:
                self._compare(ref, index, end)
        return end

    def _compare(self, ref: Ref, start: int, end: int) -> None:
        op, after = self._text(end), end + 1
        before = self._text(start - 1)
        if op in _COMPARE and before not in ("+", "-", "*", "/", "%", "!"):
            value, stop = self._signed(after)
            if value is not NO_LITERAL and self._ends(stop):
                self._comparisons.append(Comparison(ref.path, op, (value,), ref.at))
        elif op == "in" and self._text(after) == "[" and before not in ("+", "-", "*", "/", "%"):
            values = self._list(after + 1)
            if values is not None:
                self._comparisons.append(Comparison(ref.path, "in", values, ref.at))
        elif before in _COMPARE and op not in ("+", "-", "*", "/", "%", "."):
            value = literal(self._tokens[start - 2]) if start >= 2 else NO_LITERAL
            lead = self._text(start - 3)
            if value is not NO_LITERAL and lead in ("", "(", "&&", "||", "!", "?", ":", ",", "[", "{"):
                self._comparisons.append(Comparison(ref.path, _COMPARE[before], (value,), ref.at))

    def _signed(self, index: int) -> tuple[Any, int]:
        if index >= len(self._tokens):
            return NO_LITERAL, index
        if self._text(index) == "-" and index + 1 < len(self._tokens):
            value = literal(self._tokens[index + 1])
            ok = isinstance(value, int | float) and not isinstance(value, bool)
            return (-value if ok else NO_LITERAL), index + 2
        return literal(self._tokens[index]), index + 1

    def _ends(self, index: int) -> bool:
        return self._text(index) in ("", ")", "]", "}", "&&", "||", "?", ":", ",")

    def _list(self, index: int) -> tuple[Any, ...] | None:
        values = list[Any]()
        while index < len(self._tokens) and self._text(index) != "]":
            value, index = self._signed(index)
            if value is NO_LITERAL:
                return None
            values.append(value)
            if self._text(index) == ",":
                index += 1
            elif self._text(index) != "]":
                return None
        return tuple(values)
