"""An effects.Frame in memory: runs patterns without an engine, and refuses what an engine could not replay.

Every turn, action, question, child and note has a key; two with the same key are a defect of the pattern and fail.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from tightship.core.errors import TimedOut, WorkException
from tightship.effects.frame import (
    ActionCall,
    Answer,
    Branch,
    BranchResult,
    Governed,
    Learning,
    Question,
    RunFacts,
    Scope,
)
from tightship.workflow.tree import Step

Agent = Callable[..., Any]


class Escalated(BaseException):
    """The run ended as escalated."""

    def __init__(self, exception: WorkException) -> None:
        self.exception = exception
        super().__init__(str(exception))


@dataclass
class World:
    """What happened, shared by all frames of a run."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    ambient: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    children: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    turns: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    feedback: list[tuple[str, list[str]]] = field(default_factory=list)
    actions: list[ActionCall] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    notes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    governed: Governed | None = None
    lessons: list[Learning] = field(default_factory=list)
    made_by: list[tuple[Any, str]] = field(default_factory=list)
    apart: dict[str, Sequence[str]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    people: dict[str, list[str]] = field(default_factory=dict)
    widest: int = 0
    running: int = 0

    def take(self, key: str) -> None:
        """Each key once."""
        assert key not in self.keys, f"the key {key} is used twice"
        self.keys.add(key)


class FakeFrame:
    """One node."""

    def __init__(self, world: World, scope: Scope, key: str = "") -> None:
        self.world, self.scope, self.key = world, scope, key
        self.run = RunFacts("r-1", "sample", "default", dict(scope.names.get("input", {})))

    def _join(self, part: str) -> str:
        return f"{self.key}/{part}" if self.key else part

    def at(self, part: str) -> FakeFrame:
        return FakeFrame(self.world, self.scope, self._join(part))

    def round(self, number: int) -> FakeFrame:
        return self.at(str(number))

    def bind(self, name: str, value: Any) -> None:
        self.scope.names[name] = value

    async def step(self, step: Step) -> Any:
        value = await step.execute(FakeFrame(self.world, self.scope, self._join(step.part)))
        if step.name is not None:
            self.bind(step.name, value)
        return value

    async def turn(self, agent: str, give: Mapping[str, Any] | None = None) -> Any:
        key = self._join(f"turn:{agent}")
        self.world.take(key)
        given = dict(self.scope.names["input"]) if give is None else dict(give)
        self.world.turns.append((key, agent, given))
        self.world.feedback.append((agent, list(self.scope.names.get("feedback") or ())))
        return await _called(self.world.agents[agent], given, self)

    async def act(self, call: ActionCall) -> Any:
        self.world.take(self._join(f"act:{call.tool}"))
        self.world.actions.append(call)
        return await _called(self.world.tools.get(call.tool, dict), call.args)

    async def fork(self, branches: Sequence[Branch], on_failure: Literal["end", "keep"]) -> list[BranchResult]:
        frames = [FakeFrame(self.world, self.scope.layer(), self._join(branch.part)) for branch in branches]
        tasks = [
            asyncio.ensure_future(self._branch(branch, frame)) for branch, frame in zip(branches, frames, strict=True)
        ]
        pending = set(tasks)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in done if not isinstance(task.exception(), WorkException | None)]
            if failed:
                for task in pending:
                    task.cancel()
                raise failed[0].exception() or AssertionError
            if on_failure == "end" and any(task.exception() is not None for task in done):
                for task in pending:
                    task.cancel()
                if pending:
                    await asyncio.wait(pending)
                break
        return self._joined(branches, frames, tasks)

    async def _branch(self, branch: Branch, frame: FakeFrame) -> Any:
        self.world.running += 1
        self.world.widest = max(self.world.widest, self.world.running)
        try:
            return await branch.work(frame)
        finally:
            self.world.running -= 1

    def _joined(
        self, branches: Sequence[Branch], frames: Sequence[FakeFrame], tasks: Sequence[asyncio.Task[Any]]
    ) -> list[BranchResult]:
        results = []
        for branch, frame, task in zip(branches, frames, tasks, strict=True):
            if task.cancelled():
                results.append(BranchResult(branch.part, ended=True))
            elif (error := task.exception()) is not None:
                assert isinstance(error, WorkException)
                results.append(BranchResult(branch.part, error=error))
            else:
                self.scope.names.update(frame.scope.names)
                results.append(BranchResult(branch.part, task.result()))
        return results

    async def bounded(self, seconds: float, what: str, work: Callable[[], Any]) -> Any:
        self.world.take(self._join("within"))
        if what in self.world.late:
            raise TimedOut(f"{what} did not finish within {seconds:g} s")
        return await work()

    def each_person_once(self) -> None:
        self.world.take(self._join("ballot"))

    def ground(self, grounds: Any) -> None:
        """Nothing is held against its sources here."""

    def persons(self) -> list[str]:
        return self.world.people.get(self.key, [])

    async def evaluate(self, condition: Any, names: Mapping[str, Any] | None = None) -> Any:
        given = {name: self.world.ambient[name] for name in condition.ambient}
        return condition.evaluate({**self.scope.names, **(names or {})}, given)

    async def given(self, condition: Any) -> Mapping[str, Any]:
        return {name: self.world.ambient[name] for name in condition.ambient}

    async def govern(self, condition: Any, learning: Learning) -> Governed | None:
        return self.world.governed

    async def learn(self, learning: Learning) -> None:
        self.world.lessons.append(learning)

    def makers(self, value: Any) -> Sequence[str]:
        return [person for made, person in self.world.made_by if made == value]

    def keep_apart(self, part: str, people: Sequence[str]) -> None:
        self.world.apart[self._join(part)] = people

    async def decide(self, name: str, value: Callable[[], Any]) -> Any:
        self.world.take(self._join(name))
        return value()

    async def ask(self, question: Question) -> Answer:
        self.world.take(self._join("ask"))
        self.world.questions.append(question)
        return self.world.answers.pop(0)

    async def pause(self, seconds: float) -> None:
        self.world.take(self._join("pause"))

    async def child(self, workflow: str, give: Mapping[str, Any]) -> Any:
        self.world.take(self._join(f"child:{workflow}"))
        return await _called(self.world.children[workflow], give)

    async def note(self, type: str, **fields: Any) -> None:
        self.world.take(self._join(f"note:{type}"))
        self.world.notes.append((self.key, type, fields))

    def escalate(self, exception: WorkException) -> NoReturn:
        raise Escalated(exception)


async def _called(function: Callable[..., Any], *args: Any) -> Any:
    wanted = len(inspect.signature(function).parameters) if not isinstance(function, type) else 1
    found = function(*args[:wanted])
    return await found if isinstance(found, Awaitable) else found


def frame(world: World, **names: Any) -> FakeFrame:
    """A frame at the top of a run with these names bound."""
    return FakeFrame(world, Scope({"input": {}, **names}))
