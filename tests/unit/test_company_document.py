"""The OpenAPI document of the sample company: whole in itself, and kept by every route."""

from __future__ import annotations

import random
import re
from typing import Any

import httpx2
import orjson
import pytest
from starlette.routing import Route

from tightship.company import Company, Faults, InProcessTransport, build_app
from tightship.company._contract import Contract, contract

DOCUMENT = contract().document
OPERATIONS = contract().operations
CONTROL = {"/openapi.json", "/healthz", "/_ledger", "/_state", "/_faults"}


def node(operation: str) -> dict[str, Any]:
    found = OPERATIONS[operation]
    return DOCUMENT["paths"][found.path][found.method.lower()]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [ref for child in value.values() for ref in references(child)]
    return [ref for child in value for ref in references(child)] if isinstance(value, list) else []


def parameter_names(operation: str) -> set[str]:
    body = node(operation).get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = contract().resolve(body).get("properties", {}) if body else {}
    return {parameter.name for parameter in OPERATIONS[operation].parameters} | set(fields)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    for reference in used:
        assert contract().resolve({"$ref": reference})
    components = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses", "parameters", "headers")
        for name in DOCUMENT["components"][kind]
    }
    assert used == components


def test_every_operation_says_what_a_caller_must_know_before_repeating_it() -> None:
    for operation in OPERATIONS.values():
        entry = node(operation.id)
        assert entry["x-effect"] in ("read", "write"), operation.id
        if operation.effect == "read":
            assert operation.method == "GET", operation.id
            continue
        assert "x-lookup" in entry, operation.id
        header = {"key": "Idempotency-Key", "etag": "If-Match", "none": None}[entry["x-idempotent"]]
        assert entry.get("x-idempotency-header") == header, operation.id
        declared = {parameter.name for parameter in operation.parameters if parameter.place == "header"}
        assert declared == ({header} if header else set()), operation.id


@pytest.mark.parametrize("extension", ["x-lookup", "x-undo"])
def test_lookups_and_undos_name_operations_and_parameters_that_exist(extension: str) -> None:
    named = [(name, node(name)[extension]) for name in OPERATIONS if extension in node(name)]
    assert named
    for name, target in named:
        accepted = parameter_names(target["operation"])
        assert set(target["with"]) <= accepted, name
        required = {p.name for p in OPERATIONS[target["operation"]].parameters if p.required and p.place == "path"}
        assert required <= set(target["with"]), name
        if extension == "x-lookup":
            assert OPERATIONS[target["operation"]].effect == "read", name
            assert target["by"] in target["with"], name
        for expression in target["with"].values():
            place, _, pointer = expression.partition("#/")
            if place == "$request.body":
                assert pointer in parameter_names(name)
            elif place.startswith("$request.path."):
                assert place.rpartition(".")[2] in parameter_names(name)
            elif place == "$response.body":
                assert pointer in response_fields(name), name
            else:
                assert not expression.startswith("$"), f"{name}: {expression}"


def response_fields(operation: str) -> set[str]:
    success = next(response for status, response in node(operation)["responses"].items() if status.startswith("2"))
    schema = contract().resolve(contract().resolve(success)["content"]["application/json"]["schema"])
    parents = [contract().resolve(parent) for parent in schema.get("allOf", [])]
    return {name for part in [schema, *parents] for name in part["properties"]}


def test_the_routes_are_those_of_the_document_and_the_control_routes() -> None:
    company = Company()
    app = build_app(company, Faults())
    served = {(r.path, m) for r in app.routes if isinstance(r, Route) for m in r.methods or () if m != "HEAD"}
    company.close()
    documented = {(operation.path, operation.method) for operation in OPERATIONS.values()}
    assert {pair for pair in served if pair[0] not in CONTROL} == documented
    assert {path for path, _ in served - documented} == CONTROL


# One request per line: operation, parameters, body, headers, the status it must get. They are sent in this order to
# one company, so later lines may build on earlier ones.
T = "T-3006"
REF = {"client_ref": "run/1"}
TRADE: dict[str, Any] = {"instrument_id": "I-408", "counterparty_id": "CP-501", "trader_id": "TR-601", "side": "buy"}
TRADE |= {"quantity": 5, "price": 21.8}
LINES = [{"sku": "SKU-501", "quantity": 1}]
REQUESTS: list[tuple[str, dict[str, Any], Any, dict[str, str], int]] = [
    ("customers.list", {}, None, {}, 200),
    ("customers.list", {"email": "Ada.Anchorage@example.com"}, None, {}, 200),
    ("customers.list", {"market": "XX"}, None, {}, 422),
    ("customers.get", {"customer_id": "C-1001"}, None, {}, 200),
    ("customers.get", {"customer_id": "C-1007"}, None, {}, 200),
    ("customers.get", {"customer_id": "C-1019"}, None, {}, 200),
    ("customers.get", {"customer_id": "C-1007", "schema": "v2"}, None, {}, 200),
    ("customers.get", {"customer_id": "C-1019", "schema": "v2"}, None, {}, 406),
    ("customers.get", {"customer_id": "C-9999"}, None, {}, 404),
    ("customers.get", {"customer_id": "nobody"}, None, {}, 422),
    ("customers.update", {"customer_id": "C-1001"}, {"verified": False}, {"If-Match": '"v1"'}, 200),
    ("customers.update", {"customer_id": "C-1031"}, {"phone": "+1-202-555-0131"}, {"If-Match": '"v1"'}, 200),
    ("customers.update", {"customer_id": "C-1019"}, {"verified": False}, {"If-Match": '"v1"'}, 409),
    ("customers.update", {"customer_id": "C-1001"}, {"verified": False}, {"If-Match": '"v1"'}, 412),
    ("customers.update", {"customer_id": "C-1001"}, {"verified": False}, {}, 428),
    ("customers.update", {"customer_id": "C-1001"}, {"tier": "gold"}, {"If-Match": '"v2"'}, 422),
    ("customers.update", {"customer_id": "C-9999"}, {"verified": False}, {"If-Match": '"v2"'}, 404),
    ("orders.list", {"limit": 200}, None, {}, 200),
    ("orders.list", {"customer_id": "C-1001", "status": "delivered", "limit": 1}, None, {}, 200),
    ("orders.list", {"limit": 201}, None, {}, 422),
    ("orders.list", {"limit": "many"}, None, {}, 422),
    ("orders.list", {"cursor": "abc"}, None, {}, 422),
    ("orders.list", {"colour": "red"}, None, {}, 422),
    ("orders.get", {"order_id": "O-2044"}, None, {}, 200),
    ("orders.get", {"order_id": "O-9999"}, None, {}, 404),
    ("orders.update", {"order_id": "O-2002"}, {"status": "delivered", "note": None}, {"If-Match": '"v1"'}, 200),
    ("orders.update", {"order_id": "O-2002"}, {"status": "placed"}, {"If-Match": '"v2"'}, 409),
    ("orders.update", {"order_id": "O-2002"}, {"note": "x"}, {"If-Match": '"v1"'}, 412),
    ("orders.update", {"order_id": "O-2002"}, {"note": "x"}, {}, 428),
    ("orders.update", {"order_id": "O-9999"}, {"note": "x"}, {"If-Match": '"v1"'}, 404),
    ("payments.list", {"order_id": "O-2001"}, None, {}, 200),
    ("refunds.list", {}, None, {}, 200),
    ("refunds.create", {}, {"order_id": "O-2001", "amount": 9.99, "reason": "damaged", **REF}, {}, 201),
    (
        *("refunds.create", {}, {"order_id": "O-2003", "amount": 24, "reason": "returned", "approved_by": "lead"}),
        *({"Idempotency-Key": "k1"}, 201),
    ),
    ("refunds.create", {}, {"order_id": "O-2003", "amount": 1, "reason": "returned"}, {"Idempotency-Key": "k1"}, 422),
    ("refunds.create", {}, {"order_id": "O-2003", "amount": 1, "reason": "returned"}, {"Idempotency-Key": "ü"}, 422),
    ("refunds.create", {}, {"order_id": "O-2003", "amount": 1, "reason": "returned"}, {}, 409),
    ("refunds.create", {}, {"order_id": "O-9999", "amount": 1, "reason": "returned"}, {}, 404),
    ("refunds.create", {}, {"order_id": "O-2001", "amount": "1", "reason": "returned"}, {}, 422),
    ("refunds.create", {}, {"order_id": "O-2001", "amount": -1, "reason": "returned"}, {}, 422),
    ("refunds.create", {}, {"order_id": "O-2001", "amount": 1, "reason": "returned", "to": "me"}, {}, 422),
    ("refunds.create", {}, [], {}, 422),
    ("refunds.create", {}, None, {}, 422),
    ("refunds.list", {"order_id": "O-2001", **REF}, None, {}, 200),
    ("refunds.get", {"refund_id": "R-2001-1"}, None, {}, 200),
    ("refunds.get", {"refund_id": "R-2001-9"}, None, {}, 404),
    ("refunds.cancel", {"refund_id": "R-2001-1"}, None, {}, 200),
    ("refunds.cancel", {"refund_id": "R-2001-1"}, {"reason": "mistake"}, {}, 409),
    ("refunds.cancel", {"refund_id": "R-2001-9"}, None, {}, 404),
    ("refunds.settle", {"refund_id": "R-2003-1"}, {}, {"Idempotency-Key": "s1"}, 200),
    ("refunds.settle", {"refund_id": "R-2003-1"}, None, {}, 409),
    ("refunds.settle", {"refund_id": "R-2003-9"}, None, {}, 404),
    ("helpdesk.list", {"status": "new", "limit": 1}, None, {}, 200),
    (
        *("helpdesk.create", {}, {"id": "T-4001", "subject": "Hello", "body": "Where is it?", "order_id": "O-2002"}),
        *({"Idempotency-Key": "t1"}, 201),
    ),
    ("helpdesk.create", {}, {"subject": "Hello", "body": "Where?", "customer_id": "C-1002", **REF}, {}, 201),
    ("helpdesk.create", {}, {"id": "T-4001", "subject": "Hello", "body": "Again"}, {}, 409),
    ("helpdesk.create", {}, {"subject": "Hello", "body": "x", "order_id": "O-9999"}, {}, 404),
    ("helpdesk.create", {}, {"subject": ""}, {}, 422),
    ("helpdesk.reply", {"ticket_id": T}, {"body": "On its way.", "author": "desk", **REF}, {}, 201),
    ("helpdesk.reply", {"ticket_id": "T-3001"}, {"body": "Too late."}, {}, 409),
    ("helpdesk.reply", {"ticket_id": "T-9999"}, {"body": "Nobody there."}, {}, 404),
    ("helpdesk.replies", {"ticket_id": T, **REF}, None, {}, 200),
    ("helpdesk.replies", {"ticket_id": "T-9999"}, None, {}, 404),
    ("helpdesk.note", {"ticket_id": T}, {"body": "Called the carrier."}, {}, 201),
    ("helpdesk.note", {"ticket_id": "T-9999"}, {"body": "Nobody there."}, {}, 404),
    ("helpdesk.notes", {"ticket_id": T}, None, {}, 200),
    ("helpdesk.notes", {"ticket_id": "T-9999"}, None, {}, 404),
    ("helpdesk.retract", {"ticket_id": T, "reply_id": f"{T}-R1"}, {"reason": "wrong order"}, {}, 200),
    ("helpdesk.retract", {"ticket_id": T, "reply_id": f"{T}-R1"}, None, {}, 409),
    ("helpdesk.retract", {"ticket_id": T, "reply_id": f"{T}-R9"}, None, {}, 404),
    ("helpdesk.set_status", {"ticket_id": T}, {"status": "pending"}, {}, 200),
    ("helpdesk.set_status", {"ticket_id": "T-9999"}, {"status": "pending"}, {}, 404),
    ("helpdesk.assign", {"ticket_id": T}, {"assignee": "dock"}, {}, 200),
    ("helpdesk.assign", {"ticket_id": T}, {"assignee": None}, {}, 200),
    ("helpdesk.assign", {"ticket_id": "T-9999"}, {"assignee": None}, {}, 404),
    ("helpdesk.escalate", {"ticket_id": T}, {"team": "leads", "reason": "over the limit"}, {}, 200),
    ("helpdesk.escalate", {"ticket_id": "T-3001"}, {"team": "leads", "reason": "x"}, {}, 409),
    ("helpdesk.escalate", {"ticket_id": "T-9999"}, {"team": "leads", "reason": "x"}, {}, 404),
    ("helpdesk.get", {"ticket_id": T}, None, {}, 200),
    ("helpdesk.get", {"ticket_id": "T-9999"}, None, {}, 404),
    ("helpdesk.update", {"ticket_id": T}, {"tags": ["late", "carrier"]}, {"If-Match": "*"}, 200),
    ("helpdesk.update", {"ticket_id": T}, {"tags": []}, {"If-Match": '"v1"'}, 412),
    ("helpdesk.update", {"ticket_id": T}, {"tags": []}, {}, 428),
    ("helpdesk.update", {"ticket_id": "T-9999"}, {"tags": []}, {"If-Match": "*"}, 404),
    ("lookups.credit", {"customer_id": "C-1013"}, None, {}, 200),
    ("lookups.credit", {"customer_id": "C-9999"}, None, {}, 404),
    (
        *("lookups.address", {"line": "1 Practice Quay", "city": "Sampleton", "postcode": "00003", "country": "US"}),
        *(None, {}, 200),
    ),
    ("lookups.address", {"line": "1", "city": "x", "postcode": "?", "country": "AQ"}, None, {}, 200),
    ("lookups.address", {"line": "1"}, None, {}, 422),
    ("billing.charges", {"limit": 1}, None, {}, 200),
    ("stock.list", {"below_reorder_point": "true"}, None, {}, 200),
    ("stock.list", {"below_reorder_point": "yes"}, None, {}, 422),
    ("stock.get", {"sku": "SKU-504"}, None, {}, 200),
    ("stock.get", {"sku": "SKU-999"}, None, {}, 404),
    ("stock.update", {"sku": "SKU-504"}, {"on_hand": 8}, {"If-Match": '"v1"'}, 200),
    ("stock.update", {"sku": "SKU-504"}, {"on_hand": 8}, {"If-Match": '"v1"'}, 412),
    ("stock.update", {"sku": "SKU-504"}, {"on_hand": 8}, {}, 428),
    ("stock.update", {"sku": "SKU-999"}, {"on_hand": 8}, {"If-Match": "*"}, 404),
    ("purchasing.create", {}, {"sku": "SKU-504", "quantity": 5, **REF}, {"Idempotency-Key": "p1"}, 201),
    ("purchasing.create", {}, {"sku": "SKU-504", "quantity": 6, **REF}, {"Idempotency-Key": "p1"}, 422),
    ("purchasing.create", {}, {"sku": "SKU-999", "quantity": 5}, {}, 404),
    ("purchasing.list", {"sku": "SKU-504", **REF}, None, {}, 200),
    ("purchasing.get", {"purchase_order_id": "PO-504-1"}, None, {}, 200),
    ("purchasing.get", {"purchase_order_id": "PO-504-9"}, None, {}, 404),
    ("purchasing.cancel", {"purchase_order_id": "PO-504-1"}, None, {}, 200),
    ("purchasing.cancel", {"purchase_order_id": "PO-504-1"}, None, {}, 409),
    ("purchasing.cancel", {"purchase_order_id": "PO-504-9"}, None, {}, 404),
    ("purchasing.receive", {"purchase_order_id": "PO-502-1"}, None, {}, 200),
    ("purchasing.receive", {"purchase_order_id": "PO-502-1"}, {}, {}, 409),
    ("purchasing.receive", {"purchase_order_id": "PO-504-9"}, None, {}, 404),
    ("desk.instruments", {"limit": 3}, None, {}, 200),
    ("desk.instrument", {"instrument_id": "I-401"}, None, {}, 200),
    ("desk.instrument", {"instrument_id": "I-999"}, None, {}, 404),
    ("desk.position", {"instrument_id": "I-402"}, None, {}, 200),
    ("desk.position", {"instrument_id": "I-999"}, None, {}, 404),
    ("desk.counterparty", {"counterparty_id": "CP-501"}, None, {}, 200),
    ("desk.counterparty", {"counterparty_id": "CP-999"}, None, {}, 404),
    ("desk.trader", {"trader_id": "TR-602"}, None, {}, 200),
    ("desk.trader", {"trader_id": "TR-999"}, None, {}, 404),
    ("desk.book", {}, {**TRADE, **REF}, {"Idempotency-Key": "t1"}, 201),
    ("desk.book", {}, {**TRADE, "quantity": 6}, {"Idempotency-Key": "t1"}, 422),
    ("desk.book", {}, {**TRADE, "quantity": 9000}, {}, 409),
    ("desk.book", {}, {**TRADE, "trader_id": "TR-999"}, {}, 404),
    ("desk.book", {}, TRADE, {}, 201),
    ("desk.trades", {"instrument_id": "I-408", "status": "booked", **REF}, None, {}, 200),
    ("desk.trade", {"trade_id": "TD-408-1"}, None, {}, 200),
    ("desk.trade", {"trade_id": "TD-408-9"}, None, {}, 404),
    ("desk.cancel", {"trade_id": "TD-408-1"}, None, {}, 200),
    ("desk.cancel", {"trade_id": "TD-408-1"}, None, {}, 409),
    ("desk.cancel", {"trade_id": "TD-408-9"}, None, {}, 404),
    ("desk.confirm", {"trade_id": "TD-408-2"}, None, {}, 200),
    ("desk.confirm", {"trade_id": "TD-408-2"}, {}, {}, 409),
    ("desk.confirm", {"trade_id": "TD-408-9"}, None, {}, 404),
    ("orders.create", {}, {"id": "O-4001", "customer_id": "C-1001", "items": LINES}, {"Idempotency-Key": "o1"}, 201),
    ("orders.create", {}, {"id": "O-4001", "customer_id": "C-1001", "items": LINES}, {}, 409),
    ("orders.create", {}, {"id": "O-4002", "customer_id": "C-9999", "items": LINES}, {}, 404),
    ("orders.create", {}, {"id": "O-4002", "customer_id": "C-1001", "items": []}, {}, 422),
    ("orders.create", {}, {"id": "O-4003", "customer_id": "C-1019", "items": LINES}, {}, 201),
    ("reservations.create", {}, {"order_id": "O-4001", "lines": LINES, **REF}, {"Idempotency-Key": "rs"}, 201),
    ("reservations.create", {}, {"order_id": "O-4001", "lines": [{"sku": "SKU-512", "quantity": 1}]}, {}, 409),
    ("reservations.create", {}, {"order_id": "O-4001", "lines": [{"sku": "SKU-999", "quantity": 1}]}, {}, 404),
    ("reservations.create", {}, {"order_id": "O-4001", "lines": []}, {}, 422),
    ("reservations.list", {"order_id": "O-4001", **REF}, None, {}, 200),
    ("reservations.get", {"reservation_id": "RS-4001-1"}, None, {}, 200),
    ("reservations.get", {"reservation_id": "RS-4001-9"}, None, {}, 404),
    ("reservations.release", {"reservation_id": "RS-4001-1"}, None, {}, 200),
    ("reservations.release", {"reservation_id": "RS-4001-1"}, None, {}, 409),
    ("reservations.release", {"reservation_id": "RS-4001-9"}, None, {}, 404),
    ("payments.charge", {}, {"order_id": "O-4001", "amount": 0.001}, {}, 422),
    ("payments.charge", {}, {"order_id": "O-4001", "amount": 39.9, **REF}, {"Idempotency-Key": "ch"}, 201),
    ("payments.charge", {}, {"order_id": "O-4001", "amount": 39.9}, {}, 409),
    ("payments.charge", {}, {"order_id": "O-9999", "amount": 39.9}, {}, 404),
    ("payments.list", {**REF, "payment_id": "P-4001-1"}, None, {}, 200),
    ("payments.void", {"payment_id": "P-4001-1"}, {"reason": "a later step failed"}, {}, 200),
    ("payments.void", {"payment_id": "P-4001-1"}, None, {}, 409),
    ("payments.void", {"payment_id": "P-4001-9"}, None, {}, 404),
    ("shipments.create", {}, {"order_id": "O-4001", "lines": LINES, **REF}, {}, 201),
    ("shipments.create", {}, {"order_id": "O-4001", "lines": [{"sku": "SKU-507", "quantity": 1}]}, {}, 409),
    ("shipments.create", {}, {"order_id": "O-9999", "lines": LINES}, {}, 404),
    ("shipments.create", {}, {"order_id": "O-4001", "lines": []}, {}, 422),
    ("shipments.list", {"status": "booked", **REF}, None, {}, 200),
    ("shipments.get", {"shipment_id": "SH-4001-1"}, None, {}, 200),
    ("shipments.get", {"shipment_id": "SH-4001-9"}, None, {}, 404),
    ("shipments.cancel", {"shipment_id": "SH-4001-1"}, None, {}, 200),
    ("shipments.cancel", {"shipment_id": "SH-4001-1"}, None, {}, 409),
    ("shipments.cancel", {"shipment_id": "SH-4001-9"}, None, {}, 404),
    ("shipments.create", {}, {"order_id": "O-4001", "lines": LINES}, {}, 201),
    ("shipments.hand_over", {"shipment_id": "SH-4001-2"}, {}, {}, 200),
    ("shipments.hand_over", {"shipment_id": "SH-4001-2"}, None, {}, 409),
    ("shipments.hand_over", {"shipment_id": "SH-4001-9"}, None, {}, 404),
    ("invoices.create", {}, {"order_id": "O-4001", "amount": 39.9, **REF}, {}, 201),
    ("invoices.create", {}, {"order_id": "O-4003", "amount": 39.9}, {}, 409),
    ("invoices.create", {}, {"order_id": "O-9999", "amount": 39.9}, {}, 404),
    ("invoices.create", {}, {"order_id": "O-4001", "amount": 0}, {}, 422),
    ("invoices.list", {"order_id": "O-4001", **REF}, None, {}, 200),
    ("invoices.get", {"invoice_id": "IN-4001-1"}, None, {}, 200),
    ("invoices.get", {"invoice_id": "IN-4001-9"}, None, {}, 404),
    ("invoices.send", {"invoice_id": "IN-4001-1"}, None, {}, 200),
    ("invoices.send", {"invoice_id": "IN-4001-1"}, None, {}, 409),
    ("invoices.send", {"invoice_id": "IN-4001-9"}, None, {}, 404),
    ("invoices.void", {"invoice_id": "IN-4001-1"}, None, {}, 200),
    ("invoices.void", {"invoice_id": "IN-4001-1"}, None, {}, 409),
    ("invoices.void", {"invoice_id": "IN-4001-9"}, None, {}, 404),
]


def request_for(operation: str, params: dict[str, Any], body: Any, headers: dict[str, str]) -> httpx2.Request:
    found = OPERATIONS[operation]
    in_path = set(re.findall(r"\{(\w+)\}", found.path))
    query = {name: value for name, value in params.items() if name not in in_path}
    raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    url = "http://company" + found.path.format_map(params)
    return httpx2.Request(found.method, url, params=query, json=body, headers=raw_headers)


def check_response(operation: str, response: httpx2.Response) -> None:
    """The answer is one that the document promises for this operation."""
    responses = node(operation)["responses"]
    declared = contract().resolve(responses.get(str(response.status_code), responses["default"]))
    assert not (response.is_success and str(response.status_code) not in responses), response.status_code
    media_type = response.headers["content-type"]
    assert media_type in declared["content"], media_type
    contract().validator(declared["content"][media_type]["schema"]).validate(response.json())
    for name, header in declared.get("headers", {}).items():
        contract().validator(contract().resolve(header)["schema"]).validate(response.headers[name])


async def test_every_route_answers_as_the_document_says() -> None:
    company = Company(clock=lambda: 1.8e9, rng=random.Random(1))
    transport = InProcessTransport(build_app(company, Faults(), token="t"))
    succeeded: set[str] = set()
    refused: set[tuple[str, int]] = set()
    async with httpx2.AsyncClient(transport=transport, headers={"Authorization": "Bearer t"}) as client:
        for operation, params, body, headers, status in REQUESTS:
            request = request_for(operation, params, body, headers)
            request.headers["Authorization"] = "Bearer t"
            response = await client.send(request)
            assert response.status_code == status, (operation, params, body, response.text)
            check_response(operation, response)
            (succeeded.add(operation) if status < 300 else refused.add((operation, status)))
    company.close()
    assert succeeded == set(OPERATIONS)
    promised = {
        (name, int(status))
        for name in OPERATIONS
        for status in node(name)["responses"]
        if status.isdigit() and int(status) >= 400
    }
    assert promised <= refused, "each refusal that the document names is seen"


def test_a_changed_document_changes_what_is_accepted() -> None:
    document = orjson.loads(contract().text)
    document["components"]["schemas"]["NewMessage"]["properties"]["body"]["maxLength"] = 3
    stricter = Contract(orjson.dumps(document)).operations["helpdesk.reply"].body
    assert stricter is not None
    assert OPERATIONS["helpdesk.reply"].body is not None
    assert OPERATIONS["helpdesk.reply"].body.is_valid({"body": "four"})
    assert not stricter.is_valid({"body": "four"})
