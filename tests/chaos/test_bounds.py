"""`admission.running` over real workers: whoever claims and whoever dies, no tenant has more at work than it may."""

from __future__ import annotations

import signal
from collections import defaultdict
from pathlib import Path

from fleet import DESK, Fleet, Worker, fleet

import postgres_desk
from tightship.core import kinds

BOUND = 3
ADMISSION = f"admission: {{tenants: {{busy: {{running: {BOUND}}}}}, workflows: {{settle: {{running: {BOUND + 2}}}}}}}\n"


async def at_once(desk: Fleet, dead: str) -> dict[str, int]:
    """The most runs that were worked on at once, by tenant, and in all; those of the dead worker left out."""
    tenants = {row["id"]: row["tenant"] for row in await desk.rows()}
    owned, most = dict[str, str](), defaultdict[str, int](int)
    for entry in await desk.entries():
        if entry.kind == kinds.CLAIMED:
            owned[entry.run] = entry.body["owner"]
        elif entry.kind in (kinds.PARKED, kinds.ENDED):
            owned.pop(entry.run, None)
        living = [tenants[run] for run, owner in owned.items() if owner != dead]
        for name in (*set(living), "all"):
            most[name] = max(most[name], len(living) if name == "all" else living.count(name))
    return dict(most)


async def test_workers_together_keep_to_the_bounds_and_every_place_is_used_again(tmp_path: Path) -> None:
    config = (DESK / "tightship.yaml").read_text() + ADMISSION
    async with fleet(tmp_path, postgres_desk.new_store(), {"tightship.yaml": config}) as desk:
        await desk.start(3)
        busy = await desk.submit(8, tenant="busy")
        other = await desk.submit(12, tenant="other", start=8)

        async def at_work() -> list[Worker]:
            return [worker for worker in desk.workers if await desk.under_way(worker)]

        await desk.until(at_work)
        [victim, *_] = await at_work() or desk.workers
        victim.signal(signal.SIGKILL)
        dead = victim.owner

        async def places_are_used() -> bool:
            at_work = [row for row in await desk.rows() if row["state"] == "running" and row["owner"] != dead]
            full = len(at_work) == BOUND + 2 and sum(row["tenant"] == "busy" for row in at_work) == BOUND
            return full or await desk.all_ended()

        await desk.until(places_are_used)  # the places of the dead one are free again
        await desk.finish()
        assert await desk.problems([*busy, *other]) == []
        found = await at_once(desk, dead)
        assert found["busy"] == BOUND, "it had its places, and no more"
        assert found["all"] == BOUND + 2
