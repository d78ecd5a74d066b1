"""A store with old runs and young ones, for tests of archiving."""

from __future__ import annotations

import asyncio
from typing import Any

from ledger_desk import note
from tightship.core import kinds
from tightship.ledger import Draft, Ledger
from tightship.ledger.sequencer import Sequencer


async def run(ledger: Ledger, name: str, *, end: bool = True, notes: int = 40, **body: Any) -> str:
    """A run with an input of its own and some entries; returns the input's address."""
    given = ledger.seal(ledger.vault.new_scope(name), {"secret": f"of {name}", "long": "x" * 100})
    await ledger.append(
        Draft(name, kinds.STARTED, "", {"workflow": "w", "owner": "h", "input": given.address, **body}, 1, (given,))
    )
    await asyncio.gather(*(ledger.append(note(name, 1, at=at)) for at in range(notes)))
    if end:
        await ledger.append(Draft(name, kinds.ENDED, "", {"outcome": "completed"}, 1))
    return given.address


async def pack(ledger: Ledger) -> None:
    sequencer = Sequencer(ledger)
    await sequencer.run_once()
    await sequencer.pack(0)
    sequencer._unlisten()


async def years(ledger: Ledger) -> tuple[float, dict[str, str]]:
    """Fourteen old runs, one of them open, one the parent of a young one; then young ones. The time between."""
    inputs = {
        name: await run(ledger, name, end=name != "r-open")
        for name in (*(f"r-{n:02d}" for n in range(12)), "r-open", "r-above")
    }
    await ledger.append(Draft("", kinds.HALT, "", {"scope": "workflow:x", "by": "ann", "reason": "a test"}))
    moment = (await ledger.append(note("")))[0].at
    inputs["r-young"] = await run(ledger, "r-young", parent="r-above", notes=300)
    await pack(ledger)
    return moment, inputs
