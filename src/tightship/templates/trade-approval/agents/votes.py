"""The four voters of the trading desk. Each reads its own records, and says yes or no with the figures behind it.

They need no language model: the rules are written down, and what a voter cannot know it does not guess. It raises, and
is absent from the vote.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tightship import DataMissing

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

STALE_MINUTES: Final = 60
"""A price that is older says nothing about the market."""
TOLERANCE: Final = 0.02
"""By what share of the market's price a request may differ from it."""


async def limits(ctx: AgentContext, input: Input) -> Output:
    """Whether the trade keeps within the trader's limit and the position's."""
    trader = await ctx.tool("desk.trader", {"trader_id": input["trader_id"]})
    position = await ctx.tool("desk.position", {"instrument_id": input["instrument_id"]})
    amount = cents(input) / 100
    if amount > trader["trade_limit"]:
        return no(f"{amount:.2f} is more than the {trader['trade_limit']:.2f} that {trader['id']} may trade at once")
    after = position["quantity"] + (input["quantity"] if input["side"] == "buy" else -input["quantity"])
    if abs(after) > position["limit"]:
        return no(f"the position would be {after}, and {position['limit']} may be held")
    return yes(f"{amount:.2f} is within the trader's limit, and the position would be {after} of {position['limit']}")


async def credit(ctx: AgentContext, input: Input) -> Output:
    """Whether the counterparty's credit line covers the trade; no opinion where a clearing house stands in."""
    found = await ctx.tool("desk.counterparty", {"counterparty_id": input["counterparty_id"]})
    if found["status"] == "cleared":
        return {"approve": None, "reason": f"{found['name']} is cleared: no credit is given"}
    if found["status"] != "active":
        return no(f"{found['name']} is {found['status']}")
    left = round(found["credit_line"] * 100) - round(found["used"] * 100)
    if cents(input) > left:
        return no(f"{found['name']} has {left / 100:.2f} of its credit line left")
    return yes(f"{found['name']} has {left / 100:.2f} of its credit line left")


async def market(ctx: AgentContext, input: Input) -> Output:
    """Whether the requested price lies close to the market's.

    Raises:
        DataMissing: the price is too old to say anything.
    """
    found = await ctx.tool("desk.instrument", {"instrument_id": input["instrument_id"]})
    age = datetime.fromisoformat(found["as_of"]) - datetime.fromisoformat(found["priced_at"])
    minutes = int(age.total_seconds() // 60)
    if minutes > STALE_MINUTES:
        raise DataMissing(
            f"the price of {found['name']} is {minutes} minutes old", needed="a fresh price", evidence={"price": found}
        )
    off = abs(input["price"] - found["price"]) / found["price"]
    said = f"{input['price']:.2f} is {off:.1%} off the market's {found['price']:.2f}"
    return yes(said) if off <= TOLERANCE else no(said)


async def compliance(ctx: AgentContext, input: Input) -> Output:
    """Whether the instrument may be traded, and by this trader."""
    found = await ctx.tool("desk.instrument", {"instrument_id": input["instrument_id"]})
    trader = await ctx.tool("desk.trader", {"trader_id": input["trader_id"]})
    if found["restricted"]:
        return no(f"{found['name']} is on the restricted list")
    if found["issuer"] in trader["interests"]:
        return no(f"{trader['id']} has declared an interest in {found['issuer']}")
    return yes(f"{found['name']} is not restricted, and {trader['id']} has no interest in {found['issuer']}")


def cents(input: Input) -> int:
    """What the trade is worth, in hundredths."""
    return round(input["price"] * 100) * input["quantity"]


def yes(reason: str) -> Output:
    """For it."""
    return {"approve": True, "reason": reason}


def no(reason: str) -> Output:
    """Against it."""
    return {"approve": False, "reason": reason}
