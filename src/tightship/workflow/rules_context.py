"""Readiness rules about the shared context: who writes, how old values may be, what ends a conflict."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tightship.workflow.context_feeds import NAMES
from tightship.workflow.context_keys import matches
from tightship.workflow.readiness import Check, Finding, Rule, expressions_of, rule
from tightship.workflow.source import did_you_mean


@rule(
    "TS700",
    "error",
    "A key of the shared context names somebody who is not there",
    why="Whoever was meant is refused, and nobody writes the value or ends the conflict.",
    fix="Name agents of `agents/`, or roles of tightship.yaml.",
)
def strangers(check: Check, rule: Rule) -> Iterator[Finding]:
    """Writers and readers exist."""
    config = check.files.config
    known = {*check.files.agents, *config.roles}
    for key, spec in config.context.items():
        named = {"writers": spec.writers, "readers": spec.readers or ()}
        for field, names in named.items():
            for name in names:
                if name not in known:
                    where = config.where("context", key, field)
                    yield rule.found(f"{key}: {name!r} is no agent and no role", where, fix=did_you_mean(name, known))
        for name in spec.conflict.priority:
            if name not in spec.writers:
                where = config.where("context", key, "conflict")
                yield rule.found(f"{key}: {name!r} has a rank in conflicts and is no writer", where)
        person = spec.conflict.person
        if person is not None and person not in config.roles:
            where = config.where("context", key, "conflict")
            yield rule.found(f"{key}: nobody holds the role {person!r}", where, fix=did_you_mean(person, config.roles))


@rule(
    "TS701",
    "warning",
    "A reading of something outside may be of any age",
    why="Without `max_age` an agent decides on a figure of last week as on one of this second.",
    fix="Add `max_age:`, the age at which a decision on it would be wrong.",
)
def ageless(check: Check, rule: Rule) -> Iterator[Finding]:
    """Outside data has an age limit."""
    config = check.files.config
    for key, spec in config.context.items():
        if spec.outside and spec.max_age is None:
            yield rule.found(f"{key} declares no max_age", config.where("context", key, key=True))


@rule(
    "TS702",
    "error",
    "The source of a key is no tool that reads it",
    why="Every stale read would fail, or change something outside.",
    fix="Name a tool that reads, and give its arguments over `key` and `parts`.",
)
def no_source(check: Check, rule: Rule) -> Iterator[Finding]:
    """Sources read."""
    config = check.files.config
    for key, spec in config.context.items():
        source, mark = spec.source, config.where("context", key, "source")
        if source is None:
            continue
        for name, expression in source.with_.items():
            strange = sorted(expression.names - {"key", "parts"})
            if strange:
                yield rule.found(f"{key}: {name} uses {', '.join(strange)}; there are `key` and `parts`", mark)
        for expression in (source.value, source.as_of):
            if expression is not None and expression.names - {"result"}:
                yield rule.found(f"{key}: {expression.source} uses more than `result`", mark)
        tool = check.tool(source.tool)
        if tool is None:
            known = {*check.offered, *(check.tools or {})}
            if source.tool not in known and _was_read(check, source.tool, known):
                yield rule.found(f"{key}: there is no tool {source.tool!r}", mark, fix=did_you_mean(source.tool, known))
            continue
        if tool.effect != "read":
            yield rule.found(f"{key}: {source.tool} changes something outside", mark)
        missing = [name for name in tool.input_schema.get("required", ()) if name not in source.with_]
        if missing:
            yield rule.found(f"{key}: {source.tool} needs {', '.join(missing)}", mark)


def _was_read(check: Check, tool: str, known: Collection[str]) -> bool:
    """Whether what would give such a tool was read: its connector's contract, or the files of tools/."""
    services, connectors = {name.partition(".")[0] for name in known}, check.files.config.connectors
    service = tool.partition(".")[0]
    if service in connectors:
        return service in services
    return not services <= set(connectors) or not (check.files.root / "tools").is_dir()


@rule(
    "TS703",
    "error",
    "A merge function is not there",
    why="Two writes that collide could not be merged, and the second one would fail.",
    fix="Write it in agents/ as a plain function of (base, theirs, ours).",
)
def no_merge(check: Check, rule: Rule) -> Iterator[Finding]:
    """Merge functions exist and are plain functions."""
    config = check.files.config
    for key, spec in config.context.items():
        if spec.conflict.merge is None:
            continue
        mark = config.where("context", key, "conflict")
        module, _, name = spec.conflict.merge.partition(":")
        file = check.files.python.get(module)
        function = None if file is None else file.functions.get(name)
        if function is None:
            yield rule.found(f"{key}: agents/{module.replace('.', '/')}.py has no function {name!r}", mark)
        elif function.is_async or function.positional < 3:
            yield rule.found(f"{key}: {name} has to be a plain function of (base, theirs, ours)", mark)


@rule(
    "TS704",
    "advice",
    "Several write one key, and nothing says what ends a conflict",
    why="Without a rule the first one stands and the second one is refused; that is not always what is meant.",
    fix="Add `conflict:` with first, priority, merge or person.",
)
def silent_conflicts(check: Check, rule: Rule) -> Iterator[Finding]:
    """Conflict rules are stated."""
    config = check.files.config
    for key, spec in config.context.items():
        if len(spec.writers) > 1 and "conflict" not in spec.model_fields_set:
            yield rule.found(f"{', '.join(spec.writers)} all write {key}", config.where("context", key, key=True))


@rule(
    "TS705",
    "error",
    "A condition uses a key of the shared context that nobody declares",
    why="It has no value, so the step would end with an error every time.",
    fix="Declare the key under `context:` in tightship.yaml; in conditions a key of one part is written context.KEY.",
)
def unknown_keys(check: Check, rule: Rule) -> Iterator[Finding]:
    """Conditions use declared keys."""
    declared = check.files.config.context
    for place in check.places():
        for _, expression in expressions_of(place):
            for name in expression.ambient:
                key = name.removeprefix("context.")
                if key != name and not any(matches(pattern, key) is not None for pattern in declared):
                    yield rule.found(f"{key} is not declared", expression.place())


@rule(
    "TS706",
    "error",
    "A feed pushes what no key takes, or is told in names that it does not know",
    why="Everything that it delivers would be refused.",
    fix="Name the feed in `feeds:` of the keys that it pushes; its expressions know `event`, `at` and `id`.",
)
def idle_feeds(check: Check, rule: Rule) -> Iterator[Finding]:
    """Feeds have keys, and expressions over what they deliver."""
    config = check.files.config
    for name, feed in config.feeds.items():
        if not any(name in spec.feeds for spec in config.context.values()):
            yield rule.found(f"no key names {name!r} among its feeds", config.where("feeds", name, key=True))
        for field, expression in feed.expressions().items():
            strange = sorted({*expression.names, *expression.ambient} - NAMES)
            if strange:
                yield rule.found(f"{name}: {field} uses {', '.join(strange)}", config.where("feeds", name, field))


@rule(
    "TS707",
    "error",
    "An agent declares a key of the shared context that it may not use",
    why="Each of its calls would be refused.",
    fix="Declare the key, and name the agent among its `writers:` or `readers:`.",
)
def unusable_keys(check: Check, rule: Rule) -> Iterator[Finding]:
    """What agents declare is declared, and allowed."""
    declared = check.files.config.context
    for agent in check.files.agents.values():
        for field, patterns in (("reads", agent.reads), ("writes", agent.writes)):
            for index, pattern in enumerate(patterns):
                one = pattern.replace("*", "_")  # any one part stands for the star
                spec = declared.get(pattern) or next(
                    (s for p, s in declared.items() if matches(p, one) is not None), None
                )
                where = agent.where(field, index)
                if spec is None:
                    yield rule.found(
                        f"{agent.agent}: {pattern} is not declared", where, fix=did_you_mean(pattern, declared)
                    )
                elif agent.agent not in spec.writers and (
                    field == "writes" or agent.agent not in (spec.readers or (agent.agent,))
                ):
                    yield rule.found(f"{agent.agent} may not {field[:-1]} {pattern}", where)


@rule(
    "TS708",
    "warning",
    "Keys of the shared context are declared for an agent that has no tools",
    why="`reads` and `writes` give a model its tools; Python uses ctx.read and ctx.write, and people use neither.",
    fix="Delete them; the keys' own `readers` and `writers` say who may.",
)
def needless_keys(check: Check, rule: Rule) -> Iterator[Finding]:
    """Models alone are given tools."""
    for agent in check.files.agents.values():
        if (agent.reads or agent.writes) and agent.kind != "model":
            yield rule.found(f"{agent.agent} is no model", agent.where("reads") or agent.where("writes"))
