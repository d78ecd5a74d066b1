"""From an order to its money: orders that come in, reservations, charges, shipments and invoices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from tightship.company._call import Answer, Call, Json, Refusal, etag, from_cents, to_cents, to_time
from tightship.company._customers import CURRENCIES, Customers
from tightship.company._database import Database, Row
from tightship.company._orders import Orders, payment_view

CARD_LIMIT = 50_000
"""The most that a card is charged at once, in hundredths."""
_BULKY = {"SKU-507", "SKU-509"}
_NO_BULKY_GOODS = {"US"}


class Fulfilment:
    """Operations `orders.create`, `reservations.*`, `payments.charge`, `payments.void`, `shipments.*`, `invoices.*`.

    Every record counts within its order, so that what happens to other orders does not change its id.
    """

    def __init__(self, db: Database, orders: Orders, customers: Customers) -> None:
        self._db = db
        self._orders = orders
        self._customers = customers

    # --- orders -----------------------------------------------------------------------------------

    def create_order(self, call: Call) -> Answer:
        """Place an order at today's prices. Raises: Refusal 404, 409 when its id is taken, 422."""
        body = call.body
        customer = self._customers.row(body["customer_id"])
        if self._db.one("SELECT 1 FROM orders WHERE id = ?", body["id"]):
            raise Refusal(409, "order_exists", f"There is already an order {body['id']}.")
        items = [self._priced(line) for line in body["items"]]
        self._db.insert(
            "orders",
            {
                "id": body["id"],
                "customer_id": customer["id"],
                "status": "placed",
                "items": orjson.dumps(items).decode(),
                "total": sum(to_cents(item["unit_price"]) * item["quantity"] for item in items),
                "currency": CURRENCIES[customer["market"]],
                "placed_at": self._db.clock(),
                "policies": "[]",
                "note": body.get("note"),
            },
        )
        order = self._orders.get(Call({"order_id": body["id"]})).body
        return Answer(order, status=201, etag=etag(order["version"]), result_id=order["id"])

    def _priced(self, line: Json) -> Json:
        row = self._db.row("stock", "stock item", line["sku"])
        return {**line, "name": row["name"], "unit_price": from_cents(row["unit_price"])}

    # --- reservations -----------------------------------------------------------------------------

    def reserve(self, call: Call) -> Answer:
        """Set goods aside for an order, all of them or none. Raises: Refusal 404, 409 when there are too few."""
        order = self._orders.row(call.body["order_id"])
        lines = call.body["lines"]
        for line in lines:
            row = self._db.row("stock", "stock item", line["sku"])
            if row["on_hand"] < line["quantity"]:
                raise Refusal(409, "out_of_stock", f"Of {row['sku']} there are {row['on_hand']} left.")
            self._move(line["sku"], -line["quantity"])
        values = {"status": "held", "lines": orjson.dumps(lines).decode()}
        return self._added("reservations", "RS", order["id"], values, call)

    def release(self, call: Call) -> Answer:
        """Put goods back that were set aside. Raises: Refusal 404, 409."""
        row = self._db.row("reservations", "reservation", call.text("reservation_id"))
        self._only(row, "held")
        for line in orjson.loads(row["lines"]):
            self._move(line["sku"], line["quantity"])
        return self._set("reservations", row, "released")

    def _move(self, sku: str, by: int) -> None:
        self._db.run("UPDATE stock SET on_hand = on_hand + ?, version = version + 1 WHERE sku = ?", by, sku)

    # --- charges ----------------------------------------------------------------------------------

    def charge(self, call: Call) -> Answer:
        """Charge an order to its card or account. Raises: Refusal 404, 409 when it is paid or the bank declines."""
        order = self._orders.row(call.body["order_id"])
        if order["status"] != "placed":
            raise Refusal(409, "not_payable", f"Order {order['id']} is already {order['status']}.")
        cents = to_cents(call.body["amount"])
        if not 0 < cents <= order["total"]:
            raise Refusal(422, "invalid", "The amount must be above zero and at most the order's total.")
        payment_id = self._orders.capture(order["id"], cents, self._db.clock(), call.body.get("client_ref"))
        payment = self._payment(payment_id)
        if payment["method"] == "card" and cents > CARD_LIMIT:
            raise Refusal(409, "declined", f"The bank declines card payments above {from_cents(CARD_LIMIT):.2f}.")
        self._order_status(order, "paid")
        return Answer(payment_view(payment), status=201, result_id=payment_id)

    def void(self, call: Call) -> Answer:
        """Take a charge back whose goods have not left. Raises: Refusal 404, 409."""
        payment = self._payment(call.text("payment_id"))
        order = self._orders.row(payment["order_id"])
        if payment["status"] != "captured" or order["status"] != "paid":
            raise Refusal(409, "not_voidable", f"Payment {payment['id']} cannot be taken back any more.")
        self._db.update("payments", payment["id"], {"status": "voided"})
        self._order_status(order, "placed")
        return Answer(payment_view(self._payment(payment["id"])), result_id=payment["id"])

    def _payment(self, payment_id: str) -> Row:
        return self._db.row("payments_view", "payment", payment_id)

    # --- shipments --------------------------------------------------------------------------------

    def book(self, call: Call) -> Answer:
        """Book a parcel with the carrier. Raises: Refusal 404, 409 for goods that it does not take there."""
        order = self._orders.row(call.body["order_id"])
        market = self._customers.row(order["customer_id"])["market"]
        bulky = sorted(_BULKY & {line["sku"] for line in call.body["lines"]})
        if bulky and market in _NO_BULKY_GOODS:
            raise Refusal(409, "carrier_refuses", f"The carrier does not take {bulky[0]} to {market}.")
        values = {"status": "booked", "lines": orjson.dumps(call.body["lines"]).decode()}
        return self._added("shipments", "SH", order["id"], values, call)

    def cancel_shipment(self, call: Call) -> Answer:
        """Cancel a parcel that the carrier does not have yet. Raises: Refusal 404, 409."""
        row = self._db.row("shipments", "shipment", call.text("shipment_id"))
        self._only(row, "booked")
        return self._set("shipments", row, "cancelled")

    def hand_over(self, call: Call) -> Answer:
        """Give a parcel to the carrier, from where nothing brings it back. Raises: Refusal 404, 409."""
        row = self._db.row("shipments", "shipment", call.text("shipment_id"))
        self._only(row, "booked")
        order = self._orders.row(row["order_id"])
        if order["status"] == "paid":
            self._order_status(order, "shipped")
        held = "UPDATE reservations SET status = 'used' WHERE order_id = ? AND status = 'held'"
        self._db.run(held, order["id"])
        return self._set("shipments", row, "handed_over")

    # --- invoices ---------------------------------------------------------------------------------

    def invoice(self, call: Call) -> Answer:
        """Write the invoice of an order. Raises: Refusal 404, 409 without a name to write it to, 422."""
        order = self._orders.row(call.body["order_id"])
        if self._customers.row(order["customer_id"])["name"] is None:
            raise Refusal(409, "no_billing_name", f"Customer {order['customer_id']} has no name for an invoice.")
        values = {"status": "open", "amount": to_cents(call.body["amount"])}
        return self._added("invoices", "IN", order["id"], values, call)

    def void_invoice(self, call: Call) -> Answer:
        """Declare an invoice void. Raises: Refusal 404, 409."""
        row = self._db.row("invoices", "invoice", call.text("invoice_id"))
        self._only(row, "open", "sent")
        return self._set("invoices", row, "voided")

    def send_invoice(self, call: Call) -> Answer:
        """Send an invoice to the customer, as the order's confirmation. Raises: Refusal 404, 409."""
        row = self._db.row("invoices", "invoice", call.text("invoice_id"))
        self._only(row, "open")
        return self._set("invoices", row, "sent")

    # --- what they share --------------------------------------------------------------------------

    def list_reservations(self, call: Call) -> Answer:
        """Reservations by order, status and client_ref."""
        return self._list("reservations", call)

    def list_shipments(self, call: Call) -> Answer:
        """Shipments by order, status and client_ref."""
        return self._list("shipments", call)

    def list_invoices(self, call: Call) -> Answer:
        """Invoices by order, status and client_ref."""
        return self._list("invoices", call)

    def get_reservation(self, call: Call) -> Answer:
        """One reservation. Raises: Refusal 404."""
        return Answer(_view(self._db.row("reservations", "reservation", call.text("reservation_id"))))

    def get_shipment(self, call: Call) -> Answer:
        """One shipment. Raises: Refusal 404."""
        return Answer(_view(self._db.row("shipments", "shipment", call.text("shipment_id"))))

    def get_invoice(self, call: Call) -> Answer:
        """One invoice. Raises: Refusal 404."""
        return Answer(_view(self._db.row("invoices", "invoice", call.text("invoice_id"))))

    def _list(self, table: str, call: Call) -> Answer:
        return self._db.listing(table, call.given("order_id", "status", "client_ref"), call, _view)

    def _added(self, table: str, letters: str, order_id: str, values: Json, call: Call) -> Answer:
        count = self._db.scalar(f"SELECT count(*) FROM {table} WHERE order_id = ?", order_id)
        made = f"{letters}-{order_id[2:]}-{count + 1}"
        named = {"id": made, "order_id": order_id, "client_ref": call.body.get("client_ref")}
        self._db.insert(table, {**named, **values, "created_at": self._db.clock()})
        return Answer(_view(self._db.row(table, table, made)), status=201, result_id=made)

    def _set(self, table: str, row: Row, status: str) -> Answer:
        self._db.update(table, row["id"], {"status": status})
        return Answer(_view(self._db.row(table, table, row["id"])), result_id=row["id"])

    @staticmethod
    def _only(row: Row, *allowed: str) -> None:
        if row["status"] not in allowed:
            raise Refusal(409, "too_late", f"{row['id']} is already {row['status']}.")

    def _order_status(self, order: Row, status: str) -> None:
        self._db.run("UPDATE orders SET status = ?, version = version + 1 WHERE id = ?", status, order["id"])


def _view(row: Row) -> Json:
    names: Sequence[str] = row.keys()
    view: dict[str, Any] = {name: row[name] for name in ("id", "order_id", "status", "client_ref")}
    if "lines" in names:
        view["lines"] = orjson.loads(row["lines"])
    if "amount" in names:
        view["amount"] = from_cents(row["amount"])
    return {**view, "created_at": to_time(row["created_at"])}
