"""Conditions and mappings in CEL (Common Expression Language), bounded, with places and plain messages.

The scope of an expression: `input.<field>`, `<step or agent>.<field>`, and the ambient names `threshold`, `now()` (a
CEL timestamp) and `context.<key>`, whose values are decided once per use by the frame, recorded, and passed in.
Numbers compare by value whether whole or not; everything else follows the CEL specification.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tightship.core.errors import DataMissing, FormatMismatch, LoadError, WorkException
from tightship.core.ports import Json
from tightship.workflow import _cel, _cel_source
from tightship.workflow._cel import Comparison, Ref
from tightship.workflow.source import Mark, MarkedStr, did_you_mean, mark_of
from tightship.workflow.units import AMBIENT

MAX_LENGTH: Final = 2000
MAX_DEPTH: Final = 32
MAX_MACROS: Final = 2
MAX_LITERAL_DEPTH: Final = 16

_BUILT_IN: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "bytes", "timestamp"}
    | {"duration", "type", "dyn", "has", "now", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek"}
    | {"getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds"}
    | _cel.MACROS
)
_EXTRA: Final = ("min", "max", "sum", "lowerAscii", "upperAscii", "trim", "split", "join", "substring")
"""Pure helpers of the CEL extension libraries that expressions may call; none makes more data than it is given."""

FUNCTIONS: Final = _BUILT_IN | set(_EXTRA)
"""Every function that an expression may call."""

_PLACE = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


@dataclass(frozen=True, slots=True)
class _Compiled:
    program: Any
    roots: frozenset[str]
    selected_only: frozenset[str]
    refs: tuple[Ref, ...]
    comparisons: tuple[Comparison, ...]
    ambient: tuple[str, ...]
    functions: Mapping[str, Callable[..., Any]]


class _Malformed(Exception):
    """The expression is wrong; `at` is the offset, or (line, column) as the evaluator says it."""

    def __init__(self, message: str, fix: str, at: int | tuple[int, int] = 0) -> None:
        self.message, self.fix, self.at = message, fix, at
        super().__init__(message)


@functools.lru_cache(maxsize=4096)
def _compile(source: str) -> _Compiled:
    if len(source) > MAX_LENGTH:
        raise _Malformed(f"the expression is longer than {MAX_LENGTH} characters", "let an agent compute it")
    try:
        tokens = _cel.tokenize(source)
    except ValueError as error:
        raise _Malformed(str(error.args[0]), "close the quotes, and use only CEL's operators", error.args[1]) from None
    scan = _cel.scan(source)
    if scan.depth > MAX_DEPTH:
        raise _Malformed(
            f"the expression nests deeper than {MAX_DEPTH} brackets", "split it, or let an agent compute it"
        )
    if scan.macro_depth > MAX_MACROS:
        raise _Malformed(f"loops nest deeper than {MAX_MACROS} levels", "let an agent compute it")
    program = _program(_cel_source.in_same_columns(source, tokens))
    for name, at in scan.calls:
        if name not in FUNCTIONS:
            raise _Malformed(f"there is no function {name}()", did_you_mean(name, FUNCTIONS), at)
    if any(name in _cel.MACROS for name, _ in scan.calls):
        program = _program(_cel_source.rewrite(source, tokens))
    return _assemble(program, scan)


def _evaluator() -> Any:
    """The CEL library without its own command line, whose imports take longer than everything else here."""
    sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
    import cel

    return cel


def _program(source: str) -> Any:
    cel = _evaluator()

    try:
        return cel.compile(source)
    except ValueError as error:
        found = _PLACE.search(str(error))
        if found is None:
            raise _Malformed("this is no CEL expression", "correct the expression") from None
        line, column, said = int(found.group(1)), int(found.group(2)), found.group(3)
        if "mismatched input '<EOF>'" in said:
            said = "the expression ends too early"
        raise _Malformed(said.partition(" expecting ")[0], "correct the expression here", (line, column)) from None


def _assemble(program: Any, scan: _cel.Scan) -> _Compiled:
    from cel import stdlib

    ambient, roots, bare = set[str](), set[str](), set[str]()
    for ref in scan.refs:
        root = ref.path[0]
        if root == "context":
            if len(ref.path) < 2:
                raise _Malformed("context is not a value by itself", "write context.<key>", ref.at)
            ambient.add(f"context.{ref.path[1]}")
        elif root == "now":
            raise _Malformed("now is a function", "write now()", ref.at)
        elif root == "threshold":
            ambient.add("threshold")
        else:
            roots.add(root)
            if len(ref.path) == 1:
                bare.add(root)
    if any(name == "now" for name, _ in scan.calls):
        ambient.add("now()")
    called = {name for name, _ in scan.calls}
    functions = {name: stdlib.STDLIB_FUNCTIONS[name] for name in _EXTRA if name in called}
    return _Compiled(
        program,
        frozenset(roots),
        frozenset(roots - bare),
        scan.refs,
        scan.comparisons,
        tuple(sorted(ambient)),
        _cel_source.in_order(functions, bool(called & _cel.MACROS)),
    )


class Expression:
    """A CEL expression: its source, where it stands, and what it refers to. Compiled when first needed."""

    __slots__ = ("_ready", "mark", "source")

    def __init__(self, source: str, mark: Mark | None = None) -> None:
        self._ready: _Compiled | None = None
        self.source = str(source)
        self.mark = mark if mark is not None else mark_of(source)
        if isinstance(source, MarkedStr) and mark is None:
            self.source = source  # keeps the style, by which columns inside it are found

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(getattr(other, "source", "")) == str(self.source)

    def __hash__(self) -> int:
        return hash((type(self).__name__, str(self.source)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.source)!r})"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From YAML or Python: text is the source; a number or true/false stands for itself.

        Raises:
            ValueError: it is neither.
        """
        if isinstance(value, Expression):
            return value if isinstance(value, cls) else cls(value.source, value.mark)
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, bool):
            return cls("true" if value else "false")
        if isinstance(value, int | float):
            return cls(repr(value))
        raise ValueError("an expression is text, for example triage.urgency == 'high'")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: str(value.source))
        )

    def place(self, at: int | tuple[int, int] = 0) -> Mark | None:
        """Where an offset, or a (line, column) inside the expression, stands in its file."""
        if isinstance(at, int):
            before = str(self.source)[:at]
            at = (before.count("\n") + 1, at - before.rfind("\n"))
        if isinstance(self.source, MarkedStr):
            return self.source.place(*at)
        return self.mark

    def compile(self) -> None:
        """Compile now.

        Raises:
            LoadError: it is malformed or beyond the bounds; with file, line and column when it came from a file.
        """
        self._compiled()

    def _compiled(self) -> _Compiled:
        if self._ready is not None:
            return self._ready
        try:
            self._ready = _compile(str(self.source))
            return self._ready
        except _Malformed as error:
            message = f"in the expression {_clip(self.source)!r}: {error.message}"
            mark = self.place(error.at)
            raise (mark.error(message, fix=error.fix) if mark else LoadError(message, fix=error.fix)) from None

    @property
    def names(self) -> frozenset[str]:
        """The names it takes from the scope (`input`, steps), without ambient ones."""
        return self._compiled().roots

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Every name with the fields selected from it."""
        return self._compiled().refs

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every path that is compared with literals."""
        return self._compiled().comparisons

    @property
    def ambient(self) -> tuple[str, ...]:
        """The ambient names it uses, sorted: `threshold`, `now()`, `context.<key>`."""
        return self._compiled().ambient

    def evaluate(self, scope: Mapping[str, Json], ambient: Mapping[str, Json] | None = None) -> Json:
        """Its value as JSON.

        Args:
            scope: `input` and the bound names.
            ambient: the decided values by the names in `ambient`; `now()` in seconds since the epoch.

        Raises:
            DataMissing: a name or field that it uses is not there; the message says which.
            FormatMismatch: the values' types do not fit the operators, or the result is not JSON.
        """
        compiled = self._compiled()
        names = {name: scope[name] for name in compiled.roots if name in scope}
        for name in compiled.selected_only - names.keys():
            names[name] = _NOTHING  # so that has(step.field) is false for a step that has not run
        _add_ambient(names, compiled.ambient, ambient or {})
        try:
            return _as_json(compiled.program.execute(_context(names, compiled.functions)))
        except WorkException:
            raise
        except Exception as error:
            raise self._explain(error, compiled, scope) from None

    def _explain(self, error: Exception, compiled: _Compiled, scope: Mapping[str, Json]) -> WorkException:
        where, source = str(self.mark) if self.mark else None, _clip(self.source)
        if isinstance(error, LookupError | RuntimeError):
            missing = _missing(compiled.refs, scope)
            if missing is None and isinstance(error, LookupError):
                missing = "a list item" if isinstance(error, IndexError) else str(error).strip("'")
            if missing is not None:
                return DataMissing(f"{source!r} needs {missing}, which is not there", needed=missing, where=where)
        said = str(error).partition(". CEL does not")[0].partition(": Check")[0].splitlines()[0]
        return FormatMismatch(f"{source!r} cannot be evaluated: {_clip(said)}", where=where)

    def values(self, scope: Mapping[str, Json]) -> dict[str, Json]:
        """The values that it looks at, by path (`quality.confidence`): why it came out as it did."""
        found = dict[str, Json]()
        for ref in self.refs:
            value: Any = scope.get(ref.path[0], _NOTHING)
            for part in ref.path[1:]:
                value = value.get(part, _NOTHING) if isinstance(value, Mapping) else _NOTHING
            if value is not _NOTHING:
                found[".".join(ref.path)] = value
        return found


_NOTHING: Final[dict[str, Any]] = {}


def _add_ambient(names: dict[str, Any], wanted: tuple[str, ...], given: Mapping[str, Json]) -> None:
    for name in wanted:
        if name not in given:
            raise DataMissing(f"{name} has no value here", needed=name)
        if name == "now()":
            names["now__"] = dt.datetime.fromtimestamp(float(given[name]), dt.UTC)
        elif name.startswith("context."):
            names.setdefault("context", {})[name.partition(".")[2]] = given[name]
        else:
            names[name] = given[name]


def _context(names: dict[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    if not functions:
        return names
    cel = _evaluator()

    return cel.Context(names, dict(functions))


def _missing(refs: tuple[Ref, ...], scope: Mapping[str, Json]) -> str | None:
    """The first path that is used and not there."""
    for ref in refs:
        if ref.path[0] in AMBIENT:
            continue
        value: Any = scope
        for depth, part in enumerate(ref.path):
            if not isinstance(value, Mapping) or (part not in value and depth == 0 and not ref.guarded):
                return ".".join(ref.path[: depth + 1])
            if part not in value:
                if ref.guarded:
                    break
                return ".".join(ref.path[: depth + 1])
            value = value[part]
    return None


def _as_json(value: Any) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FormatMismatch(f"an expression came out as {value}, which is no number in JSON")
        return value
    if isinstance(value, dict):
        names = sorted(value, key=str)  # the evaluator gives them in an order that is another one each time
        return {str(name): _as_json(value[name]) for name in names}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    raise FormatMismatch(f"an expression came out as {type(value).__name__}, which is not JSON")


def _clip(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 120 else line[:119] + "…"


class Condition(Expression):
    """An expression that is true or false."""

    __slots__ = ()

    def evaluate(self, scope: Mapping[str, Json], ambient: Mapping[str, Json] | None = None) -> bool:
        """Whether it holds. Raises as `Expression.evaluate` does, and FormatMismatch when it is neither."""
        found = super().evaluate(scope, ambient)
        if not isinstance(found, bool):
            where = str(self.mark) if self.mark else None
            raise FormatMismatch(f"{_clip(self.source)!r} is a {type(found).__name__}, not true or false", where=where)
        return found


class Values:
    """A mapping from names to expressions (`with:` and `output:` blocks), evaluated together.

    Text is CEL (`reply: respond.text`); a literal text has its own quotes inside (`status: '"solved"'`). Numbers,
    true/false and null stand for themselves; lists and mappings are evaluated item by item. The whole may also be one
    expression that gives an object (`with: account.request`).
    """

    __slots__ = ("entries", "mark", "whole")

    def __init__(self, entries: Mapping[str, Any] | None = None, *, whole: Expression | None = None) -> None:
        self.entries: dict[str, Any] = {str(name): _entry(value, 0) for name, value in (entries or {}).items()}
        self.whole = whole
        self.mark = whole.mark if whole is not None else mark_of(entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and self.source == other.source

    def __hash__(self) -> int:
        return hash(repr(self.source))

    def __repr__(self) -> str:
        return f"Values({self.source!r})"

    @classmethod
    def parse(cls, value: Any) -> Values:
        """From YAML or Python.

        Raises:
            ValueError: it is neither a mapping nor an expression.
        """
        if isinstance(value, Values):
            return value
        if isinstance(value, Mapping):
            bad = next((name for name in value if not isinstance(name, str)), None)
            if bad is not None:
                raise ValueError(f"{bad!r} is no name")
            return cls(value)
        if isinstance(value, str | Expression):
            return cls(whole=Expression.parse(value))
        raise ValueError("write a mapping of names to expressions, for example {reply: respond.text}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.source)
        )

    @property
    def source(self) -> Json:
        """As it is written: a mapping, or one expression's text."""
        return str(self.whole.source) if self.whole is not None else {n: _written(v) for n, v in self.entries.items()}

    def expressions(self) -> Iterator[Expression]:
        """Every expression inside."""
        if self.whole is not None:
            yield self.whole
        yield from _expressions(list(self.entries.values()))

    def entry_mark(self, name: str) -> Mark | None:
        """Where the entry stands, as far as known."""
        first = next(_expressions([self.entries.get(name)]), None)
        return (first.mark if first else None) or self.mark

    def compile(self) -> None:
        """Compile all. Raises LoadError as `Expression.compile` does."""
        for expression in self.expressions():
            expression.compile()

    @property
    def names(self) -> frozenset[str]:
        """The names that it takes from the scope."""
        return frozenset[str]().union(*(expression.names for expression in self.expressions()))

    @property
    def ambient(self) -> tuple[str, ...]:
        """The ambient names that it uses, sorted."""
        return tuple(sorted({name for expression in self.expressions() for name in expression.ambient}))

    def evaluate(self, scope: Mapping[str, Json], ambient: Mapping[str, Json] | None = None) -> dict[str, Json]:
        """The object. Raises as `Expression.evaluate` does."""
        if self.whole is not None:
            found = self.whole.evaluate(scope, ambient)
            if not isinstance(found, dict):
                raise FormatMismatch(f"{_clip(self.whole.source)!r} gives no object of named values")
            return dict(found)
        return {name: _evaluated(value, scope, ambient) for name, value in self.entries.items()}


def _entry(value: Any, depth: int) -> Any:
    if depth > MAX_LITERAL_DEPTH:
        raise ValueError(f"values nest at most {MAX_LITERAL_DEPTH} levels deep")
    if isinstance(value, str | Expression):
        return Expression.parse(value)
    if isinstance(value, Mapping):
        return {str(name): _entry(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_entry(inner, depth + 1) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"{value!r} is no value")


def _written(value: Any) -> Json:
    if isinstance(value, Expression):
        return str(value.source)
    if isinstance(value, dict):
        return {name: _written(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    return value


def _expressions(value: Any) -> Iterator[Expression]:
    if isinstance(value, Expression):
        yield value
    elif isinstance(value, dict):
        yield from _expressions(list(value.values()))
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def _evaluated(value: Any, scope: Mapping[str, Json], ambient: Mapping[str, Json] | None) -> Json:
    if isinstance(value, Expression):
        return value.evaluate(scope, ambient)
    if isinstance(value, dict):
        return {name: _evaluated(inner, scope, ambient) for name, inner in value.items()}
    if isinstance(value, list):
        return [_evaluated(inner, scope, ambient) for inner in value]
    return value
