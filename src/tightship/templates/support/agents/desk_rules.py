"""The refund rules of the shop as code: from an order's record alone, the same answer for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tightship import RuleConflict

WINDOW_DAYS: Final = 30
LOOKUP_FROM: Final = 50.0
LOOKUP_TO: Final = 100.0
BAND_LIMITS: Final = {"A": 100.0, "B": 100.0, "C": 74.99, "D": 0.0}
"""The highest refund that a credit band releases without a person (KB-19)."""

Answer = Literal["due", "not_asked", "unpaid", "already", "forbidden", "too_late", "cancel_first", "after_arrival"]
Reason = Literal["returned", "damaged", "not_as_described", "lost", "cancelled", "goodwill"]
_EXPLAINED: Final = {"window-30-days": "KB-16", "gold-60-days": "KB-17", "damaged-on-arrival": "KB-15"}
"""The passages that say more about a policy."""
_MUST: Final[Mapping[str, Reason]] = {
    "damaged-on-arrival": "damaged",
    "lost-in-transit": "lost",
    "gold-60-days": "returned",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say about a refund.

    `rules` are the ids of the passages and policies that it follows from. Without a refund the amount is 0.
    """

    answer: Answer
    order_id: str = ""
    amount: float = 0.0
    currency: str = ""
    reason: str = ""
    rules: tuple[str, ...] = ()

    @property
    def due(self) -> bool:
        """Whether money is to be paid back."""
        return self.answer == "due"

    def as_dict(self) -> dict[str, Any]:
        """The decision as JSON."""
        return {**asdict(self), "rules": list(self.rules), "due": self.due}


NO_REFUND: Final = Decision("not_asked")


def decide(order: Mapping[str, Any], topic: str) -> Decision:
    """Whether an order is to be refunded, by the passages KB-10 to KB-18 and the order's own policies.

    Raises:
        RuleConflict: one policy forbids the refund and another demands it (KB-81).
    """
    if not _asked(order, topic):
        return NO_REFUND
    forbidding = [policy for policy in order["policies"] if policy["rule"] == "no_refund"]
    demanding = [policy for policy in order["policies"] if policy["rule"] == "must_refund"]
    if forbidding and demanding and order["refundable"] > 0:
        raise _conflict(order, forbidding, demanding)
    if order["refundable"] <= 0:
        return _nothing_left(order)
    match order["status"]:
        case "lost":
            return _due(order, "lost", "KB-14")
        case "returned":
            return _due(order, "returned", "KB-12")
        case "cancelled":
            return _due(order, "cancelled", "KB-13")
        case "paid":
            return _no(order, "cancel_first", "KB-26")
        case "shipped":
            return _no(order, "after_arrival", "KB-26")
        case _:
            return _delivered(order, forbidding, demanding)


def _delivered(order: Mapping[str, Any], forbidding: list[Any], demanding: list[Any]) -> Decision:
    if forbidding:
        return _no(order, "forbidden", *_names(forbidding))
    if demanding:
        return _due(order, _MUST.get(demanding[0]["id"], "goodwill"), *_names(demanding))
    if (order["days_since_delivery"] or 0) > WINDOW_DAYS:
        return _no(order, "too_late", "KB-16")
    return _due(order, "returned", "KB-10")


def _asked(order: Mapping[str, Any], topic: str) -> bool:
    """Whether the case is about money back: asked for, or owed unasked (lost, returned, damaged on arrival)."""
    if topic == "refund":
        return True
    if topic == "return":
        return order["status"] == "returned"
    if topic == "delivery_problem":
        return order["status"] == "lost" or any(policy["rule"] == "must_refund" for policy in order["policies"])
    return topic == "order_status" and order["status"] == "lost"


def _names(policies: list[Any]) -> list[str]:
    explained = [_EXPLAINED[policy["id"]] for policy in policies if policy["id"] in _EXPLAINED]
    return [*(f"POLICY-{policy['id']}" for policy in policies), *explained]


def _due(order: Mapping[str, Any], reason: Reason, *rules: str) -> Decision:
    return Decision("due", order["id"], float(order["refundable"]), order["currency"], reason, rules)


def _no(order: Mapping[str, Any], answer: Answer, *rules: str) -> Decision:
    return Decision(answer, order["id"], 0.0, order["currency"], "", rules)


def _nothing_left(order: Mapping[str, Any]) -> Decision:
    return _no(order, "already", "KB-18") if order["refunded"] > 0 else _no(order, "unpaid", "KB-13")


def _conflict(order: Mapping[str, Any], forbidding: list[Any], demanding: list[Any]) -> RuleConflict:
    return RuleConflict(
        f"two rules contradict each other on order {order['id']}: {forbidding[0]['id']} forbids a refund, "
        f"{demanding[0]['id']} demands it",
        needed="a decision which of the two rules holds here",
        options=[
            {"id": "refund", "label": f"refund {order['refundable']:.2f} {order['currency']} ({demanding[0]['id']})"},
            {"id": "refuse", "label": f"do not refund ({forbidding[0]['id']})"},
        ],
        evidence={"order": order["id"], "rules": [*forbidding, *demanding], "amount": order["refundable"]},
    )
