"""While a key is being written to the disk nobody can read the keystore: the event loop does not wait for that."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tightship import Agent, Workflow, Workspace


@contextmanager
def being_written(folder: Path) -> Iterator[None]:
    """The keystore as it is during a commit, from its first flush to its last."""
    with closing(sqlite3.connect(folder / ".tightship" / "keys" / "keys.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")


def opened(folder: Path) -> Workspace:
    (folder / "tightship.yaml").write_text("name: desk\nroles: {operator: [ann]}\n", "utf-8")

    async def clerk(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True}

    ws = Workspace.open(folder)
    ws.add(
        Agent("clerk", owner="o", purpose="p", python="x:y", output={"ok": "bool"}),
        Workflow("w", owner="o", purpose="p", input={"who": "str"}, subjects=["input.who"], steps=["clerk"]),
        functions={"clerk": clerk},
    )
    return ws


async def goes_on(work: asyncio.Future[Any]) -> None:
    """Other work is done while this one waits."""
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not work.done()


async def test_a_run_about_somebody_new_is_started_without_holding_up_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as ws:
        await ws.run("w", {"who": "ada"})
        with being_written(tmp_path):
            run = asyncio.ensure_future(ws.run("w", {"who": "ben"}))
            await asyncio.wait_for(goes_on(run), 60)
        assert (await run).outcome == "completed"


async def test_values_are_opened_without_holding_up_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as ws:
        first = await ws.run("w", {"who": "ada"})
    async with opened(tmp_path) as ws:  # its keys are in no memory
        ledger = await ws.ledger()
        row = await ws.row(first.id)
        with being_written(tmp_path):
            value = asyncio.ensure_future(ledger.value(row["input"]))
            await asyncio.wait_for(goes_on(value), 60)
        assert await value == {"who": "ada"}
