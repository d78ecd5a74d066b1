"""Stock items and orders to their suppliers."""

from __future__ import annotations

import random

from tightship.company._call import (
    Answer,
    Call,
    Json,
    Refusal,
    etag,
    from_cents,
    require_match,
    to_time,
)
from tightship.company._database import Database, Row

_PURCHASE_FIELDS = ("id", "sku", "quantity", "status", "client_ref")
_STOCK_FIELDS = ("sku", "name", "on_hand", "in_transit", "reorder_point", "supplier", "version")


def _purchase_view(row: Row) -> Json:
    return {
        **{name: row[name] for name in _PURCHASE_FIELDS},
        "expected_at": to_time(row["expected_at"]),
        "created_at": to_time(row["created_at"]),
    }


class Purchasing:
    """Operations `stock.*` and `purchasing.*`.

    Parameters: `rng` draws the days that a supplier promises, the one thing here that is left to chance.
    """

    def __init__(self, db: Database, rng: random.Random) -> None:
        self._db = db
        self._rng = rng

    def _stock_row(self, sku: str) -> Row:
        return self._db.row("stock", "stock item", sku)

    def _stock_view(self, row: Row) -> Json:
        return {
            **{name: row[name] for name in _STOCK_FIELDS},
            "unit_price": from_cents(row["unit_price"]),
            "as_of": to_time(self._db.clock()),
        }

    def stock_list(self, call: Call) -> Answer:
        """Stock items, if asked only those that lie below (or not below) their reorder point."""
        filters = {"(on_hand + in_transit < reorder_point)": call.params.get("below_reorder_point")}
        return self._db.listing("stock", filters, call, self._stock_view)

    def stock_get(self, call: Call) -> Answer:
        """One stock item. Raises: Refusal 404."""
        row = self._stock_row(call.text("sku"))
        return Answer(self._stock_view(row), etag=etag(row["version"]))

    def stock_update(self, call: Call) -> Answer:
        """Correct the figures of a stock item. Raises: Refusal 404, 412, 428."""
        row = self._stock_row(call.text("sku"))
        require_match(call.if_match, row["version"])
        version = row["version"] + 1
        self._db.update("stock", row["sku"], {**call.body, "version": version})
        view = self._stock_view(self._stock_row(row["sku"]))
        return Answer(view, etag=etag(version), result_id=f"{row['sku']}@v{version}")

    def _move(self, sku: str, in_transit: int, on_hand: int) -> None:
        self._db.run(
            "UPDATE stock SET in_transit = in_transit + ?, on_hand = on_hand + ?, version = version + 1 WHERE sku = ?",
            in_transit,
            on_hand,
            sku,
        )

    def _purchase_row(self, purchase_order_id: str) -> Row:
        return self._db.row("purchase_orders", "purchase order", purchase_order_id)

    def list(self, call: Call) -> Answer:
        """Purchase orders by stock item, status and client_ref."""
        return self._db.listing("purchase_orders", call.given("sku", "status", "client_ref"), call, _purchase_view)

    def get(self, call: Call) -> Answer:
        """One purchase order. Raises: Refusal 404."""
        return Answer(_purchase_view(self._purchase_row(call.text("purchase_order_id"))))

    def create(self, call: Call) -> Answer:
        """Order goods; they count as in transit at once. Raises: Refusal 404."""
        sku = self._stock_row(call.body["sku"])["sku"]
        now = self._db.clock()
        expected = now + 86400 * self._rng.randint(2, 9)
        purchase_id = self.add(sku, call.body["quantity"], now, expected, call.body.get("client_ref"))
        self._move(sku, call.body["quantity"], 0)
        return Answer(_purchase_view(self._purchase_row(purchase_id)), status=201, result_id=purchase_id)

    def add(self, sku: str, quantity: int, at: float, expected_at: float, client_ref: str | None) -> str:
        """Insert a purchase order; its id counts within its stock item."""
        count = self._db.scalar("SELECT count(*) FROM purchase_orders WHERE sku = ?", sku)
        purchase_id = f"PO-{sku.removeprefix('SKU-')}-{count + 1}"
        self._db.insert(
            "purchase_orders",
            {
                "id": purchase_id,
                "sku": sku,
                "quantity": quantity,
                "status": "ordered",
                "expected_at": expected_at,
                "client_ref": client_ref,
                "created_at": at,
            },
        )
        return purchase_id

    def _finish(self, call: Call, status: str) -> Answer:
        row = self._purchase_row(call.text("purchase_order_id"))
        if row["status"] != "ordered":
            detail = f"Purchase order {row['id']} is already {row['status']}."
            raise Refusal(409, "purchase_order_not_open", detail)
        self._db.update("purchase_orders", row["id"], {"status": status})
        self._move(row["sku"], -row["quantity"], row["quantity"] if status == "received" else 0)
        return Answer(_purchase_view(self._purchase_row(row["id"])), result_id=row["id"])

    def cancel(self, call: Call) -> Answer:
        """Cancel a purchase order that has not arrived. Raises: Refusal 404, 409."""
        return self._finish(call, "cancelled")

    def receive(self, call: Call) -> Answer:
        """Take the goods into stock. Raises: Refusal 404, 409."""
        return self._finish(call, "received")
