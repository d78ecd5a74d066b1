"""What is short, and whether it still is."""

from __future__ import annotations

from typing import Any

from tightship import AgentContext
from tightship.core.errors import DataMissing

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
    """How much of a line is to be ordered now: nothing if it is not short any more."""
    line = input["line"]
    item, bought = line["item"], line["value"]
    stock: dict[str, Any] = (await ctx.read(f"stock/{item['sku']}")).value
    short = stock["on_hand"] + stock["in_transit"] < item["wanted"]
    quantity = bought["quantity"] if short else 0
    return {"sku": item["sku"], "quantity": quantity, "amount": round(quantity * stock["unit_price"], 2)}
