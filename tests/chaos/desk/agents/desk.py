"""The agents of the desk: a free read beside a paid one, a voter, and a peer."""

from __future__ import annotations

from typing import Any

from tightship import AgentContext, Unavailable


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


async def errands(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """Look and ask, then settle; what could not be asked is looked at once more."""
    if input["failed"]:
        return {"tasks": [_task("again", "look"), _task("money", "settle", "again", "first")]}
    return {"tasks": [_task("first", "look"), _task("archive", "ask"), _task("money-1", "settle", "archive")]}


def _task(id: str, worker: str, *needs: str) -> dict[str, Any]:
    return {"id": id, "worker": worker, "goal": f"{worker} for {id}", "needs": list(needs), "input": {"at": id}}


async def closed(ctx: AgentContext, input: dict[str, Any]) -> dict[str, str]:
    """It never answers."""
    raise Unavailable("the archive is closed")
