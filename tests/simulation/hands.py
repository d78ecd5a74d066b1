"""A person who takes runs over at random moments, does steps by hand, edits, undoes, and gives them back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tightship.core.errors import ActRefused, GuardRefused, TightshipError
from tightship.runtime.operator import Operator
from tightship.runtime.steps import FINISHED, StepState

from .plan import PERSON

if TYPE_CHECKING:
    from .story import World

SECONDS = 20.0
"""Virtual seconds in which runs are taken over."""


async def hands(world: World) -> None:
    """Take some runs over, one after the other; in many stories none."""
    sim = world.sim
    rng = sim.random("hands")
    ledger, operator = world.ledger(), world.operator()
    for _ in range(rng.choice((0, 0, 1, 3, 6))):
        await sim.clock.sleep(rng.random() * SECONDS / 2)
        rows = await ledger.select("runs", [("state", "!=", "ended")])
        if rows:
            await _hold(world, operator, rng.choice(rows)["id"], rng)


async def give_all(world: World) -> None:
    """Whatever somebody still has in hand is given back."""
    operator = world.operator()
    for row in await world.ledger().select("runs", [("state", "!=", "ended")]):
        if await operator.holder(row["id"]):
            await _try(world, f"give {row['id']}", operator.give(row["id"], PERSON))


async def _hold(world: World, operator: Operator, run: str, rng: random.Random) -> None:
    if not await _try(world, f"take {run}", operator.take(run, PERSON, "practice")):
        return
    for _ in range(rng.randint(0, 4)):
        await world.sim.clock.sleep(rng.choice((0.0, 0.1, 1.0, 3.0)))
        await _act(world, operator, run, rng)
    await world.sim.clock.sleep(rng.choice((0.0, 0.2, 2.0)))
    if rng.random() < 0.9:  # else it is forgotten, until everything is given back
        await _try(world, f"give {run}", operator.give(run, PERSON))


async def _act(world: World, operator: Operator, run: str, rng: random.Random) -> None:
    steps = await operator.steps(run)
    done = [step for step in steps if step.state in FINISHED and (step.writes or _is_agent(step))]
    acted = [step for step in done if step.pattern == "action"]
    step = rng.choice(acted if acted and rng.random() < 0.3 else done if done and rng.random() < 0.5 else steps)
    value: Any = {"ok": True, "n": rng.randint(0, 9), "c": 0.5, "objections": [], "seen": ["by hand"]}
    if step.state in FINISHED and step.writes:
        await _try(world, f"undo {step.key} of {run}", operator.undo(run, step.key, PERSON))
    elif step.state in FINISHED and step.name and _is_agent(step):
        await _try(world, f"edit {step.name} of {run}", operator.edit(run, step.name, value, PERSON))
    elif step.state not in FINISHED:
        output = value if _is_agent(step) else None if step.schema is None else {"id": "by hand"}
        await _try(world, f"do {step.key} of {run}", operator.do(run, step.key, output, PERSON))


def _is_agent(step: StepState) -> bool:
    return step.pattern in ("agent", "maker_checker")


async def _try(world: World, what: str, act: Any) -> bool:
    """Whether it was accepted; what is refused is refused for a reason, and changes nothing."""
    try:
        await act
    except (ActRefused, GuardRefused) as refused:
        world.tell(f"{what}: refused, {refused.message}")
        return False
    except TightshipError as error:  # it has ended meanwhile, or the value does not fit
        world.tell(f"{what}: {error.code} {error.message}")
        return False
    world.tell(what)
    return True
