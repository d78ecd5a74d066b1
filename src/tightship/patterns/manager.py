"""A manager plans typed sub-tasks, workers do them as their inputs arrive, conflicts are settled by rule (P3, P4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tightship.core.errors import (
    BranchFailed,
    ContextChanged,
    DataMissing,
    FormatMismatch,
    OutcomeUnknown,
    PlanRejected,
    WorkException,
    WrongShape,
)
from tightship.core.ports import Json
from tightship.effects.frame import Branch, Frame
from tightship.patterns._manager_checks import manager_findings
from tightship.patterns._plan import Bounds, Task, came_of, overlapping, planned, problems, read_plan
from tightship.patterns._settle import ANSWERS, Ballot, Settle, settle
from tightship.patterns._shared import decider, error_data, feedback, layer
from tightship.workflow.conditions import Expression
from tightship.workflow.models import Fields
from tightship.workflow.readiness import Finding, StepCheck
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, TimedStep, patterns
from tightship.workflow.units import Name, show_duration

ANSWER: Final = "answer"
"""What `compare` calls a worker's result."""
NAMES: Final = ("team", "items", "done", "failed", "task", "inputs", "results", "settled")
"""What is bound inside: for the planner `team`, `items`, `done` and `failed`; for a worker `task` and `inputs`; for
whoever puts it together `results`, `failed` and `settled`."""


class Worker(BaseModel):
    """Who does the sub-tasks of one kind, and what they have to be given."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    do: Block
    input: Fields | None = None


def _worker(value: Any) -> Any:
    return value if isinstance(value, Mapping) and "do" in value else {"do": value}


@dataclass(slots=True)
class _Round:
    """One plan under way: what has come of its tasks."""

    tasks: Sequence[Task]
    results: dict[str, Json] = field(default_factory=dict[str, Json])
    failed: dict[str, WorkException] = field(default_factory=dict[str, WorkException])
    blocked: dict[str, str] = field(default_factory=dict[str, str])
    waiting: list[str] = field(default_factory=list[str])
    free: int = 0

    def failures(self) -> Iterator[dict[str, Json]]:
        """What has not been done, in the order of the plan: which of them failed first is a race."""
        for task in self.tasks:
            if task.id in self.failed:
                yield {**task.to_json(), **error_data(self.failed[task.id])}
            elif task.id in self.blocked:
                yield {**task.to_json(), "error": "blocked", "message": self.blocked[task.id]}


@patterns.register("manager")
class Manager(TimedStep):
    """`manager: {plan: AGENT, workers: {NAME: STEP}, cover: LIST, settle: RULE, synthesise: AGENT, fallback: STEPS}`.

    `plan` gives `tasks`: each with `id`, `worker`, `goal`, and as needed `needs` (ids), `covers` (items of `cover`) and
    `input`. A plan that does not stand (coverage, overlap, circles, inputs that do not fit, too many tasks) goes back
    with the reasons once. Tasks run as what they need arrives. What fails is planned anew, `replans` times; where every
    item is covered by what is done, a plan without tasks says that this is enough. Nearly the same plan that fails in
    nearly the same way ends by `limits.similar`. Items that several tasks cover are
    settled by `settle`. `synthesise` puts the results together; without it the output holds `results`, `settled` and
    `failed`. A manager that is late, that breaks, or whose plans are poor, is replaced by `fallback`, which finds in
    `results` what was done until then.
    """

    named = frozenset({"tasks"})
    record = True
    isolated = True

    plan: Block
    workers: Mapping[Name, Annotated[Worker, BeforeValidator(_worker)]] = Field(min_length=1)
    cover: Expression | None = None
    answers: int = Field(default=1, ge=1, le=20)
    compare: Expression | None = None
    settle: Settle = Settle()
    synthesise: Block | None = None
    max_tasks: int = Field(default=12, ge=1, le=200)
    concurrency: int = Field(default=8, ge=1, le=200)
    on_failure: Literal["replan", "keep"] = "replan"
    replans: int = Field(default=1, ge=0, le=10)
    fallback: Block | None = None

    @model_validator(mode="after")
    def _answers_need_a_rule(self) -> Manager:
        if self.answers > 1 and self.cover is None:
            raise ValueError("answers: several answers to an item need the items; give `cover`, a list")
        return self

    def children(self) -> Iterator[Step]:
        """Planner, workers, whoever puts it together, judge, fallback."""
        yield self.plan
        yield from (worker.do for worker in self.workers.values())
        yield from (step for step in (self.synthesise, *self.settle.steps(), self.fallback) if step is not None)

    def coordinates(self) -> Iterator[Step]:
        """All but the workers, and what stands in for them all."""
        yield self.plan
        yield from (step for step in (self.synthesise, *self.settle.steps()) if step is not None)

    def labels(self) -> Iterator[str]:
        """Their places."""
        yield "plan"
        yield from self.workers
        yield from ("synthesise" for _ in range(self.synthesise is not None))
        yield from ("judge" for _ in self.settle.steps())
        yield from ("fallback" for _ in range(self.fallback is not None))

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: which of them run, and how often, is the plan's."""
        return iter(())

    def introduces(self) -> Iterator[str]:
        """What all of them find under these names; a result in `compare`, and the answers for a judge."""
        yield from (*NAMES, ANSWER, *(ANSWERS for _ in self.settle.steps()))

    def uses_after(self) -> frozenset[str]:
        """What is compared is looked up in what a worker gave."""
        return frozenset({"compare"})

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """What is put together."""
        return None if self.synthesise is None else self.synthesise.gives(context)

    def describe(self) -> str:
        """In words."""
        covered = f", covering `{self.cover.source}`" if self.cover is not None else ""
        put = f"; **{self.synthesise.part}** puts the results together" if self.synthesise is not None else ""
        return (
            f"**{self.plan.part}** plans at most {self.max_tasks} tasks for {', '.join(self.workers)}{covered}; "
            f"conflicting results: {self.settle.describe()}{put}"
        )

    def conduct(self) -> list[str]:
        """What happens when it goes wrong."""
        instead = "its fallback takes its place" if self.fallback is not None else "escalate with what was done"
        failed = f"planned anew {self.replans} times" if self.on_failure == "replan" else "left out"
        late = [f"not done after {show_duration(self.deadline)}: {instead}"] if self.deadline is not None else []
        poor = f"a plan that does not stand: back once, then {instead}"
        return [*super().conduct(), poor, f"failed tasks: {failed}", *late]

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        yield from manager_findings(self, context)

    # --- doing it --------------------------------------------------------------------------------

    async def execute(self, frame: Frame) -> Json:
        """Plan, delegate, settle, put together; or let the fallback do it."""
        outer = dict(frame.scope.names)
        try:
            if self.deadline is None:
                output = await self._manage(frame)
            else:
                output = await frame.bounded(self.deadline, self.part, lambda: self._manage(frame))
        except (WorkException, WrongShape) as error:
            if not _is_stuck(error):
                raise
            output = await self._replaced(frame, error)
        for name in NAMES:
            frame.scope.names.pop(name, None)
            if name in outer:
                frame.bind(name, outer[name])
        return output

    async def _manage(self, frame: Frame) -> Json:
        done = dict[str, Json]()
        tasks = dict[str, Task]()
        failed, plan = list[dict[str, Json]](), list[Task]()
        bound = self.replans if self.on_failure == "replan" else 0
        for number in range(1, bound + 2):
            inner = frame.at(str(number))
            plan = await self._plan(inner, tasks, done, failed)
            if not plan:
                break  # what failed is not needed: the items are covered
            tasks |= {task.id: task for task in plan}
            going = _Round(plan, free=self.concurrency)
            await self._walk(inner, going, tasks, done)
            done |= {task.id: going.results[task.id] for task in plan if task.id in going.results}
            failed = list(going.failures())
            if not failed:
                break
            if number <= bound:
                await inner.keep_round(decider(self.plan), planned(plan), came_of(plan, going.results, failed))
                await inner.note("manager.replan", title=f"{len(failed)} tasks failed", failed=failed, again=True)
        if failed and plan and (self.on_failure != "keep" or not done):
            raise self._failure(failed, done)
        return await self._put_together(frame, tasks, done, failed)

    async def _plan(
        self,
        frame: Frame,
        tasks: Mapping[str, Task],
        done: Mapping[str, Json],
        failed: Sequence[Mapping[str, Json]],
    ) -> list[Task]:
        """A plan that stands: made, and made again once with the reasons why it does not.

        Raises:
            PlanRejected: the second one does not stand either.
        """
        items = await self._items(frame)
        covered = Counter(item for id in done for item in tasks[id].covers)
        left = [item for item in items if item not in covered]
        bounds = Bounds(
            {name: worker.input for name, worker in self.workers.items()},
            items,
            self.max_tasks,
            self.answers,
            frozenset(done),
            frozenset(tasks),
            covered,
        )
        frame.bind("team", {name: dict(worker.input or {}) for name, worker in self.workers.items()})
        frame.bind("items", left)
        frame.bind("done", _told(tasks, done))
        frame.bind("failed", [dict(one) for one in failed])
        wrong = list[str]()
        for attempt in ("plan", "again"):
            with feedback(frame, wrong):
                output = await frame.at(attempt).step(self.plan)
            plan, wrong = read_plan(output)
            wrong = wrong or problems(plan, bounds)
            if not wrong:
                if plan:
                    await self._refuse_circle(frame, plan)
                await frame.keep("accepted", lambda plan=plan: [task.to_json() for task in plan])
                return plan
            await frame.note("plan.rejected", title=f"{len(wrong)} problems", problems=wrong, again=attempt == "plan")
        raise PlanRejected(
            f"{self.plan.part} gave no plan that stands: {'; '.join(wrong[:5])}",
            needed="do it by hand, or correct the planner",
            evidence={"problems": wrong, "plan": output},
        )

    async def _refuse_circle(self, frame: Frame, plan: Sequence[Task]) -> None:
        """A plan is not carried out when nearly the same one has failed nearly the same way, as often as it may.

        Raises:
            NearRepeat: so it has.
        """
        if await frame.kept("accepted") is None:
            what = "has planned nearly the same, which has failed for nearly the same reasons,"
            await frame.refuse_round(decider(self.plan), what, planned(plan))

    async def _items(self, frame: Frame) -> tuple[str, ...]:
        if self.cover is None:
            return ()
        found = await frame.evaluate(self.cover)
        if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
            raise FormatMismatch(f"{self.cover.source!r} is no list of texts")
        return tuple(dict.fromkeys(found))

    # --- the tasks -------------------------------------------------------------------------------

    async def _walk(self, frame: Frame, going: _Round, tasks: Mapping[str, Task], done: Mapping[str, Json]) -> None:
        """Do the tasks of a plan, each as soon as what it needs is there and a place is free."""
        branches = [Branch(task.id, self._work(task, going, done)) for task in going.tasks]
        results = await frame.at("tasks").fork(branches, "keep")
        for task, result in zip(going.tasks, results, strict=True):
            if result.error is not None:
                going.failed.setdefault(task.id, result.error)
                await frame.at(f"tasks/{task.id}").note("task.failed", step=task.worker, **error_data(result.error))

    def _work(self, task: Task, going: _Round, done: Mapping[str, Json]) -> Callable[[Frame], Awaitable[Json]]:
        own = {one.id for one in going.tasks}

        async def work(frame: Frame) -> Json:
            try:
                for need in task.needs:
                    if need in own:
                        await frame.after(need)
                lost = [need for need in task.needs if need in own and need not in going.results]
                if lost:
                    going.blocked[task.id] = f"it needs {', '.join(lost)}"
                    return None
                await self._enter(frame, task, going)
                try:
                    kept = await frame.kept("result")
                    if kept is not None:
                        value = kept["value"]
                    else:
                        with layer(frame):  # what a worker binds is gone after a crash, so it is gone at once
                            frame.bind("task", task.to_json())
                            frame.bind("inputs", {need: {**done, **going.results}[need] for need in task.needs})
                            value = await frame.step(self.workers[task.worker].do)
                    await frame.keep("result", lambda: {"value": value})
                    going.results[task.id] = value
                    return value
                finally:
                    self._leave(frame, going)
            except WorkException as error:
                going.failed[task.id] = error
                raise
            finally:
                frame.announce(task.id)

        return work

    async def _enter(self, frame: Frame, task: Task, going: _Round) -> None:
        if going.free > 0:
            going.free -= 1
            return
        going.waiting.append(task.id)
        await frame.after(f"place {task.id}")

    def _leave(self, frame: Frame, going: _Round) -> None:
        if going.waiting:
            frame.announce(f"place {going.waiting.pop(0)}")
        else:
            going.free += 1

    # --- the end ---------------------------------------------------------------------------------

    async def _put_together(
        self,
        frame: Frame,
        tasks: Mapping[str, Task],
        done: Mapping[str, Json],
        failed: Sequence[Mapping[str, Json]],
    ) -> Json:
        finished = [task for id, task in tasks.items() if id in done]
        settled = dict[str, Json]()
        for number, (item, ids) in enumerate(overlapping(finished).items(), 1):
            if item in (await self._items(frame.at(f"settle/{number}"))):
                ballots = [await self._ballot(frame.at(f"settle/{number}/{id}"), tasks[id], done[id]) for id in ids]
                found = await settle(frame.at(f"settle/{number}"), ballots, self.settle, need=1)
                settled[item] = found.value
        if self.synthesise is None:
            return {"results": dict(done), "settled": settled, "failed": [dict(one) for one in failed]}
        frame.bind("results", _told(tasks, done))
        frame.bind("failed", [dict(one) for one in failed])
        frame.bind("settled", settled)
        return await frame.step(self.synthesise)

    async def _ballot(self, frame: Frame, task: Task, value: Json) -> Ballot:
        """What a task says of an item that others answer too."""
        reason = value.get("reason") if isinstance(value, Mapping) else None
        said = "" if reason is None else str(reason)
        if self.compare is None:
            return Ballot(task.id, value, said)
        try:
            answer = await frame.evaluate(self.compare, {ANSWER: value})
        except (DataMissing, FormatMismatch) as error:
            return Ballot(task.id, absent=error.message)
        return Ballot(task.id, answer, said) if answer is not None else Ballot(task.id, absent="no answer")

    def _failure(self, failed: Sequence[Mapping[str, Any]], done: Mapping[str, Json]) -> BranchFailed:
        first = failed[0]
        error = BranchFailed(
            f"{self.part}: {len(failed)} tasks failed, the first of them {first['id']!r}: {first['message']}",
            needed="what could not be done",
            evidence={"failed": list(failed), "partial": dict(done)},
        )
        error.kind = str(first.get("kind") or error.kind)
        return error

    async def _replaced(self, frame: Frame, error: WorkException | WrongShape) -> Json:
        """The fallback in the manager's place, with what was done until then; or a person."""
        tasks, done = await self._finished(frame)
        if self.fallback is None:
            if isinstance(error, WorkException):
                error.evidence = {**error.evidence, "partial": done}
            raise error
        await frame.note("manager.replaced", step=self.part, **error_data(error))
        frame.bind("results", _told(tasks, done))
        frame.bind("failed", [error_data(error)])
        return await frame.step(self.fallback)

    async def _finished(self, frame: Frame) -> tuple[dict[str, Task], dict[str, Json]]:
        """The tasks of all plans that were accepted, and what has come of them, as it was recorded."""
        tasks, done = dict[str, Task](), dict[str, Json]()
        for number in range(1, self.replans + 2):
            inner = frame.at(str(number))
            plan, _ = read_plan({"tasks": await inner.kept("accepted")})
            for task in plan:
                tasks[task.id] = task
                kept = await inner.at(f"tasks/{task.id}").kept("result")
                if kept is not None:
                    done[task.id] = kept["value"]
        return tasks, done


def _is_stuck(error: WorkException | WrongShape) -> bool:
    """Whether the manager cannot go on: it is late, its plans or tasks failed, planner or writer broke or hung.

    What a planner says of the case itself (data is missing, this is out of scope, …) is for people, as is a write of
    which nobody knows whether it was done.
    """
    if isinstance(error, WrongShape | BranchFailed):
        return True
    return error.kind in ("unavailable", "unforeseen") and not isinstance(error, OutcomeUnknown | ContextChanged)


def _told(tasks: Mapping[str, Task], done: Mapping[str, Json]) -> list[Json]:
    """Finished tasks with what came of them."""
    return [{**tasks[id].to_json(), "value": value} for id, value in done.items()]
