"""Deliveries by real processes, on SQLite and on Postgres: a kill between sending and recording, and whole workers."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import script, until
from receiver import SECRET, receiving
from tightship import Workspace
from tightship.core import kinds
from tightship.core.world import World
from tightship.ledger import Draft, Ledger
from tightship.runtime.deliveries import Deliveries
from tightship.runtime.projections import projections
from tightship.workflow.notify import Notify

STORES = ["sqlite", "postgres"]
ITEM = {"item": "i-1", "type": "escalation", "role": "lead", "title": "case", "package": ""}


class Secrets:
    def get(self, name: str) -> str:
        return SECRET


def target(url: str, timeout: float = 60) -> Notify:
    return Notify.model_validate({"webhook": {"url": url, "secret": "${S}", "timeout": timeout}})


@pytest.mark.parametrize("kind", STORES)
async def test_a_process_that_dies_before_it_could_record_has_the_same_name_sent_again(
    kind: str, tmp_path: Path
) -> None:
    where = postgres_desk.new_store() if kind == "postgres" else str(tmp_path / "store")
    folder = tmp_path / "keys" if kind == "postgres" else None

    async def held() -> int:
        await asyncio.sleep(3600)
        return 200

    async with receiving(held) as receiver:
        text = (
            "sys.path.insert(0, str(Path({0!r})))\n"
            "from test_deliveries import *\n"
            "async def main():\n"
            "    folder = None if {2!r} is None else Path({2!r})\n"
            "    ledger = await Ledger.open({1!r}, World(), projections(), folder=folder)\n"
            "    await ledger.append(Draft('r-1', kinds.OPENED, 'k', ITEM))\n"
            "    await Deliveries(ledger, {{'duty': target({3!r}, 2)}}, Secrets).look()\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        ).format(str(Path(__file__).parent), where, None if folder is None else str(folder), receiver.url)
        process = await asyncio.create_subprocess_exec(*script(tmp_path / "store", text))
        await asyncio.wait_for(receiver.came.wait(), 300)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        ledger = await Ledger.open(where, World(), projections(), folder=folder)
        deliveries = Deliveries(ledger, {"duty": target(receiver.url)}, Secrets)
        async with asyncio.timeout(300):
            while len(receiver.received) < 2:
                await deliveries.look()
                await asyncio.sleep(0.1)
        await asyncio.gather(*deliveries._in_hand.values())
        [row] = await ledger.select("deliveries", [("item", "=", "i-1")])
        assert (row["state"], row["attempts"]) == ("delivered", 2)
        assert len(set(receiver.ids)) == 1 and receiver.signed(window=300)
        await deliveries.close()
        await ledger.close()


@pytest.mark.parametrize("kind", STORES)
async def test_workers_tell_while_they_serve_and_a_dead_receiver_delays_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUTY_SECRET", SECRET)
    monkeypatch.setenv("DESK_STORE", postgres_desk.new_store() if kind == "postgres" else "sqlite:.tightship")
    async with receiving() as dead:
        pass  # nobody listens there any more
    async with receiving(*[500] * (kind == "postgres")) as receiver:
        monkeypatch.setenv("DUTY_URL", receiver.url)
        monkeypatch.setenv("DEAD_URL", dead.url)
        (tmp_path / "tightship.yaml").write_text(
            "name: desk\nroles: {lead: [nora]}\nstore: ${DESK_STORE}\nnotify:\n"
            "  dead: {webhook: {url: '${DEAD_URL}', secret: '${DUTY_SECRET}'}}\n"
            "  duty: {webhook: {url: '${DUTY_URL}', secret: '${DUTY_SECRET}'}, roles: [lead], on: [escalation]}\n",
            "utf-8",
        )
        async with AsyncExitStack() as stack:
            stop = asyncio.Event()
            workers = [Workspace.open(tmp_path) for _ in range(2 if kind == "postgres" else 1)]
            for one in workers:
                stack.push_async_callback(one.close)
                await one.engine()
            serving = [asyncio.ensure_future(one.serve(stop)) for one in workers]
            ledger = await workers[0].ledger()
            await ledger.append(Draft("r-1", kinds.OPENED, "k", ITEM))
            most = 2 if kind == "postgres" else 1
            await until(lambda: len(receiver.received) >= most)
            async with asyncio.timeout(300):
                while not await ledger.select("deliveries", [("state", "=", "delivered")]):  # noqa: ASYNC110 - workers'
                    await asyncio.sleep(0.05)
            assert len(receiver.received) == most and len(set(receiver.ids)) == 1
            told = await (await workers[0].operator()).told("i-1")
            assert {(one["target"], one["why"]) for one in told} == {("dead", "ConnectError"), ("duty", "")}
            stop.set()
            await asyncio.gather(*serving)
