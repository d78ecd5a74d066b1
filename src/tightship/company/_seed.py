"""Fills a new database from seed.json; times there are days before the moment of seeding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson

from tightship.company._call import Json, from_cents, to_cents
from tightship.company._customers import CURRENCIES

if TYPE_CHECKING:
    from tightship.company._company import Company
    from tightship.company._database import Database

_DAY = 86400.0
_CUSTOMER_COLUMNS = ("id", "name", "email", "phone", "tier", "market", "verified")


@cache
def seed_data() -> Json:
    """The practice records as written in seed.json."""
    return orjson.loads(resources.files("tightship.company").joinpath("seed.json").read_bytes())


def seed(company: Company, db: Database) -> None:
    """Write all practice records; runs in one transaction, so a killed start leaves none or all."""
    data = seed_data()
    # A whole minute, so that the day of an order reads well; the rest of the clock does not matter here.
    now = db.clock() // 60 * 60
    with db.transaction():
        for row in data["stock"]:
            db.insert("stock", {**row, "unit_price": to_cents(row["unit_price"])})
            if row["in_transit"]:
                company.purchasing.add(row["sku"], row["in_transit"], now - 3 * _DAY, now + 4 * _DAY, None)
        for row in data["customers"]:
            _customer(db, row)
        goods = {row["sku"]: row for row in data["stock"]}
        markets = {row["id"]: row["market"] for row in data["customers"]}
        for row in data["orders"]:
            _order(company, db, row, goods, CURRENCIES[markets[row["customer_id"]]], now)
        for row in data["refunds"]:
            at = now - row["created"] * _DAY
            company.refunds.add(row["order_id"], to_cents(row["amount"]), row["reason"], row["status"], at, {})
        for row in data["tickets"]:
            company.helpdesk.add(row, now - _DAY)
        company.desk.seed(data)


def _customer(db: Database, row: Json) -> None:
    values = {name: row.get(name) for name in _CUSTOMER_COLUMNS}
    legacy = row.get("legacy")
    values["address"] = orjson.dumps(row["address"]).decode()
    values["legacy"] = None if legacy is None else orjson.dumps(legacy).decode()
    db.insert("customers", values)


def _order(company: Company, db: Database, row: Json, goods: Mapping[str, Any], currency: str, now: float) -> None:
    cents = {sku: to_cents(goods[sku]["unit_price"]) for sku, _ in row["items"]}
    items = [
        {"sku": sku, "name": goods[sku]["name"], "quantity": count, "unit_price": from_cents(cents[sku])}
        for sku, count in row["items"]
    ]
    total = sum(cents[sku] * count for sku, count in row["items"])
    placed = now - row["placed"] * _DAY
    db.insert(
        "orders",
        {
            **{name: row.get(name) for name in ("id", "customer_id", "status", "note")},
            "items": orjson.dumps(items).decode(),
            "total": total,
            "currency": currency,
            "placed_at": placed,
            "delivered_at": None if "delivered" not in row else now - row["delivered"] * _DAY,
            "policies": orjson.dumps(row.get("policies", [])).decode(),
        },
    )
    if row["status"] != "placed" and row.get("paid", True):
        company.orders.capture(row["id"], total, placed)
