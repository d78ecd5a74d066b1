"""Plain async functions as tools: the contract is read from their annotations.

    @tool(effect="read", price="0.001")
    async def exchange_rate(base: str, quote: str) -> float:
        '''Today's rate.'''

A workspace keeps them in `tools/*.py`; the tool's name is `<file>.<function>` unless it states one.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, get_type_hints

from pydantic import ConfigDict, Field, PydanticInvalidForJsonSchema, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from typing_extensions import TypedDict

from tightship.core.errors import (
    InvalidArguments,
    LoadError,
    OutcomeUnknown,
    TightshipError,
    TimedOut,
    Unforeseen,
    WrongShape,
)
from tightship.core.money import to_nano
from tightship.core.ports import Reply, Request, ToolSpec, UndoSpec, Usage

Function = Callable[..., Awaitable[Any]]


class PythonTool:
    """A function with its contract (core.ports.Tool). Called directly it is the function itself.

    Args:
        function: an async function; a parameter annotated `Request` receives the door's request, all others are the
            tool's arguments. It may return a `Reply` to state its own cost and facts.
        spec: its contract.
        arguments: adapter of its arguments as a mapping.
        result: adapter of what it returns, or None when it states nothing.
        request_name: the parameter that takes the request, or None.
        local: it answers from files of the workspace alone.
    """

    def __init__(
        self,
        function: Function,
        spec: ToolSpec,
        arguments: TypeAdapter[Any],
        result: TypeAdapter[Any] | None,
        request_name: str | None,
        local: bool = False,
    ) -> None:
        self._function = function
        self._spec = spec
        self._arguments = arguments
        self._result = result
        self._request_name = request_name
        self.local = local
        self._lookup: Callable[[Request], Awaitable[Reply | None]] | None = None
        self.__doc__ = function.__doc__

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        return self._spec

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call the function as it is, past the door (for its own unit tests)."""
        return self._function(*args, **kwargs)

    def looked_up_by(
        self, function: Callable[[Request], Awaitable[Reply | None]]
    ) -> Callable[[Request], Awaitable[Reply | None]]:
        """Decorator: how to find out whether a write with this request's key was done."""
        from dataclasses import replace

        self._lookup = function
        self._spec = replace(self._spec, can_lookup=True)
        return function

    async def perform(self, request: Request) -> Reply:
        """One call.

        Raises:
            InvalidArguments: the arguments do not fit the annotations.
            WrongShape: a read returned something else than it declares.
            TimedOut: a read took longer than its time-out.
            Unforeseen: a read raised something that is no exception of the work.
            OutcomeUnknown: a write timed out, raised such a thing, or returned something else than it declares.
        """
        given = self._given(request)
        name = self._spec.name
        limit = asyncio.timeout(self._spec.timeout)
        try:
            async with limit:
                value = await self._function(**given)
        except TightshipError:
            raise
        except TimeoutError as error:
            late = limit.expired()
            text = f"{name} did not finish within {self._spec.timeout:g} s" if late else f"{name} raised {_told(error)}"
            raise self._broken(TimedOut if late else Unforeseen, text) from error
        except Exception as error:
            raise self._broken(Unforeseen, f"{name} raised {_told(error)}") from error
        reply = value if isinstance(value, Reply) else Reply(value, self._spec.price)
        return Reply(self._dumped(reply.value), reply.usage, reply.meta)

    async def lookup(self, request: Request) -> Reply | None:
        """Whether the write was done.

        Raises:
            OutcomeUnknown: nothing was declared to find out.
        """
        if self._lookup is None:
            raise OutcomeUnknown(f"{self._spec.name} cannot be looked up", fix="declare one with @TOOL.looked_up_by")
        return await self._lookup(request)

    def _given(self, request: Request) -> dict[str, Any]:
        try:
            given = dict(self._arguments.validate_python(dict(request.args)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidArguments(f"{self._spec.name}: {place}: {first['msg']}") from None
        if self._request_name is not None:
            given[self._request_name] = request
        return given

    def _dumped(self, value: Any) -> Any:
        if self._result is None:
            adapter: TypeAdapter[Any] = TypeAdapter(Any)
        else:
            adapter = self._result
        try:
            checked = adapter.validate_python(value)
            return adapter.dump_python(checked, mode="json")
        except (ValidationError, ValueError, TypeError) as error:
            text = f"{self._spec.name} returned something else than it declares: {_told(error)}"
            if self._spec.effect == "write":
                raise OutcomeUnknown(text) from None
            raise WrongShape(text) from None

    def _broken(self, kind: type[TimedOut] | type[Unforeseen], text: str) -> Exception:
        """A write that broke off may have been done."""
        return OutcomeUnknown(text) if self._spec.effect == "write" else kind(text)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def tool(
    *,
    effect: Literal["read", "write", "model"],
    name: str | None = None,
    price: str | int | float | Decimal | Usage = 0,
    idempotency: Literal["key", "etag", "none"] = "none",
    undo: str | UndoSpec | None = None,
    timeout: float = 30.0,
    cache_seconds: float = 0.0,
    hosts: frozenset[str] = frozenset(),
    requests_per_second: float | None = None,
    hedge: float = 0.0,
    local: bool = False,
    description: str | None = None,
) -> Callable[[Function], PythonTool]:
    """Make an async function a tool.

    Args:
        effect: `read` when it changes nothing outside; a `write` must be safe to call once for each `request.key`.
        name: `service.operation`; `<module>.<function>` without it.
        price: the highest cost of one call in USD, or a whole Usage.
        idempotency: `key` when a second call with the same `request.key` does nothing more.
        undo: the tool that takes it back, if there is one: by name (it is given what its own arguments ask for, from
            the outcome, then from the arguments of the call), or an UndoSpec, which says the arguments.
        timeout: seconds until a call counts as unanswered.
        cache_seconds: how long a read may be answered from cache.
        hosts: the hosts it talks to.
        requests_per_second: the rate that the other side allows.
        hedge: seconds after which a read that was not answered is asked a second time; 0 never.
        local: a read that answers from files of the workspace alone. A drill calls it as it is, where it would put a
            stand-in in the place of any other, and lets it reach nothing else.
        description: what it does; the function's docstring without it.

    Raises:
        LoadError: the function is not async, an annotation has no JSON Schema, `undo` names no tool, or what is
            `local` is no read.
    """
    usage = price if isinstance(price, Usage) else Usage(to_nano(price))

    def decorate(function: Function) -> PythonTool:
        if not inspect.iscoroutinefunction(function):
            raise _at(function, "a tool must be an async function", "write `async def`")
        compensation = _undo_of(undo, effect, function)
        if local and effect != "read":
            raise _at(function, f"a {effect} is not local", 'leave out `local`, or declare `effect="read"`')
        named = name or f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        arguments, request_name = _arguments_of(function)
        result = _result_of(function)
        spec = ToolSpec(
            name=named,
            effect=effect,
            description=description or inspect.cleandoc(function.__doc__ or ""),
            input_schema=_schema_of(arguments.json_schema, function),
            output_schema=None if result is None else _schema_of(lambda: _result_schema(result), function),
            idempotency=idempotency,
            price=usage,
            undo=compensation,
            timeout=timeout,
            cache_seconds=cache_seconds,
            hosts=hosts,
            requests_per_second=requests_per_second,
            hedge=hedge if effect == "read" else 0.0,
        )
        return PythonTool(function, spec, arguments, result, request_name, local)

    return decorate


def _undo_of(undo: object, effect: str, function: Function) -> UndoSpec | None:
    if undo is None:
        return None
    if effect != "write":
        raise _at(function, "only a write can be undone", 'leave out `undo`, or declare `effect="write"`')
    spec = UndoSpec(undo) if isinstance(undo, str) else undo
    if not isinstance(spec, UndoSpec) or not spec.tool.strip():
        raise _at(
            function,
            f"`undo` is {undo!r}, which names no tool",
            'write `undo="service.operation"`, or an UndoSpec of `tightship` where the arguments are to be said',
        )
    return spec


def _result_schema(result: TypeAdapter[Any]) -> dict[str, Any]:
    return result.json_schema(mode="serialization")


def _schema_of(make: Callable[[], dict[str, Any]], function: Function) -> dict[str, Any]:
    try:
        return make()
    except PydanticInvalidForJsonSchema as error:
        raise _at(function, f"an annotation has no JSON Schema: {error.message}", "use JSON types") from None


def _hints(function: Function) -> Mapping[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise _at(
            function, f"an annotation cannot be read: {error}", "import the type at the top of the module"
        ) from None


def _arguments_of(function: Function) -> tuple[TypeAdapter[Any], str | None]:
    hints = _hints(function)
    fields: dict[str, Any] = {}
    request_name: str | None = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _at(function, f"the parameter {parameter.name!r} has no name of its own", "use named parameters only")
        hint = hints.get(parameter.name)
        if hint is Request:
            request_name = parameter.name
            continue
        if hint is None:
            raise _at(function, f"the parameter {parameter.name!r} has no annotation", "annotate it")
        if parameter.default is not parameter.empty:
            hint = NotRequired[Annotated[hint, Field(json_schema_extra=_default(parameter.default))]]
        fields[parameter.name] = hint
    arguments: Any = TypedDict(function.__name__, fields)  # type: ignore[misc]  # a TypedDict made at run time
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(arguments), request_name
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
        raise _at(function, f"an annotation has no schema: {error}", "use JSON types") from None


def _default(value: Any) -> dict[str, Any]:
    """A default for the schema, where it is plain JSON."""
    return {"default": value} if value is None or isinstance(value, str | int | float | bool) else {}


def _result_of(function: Function) -> TypeAdapter[Any] | None:
    hint = _hints(function).get("return")
    if hint is None or hint is Any or hint is Reply or hint is type(None):
        return None
    try:
        return TypeAdapter(hint)
    except PydanticSchemaGenerationError as error:
        raise _at(function, f"what it returns has no schema: {error}", "use JSON types") from None


def _at(function: Function, message: str, fix: str) -> LoadError:
    code = getattr(function, "__code__", None)
    file, line = (code.co_filename, code.co_firstlineno) if code else (None, None)
    return LoadError(f"{getattr(function, '__name__', function)!s}: {message}", file=file, line=line, fix=fix)


def load_tools(folder: Path) -> dict[str, PythonTool]:
    """The tools of all `*.py` files of a folder (not those whose name starts with `_`), by name.

    Raises:
        LoadError: a file does not import, or two tools have one name.
    """
    found: dict[str, PythonTool] = {}
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        for value in vars(_imported(path)).values():
            if not isinstance(value, PythonTool):
                continue
            name = value.spec.name
            if found.get(name, value) is not value:
                raise LoadError(f"a second tool is named {name!r}", file=str(path), fix="give one of them `name=`")
            found[name] = value
    return found


def _imported(path: Path) -> Any:
    # A name of its own hides no installed module; it is registered because annotations are resolved through it.
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    private = f"_tightship_tools_{place}.{path.stem}"
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise LoadError("this file cannot be imported", file=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module
    try:
        spec.loader.exec_module(module)
    except LoadError:
        raise
    except SyntaxError as error:
        raise LoadError(f"not Python: {error.msg}", file=str(path), line=error.lineno, column=error.offset) from None
    except Exception as error:
        raise LoadError(
            f"importing this file raised {_told(error)}", file=str(path), line=_line(error, path)
        ) from error
    return module


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of the file itself in the traceback."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
