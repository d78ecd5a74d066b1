"""Drills on systems and providers: they ask for patience, fail, are silent, are down, are cold, trickle (E1, F11)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tightship.core.errors import OutcomeUnknown, RateLimited, TimedOut, Unavailable
from tightship.core.ports import Reply, Request
from tightship.models.port import ModelReply, ModelRequest, OnText
from tightship.models.rehearsal import RehearsalModel
from tightship.quality.drills.judge import judge_safe, judge_same, last, told
from tightship.quality.drills.outside import Ask, Tap, Trouble
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Scene, play

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean

FIRST = 2
"""Attempts in a row that fail before a system has recovered."""
COLD = 5.0
"""Seconds that the first call of each system takes after a cold start; at most half of its time limit."""
PATIENCE = 15 * 60.0
"""Seconds after which a person has to have heard of work that hangs."""


def no_systems(bench: Bench) -> str:
    """Why drills on systems do not apply."""
    asks = any(clean.asked for clean in bench.lively()) or models(bench)
    return "" if asks else "no case asks a system or a model"


def models(bench: Bench) -> list[str]:
    """The agents that are models."""
    return [spec.agent for spec in bench.agents() if spec.model is not None]


def failing(tool: str, times: int, fault: Callable[[Tap], Exception], after: bool = False) -> Trouble:
    """The first attempts at a tool fail; `after`: a write is done all the same, and the answer is lost."""
    count = 0

    async def trouble(tap: Tap, request: Request, ask: Ask) -> Reply:
        nonlocal count
        if tap.spec.name != tool or count >= times:
            return await ask()
        count += 1
        if after and tap.spec.effect == "write" and count == 1:
            await ask()
        raise fault(tap)

    return trouble


class FailingModel(RehearsalModel):
    """A provider whose first answers to each agent fail."""

    def __init__(self, times: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self._times, self._error = times, error
        self._counted: dict[str, int] = {}

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """An answer, after the first ones have failed."""
        self._counted[request.agent] = self._counted.get(request.agent, 0) + 1
        if self._counted[request.agent] <= self._times:
            raise self._error()
        return await super().request(request, on_text)


def _recovers(bench: Bench, report: Report, make: Callable[[str], Trouble], model: Callable[[], Exception]) -> None:
    """After a short trouble at one system, or at the provider, the run comes to the same end."""
    for clean, name in asked_once(bench):
        what = f"case {clean.case.number}, {name or 'the provider'}"

        async def story(scene: Scene, clean: Clean = clean, what: str = what) -> None:
            await scene.prepare(clean.case)
            run = await scene.run(clean.case)
            await judge_same(report, scene, run, clean, what)

        play(bench, story, trouble=make(name), model=None if name else FailingModel(FIRST, model))


def asked_once(bench: Bench) -> list[tuple[Clean, str]]:
    """Every tool that the chosen cases ask, each with one case; the empty name stands for the provider of models."""
    found: dict[str, Clean] = {}
    for clean in bench.lively():
        for name in clean.asked:
            found.setdefault(name, clean)
    if models(bench):
        found[""] = bench.lively(1)[0]
    return [(clean, name) for name, clean in found.items()]


RETRY = "declare `on: {unavailable: {retry: 3, after: 2s, then: escalate}}`, and leave room for it in limits.retries"


@drill(
    "rate-limit",
    broken="one system or provider after the other answers 429 twice, then recovers",
    fix=RETRY,
    applies=no_systems,
)
def rate_limit(bench: Bench, report: Report) -> None:
    """429, and patience is asked for."""
    _recovers(
        bench,
        report,
        lambda name: failing(name, FIRST, lambda tap: RateLimited(f"{tap.spec.name} answered 429", retry_after=1.0)),
        lambda: RateLimited("the provider answered 429", retry_after=1.0),
    )


@drill(
    "server-error",
    broken="one system or provider after the other answers 500 twice, then recovers",
    fix=RETRY,
    applies=no_systems,
)
def server_error(bench: Bench, report: Report) -> None:
    """500: of a write nobody knows whether it was done; it was not."""

    def fault(tap: Tap) -> Exception:
        said = f"{tap.spec.name} answered 500"
        return OutcomeUnknown(said) if tap.spec.effect == "write" and _can_tell(tap) else Unavailable(said)

    _recovers(bench, report, lambda name: failing(name, FIRST, fault), lambda: Unavailable("the provider answered 500"))


def _can_tell(tap: Tap) -> bool:
    return tap.spec.idempotency == "key" or tap.spec.can_lookup


@drill(
    "timeout",
    broken="one system after the other does what is asked and its answer is lost; reads time out",
    fix="use a write with an idempotency key or a look-up, so that a lost answer can be found; " + RETRY,
    applies=no_systems,
)
def timeout(bench: Bench, report: Report) -> None:
    """Silence after the work was done: nothing is done twice, and the run goes on."""

    def fault(tap: Tap) -> Exception:
        said = f"{tap.spec.name} did not answer in time"
        return OutcomeUnknown(said) if tap.spec.effect == "write" else TimedOut(said)

    _recovers(
        bench, report, lambda name: failing(name, 1, fault, after=True), lambda: TimedOut("the provider did not answer")
    )


@drill(
    "outage",
    broken="one system after the other is down for good",
    fix="let actions have an undo, and let the run end with a person: `on: {unavailable: {then: escalate}}`",
    applies=no_systems,
)
def outage(bench: Bench, report: Report) -> None:
    """A system is gone: the run ends, takes back what it did or says what remains, and does nothing else instead."""
    clean = bench.lively(1)[0]
    for name in clean.asked:

        async def trouble(tap: Tap, request: Request, ask: Ask, name: str = name) -> Reply:
            if tap.spec.name == name:
                raise Unavailable(f"{name} is down")
            return await ask()

        async def story(scene: Scene, name: str = name) -> None:
            await scene.prepare(clean.case)
            run = await scene.run(clean.case)
            await judge_safe(report, scene, run, clean, f"case {clean.case.number} without {name}")
            tries = sum(one.name == name for one in scene.outside.asked)
            report.hold(tries <= 30, f"{name} was tried {tries} times", f"{name} was tried {tries} times", last(run))

        play(bench, story, trouble=trouble)


@drill(
    "cold-start",
    broken="a fresh process: nothing is cached, and the first call of each system takes seconds",
    fix="leave room in `within:` of the agents and in `budget.seconds` for a slow first answer",
    applies=no_systems,
)
def cold_start(bench: Bench, report: Report) -> None:
    """The first answers are slow."""
    for clean in bench.lively():
        seen: set[str] = set()

        async def trouble(tap: Tap, request: Request, ask: Ask, seen: set[str] = seen) -> Reply:
            if tap.spec.name not in seen:
                seen.add(tap.spec.name)
                await asyncio.sleep(min(COLD, tap.spec.timeout / 2))
            return await ask()

        async def story(scene: Scene, clean: Clean = clean) -> None:
            await scene.prepare(clean.case)
            run = await scene.run(clean.case)
            await judge_same(report, scene, run, clean, f"case {clean.case.number}")

        play(bench, story, trouble=trouble)


class TricklingModel(RehearsalModel):
    """A provider that sends a word now and then and never ends: it is cut off when its attempt may take no longer."""

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """It never comes.

        Raises:
            TimedOut: as a real provider's attempt does, after the tier's `timeout`.
        """
        await asyncio.sleep(request.settings.timeout)
        raise TimedOut(f"the answer to {request.agent} was not complete after {request.settings.timeout:g} s")


@drill(
    "slow-stream",
    broken="a model streams a word a minute and never ends",
    fix="give the agent `within:`, or the tier a `timeout`, of minutes at most",
    applies=lambda bench: "" if models(bench) else "no agent is a model",
)
def slow_stream(bench: Bench, report: Report) -> None:
    """An answer that trickles is cut off, and a person hears of it."""
    clean = bench.lively(1)[0]

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        began = scene.world.clock.now()
        run = await scene.run_for(clean.case, 2 * PATIENCE)
        took = scene.world.clock.now() - began
        report.hold(
            run.state == "ended" and took <= PATIENCE,
            f"it was cut off after {took:.0f} s ({told(run)})",
            f"after {took:.0f} s it was {told(run)}; a person should hear of it within {PATIENCE:.0f} s",
            last(run) or run.entries[-1:],
        )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}")

    play(bench, story, model=TricklingModel())
