"""The figures of envelopes as the ledger has them: what a run's recorded effects have cost, or may have cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tightship.controls.budgets import Amount, Chain
from tightship.core import kinds
from tightship.core.ports import EntryView


def rebuild(entries: Iterable[EntryView], chain_of: Callable[[EntryView], Chain]) -> None:
    """Charge a run's recorded effects to fresh envelopes, so that it goes on with the figures it had.

    A settled effect is charged what it cost. An admit without its settle is charged in full, since the call may have
    been made and paid: also when a retry under the same key was admitted later, which reserved anew.

    Args:
        entries: the run's entries in ledger order; kinds other than admits and settles are passed over.
        chain_of: the chain that an entry's effect was paid from (by its agent and key).
    """
    admitted: dict[str, tuple[Chain, Amount]] = {}
    for entry in entries:
        if entry.kind == kinds.ADMITTED:
            lost = admitted.pop(entry.key, None)
            if lost is not None:
                lost[0].charge(lost[1])
            admitted[entry.key] = (chain_of(entry), reserved_by(entry))
        elif entry.kind == kinds.SETTLED:
            admitted.pop(entry.key, None)
            chain_of(entry).charge(spent_by(entry))
    for chain, amount in admitted.values():
        chain.charge(amount)


def reserved_by(entry: EntryView) -> Amount:
    """What an `effect.admitted` entry has set aside; one call, and its `reserve`."""
    return one_call(entry.body.get("reserve") or {})


def one_call(reserve: Mapping[str, int]) -> Amount:
    """A reserve as an admit or a settle says it, with the call that it is for."""
    return Amount(int(reserve.get("usd", 0)), int(reserve.get("tokens", 0)), 1)


def spent_by(entry: EntryView) -> Amount:
    """What an `effect.settled` entry has cost; what was refused or answered from cache made no call."""
    body = entry.body
    tokens = int(body.get("tokens_in") or 0) + int(body.get("tokens_out") or 0)
    return Amount(int(body.get("usd") or 0), tokens, int(kinds.went_out(body)))
