"""The company itself: its operations by name, each performed whole or not at all."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from tightship.company._audit import Audit, digest
from tightship.company._call import Answer, Call, Json, Refusal
from tightship.company._contract import Operation, contract
from tightship.company._customers import Customers, Lookups
from tightship.company._database import Database
from tightship.company._desk import Desk
from tightship.company._fulfilment import Fulfilment
from tightship.company._helpdesk import Helpdesk
from tightship.company._orders import Orders, Refunds
from tightship.company._purchasing import Purchasing
from tightship.company._seed import seed

Handler = Callable[[Call], Answer]


class Company:
    """The business behind the service, without HTTP and without faults.

    Parameters: `db` is a file or `:memory:`, seeded when new; `clock` gives seconds since 1970; `rng` is the only
    source of chance. With the same clock, chance and calls, the same answers follow. Not for use by several threads.
    Raises: CompanyError when the database cannot be used.
    """

    def __init__(
        self,
        db: str | Path = ":memory:",
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._db = Database(db, clock)
        self._audit = Audit(self._db)
        self.customers = Customers(self._db)
        self.lookups = Lookups(self._db, self.customers)
        self.orders = Orders(self._db)
        self.refunds = Refunds(self._db, self.orders)
        self.fulfilment = Fulfilment(self._db, self.orders, self.customers)
        self.helpdesk = Helpdesk(self._db)
        self.purchasing = Purchasing(self._db, rng or random.Random(1))
        self.desk = Desk(self._db)
        self._operations = contract().operations
        self._handlers = self._collect()
        # Looked at, not remembered from opening: a start that was killed before it had seeded is made good.
        if not self._db.scalar("SELECT count(*) FROM customers"):
            seed(self, self._db)

    def _collect(self) -> dict[str, Handler]:
        """One handler per operationId of the OpenAPI document."""
        desk, purchasing, refunds, goods = self.helpdesk, self.purchasing, self.refunds, self.fulfilment
        return {
            "customers.list": self.customers.list,
            "customers.get": self.customers.get,
            "customers.update": self.customers.update,
            "orders.list": self.orders.list,
            "orders.create": goods.create_order,
            "orders.get": self.orders.get,
            "orders.update": self.orders.update,
            "payments.list": self.orders.payments,
            "payments.charge": goods.charge,
            "payments.void": goods.void,
            "reservations.list": goods.list_reservations,
            "reservations.get": goods.get_reservation,
            "reservations.create": goods.reserve,
            "reservations.release": goods.release,
            "shipments.list": goods.list_shipments,
            "shipments.get": goods.get_shipment,
            "shipments.create": goods.book,
            "shipments.cancel": goods.cancel_shipment,
            "shipments.hand_over": goods.hand_over,
            "invoices.list": goods.list_invoices,
            "invoices.get": goods.get_invoice,
            "invoices.create": goods.invoice,
            "invoices.void": goods.void_invoice,
            "invoices.send": goods.send_invoice,
            "refunds.list": refunds.list,
            "refunds.get": refunds.get,
            "refunds.create": refunds.create,
            "refunds.cancel": refunds.cancel,
            "refunds.settle": refunds.settle,
            "helpdesk.list": desk.list,
            "helpdesk.get": desk.get,
            "helpdesk.create": desk.create,
            "helpdesk.update": desk.update,
            "helpdesk.replies": desk.replies,
            "helpdesk.reply": desk.reply,
            "helpdesk.retract": desk.retract,
            "helpdesk.notes": desk.notes,
            "helpdesk.note": desk.note,
            "helpdesk.set_status": desk.set_status,
            "helpdesk.assign": desk.assign,
            "helpdesk.escalate": desk.escalate,
            "lookups.credit": self.lookups.credit,
            "lookups.address": self.lookups.address,
            "billing.charges": self.lookups.charges,
            "stock.list": purchasing.stock_list,
            "stock.get": purchasing.stock_get,
            "stock.update": purchasing.stock_update,
            "purchasing.list": purchasing.list,
            "purchasing.get": purchasing.get,
            "purchasing.create": purchasing.create,
            "purchasing.cancel": purchasing.cancel,
            "purchasing.receive": purchasing.receive,
            **self.desk.handlers(),
        }

    def perform(self, operation_id: str, call: Call) -> Answer:
        """Perform one operation.

        Parameters: `operation_id` as in the OpenAPI document; `call` must be valid against it.
        Raises: Refusal when it is not carried out (503 when the disk fails), KeyError for an unknown operation.
        """
        operation = self._operations[operation_id]
        handler = self._handlers[operation_id]
        try:
            return self._perform(operation, handler, call)
        except sqlite3.OperationalError as error:
            raise Refusal(503, "storage_unavailable", f"The company's database failed: {error}.") from error

    def _perform(self, operation: Operation, handler: Handler, call: Call) -> Answer:
        if operation.effect == "write":
            with self._db.transaction():
                return self._write(operation, handler, call)
        if operation.price_usd is not None:
            return self._paid(operation, operation.price_usd, handler, call)
        return handler(call)

    def _paid(self, operation: Operation, usd: str, handler: Handler, call: Call) -> Answer:
        answer = handler(call)
        self.lookups.charge(operation.id, usd)
        return replace(answer, body={**answer.body, "cost": {"usd": usd}}, cost_usd=usd)

    def _write(self, operation: Operation, handler: Handler, call: Call) -> Answer:
        """Answer from the store of answers, or perform, record and (under a key) store; all in one transaction."""
        if operation.idempotent != "key" or call.key is None:
            answer = handler(call)
            self._audit.record(operation, call, answer)
            return answer
        request = orjson.dumps([dict(call.params), dict(call.body)], option=orjson.OPT_SORT_KEYS)
        fingerprint = hashlib.sha256(request).hexdigest()
        stored = self._db.one("SELECT * FROM answers WHERE operation = ? AND key = ?", operation.id, call.key)
        if stored is not None:
            if stored["fingerprint"] != fingerprint:
                detail = "This Idempotency-Key was used with another request."
                raise Refusal(422, "idempotency_key_reused", detail)
            body: Json = orjson.loads(stored["body"])
            return Answer(body, status=stored["status"], etag=stored["etag"], replayed=True)
        answer = handler(call)
        self._audit.record(operation, call, answer)
        self._db.insert(
            "answers",
            {
                "operation": operation.id,
                "key": call.key,
                "fingerprint": fingerprint,
                "status": answer.status,
                "body": orjson.dumps(answer.body).decode(),
                "etag": answer.etag,
            },
        )
        return answer

    def ledger(self) -> list[Json]:
        """Every write in order: n, operation, path, idempotency_key, client_ref, body, result_id."""
        return self._audit.ledger()

    def state(self) -> dict[str, list[Json]]:
        """The business state in canonical form; equal for equal effects, whatever times and keys were."""
        return self._audit.state()

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the canonical state."""
        return digest(self.state())

    def close(self) -> None:
        """Close the database."""
        self._db.close()
