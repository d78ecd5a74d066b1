"""How a run's steps stand, read from its ledger alone: what is done and with what output, what is open, what waits.

The reading serves whoever takes a run over, and the package of a run that ends without being walked through again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tightship.core import kinds
from tightship.core.errors import OutcomeUnknown
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.effects.journal import Journal
from tightship.ledger import Entry, Ledger
from tightship.patterns.action import Action
from tightship.patterns.agent_step import AgentStep
from tightship.patterns.maker_checker import MakerChecker
from tightship.patterns.review import Review
from tightship.patterns.workflow_step import WorkflowStep
from tightship.runtime.children import ended_child
from tightship.runtime.node import again
from tightship.workflow.definition import Definition
from tightship.workflow.tree import Step

State = Literal["done", "by hand", "begun", "waits", "in flight", "unknown", "undone", "open", "not taken"]
FINISHED: Final = frozenset({"done", "by hand"})
CHECKS: Final = frozenset({"maker_checker", "review", "vote"})
"""Patterns in which somebody judges what others made."""
STARTED: Final = frozenset({"done", "by hand", "begun", "waits", "in flight", "unknown", "undone"})


@dataclass(frozen=True, slots=True)
class StepState:
    """One step of a run.

    Attributes:
        key: its key; `path` is the one under which it is recorded now (a step that began anew has a suffix).
        name: what its output is called, or empty. pattern: its kind. what: its agent, tool or workflow.
        state: done, by hand (a person did it), begun, waits (for a person), in flight (a call that has not settled),
            unknown (nobody knows whether its write was done), undone, open, not taken (the other way of a decision).
        out: the address of its output, or empty. by: the person who did it.
        reads: the names that it reads. items: its open inbox items. writes: keys of its writes that stand.
        schema: JSON Schema of its output, or None where nothing is declared.
        parts: how many steps stand inside it here; they are listed after it.
        checks: it, or a step inside it, checks what others made.
    """

    key: str
    path: str
    name: str
    pattern: str
    what: str
    state: State
    out: str = ""
    by: str = ""
    reads: frozenset[str] = frozenset()
    items: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    parts: int = 0
    checks: bool = False

    def as_dict(self) -> dict[str, Json]:
        """Itself as JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("parts", "checks")}
        return {**fields, "reads": sorted(self.reads), "items": list(self.items), "writes": list(self.writes)}


@dataclass(slots=True)
class Standing:
    """A run as its ledger says.

    Attributes:
        journal: its entries, indexed. steps: its steps in order, composite ones before what is inside them.
    """

    journal: Journal
    steps: list[StepState] = field(default_factory=list[StepState])

    def find(self, wanted: str) -> list[StepState]:
        """The steps of that key, else of that name, agent or tool."""
        found = [one for one in self.steps if one.key == wanted]
        return found or [one for one in self.steps if wanted in (one.name, one.what)]

    async def value(self, name: str) -> tuple[StepState, Json] | None:
        """The step that gives a name and the value that is bound to it now, reviews and edits included; or None."""
        step = next((one for one in reversed(self.steps) if one.name == name and one.state in FINISHED), None)
        if step is None or not step.out:
            return None
        value = await self.journal.value(step.out)
        for later in self.steps[self.steps.index(step) + 1 :]:
            edited = self._reviewed(later, name)
            value = await self.journal.value(edited) if edited else value
        for edit in self.journal.edits:
            body = edit.body
            if body["name"] == name and value == await self.journal.value(body["was"]):
                value = await self.journal.value(body["value"])
        return step, value

    async def values(self) -> dict[str, Json]:
        """What finished steps have given, by name."""
        found: dict[str, Json] = {}
        for name in dict.fromkeys(one.name for one in self.steps if one.name):
            known = await self.value(name)
            if known is not None:
                found[name] = known[1]
        return found

    def _reviewed(self, step: StepState, name: str) -> str:
        """The address of the value that a review has put in the place of a name's."""
        if step.pattern != Review.pattern or step.what != name:
            return ""
        answers = [body for body in answers_below(self.journal, step.path) if body["decision"] in ("edit", "answer")]
        return str(answers[-1].get("value") or "") if answers else ""


def standing(ledger: Ledger, definition: Definition, entries: Sequence[Entry]) -> Standing:
    """How a run stands, by its pinned definition and its entries."""
    journal = Journal(ledger, entries[0].run, 0, entries[0].log, entries[0].body.get("scope", ""))
    journal.load(entries, {})
    reader = _Reader(journal, definition)
    steps = reader.sequence([(step.part, step) for step in definition.workflow.steps], "")
    return Standing(journal, steps)


class _Reader:
    def __init__(self, journal: Journal, definition: Definition) -> None:
        self._journal = journal
        self._definition = definition
        self.agent = definition.agents.get  # `Step.gives` asks for it
        self.tool = definition.tools.get
        self._items = {
            entry.body["item"]: entry.key for entry in journal.entries if entry.kind == kinds.OPENED and entry.key
        }
        self._doubtful = [key for key, body in journal.again.items() if body.get("doubtful")]

    def sequence(self, steps: Sequence[tuple[str, Step]], above: str) -> list[StepState]:
        """Steps one after the other: what stands before something that has begun is done."""
        groups = [self.visit(step, f"{above}/{part}" if above else part) for part, step in steps]
        begun = False
        for index in range(len(groups) - 1, -1, -1):
            head = groups[index][0]
            if begun:
                groups[index] = _passed(groups[index])
            begun = begun or head.state in STARTED
        return [one for group in groups for one in group]

    def visit(self, step: Step, key: str) -> list[StepState]:
        """A step, and the steps inside it that run once."""
        own = self._own(step, key)
        inside = list(step.once())
        if not inside or own.state == "by hand":
            return [own]
        if step.order == "sequence":
            below = self.sequence([(part, child) for part, child in inside], own.path)
        else:
            below = [one for part, child in inside for one in self.visit(child, f"{own.path}/{part}")]
        if step.order == "choice" and any(one.state in STARTED for one in below):
            below = [replace(one, state="not taken") if one.state == "open" else one for one in below]
        states = {one.state for one in below} - {"not taken"}
        if states and states <= FINISHED:
            own = replace(own, state="done")
        elif states & STARTED and own.state == "open":
            own = replace(own, state="begun")
        return [replace(own, parts=len(below)), *below]

    def _own(self, step: Step, key: str) -> StepState:
        journal = self._journal
        path = again(key, journal.anew)
        given: Any = step.gives(self)
        writes = tuple(one for one in _below(journal.actions, path) if one not in journal.undone)
        what = next((found for found in (*step.agents(), *step.tools(), *step.workflows())), "")
        if isinstance(step, Review):
            what = step.subject or ""
        state = StepState(
            key,
            path,
            step.result or "",
            step.pattern,
            what,
            "open",
            reads=self._reads(step),
            writes=writes,
            schema=given,
            checks=any(one.pattern in CHECKS for one in step.walk()),
        )
        done = journal.by_hand.get(key)
        if done is not None:
            return replace(state, state="by hand", out=done["value"], by=str(done.get("by") or ""))
        items = tuple(item for item, at in self._items.items() if _is_below(at, path) and item not in journal.closed)
        out = self._output(step, path)
        if out and not isinstance(step, MakerChecker):  # the last draft is its output once the run has gone on
            return replace(state, state="done", out=out)
        return replace(state, out=out, items=items, state=self._unfinished(step, path, items))

    def _unfinished(self, step: Step, path: str, items: Sequence[str]) -> State:
        journal = self._journal
        if any(True for _ in _below(journal.admitted, path)):
            return "in flight"
        if any(_is_below(key, path) for key in self._doubtful):
            return "unknown"
        if items:
            return "waits"
        if isinstance(step, Action):
            mine = [journal.effects[key] for key in _below(journal.effects, path)]
            if any(body.get("error", {}).get("error") == OutcomeUnknown.__name__ for body in mine):
                return "unknown"
            if any(key in journal.undone for key in _below(journal.actions, path)):
                return "undone"
        return "begun" if any(_is_below(entry.key, path) for entry in journal.entries if entry.key) else "open"

    def _output(self, step: Step, path: str) -> str:
        """The address of what a step has given, empty when it has not, or when it is not recorded as one value."""
        journal = self._journal
        if isinstance(step, AgentStep | MakerChecker):
            answers = [body["value"] for body in answers_below(journal, path) if body.get("value")]
            makers = set(step.agents() if isinstance(step, AgentStep) else step.maker.agents())
            turns = [journal.turns[key] for key in _below(journal.turns, path)]
            outs = [body["out"] for body in turns if "out" in body and body["agent"] in makers]
            return str((answers or outs or [""])[-1])
        if isinstance(step, Action):
            standing = [key for key in _below(journal.actions, path) if key not in journal.undone]
            return str(journal.effects[standing[-1]]["out"]) if standing else ""
        if isinstance(step, WorkflowStep):
            child = derived_id("r", journal.run, f"{path}/child:{step.workflow}/1")
            told = ended_child(journal.signals, child)
            return str(told["output"]) if told is not None and told["outcome"] == "completed" else ""
        return ""

    def _reads(self, step: Step) -> frozenset[str]:
        """The names that a step reads itself; of one whose inside may run again, all that is read in it."""
        steps = [step] if list(step.once()) else list(step.walk())
        found: set[str] = set()
        for one in steps:
            for _, expression in one.expressions():
                found |= expression.names
            for agent in one.agents():
                spec = self.agent(agent)
                if spec is not None:
                    found |= set(spec.input_schema["properties"])
            if isinstance(one, Review) and one.subject:
                found.add(one.subject)
            if isinstance(one, Action) and one.with_ is None and one.from_ is None and one.source:
                found.add(one.source)
        return frozenset(found)


def answers_below(journal: Journal, path: str) -> list[Mapping[str, Any]]:
    """What people have decided about results and questions at or below a key, in order; budgets left out."""
    opened = {
        entry.body["item"]
        for entry in journal.entries
        if entry.kind == kinds.OPENED and entry.body["type"] != "budget" and _is_below(entry.key, path)
    }
    return [body for item, body in journal.closed.items() if item in opened]


def _passed(group: list[StepState]) -> list[StepState]:
    """A step behind which the run has gone on, with what is inside it: what left no trace was passed or not taken."""
    head, *inside = group
    if head.state in ("open", "begun"):
        head = replace(head, state="done")
    return [head, *(_left(one) for one in inside)]


def _left(step: StepState) -> StepState:
    if step.state == "begun":
        return replace(step, state="done")
    recorded = step.pattern in (AgentStep.pattern, Action.pattern, WorkflowStep.pattern) or step.parts
    return replace(step, state="not taken" if recorded else "done") if step.state == "open" else step


def _is_below(key: str, path: str) -> bool:
    return key == path or key.startswith(f"{path}/")


def _below(keys: Mapping[str, Any], path: str) -> Iterator[str]:
    return (key for key in keys if _is_below(key, path))
