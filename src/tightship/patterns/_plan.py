"""A plan as data: typed sub-tasks with what they need, checked before anything of it runs (P3)."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core.ports import Json
from tightship.patterns._settle import alike
from tightship.workflow.types import Shape, object_schema, shape_of

_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
_SHAPE: Final = shape_of(
    {
        "type": "object",
        "required": ["tasks"],
        "properties": {
            "tasks": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "worker", "goal"],
                    "properties": {
                        "id": {"type": "string"},
                        "worker": {"type": "string"},
                        "goal": {"type": "string", "minLength": 1, "maxLength": 4000},
                        "needs": {"type": ["array", "null"], "items": {"type": "string"}},
                        "covers": {"type": ["array", "null"], "items": {"type": "string"}},
                        "input": {"type": ["object", "null"]},
                    },
                    "additionalProperties": False,
                },
            }
        },
    }
)


@dataclass(frozen=True, slots=True)
class Task:
    """A sub-task: who does what, what has to be there before, which items of the whole it answers, and its input."""

    id: str
    worker: str
    goal: str
    needs: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    input: Mapping[str, Json] | None = None

    def to_json(self) -> dict[str, Json]:
        """As workers, planners and entries see it."""
        return {
            "id": self.id,
            "worker": self.worker,
            "goal": self.goal,
            "needs": list(self.needs),
            "covers": list(self.covers),
            "input": dict(self.input or {}),
        }


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a plan is held against.

    Attributes:
        workers: the declared fields of each worker's input, None where anything may be given.
        items: what has to be covered; empty when nothing is declared.
        most: tasks at most.
        answers: how many tasks may cover the same item: more than one only where a rule settles their results.
        done: ids of earlier plans' finished tasks, which may be needed.
        used: ids of all tasks of earlier plans, which may not be used again.
        covered: how many finished tasks cover an item already.
    """

    workers: Mapping[str, Mapping[str, Any] | None]
    items: tuple[str, ...] = ()
    most: int = 12
    answers: int = 1
    done: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    covered: Mapping[str, int] = field(default_factory=dict[str, int])


def read_plan(output: Json) -> tuple[list[Task], list[str]]:
    """The tasks of a planner's output, and what is wrong with its form; without a form there are no tasks."""
    misfits = [str(misfit) for misfit in _SHAPE.misfits(output)]
    if misfits or not isinstance(output, Mapping):
        return [], misfits or ["the plan is no object with `tasks`"]
    tasks = [
        Task(
            one["id"],
            one["worker"],
            one["goal"],
            tuple(one.get("needs") or ()),
            tuple(one.get("covers") or ()),
            one.get("input"),
        )
        for one in output["tasks"]
    ]
    return tasks, []


def planned(tasks: Sequence[Task]) -> dict[str, Json]:
    """What a plan comes to, without the ids that each makes anew: by this it is told whether it was made before."""
    told = ("worker", "goal", "covers", "input")
    return {"tasks": [{name: value for name, value in one.to_json().items() if name in told} for one in tasks]}


def came_of(tasks: Sequence[Task], results: Mapping[str, Json], failed: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """What has come of a plan, in the same way.

    Args:
        results: of finished tasks by id. failed: tasks as JSON with `error` and `message`, and `evidence` where there
            is some.
    """
    return {
        "results": [{"worker": task.worker, "value": results[task.id]} for task in tasks if task.id in results],
        "failed": [{"worker": one["worker"], "error": one["error"], "message": _reason(one)} for one in failed],
    }


def _reason(failed: Mapping[str, Any]) -> str:
    """Why a task has failed, without the names of the task and of its run; what it waited for names other tasks."""
    if failed["error"] == "blocked":
        return ""
    child = str((failed.get("evidence") or {}).get("child") or "")
    said = str(failed["message"]).replace(child, "it") if child else str(failed["message"])
    return re.sub(rf"(?<![\w.-]){re.escape(failed['id'])}(?![\w.-])", "it", said)


def problems(tasks: Sequence[Task], bounds: Bounds) -> list[str]:
    """Why a plan does not stand, each in a sentence that its planner can act on; empty when it does."""
    if not tasks:
        enough = bounds.items and all(bounds.covered.get(item) for item in bounds.items)
        return [] if enough else ["the plan has no task"]
    if len(tasks) > bounds.most:
        return [f"the plan has {len(tasks)} tasks, and at most {bounds.most} are allowed"]
    return [
        *_names(tasks, bounds),
        *_inputs(tasks, bounds),
        *_order(tasks, bounds),
        *_coverage(tasks, bounds),
        *_overlap(tasks),
    ]


def _names(tasks: Sequence[Task], bounds: Bounds) -> Iterator[str]:
    seen = set[str](bounds.used)
    for task in tasks:
        if not _ID.match(task.id):
            yield f"{task.id!r} is no id for a task: use up to 64 letters, digits and _.-"
        elif task.id in seen:
            yield f"the id {task.id!r} is used twice"
        seen.add(task.id)
        if task.worker not in bounds.workers:
            yield f"{task.id}: there is no worker {task.worker!r}; there are {', '.join(bounds.workers)}"


def _inputs(tasks: Sequence[Task], bounds: Bounds) -> Iterator[str]:
    for task in tasks:
        fields = bounds.workers.get(task.worker)
        if fields is not None:
            shape: Shape = shape_of(object_schema(fields))
            yield from (f"{task.id}: input.{misfit}" for misfit in shape.misfits(dict(task.input or {})))


def _order(tasks: Sequence[Task], bounds: Bounds) -> Iterator[str]:
    known = {task.id for task in tasks} | bounds.done
    for task in tasks:
        for need in task.needs:
            if need not in known:
                yield f"{task.id}: it needs {need!r}, which is {'not done' if need in bounds.used else 'no task'}"
    graph = {task.id: set(task.needs) - bounds.done for task in tasks}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"tasks need each other in a circle: {' -> '.join(error.args[1])}"


def _coverage(tasks: Sequence[Task], bounds: Bounds) -> Iterator[str]:
    if not bounds.items:
        return
    counts = {item: [task.id for task in tasks if item in task.covers] for item in bounds.items}
    for item, by in counts.items():
        done = bounds.covered.get(item, 0)
        if not by and not done:
            yield f"nothing covers {item!r}"
        elif by and len(by) + done > bounds.answers:
            more = "one task each" if bounds.answers == 1 else f"at most {bounds.answers} tasks each"
            before = f" beside {done} before" if done else ""
            yield f"{item!r} is covered by {', '.join(by)}{before}, and items are for {more}"
    for task in tasks:
        stray = [item for item in task.covers if item not in counts]
        if stray:
            yield f"{task.id}: it covers {', '.join(map(repr, stray))}, which nobody asked for"


def _overlap(tasks: Sequence[Task]) -> Iterator[str]:
    """The same worker with the same goal and the same input does the same work again."""
    seen = dict[str, str]()
    for task in tasks:
        same = seen.setdefault(alike([task.worker, task.goal, dict(task.input or {})]), task.id)
        if same != task.id:
            yield f"{task.id} is {same} again: the same worker, goal and input"


def overlapping(tasks: Iterable[Task]) -> dict[str, list[str]]:
    """The items that several tasks cover, with those tasks."""
    found = dict[str, list[str]]()
    for task in tasks:
        for item in task.covers:
            found.setdefault(item, []).append(task.id)
    return {item: ids for item, ids in found.items() if len(ids) > 1}
