"""What happens on an exception of the work (E1 to E7), as declared: try again, let another do it, ask, go on, stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from tightship.core.errors import ContextChanged, OutcomeUnknown, RunFailed, WorkException
from tightship.core.ports import Json
from tightship.core.signals import OverBudget, Refused
from tightship.effects.frame import Question
from tightship.review.package import from_exception
from tightship.workflow.tree import Behaviour

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

ESCALATE = Behaviour()
Attempt = Callable[[int], Awaitable[Json]]


def choose(kind: str, *declared: Mapping[str, Behaviour]) -> Behaviour:
    """The behaviour of the nearest declaration: the step's, the agent's, the workflow's; else escalate."""
    for behaviours in declared:
        found = behaviours.get(kind) or (behaviours.get("unforeseen") if kind == "duplicate" else None)
        if found is not None:
            return found
    return ESCALATE


class Exceptional:
    """Runs something with its declared behaviours."""

    def __init__(self, frame: NodeFrame, title: str, declared: tuple[Mapping[str, Behaviour], ...]) -> None:
        self._frame = frame
        self._title = title
        self._declared = declared

    async def run(self, attempt: Attempt) -> Json:
        """Call `attempt(n)` with n = 1, 2, … as long as the behaviours say so.

        Raises:
            WorkException: the declared end is to escalate. RunFailed: the declared end is to fail.
        """
        tries: dict[str, int] = {}
        number = 1
        while True:
            try:
                return await self._within_budget(attempt, number)
            except ContextChanged:
                raise  # not to be tried again as it was decided: the gate lets the decision be made anew
            except OutcomeUnknown:
                raise  # sent, and nobody knows whether it was done: never again, never around it, only to a person
            except WorkException as error:
                behaviour = choose(error.kind, *self._declared)
                self._frame.task.add_tried(f"{self._title}: {error.message}")
                used = tries[error.kind] = tries.get(error.kind, 0) + 1
                if await self._noted(error, again=used <= behaviour.retry):
                    number += 1
                    await self._frame.pause(behaviour.after)
                    continue
                done, value = await self._instead(error, behaviour)
                if done:
                    return value
                number += 1

    async def _noted(self, error: WorkException, again: bool) -> bool:
        """Record the exception; whether there is another try: where the run's retries are used up, there is none."""
        fields = {"kind": error.kind, "error": error.code, "title": self._title}
        if again:
            return await self._frame.note_retry("exception", **fields)
        await self._frame.note("exception", **fields)
        return False

    async def _instead(self, error: WorkException, behaviour: Behaviour) -> tuple[bool, Json]:
        """What the behaviour says in place of another try: (done, output), or (False, None) to try again."""
        if behaviour.use is not None:
            try:
                backup = behaviour.use
                return True, await self._within_budget(lambda _: self._frame.turn_of(backup, None, plain=True), 1)
            except WorkException as second:
                second.evidence.setdefault("first", error.message)
                error = second
        if behaviour.then == "continue":
            return True, behaviour.give
        if behaviour.then == "fail":
            raise RunFailed(error.message, where=error.where, fix=error.fix) from error
        if behaviour.then == "ask":
            return await self._ask(error)
        raise error

    async def _ask(self, error: WorkException) -> tuple[bool, Json]:
        run = self._frame.task
        package = from_exception(error, run.program.context(self._frame, self._title))
        question = Question("question", package.title, run.program.escalation_role, package.to_json())
        answer = await self._frame.ask(question)
        if answer.decision in ("answer", "edit"):
            return True, answer.value
        if answer.decision == "approve":
            return False, None
        raise error

    async def _within_budget(self, attempt: Attempt, number: int) -> Json:
        """A short envelope asks a person, where nothing else is declared; the answer extends it."""
        while True:
            try:
                return await attempt(number)
            except Refused:
                raise  # somebody has said no: nobody else is asked
            except OverBudget as signal:
                if self._frame.task.program.then(signal.scope) != "ask":
                    raise
                await self._frame.ask_for_budget(signal)


def behaviours_of(spec: Any) -> Mapping[str, Behaviour]:
    """The `on:` of a step, an agent or a workflow."""
    return getattr(spec, "on", None) or {}
