"""What an agent has in its hands: tools, models, time and chance, all through the door."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from tightship.agents._shared import SharedHands
from tightship.controls.budgets import Amount
from tightship.core.errors import ForkedEffect, LedgerError, RunError, StoreError, TightshipError, UnknownName
from tightship.core.ports import Json, Reply, Request, ToolSpec
from tightship.effects.call import Call
from tightship.effects.door import Door
from tightship.effects.session import Session

SURE: Final = "sure"
"""Where a turn keeps the probability of its model's answer (None: not given), and the model's name."""
Work = Callable[["AgentContext"], Awaitable[Any]]
_OWN = str(Path(__file__).parent.parent)
_ASYNCIO = str(Path(asyncio.__file__).parent)
_LOOP = asyncio.events.__file__


class ModelCaller(Protocol):
    """What `ctx.model` does; the agents package binds it to the tiers of the workspace."""

    async def __call__(
        self,
        ctx: AgentContext,
        prompt: Any,
        output: Any,
        tier: str | None,
        on_text: Callable[[str], None] | None = None,
    ) -> Json:
        """One or more attempts at a model, through the door."""
        ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """What every turn of a run is given, however long it grows and whoever has it in hand (F4).

    Attributes:
        objective: what the workflow is for. constraints: what it declares to hold.
        handed: what the agent that handed the work over says to hold. It is another agent's word, so a model gets it
            as data and not with its instructions.
    """

    objective: str = ""
    constraints: Sequence[str] = ()
    handed: Sequence[str] = ()


@dataclass(slots=True)
class Turn:
    """What the contexts of one turn share.

    Attributes:
        key: the turn's key. agent: its name. declared: its tools. deadline: store time (s), or None.
        pinned: what holds for every turn. feedback: a checker's objections to the previous attempt.
        attempt: which attempt this is, from 1. workspace: the workspace's folder.
        line: the branch or item that it belongs to.
        fatal: what the ledger or a replay has refused; the turn ends with it whatever the agent's code does.
        violation: an effect that came from a task the door did not open; the turn fails with it.
        samples: how often the agent was asked for its answer: each counts as a turn.
        over: the turn has ended or was given up; what is left of the agent's code gets no effect any more.
        ended: when the agent's code came back, by the event loop's clock (s).
        blocked: file and line of its code at which the event loop was last seen blocked.
    """

    session: Session
    key: str
    agent: str
    declared: frozenset[str]
    pinned: Pinned = Pinned()
    deadline: float | None = None
    attempt: int = 1
    feedback: Sequence[str] = ()
    workspace: Path = Path()
    model: ModelCaller | None = None
    violation: ForkedEffect | None = None
    fatal: TightshipError | None = None
    samples: int = 1
    over: bool = False
    ended: float = 0.0
    blocked: str = ""
    line: str = ""
    state: dict[str, Any] = field(default_factory=dict[str, Any])


class AbsentTool:
    """Stands for a tool that is not there, so that asking for it is refused and recorded like any other call."""

    def __init__(self, name: str) -> None:
        self._spec = ToolSpec(name)

    @property
    def spec(self) -> ToolSpec:
        """A contract without content."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """The door refuses before it comes to this.

        Raises:
            UnknownName: always.
        """
        raise UnknownName(f"there is no tool {self._spec.name!r}", fix="declare its connector in tightship.yaml")

    async def lookup(self, request: Request) -> Reply | None:
        """There is nothing to be found."""
        return None


class AgentContext(SharedHands):
    """An agent's hands during one turn. Keys are counted per asyncio task: fork only by `parallel`."""

    __slots__ = ("_forks", "_ordinal", "_task", "_turn", "key")

    def __init__(self, turn: Turn, key: str | None = None) -> None:
        self._turn = turn
        self.key = key or turn.key
        self._task = asyncio.current_task()
        self._ordinal = 0
        self._forks = 0

    # --- what it knows ---------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The run's id."""
        return self._turn.session.facts.id

    @property
    def agent(self) -> str:
        """This agent's name."""
        return self._turn.agent

    @property
    def objective(self) -> str:
        """What the workflow is for."""
        return self._turn.pinned.objective

    @property
    def constraints(self) -> list[str]:
        """What holds for all that is done here: the workflow's constraints, and those that came with the work."""
        return [*self._turn.pinned.constraints, *self._turn.pinned.handed]

    @property
    def attempt(self) -> int:
        """Which attempt at this turn this is, from 1."""
        return self._turn.attempt

    @property
    def feedback(self) -> list[str]:
        """Objections to the previous attempt, if there was one."""
        return list(self._turn.feedback)

    @property
    def workspace(self) -> Path:
        """The workspace's folder."""
        return self._turn.workspace

    def knowledge(self, name: str = "knowledge") -> Path:
        """The folder of this name in the workspace, for data of its own.

        Raises:
            UnknownName: there is no such folder in the workspace.
        """
        root = self._turn.workspace.resolve()
        folder = (root / name).resolve()
        if not folder.is_relative_to(root) or not folder.exists():
            raise UnknownName(
                f"there is no folder {name!r} in the workspace", fix=f"create {name}/ beside tightship.yaml"
            )
        return folder

    # --- what it does ----------------------------------------------------------------------------

    async def tool(
        self, name: str, args: Mapping[str, Json] | None = None, *, claim: str | None = None, fresh: bool = False
    ) -> Json:
        """Call a declared tool.

        Args:
            name: as declared in the agent's `tools:`.
            args: as its schema says.
            claim: the business key of a write that no other run may do.
            fresh: do not answer from cache.

        Raises:
            NotDeclared, InvalidArguments: refused. WorkException: what the outside answered. ForkedEffect: this
            context belongs to another task.
        """
        turn = self._turn
        key = self._next("tool")
        tool = turn.session.tools.get(name) or AbsentTool(name)
        spec = tool.spec
        ledger = turn.session.journal.ledger
        if claim is not None and spec.effect == "read":
            claim = None  # only what is done can be done twice
        return await self._perform(
            Call(
                key=key,
                tool=tool,
                cls=spec.effect,
                agent=turn.agent,
                args=dict(args or {}),
                declared=turn.declared,
                task=f"agent:{turn.agent}",
                claim=None if claim is None else ledger.mac(turn.session.facts.tenant, "claim", normal(claim)),
                undo=spec.undo,
                deadline=turn.deadline,
                ceiling=Amount(spec.price.usd, spec.price.tokens),
                line=turn.line,
                fresh=fresh,
            )
        )

    async def model(
        self,
        prompt: Any,
        *,
        output: Any = None,
        tier: str | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Json:
        """Ask a model of a declared tier.

        Args:
            prompt: a string, or a list of messages.
            output: a JSON Schema that the answer has to fit, or None for text.
            tier: a tier's name; may be left out where there is one only.
            on_text: receives each piece of text as it comes, not on replay; an attempt that fails on its way is
                followed by the next one from its beginning.

        Raises:
            UnknownName: no tier is declared, or it is not said which. FormatMismatch: no answer that fits `output`.
            WorkException: every tier failed, or the model refused.
        """
        caller = self._turn.model
        if caller is None:
            raise UnknownName(
                f"{self.agent} has no model",
                fix="declare `tiers:` in tightship.yaml and name one in the agent's `model:`",
            )
        return await caller(self, prompt, output, tier, on_text)

    async def parallel(self, *works: Work) -> list[Any]:
        """Do several things side by side: each gets a context of its own. The only way to fork.

        Returns: the results in the order of the arguments, once all have ended.

        Raises:
            the first error in the order of the arguments.
        """
        self._check_task()
        self._forks += 1
        base = f"{self.key}/p{self._forks}"
        tasks = [asyncio.ensure_future(self._fork(f"{base}/{index}", work)) for index, work in enumerate(works)]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(tasks)
            raise
        errors = [None if task.cancelled() else task.exception() for task in tasks]  # each is looked at, not only one
        for error in errors:
            if error is not None:
                raise error
        return [task.result() for task in tasks]

    async def _fork(self, key: str, work: Work) -> Any:
        try:
            return await work(AgentContext(self._turn, key))
        except (SystemExit, GeneratorExit) as error:  # asyncio would end the process, or lose it
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    async def now(self) -> float:
        """Store time in seconds since the epoch; recorded, so that a replay sees the same."""
        return await self._decided("now", self._turn.session.shared.world.clock.now)

    async def random(self) -> float:
        """A number in [0, 1); recorded, so that a replay sees the same."""
        return await self._decided("random", self._turn.session.shared.world.chance.uniform)

    async def _decided(self, what: str, value: Callable[[], float]) -> float:
        journal, key = self._turn.session.journal, self._next(what)
        if key in journal.decided:
            return float(journal.decided[key])
        return float(await journal.decide(key, value()))

    # --- through the door ------------------------------------------------------------------------

    async def perform(self, call: Call) -> Json:
        """Bring a call to the door, from this context's own task."""
        self._check_task()
        return await self._perform(call)

    async def _perform(self, call: Call) -> Json:
        try:
            return await Door(self._turn.session).perform(call)
        except (RunError, LedgerError, StoreError) as error:
            self._turn.fatal = self._turn.fatal or error  # no `except` of an agent makes this good
            raise

    @property
    def turn(self) -> Turn:
        """What this turn's contexts share."""
        return self._turn

    def next_key(self, what: str) -> str:
        """The key of this task's next effect of a kind."""
        return self._next(what)

    def _next(self, what: str) -> str:
        self._check_task()
        self._ordinal += 1
        return f"{self.key}/{what}/{self._ordinal}"

    def _check_task(self) -> None:
        if self._turn.over:
            raise ForkedEffect(
                f"{self.agent} asked for an effect when its turn was over",
                where=caller_outside(self._task),
                fix="let the agent end when it is told to stop",
            )
        if asyncio.current_task() is self._task:
            return
        error = ForkedEffect(
            f"{self.agent} asked for an effect from a task that ctx.parallel did not open",
            where=caller_outside(self._task),
            fix="use `await ctx.parallel(lambda c: …, lambda c: …)` and the context that each of them gets",
        )
        self._turn.violation = self._turn.violation or error
        raise error


def normal(claim: str) -> bytes:
    """A business key as people mean it."""
    from tightship.controls.claims import normalise

    return normalise(claim).encode()


def caller_outside(agent: asyncio.Task[Any] | None) -> str | None:
    """File and line from which an effect was asked for that came from a task of its own, as near as can be told.

    Args:
        agent: the task that may ask. When the other task is the package's own coroutine and nothing else (as in
            `gather(ctx.tool(…))`), what is named is the line at which the agent waits.

    Returns: None when no line of the agent's is to be found.
    """
    here = _of_stack(sys._getframe(1), same_loop=agent is not None and agent.get_loop() is asyncio.get_running_loop())
    return here or (None if agent is None else _of_task(agent))


def _of_stack(frame: FrameType | None, same_loop: bool) -> str | None:
    """The nearest caller outside; on the agent's own loop only within the task: below it is whoever runs the loop."""
    while frame is not None:
        name = frame.f_code.co_filename
        if same_loop and name == _LOOP:
            return None
        if _is_outside(name):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _of_task(task: asyncio.Task[Any]) -> str | None:
    """The innermost line outside at which a task waits."""
    found, waits = None, task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None and _is_outside(frame.f_code.co_filename):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return found


def _is_outside(file: str) -> bool:
    return not file.startswith((_OWN, _ASYNCIO))
