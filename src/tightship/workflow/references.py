"""Whether everything that a workspace names is there: agents, workflows, tools, roles, tiers, code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from tightship.core.errors import LoadError
from tightship.workflow.models import AgentSpec, Spec, WorkflowSpec
from tightship.workflow.source import Mark, did_you_mean, find_mark
from tightship.workflow.tree import Behaviour, Step, patterns

if TYPE_CHECKING:
    from tightship.workflow.loader import WorkspaceFiles


def check_references(
    files: WorkspaceFiles, tools: Collection[str] = (), *, only: Spec | None = None, partial: bool = False
) -> Iterator[LoadError]:
    """Every name that leads nowhere, and every cycle of workflows.

    Args:
        files: the workspace.
        tools: names of tools that are registered in Python.
        only: judge this agent or workflow alone.
        partial: some files could not be read, so names of agents and workflows may be missing for that reason; names
            that look like one that was not read are not reported.
    """
    check = _References(files, frozenset(tools), partial)
    for agent in files.agents.values():
        if only is None or only is agent:
            yield from check.agent(agent)
    for workflow in files.workflows.values():
        if only is None or only is workflow:
            yield from check.workflow(workflow)
    if only is None:
        yield from check.config()
    yield from check.cycles()


def _error(mark: Mark | None, message: str, fix: str) -> LoadError:
    return mark.error(message, fix=fix) if mark is not None else LoadError(message, fix=fix)


class _References:
    def __init__(self, files: WorkspaceFiles, tools: frozenset[str], partial: bool) -> None:
        self._files = files
        self._tools = tools
        self._partial = partial
        self._no_config = partial and files.config.where() is None

    def agent(self, spec: AgentSpec) -> Iterator[LoadError]:
        """What an agent names."""
        what = f"the agent {spec.agent!r}"
        if spec.python is not None:
            yield from self._code(spec, spec.python)
        if spec.model is not None and spec.model not in self._files.config.tiers and not self._no_config:
            fix = did_you_mean(spec.model, self._files.config.tiers) + " (declare tiers in tightship.yaml)"
            yield _error(spec.where("model"), f"{what} runs on the tier {spec.model!r}, which is not declared", fix)
        if spec.human is not None:
            yield from self._role(spec.human, spec.where("human"), what)
        for index, tool in enumerate(spec.tools):
            yield from self._tool(tool, spec.where("tools", index), what)
        yield from self._behaviours(spec.on, spec, what)

    def _code(self, spec: AgentSpec, target: str) -> Iterator[LoadError]:
        module, _, name = target.partition(":")
        mark, found = spec.where("python"), self._files.python.get(module)
        if mark is None:
            return  # built in Python: the function is looked up when the agent is opened
        if found is None:
            if not (self._partial and (self._files.root / "agents" / f"{module.replace('.', '/')}.py").exists()):
                yield _error(
                    mark, f"there is no file agents/{module.replace('.', '/')}.py", _near(module, self._files.python)
                )
        elif name not in found.functions:
            yield _error(mark, f"{found.path} has no function {name!r}", _near(name, _public(name, found.functions)))
        elif not found.functions[name].is_async:
            place = f"{found.path}:{found.functions[name].line}"
            yield _error(mark, f"{name!r} ({place}) is not async", f"write `async def {name}(ctx, input)`")
        elif found.functions[name].positional < 1:
            place = f"{found.path}:{found.functions[name].line}"
            yield _error(mark, f"{name!r} ({place}) takes no context", f"write `async def {name}(ctx, input)`")

    def workflow(self, spec: WorkflowSpec) -> Iterator[LoadError]:
        """What a workflow and its steps name."""
        what = f"the workflow {spec.workflow!r}"
        yield from self._behaviours(spec.on, spec, what)
        if spec.escalate_to is not None:
            yield from self._role(spec.escalate_to, spec.where("escalate_to"), what)
        for step in spec.walk():
            for name in dict.fromkeys(step.agents()):
                yield from self._agent(name, _step_mark(step, "agent") or spec.where("steps"), what)
            for name in step.tools():
                yield from self._tool(name, _step_mark(step, "tool") or spec.where("steps"), what)
            for name in step.roles():
                yield from self._role(name, _step_mark(step, "by") or spec.where("steps"), what)
            for name in step.workflows():
                yield from self._workflow(name, _step_mark(step, "workflow") or spec.where("steps"), what)

    def config(self) -> Iterator[LoadError]:
        """What tightship.yaml names."""
        config = self._files.config
        for name, tier in config.tiers.items():
            if tier.next is not None and tier.next not in config.tiers:
                mark = config.where("tiers", name, "next")
                yield _error(mark, f"the tier {tier.next!r} is not declared", did_you_mean(tier.next, config.tiers))
        for name in config.budgets.workflows:
            if name not in self._files.workflows and not self._partial:
                mark = config.where("budgets", "workflows", name, key=True)
                yield _error(mark, f"there is no workflow {name!r}", did_you_mean(name, self._files.workflows))

    def _behaviours(self, on: Mapping[str, Behaviour], spec: Spec, what: str) -> Iterator[LoadError]:
        for kind, behaviour in on.items():
            if behaviour.use is not None:
                yield from self._agent(behaviour.use, spec.where("on", kind, "use"), what)

    def _agent(self, name: str, mark: Mark | None, what: str) -> Iterator[LoadError]:
        if name in self._files.agents or self._unread("agents", name):
            return
        if name in self._files.workflows:
            yield _error(mark, f"{name!r} is a workflow, not an agent", f"write `workflow: {name}`")
            return
        near = did_you_mean(name, [*self._files.agents, *patterns.words()])
        yield _error(mark, f"{what} names the agent {name!r}, which is not there", near)

    def _workflow(self, name: str, mark: Mark | None, what: str) -> Iterator[LoadError]:
        if name not in self._files.workflows and not self._unread("workflows", name):
            near = did_you_mean(name, self._files.workflows)
            yield _error(mark, f"{what} starts the workflow {name!r}, which is not there", near)

    def _unread(self, folder: str, name: str) -> bool:
        """Whether the name may stand in a file that could not be read."""
        if not self._partial:
            return False
        stems = {name, name.replace("_", "-")}
        base = self._files.root / folder
        return any((base / f"{stem}{suffix}").exists() for stem in stems for suffix in (".yaml", ".yml"))

    def _role(self, name: str, mark: Mark | None, what: str) -> Iterator[LoadError]:
        roles = self._files.config.roles
        if name not in roles and not self._no_config:
            near = did_you_mean(name, roles) + " (declare roles in tightship.yaml)"
            yield _error(mark, f"{what} names the role {name!r}, which is not declared", near)

    def _tool(self, name: str, mark: Mark | None, what: str) -> Iterator[LoadError]:
        """Contracts decide what tools are called, so a name is judged here only when there is no contract at all."""
        if name not in self._tools and not self._files.has_tools and not self._no_config:
            fix = "declare its connector in tightship.yaml, or write it as a function in tools/"
            yield _error(mark, f"{what} uses {name!r}, and the workspace has no connector and no tools", fix)

    def cycles(self) -> Iterator[LoadError]:
        """Every cycle of workflows that start each other, once."""
        seen = set[frozenset[str]]()
        for name in sorted(self._files.workflows):
            path = _cycle(name, {n: w.children() for n, w in self._files.workflows.items()})
            if path and frozenset(path) not in seen:
                seen.add(frozenset(path))
                spec = self._files.workflows[path[0]]
                step = next((one for one in spec.walk() if path[1 % len(path)] in one.workflows()), None)
                mark = (_step_mark(step, "workflow") if step else None) or spec.where("steps")
                yield _error(
                    mark, f"workflows start each other without end: {' -> '.join([*path, path[0]])}", "break the cycle"
                )


def _cycle(start: str, calls: Mapping[str, Iterable[str]]) -> list[str]:
    """The path of a cycle through `start`, or nothing."""
    todo, seen = [[start]], set[str]()
    while todo:
        path = todo.pop()
        for name in calls.get(path[-1], ()):
            if name == start:
                return path
            if name not in seen:
                seen.add(name)
                todo.append([*path, name])
    return []


def _public(name: str, functions: Iterable[str]) -> list[str]:
    """Functions that an agent may be; those of the module alone only when the name looks like one of them."""
    return [one for one in functions if name.startswith("_") or not one.startswith("_")]


def _near(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known)


def _step_mark(step: Step, field: str) -> Mark | None:
    return find_mark(step.raw, [field]) if step.raw is not None else step.mark
