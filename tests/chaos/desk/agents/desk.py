"""The agents of the desk: a free read beside a paid one, a voter, and a peer."""

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


async def share(ctx: AgentContext, input: dict[str, list[dict[str, str]]]) -> dict[str, list[object]]:
    """A peer that does the part of its own name: whichever its peers have not."""
    mine = [part["key"] for part in input["mine"]]
    return {
        "claim": [part["key"] for part in input["open"] if part["key"] not in input["peers"]],
        "results": [{"key": key, "value": key} for key in mine],
    }
