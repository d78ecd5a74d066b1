"""A run's steps as a tree by key, made from what is recorded: no definition is needed, and none can disagree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tightship.core import kinds
from tightship.core.money import show_usd
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import Effect, State, Turn, base_of, duration, effects, turns
from tightship.insight.costs import Cost, cost_of

_PLUMBING = re.compile(r"(?:tool|model|ask|budget|undo|\d+|p\d+)\Z")
"""Parts of a key that only number or sort what is below; they are not shown as steps of their own."""
_LOST = frozenset({"task.failed", "branch.failed"})
"""Notes by which a pattern tells that a task or a branch has failed and it went on."""
_FEW = 3
"""So many calls that read alike are each shown."""
_MOST = 24
"""So many steps below one are all shown."""
_EDGE = 6
"""Of more than that, so many at either end."""
_KINDS = 8
"""So many kinds of what is between them are counted apart."""


@dataclass(slots=True)
class StepNode:
    """One step: what is recorded under a key and below it.

    Attributes:
        key: its key.
        label: what to call it (an agent, a tool, a step).
        kind: `step`, `turn`, `read`, `write`, `model`, `undo`, `question`, or `run` (one below it).
        state: as recorded, or as the steps below it stand.
        cost: with everything below it.
        n: the position of its first entry. began, ended: store time (s); ended is 0 while it goes on.
        note: what there is to say (an error's name, `cached`, who decided).
        lost: the error by which it has failed though nothing recorded below it did.
    """

    key: str
    label: str
    kind: str = "step"
    state: State = "done"
    agent: str = ""
    n: int = 0
    began: float = 0.0
    ended: float = 0.0
    cost: Cost = field(default_factory=Cost)
    attempts: int = 0
    note: str = ""
    recorded: bool = False
    lost: str = ""
    children: list[StepNode] = field(default_factory=list["StepNode"])

    def walk(self) -> Iterator[StepNode]:
        """This step and everything below it, in order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def as_dict(self) -> dict[str, Json]:
        """The step and everything below it as JSON."""
        names = ("key", "label", "kind", "state", "agent", "n", "began", "ended", "attempts", "note")
        return {name: getattr(self, name) for name in names} | {
            "cost": self.cost.as_dict(),
            "children": [child.as_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Below:
    """A run below this one that has not told it of its end.

    Attributes:
        run: its id. workflow: its workflow. at: the key of the step that has started it.
        n, began: position and store time (s) of its start. state: queued, running, parked or ended.
    """

    run: str
    workflow: str
    at: str
    n: int
    began: float
    state: str


def step_tree(entries: Sequence[EntryView], ended: bool, below: Sequence[Below] = ()) -> list[StepNode]:
    """The steps of a run, in the order in which they began.

    Args:
        entries: all entries of the run, in order.
        ended: whether the run has ended; what was under way then was stopped.
        below: runs below it that are under way, which its own entries do not name.
    """
    root = StepNode("", "")
    known: dict[str, StepNode] = {"": root}
    for turn in turns(entries).values():
        _take_turn(_node(known, turn.key), turn)
    for effect in effects(entries).values():
        _take_effect(_node(known, effect.key), effect, ended)
    _take_questions(known, entries, ended)
    for one in below:
        _take_below(_node(known, one.at), one)
    for entry in entries:
        if entry.kind == kinds.SIGNAL and entry.body.get("type") == "do":
            node = _node(known, str(entry.body["key"]))
            node.kind, node.label, node.recorded, node.state = "hand", "by hand", True, "done"
            node.n, node.began, node.ended = node.n or entry.n, node.began or entry.at, entry.at
            node.note = f"done by hand by {entry.body.get('by') or 'somebody'}"
        elif entry.kind == kinds.SIGNAL and entry.body.get("type") == "child":
            _take_child(_node(known, str(entry.body["at"])), entry)
        elif entry.kind == kinds.NOTE and entry.body.get("type") in _LOST:
            _node(known, base_of(entry.key)).lost = str(entry.body.get("error") or "")
    for entry in entries:
        if entry.kind == kinds.NODE:
            node = _node(known, entry.key)
            node.recorded, node.n, node.ended = True, node.n or entry.n, entry.at
    _finish(root, ended)
    return root.children


def _node(known: dict[str, StepNode], key: str) -> StepNode:
    node = known.get(key)
    if node is None:
        head, _, part = key.rpartition("/")
        node = known[key] = StepNode(key, part)
        _node(known, head).children.append(node)
    return node


def _take_turn(node: StepNode, turn: Turn) -> None:
    node.kind, node.label, node.agent, node.recorded = "turn", turn.agent, turn.agent, True
    node.n, node.began, node.ended = turn.began_n, turn.began, turn.ended
    node.state = "done" if turn.error is None else "failed"
    node.note = "" if turn.error is None else str(turn.error.get("error") or "")


def _take_effect(node: StepNode, effect: Effect, ended: bool) -> None:
    node.kind, node.label, node.agent, node.recorded = effect.cls, effect.name, effect.agent, True
    node.n, node.began = effect.n, effect.began
    node.ended = 0.0 if effect.state == "open" else effect.ended
    node.state = "stopped" if ended and effect.state == "open" else effect.state
    node.cost, node.attempts = cost_of(effect), effect.attempts
    said = [effect.why, "from cache" if effect.cached else ""]
    said.append(f"{effect.attempts} attempts" if effect.attempts > 1 else "")
    said.append(f"undoes {effect.undoes}" if effect.undoes else "")
    node.note = ", ".join(part for part in said if part)


def _take_below(node: StepNode, below: Below) -> None:
    """A run below this one that is under way. What it costs and does is its own."""
    node.kind, node.label, node.recorded = "run", f"{below.workflow}: run {below.run}", True
    node.n, node.began, node.ended = below.n, below.began, 0.0
    node.state = "waiting" if below.state == "parked" else "open"
    node.note = below.state


def _take_child(node: StepNode, entry: EntryView) -> None:
    """How a run below this one ended. What it cost and did is its own."""
    body: Any = entry.body
    completed = body["outcome"] == "completed"
    workflow = node.key.rpartition("child:")[2].partition("/")[0]
    node.kind, node.label, node.recorded = "run", f"{workflow}: run {body['child']}", True
    node.n, node.began, node.ended = entry.n, entry.at, entry.at
    node.state = "done" if completed else "failed"
    node.note = "" if completed else ": ".join(part for part in (body["outcome"], body.get("reason")) if part)


def _take_questions(known: dict[str, StepNode], entries: Sequence[EntryView], ended: bool) -> None:
    by_item: dict[str, StepNode] = {}
    for entry in entries:
        body: Any = entry.body
        if entry.kind == kinds.OPENED and not (ended and body.get("type") in ("escalation", "residual")):
            node = by_item[str(body.get("item"))] = _node(known, entry.key)
            node.kind, node.recorded = "question", True
            node.label = f"{body.get('type', 'question')} by {body.get('role') or 'anybody'}"
            node.n, node.began = entry.n, entry.at
            node.state = "stopped" if ended else "waiting"
        elif entry.kind == kinds.CLOSED and str(body.get("item")) in by_item:
            node = by_item[str(body.get("item"))]
            node.ended, node.state = entry.at, "done"
            by = f" by {body['by']}" if body.get("by") else ""
            node.note = f"{body.get('decision', '')}{by}"


def _finish(node: StepNode, ended: bool) -> None:
    """Sums and states from below, and only what says something kept as a step of its own."""
    for child in node.children:
        _finish(child, ended)
    node.children.sort(key=lambda child: child.n)
    if node.children:
        node.cost = sum((child.cost for child in node.children), node.cost)
        node.n = min(child.n for child in node.children) if not node.n else min(node.n, node.children[0].n)
        began = min(child.began for child in node.children)
        node.began = min(node.began, began) if node.began else began
        if not node.recorded:
            node.state = _joint_state(node.children)
            going = any(child.state in ("open", "waiting") for child in node.children)
            node.ended = 0.0 if going else max(child.ended for child in node.children)
            if all(_going(child) for child in node.children) and ended:
                node.state = "stopped"
    if node.lost and not node.recorded and node.state != "failed":
        node.state, node.note, node.recorded = "failed", node.lost, True
    node.children = [shown for child in node.children for shown in _shown(child)]


def _going(node: StepNode) -> bool:
    return node.state in ("open", "stopped")


def _joint_state(children: Sequence[StepNode]) -> State:
    for state in ("waiting", "open", "unknown"):
        if any(child.state == state for child in children):
            return state
    return children[-1].state


def _shown(node: StepNode) -> list[StepNode]:
    """The step, or, where it only sorts others, what is below it."""
    if node.recorded:
        return [node]
    if _PLUMBING.match(node.label) or all(child.label == node.label for child in node.children):
        return node.children
    if len(node.children) == 1:
        only = node.children[0]
        if only.kind == "turn":  # a step with a name of its own keeps it
            only.label = f"{node.label}: {only.label}"
        return [only]
    return [node]


def draw(nodes: Sequence[StepNode], keys: bool = False) -> list[str]:
    """The steps as lines of text with branches; calls that read alike and follow each other stand on one line. Of many
    steps below one the first and the last are shown, and what is between them is counted.

    Args:
        nodes: the steps. keys: name the key of each, put none together and leave none out.
    """
    lines: list[str] = []

    def branch(found: Sequence[StepNode], indent: str) -> None:
        groups = [[node] for node in found] if keys else _alike(found)
        ends = len(groups) - _EDGE if not keys and len(groups) > _MOST else 0
        for number, group in enumerate(groups, 1):
            if _EDGE < number <= ends:
                if number == ends:
                    lines.append(f"{indent}├─ {_between(groups[_EDGE:ends])}")
                continue
            last, node = number == len(groups), group[0]
            said = describe(node) if len(group) == 1 else _together(group)
            key = f"  [{node.key}]" if keys else ""
            lines.append(f"{indent}{'└─ ' if last else '├─ '}{said}{key}")
            branch(node.children, f"{indent}{'   ' if last else '│  '}")

    branch(nodes, "")
    return lines


def _between(groups: Sequence[Sequence[StepNode]]) -> str:
    """What is not shown, counted by what it is and how it ended; what did not go well comes first."""
    counts: Counter[tuple[str, State]] = Counter(
        (one.label, one.state) for group in groups for node in group for one in _recorded(node)
    )
    order = sorted(counts, key=lambda one: (one[1] == "done", -counts[one], one))
    told = [f"{counts[one]} x {one[0]} {MARKS[one[1]]}" for one in order[:_KINDS]]
    more = sum(counts[one] for one in order[_KINDS:])
    return f"… in between (--keys shows all): {', '.join([*told, *([f'{more} others'] if more else [])])}"


def _recorded(node: StepNode) -> Iterator[StepNode]:
    """The step; what only holds others stands for these."""
    if node.recorded or not node.children:
        yield node
    else:
        for child in node.children:
            yield from _recorded(child)


def _alike(nodes: Sequence[StepNode]) -> list[list[StepNode]]:
    """Neighbours that read alike, where they are more than a few and hold nothing; every other step alone."""
    groups: list[list[StepNode]] = []
    for node in nodes:
        first = groups[-1][0] if groups else None
        same = first is not None and not node.children and not first.children
        if same and first and (node.label, node.state, node.note) == (first.label, first.state, first.note):
            groups[-1].append(node)
        else:
            groups.append([node])
    return [part for group in groups for part in ([group] if len(group) > _FEW else [[node] for node in group])]


def _together(group: Sequence[StepNode]) -> str:
    """Several steps that read alike on one line."""
    cost = sum((node.cost for node in group), Cost())
    ended = 0.0 if any(not node.ended for node in group) else max(node.ended for node in group)
    whole = replace(group[0], cost=cost, began=min(node.began for node in group), ended=ended, children=[])
    return f"{len(group)} x {describe(whole)}"


MARKS: dict[State, str] = {
    "done": "ok",
    "failed": "failed",
    "refused": "refused",
    "unknown": "outcome unknown",
    "open": "under way",
    "waiting": "waiting",
    "stopped": "stopped",
}


def describe(node: StepNode) -> str:
    """One step on one line."""
    parts = [node.label, MARKS[node.state]]
    if node.note:
        parts.append(f"({node.note})")
    if node.ended and node.kind not in ("step", "run"):
        parts.append(duration(max(0.0, node.ended - node.began)))
    if node.cost.usd:
        parts.append(show_usd(node.cost.usd))
    if node.cost.tokens_in + node.cost.tokens_out:
        parts.append(f"{node.cost.tokens_in + node.cost.tokens_out:,} tokens")
    return "  ".join(parts)
