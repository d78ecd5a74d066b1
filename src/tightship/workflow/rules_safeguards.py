"""Readiness rules about the domains of arguments and about breakers."""

from __future__ import annotations

from collections.abc import Iterator

from tightship.workflow.readiness import Check, Finding, Rule, rule


@rule(
    "TS340",
    "error",
    "A domain cannot be looked up",
    why="Every call with that argument would be refused, or its value would go out unchecked.",
    fix="Name a reading tool in `exists`, and in `as` the argument that takes the value.",
)
def no_look_up(check: Check, rule: Rule) -> Iterator[Finding]:
    """What a domain asks is there, reads, and takes the value."""
    for tool, arguments in check.files.config.domains.items():
        for name, domain in arguments.items():
            if domain.exists is None:
                continue
            where = check.files.config.where("domains", tool, name)
            spec, argument = check.tool(domain.exists), domain.argument(name)
            if spec is None:
                if check.offered and domain.exists not in check.offered:
                    yield rule.found(f"there is no tool {domain.exists!r}", where)
            elif spec.effect != "read":
                yield rule.found(f"{domain.exists} does not only read", where)
            elif argument not in spec.input_schema.get("properties", {argument: {}}):
                yield rule.found(f"{domain.exists} has no argument {argument!r}", where)


@rule(
    "TS341",
    "warning",
    "A domain or a breaker is declared for what is not there",
    why="It checks or bounds nothing, and whoever declared it believes that it does.",
    fix="Correct the name, or delete it.",
)
def for_nothing(check: Check, rule: Rule) -> Iterator[Finding]:
    """Domains and breakers name tools, arguments, agents and workflows that exist."""
    config, files = check.files.config, check.files
    for tool, arguments in config.domains.items():
        spec = check.tool(tool)
        if spec is None:
            if check.offered and tool not in check.offered:
                yield rule.found(f"there is no tool {tool!r}", config.where("domains", tool, key=True))
            continue
        for name in arguments:
            if name not in spec.input_schema.get("properties", {name: {}}):
                yield rule.found(f"{tool} has no argument {name!r}", config.where("domains", tool, name, key=True))
    known = {"agents": files.agents, "workflows": files.workflows}
    for kind, there in known.items():
        for name in getattr(config.breakers, kind):
            if name not in there:
                where = config.where("breakers", kind, name, key=True)
                yield rule.found(f"there is no {kind[:-1]} {name!r}", where)


@rule(
    "TS342",
    "warning",
    "A breaker is declared twice",
    why="That of tightship.yaml counts, and whoever reads the other file believes something else.",
    fix="Delete one of the two.",
)
def declared_twice(check: Check, rule: Rule) -> Iterator[Finding]:
    """The breaker of an agent or a workflow is declared in one place."""
    config = check.files.config.breakers
    for kind, here, there in (
        ("agent", check.files.agents, config.agents),
        ("workflow", check.files.workflows, config.workflows),
    ):
        for name, spec in here.items():
            if spec.breaker is not None and name in there:
                yield rule.found(
                    f"{kind} {name!r} has one of its own, and one in tightship.yaml", spec.where("breaker")
                )
