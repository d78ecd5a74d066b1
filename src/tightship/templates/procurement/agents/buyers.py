"""Three buyers at one board. Each buys its own range and knows some of the suppliers.

A supplier takes whole packs and has a least value for an order. What several buyers order there counts together, so a
buyer asks the others before it fills an order up; and it asks them for the terms of a supplier that it does not know.
"""

from __future__ import annotations

import math
from typing import Any

from tightship import AgentContext
from tightship.core.errors import DataMissing

Line = dict[str, Any]

TERMS: dict[str, dict[str, dict[str, float]]] = {
    "kitchen": {
        "Nordkap Supplies": {"pack": 4, "least": 400.0},
        "Clayworks Co-op": {"pack": 10, "least": 600.0},
    },
    "home": {
        "Plank & Peg": {"pack": 2, "least": 300.0},
        "Fleece Mill": {"pack": 5, "least": 500.0},
    },
    "outdoor": {
        "Tonewell Audio": {"pack": 5, "least": 250.0},
        "Canvas Yard": {"pack": 2, "least": 300.0},
    },
}
"""The terms that each buyer knows: what a pack holds, and the least value of an order."""
STANDS_IN = {"kitchen": "home", "home": "outdoor", "outdoor": "kitchen"}
"""Who takes a line that its own buyer may not order."""


async def kitchen(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """A turn of the buyer of what is used in a kitchen."""
    return turn("kitchen", input)


async def home(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """A turn of the buyer of furniture, textiles and paper."""
    return turn("home", input)


async def outdoor(ctx: AgentContext, input: dict[str, Any]) -> dict[str, Any]:
    """A turn of the buyer of outdoor goods and audio."""
    return turn("outdoor", input)


def turn(me: str, given: Line) -> Line:
    """What a buyer does with what it sees: claim, ask, answer, decide, hand a line on."""
    mail, peers = given["mail"], given["peers"]
    messages = [_reply(me, one, given) for one in given["inbox"] if one["kind"] == "ask"]
    results, release = list[Line](), list[str]()
    for key, line in ((one["key"], one["item"]) for one in given["mine"]):
        if me in line["barred"]:
            release.append(key)
            messages.append({"to": STANDS_IN[me], "kind": "tell", "about": key, "text": "I may not order there"})
            continue
        replies = {one["from"]: one["data"] for one in mail if one["kind"] == "reply" and one.get("about") == key}
        if all(peer in replies for peer in peers):
            others = [other for reply in replies.values() for other in reply["lines"]]
            known = [TERMS[me].get(line["supplier"]), *(reply["terms"] for reply in replies.values())]
            terms = next((one for one in known if one), None)
            results.append({"key": key, "value": bought(line, terms, [*_lines(me, line["supplier"], given), *others])})
        elif not any(one["kind"] == "ask" and one["from"] == me and one.get("about") == key for one in mail):
            asked = {"kind": "ask", "about": key, "data": {"supplier": line["supplier"]}}
            messages += [{"to": peer, **asked} for peer in peers]
    handed = {one["about"] for one in mail if one["kind"] == "tell" and one["from"] != me}
    claim = [one["key"] for one in given["open"] if one["key"] in handed or _takes(me, one["item"], mail, one["key"])]
    return {"claim": claim, "results": results, "release": release, "messages": messages}


def _takes(me: str, line: Line, mail: list[Line], key: str) -> bool:
    """Whether a line is of its own range and was not handed on by it."""
    handed = any(one["kind"] == "tell" and one["from"] == me and one["about"] == key for one in mail)
    return line["range"] == me and not handed


def _reply(me: str, asked: Line, given: Line) -> Line:
    """The terms, if it knows them, and what it orders there itself."""
    supplier = asked["data"]["supplier"]
    data = {"terms": TERMS[me].get(supplier), "lines": _lines(me, supplier, given)}
    return {"to": asked["from"], "kind": "reply", "re": asked["id"], "about": asked["about"], "data": data}


def _lines(me: str, supplier: str, given: Line) -> list[Line]:
    """What it orders from a supplier: lines of its own range, whether it has them already or not."""
    seen = [one["item"] for name in ("open", "mine", "done") for one in given[name]]
    return [one for one in seen if one["supplier"] == supplier and one["range"] == me]


def bought(line: Line, terms: Line | None, lines: list[Line]) -> Line:
    """How much of a line to order: whole packs; its supplier's least value is filled up on the first of the lines."""
    if terms is None:
        raise DataMissing(
            f"nobody knows the terms of {line['supplier']}",
            needed=f"the terms of {line['supplier']}",
            evidence={"sku": line["sku"], "supplier": line["supplier"]},
        )
    pack, quantities = int(terms["pack"]), {line["sku"]: 0}
    for one in [line, *lines]:
        quantities[one["sku"]] = pack * math.ceil((one["wanted"] + pack - one["position"]) / pack)
    prices = {one["sku"]: one["price"] for one in [line, *lines]}
    total = sum(quantities[sku] * prices[sku] for sku in quantities)
    quantity, reason = quantities[line["sku"]], f"{len(quantities)} lines at {line['supplier']}"
    if total < terms["least"] and line["sku"] == min(quantities):
        quantity += pack * math.ceil((terms["least"] - total) / (pack * line["price"]))
        reason = f"filled up to the least value of an order at {line['supplier']}"
    amount = round(quantity * line["price"], 2)
    return {"sku": line["sku"], "quantity": quantity, "supplier": line["supplier"], "amount": amount, "reason": reason}
