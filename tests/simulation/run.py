"""One seed from beginning to end, and what is known of it afterwards."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field

from tightship.runtime.simulation import Simulation

from .check import Checker
from .replay import replay_all
from .story import World, play


@dataclass(slots=True)
class Result:
    """How a seed went. `happened` counts what it exercised; `digest` is a hash of its whole ledger."""

    seed: int
    error: str = ""
    seconds: float = 0.0
    digest: str = ""
    happened: Counter[str] = field(default_factory=Counter[str])
    told: list[str] = field(default_factory=list[str])
    ledger: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not self.error


def run_seed(seed: int, trace: bool = False, workers: int = 1) -> Result:
    """Play one seed, check it, replay its runs. Odd seeds run what is ready at the same moment in any order."""
    began = time.perf_counter()
    sim = Simulation(seed, shuffle=bool(seed % 2))
    result = Result(seed)
    kept: list[World] = []

    async def story() -> None:
        world = await play(sim, kept, workers)
        checker = Checker(world)
        await checker.check()
        result.happened = checker.happened()
        result.happened["cut off"] = world.cuts
        result.happened["replayed"] = await replay_all(world)

    try:
        sim.run(story())
    except Exception as error:
        result.error = f"{type(error).__name__}: {error}"
        if trace:
            result.told = traceback.format_exception(error)
    for world in kept:
        rows = world.state.backend.entries("default", 0, 10**9)
        result.digest = hashlib.sha256(b"".join(row[-1] for row in rows)).hexdigest()[:16]
        if trace:
            result.told += world.told
            result.ledger = _lines(world)
        world.outside.close()
    result.seconds = time.perf_counter() - began
    return result


def _lines(world: World) -> list[str]:
    """The ledger, a line an entry."""
    from tightship.ledger.entries import decode

    skipped = ("package", "definition", "scope", "build", "owner", "hash", "version", "tenant", "args", "input")
    lines: list[str] = []
    for row in world.state.backend.entries("default", 0, 10**9):
        entry = decode("default", row[0], row[-1])
        body = {name: value for name, value in entry.body.items() if name not in skipped}
        at = entry.at - world.sim.clock.now() + world.sim.loop.time()
        lines.append(f"{entry.n:5} {at:9.3f} {entry.run[:8]:8} {entry.kind:15} {entry.key} {str(body)[:240]}")
    return lines
