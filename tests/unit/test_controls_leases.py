"""Shared envelopes: many workers borrow, some are lost, and together they never spend more than the limit."""

from __future__ import annotations

import pytest
from entry_samples import START, Log
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tightship.controls import Amount, Chain, ChunkPlanner, EnvelopesProjection, Lease, Limit, forecast
from tightship.controls.periods import period_bounds, period_key
from tightship.core import kinds
from tightship.core.ports import Delta
from tightship.core.signals import OverBudget

DAY = 86_400.0


def fold(log: Log) -> dict[tuple[str, ...], dict[str, int]]:
    projection, table = EnvelopesProjection(), {}
    for entry in log.entries:
        for delta in projection.fold(entry):
            row = table.setdefault(delta.key, {})
            for column, number in delta.add.items():
                row[column] = row.get(column, 0) + number
    return table


def test_the_projection_sums_loans_and_returns_per_scope_and_period() -> None:
    log = Log()
    log.add(kinds.ENVELOPE, scope="tenant:a", period="2026-01-01", usd=100, tokens=5, calls=1, owner="w1")
    log.add(kinds.ENVELOPE, scope="tenant:a", period="2026-01-01", usd=-40, owner="w1")
    log.add(kinds.ENVELOPE, scope="tenant:a", period="2026-01-02", usd=7, owner="w2")
    log.add(kinds.EXTENDED, scope="tenant:a", period="2026-01-02", usd=9, by="nora")
    log.add(kinds.EXTENDED, scope="run", usd=9, by="nora")
    assert fold(log) == {
        ("tenant:a", "2026-01-01"): {"usd": 60, "tokens": 5, "calls": 1},
        ("tenant:a", "2026-01-02"): {"usd": 7, "tokens": 0, "calls": 0},
        ("tenant:a", "2026-01-02+extended"): {"usd": 9, "tokens": 0, "calls": 0},
    }


def test_a_lease_spends_what_was_granted_and_returns_the_rest() -> None:
    lease = Lease("tenant:a", Limit(usd=1000))
    chain = Chain([lease])
    with pytest.raises(OverBudget):
        chain.reserve(Amount(usd=1))
    assert lease.missing(Amount(usd=30, tokens=99)) == Amount(usd=30)
    lease.grant(Amount(usd=100))
    held = chain.reserve(Amount(usd=30))
    assert lease.give_back(keep=Amount(usd=5)) == Amount(usd=65)
    assert lease.missing(Amount(usd=6)) == Amount(usd=1)
    assert held.settle(Amount(usd=50)) == Amount(usd=20)
    assert lease.debt() == Amount(usd=15)


def test_a_used_up_chunk_alerts_nobody_and_a_loan_over_80_percent_of_the_limit_does() -> None:
    lease = Lease("tenant:a", Limit(usd=1000), period="2026-01-01")
    lease.grant(Amount(usd=100))
    chain = Chain([lease])
    chain.reserve(Amount(usd=100)).settle(Amount(usd=100))
    assert chain.alerts() == []
    planner = ChunkPlanner("tenant:a", Limit(usd=1000), period="2026-01-01")
    assert planner.alerts(Amount(usd=100), Amount(usd=799)) == []
    (alert,) = planner.alerts(Amount(usd=799), Amount(usd=800))
    assert alert.as_dict() == {
        "scope": "tenant:a",
        "period": "2026-01-01",
        "unit": "usd",
        "spent": 800,
        "limit": 1000,
    }
    assert planner.alerts(Amount(usd=800), Amount(usd=900)) == []


@given(st.integers(1, 10**12), st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 64))
def test_a_chunk_covers_the_need_and_never_more_than_is_left(limit: int, used: float, need: int, workers: int) -> None:
    planner = ChunkPlanner("tenant:a", Limit(usd=limit), workers=workers)
    lent = int(limit * used)
    left = limit - lent
    if need > left:
        with pytest.raises(OverBudget) as refused:
            planner.plan(Amount(usd=need), Amount(usd=lent))
        assert (refused.value.scope, refused.value.unit) == ("tenant:a", "usd")
        return
    chunk = planner.plan(Amount(usd=need), Amount(usd=lent))
    assert need <= chunk.usd <= left
    assert (chunk.tokens, chunk.calls) == (0, 0)
    if planner.scarce(Amount(usd=lent)):
        assert chunk.usd == need


def test_the_last_of_the_limit_can_be_borrowed_and_not_one_more() -> None:
    planner = ChunkPlanner("tenant:a", Limit(usd=100, calls=7), period="2026-01")
    assert planner.plan(Amount(usd=10, calls=2), Amount(usd=90, calls=5)) == Amount(usd=10, calls=2)
    with pytest.raises(OverBudget, match=r"tenant:a \(2026-01\)") as refused:
        planner.plan(Amount(usd=10, calls=3), Amount(usd=90, calls=5))
    assert refused.value.unit == "calls"


class Workers(RuleBasedStateMachine):
    """Three workers on one tenant envelope; the durable sum is what was lent."""

    @initialize(limit=st.integers(1, 5000))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.lent = self.spent = self.overrun = 0
        self.leases = [Lease("tenant:a", Limit(usd=limit)) for _ in range(3)]
        self.planner = ChunkPlanner("tenant:a", Limit(usd=limit), workers=3)

    @rule(worker=st.integers(0, 2), need=st.integers(1, 60), more=st.integers(-60, 10))
    def spend(self, worker: int, need: int, more: int) -> None:
        lease = self.leases[worker]
        missing = lease.missing(Amount(usd=need))
        if missing:
            try:
                chunk = self.planner.plan(missing, Amount(usd=self.lent))
            except OverBudget:
                assert missing.usd > self.limit - self.lent
                return
            self.lent += chunk.usd
            lease.grant(chunk)
        actual = max(0, need + more)
        self.overrun += Chain([lease]).reserve(Amount(usd=need)).settle(Amount(usd=actual)).usd
        self.spent += actual
        debt = lease.debt()
        self.lent += debt.usd
        lease.grant(debt)

    @rule(worker=st.integers(0, 2))
    def stop(self, worker: int) -> None:
        self.lent -= self.leases[worker].give_back().usd

    @rule(worker=st.integers(0, 2))
    def lose(self, worker: int) -> None:
        self.leases[worker] = Lease("tenant:a", Limit(usd=self.limit))

    @invariant()
    def what_was_spent_is_covered_by_what_was_lent(self) -> None:
        assert self.spent <= self.lent
        assert self.spent <= self.limit + self.overrun


TestWorkers = Workers.TestCase


def test_periods_are_those_of_utc() -> None:
    last_second = START + 31 * DAY - 1
    assert [period_key("day", t) for t in (START, last_second, last_second + 1)] == [
        "2026-01-01",
        "2026-01-31",
        "2026-02-01",
    ]
    assert period_key("month", last_second) == "2026-01"
    assert period_key("run", START) == ""
    assert period_bounds("day", last_second) == (START + 30 * DAY, START + 31 * DAY)
    assert period_bounds("month", last_second) == (START, START + 31 * DAY)
    with pytest.raises(ValueError, match="no bounds"):
        period_bounds("run", START)


@given(st.floats(0, 4e9), st.sampled_from(("day", "month")))
def test_a_moment_lies_in_its_own_period(at: float, period: str) -> None:
    start, end = period_bounds(period, at)  # type: ignore[arg-type]
    assert start <= at < end
    assert period_key(period, start) == period_key(period, at) != period_key(period, end)  # type: ignore[arg-type]


def test_the_forecast_says_when_the_day_s_budget_will_be_empty() -> None:
    noon = START + DAY / 2
    on_course = forecast(40, 100, start=START, now=noon, end=START + DAY)
    assert (on_course.at_end, on_course.exhausted_at, on_course.alert) == (80, None, False)
    too_fast = forecast(60, 100, start=START, now=noon, end=START + DAY)
    assert too_fast.exhausted_at == pytest.approx(START + DAY * 50 / 60)
    assert too_fast.alert
    late = forecast(80, 100, start=START, now=START + DAY * 0.99, end=START + DAY)
    assert (late.exhausted_at, late.alert) == (None, True)
    assert forecast(100, 100, start=START, now=noon, end=START + DAY).exhausted_at == noon
    assert forecast(5, None, start=START, now=noon, end=START + DAY).alert is False
    assert forecast(40, 100, start=START, now=noon, end=START + DAY, since=noon - DAY / 4).at_end == 120


def test_a_delta_names_its_row_by_scope_and_period() -> None:
    log = Log()
    entry = log.add(kinds.ENVELOPE, scope="workflow:w", period="2026-01", usd=3)
    assert list(EnvelopesProjection().fold(entry)) == [
        Delta(("workflow:w", "2026-01"), add={"usd": 3, "tokens": 0, "calls": 0})
    ]
