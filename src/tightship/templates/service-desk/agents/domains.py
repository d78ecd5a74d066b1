"""The domains: each answers its own questions from the records, adds what it found, and hands on what is not its own.

What a brief says is another agent's word: orders are read again, and those of another customer are not spoken of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tightship import OutOfScope

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

LOOKUP_FROM: Final = 50.0
"""From this refund on the paid look-up is made (in the order's currency)."""
_SERVICES: Final = ("app", "website", "checkout")


@dataclass(slots=True)
class Found:
    """What a domain has found: facts in words for the customer, and questions that are not its own."""

    facts: list[str] = field(default_factory=list[str])
    questions: list[str] = field(default_factory=list[str])


def _mine(brief: Input, domain: str) -> list[str]:
    return [one.partition(":")[2].strip() for one in brief["open_questions"] if one.startswith(f"{domain}:")]


def _ended(input: Input, domain: str, found: Found) -> Output:
    """An answer where nothing is left to be asked, else a handoff with all that is known."""
    brief = input["brief"]
    facts = list(dict.fromkeys([*brief["facts"], *found.facts]))
    left = [one for one in brief["open_questions"] if not one.startswith(f"{domain}:")] + found.questions
    if not left:
        return {"answer": " ".join(facts), "handoff": None, "facts": facts}
    to = left[0].partition(":")[0]
    passed = {**brief, "facts": facts, "open_questions": left}
    return {"answer": "", "handoff": {"to": to, "brief": passed}, "facts": facts}


async def _own_order(ctx: AgentContext, brief: Input, order_id: str) -> Input:
    """An order of this customer.

    Raises:
        OutOfScope: it is somebody else's. DataMissing: there is no such order.
    """
    order = await ctx.tool("orders.get", {"order_id": order_id})
    if order["customer_id"] != brief["customer_id"]:
        raise OutOfScope(f"order {order_id} belongs to another account", needed="somebody to find out who is writing")
    return order


def money(amount: float, currency: str) -> str:
    """`39.90 USD`."""
    return f"{amount:.2f} {currency}"


# --- it ---------------------------------------------------------------------------------------------


async def it(ctx: AgentContext, input: Input) -> Output:
    """Log-ins and services. A hacked account is for the security team, whoever else is offered."""
    brief, found = input["brief"], Found()
    for question in _mine(brief, "it"):
        plain = question.casefold()
        if "hacked" in plain or "phishing" in plain:
            found.questions.insert(0, f"security: {question}")
            continue
        service = next((one for one in _SERVICES if one in plain), None)
        if service is not None:
            stands = await ctx.tool("monitor.status", {"service": service})
            found.facts.append(f"The {service} is {'up' if stands['up'] else 'down'}.")
        else:
            customer = await ctx.tool("customers.get", {"customer_id": brief["customer_id"]})
            state = "is active" if customer.get("verified") else "waits to be verified: please confirm your address"
            found.facts.append(f"Your account {state}; a new password can be set on the log-in page.")
    made = _ended(input, "it", found)
    if found.questions:  # not to whoever has the next question: first of all it has to be safe
        made["handoff"]["to"] = "security"
    return made


# --- orders -----------------------------------------------------------------------------------------

_STATES: Final = {
    "paid": "is paid and is being packed",
    "shipped": "was sent and is on its way",
    "delivered": "was delivered",
    "returned": "came back to us",
    "placed": "is placed, and waits for its payment",
    "lost": "was lost by the carrier",
    "cancelled": "was cancelled",
}
_ASKS: Final = {
    "placed": "was {} paid?",
    "lost": "refund {}, which was lost",
    "cancelled": "is money of {} still with us?",
}


async def orders(ctx: AgentContext, input: Input) -> Output:
    """Where orders stand, and what is in stock."""
    brief, found = input["brief"], Found()
    note = ""
    for question in _mine(brief, "orders"):
        if "in stock" in question.casefold():
            found.facts += await _stock(ctx, question)
            continue
        for order_id in _named(question, brief) or await _open(ctx, brief):
            order = await _own_order(ctx, brief, order_id)
            found.facts.append(f"Order {order_id} {_STATES[order['status']]}.")
            if order["status"] in _ASKS:
                found.questions.append(f"billing: {_ASKS[order['status']].format(order_id)}")
            if order["status"] == "lost":
                note = f"Please search for the parcel of order {order_id}: the carrier has lost it."
    return {**_ended(input, "orders", found), "note": note}


def _named(question: str, brief: Input) -> list[str]:
    """The orders that a question names, else those of the ticket."""
    return re.findall(r"\bO-\d{4,}\b", question) or list(brief["orders"])


async def _open(ctx: AgentContext, brief: Input) -> list[str]:
    listed = await ctx.tool("orders.list", {"customer_id": brief["customer_id"], "limit": 50})
    return [one["id"] for one in listed["items"] if one["status"] in ("paid", "shipped", "lost")]


async def _stock(ctx: AgentContext, question: str) -> list[str]:
    items = (await ctx.tool("stock.list", {"limit": 200}))["items"]
    named = [one for one in items if one["name"].casefold() in question.casefold()]
    return [f"Of the {one['name']} there are {one['on_hand']} in stock." for one in named] or [
        "We could not tell which product you mean."
    ]


# --- billing ----------------------------------------------------------------------------------------


async def billing(ctx: AgentContext, input: Input) -> Output:
    """What was charged, and what is owed: amounts come from the records alone."""
    brief, found = input["brief"], Found()
    refund: Output = {"due": False, "order_id": "", "amount": 0.0, "reason": "goodwill"}
    named = dict.fromkeys(order for question in _mine(brief, "billing") for order in _named(question, brief))
    for order_id in named:
        order = await _own_order(ctx, brief, order_id)
        payments = (await ctx.tool("payments.list", {"order_id": order_id}))["items"]
        if order["status"] in ("cancelled", "lost") and order["refundable"] > 0:
            await _look_up(ctx, order)
            refund = _refund(order)
            found.facts.append(f"We refund {money(order['refundable'], order['currency'])} for order {order_id}.")
        elif order["status"] == "placed" and not payments:
            found.questions.append(f"orders: why is {order_id} open without a payment?")
        else:
            found.facts.append(_charged(order, payments))
    if not named:
        found.facts.append("Please tell us the number of the order, so that we can look at its payments.")
    return {**_ended(input, "billing", found), "refund": refund}


def _refund(order: Input) -> Output:
    return {"due": True, "order_id": order["id"], "amount": order["refundable"], "reason": order["status"]}


def _charged(order: Input, payments: Sequence[Input]) -> str:
    if not payments:
        return f"Nothing was charged for order {order['id']}."
    times = "once" if len(payments) == 1 else f"{len(payments)} times"
    total = sum(one["amount"] for one in payments)
    said = f"Order {order['id']} was charged {times}: {money(total, order['currency'])}."
    back = order["refunded"]
    return f"{said} Of it {money(back, order['currency'])} went back to you." if back else said


async def _look_up(ctx: AgentContext, order: Input) -> None:
    """Raises: OutOfScope where the customer's standing leaves a refund to a person."""
    if order["refundable"] < LOOKUP_FROM:
        return
    credit = await ctx.tool("lookups.credit", {"customer_id": order["customer_id"]})
    if credit["band"] == "D":
        raise OutOfScope(f"a refund of {order['refundable']:.2f} to an account in band D", needed="a decision on it")
