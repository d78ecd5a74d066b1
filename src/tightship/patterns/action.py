"""A write on the outside world as a step of its own, with its claim and its undo (P10, F9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from tightship.core.errors import FormatMismatch
from tightship.core.ports import Json, ToolSpec, UndoSpec
from tightship.effects.frame import ActionCall, Frame
from tightship.ledger import Expected
from tightship.patterns._shared import source_before
from tightship.patterns.gate import Gate, gate_findings, through
from tightship.workflow.conditions import Expression, Values
from tightship.workflow.models import ToolName
from tightship.workflow.names import schema_at
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.spec import KEYWORD_FIELDS
from tightship.workflow.tree import Step, patterns

NO_UNDO = declare(
    "TS500",
    "error",
    "An action does not say how it is undone",
    why="When a later step fails, finished actions are undone in reverse order; this one would be left behind unseen.",
    fix="Name the compensation in `undo`, or write `undo: none` if there is none.",
)
NO_CLAIM = declare(
    "TS501",
    "error",
    "A write that the other side does not deduplicate has no claim",
    why="The tool honours no idempotency key: two runs about the same case would write twice.",
    fix="Add `claim` with the business key, for example `claim: '\"reply:\" + input.ticket_id'`.",
)
NO_LOOKUP = declare(
    "TS502",
    "warning",
    "After a crash nobody can tell whether this write was done",
    why="The tool honours no idempotency key and cannot be looked up: an interrupted call is escalated as unknown.",
    fix="Prefer an operation with an idempotency key or a lookup; else accept that a person will check.",
)
BAD_ARGUMENTS = declare(
    "TS503",
    "error",
    "An action's arguments do not fit the tool's contract",
    why="The call would be refused before it is sent, every time.",
    fix="Give the arguments that the contract names in `with`.",
)
NOTHING_TO_SEND = declare(
    "TS504",
    "error",
    "An action has no arguments",
    why="Without `with` or `from` it takes the output before it, and there is none.",
    fix="Add `with: {argument: expression}`.",
)
READ_ACTION = declare(
    "TS505",
    "advice",
    "An action only reads",
    why="Reading needs no undo, no claim and no step of its own.",
    fix="Let an agent call the tool.",
)
RETRIED_WRITE = declare(
    "TS506",
    "error",
    "A write that the other side does not deduplicate is tried again",
    why="The first attempt may have been done: a retry at this tool can double it.",
    fix="Delete `retry` from `on:`; the engine retries by itself what can be retried safely.",
)
GOES_ON = declare(
    "TS507",
    "error",
    "The run goes on after a failed write",
    why="`then: continue` would report success for work that was not done.",
    fix="Use `then: escalate` or `ask`.",
)
UNDO_FAULT = declare(
    "TS508",
    "error",
    "The undo cannot work",
    why="A compensation that is refused leaves the action standing.",
    fix="Name a writing tool, and give its arguments from `args` and `result`.",
)


class Undo(BaseModel):
    """How an action is compensated: a tool and its arguments over `args` and `result`. No tool: there is none."""

    model_config = KEYWORD_FIELDS

    tool: ToolName | None = None
    with_: Mapping[str, Expression] = {}


def _undo(value: Any) -> Any:
    if isinstance(value, str):
        return {"tool": None if value == "none" else str(value)}
    return value


@patterns.register("action")
class Action(Step):
    """`action: TOOL` with `with: {ARGUMENT: EXPRESSION}`, `claim: EXPRESSION`, `undo: TOOL|{tool, with}|none`,
    `gate: {agents, on, when, rounds}`.

    Without `with`, the object that `from` gives is sent, or else the nearest output before it. `undo` without
    arguments uses those that the tool's contract declares, or what the call and its answer have by name.
    """

    short = "tool"

    tool: ToolName
    with_: Values | None = None
    from_: Expression | None = None
    claim: Expression | None = None
    undo: Annotated[Undo | None, BeforeValidator(_undo)] = None
    gate: Gate | None = None

    def __init__(self, tool: Any = None, /, **fields: Any) -> None:
        """The tool first, or as `tool=`."""
        super().__init__(**({} if tool is None else {"tool": tool}), **fields)

    def tools(self) -> Iterator[str]:
        """The tool, then the one that undoes it."""
        yield self.tool
        if self.undo is not None and self.undo.tool is not None:
            yield self.undo.tool

    def expressions(self) -> Iterator[tuple[str, Expression | Values]]:
        """Without the undo's, which see `args` and `result` only."""
        return ((name, found) for name, found in super().expressions() if name != "undo")

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """What the contract says that it answers."""
        spec = context.tool(self.tool)
        return None if spec is None else spec.output_schema

    @property
    def source(self) -> str | None:
        """The name of the output that is sent when nothing else is said."""
        return source_before(self)

    def describe(self) -> str:
        """In words."""
        undone = "not said how it is undone"
        if self.undo is not None:
            undone = f"undone by `{self.undo.tool}`" if self.undo.tool is not None else "cannot be undone"
        claim = f", claims `{self.claim.source}`" if self.claim is not None else ""
        gate = ""
        if self.gate is not None:
            gate = f", only while what {' and '.join(self.gate.agents)} read of {', '.join(self.gate.on)} stands"
        return f"action `{self.tool}`{claim}, {undone}{gate}"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        spec = context.tool(self.tool)
        if self.gate is not None:
            yield from gate_findings(self, self.gate, context)
        if spec is not None and spec.effect == "read":
            yield READ_ACTION.found(f"{self.tool} changes nothing outside", context.mark("tool"))
            return
        if self.undo is None:
            said = f"this step of {self.tool} has no `undo`"
            if spec is not None and spec.undo is not None:
                said += f"; its contract names {spec.undo.tool}: write `undo: {spec.undo.tool}`"
            yield NO_UNDO.found(said, context.mark("tool"))
        for kind, behaviour in self.on.items():
            if behaviour.then == "continue":
                yield GOES_ON.found(f"on {kind}, the run goes on without {self.tool}", context.mark("on", kind))
        if self.with_ is None and self.from_ is None and self.source is None:
            yield NOTHING_TO_SEND.found(f"there is nothing that {self.tool} could send", context.mark("tool"))
        yield from self._undo_findings(context)
        if spec is not None:
            yield from self._contract_findings(context, spec)

    def _undo_findings(self, context: StepCheck) -> Iterable[Finding]:
        if self.undo is None or self.undo.tool is None:
            return
        for name, expression in self.undo.with_.items():
            strange = sorted(expression.names - {"args", "result"})
            if strange:
                yield UNDO_FAULT.found(
                    f"{name} uses {', '.join(strange)}; an undo knows `args` and `result`", context.mark("undo")
                )
        tool = context.tool(self.undo.tool)
        if tool is not None and tool.effect != "write":
            yield UNDO_FAULT.found(f"{self.undo.tool} does not write", context.mark("undo"))
        if tool is not None and self.undo.with_:
            for said in _unfit(tool, set(self.undo.with_)):
                yield UNDO_FAULT.found(f"{self.undo.tool}: {said}", context.mark("undo"))
        if tool is not None and not self.undo.with_:
            yield from self._undo_by_name(context, tool)

    def _undo_by_name(self, context: StepCheck, tool: ToolSpec) -> Iterable[Finding]:
        """An undo without arguments takes the contract's, or those that the call and its answer have by name."""
        spec = context.tool(self.tool)
        if spec is None or (spec.undo is not None and spec.undo.tool == tool.name):
            return
        given, answer = self._given(context), schema_at(spec.output_schema, ())[0]
        if given is None or answer is None or "properties" not in answer:
            return
        missing = [
            name for name in tool.input_schema.get("required", ()) if name not in given | set(answer["properties"])
        ]
        if missing:
            said = f"{tool.name} needs {', '.join(missing)}, which neither the call nor its answer has by that name"
            yield UNDO_FAULT.found(said, context.mark("undo"))

    def _contract_findings(self, context: StepCheck, spec: ToolSpec) -> Iterable[Finding]:
        if spec.idempotency == "none":
            if self.claim is None:
                yield NO_CLAIM.found(f"{self.tool} honours no idempotency key", context.mark("tool"))
            if not spec.can_lookup:
                yield NO_LOOKUP.found(f"{self.tool} can be neither repeated nor looked up", context.mark("tool"))
            if any(behaviour.retry for behaviour in self.on.values()):
                yield RETRIED_WRITE.found(f"{self.tool} is retried by `on:`", context.mark("on"))
        given = self._given(context)
        if given is not None:
            for said in _unfit(spec, given):
                yield BAD_ARGUMENTS.found(f"{self.tool}: {said}", context.mark("with"))

    def _given(self, context: StepCheck) -> set[str] | None:
        """The names of the arguments, as far as they are known without running."""
        if self.with_ is not None:
            return None if self.with_.whole is not None else set(self.with_.entries)
        if self.from_ is not None or self.source is None:
            return None
        schema = context.check.schema(context.place, self.source)
        return None if schema is None or "properties" not in schema else set(schema["properties"])

    async def execute(self, frame: Frame) -> Json:
        """Act, through the door; with a gate once the decision stands on what is true."""
        if self.gate is not None:
            return await through(self, self.gate, frame, self._act)
        return await self._act(frame)

    async def _act(self, frame: Frame, expect: tuple[Expected, ...] = ()) -> Json:
        args = await self._arguments(frame)
        claim = None if self.claim is None else await frame.at("claim").evaluate(self.claim)
        if claim is not None and (isinstance(claim, bool) or not isinstance(claim, str | int) or claim == ""):
            raise FormatMismatch(
                f"the claim {str(self.claim)!r} is no text", needed="a text that names the business case"
            )
        undo = None
        if self.undo is not None and self.undo.tool is not None:
            undo = UndoSpec(self.undo.tool, {name: str(one.source) for name, one in self.undo.with_.items()})
        return await frame.act(ActionCall(self.tool, args, None if claim is None else str(claim), undo, expect))

    async def _arguments(self, frame: Frame) -> Mapping[str, Json]:
        if self.with_ is not None:
            found = await frame.evaluate(self.with_)
        elif self.from_ is not None:
            found = await frame.evaluate(self.from_)
        else:
            found = frame.scope.names.get(self.source or "")
        if not isinstance(found, Mapping):
            raise FormatMismatch(
                f"{self.tool} has no arguments: {self.source or 'nothing'} before it is no object",
                needed="a `with` block that names the arguments",
            )
        return dict(found)


def _unfit(spec: ToolSpec, given: set[str]) -> list[str]:
    """Arguments that a contract requires and that are not given, and those that it does not know."""
    schema = spec.input_schema
    missing = [name for name in schema.get("required", ()) if name not in given]
    found = [f"the argument {name!r} is missing" for name in missing]
    if "properties" in schema and schema.get("additionalProperties") is not True:
        strange = sorted(given - set(schema["properties"]))
        found += [f"there is no argument {name!r}" for name in strange]
    return found
