"""A cut connection: a follower knows that it has heard nothing, and the event loop waits for no key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import postgres_desk
from ledger_desk import until
from proxy import proxied
from tightship import Agent, Workflow, Workspace
from tightship.ledger._pg import Address, Link
from tightship.ledger.sequencer import Sequencer

CONTEXT = "context: {plan: {writers: [operator], type: str, max_age: 1h}}\n"


def workspace(folder: Path, url: str, keys: str = "") -> Workspace:
    folder.mkdir(exist_ok=True)
    store = f"{{url: '{url}', keys: '{keys}'}}" if keys else f"'{url}'"
    config = f"name: desk\nroles: {{operator: [ann]}}\nstore: {store}\n{CONTEXT}"
    (folder / "tightship.yaml").write_text(config)
    return Workspace.open(folder)


@pytest.fixture(autouse=True)
def master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGHTSHIP_MASTER_KEY", "dGlnaHRzaGlwIHRlc3RzJyBtYXN0ZXIga2V5ISEhISE=")


async def test_a_follower_whose_feed_is_cut_knows_it_and_asks_the_store(tmp_path: Path) -> None:
    """The store still answers: only what tells of changes is cut, so that nothing but silence says so."""
    url = postgres_desk.new_store()
    async with (
        workspace(tmp_path / "one", url) as one,
        workspace(tmp_path / "other", url) as other,
        proxied(url) as (proxy, through),
    ):
        await one.context.set("plan", "a", by="ann")
        backend: Any = (await other.ledger()).backend
        direct, backend.address = backend.address, Address.of(through)
        follower = await other.context.follow("plan")
        async with follower.following():
            backend.address = direct
            await until(lambda: not follower.stale)
            assert (await follower.get("plan")).value == "a"
            assert (await follower.get("plan")).value == "a"
            assert follower.read_through == 1
            await one.context.set("plan", "b", by="ann")
            await anext(follower.changes())
            assert ((await follower.get("plan")).value, follower.read_through) == ("b", 1)

            proxy.cut()
            await one.context.set("plan", "c", by="ann")
            await until(lambda: follower.stale)
            assert ((await follower.get("plan")).value, follower.read_through) == ("c", 2)

            proxy.mend()
            await until(lambda: not follower.stale)
            await one.context.set("plan", "d", by="ann")
            async with asyncio.timeout(300):
                async for change in follower.changes():
                    if change.value == "d":
                        break
            assert ((await follower.get("plan")).value, follower.read_through) == ("d", 2)


async def test_a_follower_that_is_cut_off_from_the_store_gives_no_old_value(tmp_path: Path) -> None:
    url = postgres_desk.new_store()
    async with workspace(tmp_path / "one", url) as one, proxied(url) as (proxy, through):
        await one.context.set("plan", "a", by="ann")
        async with workspace(tmp_path / "other", url) as other:
            backend: Any = (await other.ledger()).backend
            backend.address = Address.of(through)
            backend._reader.close()
            backend._reader = Link(backend.address)
            follower = await other.context.follow("plan")
            async with follower.following():
                await until(lambda: not follower.stale)
                assert (await follower.get("plan")).value == "a"
                proxy.cut()
                await one.context.set("plan", "b", by="ann")
                await until(lambda: follower.stale)
                asked = asyncio.ensure_future(follower.get("plan"))
                await asyncio.sleep(0.3)
                assert not asked.done()  # late, and never wrong
                proxy.mend()
                assert (await asyncio.wait_for(asked, 300)).value == "b"


async def test_a_claimed_runs_keys_come_at_once_and_off_the_event_loop(tmp_path: Path) -> None:
    """The keystore is reached through this loop's own relay: a loop that waited for a key would wait for ever."""
    url, keys = postgres_desk.new_store(), postgres_desk.new_store()
    async with began(tmp_path / "one", url, keys) as one:
        submitted = [await one.submit("w", {"who": who}) for who in ("ada", "ben", "eve")]
    async with proxied(keys) as (proxy, through), began(tmp_path / "one", url, through) as other:
        store: Any = (await other.ledger()).vault.keyring.store
        asked: list[list[str]] = []
        one_by_one: list[str] = []
        many, single = store.get_many, store.get
        store.get_many = lambda names: (asked.append(sorted(names)), many(names))[1]
        store.get = lambda name: (one_by_one.append(name), single(name))[1]
        await other.engine()
        await Sequencer(await other.ledger(), "desk").run_once()  # what signs the tree is known before the cut
        asked.clear()
        one_by_one.clear()
        proxy.cut()
        stop = asyncio.Event()
        serving = asyncio.ensure_future(other.serve(stop))
        try:
            await until(lambda: asked)
            for _ in range(30):  # other work is done while the keys are on their way
                await asyncio.sleep(0.01)
            assert not serving.done()
            proxy.mend()
            await until_ended(other, submitted)
        finally:
            proxy.mend()
            stop.set()
            await serving
        wanted = {name for call in asked for name in call}
        assert len(asked) == 1 and set(submitted) <= wanted
        assert sum(name.startswith("subject:") for name in wanted) == 3
        assert one_by_one == []


@asynccontextmanager
async def began(folder: Path, url: str, keys: str) -> AsyncIterator[Workspace]:
    async def clerk(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True}

    async with workspace(folder, url, keys) as ws:
        ws.add(
            Agent("clerk", owner="o", purpose="p", python="x:y", output={"ok": "bool"}),
            Workflow("w", owner="o", purpose="p", input={"who": "str"}, subjects=["input.who"], steps=["clerk"]),
            functions={"clerk": clerk},
        )
        yield ws


async def until_ended(ws: Workspace, runs: list[str]) -> None:
    async with asyncio.timeout(300):
        while {(await ws.row(run))["state"] for run in runs} != {"ended"}:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.02)
