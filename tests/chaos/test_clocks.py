"""Workers on machines whose clocks are minutes off: what goes by time goes by the store's."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest
from fleet import fleet, wrong_clock

from postgres_desk import new_store
from tightship.core import kinds

MINUTES = 600.0
WITHIN = 3.0
ASKING = f"""\
workflow: ask
owner: tests
purpose: wait for a person, and not for long
escalate_to: lead
input: {{order: str, customer: str}}
steps:
  - assess
  - review: {{when: true, of: assess, by: lead, within: {WITHIN:g}s, otherwise: escalate}}
"""


@pytest.mark.parametrize(("ahead", "said"), [(MINUTES, "ahead of"), (-MINUTES, "behind")])
async def test_what_is_due_is_due_by_the_stores_time(tmp_path: Path, ahead: float, said: str):
    async with fleet(tmp_path, new_store(), {"workflows/ask.yaml": ASKING}) as desk:
        [worker] = await desk.start(program=wrong_clock(ahead))
        run = await desk.workspace.submit("ask", {"order": "O-2001", "customer": "C-1001"})
        await desk.finish()
        entries = await desk.ledger.run_entries(run)
        opened = next(one for one in entries if one.kind == kinds.OPENED and one.body["type"] == "review")
        ended = next(one for one in entries if one.kind == kinds.ENDED)
        assert ended.body["outcome"] == "escalated"
        assert abs(opened.body["due"] - opened.at - WITHIN) < MINUTES / 2
        assert opened.body["due"] <= ended.at < opened.at + MINUTES / 2
        [seconds] = re.findall(rf"(\d+) seconds {said} the store's server", worker.log.read_text())
        assert abs(float(seconds) - MINUTES) < 60  # as exact as the server's answer was quick


async def test_a_write_in_doubt_is_not_taken_for_over_by_a_clock_that_is_ahead(tmp_path: Path):
    """A worker is killed while the company is at its write; another takes over at once, for which it is 20 minutes later
    or earlier."""
    async with fleet(tmp_path, new_store()) as desk:
        await desk.start(program=wrong_clock(-MINUTES))
        await desk.start(program=wrong_clock(MINUTES))
        await desk.fault(kind="latency", operation="helpdesk.reply", seconds=2.5)
        runs = await desk.submit(1)

        async def is_sent() -> bool:
            entries = await desk.ledger.run_entries(runs[0])
            return any(one.kind == kinds.ADMITTED and one.body["name"] == "helpdesk.reply" for one in entries)

        await desk.until(is_sent)
        await asyncio.sleep(0.3)
        [row] = await desk.rows()
        next(one for one in desk.workers if one.owner == row["owner"]).signal(signal.SIGKILL)
        await desk.finish()
        assert await desk.problems(runs) == []
