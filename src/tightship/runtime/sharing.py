"""What the runs of a process share, as `tightship.yaml` declares it, and what they hear of other processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from tightship.controls.breakers import BreakerRule, Breakers
from tightship.controls.cache import ResultCache
from tightship.controls.halts import Halts
from tightship.controls.rates import Rates
from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.core.ids import BREAKERS
from tightship.core.world import World
from tightship.effects.session import Shared
from tightship.ledger import Draft, Entry, Ledger
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.models import BreakerSpec


def shared_by_runs(files: WorkspaceFiles, world: World, halts: Halts, rates: Rates) -> Shared:
    """What they share. Agents and workflows may declare breakers in their files; one in `tightship.yaml` counts."""
    config = files.config
    rules = {f"agent:{name}": _rule(one.breaker) for name, one in files.agents.items() if one.breaker is not None}
    rules |= {
        f"workflow:{name}": _rule(one.breaker) for name, one in files.workflows.items() if one.breaker is not None
    }
    rules |= {key: _rule(one) for key, one in config.breakers.by_key()}
    breakers = Breakers(world.clock, _rule(config.breakers.systems), rules)
    return Shared(world, halts, rates, breakers, ResultCache[str](world.clock), domains=config.domains)


def _rule(spec: BreakerSpec) -> BreakerRule:
    return BreakerRule(**{name: getattr(spec, name) for name in BreakerSpec.model_fields})


async def share_breakers(ledger: Ledger, shared: Shared, owner: Callable[[], str]) -> None:
    """Heed the breakers that other workers of a shared store have opened, and tell them of those that open here.

    Each change is an entry, of which followers are told as of halts; so no call asks the store. What was open before
    this process came is read once.

    Raises:
        StoreError: the store.
    """
    if not ledger.backend.shared:
        return

    def hear(entry: Entry) -> None:
        body, now = entry.body, shared.world.clock.now()
        seconds = float(body.get("seconds") or 0.0)
        left = entry.at + seconds - now
        shared.breakers.hear(body["name"], body["state"], left, seconds, str(body.get("why") or "it does not answer"))

    def told(entries: Sequence[Entry], foreign: bool) -> None:
        for entry in entries:
            if foreign and entry.kind == kinds.BREAKER:
                hear(entry)

    async def spread(key: str) -> None:
        breakers = shared.breakers
        state = breakers.state(key)
        body: dict[str, Any] = {"name": key, "state": state, "by": owner()}
        if state == "open":
            body |= {"seconds": round(breakers.open_for(key), 3), "why": breakers.why(key)}
        with contextlib.suppress(TightshipError):  # the others find out by themselves
            await ledger.append(Draft(BREAKERS, kinds.BREAKER, key, body))

    ledger.listen(told)
    last = {entry.key: entry for entry in await ledger.run_entries(BREAKERS)}
    for entry in last.values():
        hear(entry)
    shared.spread = spread


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
