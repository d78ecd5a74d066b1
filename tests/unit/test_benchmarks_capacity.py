"""The capacity page is a formula over stated constants: more work needs more, and every constant has its source."""

from __future__ import annotations

import dataclasses
import json

import pytest
from benchmarks import capacity
from hypothesis import given
from hypothesis import strategies as st

INPUTS = capacity.inputs()
DAILY = st.integers(1, 10**11)


@given(DAILY, DAILY)
def test_more_effects_never_need_less(one: int, other: int) -> None:
    low, high = capacity.need(min(one, other), INPUTS), capacity.need(max(one, other), INPUTS)
    for name in ("rate", "appends", "flight", "workers", "cores", "logs", "servers", "growth", "kept", "network"):
        assert getattr(low, name) <= getattr(high, name), name


def test_a_billion_a_day_is_what_the_arithmetic_says() -> None:
    need = capacity.need(1_000_000_000, INPUTS)
    peak = 1e9 / 86_400 * 3
    assert need.rate == pytest.approx(peak)
    assert need.workers == -(-peak * 2.0 // 32)
    assert need.cores == pytest.approx(peak * INPUTS["cpu"].value / 1000)
    assert need.kept == pytest.approx(1e9 * INPUTS["bytes"].value * 1.6 * 90 / 1e12)


def test_what_was_measured_is_what_the_result_files_say() -> None:
    latest = {row["figure"]: row["ours"] for row in json.loads(capacity.LATEST.read_text())}
    assert INPUTS["rate"].value == latest["effects_per_s_postgres_1_workers"]
    assert INPUTS["bytes"].value == json.loads(capacity.SIZES.read_text())["bytes_per_effect"]


def test_every_constant_moves_a_figure() -> None:
    """A constant that nothing follows from would be decoration."""

    def figures(inputs: dict[str, capacity.Input]) -> tuple[object, ...]:
        needs = [dataclasses.astuple(capacity.need(daily, inputs)) for daily in (10**7, 10**9, 10**13)]
        return (*needs, *capacity.limits(inputs))

    for name, one in INPUTS.items():
        other = {**INPUTS, name: dataclasses.replace(one, value=one.value * 1000)}
        less = {**INPUTS, name: dataclasses.replace(one, value=one.value / 1000)}
        assert figures(other) != figures(INPUTS) or figures(less) != figures(INPUTS), name


def test_the_limits_are_in_their_order_and_each_has_words() -> None:
    found = capacity.limits(INPUTS)
    assert [daily for _, daily in found] == sorted(daily for _, daily in found)
    assert all(one.source and one.unit for one in INPUTS.values())


async def test_the_bytes_of_an_effect_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(capacity, "FEW", 20)
    monkeypatch.setattr(capacity, "MANY", 60)
    found = await asyncio.to_thread(capacity.measure)
    assert found["bytes_per_effect"] > 100
