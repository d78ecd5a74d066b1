"""A workflow's whole map as readable Markdown (W1): what starts it, what steps may touch, what happens on failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tightship.core.ports import ToolSpec
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.tree import KINDS, Step, describe_behaviour
from tightship.workflow.types import type_schema
from tightship.workflow.units import show_duration

_UNSAID = "*not declared*"


def blueprint(name: str, files: WorkspaceFiles, tools: Mapping[str, ToolSpec] | None = None) -> str:
    """The map of a workflow.

    Args:
        name: the workflow.
        files: the workspace.
        tools: contracts of the tools that are known: then each one says whether it reads or writes.

    Raises:
        UnknownName: there is no such workflow.
    """
    spec = files.workflow(name)
    parts = _Blueprint(spec, files, tools or {})
    lines = [
        f"# {spec.workflow}",
        "",
        spec.purpose,
        "",
        *parts.overview(),
        *parts.data(),
        *parts.validation(),
        *parts.steps(),
        *parts.actions(),
        *parts.exceptions(),
        *parts.agents(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {row} |" for row in cells), ""]


class _Blueprint:
    def __init__(self, spec: WorkflowSpec, files: WorkspaceFiles, tools: Mapping[str, ToolSpec]) -> None:
        self._spec = spec
        self._files = files
        self._tools = tools

    def overview(self) -> list[str]:
        """Who, when, how much."""
        spec, config = self._spec, self._files.config
        limits = spec.limits.over(config.limits)
        role = spec.escalation_role(config.roles)
        people = ", ".join(config.roles.get(role, ())) if role is not None else ""
        rows = [
            ("Owner", spec.owner),
            ("Trigger", spec.trigger or _UNSAID),
            ("Completion", spec.completion or _UNSAID),
            ("Systems", ", ".join(spec.systems) or ", ".join(self._systems()) or "none"),
            ("Compliance", "; ".join(spec.compliance) or _UNSAID),
            ("Budget of a run", spec.budget.describe()),
            (
                "Limits",
                f"{limits.turns} turns, {limits.calls} calls, {limits.retries} retries, {limits.repeats} repeats, "
                f"{limits.similar} near repeats",
            ),
            ("Escalation goes to", f"{role} ({people})" if people else role or _UNSAID),
            ("Escalation", spec.escalation or _UNSAID),
            ("On failure", "finished actions are undone" if spec.undo_on_failure else "finished actions stay"),
        ]
        return _table(["", ""], [(f"**{name}**", value) for name, value in rows])

    def _systems(self) -> list[str]:
        found = {tool.partition(".")[0] for tool in self._spec.tools()}
        for name in self._spec.agents():
            found |= {tool.partition(".")[0] for tool in self._agent(name).tools}
        return sorted(found)

    def _agent(self, name: str) -> AgentSpec:
        return self._files.agent(name)

    def data(self) -> list[str]:
        """What is collected, and about whom."""
        spec, notes = self._spec, self._spec.data
        if not spec.input:
            return ["## Data", "", "It takes no input.", ""]
        rows = [
            (
                name.removesuffix("?"),
                *_type_words(name, kind),
                notes.get(name, "") if isinstance(notes, Mapping) else "",
            )
            for name, kind in spec.input.items()
        ]
        lines = ["## Data", "", *_table(["field", "type", "needed", "note"], rows)]
        if isinstance(notes, str):
            lines += [notes, ""]
        subjects = ", ".join(f"`{one.source}`" for one in spec.subjects)
        return [*lines, f"Data subjects: {subjects}." if subjects else "No data subject is declared.", ""]

    def validation(self) -> list[str]:
        """Checkpoints and checks."""
        rows = [
            (self._path(step), step.describe())
            for step in self._spec.walk()
            if step.pattern in ("checkpoint", "maker_checker", "review", "vote", "when")
        ]
        if not rows:
            return ["## Validation and decisions", "", "Nothing is validated or decided.", ""]
        return ["## Validation and decisions", "", *_table(["step", "what"], rows)]

    def _path(self, step: Step) -> str:
        return step.part

    def steps(self) -> list[str]:
        """Every step with its systems, permissions and what happens on failure."""
        return ["## Steps", "", *self._listed(self._spec.steps, 0), ""]

    def _listed(self, steps: Sequence[Step], depth: int) -> Iterator[str]:
        indent = "   " * depth
        for number, step in enumerate(steps, 1):
            yield f"{indent}{number}. {self._title(step)}"
            for line in self._details(step):
                yield f"{indent}   - {line}"
            yield from self._listed(list(step.children()), depth + 1)

    def _title(self, step: Step) -> str:
        name = "" if step.pattern == "agent" else f" (`{step.part}`)"
        return f"{step.describe()}{name}"

    def _details(self, step: Step) -> Iterator[str]:
        if step.pattern == "agent":
            spec = self._agent(next(iter(step.agents())))
            yield spec.purpose
            if spec.tools:
                yield "may use: " + ", ".join(self._permission(tool) for tool in spec.tools)
            if spec.within is not None:
                yield f"ends after {show_duration(spec.within)}"
            for line in spec.conduct():
                yield f"on {line}"
        for line in step.conduct():
            yield f"on {line}" if line.split(":")[0] in KINDS else line

    def _permission(self, tool: str) -> str:
        spec = self._tools.get(tool)
        return f"`{tool}`" if spec is None else f"`{tool}` ({spec.effect}s)"

    def actions(self) -> list[str]:
        """What changes outside, and how it is undone."""
        rows = list[tuple[str, str, str]]()
        for step in self._spec.walk():
            if step.pattern != "action":
                continue
            tool, *undo = step.tools()
            claim = next((str(getattr(one, "source", "")) for name, one in step.expressions() if name == "claim"), "")
            rows.append((f"`{tool}`", f"`{undo[0]}`" if undo else "none", f"`{claim}`" if claim else "none"))
        if not rows:
            return ["## Actions", "", "It changes nothing outside by steps of its own.", ""]
        return ["## Actions", "", *_table(["action", "undone by", "claim"], rows)]

    def exceptions(self) -> list[str]:
        """What happens on each kind of exception, unless a step says otherwise."""
        rows = [
            (kind, meaning, describe_behaviour(self._spec.on[kind]) if kind in self._spec.on else "escalate (default)")
            for kind, meaning in KINDS.items()
        ]
        return ["## Exceptions", "", *_table(["kind", "meaning", "what happens"], rows)]

    def agents(self) -> list[str]:
        """Who does the work."""
        rows = list[tuple[str, str, str, str]]()
        for name in self._spec.agents():
            spec = self._agent(name)
            what = {"python": "code", "model": f"model tier {spec.model}", "human": f"people: {spec.human}"}[spec.kind]
            rows.append((name, spec.owner, what, spec.purpose))
        children = [f"- `{name}`: {self._files.workflow(name).purpose}" for name in self._spec.children()]
        lines = ["## Agents", "", *_table(["agent", "owner", "what", "purpose"], rows)] if rows else []
        return [*lines, "## Workflows that it starts", "", *children, ""] if children else lines


def _type_words(name: str, kind: object) -> tuple[str, str]:
    schema, optional = type_schema(kind)
    optional = optional or name.endswith("?")
    if "enum" in schema:
        text = " or ".join(str(value) for value in schema["enum"] if value is not None)
    elif isinstance(kind, str):
        text = kind.removesuffix("?")
    else:
        text = "object" if isinstance(kind, Mapping) else "list"
    return text, "no" if optional else "yes"
