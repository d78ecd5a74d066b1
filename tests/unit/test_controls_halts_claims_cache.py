"""Halted scopes, claims on business keys, and results that are fetched once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from entry_samples import Log, VirtualClock
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls import (
    ClaimsProjection,
    Halt,
    Halts,
    HaltsProjection,
    ResultCache,
    check_scope,
    normalise,
    scopes_of,
)
from tightship.core import kinds
from tightship.core.errors import DataMissing, InputRejected, InvalidArguments
from tightship.core.ports import Projection
from tightship.core.signals import Halted

SCOPES = scopes_of(tenant="acme", workflow="desk", run="r-1", agent="triage")


def fold(projection: Projection, entries: Iterable[Any]) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.kind in projection.kinds:
            for delta in projection.fold(entry):
                table.setdefault(delta.key[0], {}).update(delta.set)
    return table


@pytest.mark.parametrize("scope", ["all", "tenant:acme", "workflow:desk", "agent:triage", "run:r-1"])
def test_each_scope_stops_an_effect_and_names_who_and_why(scope: str) -> None:
    halts = Halts([Halt("tenant:other"), Halt(scope, by="nora", reason="wrong refunds")])
    with pytest.raises(Halted, match="halted by nora: wrong refunds") as stopped:
        halts.check(SCOPES)
    assert stopped.value.scope == scope
    halts.lift(scope)
    halts.check(SCOPES)


def test_lifting_one_halt_leaves_the_others() -> None:
    halts = Halts([Halt("all"), Halt("run:r-1")])
    halts.lift("all")
    with pytest.raises(Halted):
        halts.check(SCOPES)
    assert [halt.scope for halt in halts.halted()] == ["run:r-1"]


@pytest.mark.parametrize("scope", ["", "everything", "tenant:", "tenant: ", "tool:x", "run"])
def test_a_scope_that_does_not_exist_is_refused(scope: str) -> None:
    with pytest.raises(InputRejected, match="no scope that can be halted"):
        check_scope(scope)


def test_the_halts_table_and_the_entries_agree() -> None:
    log = Log()
    log.add(kinds.HALT, scope="tenant:acme", by="nora", reason="audit")
    log.add(kinds.HALT, scope="all", by="omar")
    log.add(kinds.UNHALT, scope="all", by="nora", reason="done")
    log.add(kinds.TURN, "a")
    table = fold(HaltsProjection(), log.entries)
    from_table, from_entries = Halts(), Halts()
    from_table.load({"scope": scope, **row} for scope, row in table.items())
    for entry in log.entries:
        from_entries.apply(entry)
    assert from_table.halted() == from_entries.halted() == [Halt("tenant:acme", "nora", "audit", log.entries[0].at)]
    assert table["all"]["by_whom"] == "nora"


@pytest.mark.parametrize("written", [" Refund\tO-2001", "refund  o-2001\n", "ＲＥＦＵＮＤ o-2001"])
def test_what_people_write_alike_is_one_claim(written: str) -> None:
    assert normalise(written) == "refund o-2001"


@pytest.mark.parametrize("key", ["", "  ", "\n"])
def test_an_empty_business_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidArguments, match="empty"):
        normalise(key)


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def claims(*bodies: tuple[str, dict[str, Any]]) -> dict[str, str]:
    log = Log()
    for kind, body in bodies:
        log.add(kind, "refund/action", **body)
    return {key: row["state"] for key, row in fold(ClaimsProjection(), log.entries).items()}


HELD = (kinds.ADMITTED, {"claim": "c1"})


def test_a_claim_is_held_from_the_admit_and_done_with_the_outcome() -> None:
    assert claims(HELD) == {"c1": "held"}
    assert claims(HELD, (kinds.SETTLED, {"claim": "c1", "out": "address"})) == {"c1": "done"}


def test_a_write_that_failed_for_certain_releases_and_an_unknown_outcome_does_not() -> None:
    assert claims(HELD, (kinds.SETTLED, {"claim": "c1", "error": {"error": "WriteFailed"}})) == {"c1": "released"}
    assert claims(HELD, (kinds.SETTLED, {"claim": "c1", "refused": {"signal": "Halted"}})) == {"c1": "released"}
    assert claims(HELD, (kinds.SETTLED, {"claim": "c1", "error": {"error": "OutcomeUnknown"}})) == {"c1": "held"}


def test_a_run_that_was_refused_a_claim_does_not_release_the_holder_s() -> None:
    assert claims(HELD, (kinds.SETTLED, {"claim": "c1", "error": {"error": "DuplicateClaim"}})) == {"c1": "held"}


def test_a_finished_undo_releases_and_a_failed_one_does_not() -> None:
    done = (HELD, (kinds.SETTLED, {"claim": "c1", "out": "address"}))
    undo = (kinds.ADMITTED, {"undoes": "refund/action"})
    assert claims(*done, undo, (kinds.SETTLED, {"releases": "c1", "out": "a"})) == {"c1": "released"}
    assert claims(*done, undo, (kinds.SETTLED, {"releases": "c1", "error": {"error": "Unavailable"}})) == {"c1": "done"}


def test_the_claims_table_names_the_holder() -> None:
    log = Log(run="r-7")
    log.add(kinds.TURN, "other")
    log.add(kinds.ADMITTED, "refund/action", claim="c1")
    row = fold(ClaimsProjection(), log.entries)["c1"]
    assert row == {"run": "r-7", "effect": "refund/action", "n": 2, "state": "held"}


def test_a_result_is_kept_for_its_time_and_no_longer() -> None:
    clock = VirtualClock()
    cache: ResultCache[str] = ResultCache(clock)
    cache.put("k", "address", size=10, ttl=5)
    clock.time += 4.9
    assert cache.get("k") == "address"
    clock.time += 0.1
    assert cache.get("k") is None
    cache.put("never", "address", size=10, ttl=0)
    assert cache.get("never") is None
    assert cache.as_dict() == {"items": 0, "bytes": 0, "hits": 1, "misses": 2, "coalesced": 0, "evicted": 0}


def test_what_was_used_longest_ago_goes_first() -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock(), items=3, size=100)
    for key in "abc":
        cache.put(key, key, size=10, ttl=60)
    cache.get("a")
    cache.put("d", "d", size=10, ttl=60)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    cache.put("big", "big", size=90, ttl=60)
    assert [cache.get(key) for key in ("a", "c", "d", "big")] == [None, None, "d", "big"]
    cache.put("too-big", "x", size=101, ttl=60)
    assert cache.get("too-big") is None
    assert cache.evicted == 3


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=60))
def test_the_bounds_hold_whatever_is_put(puts: list[tuple[str, int]]) -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock(), items=4, size=100)
    kept: dict[str, int] = {}
    for key, size in puts:
        cache.put(key, key, size=size, ttl=60)
        kept[key] = size
        there = {name: size for name, size in kept.items() if cache.get(name) is not None}
        assert key in there
        assert len(cache) == len(there) <= 4
        assert cache.as_dict()["bytes"] == sum(there.values()) <= 100
    cache.clear()
    assert cache.as_dict()["bytes"] == 0


async def fetch(cache: ResultCache[str], gate: asyncio.Event, fetched: list[str], who: str, error: Any = None) -> str:
    async with cache.flight("k") as flight:
        if flight.hit is None:
            fetched.append(who)
            await gate.wait()
            if error is not None:
                raise error
            flight.fill(f"by {who}", size=1, ttl=0)
        assert flight.hit is not None
        return flight.hit


async def test_many_that_want_the_same_fetch_it_once() -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock())
    gate, fetched = asyncio.Event(), []
    tasks = [asyncio.ensure_future(fetch(cache, gate, fetched, str(number))) for number in range(5)]
    await VirtualClock().settle()
    gate.set()
    assert await asyncio.gather(*tasks) == ["by 0"] * 5
    assert fetched == ["0"]
    assert cache.coalesced == 4


async def test_a_failure_is_shared_and_the_next_fetch_starts_clean() -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock())
    gate, fetched = asyncio.Event(), []
    error = DataMissing("no such order")
    tasks = [asyncio.ensure_future(fetch(cache, gate, fetched, str(number), error)) for number in range(3)]
    await VirtualClock().settle()
    gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(one) for one in errors] == ["no such order"] * 3
    assert errors[0] is error and errors[1] is not error  # the leader's evidence is its own
    assert fetched == ["0"]
    assert await fetch(cache, gate, fetched, "later") == "by later"


async def test_when_the_fetching_one_is_cut_off_the_next_in_line_fetches() -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock())
    gate, fetched = asyncio.Event(), []
    first = asyncio.ensure_future(fetch(cache, gate, fetched, "0"))
    others = [asyncio.ensure_future(fetch(cache, gate, fetched, str(number))) for number in (1, 2, 3)]
    await VirtualClock().settle()
    others[0].cancel()
    first.cancel()
    await VirtualClock().settle()
    gate.set()
    assert await asyncio.gather(*others[1:]) == ["by 2", "by 2"]
    assert fetched == ["0", "2"]


async def test_a_halt_of_the_fetching_run_does_not_stop_the_others() -> None:
    cache: ResultCache[str] = ResultCache(VirtualClock())
    gate, fetched = asyncio.Event(), []

    async def halted() -> None:
        with pytest.raises(Halted):
            await fetch(cache, gate, fetched, "0", Halted("stop"))

    tasks = [asyncio.ensure_future(halted()), asyncio.ensure_future(fetch(cache, gate, fetched, "1"))]
    await VirtualClock().settle()
    gate.set()
    assert await asyncio.gather(*tasks) == [None, "by 1"]
