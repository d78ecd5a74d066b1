"""What is short, and whether it still is."""

from __future__ import annotations

import json
import math
from typing import Any

from tightship import AgentContext
from tightship.core.errors import DataMissing, RuleConflict

RANGES = {
    "kitchen": {"SKU-501", "SKU-503", "SKU-508", "SKU-511", "SKU-514"},
    "home": {"SKU-502", "SKU-504", "SKU-507", "SKU-509", "SKU-510", "SKU-515", "SKU-517"},
    "outdoor": {"SKU-505", "SKU-506", "SKU-512", "SKU-513", "SKU-518"},
}
"""Who buys what."""


async def shortages(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """The lines that are short: goods on hand and in transit lie below the reorder point and what will be sold."""
    lines = dict[str, dict[str, Any]]()
    for item in input["items"]:
        sku = str(item.get("sku", ""))
        if not sku:
            raise DataMissing("a line names no item", needed="the item's number", evidence={"line": item})
        stock: dict[str, Any] = (await ctx.read(f"stock/{sku}")).value
        position = stock["on_hand"] + stock["in_transit"]
        wanted = stock["reorder_point"] + int(item.get("need", 0))
        if position < wanted and sku not in lines:
            lines[sku] = {
                "sku": sku,
                "name": stock["name"],
                "supplier": stock["supplier"],
                "range": next((name for name, skus in RANGES.items() if sku in skus), ""),
                "price": stock["unit_price"],
                "position": position,
                "wanted": wanted,
                "barred": [str(name) for name in item.get("barred", [])],
            }
    return {"lines": list(lines.values())}


async def recheck(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """How much of a line is to be ordered now: nothing if it is not short any more.

    It believes nothing that it can look up: what is short comes from the round and the stock, packs and least value
    from the supplier's contract.

    Raises:
        RuleConflict: what the buyer wants is not what these allow.
    """
    line = input["line"]
    item, bought = line["item"], line["value"]
    needs = [int(one.get("need", 0)) for one in input["items"] if one.get("sku") == item["sku"]]
    stock: dict[str, Any] = (await ctx.read(f"stock/{item['sku']}")).value
    if not needs:
        raise RuleConflict(f"nobody has asked for {item['sku']} in this round", needed="who wants it")
    short = stock["reorder_point"] + needs[0] - stock["on_hand"] - stock["in_transit"]
    if short <= 0:
        return {"sku": item["sku"], "quantity": 0, "amount": 0.0}
    contracts = json.loads((ctx.knowledge("contracts") / "terms.json").read_text("utf-8"))
    terms = contracts.get(stock["supplier"])
    if terms is None:
        raise DataMissing(f"there is no contract with {stock['supplier']}", needed="its packs, and its least value")
    left = max(0.0, terms["least"] - await beside(ctx, input, item["sku"], stock["supplier"]))
    most, quantity = allowed(short, int(terms["pack"]), left, stock["unit_price"]), bought["quantity"]
    if bought["sku"] != item["sku"] or not short <= quantity <= most or quantity % int(terms["pack"]):
        raise RuleConflict(
            f"{quantity} of {item['sku']} is not what is short and what {stock['supplier']} delivers",
            needed=f"whether so many are wanted: {short} are short, {most} in packs of {terms['pack']} is the most",
            evidence={"bought": bought, "short": short, "most": most, "pack": terms["pack"]},
        )
    return {"sku": item["sku"], "quantity": quantity, "amount": round(quantity * stock["unit_price"], 2)}


async def beside(ctx: AgentContext, input: dict[str, Any], sku: str, supplier: str) -> float:
    """The value of what else is ordered from a supplier in this round: it counts towards the supplier's least value."""
    value = 0.0
    for one in input["bought"]["results"]:
        if one["item"]["sku"] != sku:
            stock: dict[str, Any] = (await ctx.read(f"stock/{one['item']['sku']}")).value
            value += one["value"]["quantity"] * stock["unit_price"] if stock["supplier"] == supplier else 0.0
    return value


def allowed(short: int, pack: int, least: float, price: float) -> int:
    """The most that may be ordered: a pack more than is short, or what reaches what is left of the least value."""
    return pack * max(math.ceil((short + pack) / pack), math.ceil(least / (pack * price)))
