"""Two versions of a workspace side by side on one store: each worker takes the runs of its own code, and no other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from fleet import PATIENCE, TOKEN, fleet

from postgres_desk import new_store
from tightship import Workspace
from tightship.core import kinds
from tightship.insight import demand

ORDERS = [("O-2001", "C-1001", "T-3003"), ("O-2003", "C-1003", "T-3006"), ("O-2004", "C-1004", "T-3007")]


def given(number: int) -> dict[str, str]:
    order, customer, ticket = ORDERS[number]
    return {"ticket": ticket, "order": order, "customer": customer}


async def told(folder: Path, *args: str) -> Any:
    """What a command says, as JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tightship", *args, "-w", str(folder), "--json"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COMPANY_TOKEN": TOKEN},
    )
    return json.loads((await process.communicate())[0])


async def test_old_and_new_workers_share_a_store_and_what_is_left_of_the_old_is_found(tmp_path: Path):
    async with fleet(tmp_path, new_store()) as desk:
        old = desk.workspace
        new = tmp_path / "new"
        shutil.copytree(desk.folder, new, ignore=shutil.ignore_patterns("worker-*.log", "__pycache__"))
        code = new / "agents" / "desk.py"
        code.write_text(code.read_text() + "\n# another version\n")
        await desk.start()
        await desk.start(folder=new)
        async with Workspace.open(new) as ours:
            runs = {"old": await old.submit("settle", given(0)), "new": await ours.submit("settle", given(1))}
            await desk.finish()
            assert await desk.problems(list(runs.values())) == []
            for worker, run in zip(desk.workers, runs.values(), strict=True):
                claims = [entry for entry in await desk.ledger.run_entries(run) if entry.kind == kinds.CLAIMED]
                assert {entry.body["owner"] for entry in claims} == {worker.owner}
            desk.workers[0].signal(signal.SIGTERM)
            assert await asyncio.to_thread(desk.workers[0].process.wait, PATIENCE) == 0
            runs["left"] = await old.submit("settle", given(2))
            [finding] = [one for one in (await told(new, "check"))["findings"] if one["rule"] == "TS320"]
            assert runs["left"] in finding["message"]
            metrics = await demand(desk.ledger, await desk.ledger.living())
            assert [one.code_gone for one in metrics.workflows] == [1]
            gone = {row["id"]: row["code_gone"] for row in await told(new, "runs", "list")}
            assert gone == {runs["old"]: False, runs["new"]: False, runs["left"]: True}
            [row] = [row for row in await desk.rows() if row["id"] == runs["left"]]
            assert row["state"] == "queued", "the new worker leaves it alone"
            await told(new, "runs", "resume", "--all", "--accept-code")
            await desk.finish()
            assert await desk.problems(list(runs.values())) == []
