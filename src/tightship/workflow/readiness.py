"""The readiness check: rules that say what would fail in production, why, and how to mend it.

A rule is a function with an id; patterns declare theirs beside their execution and yield findings from
`Step.findings`. Rules read files and contracts only: nothing is run, nothing is called.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tightship.core.errors import LoadError
from tightship.core.ports import ToolSpec
from tightship.workflow.conditions import Expression, Values
from tightship.workflow.loader import Loaded, WorkspaceFiles
from tightship.workflow.models import AgentSpec, WorkflowSpec
from tightship.workflow.names import Names, Place, names_of
from tightship.workflow.source import Mark
from tightship.workflow.tree import Step

Severity = Literal["error", "warning", "advice"]
_ORDER: Final = {"error": 0, "warning": 1, "advice": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found, with its place in a file when there is one."""

    rule: str
    severity: Severity
    message: str
    why: str
    fix: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def where(self) -> str:
        """`file:line:column`, as far as known."""
        parts = [str(part) for part in (self.file, self.line, self.column) if part is not None]
        return ":".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        stop = "" if self.message.endswith((".", "!", "?")) else "."
        where = f"{self.where}: " if self.where else ""
        return f"{where}{self.severity} {self.rule}: {self.message}{stop} Fix: {self.fix}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it is called, how bad it is, why it matters, and the usual fix."""

    id: str
    severity: Severity
    title: str
    why: str
    fix: str

    def found(
        self, message: str, mark: Mark | None = None, *, fix: str | None = None, severity: Severity | None = None
    ) -> Finding:
        """A finding of this rule."""
        place = (mark.file, mark.line, mark.column) if mark is not None else (None, None, None)
        return Finding(self.id, severity or self.severity, message, self.why, fix or self.fix, *place)


RuleCheck = Callable[["Check", Rule], Iterable[Finding]]
_RULES: dict[str, Rule] = {}
_CHECKS: dict[str, RuleCheck] = {}


def declare(rule_id: str, severity: Severity, title: str, *, why: str, fix: str) -> Rule:
    """A rule whose findings a pattern yields itself. The id is `TS` and three digits, each used once."""
    if rule_id in _RULES:
        raise ValueError(f"the rule {rule_id} is declared twice")
    _RULES[rule_id] = Rule(rule_id, severity, title, why, fix)
    return _RULES[rule_id]


def rule(rule_id: str, severity: Severity, title: str, *, why: str, fix: str) -> Callable[[RuleCheck], RuleCheck]:
    """Decorator: this function is the rule; it is called with the workspace and the rule itself."""
    declare(rule_id, severity, title, why=why, fix=fix)

    def add(check: RuleCheck) -> RuleCheck:
        _CHECKS[rule_id] = check
        return check

    return add


@dataclass(slots=True)
class Check:
    """A workspace under examination. `tools` holds the contracts that are known; None means that none are."""

    files: WorkspaceFiles
    tools: Mapping[str, ToolSpec] | None = None
    offered: frozenset[str] = frozenset()
    """Names of all tools there are, also of those that nothing uses."""
    _names: dict[str, Names] = field(default_factory=dict[str, Names])

    def workflows(self) -> Iterator[WorkflowSpec]:
        """Every workflow."""
        yield from self.files.workflows.values()

    def names(self, workflow: WorkflowSpec) -> Names:
        """The scope of a workflow."""
        if workflow.workflow not in self._names:
            self._names[workflow.workflow] = names_of(workflow)
        return self._names[workflow.workflow]

    def places(self) -> Iterator[Place]:
        """Every step of every workflow where it stands."""
        for workflow in self.workflows():
            yield from self.names(workflow).places

    def tool(self, name: str) -> ToolSpec | None:
        """The contract of a tool, when it is known."""
        return (self.tools or {}).get(name)

    def agent(self, name: str) -> AgentSpec | None:
        """The agent, or None."""
        return self.files.agents.get(name)

    def schema(self, place: Place, name: str, visible: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """JSON Schema of a name at a place, as far as known."""
        if name == "input":
            return place.workflow.input_schema if place.workflow.input else None
        bound = (visible or place.visible).get(name)
        return bound.step.gives(self) if bound is not None and bound.step is not None else None

    def at(self, place: Place) -> StepCheck:
        """The examination of one step."""
        return StepCheck(self, place)


@dataclass(frozen=True, slots=True)
class StepCheck:
    """What a pattern's `findings` gets: the workspace, and the step where it stands."""

    check: Check
    place: Place

    @property
    def workflow(self) -> WorkflowSpec:
        """The workflow around the step."""
        return self.place.workflow

    def mark(self, *path: str) -> Mark | None:
        """Where a field of the step stands."""
        from tightship.workflow.source import find_mark

        step = self.place.step
        return (
            (find_mark(step.raw, path) if step.raw is not None else None) or step.mark or self.workflow.where("steps")
        )

    def tool(self, name: str) -> ToolSpec | None:
        """The contract of a tool, when it is known."""
        return self.check.tool(name)

    def agents_below(self, step: Step) -> list[AgentSpec]:
        """The agents that take turns in a step, each once."""
        names = dict.fromkeys(name for one in step.walk() for name in one.agents())
        return [spec for name in names if (spec := self.check.agent(name)) is not None]


def expressions_of(place: Place) -> Iterator[tuple[str, Expression]]:
    """The step's single expressions with their field."""
    for name, found in place.step.expressions():
        for expression in found.expressions() if isinstance(found, Values) else [found]:
            yield name, expression


UNREADABLE = declare(
    "TS001",
    "error",
    "A file cannot be read as what it should be",
    why="A workspace with a broken file does not start: nothing would run, or not what you meant.",
    fix="Correct the place that the message names.",
)


def load_finding(problem: LoadError) -> Finding:
    """A problem of loading as a finding."""
    message = problem.message + ("" if problem.message.endswith(".") else ".")
    return Finding(
        UNREADABLE.id,
        "error",
        message,
        UNREADABLE.why,
        problem.fix or UNREADABLE.fix,
        problem.file,
        problem.line,
        problem.column,
    )


_THEMES: Final = (
    "workflow",
    "need",
    "agents",
    "python",
    "workspace",
    "names",
    "behaviour",
    "load",
    "context",
    "safeguards",
    "conduct",
)


def _load_rules() -> None:
    for theme in _THEMES:
        importlib.import_module(f"tightship.workflow.rules_{theme}")


_NEED_CONFIG: Final = frozenset({"TS104", "TS306"})
"""Rules about what tightship.yaml does not say: silent while it cannot be read."""
_NEED_STEPS: Final = frozenset({"TS400", "TS402", "TS405", "TS406", "TS409", "TS562"})
"""Rules about names that nothing binds: silent about a file whose steps could not all be read, which may bind them."""
_NEED_ALL: Final = frozenset({"TS202", "TS309", "TS310", "TS314"})
"""Rules about what nobody uses: silent while a file cannot be read, since that file may be the user."""


def check_workspace(
    loaded: Loaded, tools: Mapping[str, ToolSpec] | None = None, offered: Collection[str] = ()
) -> list[Finding]:
    """Every finding: problems of loading, then what the rules say, errors first.

    Args:
        loaded: the workspace with the problems of loading.
        tools: contracts of its tools; rules that need one stay silent without it.
        offered: names of all tools there are, to find the one that is meant.
    """
    _load_rules()
    check = Check(loaded.workspace, tools, frozenset(offered))
    found = [load_finding(problem) for problem in loaded.problems]
    broken = {problem.file for problem in loaded.problems}
    silent = set(_NEED_ALL) if loaded.problems else set[str]()
    if loaded.problems and loaded.workspace.config.where() is None:
        silent |= _NEED_CONFIG
    for rule_id, function in _CHECKS.items():
        if rule_id not in silent:
            found.extend(function(check, _RULES[rule_id]))
    for place in check.places():
        found.extend(place.step.findings(check.at(place)))
    unique = dict.fromkeys(one for one in found if not (one.rule in _NEED_STEPS and one.file in broken))
    return sorted(unique, key=lambda one: (_ORDER[one.severity], one.file or "~", one.line or 0, one.rule, one.message))


def all_rules() -> list[Rule]:
    """Every rule by id. Those of patterns are there once the patterns are loaded."""
    _load_rules()
    return [_RULES[rule_id] for rule_id in sorted(_RULES)]


_HEADINGS: Final = (
    ("TS0", "Files"),
    ("TS1", "Workflows"),
    ("TS2", "Agents"),
    ("TS3", "The workspace: tiers, connectors, roles, secrets"),
    ("TS4", "Names, conditions and data flow"),
    ("TS5", "Patterns"),
    ("TS6", "Exceptions"),
    ("TS7", "Shared context"),
)


def rules_page() -> str:
    """The page that documents every rule, as Markdown (`docs/readiness.md`)."""
    lines = [
        "# Readiness rules",
        "",
        "`tightship check` reads a workspace and names what would fail in production, why, and the fix. An **error**",
        "makes the command exit with 1; a **warning** is a risk to accept knowingly; **advice** is a better way. Rules",
        "that need a tool's contract are silent while it is not known. This page is written by the registry of rules.",
        "",
    ]
    rules = all_rules()
    for prefix, heading in _HEADINGS:
        chosen = [one for one in rules if one.id.startswith(prefix)]
        if chosen:
            lines += [f"## {heading}", "", "| rule | severity | what | why | fix |", "|---|---|---|---|---|"]
            cells = ((one.id, one.severity, one.title, one.why, one.fix) for one in chosen)
            lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
