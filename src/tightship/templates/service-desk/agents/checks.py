"""The checkers of the domains: each looks at what its domain's agent has made, and makes nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

_CUSTOMER: Final = re.compile(r"\bC-\d{4,}\b")
_ORDER: Final = re.compile(r"\bO-\d{4,}\b")
_DATE: Final = re.compile(r"\b(tomorrow|tonight|on (mon|tues|wednes|thurs|fri|satur|sun)day|by \d)", re.IGNORECASE)


def _checked(brief: Input, made: Input, *more: str) -> Output:
    """What holds for every domain: facts are kept, nobody else is named, no date is promised, there is an end."""
    said = [*made["facts"], made["answer"]]
    wrong = [f"the fact is lost: {fact}" for fact in brief["facts"] if fact not in made["facts"]]
    others = {name for text in said for name in _CUSTOMER.findall(text)} - {brief["customer_id"]}
    wrong += [f"it names another customer: {name}" for name in sorted(others)]
    wrong += [f"it promises a date: {text}" for text in said if _DATE.search(text)]
    if not made["answer"] and made.get("handoff") is None:
        wrong.append("it has neither an answer nor a handoff")
    wrong += more
    return {"approved": not wrong, "objections": wrong}


async def it(ctx: AgentContext, input: Input) -> Output:
    """An answer about log-ins and services."""
    return _checked(input["brief"], input["it"])


async def orders(ctx: AgentContext, input: Input) -> Output:
    """An answer about orders: those that it speaks of are this customer's, which the checker looks up itself."""
    brief, made = input["brief"], input["orders"]
    said = " ".join([*made["facts"], made["answer"], made["note"]])
    wrong = list[str]()
    for order_id in dict.fromkeys(_ORDER.findall(said)):
        if (await ctx.tool("orders.get", {"order_id": order_id}))["customer_id"] != brief["customer_id"]:
            wrong.append(f"it speaks of an order of somebody else: {order_id}")
    return _checked(brief, made, *wrong)


async def billing(ctx: AgentContext, input: Input) -> Output:
    """An answer about money: a refund is named with its amount, and its order is one that the ticket is about."""
    made = input["billing"]
    refund = made["refund"]
    if not refund["due"]:
        return _checked(input["brief"], made)
    amount = f"{refund['amount']:.2f}"
    told = any(amount in fact and refund["order_id"] in fact for fact in made["facts"])
    asked = any(refund["order_id"] in text for text in (*input["brief"]["orders"], *input["brief"]["open_questions"]))
    wrong = [] if told else [f"it does not say that {amount} is refunded"]
    wrong += [] if asked else [f"nobody has asked about {refund['order_id']}"]
    return _checked(input["brief"], made, *wrong)
