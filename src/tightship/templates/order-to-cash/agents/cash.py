"""The agents of order-to-cash. They read records and reckon; what changes anything is an action of the workflow."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tightship import DataMissing, RuleConflict

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]


async def goods(ctx: AgentContext, input: Input) -> Output:
    """What of the order is in stock now, what has to follow, and the price of what is sent.

    Raises:
        DataMissing: there is no such order, or nothing of it is in stock. RuleConflict: it is another customer's.
    """
    order = await ctx.tool("orders.get", {"order_id": input["order_id"]})
    if order["customer_id"] != input["customer_id"]:
        raise RuleConflict(
            "the order was placed by another customer than the request says",
            needed="whose order it is",
            evidence={"order": order["customer_id"], "request": input["customer_id"]},
        )
    now: list[Output] = []
    later: list[Output] = []
    amount = Decimal(0)
    for item in order["items"]:
        stock = await ctx.tool("stock.get", {"sku": item["sku"]})
        there = min(item["quantity"], stock["on_hand"])
        if there:
            now.append({"sku": item["sku"], "quantity": there})
            amount += there * Decimal(str(item["unit_price"]))
        if there < item["quantity"]:
            later.append({"sku": item["sku"], "quantity": item["quantity"] - there})
    if not now:
        raise DataMissing(
            "nothing of the order is in stock",
            needed="whether the customer waits, or the order is cancelled",
            evidence={"order": order["id"], "lacks": later},
        )
    return {"now": now, "later": later, "amount": float(amount), "currency": order["currency"]}


async def credit(ctx: AgentContext, input: Input) -> Output:
    """The customer's band and credit limit."""
    found = await ctx.tool("lookups.credit", {"customer_id": input["customer_id"]})
    return {"band": found["band"], "limit": float(found["limit"])}
