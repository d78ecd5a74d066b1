"""What the company knows about itself: every write in order, and its business state in canonical form."""

from __future__ import annotations

import hashlib

import orjson

from tightship.company._call import Answer, Call, Json, from_cents
from tightship.company._contract import Operation
from tightship.company._database import Database

# Columns that say what the business state is. Left out: times, the order of creation, and what only says how
# a caller named its own write (client_ref, idempotency keys), so that two histories with the same effect are equal.
_STATE = {
    "customers": ("id", "name", "email", "phone", "tier", "market", "verified", "address", "legacy", "version"),
    "orders": ("id", "customer_id", "status", "items", "total", "currency", "policies", "note", "version"),
    "payments": ("id", "order_id", "amount", "method", "status"),
    "reservations": ("id", "order_id", "lines", "status"),
    "shipments": ("id", "order_id", "lines", "status"),
    "invoices": ("id", "order_id", "amount", "status"),
    "refunds": ("id", "order_id", "amount", "reason", "status", "approved_by"),
    "tickets": (
        *("id", "customer_id", "order_id", "subject", "body", "status", "priority", "channel", "assignee"),
        *("tags", "escalation", "version"),
    ),
    "messages": ("id", "ticket_id", "kind", "body", "author", "retracted"),
    "stock": ("sku", "name", "on_hand", "in_transit", "reorder_point", "unit_price", "supplier", "version"),
    "purchase_orders": ("id", "sku", "quantity", "status"),
    "instruments": ("id", "name", "issuer", "price", "restricted", "held", "held_limit"),
    "counterparties": ("id", "name", "status", "credit_line", "used"),
    "traders": ("id", "name", "trade_limit", "interests"),
    "trades": ("id", "instrument_id", "counterparty_id", "trader_id", "side", "quantity", "price", "status"),
}
_JSON = {"address", "legacy", "items", "lines", "policies", "tags", "escalation", "interests"}
_MONEY = {"total", "amount", "unit_price", "price", "credit_line", "used", "trade_limit"}


class Audit:
    """Reads and writes the company's own records of what was done."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, operation: Operation, call: Call, answer: Answer) -> None:
        """Append one performed write to the company's ledger."""
        self._db.insert(
            "ledger",
            {
                "operation": operation.id,
                "path": operation.path.format_map(call.params),
                "idempotency_key": call.key,
                "client_ref": call.body.get("client_ref"),
                "body": orjson.dumps(call.body).decode(),
                "result_id": answer.result_id,
            },
        )

    def ledger(self) -> list[Json]:
        """Every write that was performed, in order; replayed answers are no writes."""
        rows = self._db.all("SELECT * FROM ledger ORDER BY n")
        return [{**dict(row), "body": orjson.loads(row["body"])} for row in rows]

    def state(self) -> dict[str, list[Json]]:
        """The business state, table by table, ordered by id."""
        state: dict[str, list[Json]] = {}
        for table, columns in _STATE.items():
            rows = self._db.all(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {columns[0]}")
            state[table] = [{name: _value(name, row[name]) for name in columns} for row in rows]
        return state


def digest(state: dict[str, list[Json]]) -> str:
    """SHA-256, in hexadecimal, of a state in canonical JSON."""
    return hashlib.sha256(orjson.dumps(state, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _value(name: str, value: str | int | None) -> object:
    if isinstance(value, str) and name in _JSON:
        return orjson.loads(value)
    if isinstance(value, int) and name in _MONEY:
        return from_cents(value)
    return value
