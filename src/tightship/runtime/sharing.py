"""What the runs of a process share, as `tightship.yaml` declares it, and what they hear of other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from tightship.controls.breakers import BreakerRule, Breakers
from tightship.controls.cache import ResultCache
from tightship.controls.halts import Halts
from tightship.controls.rates import Rates
from tightship.core.world import World
from tightship.effects.session import Shared
from tightship.ledger import Ledger
from tightship.workflow.config import WorkspaceConfig
from tightship.workflow.safeguards import BreakerSpec


def shared_by_runs(config: WorkspaceConfig, world: World, halts: Halts, rates: Rates) -> Shared:
    """What they share."""
    rules = {key: _rule(one) for key, one in config.breakers.by_key()}
    breakers = Breakers(world.clock, _rule(config.breakers.systems), rules)
    return Shared(world, halts, rates, breakers, ResultCache[str](world.clock), domains=config.domains)


def _rule(spec: BreakerSpec) -> BreakerRule:
    return BreakerRule(**{name: getattr(spec, name) for name in BreakerSpec.model_fields})


@contextlib.asynccontextmanager
async def polled(ledger: Ledger, world: World) -> AsyncGenerator[Ledger]:
    """The ledger, polled for what other processes append, for as long as the block runs."""
    task = asyncio.ensure_future(_poll(ledger, world))
    try:
        yield ledger
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _poll(ledger: Ledger, world: World) -> None:
    while True:
        await ledger.poll()
        await world.clock.sleep(0.05)
