"""The simulated day of the benchmark: what a cache and a cap get wrong, the gate does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.staleness import measure

PAGE = Path(__file__).parents[2] / "docs" / "context.md"


@pytest.mark.parametrize("seed", range(2, 4))
def test_a_day_of_orders_has_none_that_is_wrong_behind_the_gate(seed: int) -> None:
    cache, cap, gate = measure(seed, sales=80)
    assert cache.wrong > cap.wrong >= gate.wrong == 0
    assert gate.orders > 0 and gate.escalated == 0 and gate.forgotten == 0


def test_the_page_shows_what_the_benchmark_measures() -> None:
    text = PAGE.read_text()
    for day in measure(1):
        assert f"| {day.policy} | {day.orders} | {day.wrong} | {day.reads} | {day.escalated} |" in text
