"""Ids of runs are made ahead with their keys: never twice, never many in vain, each key durable before its run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightship.core.world import SystemClock, World
from tightship.ledger.keyring import Keyring, KeyStore
from tightship.runtime.reserve import MOST, SECONDS, Reserve


class Clock(SystemClock):
    """Time that is set."""

    time = 1_000.0

    def monotonic(self) -> float:
        """As it was set."""
        return self.time


def make() -> tuple[Reserve, KeyStore, Keyring, Clock]:
    store, clock = KeyStore(), Clock()
    world = World(clock=clock)
    keyring = Keyring(store, bytes(32), world)
    return Reserve(keyring, world), store, keyring, clock


@given(st.integers(1, 500))
def test_no_id_comes_twice_and_no_more_lie_idle_than_were_used(count: int) -> None:
    reserve, store, keyring, _ = make()
    taken = [reserve.take() for _ in range(count)]
    assert len(set(taken)) == count
    keyring.flush()
    rows = [row.name for row in store.page("", 10_000)]
    assert set(taken) <= set(rows)
    assert len(rows) - count <= min(count, MOST)


def test_many_keys_become_durable_with_one_flush() -> None:
    reserve, _, keyring, _ = make()
    flushes = 0
    for _ in range(640):
        if not keyring.stands(reserve.take()):
            keyring.flush()
            flushes += 1
    assert flushes < 640 / MOST + 10


def test_an_id_that_has_lain_for_long_is_not_given_out() -> None:
    reserve, store, keyring, clock = make()
    for _ in range(3):
        reserve.take()
    keyring.flush()
    lying = {row.name for row in store.page("", 100)}
    clock.time += SECONDS + 1
    assert reserve.take() not in lying
