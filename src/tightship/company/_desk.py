"""The trading desk: instruments with prices and positions, counterparties, traders, and the trades that are booked."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from tightship.company._call import Answer, Call, Json, Refusal, from_cents, to_cents, to_time
from tightship.company._database import Database, Row

_TRADE_FIELDS = ("id", "instrument_id", "counterparty_id", "trader_id", "side", "quantity", "status", "client_ref")


def _trade_view(row: Row) -> Json:
    return {
        **{name: row[name] for name in _TRADE_FIELDS},
        "price": from_cents(row["price"]),
        "created_at": to_time(row["created_at"]),
    }


class Desk:
    """Operations `desk.*`. What the desk refuses itself is what no approval can allow: its own hard limits."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def handlers(self) -> dict[str, Callable[[Call], Answer]]:
        """One handler per operationId."""
        return {
            "desk.instruments": self.instruments,
            "desk.instrument": self.instrument,
            "desk.position": self.position,
            "desk.counterparty": self.counterparty,
            "desk.trader": self.trader,
            "desk.trades": self.trades,
            "desk.trade": self.trade,
            "desk.book": self.book,
            "desk.cancel": self.cancel,
            "desk.confirm": self.confirm,
        }

    def seed(self, data: Json) -> None:
        """Write the practice records of the desk."""
        for row in data["instruments"]:
            self._db.insert("instruments", {**row, "price": to_cents(row["price"]), "lag": row["lag"] * 60.0})
        for row in data["counterparties"]:
            money = {name: to_cents(row[name]) for name in ("credit_line", "used")}
            self._db.insert("counterparties", {**row, **money})
        for row in data["traders"]:
            limit, interests = to_cents(row["trade_limit"]), orjson.dumps(row["interests"]).decode()
            self._db.insert("traders", {**row, "trade_limit": limit, "interests": interests})

    def _instrument_view(self, row: Row) -> Json:
        now = self._db.clock()
        return {
            **{name: row[name] for name in ("id", "name", "issuer")},
            "price": from_cents(row["price"]),
            "priced_at": to_time(now - row["lag"]),
            "as_of": to_time(now),
            "restricted": bool(row["restricted"]),
        }

    def instruments(self, call: Call) -> Answer:
        """All instruments."""
        return self._db.listing("instruments", {}, call, self._instrument_view)

    def instrument(self, call: Call) -> Answer:
        """One instrument. Raises: Refusal 404."""
        return Answer(self._instrument_view(self._db.row("instruments", "instrument", call.text("instrument_id"))))

    def position(self, call: Call) -> Answer:
        """What is held of an instrument. Raises: Refusal 404."""
        row = self._db.row("instruments", "instrument", call.text("instrument_id"))
        now = to_time(self._db.clock())
        body: Json = {"instrument_id": row["id"], "quantity": row["held"], "limit": row["held_limit"], "as_of": now}
        return Answer(body)

    def counterparty(self, call: Call) -> Answer:
        """One counterparty. Raises: Refusal 404."""
        row = self._db.row("counterparties", "counterparty", call.text("counterparty_id"))
        money = {name: from_cents(row[name]) for name in ("credit_line", "used")}
        as_of = to_time(self._db.clock())
        return Answer({**{name: row[name] for name in ("id", "name", "status")}, **money, "as_of": as_of})

    def trader(self, call: Call) -> Answer:
        """One trader. Raises: Refusal 404."""
        row = self._db.row("traders", "trader", call.text("trader_id"))
        limit, interests = from_cents(row["trade_limit"]), orjson.loads(row["interests"])
        return Answer({"id": row["id"], "name": row["name"], "trade_limit": limit, "interests": interests})

    def trades(self, call: Call) -> Answer:
        """Trades by instrument, status and client_ref."""
        return self._db.listing("trades", call.given("instrument_id", "status", "client_ref"), call, _trade_view)

    def trade(self, call: Call) -> Answer:
        """One trade. Raises: Refusal 404."""
        return Answer(_trade_view(self._db.row("trades", "trade", call.text("trade_id"))))

    def book(self, call: Call) -> Answer:
        """Book a trade: position and credit move at once. Raises: Refusal 404, 409, 422."""
        body = call.body
        instrument = self._db.row("instruments", "instrument", body["instrument_id"])
        counterparty = self._db.row("counterparties", "counterparty", body["counterparty_id"])
        self._db.row("traders", "trader", body["trader_id"])
        price = to_cents(body["price"])
        change = body["quantity"] if body["side"] == "buy" else -body["quantity"]
        amount = price * body["quantity"]
        if abs(instrument["held"] + change) > instrument["held_limit"]:
            raise Refusal(409, "position_limit", f"The position in {instrument['id']} would exceed its limit.")
        if counterparty["used"] + amount > counterparty["credit_line"]:
            raise Refusal(409, "credit_line", f"The credit line of {counterparty['id']} does not cover it.")
        self._move(instrument["id"], counterparty["id"], change, amount)
        count = self._db.scalar("SELECT count(*) FROM trades WHERE instrument_id = ?", instrument["id"])
        trade_id = f"TD-{instrument['id'].removeprefix('I-')}-{count + 1}"
        fields = {name: body[name] for name in ("instrument_id", "counterparty_id", "trader_id", "side", "quantity")}
        self._db.insert(
            "trades",
            {
                "id": trade_id,
                **fields,
                "price": price,
                "status": "booked",
                "client_ref": body.get("client_ref"),
                "created_at": self._db.clock(),
            },
        )
        return Answer(_trade_view(self._db.row("trades", "trade", trade_id)), status=201, result_id=trade_id)

    def _move(self, instrument_id: str, counterparty_id: str, change: int, amount: int) -> None:
        self._db.run("UPDATE instruments SET held = held + ? WHERE id = ?", change, instrument_id)
        self._db.run("UPDATE counterparties SET used = used + ? WHERE id = ?", amount, counterparty_id)

    def _open(self, call: Call) -> Row:
        row = self._db.row("trades", "trade", call.text("trade_id"))
        if row["status"] != "booked":
            raise Refusal(409, "trade_not_open", f"Trade {row['id']} is already {row['status']}.")
        return row

    def cancel(self, call: Call) -> Answer:
        """Cancel a trade that is booked and not confirmed. Raises: Refusal 404, 409."""
        row = self._open(call)
        change = -row["quantity"] if row["side"] == "buy" else row["quantity"]
        self._db.update("trades", row["id"], {"status": "cancelled"})
        self._move(row["instrument_id"], row["counterparty_id"], change, -row["price"] * row["quantity"])
        return Answer(_trade_view(self._db.row("trades", "trade", row["id"])), result_id=row["id"])

    def confirm(self, call: Call) -> Answer:
        """Have the counterparty confirm a trade. Raises: Refusal 404, 409 when it refuses."""
        row = self._open(call)
        if not self._db.row("counterparties", "counterparty", row["counterparty_id"])["confirms"]:
            raise Refusal(409, "counterparty_refused", f"{row['counterparty_id']} does not confirm {row['id']}.")
        self._db.update("trades", row["id"], {"status": "confirmed"})
        return Answer(_trade_view(self._db.row("trades", "trade", row["id"])), result_id=row["id"])
