"""Envelopes: nothing that is let through exceeds a limit, and a rebuilt run has the figures that it had."""

from __future__ import annotations

from typing import Any

import pytest
from entry_samples import Entry
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tightship.controls import (
    UNLIMITED,
    Amount,
    Chain,
    Envelope,
    EnvelopeTree,
    Limit,
    Reservation,
    rebuild,
)
from tightship.core import kinds
from tightship.core.signals import OverBudget

CENT = 10_000_000


def family(run: Limit = UNLIMITED, agent: Limit = UNLIMITED, tenant: Limit = UNLIMITED) -> EnvelopeTree:
    tree = EnvelopeTree()
    tree.add(Envelope("tenant:acme", tenant, period="2026-01-01"))
    tree.add(Envelope("workflow:desk"), "tenant:acme")
    tree.add(Envelope("run", run), "workflow:desk")
    tree.add(Envelope("agent:triage", agent), "run")
    return tree


def test_a_reserve_counts_in_every_envelope_up_to_the_tenant() -> None:
    tree = family()
    tree.chain("agent:triage").reserve(Amount(5, 7, 1))
    assert [envelope.reserved for envelope in tree.envelopes()] == [Amount(5, 7, 1)] * 4


def test_when_one_envelope_is_short_none_is_charged_and_the_refusal_names_scope_and_unit() -> None:
    tree = family(tenant=Limit(usd=30 * CENT), run=Limit(tokens=100))
    chain = tree.chain("agent:triage")
    with pytest.raises(OverBudget) as refused:
        chain.reserve(Amount(usd=CENT, tokens=101))
    assert (refused.value.scope, refused.value.unit) == ("run", "tokens")
    with pytest.raises(OverBudget) as refused:
        chain.reserve(Amount(usd=31 * CENT, tokens=1))
    assert (refused.value.scope, refused.value.unit) == ("tenant:acme", "usd")
    assert "$0.3100 asked, $0.3000 of $0.3000 left" in refused.value.reason
    assert not any(envelope.reserved or envelope.spent for envelope in tree.envelopes())


def test_the_last_cent_can_be_spent_and_no_more() -> None:
    chain = Chain([Envelope("run", Limit(usd=CENT))])
    chain.reserve(Amount(usd=CENT)).settle(Amount(usd=CENT))
    with pytest.raises(OverBudget):
        chain.reserve(Amount(usd=1))
    chain.reserve(Amount(calls=1)).release()  # what costs nothing still passes


def test_settling_below_the_reservation_frees_the_rest() -> None:
    envelope = Envelope("run", Limit(usd=100))
    reservation = Chain([envelope]).reserve(Amount(usd=80))
    assert reservation.settle(Amount(usd=30)) == Amount()
    assert (envelope.spent, envelope.reserved, envelope.left("usd")) == (Amount(usd=30), Amount(), 70)


def test_a_call_dearer_than_reserved_is_charged_as_it_was() -> None:
    envelope = Envelope("run", Limit(usd=100))
    chain = Chain([envelope])
    assert chain.reserve(Amount(usd=80)).settle(Amount(usd=130)) == Amount(usd=50)
    assert (envelope.spent.usd, envelope.overrun.usd, envelope.left("usd")) == (130, 30, 0)
    with pytest.raises(OverBudget):
        chain.reserve(Amount(usd=1))


def test_a_reservation_closes_once() -> None:
    reservation = Chain([Envelope("run")]).reserve(Amount(usd=1))
    reservation.settle(Amount(usd=1))
    with pytest.raises(ValueError, match="closed already"):
        reservation.release()


@pytest.mark.parametrize("actual", [0, 40, 100, 130])
def test_a_settling_that_was_not_kept_counts_in_full_as_the_ledger_will_say(actual: int) -> None:
    envelope = Envelope("run")
    reservation = Chain([envelope]).reserve(Amount(usd=100))
    reservation.settle(Amount(usd=actual))
    reservation.lost()
    assert envelope.spent.usd == max(100, actual)


def test_a_negative_amount_cannot_be_reserved() -> None:
    with pytest.raises(ValueError, match="negative"):
        Chain([Envelope("run")]).reserve(Amount(usd=-1))


def test_an_extension_lets_work_go_on_and_leaves_unlimited_units_unlimited() -> None:
    tree = family(run=Limit(usd=10))
    tree.chain("run").reserve(Amount(usd=10))
    assert tree.extend("run", Amount(usd=5, tokens=5))
    assert tree.chain("run").envelopes[0].limit == Limit(usd=15)
    tree.chain("run").reserve(Amount(usd=5, tokens=10_000))
    assert not tree.extend("agent:nobody", Amount(usd=5))
    assert not tree.extend("tenant:acme", Amount(usd=5), period="2026-01-02")
    assert tree.scopes() == ["tenant:acme", "workflow:desk", "run", "agent:triage"]
    assert [envelope.period for envelope in tree.of("tenant:acme")] == ["2026-01-01"]


def test_an_alert_comes_at_80_percent_spent_once_and_again_after_an_extension() -> None:
    chain = Chain([Envelope("run", Limit(usd=100, tokens=1000))])
    held = chain.reserve(Amount(usd=90))
    assert chain.alerts() == []  # reserved is not spent
    held.settle(Amount(usd=80))
    (alert,) = chain.alerts()
    assert (alert.scope, alert.unit, alert.spent, alert.limit) == ("run", "usd", 80, 100)
    assert chain.alerts() == []
    chain.envelopes[0].extend(Amount(usd=100))
    chain.reserve(Amount(usd=80)).settle(Amount(usd=80))
    assert [alert.spent for alert in chain.alerts()] == [160]


def test_a_tree_refuses_a_parent_that_is_not_there_and_a_second_place() -> None:
    tree = family()
    with pytest.raises(ValueError, match="no envelope 'run:x'"):
        tree.add(Envelope("agent:a"), "run:x")
    with pytest.raises(ValueError, match="another scope"):
        tree.add(Envelope("agent:triage"), "tenant:acme")


def test_a_scope_may_have_a_day_and_a_month() -> None:
    tree = EnvelopeTree()
    tree.add(Envelope("tenant:acme", Limit(usd=10), period="2026-01-01"))
    tree.add(Envelope("tenant:acme", Limit(usd=12), period="2026-01"))
    tree.add(Envelope("run"), "tenant:acme")
    tree.chain("run").reserve(Amount(usd=10))
    with pytest.raises(OverBudget, match="2026-01-01"):
        tree.chain("run").reserve(Amount(usd=1))
    tree.extend("tenant:acme", Amount(usd=5), period="2026-01-01")
    with pytest.raises(OverBudget, match=r"\(2026-01\)"):
        tree.chain("run").reserve(Amount(usd=5))
    tree.extend("tenant:acme", Amount(usd=5))  # no period: both
    tree.chain("run").reserve(Amount(usd=5))


def settled(key: str, **body: Any) -> Entry:
    return Entry(0, 0.0, "default", "r-1", kinds.SETTLED, key, 1, body)


def admitted(key: str, usd: int, tokens: int = 0) -> Entry:
    return Entry(0, 0.0, "default", "r-1", kinds.ADMITTED, key, 1, {"reserve": {"usd": usd, "tokens": tokens}})


def rebuilt(*entries: Entry) -> Amount:
    chain = Chain([Envelope("run", Limit(usd=10))])
    rebuild(entries, lambda _: chain)
    assert not chain.envelopes[0].reserved
    return chain.envelopes[0].spent


def test_an_admit_without_its_settle_is_charged_in_full() -> None:
    assert rebuilt(admitted("a", 50, 9)) == Amount(50, 9, 1)


def test_a_retry_after_a_lost_attempt_pays_for_both() -> None:
    entries = (admitted("a", 50), admitted("a", 50), settled("a", usd=20, tokens_in=3, tokens_out=4))
    assert rebuilt(*entries) == Amount(70, 7, 2)


def test_free_reads_count_as_calls_and_cached_or_refused_effects_do_not() -> None:
    entries = (
        settled("a"),
        settled("b", cached=True),
        settled("c", refused={"signal": "Denied"}),
        settled("d", denied=True),
    )
    assert rebuilt(*entries) == Amount(calls=1)


AGENTS = ("agent:a", "agent:b")
amounts = st.builds(Amount, st.integers(0, 40), st.integers(0, 40), st.integers(0, 2))
limits = st.builds(Limit, *[st.one_of(st.none(), st.integers(0, 120))] * 3)


class Budgets(RuleBasedStateMachine):
    """Any interleaving of reserves, settles and crashes, against sums kept beside."""

    held = Bundle("held")

    @initialize(tenant=limits, run=limits, first=limits, second=limits)
    def begin(self, tenant: Limit, run: Limit, first: Limit, second: Limit) -> None:
        self.limits = {"tenant:t": tenant, "run": run, "agent:a": first, "agent:b": second}
        self.log: list[Entry] = []
        self.spent = dict.fromkeys(self.limits, Amount())
        self.open: dict[str, tuple[str, Amount]] = {}
        self.count = 0
        self.tree = self.fresh()

    def fresh(self) -> EnvelopeTree:
        tree = EnvelopeTree()
        tree.add(Envelope("tenant:t", self.limits["tenant:t"]))
        tree.add(Envelope("run", self.limits["run"]), "tenant:t")
        for agent in AGENTS:
            tree.add(Envelope(agent, self.limits[agent]), "run")
        return tree

    def charged(self, agent: str, amount: Amount) -> None:
        for scope in (agent, "run", "tenant:t"):
            self.spent[scope] += amount

    def used(self, scope: str) -> Amount:
        pending = [amount for agent, amount in self.open.values() if scope in (agent, "run", "tenant:t")]
        return sum(pending, self.spent[scope])

    @rule(target=held, agent=st.sampled_from(AGENTS), usd=st.integers(0, 40), tokens=st.integers(0, 40))
    def reserve(self, agent: str, usd: int, tokens: int) -> Any:
        amount = Amount(usd, tokens, 1)
        fits = all(
            getattr(amount, unit) == 0
            or (limit := self.limits[scope].of(unit)) is None
            or getattr(self.used(scope), unit) + getattr(amount, unit) <= limit
            for scope in (agent, "run", "tenant:t")
            for unit in ("usd", "tokens", "calls")
        )
        try:
            reservation = self.tree.chain(agent).reserve(amount)
        except OverBudget as refused:
            assert not fits
            assert refused.scope in self.limits
            return multiple()
        assert fits
        key = f"k{self.count}"
        self.count += 1
        body = {"agent": agent, "reserve": {"usd": usd, "tokens": tokens}}
        self.log.append(Entry(len(self.log), 0.0, "l", "r", kinds.ADMITTED, key, 1, body))
        self.open[key] = (agent, amount)
        return (key, agent, reservation)

    @rule(one=consumes(held), usd=st.integers(0, 60), tokens=st.integers(0, 60))
    def settle(self, one: tuple[str, str, Reservation], usd: int, tokens: int) -> None:
        key, agent, reservation = one
        if key not in self.open:  # lost in a crash
            return
        _, asked = self.open.pop(key)
        over = reservation.settle(Amount(usd, tokens, 1))
        assert over == Amount(max(0, usd - asked.usd), max(0, tokens - asked.tokens))
        body = {"agent": agent, "usd": usd, "tokens_in": tokens}
        self.log.append(Entry(len(self.log), 0.0, "l", "r", kinds.SETTLED, key, 1, body))
        self.charged(agent, Amount(usd, tokens, 1))

    @rule(scope=st.sampled_from(("tenant:t", "run", *AGENTS)), more=amounts)
    def extend(self, scope: str, more: Amount) -> None:
        assert self.tree.extend(scope, more)
        self.limits[scope] = self.limits[scope].plus(more)

    @rule()
    def crash(self) -> None:
        self.tree = self.fresh()
        rebuild(self.log, lambda entry: self.tree.chain(entry.body["agent"]))
        for agent, amount in self.open.values():
            self.charged(agent, amount)
        self.open.clear()
        # What a next crash finds: the lost admits are charged once, not again.
        again = self.fresh()
        rebuild(self.log, lambda entry: again.chain(entry.body["agent"]))
        assert [e.spent for e in again.envelopes()] == [e.spent for e in self.tree.envelopes()]

    @invariant()
    def the_figures_are_those_of_the_events(self) -> None:
        for envelope in self.tree.envelopes():
            assert envelope.spent == self.spent[envelope.scope]
            assert envelope.spent + envelope.reserved == self.used(envelope.scope)


TestBudgets = Budgets.TestCase
