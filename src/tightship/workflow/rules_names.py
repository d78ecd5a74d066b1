"""Readiness rules about names, conditions and the flow of data between steps."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from tightship.workflow._cel import Comparison, Ref
from tightship.workflow.conditions import Condition, Expression, Values
from tightship.workflow.models import AgentSpec
from tightship.workflow.names import Bound, Place, schema_at
from tightship.workflow.readiness import Check, Finding, Rule, expressions_of, rule
from tightship.workflow.source import Mark, did_you_mean
from tightship.workflow.tree import Step
from tightship.workflow.units import AMBIENT


def _uses(check: Check) -> Iterator[tuple[Place, str, Expression, Mapping[str, Bound]]]:
    """Every expression of every step, and what it can see."""
    for place in check.places():
        for field, expression in expressions_of(place):
            yield place, field, expression, place.seen_by(field)


def _outputs(check: Check) -> Iterator[tuple[str, Expression, Mapping[str, Bound], Place | None]]:
    """The expressions of the workflows' outputs, which see what is bound at the end."""
    for workflow in check.workflows():
        names = check.names(workflow)
        for expression in workflow.output.expressions() if workflow.output is not None else ():
            yield workflow.workflow, expression, names.final, names.places[0] if names.places else None


def _mark(expression: Expression, ref: Ref | Comparison, place: Place) -> Mark | None:
    return expression.place(ref.at) or place.step.mark or place.workflow.where("steps")


@rule(
    "TS400",
    "error",
    "An expression uses a name that nothing binds",
    why="When the run comes to it, the step ends with missing data.",
    fix="Use `input.<field>` or the name of a step before it.",
)
def undefined(check: Check, rule: Rule) -> Iterator[Finding]:
    """Names mean something."""
    for place, field, expression, visible in _uses(check):
        binders = check.names(place.workflow).binders()
        for ref in expression.refs:
            root = ref.path[0]
            if root in visible or root in AMBIENT or root in place.siblings:
                continue
            if root in binders:
                said = f"{root!r} is bound only by a step that does not run before this one"
                fix = "move the step that binds it before this one"
            else:
                said, fix = f"nothing is called {root!r}", did_you_mean(root, [*visible, *AMBIENT])
                if field == "with" and len(ref.path) == 1 and str(expression.source).strip() == root:
                    fix = f"for the text itself write '\"{root}\"'; else {fix}"
            yield rule.found(said, _mark(expression, ref, place), fix=fix)
    for name, expression, visible, place in _outputs(check):
        for ref in expression.refs:
            if place is not None and ref.path[0] not in visible and ref.path[0] not in AMBIENT:
                said = f"the output of {name!r} uses {ref.path[0]!r}, which nothing binds"
                yield rule.found(said, _mark(expression, ref, place), fix=did_you_mean(ref.path[0], visible))


@rule(
    "TS401",
    "error",
    "A branch uses what a branch beside it makes",
    why="Branches side by side do not see each other: the name is missing, or an old value is used.",
    fix="Put the two one after the other, or move the use behind the join.",
)
def sibling_use(check: Check, rule: Rule) -> Iterator[Finding]:
    """Branches are independent."""
    for place, _, expression, visible in _uses(check):
        for ref in expression.refs:
            if ref.path[0] in place.siblings and ref.path[0] not in visible:
                said = f"{ref.path[0]!r} is made in a branch beside this one"
                yield rule.found(said, _mark(expression, ref, place))
    for place, agent, needed in _lookups(check):
        for name in needed:
            if (
                name in place.siblings
                and name not in place.visible
                and name not in place.workflow.input_schema["properties"]
            ):
                said = f"{agent.agent!r} needs {name!r}, which a branch beside it makes"
                yield rule.found(said, place.step.mark or place.workflow.where("steps"))


@rule(
    "TS402",
    "error",
    "An expression uses a field that is not declared",
    why="Outputs are closed: a field that is not declared is never there.",
    fix="Use a declared field, or declare it in the agent's output.",
)
def unknown_field(check: Check, rule: Rule) -> Iterator[Finding]:
    """Fields exist."""
    for place, _, expression, visible in _uses(check):
        for ref in expression.refs:
            said, fix = _unknown_field(check, place, ref, visible)
            if said:
                yield rule.found(said, _mark(expression, ref, place), fix=fix)


def _unknown_field(check: Check, place: Place, ref: Ref, visible: Mapping[str, Bound]) -> tuple[str, str]:
    root, *path = ref.path
    if root not in visible or not path:
        return "", ""
    schema = check.schema(place, root, visible)
    _, missing = schema_at(schema, tuple(path))
    if missing is None or schema is None:
        return "", ""
    at = path.index(missing)
    parent, _ = schema_at(schema, tuple(path[:at]))
    known = list((parent or {}).get("properties", {}))
    shown = ".".join([root, *path[:at]])
    if not known:
        return f"{shown!r} has no fields, so there is no {missing!r}", "use the value itself"
    return f"{shown!r} has no field {missing!r}", did_you_mean(missing, known)


@rule(
    "TS403",
    "error",
    "A value is compared with one that it can never have",
    why="The declared type does not allow that value, so the comparison is always the same.",
    fix="Use one of the declared values.",
)
def impossible_value(check: Check, rule: Rule) -> Iterator[Finding]:
    """Comparisons can come out both ways."""
    for place, expression, comparison, schema in _compared(check):
        if "enum" not in schema:
            continue
        strange = [value for value in comparison.values if value not in schema["enum"] and value is not None]
        if comparison.op == "!=" and strange == [""]:
            continue  # "is not empty" is harmless
        if strange:
            allowed = ", ".join(map(repr, schema["enum"]))
            said = f"{'.'.join(comparison.path)} is one of {allowed}, never {', '.join(map(repr, strange))}"
            yield rule.found(
                said, _mark(expression, comparison, place), fix=did_you_mean(str(strange[0]), map(str, schema["enum"]))
            )


@rule(
    "TS404",
    "error",
    "A value is compared with one of another type",
    why="Text, numbers and true/false are never equal, and ordering them ends the step with a format error.",
    fix="Compare with a value of the declared type.",
)
def wrong_type(check: Check, rule: Rule) -> Iterator[Finding]:
    """Comparisons make sense."""
    for place, expression, comparison, schema in _compared(check):
        allowed = _types(schema)
        if not allowed or "enum" in schema:
            continue
        strange = [value for value in comparison.values if value is not None and _type(value) not in allowed]
        if strange:
            said = f"{'.'.join(comparison.path)} is {' or '.join(sorted(allowed))}, compared with {strange[0]!r}"
            yield rule.found(said, _mark(expression, comparison, place))


def _compared(check: Check) -> Iterator[tuple[Place, Expression, Comparison, Mapping[str, Any]]]:
    for place, _, expression, visible in _uses(check):
        for comparison in expression.comparisons:
            root, *path = comparison.path
            if root in visible:
                schema, _ = schema_at(check.schema(place, root, visible), tuple(path))
                if schema is not None:
                    yield place, expression, comparison, schema


def _types(schema: Mapping[str, Any]) -> set[str]:
    """Families of JSON types that a schema allows: text, number, boolean, list, object."""
    kinds = schema.get("type")
    listed = [kinds] if isinstance(kinds, str) else list(kinds or ())
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "true/false", "array": "a list"}
    return {names.get(kind, "an object") for kind in listed if kind != "null"}


def _type(value: Any) -> str:
    return "true/false" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


@rule(
    "TS405",
    "warning",
    "An expression uses a name that may not be bound",
    why="The step that binds it runs only in some cases, or may be left out when it fails.",
    fix="Guard it with `has(name.field) && …`, or give the other way an output too.",
)
def maybe_unbound(check: Check, rule: Rule) -> Iterator[Finding]:
    """Optional outputs are guarded."""
    for place, _, expression, visible in _uses(check):
        guarded = {ref.path[0] for ref in expression.refs if ref.guarded}
        for name in dict.fromkeys(ref.path[0] for ref in expression.refs):
            if name in visible and not visible[name].sure and name not in guarded:
                first = next(ref for ref in expression.refs if ref.path[0] == name)
                yield rule.found(f"{name!r} is bound only in some cases", _mark(expression, first, place))


def _lookups(check: Check) -> Iterator[tuple[Place, AgentSpec, list[str]]]:
    """For each agent's step, the required inputs that it must find by name."""
    for place, agent, given in _turns(check):
        yield place, agent, [name for name in agent.input_schema["required"] if name not in given.entries]


def _turns(check: Check) -> Iterator[tuple[Place, AgentSpec, Values]]:
    """Each agent's step with its agent and its `with`, where the fields of that are known."""
    for place in check.places():
        agent = check.agent(next(iter(place.step.agents()), "")) if place.step.pattern == "agent" else None
        given = _given(place.step)
        if agent is not None and given is not None:
            yield place, agent, given


def _given(step: Step) -> Values | None:
    """The step's `with`; None when it is one expression whose fields are not known."""
    for name, found in step.expressions():
        if name == "with" and isinstance(found, Values):
            return None if found.whole is not None else found
    return Values()


@rule(
    "TS406",
    "error",
    "An agent needs an input that nothing gives",
    why="Its turn would end with missing data every time.",
    fix="Give it in `with: {name: expression}`, or rename it like an input field or a step before it.",
)
def missing_input(check: Check, rule: Rule) -> Iterator[Finding]:
    """Inputs can be found."""
    for place, agent, needed in _lookups(check):
        fields = place.workflow.input_schema["properties"]
        for name in needed:
            if name not in fields and name not in place.visible and name not in place.siblings:
                said = f"{agent.agent!r} needs {name!r}, which is neither an input nor an output before it"
                near = did_you_mean(name, [*fields, *place.visible])
                yield rule.found(said, place.step.mark or place.workflow.where("steps"), fix=f"{rule.fix} ({near})")


@rule(
    "TS407",
    "error",
    "A step gives an agent an input that it does not declare",
    why="Agents get what they declare and nothing else; the call would be refused.",
    fix="Declare the input on the agent, or delete it from `with`.",
)
def undeclared_input(check: Check, rule: Rule) -> Iterator[Finding]:
    """Agents get what they declare."""
    for place, agent, given in _turns(check):
        for name in given.entries:
            known = agent.input_schema["properties"]
            if name not in known:
                said = f"{agent.agent!r} declares no input {name!r}"
                yield rule.found(said, given.entry_mark(name) or place.step.mark, fix=did_you_mean(name, known))


@rule(
    "TS408",
    "advice",
    "Two steps could run side by side",
    why="The second uses nothing of the first: one after the other they take the sum of their times.",
    fix="Write `concurrent: [first, second]`.",
)
def could_be_concurrent(check: Check, rule: Rule) -> Iterator[Finding]:
    """Independent work runs in parallel."""
    for workflow in check.workflows():
        for step in (workflow.root, *workflow.walk()):
            children = list(step.children()) if step.pattern == "sequence" else []
            for first, second in itertools.pairwise(children):
                if _independent(check, first, second):
                    said = f"{second.name!r} uses nothing of {first.name!r}"
                    yield rule.found(said, second.mark or workflow.where("steps"))


def _independent(check: Check, first: Step, second: Step) -> bool:
    if first.pattern != "agent" or second.pattern != "agent" or first.name == second.name:
        return False
    agent = check.agent(next(iter(second.agents())))
    if agent is None or not agent.input:
        return False
    given = _given(second)
    if given is None:
        return False
    looked_up = {name.removesuffix("?") for name in agent.input} - set(given.entries)
    return first.name not in looked_up and first.name not in given.names


@rule(
    "TS409",
    "error",
    "A threshold is applied to a number that is no declared confidence",
    why="A model's bare word about its own certainty releases work that nobody checked.",
    fix="Declare `confidence: {source: classifier|agreement|logprob|checker, field: …}` on the agent that gives it.",
)
def bare_confidence(check: Check, rule: Rule) -> Iterator[Finding]:
    """Confidence has a source."""
    for place, _, expression, visible in _uses(check):
        if "threshold" not in expression.ambient:
            continue
        candidates = [ref for ref in expression.refs if ref.path[0] not in AMBIENT and len(ref.path) == 2]
        agents = [(ref, _agent_of(check, visible.get(ref.path[0]))) for ref in candidates]
        if any(a is not None and a.confidence is not None and a.confidence.field == r.path[1] for r, a in agents):
            continue
        said = f"nothing in {str(expression.source)!r} is a confidence with a declared source"
        yield rule.found(said, expression.mark or place.step.mark)


def _agent_of(check: Check, bound: Bound | None) -> AgentSpec | None:
    if bound is None or bound.step is None:
        return None
    return check.agent(next(iter(bound.step.agents()), "")) if bound.step.pattern == "agent" else None


@rule(
    "TS410",
    "warning",
    "Two steps bind the same name",
    why="The later output replaces the earlier one; a condition may look at the wrong one.",
    fix="Give one of them another `name`.",
)
def bound_twice(check: Check, rule: Rule) -> Iterator[Finding]:
    """Names mean one thing."""
    for workflow in check.workflows():
        for place in check.names(workflow).places:
            for name in place.step.binds():
                earlier = place.visible.get(name)
                if earlier is not None and earlier.step is not None and earlier.step is not place.step:
                    said = f"{name!r} is already bound by an earlier step"
                    yield rule.found(said, place.step.mark or workflow.where("steps"))


@rule(
    "TS413",
    "error",
    "An input of the workflow hides what a step gives its agents",
    why="Inputs are looked up in the workflow's input first, so the agent works on that and not on what it was given.",
    fix="Rename the workflow's input, or give the agent's in `with`.",
)
def hidden_by_input(check: Check, rule: Rule) -> Iterator[Finding]:
    """What a pattern binds for the agents inside it reaches them."""
    for place, agent, given in _turns(check):
        for name in agent.input_schema["properties"]:
            bound = place.visible.get(name)
            own = bound is not None and bound.step is None and name != "input"
            if own and name not in given.entries and name in place.workflow.input_schema["properties"]:
                said = f"{agent.agent!r} takes {name!r}, which is an input of {place.workflow.workflow!r} too"
                yield rule.found(said, place.step.mark or place.workflow.where("steps"))


@rule(
    "TS411",
    "error",
    "An agent's input gets a value of another type",
    why="The turn would be refused every time because its input does not fit.",
    fix="Declare the same type on both sides, or convert it in `with`.",
)
def input_type(check: Check, rule: Rule) -> Iterator[Finding]:
    """Types agree along the way."""
    for place, agent, given in _turns(check):
        for name, wanted in agent.input_schema["properties"].items():
            got = _source_schema(check, place, given, name)
            if got is not None and _types(wanted) and _types(got) and not _types(wanted) & _types(got):
                said = f"{agent.agent!r} takes {name!r} as {_words(wanted)}, and gets {_words(got)}"
                yield rule.found(said, given.entry_mark(name) or place.step.mark or place.workflow.where("steps"))


def _words(schema: Mapping[str, Any]) -> str:
    return " or ".join(sorted(_types(schema)))


def _source_schema(check: Check, place: Place, given: Values, name: str) -> Mapping[str, Any] | None:
    """The schema of what an input is looked up from, as far as known."""
    if name in given.entries:
        entry = given.entries[name]
        if not isinstance(entry, Expression) or len(entry.refs) != 1:
            return None
        ref = entry.refs[0]
        if not ref.exact or str(entry.source).strip() != ".".join(ref.path):
            return None
        schema, _ = schema_at(check.schema(place, ref.path[0]), ref.path[1:])
        return schema
    fields = place.workflow.input_schema["properties"]
    return fields[name] if name in fields else check.schema(place, name) if name in place.visible else None


@rule(
    "TS412",
    "error",
    "A condition is not true or false",
    why="It cannot be decided: the step ends with a format error every time.",
    fix='Compare it with something, for example `triage.topic == "refund"` or `size(account.holds) > 0`.',
)
def no_condition(check: Check, rule: Rule) -> Iterator[Finding]:
    """Conditions are true or false."""
    for place, _, expression, visible in _uses(check):
        if not isinstance(expression, Condition):
            continue
        source = str(expression.source).strip()
        got = _literal(source)
        if len(expression.refs) == 1 and expression.refs[0].exact and source == ".".join(expression.refs[0].path):
            ref = expression.refs[0]
            schema, _ = schema_at(check.schema(place, ref.path[0], visible), ref.path[1:])
            got = _kinds(schema) if schema is not None else ""
        if got and "true/false" not in got:
            yield rule.found(f"{source!r} is {got}", expression.mark or place.step.mark)


def _kinds(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(sorted({_type(value) for value in schema["enum"] if value is not None}))
    return _words(schema)


def _literal(source: str) -> str:
    """What a bare value is; empty for anything else."""
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    return "text" if isinstance(value, str) else "number" if isinstance(value, int | float) else "a list"
