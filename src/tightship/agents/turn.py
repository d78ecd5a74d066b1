"""An agent's turn: its input and its output, recorded once; whatever its code does, the run gets an answer."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from tightship.agents.context import AgentContext, ModelCaller, Pinned, Turn
from tightship.agents.grounding import require_grounded
from tightship.core import kinds
from tightship.core.errors import (
    AgentHung,
    AgentRaised,
    LedgerError,
    LimitReached,
    NearRepeat,
    NondeterminismError,
    PayloadTooLarge,
    RunError,
    StoreError,
    TightshipError,
    WrongShape,
)
from tightship.core.ports import Json
from tightship.core.signals import OverBudget, Signal
from tightship.effects.frame import CONSTRAINTS
from tightship.effects.journal import Body
from tightship.effects.near import refuse_near_turn
from tightship.effects.outcomes import describe, restore
from tightship.effects.session import Session
from tightship.ledger import SealedPayload
from tightship.ledger.vault import encode
from tightship.workflow.models import GroundedSpec

AgentFunction = Callable[[AgentContext, dict[str, Json]], Awaitable[Json] | Json]
GRACE = 1.0
"""Seconds that an agent has to end after it was told to stop; then it is abandoned."""
AWAIT = "await what can be awaited; run the rest by `asyncio.to_thread`, or write a plain `def`"
"""What to do in place of blocking the event loop."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, ready to take turns.

    Attributes:
        name: as declared. function: what it does. declared: its tools.
        check: says what is wrong with an output, or None.
        within: seconds that a turn may take. repairs: how often a wrong shape is handed back.
        where: its file, for messages. workspace: the folder of the workspace.
        output_bytes: the most bytes of JSON that it may return.
        rehearsed: its outputs are generated.
        grounded: which of its claims have to stand in what they cite.
    """

    name: str
    function: AgentFunction
    declared: frozenset[str] = frozenset()
    check: Callable[[Json], str | None] | None = None
    within: float = 120.0
    repairs: int = 1
    model: ModelCaller | None = None
    where: str = ""
    workspace: Path = Path()
    output_bytes: int = 4_000_000
    rehearsed: bool = False
    grounded: GroundedSpec | None = None


async def take_turn(
    session: Session,
    agent: Agent,
    key: str,
    give: Mapping[str, Json],
    pinned: Pinned,
    feedback: Sequence[str],
    line: str = "",
) -> Json:
    """The agent's turn under this key, with bounded repair of a wrong shape.

    Objective and constraints are given to every attempt, whatever else changes (F4).

    Raises:
        WorkException: what the agent raised, AgentRaised, AgentHung. WrongShape: also after the repairs.
        LimitReached, BoundaryError, Signal: as the door raised them.
    """
    objections = list(feedback)
    for attempt in range(1, agent.repairs + 2):
        attempt_key = key if attempt == 1 else f"{key}~{attempt}"
        turn = Turn(
            session,
            attempt_key,
            agent.name,
            agent.declared,
            pinned,
            attempt=attempt,
            feedback=objections,
            workspace=agent.workspace,
            model=agent.model,
            line=line,
        )
        try:
            return await _one_turn(session, agent, turn, give)
        except WrongShape as error:
            if attempt > agent.repairs or not await _may_repair(session, f"{key}~{attempt + 1}"):
                raise
            objections = [*feedback, error.message]
    raise AssertionError("the loop returns or raises")


async def _may_repair(session: Session, key: str) -> bool:
    """Whether the run's retries allow another attempt at an output; a no is recorded, so that a replay says no too."""
    refused = f"{key}/refused"
    if refused in session.journal.decided:
        return False
    if session.limits.may_retry(key):
        return True
    await session.journal.decide(refused, True)
    return False


async def _one_turn(session: Session, agent: Agent, turn: Turn, give: Mapping[str, Json]) -> Json:
    journal, key = session.journal, turn.key
    given = _given(turn, give)
    payload, _ = journal.seal(given)
    await journal.landed(kinds.TURN, key)
    recorded = journal.turns.get(key)
    if recorded is not None:
        return await _replay(session, recorded, payload.address, key)
    refused = _limited(session, agent, turn, payload.address) or await _repeats(session, turn, payload.address, given)
    session.watch.check()
    session.shared.halts.check(session.scopes(agent.name))
    clock = session.shared.world.clock
    began = clock.monotonic()
    body: Body = {"agent": agent.name, "hash": payload.address}
    if turn.line:
        body["line"] = turn.line
    if turn.attempt > 1:
        body["repair"] = turn.attempt
    if agent.rehearsed:
        body["rehearsal"] = True
    if refused is not None:
        body["denied"] = True
    out: SealedPayload | None = None
    try:
        if refused is not None:
            raise refused  # recorded: which of several branches is one turn too many is a race
        value = await _call(session, agent, turn, give)
        out, data = _seal_output(session, agent, value)
        if agent.grounded is not None and not agent.rehearsed:
            await require_grounded(session, agent.name, key, agent.grounded, give, orjson.loads(data))
    except (LedgerError, StoreError, RunError) as error:
        if not isinstance(error, PayloadTooLarge):
            raise
        raise WrongShape(error.message, fix=error.fix) from error
    except TightshipError as error:
        head, detail = describe(error)
        sealed, _ = journal.seal(detail)
        body |= _asked(turn) | {
            "error": head,
            "detail": sealed.address,
            "ms": round((clock.monotonic() - began) * 1000, 2),
        }
        await journal.record(kinds.TURN, key, body, (payload, sealed))
        raise
    body |= _asked(turn) | {"out": out.address, "ms": round((clock.monotonic() - began) * 1000, 2)}
    await journal.go_ahead(kinds.TURN, key, body, (payload, out))
    return orjson.loads(data)


def _given(turn: Turn, give: Mapping[str, Json]) -> Mapping[str, Json]:
    """All that a turn is given, as it is recorded and compared."""
    more = {"feedback": list(turn.feedback), CONSTRAINTS: [*turn.pinned.constraints, *turn.pinned.handed]}
    return {**give, **{name: said for name, said in more.items() if said}}


def _asked(turn: Turn) -> Body:
    """How often the agent was asked, where that is more than once."""
    return {"samples": turn.samples} if turn.samples > 1 else {}


def _limited(session: Session, agent: Agent, turn: Turn, address: str) -> LimitReached | None:
    """Count the turn; why it is one too many, or None."""
    try:
        for limits in session.counters(agent.name):
            limits.count_turn(turn.key)
        session.loops.turn(turn.key, agent.name, state_of(turn.key, address), turn.line)
    except LimitReached as error:
        return error
    return None


async def _repeats(session: Session, turn: Turn, address: str, given: Mapping[str, Json]) -> NearRepeat | None:
    """Why the turn would say nearly the same once more, or None."""
    try:
        await refuse_near_turn(session, turn.agent, turn.key, address, dict(given), turn.line)
    except NearRepeat as error:
        return error
    return None


def state_of(key: str, address: str) -> str:
    """What the detection of loops compares of a turn: a declared retry of the same turn is no loop."""
    return address + key.rpartition("/")[2].partition("~")[2]


async def _replay(session: Session, body: Body, address: str, key: str) -> Json:
    if body["hash"] != address:
        raise NondeterminismError(
            f"the turn {key} was given something else when this run was recorded",
            where=f"run {session.facts.id}",
            fix="if the workflow's code changed, resume with --accept-code or fork the run",
        )
    if "error" in body:
        raise restore(body["error"], await session.journal.value(body["detail"]))
    return await session.journal.value(body["out"])


def _seal_output(session: Session, agent: Agent, value: Json) -> tuple[SealedPayload, bytes]:
    try:
        data = encode(value)
    except PayloadTooLarge as error:
        raise WrongShape(f"{agent.name} returned too much: {error.message}", where=agent.where, fix=error.fix) from None
    except TypeError as error:
        raise WrongShape(
            f"{agent.name} returned what is no JSON: {error}",
            where=agent.where,
            fix="return a dict of strings, numbers, booleans, lists and dicts",
        ) from None
    if len(data) > agent.output_bytes:
        raise WrongShape(
            f"{agent.name} returned {len(data):,} bytes, more than its {agent.output_bytes:,}",
            where=agent.where,
            fix="return a reference (a file, an id) in place of the data, or raise limits.output_bytes",
        )
    wrong = None if agent.check is None else agent.check(orjson.loads(data))
    if wrong is not None:
        raise WrongShape(
            f"{agent.name} returned another shape than it declares: {wrong}",
            where=agent.where,
            fix=f"correct the function, or `output:` of {agent.name}",
        )
    return session.journal.seal_data(data), data


async def _call(session: Session, agent: Agent, turn: Turn, give: Mapping[str, Json]) -> Json:
    """Run the agent's code in a task of its own, for as long as it may take."""
    task = asyncio.ensure_future(_guarded(agent, turn, dict(give)))
    left = session.watch.left
    limit = agent.within if left is None else min(agent.within, left)
    deadline = asyncio.get_running_loop().time() + limit
    try:
        done = await _ends(task, deadline)
    except asyncio.CancelledError:
        turn.over = True  # before it is told: nothing is begun in its last second
        await _stop(task)
        raise
    turn.over = True
    if not done:
        await _stop(task)
        raise _late(session, agent, turn, limit, left)
    stopped = turn.fatal or turn.violation
    if stopped is not None:
        _retrieve(task)
        raise stopped
    if turn.ended > deadline:  # it held the event loop past its time, and no timer could tell it to stop
        error = None if task.cancelled() else task.exception()
        if not isinstance(error, (AgentHung, Signal)):
            raise _late(session, agent, turn, limit, left) from error
    if task.cancelled():
        raise AgentRaised(
            f"{agent.name} raised CancelledError, and nobody had told it to stop",
            where=agent.where,
            fix="await a task that was cancelled under `contextlib.suppress(asyncio.CancelledError)`",
        )
    return task.result()


def _late(session: Session, agent: Agent, turn: Turn, limit: float, left: float | None) -> AgentHung | OverBudget:
    """Why a turn that did not end in its time has failed."""
    if limit == left:
        scope = session.watch.scope
        return OverBudget(f"the time budget of {scope} is used up", scope=scope, unit="seconds")
    if turn.blocked:
        blocked = (
            f"{agent.name} did not finish within {limit:g} s: it blocked the event loop, and with it every other run"
        )
        return AgentHung(blocked, where=turn.blocked, fix=AWAIT)
    code = getattr(agent.function, "__code__", None)
    line = f":{code.co_firstlineno}" if code is not None and code.co_filename == agent.where else ""
    return AgentHung(
        f"{agent.name} did not finish within {limit:g} s",
        where=agent.where + line,
        fix="find what it waits for; what sleeps or computes for long belongs into `asyncio.to_thread`; "
        f"or raise `within:` of {agent.name}",
    )


async def _ends(task: asyncio.Task[Json], deadline: float) -> bool:
    """Whether a task ends until a moment of the loop's clock. As `asyncio.wait`, for one task and at half its cost."""
    loop = asyncio.get_running_loop()
    gate: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not gate.done():
            gate.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_at(deadline, wake)
    try:
        await gate
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()


async def _stop(task: asyncio.Task[Json]) -> None:
    task.cancel()
    if await _ends(task, asyncio.get_running_loop().time() + GRACE):
        _retrieve(task)
    else:
        task.add_done_callback(_retrieve)


def _retrieve(task: asyncio.Task[Json]) -> None:
    """Take an outcome that nobody waits for, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()


async def _guarded(agent: Agent, turn: Turn, give: dict[str, Json]) -> Json:
    context = AgentContext(turn)
    clock = asyncio.get_running_loop().time
    try:
        if inspect.iscoroutinefunction(agent.function):
            return await agent.function(context, give)
        value = await asyncio.to_thread(agent.function, context, give)
        return await value if inspect.isawaitable(value) else value
    except AgentHung as error:  # raised in it from outside (runtime.watchdog)
        raise AgentHung(
            f"{agent.name} blocked the event loop, and with it every other run",
            where=_origin(error) or agent.where,
            fix=AWAIT,
        ) from error
    except (TightshipError, Signal, asyncio.CancelledError, KeyboardInterrupt):
        raise
    except RecursionError:
        raise AgentRaised(f"{agent.name} recursed without end", where=agent.where) from None
    except BaseException as error:  # sys.exit() in an agent must not end the process
        raise AgentRaised(
            f"{agent.name} raised {type(error).__name__}: {error}",
            where=_origin(error) or agent.where,
            fix="correct the agent's code, or raise one of tightship's work exceptions for what can happen",
        ) from error
    finally:
        turn.ended = clock()


def _origin(error: BaseException) -> str:
    """File and line of the agent's own code nearest to where it was raised."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in f.filename]
    own = str(Path(__file__).parent.parent)
    frames = [f for f in frames if not f.filename.startswith(own) and not f.filename.startswith("<")]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


__all__ = ["Agent", "AgentFunction", "take_turn"]
