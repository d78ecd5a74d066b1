"""The agents of the desk: a free read beside a paid one, and a voter."""

from __future__ import annotations

from tightship import AgentContext


async def assess(ctx: AgentContext, input: dict[str, str]) -> dict[str, str]:
    """The order's status and the customer's band."""
    order = await ctx.tool("orders.get", {"order_id": input["order"]})
    credit = await ctx.tool("lookups.credit", {"customer_id": input["customer"]})
    return {"status": order["status"], "band": credit["band"]}


async def opinion(ctx: AgentContext, input: dict[str, str]) -> dict[str, str | bool]:
    """Whether there is anything to refund."""
    order = await ctx.tool("orders.get", {"order_id": input["order"]})
    return {"ok": order["refundable"] > 0, "reason": f"{order['refundable']:.2f} can be refunded"}
