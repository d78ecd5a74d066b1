"""Helpdesk tickets with replies to the customer and internal notes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import orjson

from tightship.company._call import Answer, Call, Json, Refusal, etag, not_found, require_match, to_time
from tightship.company._database import Database, Row

_TICKET_FIELDS = (
    "id",
    "customer_id",
    "order_id",
    "subject",
    "body",
    "status",
    "priority",
    "channel",
    "assignee",
    "client_ref",
    "version",
)


def _ticket_view(row: Row) -> Json:
    return {
        **{name: row[name] for name in _TICKET_FIELDS},
        "tags": orjson.loads(row["tags"]),
        "escalation": None if row["escalation"] is None else orjson.loads(row["escalation"]),
        "created_at": to_time(row["created_at"]),
        "updated_at": to_time(row["updated_at"]),
    }


def _message_view(row: Row) -> Json:
    view: Json = {name: row[name] for name in ("id", "ticket_id", "body", "author", "client_ref")}
    if row["kind"] == "reply":
        view["retracted"] = bool(row["retracted"])
    view["created_at"] = to_time(row["created_at"])
    return view


class Helpdesk:
    """Operations `helpdesk.*`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def _row(self, ticket_id: str) -> Row:
        return self._db.row("tickets", "ticket", ticket_id)

    def _detail(self, ticket_id: str, status: int = 200) -> Answer:
        row = self._row(ticket_id)
        view = _ticket_view(row) | {"replies": [], "notes": []}
        for message in self._db.all("SELECT * FROM messages WHERE ticket_id = ? ORDER BY n", ticket_id):
            view["replies" if message["kind"] == "reply" else "notes"].append(_message_view(message))
        return Answer(view, status=status, etag=etag(row["version"]))

    def _change(self, row: Row, values: Json) -> Answer:
        """Set columns of a ticket, raise its version, and answer with the whole ticket."""
        self._raise_version(row, values)
        return replace(self._detail(row["id"]), result_id=f"{row['id']}@v{row['version'] + 1}")

    def _raise_version(self, row: Row, values: Json) -> None:
        meta = {"version": row["version"] + 1, "updated_at": self._db.clock()}
        self._db.update("tickets", row["id"], {**values, **meta})

    def list(self, call: Call) -> Answer:
        """Tickets by status, customer, order and client_ref, without replies and notes."""
        return self._db.listing(
            "tickets", call.given("status", "customer_id", "order_id", "client_ref"), call, _ticket_view
        )

    def get(self, call: Call) -> Answer:
        """One ticket with its replies and notes. Raises: Refusal 404."""
        return self._detail(call.text("ticket_id"))

    def create(self, call: Call) -> Answer:
        """Open a ticket. Raises: Refusal 404 for an unknown customer or order, 409 when its own id is taken."""
        body = call.body
        self._known("customer", body.get("customer_id"))
        self._known("order", body.get("order_id"))
        ticket_id = body.get("id") or self._content_id(body.get("customer_id"), body["subject"], body["body"])
        if self._db.one("SELECT 1 FROM tickets WHERE id = ?", ticket_id):
            raise Refusal(409, "ticket_exists", f"There is already a ticket {ticket_id}.")
        names = ("customer_id", "order_id", "subject", "body", "client_ref")
        self.add(
            {
                "id": ticket_id,
                **{name: body.get(name) for name in names},
                "status": "new",
                "priority": body.get("priority", "normal"),
                "channel": body.get("channel", "form"),
            },
            self._db.clock(),
        )
        return replace(self._detail(ticket_id, status=201), result_id=ticket_id)

    def add(self, values: Json, at: float) -> None:
        """Insert a ticket."""
        self._db.insert("tickets", {**values, "created_at": at, "updated_at": at})

    def _known(self, what: str, identifier: str | None) -> None:
        if identifier and not self._db.one(f"SELECT 1 FROM {what}s WHERE id = ?", identifier):
            raise not_found(what, identifier)

    def _content_id(self, customer_id: str | None, subject: str, body: str) -> str:
        """An id of the content and how often it came before: concurrent callers cannot change each other's."""
        count = self._db.scalar(
            "SELECT count(*) FROM tickets WHERE customer_id IS ? AND subject = ? AND body = ?",
            customer_id,
            subject,
            body,
        )
        content = orjson.dumps([customer_id, subject, body, count])
        return f"T-{hashlib.sha256(content).hexdigest()[:10]}"

    def update(self, call: Call) -> Answer:
        """Change fields of a ticket. Raises: Refusal 404, 412, 428."""
        row = self._row(call.text("ticket_id"))
        require_match(call.if_match, row["version"])
        self._known("customer", call.body.get("customer_id"))
        self._known("order", call.body.get("order_id"))
        change: Json = dict(call.body)
        if "tags" in change:
            change["tags"] = orjson.dumps(sorted(change["tags"])).decode()
        return self._change(row, change)

    def set_status(self, call: Call) -> Answer:
        """Set the status. Raises: Refusal 404."""
        return self._change(self._row(call.text("ticket_id")), {"status": call.body["status"]})

    def assign(self, call: Call) -> Answer:
        """Assign to a person or team, or (None) to nobody. Raises: Refusal 404."""
        return self._change(self._row(call.text("ticket_id")), {"assignee": call.body["assignee"]})

    def escalate(self, call: Call) -> Answer:
        """Hand the ticket to people. Raises: Refusal 404, 409 when it is closed."""
        row = self._open(call.text("ticket_id"))
        escalation = orjson.dumps({"team": call.body["team"], "reason": call.body["reason"]}).decode()
        return self._change(row, {"status": "escalated", "escalation": escalation})

    def _open(self, ticket_id: str) -> Row:
        row = self._row(ticket_id)
        if row["status"] == "closed":
            raise Refusal(409, "ticket_closed", f"Ticket {ticket_id} is closed.")
        return row

    def replies(self, call: Call) -> Answer:
        """Replies of one ticket, by client_ref if asked. Raises: Refusal 404."""
        return self._messages(call, "reply")

    def notes(self, call: Call) -> Answer:
        """Notes of one ticket, by client_ref if asked. Raises: Refusal 404."""
        return self._messages(call, "note")

    def _messages(self, call: Call, kind: str) -> Answer:
        ticket_id = self._row(call.text("ticket_id"))["id"]
        filters = {"ticket_id": ticket_id, "kind": kind, "client_ref": call.params.get("client_ref")}
        return self._db.listing("messages", filters, call, _message_view)

    def reply(self, call: Call) -> Answer:
        """Send one more reply. Raises: Refusal 404, 409 when the ticket is closed."""
        return self._message(self._open(call.text("ticket_id")), "reply", call)

    def note(self, call: Call) -> Answer:
        """Add one more note, to a closed ticket too. Raises: Refusal 404."""
        return self._message(self._row(call.text("ticket_id")), "note", call)

    def _message(self, ticket: Row, kind: str, call: Call) -> Answer:
        count = self._db.scalar("SELECT count(*) FROM messages WHERE ticket_id = ? AND kind = ?", ticket["id"], kind)
        message_id = f"{ticket['id']}-{kind[0].upper()}{count + 1}"
        values = {name: call.body.get(name) for name in ("body", "author", "client_ref")}
        now = self._db.clock()
        self._db.insert(
            "messages", {"id": message_id, "ticket_id": ticket["id"], "kind": kind, "created_at": now, **values}
        )
        self._raise_version(ticket, {})
        return Answer(_message_view(self._message_row(message_id)), status=201, result_id=message_id)

    def _message_row(self, message_id: str) -> Row:
        return self._db.row("messages", "reply", message_id)

    def retract(self, call: Call) -> Answer:
        """Take a reply back. Raises: Refusal 404, 409 when it was taken back before."""
        ticket = self._row(call.text("ticket_id"))
        row = self._message_row(call.text("reply_id"))
        if row["ticket_id"] != ticket["id"] or row["kind"] != "reply":
            raise not_found("reply", f"{row['id']} on ticket {ticket['id']}")
        if row["retracted"]:
            raise Refusal(409, "already_retracted", f"Reply {row['id']} was already retracted.")
        self._db.update("messages", row["id"], {"retracted": 1})
        self._raise_version(ticket, {})
        return Answer(_message_view(self._message_row(row["id"])), result_id=row["id"])
