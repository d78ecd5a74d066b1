"""Orders, payments and refunds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tightship.company._call import (
    Answer,
    Call,
    Json,
    Refusal,
    etag,
    from_cents,
    require_match,
    to_cents,
    to_time,
)
from tightship.company._database import Database, Row

_NEXT_STATUS = {
    "placed": {"paid", "cancelled"},
    "paid": {"shipped", "cancelled"},
    "shipped": {"delivered", "lost"},
    "delivered": {"returned"},
}


class Orders:
    """Operations `orders.*` and `payments.*`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def row(self, order_id: str) -> Row:
        """The order's row with `paid` and `refunded`. Raises: Refusal 404."""
        return self._db.row("orders_view", "order", order_id)

    def _view(self, row: Row) -> Json:
        delivered = row["delivered_at"]
        days = None if delivered is None else max(0, int((self._db.clock() - delivered) // 86400))
        return {
            **{name: row[name] for name in ("id", "customer_id", "status")},
            "items": orjson.loads(row["items"]),
            "total": from_cents(row["total"]),
            "currency": row["currency"],
            "placed_at": to_time(row["placed_at"]),
            "delivered_at": None if delivered is None else to_time(delivered),
            "days_since_delivery": days,
            "refunded": from_cents(row["refunded"]),
            "refundable": from_cents(row["paid"] - row["refunded"]),
            "policies": orjson.loads(row["policies"]),
            "note": row["note"],
            "version": row["version"],
        }

    def list(self, call: Call) -> Answer:
        """Orders by customer and status."""
        return self._db.listing("orders_view", call.given("customer_id", "status"), call, self._view)

    def get(self, call: Call) -> Answer:
        """One order. Raises: Refusal 404."""
        row = self.row(call.text("order_id"))
        return Answer(self._view(row), etag=etag(row["version"]))

    def update(self, call: Call) -> Answer:
        """Move an order on or change its note. Raises: Refusal 404, 409 for a step back, 412, 428."""
        row = self.row(call.text("order_id"))
        require_match(call.if_match, row["version"])
        status = call.body.get("status", row["status"])
        change: Json = {"status": status, "version": row["version"] + 1}
        if "note" in call.body:
            change["note"] = call.body["note"]
        if status != row["status"]:
            if status not in _NEXT_STATUS.get(row["status"], ()):
                raise Refusal(409, "bad_transition", f"An order that is {row['status']} cannot become {status}.")
            if status == "paid":
                self.capture(row["id"], row["total"], self._db.clock())
            if status == "delivered":
                change["delivered_at"] = self._db.clock()
        self._db.update("orders", row["id"], change)
        after = self.row(row["id"])
        return Answer(self._view(after), etag=etag(after["version"]), result_id=f"{row['id']}@v{after['version']}")

    def touch(self, order_id: str) -> None:
        """Give the order a new version: what can be refunded of it has changed."""
        self._db.run("UPDATE orders SET version = version + 1 WHERE id = ?", order_id)

    def capture(self, order_id: str, cents: int, at: float, client_ref: str | None = None) -> str:
        """Record that the order was paid; returns the payment's id."""
        count = self._db.scalar("SELECT count(*) FROM payments WHERE order_id = ?", order_id)
        payment_id = f"P-{order_id[2:]}-{count + 1}"
        self._db.insert(
            "payments",
            {
                "id": payment_id,
                "order_id": order_id,
                "amount": cents,
                "method": "transfer" if order_id.endswith(("0", "5")) else "card",
                "client_ref": client_ref,
                "captured_at": at,
            },
        )
        return payment_id

    def payments(self, call: Call) -> Answer:
        """Payments, of one order or with one client_ref if asked."""
        filters = call.given("order_id", "client_ref")
        filters["id"] = call.params.get("payment_id")
        return self._db.listing("payments_view", filters, call, payment_view)


def payment_view(row: Row) -> Json:
    """A payment as it is served."""
    return {
        **{name: row[name] for name in ("id", "order_id", "currency", "method", "status", "client_ref")},
        "amount": from_cents(row["amount"]),
        "captured_at": to_time(row["captured_at"]),
    }


_REFUND_FIELDS = ("id", "order_id", "customer_id", "currency", "reason", "status", "approved_by", "client_ref")


def _refund_view(row: Row) -> Json:
    return {
        **{name: row[name] for name in _REFUND_FIELDS},
        "amount": from_cents(row["amount"]),
        "created_at": to_time(row["created_at"]),
    }


class Refunds:
    """Operations `refunds.*`."""

    def __init__(self, db: Database, orders: Orders) -> None:
        self._db = db
        self._orders = orders

    def _row(self, refund_id: str) -> Row:
        return self._db.row("refunds_view", "refund", refund_id)

    def list(self, call: Call) -> Answer:
        """Refunds by order, customer, status and client_ref."""
        return self._db.listing(
            "refunds_view", call.given("order_id", "customer_id", "status", "client_ref"), call, _refund_view
        )

    def get(self, call: Call) -> Answer:
        """One refund. Raises: Refusal 404."""
        return Answer(_refund_view(self._row(call.text("refund_id"))))

    def create(self, call: Call) -> Answer:
        """Refund part or all of an order. Raises: Refusal 404, 409 above what is left, 422."""
        order = self._orders.row(call.body["order_id"])
        cents = to_cents(call.body["amount"])
        left = order["paid"] - order["refunded"]
        if cents <= 0:
            raise Refusal(422, "invalid", "The amount must be above zero.")
        if cents > left:
            detail = f"{from_cents(left):.2f} {order['currency']} of order {order['id']} can still be refunded."
            raise Refusal(409, "over_refundable", detail)
        refund_id = self.add(order["id"], cents, call.body["reason"], "pending", self._db.clock(), call.body)
        self._orders.touch(order["id"])
        return Answer(_refund_view(self._row(refund_id)), status=201, result_id=refund_id)

    def add(self, order_id: str, cents: int, reason: str, status: str, at: float, extra: Mapping[str, Any]) -> str:
        """Insert a refund; its id counts within its order, so it does not depend on what other orders do."""
        count = self._db.scalar("SELECT count(*) FROM refunds WHERE order_id = ?", order_id)
        refund_id = f"R-{order_id[2:]}-{count + 1}"
        self._db.insert(
            "refunds",
            {
                "id": refund_id,
                "order_id": order_id,
                "amount": cents,
                "reason": reason,
                "status": status,
                "approved_by": extra.get("approved_by"),
                "client_ref": extra.get("client_ref"),
                "created_at": at,
            },
        )
        return refund_id

    def _finish(self, call: Call, status: str) -> Answer:
        row = self._row(call.text("refund_id"))
        if row["status"] != "pending":
            raise Refusal(409, "refund_not_pending", f"Refund {row['id']} is already {row['status']}.")
        self._db.update("refunds", row["id"], {"status": status})
        self._orders.touch(row["order_id"])
        return Answer(_refund_view(self._row(row["id"])), result_id=row["id"])

    def cancel(self, call: Call) -> Answer:
        """Cancel a pending refund. Raises: Refusal 404, 409."""
        return self._finish(call, "cancelled")

    def settle(self, call: Call) -> Answer:
        """Pay a pending refund out. Raises: Refusal 404, 409."""
        return self._finish(call, "settled")
