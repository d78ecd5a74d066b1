"""What the CEL evaluator gets in place of a source, and of functions, so that an expression has one value.

The evaluator goes through the keys of an object in an order that is another one each time (hashes with a random key);
the CEL language definition leaves the order open. A value that a run computes again on replay must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tightship.workflow._cel import MACROS, Token

_ORDERED: Final = "ordered__"
"""The function that gives the keys of an object sorted, and anything else as it is."""


def rewrite(source: str, tokens: Sequence[Token]) -> str:
    """The source as the evaluator gets it.

    Every call `now()` becomes the variable `now__` in the same columns: the evaluator has functions, but a variable is
    converted once per evaluation and needs no call back into Python. What a macro goes through is put into the function
    `ordered__`: the evaluator goes through the keys of an object in an order that is another one each time.
    """
    return _apply(source, [*_now_edits(tokens), *_order_edits(tokens)])


def in_same_columns(source: str, tokens: Sequence[Token]) -> str:
    """The source as the evaluator gets it to find what is wrong with it: places in it are places in the source."""
    return _apply(source, _now_edits(tokens))


_Edit = tuple[int, int, str]
"""From where to where stands what other text."""


def _apply(source: str, edits: Sequence[_Edit]) -> str:
    parts, last = list[str](), 0
    for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
        parts += [source[last:start], text]
        last = end
    return "".join(parts) + source[last:]


def _now_edits(tokens: Sequence[Token]) -> list[_Edit]:
    found = list[_Edit]()
    for index, token in enumerate(tokens):
        call = tokens[index : index + 3]
        if token.text == "now" and [part.text for part in call[1:]] == ["(", ")"] and _begins(tokens, index):
            end = call[2].at + 1
            found.append((token.at, end, "now__".ljust(end - token.at)))
    return found


def _order_edits(tokens: Sequence[Token]) -> list[_Edit]:
    """`X.map(…)` becomes `ordered__(X).map(…)`, for each macro. What is written as a list has its order."""
    found = list[_Edit]()
    for index in range(2, len(tokens) - 1):
        if tokens[index].text in MACROS and tokens[index - 1].text == "." and tokens[index + 1].text == "(":
            first = _receiver(tokens, index - 2)
            if tokens[first].text == "[" and _opening(tokens, index - 2) == first:
                continue
            start, dot = tokens[first].at, tokens[index - 1].at
            found += [(start, start, f"{_ORDERED}("), (dot, dot, ")")]
    return found


def _receiver(tokens: Sequence[Token], end: int) -> int:
    """Where the operand begins that ends with a token: names, calls, indexes and brackets, divided by dots."""
    start = end
    while True:
        start = _opening(tokens, start)
        before = tokens[start - 1] if start else None
        if before is None:
            return start
        if before.text == ".":
            if start < 2 or not _is_operand(tokens[start - 2]):
                return start - 1  # a name from the root: `.name`
            start -= 2
        elif tokens[start].text in ("(", "[", "{") and _is_operand(before):
            start -= 1  # what is called, or looked up in
        else:
            return start


def _opening(tokens: Sequence[Token], end: int) -> int:
    """The bracket that is closed by a token; a token that closes none stands for itself."""
    depth, at = 0, end
    while True:
        depth += (tokens[at].text in (")", "]", "}")) - (tokens[at].text in ("(", "[", "{"))
        if depth == 0:
            return at
        at -= 1


def _is_operand(token: Token) -> bool:
    """Whether an operand can end with it."""
    return token.text in (")", "]", "}") or (token.kind in ("name", "text", "number") and token.text != "in")


def _begins(tokens: Sequence[Token], index: int) -> bool:
    return index == 0 or tokens[index - 1].text != "."


def in_order(called: Mapping[str, Callable[..., Any]], macros: bool) -> dict[str, Callable[..., Any]]:
    """The functions that an expression calls: each gets objects with their keys sorted.

    Args:
        called: by name. macros: whether it has a macro.
    """
    functions: dict[str, Callable[..., Any]] = {name: _of_sorted(function) for name, function in called.items()}
    return functions | {_ORDERED: _keys} if macros else functions


def _keys(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, dict) else value


def _of_sorted(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: function(*map(_sorted, args))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    return [_sorted(inner) for inner in value] if isinstance(value, list) else value
