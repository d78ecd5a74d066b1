"""Runs that are left to whoever executes: on the disk at once, taken up later, one per reference."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tightship import Agent, Workflow, Workspace
from tightship.cli import main
from tightship.core.errors import InputRejected
from tightship.core.signals import Halted


def desk(folder: Path) -> Workspace:
    folder.mkdir(exist_ok=True)
    (folder / "tightship.yaml").write_text("name: desk\nroles: {lead: [nora]}\n", "utf-8")

    async def double(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"n": 2 * given["n"]}

    ws = Workspace.open(folder)
    ws.add(
        Agent("doubler", owner="o", purpose="double it", python="x:doubler", output={"n": "int"}),
        functions={"doubler": double},
    )
    ws.add(Workflow("twice", owner="o", purpose="double it", input={"n": "int"}, steps=["doubler"]))
    return ws


async def ended(ws: Workspace, run: str) -> None:
    while (await ws.row(run))["state"] != "ended":  # noqa: ASYNC110 - what happens elsewhere can only be looked for
        await asyncio.sleep(0.01)


async def test_a_submitted_run_waits_until_somebody_executes_and_is_carried_out_then(tmp_path: Path) -> None:
    async with desk(tmp_path) as ws:
        run = await ws.submit("twice", {"n": 21})
        assert (await ws.row(run))["state"] == "queued"
    async with desk(tmp_path) as ws:
        stop = asyncio.Event()
        serving = asyncio.ensure_future(ws.serve(stop))
        try:
            await ended(ws, run)
        finally:
            stop.set()
            await serving
        assert (await ws.result(run)).output == {"n": 42}


async def test_whoever_executes_takes_up_what_is_submitted_beside_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as serving, desk(tmp_path) as beside:
        stop = asyncio.Event()
        task = asyncio.ensure_future(serving.serve(stop))
        try:
            run = await beside.submit("twice", {"n": 1})
            await ended(serving, run)
        finally:
            stop.set()
            await task
        assert (await serving.result(run)).output == {"n": 2}


async def test_a_reference_is_queued_once_and_names_one_piece_of_work(tmp_path: Path) -> None:
    async with desk(tmp_path) as ws:
        first = await ws.submit("twice", {"n": 1}, reference="a")
        assert await ws.submit("twice", {"n": 1}, reference="a") == first
        with pytest.raises(InputRejected, match="another"):
            await ws.submit("twice", {"n": 2}, reference="a")


async def test_nothing_is_queued_of_what_does_not_fit_or_is_halted(tmp_path: Path) -> None:
    async with desk(tmp_path) as ws:
        with pytest.raises(InputRejected):
            await ws.submit("twice", {"n": "many"})
        await (await ws.operator()).halt("workflow:twice", by="nora", reason="stop")
        with pytest.raises(Halted):
            await ws.submit("twice", {"n": 1})
        assert await (await ws.ledger()).select("runs") == []


async def test_what_is_urgent_is_taken_up_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as ws:
        later = await ws.submit("twice", {"n": 1}, priority=9)
        first = await ws.submit("twice", {"n": 1}, priority=0)
        assert [row["id"] for row in await ws.due()] == [first, later]


def test_run_detach_queues_every_line_and_worker_names_the_store_that_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tightship.yaml").write_text("name: desk\n", "utf-8")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "w.yaml").write_text(
        "workflow: w\nowner: o\npurpose: p\ninput: {n: int}\nsteps:\n  - checkpoint: input.n > 0\n", "utf-8"
    )
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n', "utf-8")
    assert main(["run", "w", "-i", str(tmp_path / "in.jsonl"), "--detach", "--json", "-w", str(tmp_path)]) == 0
    queued = json.loads(capsys.readouterr().out)["queued"]
    assert main(["runs", "list", "--json", "-w", str(tmp_path)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["id"] for row in listed} == {row["run"] for row in queued}
    assert {row["state"] for row in listed} == {"queued"}
    assert main(["worker", "-w", str(tmp_path)]) == 1
    assert "tightship serve" in capsys.readouterr().err
