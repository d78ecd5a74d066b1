"""Workers of a shared store: who is alive, what the dead leave, and hearing what others have appended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import Store, note, script, started, until
from store_desk import ledger_of_store, store_of
from tightship.controls.breakers import BreakerRule, Breakers
from tightship.controls.cache import ResultCache
from tightship.controls.halts import Halts
from tightship.controls.rates import Rates
from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.core.ids import BREAKERS
from tightship.effects.session import Shared
from tightship.ledger import Draft, Entry, Guards, Ledger
from tightship.ledger._pg import Address
from tightship.ledger.follower import Follower
from tightship.ledger.presence import LEASE, Presence
from tightship.runtime.sharing import share_breakers

RULE = BreakerRule(minimum=4, cooldown=200.0, longest=600.0, probes=1)


store = store_of("postgres")
ledger = ledger_of_store()


async def begin(ledger: Ledger, run: str, owner: str) -> None:
    await ledger.append(started(run, owner=owner, build="b1"), guards=Guards(fresh=True))


def say(ledger: Ledger, run: str, n: int) -> Any:
    return ledger.append(Draft(run, kinds.SIGNAL, "", {"type": "wake", "n": n}))


def cut_off() -> None:
    """End every session."""
    with postgres_desk.server().connect() as db:
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tightship'")


# --- presence ----------------------------------------------------------------------------------------


async def test_a_worker_is_alive_until_it_ends_and_then_its_runs_are_free_at_once(store: Store, ledger: Ledger) -> None:
    presence = await Presence.start(str(store.where), "b1")
    [row] = ledger.backend.workers()  # type: ignore[attr-defined]
    assert (row["id"], row["pid"], row["build"], row["alive"]) == (presence.id, os.getpid(), "b1", True)
    assert LEASE - 5 < presence.lease_left() <= LEASE
    await begin(ledger, "r-1", presence.id)
    assert await ledger.claim("other", "b1", 9) == []
    await presence.close()
    assert (presence.alive, presence.lease_left(), ledger.backend.workers()) == (False, 0.0, [])  # type: ignore[attr-defined]
    assert [run["id"] for run in await ledger.claim("other", "b1", 9)] == ["r-1"]


async def test_a_worker_that_was_killed_is_noticed_at_once(store: Store, ledger: Ledger) -> None:
    text = (
        "from tightship.ledger.presence import Presence\n"
        "async def main():\n"
        f"    presence = await Presence.start({store.where!r}, 'b1')\n"
        "    print(presence.id, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = script(store.folder / "store", text)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    worker = (await process.stdout.readline()).decode().strip()
    await begin(ledger, "r-1", worker)
    assert await ledger.claim("other", "b1", 9) == []
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await until(lambda: not ledger.backend.workers()[0]["alive"])  # type: ignore[attr-defined]
    [row] = ledger.backend.workers()  # type: ignore[attr-defined]
    assert time.time() - row["beat_at"] < LEASE, "its session has ended; nobody has waited for its lease"
    assert [(run["id"], run["epoch"]) for run in await ledger.claim("other", "b1", 9)] == [("r-1", 2)]


async def test_a_worker_that_stands_still_is_dead_when_its_lease_is_over(store: Store, ledger: Ledger) -> None:
    presence = await Presence.start(str(store.where), "b1", every=600)
    await begin(ledger, "r-1", presence.id)
    assert await ledger.claim("other", "b1", 9) == []
    with postgres_desk.server().connect() as db:
        schema = Address.of(str(store.where)).schema
        db.execute(f"UPDATE {schema}.workers SET beat_at = beat_at - %s", (LEASE + 1,))
    assert [run["id"] for run in await ledger.claim("other", "b1", 9)] == ["r-1"]
    await presence.close()


async def test_a_lease_that_ran_out_is_over_for_the_worker_first(store: Store, ledger: Ledger) -> None:
    lost: list[str] = []

    async def on_lost(worker: str) -> None:
        lost.append(worker)

    presence = await Presence.start(str(store.where), "b1", on_lost, every=0.5, lease=0.2)
    first = presence.id
    await until(lambda: bool(lost) and presence.id not in ("", first))
    assert lost[0] == first
    await presence.close()


async def test_a_lost_session_is_told_and_the_worker_is_another_one_from_then_on(store: Store, ledger: Ledger) -> None:
    lost: list[str] = []

    async def on_lost(worker: str) -> None:
        lost.append(worker)

    presence = await Presence.start(str(store.where), "b1", on_lost, every=0.05)
    first = presence.id
    await begin(ledger, "r-1", first)
    cut_off()
    await until(lambda: bool(lost) and presence.alive)
    assert lost == [first]
    assert presence.id != first
    assert [run["id"] for run in await ledger.claim(presence.id, "b1", 9)] == ["r-1"]
    await presence.close()


# --- following ---------------------------------------------------------------------------------------


async def test_others_mail_is_told_in_order_and_nothing_else(store: Store, ledger: Ledger) -> None:
    other = await store.open()
    heard: list[tuple[str, int, bool]] = []

    def listen(entries: list[Entry], foreign: bool) -> None:
        heard.extend((entry.run, entry.body.get("n", 0), foreign) for entry in entries)

    await say(other, "before", 0)
    follower = Follower.start(ledger)
    ledger.listen(listen)
    await until(lambda: len(heard) == 1)
    for n in range(20):
        await asyncio.gather(say(other, "theirs", n), other.append(note("noise", n=n)), say(ledger, "ours", n))
    await other.append(Draft("", kinds.HALT, "", {"scope": "all", "by": "ann"}))
    await until(lambda: ("", 0, True) in heard)
    foreign = [(run, n) for run, n, is_foreign in heard if is_foreign]
    assert foreign == [("before", 0), *(("theirs", n) for n in range(20)), ("", 0)]
    assert [(run, n) for run, n, is_foreign in heard if not is_foreign] == [("ours", n) for n in range(20)]
    assert follower.silent_for() < 5
    await follower.close()


async def test_a_follower_looks_only_when_others_have_appended_what_it_follows(
    store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await store.open()
    heard: list[int] = []
    ledger.listen(lambda entries, foreign: heard.extend(entry.body["n"] for entry in entries if foreign))
    follower = Follower.start(ledger, every=60)  # it looks by itself too late for this test
    await say(other, "r", 0)
    await until(lambda: heard == [0])
    looks: list[int] = []
    look = ledger.backend.foreign_by  # type: ignore[attr-defined]
    monkeypatch.setattr(ledger.backend, "foreign_by", lambda *args: looks.append(1) or look(*args))
    for n in range(5):
        await say(ledger, "ours", n)
        await other.append(note("noise", n=n))
    assert len(looks) <= 1  # the one that was under way
    await say(other, "r", 1)
    await until(lambda: heard == [0, 1])
    await follower.close()


async def test_a_follower_goes_on_after_its_session_was_ended(store: Store, ledger: Ledger) -> None:
    other = await store.open()
    heard: list[int] = []
    ledger.listen(lambda entries, foreign: heard.extend(entry.body["n"] for entry in entries if foreign))
    follower = Follower.start(ledger)
    for n in range(5):
        await say(other, "r", n)
        await until(lambda n=n: len(heard) == n + 1)
        cut_off()
    await say(other, "r", 5)
    await until(lambda: heard == [0, 1, 2, 3, 4, 5])
    await follower.close()


async def test_without_any_notice_others_mail_is_found(
    store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightship.ledger import _pg_values

    other = await store.open()
    script_of = _pg_values.script
    mute = script_of("append").replace("pg_notify(%s, %s)", "%s::text, %s::text")
    monkeypatch.setattr(_pg_values, "script", lambda name: mute if name == "append" else script_of(name))
    heard: list[Entry] = []
    ledger.listen(lambda entries, foreign: heard.extend(entries))
    follower = Follower.start(ledger)
    await say(other, "r", 1)
    await until(lambda: len(heard) == 1)
    await follower.close()


# --- breakers ----------------------------------------------------------------------------------------


async def worker_with_breakers(store: Store, name: str) -> tuple[Ledger, Shared, Follower]:
    """A process of the store that calls systems."""
    ledger = await store.open()
    clock = ledger.world.clock
    shared = Shared(ledger.world, Halts(), Rates(clock, {}), Breakers(clock, RULE), ResultCache[str](clock))
    await share_breakers(ledger, shared, lambda: name)
    return ledger, shared, Follower.start(ledger)


async def change(shared: Shared, *calls: bool) -> None:
    """How calls went, as the door tells of it."""
    for ok in calls:
        if shared.breakers.record("crm", ok) is not None:
            assert shared.spread is not None
            await shared.spread("crm")


async def test_a_breaker_that_one_worker_opens_is_heeded_by_the_others_and_by_those_that_come_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, mine, first = await worker_with_breakers(store, "w-1")
    other, theirs, second = await worker_with_breakers(store, "w-2")
    await change(mine, False, False, False, False)
    await until(lambda: theirs.breakers.state("crm") == "open")
    asked: list[str] = []
    monkeypatch.setattr(other, "select", lambda *where: asked.append(str(where)))
    with pytest.raises(Unavailable, match="another worker has found out that 4 of the last 4 calls failed") as refused:
        theirs.breakers.check("crm")
    assert 0 < (refused.value.retry_after or 0) <= RULE.cooldown and not asked, "no call asks the store"
    _, late, third = await worker_with_breakers(store, "w-3")
    assert late.breakers.state("crm") == "open"
    assert late.breakers.open_for("crm") <= RULE.cooldown, "its time goes on from when it was opened"
    for shared in (mine, theirs, late):
        shared.breakers.hear("crm", "closed", 0.0)  # its time is over
        shared.breakers.check("crm")
    await change(mine, True)
    assert mine.breakers.state("crm") == "closed"
    entries = await ledger.run_entries(BREAKERS)
    assert [(one.body["state"], one.body["by"]) for one in entries] == [("open", "w-1"), ("closed", "w-1")]
    _, latest, fourth = await worker_with_breakers(store, "w-4")
    assert latest.breakers.state("crm") == "closed", "the last word counts"
    for follower in (first, second, third, fourth):
        await follower.close()
