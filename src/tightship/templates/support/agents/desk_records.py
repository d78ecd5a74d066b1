"""The company's records as the desk reads them: one format of customer, and texts that replies can cite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tightship import FormatMismatch

Record = Mapping[str, Any]

_TIERS: Final = {"A": "gold", "B": "silver", "C": "standard"}
_STATUS: Final = {
    "placed": "It is placed and not paid yet, so it waits for the payment.",
    "paid": "It is paid and being packed; it is not shipped yet.",
    "shipped": "It was shipped and the carrier has it; it is on its way.",
    "delivered": "It was delivered.",
    "returned": "It was returned and the goods are back in the warehouse.",
    "cancelled": "It was cancelled.",
    "lost": "It was shipped and lost by the carrier.",
}


def read_customer(record: Record) -> dict[str, Any]:
    """A customer in the format that the desk works with, whichever of the two formats the record has.

    Raises:
        FormatMismatch: it is neither, or an old record that lacks what cannot be made up (name, e-mail address).
    """
    if record.get("schema") == "v2":
        return {
            "id": record["id"],
            "name": record["name"],
            "email": record["email"],
            "tier": record["tier"],
            "market": record["market"],
            "verified": bool(record["verified"]),
            "converted": False,
        }
    if record.get("schema") == "v1-legacy":
        return _convert(record)
    raise FormatMismatch(
        "the customer record has a format that the desk does not know", evidence={"schema": record.get("schema")}
    )


def _convert(record: Record) -> dict[str, Any]:
    last, comma, first = str(record.get("fullname", "")).partition(",")
    contact: Record = record.get("contact") or {}
    email = str(contact.get("mail", "")).strip().lower()
    number = str(record.get("cust_no", ""))
    missing = [
        name
        for name, found in (
            ("first name", comma and first.strip()),
            ("e-mail address", email),
            ("number", number.isdigit()),
        )
        if not found
    ]
    if missing or record.get("class") not in _TIERS:
        raise FormatMismatch(
            f"the customer's old record cannot be converted: it has no {' and no '.join(missing) or 'known class'}",
            needed="the customer's record in the present format",
            evidence={"customer": f"C-{number}", "fields": sorted(record)},
        )
    return {
        "id": f"C-{number}",
        "name": f"{first.strip().title()} {last.strip().title()}",
        "email": email,
        "tier": _TIERS[str(record["class"])],
        "market": str(record.get("region", ""))[:2].upper(),
        "verified": record.get("kyc") == "Y",
        "converted": True,
    }


def money(amount: float, currency: str) -> str:
    """`39.90 EUR`."""
    return f"{amount:.2f} {currency}"


def order_text(order: Record) -> str:
    """What an order's record says, in sentences."""
    currency = order["currency"]
    items = " and ".join(f"{item['quantity']} {item['name']}" for item in order["items"])
    lines = [
        f"Order {order['id']} contains {items}.",
        f"Order {order['id']}: {_STATUS[order['status']]}",
        f"The total of order {order['id']} is {money(order['total'], currency)}.",
        f"Of order {order['id']} {money(order['refunded'], currency)} was refunded already.",
        f"Of order {order['id']} {money(order['refundable'], currency)} can be refunded.",
    ]
    if order["status"] == "placed" or (
        order["status"] == "cancelled" and not order["refundable"] and not order["refunded"]
    ):
        lines.append(f"Nothing was charged for order {order['id']}.")
    if order["days_since_delivery"] is not None:
        lines.append(f"Order {order['id']} was delivered {days(order['days_since_delivery'])} ago.")
    if order["note"]:
        lines.append(f"Note on order {order['id']}: {order['note']}")
    return " ".join(lines)


def days(count: int) -> str:
    """`1 day`, `5 days`."""
    return "1 day" if count == 1 else f"{count} days"


def records_of(
    orders: Sequence[Record],
    refunds: Sequence[Record] = (),
    payments: Mapping[str, Sequence[Record]] | None = None,
    stock: Sequence[Record] = (),
) -> list[dict[str, str]]:
    """The records as sources: `ORDER-…`, `POLICY-…`, `REFUND-…`, `PAYMENTS-…` and `STOCK-…`, each with its text."""
    found = {f"ORDER-{order['id']}": order_text(order) for order in orders}
    for order in orders:
        found.update({f"POLICY-{policy['id']}": str(policy["text"]) for policy in order["policies"]})
    for refund in refunds:
        amount = money(refund["amount"], refund["currency"])
        found[f"REFUND-{refund['id']}"] = (
            f"A refund of {amount} for order {refund['order_id']} was made; its number is {refund['id']} "
            f"and its status is {refund['status']}."
        )
    for order_id, rows in (payments or {}).items():
        found[f"PAYMENTS-{order_id}"] = _payments_text(order_id, rows)
    for item in stock:
        found[f"STOCK-{item['sku']}"] = (
            f"Of the {item['name']} there are {item['on_hand']} in stock and {item['in_transit']} on the way to us."
        )
    return [{"id": key, "text": text} for key, text in found.items()]


def _payments_text(order_id: str, rows: Sequence[Record]) -> str:
    if not rows:
        return f"There is no payment for order {order_id}."
    noun = "payment" if len(rows) == 1 else "payments"
    listed = " and ".join(f"{money(row['amount'], row['currency'])} by {row['method']}" for row in rows)
    verb = "is" if len(rows) == 1 else "are"
    return f"For order {order_id} there {verb} {len(rows)} {noun}: {listed}."


def named_products(text: str, names: Mapping[str, str]) -> list[str]:
    """The SKUs whose product a text names, by the whole name or by its last word (`kettle`).

    Args:
        text: the customer's own words.
        names: name by SKU.
    """
    plain = text.casefold()
    whole = [sku for sku, name in names.items() if name.casefold() in plain]
    if whole:
        return whole
    return [sku for sku, name in names.items() if re.search(rf"\b{re.escape(_noun(name))}(?:s|es)?\b", plain)]


def _noun(name: str) -> str:
    words = [word for word in name.casefold().split() if not word.isdigit()]
    return "mug" if words[-1] == "set" else words[-1].removesuffix("s")
