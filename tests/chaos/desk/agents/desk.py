"""The one agent of the desk: a free read beside a paid one."""

from __future__ import annotations

from tightship import AgentContext


async def assess(ctx: AgentContext, input: dict[str, str]) -> dict[str, str]:
    """The order's status and the customer's band."""
    order = await ctx.tool("orders.get", {"order_id": input["order"]})
    credit = await ctx.tool("lookups.credit", {"customer_id": input["customer"]})
    return {"status": order["status"], "band": credit["band"]}
