"""The business of the sample company: its records, exactly-once writes, versions, and determinism."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from company_desk import opened, refund
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.company import Answer, Call, Company, Refusal
from tightship.company._contract import contract


@pytest.fixture
def company() -> Iterator[Company]:
    company = opened()
    yield company
    company.close()


def read(company: Company, operation: str, **params: str | int | bool) -> dict[str, Any]:
    return company.perform(operation, Call(params)).body


def refused(company: Company, operation: str, call: Call) -> Refusal:
    before = company.digest(), company.ledger()
    with pytest.raises(Refusal) as caught:
        company.perform(operation, call)
    assert (company.digest(), company.ledger()) == before, "a refusal changes nothing"
    return caught.value


def everything(company: Company, operation: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    params: dict[str, str | int | bool] = {"limit": 7}
    while True:
        page = company.perform(operation, Call(params)).body
        items += page["items"]
        if page["next"] is None:
            return items
        params["cursor"] = page["next"]


# The practice records


def test_the_practice_records_are_plainly_made_up_and_consistent(company: Company) -> None:
    customers = everything(company, "customers.list")
    orders = everything(company, "orders.list")
    assert [customer.get("id", f"C-{customer.get('cust_no')}") for customer in customers] == [
        f"C-{number}" for number in range(1001, 1041)
    ]
    assert [order["id"] for order in orders] == [f"O-{number}" for number in range(2001, 2091)]
    mails = [str(c.get("email") or c["contact"].get("mail", "none@example.com")) for c in customers]
    assert all(mail.lower().endswith("@example.com") for mail in mails)
    assert {order["status"] for order in orders} == {
        *("placed", "paid", "shipped", "delivered", "returned", "cancelled", "lost")
    }
    for order in orders:
        total = sum(round(item["unit_price"] * 100) * item["quantity"] for item in order["items"])
        paid = sum(payment["amount"] for payment in read(company, "payments.list", order_id=order["id"])["items"])
        assert round(order["total"] * 100) == total
        assert paid in (0, order["total"])
        assert round(order["refundable"] * 100) == round((paid - order["refunded"]) * 100)


def test_goods_in_transit_are_those_of_open_purchase_orders(company: Company) -> None:
    for item in everything(company, "stock.list"):
        open_orders = read(company, "purchasing.list", sku=item["sku"], status="ordered")["items"]
        assert item["in_transit"] == sum(order["quantity"] for order in open_orders)


@pytest.mark.parametrize(
    ("order_id", "customer_id", "status", "refundable", "rules"),
    [
        ("O-2001", "C-1001", "delivered", 39.9, []),
        ("O-2010", "C-1010", "placed", 0.0, []),
        ("O-2021", "C-1021", "delivered", 349.0, []),
        ("O-2025", "C-1025", "returned", 0.0, []),
        ("O-2026", "C-1026", "delivered", 69.0, []),
        ("O-2027", "C-1027", "returned", 0.0, []),
        ("O-2028", "C-1028", "delivered", 54.5, []),
        ("O-2033", "C-1033", "lost", 79.9, ["must_refund"]),
        ("O-2040", "C-1040", "returned", 64.0, []),
        ("O-2043", "C-1013", "delivered", 45.0, ["no_refund"]),
        ("O-2044", "C-1014", "delivered", 45.0, ["no_refund", "must_refund"]),
        ("O-2047", "C-1018", "delivered", 129.0, ["must_refund"]),
        ("O-2048", "C-1028", "delivered", 37.8, ["no_refund", "must_refund"]),
        ("O-2050", "C-1017", "delivered", 79.9, []),
        ("O-2054", "C-1006", "cancelled", 0.0, []),
        ("O-2058", "C-1024", "delivered", 100.0, []),
        ("O-2060", "C-1022", "delivered", 64.0, []),
    ],
)
def test_the_notable_orders_are_as_documented(
    company: Company, order_id: str, customer_id: str, status: str, refundable: float, rules: list[str]
) -> None:
    order = read(company, "orders.get", order_id=order_id)
    assert (order["customer_id"], order["status"], order["refundable"]) == (customer_id, status, refundable)
    assert [policy["rule"] for policy in order["policies"]] == rules


def test_a_record_in_the_older_format_is_converted_by_the_source_or_refused(company: Company) -> None:
    old = read(company, "customers.get", customer_id="C-1007")
    assert (old["schema"], old["fullname"]) == ("v1-legacy", "GANGWAY, Greta")
    assert read(company, "customers.get", customer_id="C-1031", schema="v2")["email"] == "elin.ebbtide@example.com"
    assert refused(company, "customers.get", Call({"customer_id": "C-1019", "schema": "v2"})).status == 406


def test_a_change_keeps_the_record_in_the_new_format_once_its_facts_are_known(company: Company) -> None:
    params = {"customer_id": "C-1019"}
    unknown = refused(company, "customers.update", Call(params, {"verified": True}, if_match='"v1"'))
    assert unknown.code == "not_convertible"
    facts = {"name": "Stella Starboard", "email": "stella.starboard@example.com"}
    company.perform("customers.update", Call(params, facts, if_match='"v1"'))
    now = read(company, "customers.get", **params)
    assert (now["schema"], now["name"], now["version"]) == ("v2", "Stella Starboard", 2)
    found = read(company, "customers.list", email="STELLA.Starboard@example.com")["items"]
    assert [customer["id"] for customer in found] == ["C-1019"]


# Exactly once


def test_the_same_key_and_body_return_the_stored_answer_and_do_nothing_more(company: Company) -> None:
    first = company.perform("refunds.create", refund("O-2001", 10.0, key="k"))
    again = company.perform("refunds.create", refund("O-2001", 10.0, key="k"))
    assert (again.body, again.status, again.replayed) == (first.body, 201, True)
    assert [entry["result_id"] for entry in company.ledger()] == ["R-2001-1"]


def test_the_same_key_with_another_request_is_refused(company: Company) -> None:
    company.perform("refunds.create", refund("O-2001", 10.0, key="k"))
    assert refused(company, "refunds.create", refund("O-2001", 11.0, key="k")).code == "idempotency_key_reused"
    assert refused(company, "refunds.create", refund("O-2002", 10.0, key="k")).status == 422


def test_a_key_belongs_to_its_operation_and_its_path(company: Company) -> None:
    company.perform("helpdesk.set_status", Call({"ticket_id": "T-3006"}, {"status": "solved"}, key="k"))
    other = Call({"ticket_id": "T-3007"}, {"status": "solved"}, key="k")
    assert refused(company, "helpdesk.set_status", other).code == "idempotency_key_reused"
    company.perform("helpdesk.assign", Call({"ticket_id": "T-3006"}, {"assignee": "dock"}, key="k"))
    assert len(company.ledger()) == 2


def test_a_refusal_is_not_stored_under_its_key(company: Company) -> None:
    assert refused(company, "refunds.create", refund("O-2010", 10.0, key="k")).code == "over_refundable"
    company.perform("orders.update", Call({"order_id": "O-2010"}, {"status": "paid"}, if_match='"v1"'))
    assert company.perform("refunds.create", refund("O-2010", 10.0, key="k")).status == 201


def test_a_reply_ignores_keys_and_is_found_by_its_client_ref(company: Company) -> None:
    call = Call({"ticket_id": "T-3006"}, {"body": "On its way.", "client_ref": "run-1/reply"}, key="k")
    assert [company.perform("helpdesk.reply", call).body["id"] for _ in range(2)] == ["T-3006-R1", "T-3006-R2"]
    found = read(company, "helpdesk.replies", ticket_id="T-3006", client_ref="run-1/reply")["items"]
    assert [reply["id"] for reply in found] == ["T-3006-R1", "T-3006-R2"]
    assert read(company, "helpdesk.replies", ticket_id="T-3006", client_ref="other")["items"] == []


def test_undo_takes_back_what_was_done_and_only_once(company: Company) -> None:
    company.perform("refunds.create", refund("O-2001", 39.9))
    assert read(company, "orders.get", order_id="O-2001")["refundable"] == 0.0
    company.perform("refunds.cancel", Call({"refund_id": "R-2001-1"}, key="undo"))
    assert read(company, "orders.get", order_id="O-2001")["refundable"] == 39.9
    assert company.perform("refunds.cancel", Call({"refund_id": "R-2001-1"}, key="undo")).replayed
    assert refused(company, "refunds.cancel", Call({"refund_id": "R-2001-1"})).code == "refund_not_pending"
    company.perform("helpdesk.reply", Call({"ticket_id": "T-3006"}, {"body": "Sorry."}))
    reply = {"ticket_id": "T-3006", "reply_id": "T-3006-R1"}
    assert company.perform("helpdesk.retract", Call(reply)).body["retracted"] is True
    assert refused(company, "helpdesk.retract", Call(reply)).code == "already_retracted"
    elsewhere = Call({"ticket_id": "T-3007", "reply_id": "T-3006-R1"})
    assert refused(company, "helpdesk.retract", elsewhere).status == 404


def test_a_settled_refund_cannot_be_cancelled(company: Company) -> None:
    assert refused(company, "refunds.cancel", Call({"refund_id": "R-2025-1"})).code == "refund_not_pending"


@pytest.mark.parametrize("amount", [0.001, 9.999, float("inf")])
def test_an_amount_that_is_no_sum_of_money_is_refused(company: Company, amount: float) -> None:
    assert refused(company, "refunds.create", refund("O-2001", amount)).status == 422


ORDERS = st.sampled_from(["O-2001", "O-2003", "O-2010", "O-2044"])
KEYS = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
REFUNDS = st.builds(
    lambda order, cents, key: ("refunds.create", refund(order, cents / 100, key)),
    *(ORDERS, st.sampled_from([1, 500, 2400, 3990]), KEYS),
)
CANCELS = st.builds(
    lambda order, n, key: ("refunds.cancel", Call({"refund_id": f"R-{order[2:]}-{n}"}, key=key)),
    *(ORDERS, st.integers(1, 3), KEYS),
)
REPLIES = st.builds(
    lambda ref, key: ("helpdesk.reply", Call({"ticket_id": "T-3006"}, {"body": "Hello", "client_ref": ref}, key=key)),
    *(st.sampled_from(["r1", "r2"]), KEYS),
)
PURCHASES = st.builds(
    lambda quantity, key: ("purchasing.create", Call(body={"sku": "SKU-512", "quantity": quantity}, key=key)),
    *(st.integers(1, 3), KEYS),
)
CALLS = st.lists(st.one_of(REFUNDS, CANCELS, REPLIES, PURCHASES), max_size=25)


def attempt(company: Company, operation: str, call: Call) -> Answer | str:
    try:
        return company.perform(operation, call)
    except Refusal as refusal:
        return refusal.code


@settings(max_examples=60, deadline=None)
@given(CALLS)
def test_whatever_is_repeated_each_key_acts_once_and_no_order_is_refunded_twice(calls: list[tuple[str, Call]]) -> None:
    company = opened()
    done: dict[tuple[str, str], tuple[Call, Answer]] = {}
    performed = 0
    for operation, call in calls:
        answer = attempt(company, operation, call)
        known = done.get((operation, call.key)) if call.key and operation != "helpdesk.reply" else None
        if known is not None and known[0] == call:
            assert isinstance(answer, Answer)
            assert answer.replayed
            assert answer.body == known[1].body
        elif known is not None:
            assert answer == "idempotency_key_reused"
        elif isinstance(answer, Answer):
            assert not answer.replayed
            performed += 1
            if call.key:
                done[operation, call.key] = (call, answer)
    assert len(company.ledger()) == performed
    for order in everything(company, "orders.list"):
        assert 0 <= order["refunded"] <= order["total"]
        assert order["refundable"] >= 0
    company.close()


def from_ledger(entry: dict[str, Any]) -> Call:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", contract().operations[entry["operation"]].path)
    match = re.fullmatch(pattern, entry["path"])
    assert match
    return Call(match.groupdict(), entry["body"], key=entry["idempotency_key"], if_match="*")


@settings(max_examples=40, deadline=None)
@given(CALLS)
def test_the_ledger_holds_every_write_doing_it_again_gives_the_same_state(calls: list[tuple[str, Call]]) -> None:
    company, second = opened(), opened()
    for operation, call in calls:
        attempt(company, operation, call)
    for entry in company.ledger():
        second.perform(entry["operation"], from_ledger(entry))
    assert second.state() == company.state()
    assert second.ledger() == company.ledger()
    company.close()
    second.close()


# Versions


def test_a_change_needs_the_version_it_is_based_on(company: Company) -> None:
    params, body = {"order_id": "O-2005"}, {"note": "Gift wrap"}
    assert refused(company, "orders.update", Call(params, body)).status == 428
    assert refused(company, "orders.update", Call(params, body, if_match='"v9"')).status == 412
    assert refused(company, "orders.update", Call(params, body, if_match='W/"v1"')).status == 412
    changed = company.perform("orders.update", Call(params, body, if_match='"v0", "v1"'))
    assert changed.etag == '"v2"'
    assert refused(company, "orders.update", Call(params, body, if_match='"v1"')).status == 412


def test_of_two_who_read_the_same_version_one_wins(company: Company) -> None:
    seen = company.perform("stock.get", Call({"sku": "SKU-504"})).etag
    company.perform("stock.update", Call({"sku": "SKU-504"}, {"on_hand": 8}, if_match=seen))
    assert refused(company, "stock.update", Call({"sku": "SKU-504"}, {"on_hand": 7}, if_match=seen)).status == 412
    assert read(company, "stock.get", sku="SKU-504")["on_hand"] == 8


@pytest.mark.parametrize(
    ("operation", "call", "reader", "params"),
    [
        ("refunds.create", refund("O-2001", 1.0), "orders.get", {"order_id": "O-2001"}),
        ("helpdesk.reply", Call({"ticket_id": "T-3006"}, {"body": "x"}), "helpdesk.get", {"ticket_id": "T-3006"}),
        ("purchasing.create", Call(body={"sku": "SKU-504", "quantity": 1}), "stock.get", {"sku": "SKU-504"}),
    ],
)
def test_a_write_that_touches_another_record_gives_it_a_new_version(
    company: Company, operation: str, call: Call, reader: str, params: dict[str, str]
) -> None:
    before = company.perform(reader, Call(params)).etag
    company.perform(operation, call)
    assert company.perform(reader, Call(params)).etag != before


def test_orders_move_only_forward(company: Company) -> None:
    params = {"order_id": "O-2002"}
    assert refused(company, "orders.update", Call(params, {"status": "placed"}, if_match="*")).code == "bad_transition"
    company.perform("orders.update", Call(params, {"status": "delivered"}, if_match="*"))
    assert read(company, "orders.get", **params)["days_since_delivery"] == 0


# Stock and paid lookups


def test_goods_ordered_are_in_transit_until_received_or_cancelled(company: Company) -> None:
    for _ in range(2):
        company.perform("purchasing.create", Call(body={"sku": "SKU-504", "quantity": 5}))
    assert read(company, "stock.get", sku="SKU-504")["in_transit"] == 10
    company.perform("purchasing.receive", Call({"purchase_order_id": "PO-504-1"}))
    company.perform("purchasing.cancel", Call({"purchase_order_id": "PO-504-2"}))
    item = read(company, "stock.get", sku="SKU-504")
    assert (item["on_hand"], item["in_transit"]) == (14, 0)
    late = refused(company, "purchasing.receive", Call({"purchase_order_id": "PO-504-2"}))
    assert late.code == "purchase_order_not_open"


def test_paid_lookups_are_on_the_bill_and_refused_ones_are_not(company: Company) -> None:
    paid = company.perform("lookups.credit", Call({"customer_id": "C-1001"}))
    assert (paid.cost_usd, paid.body["cost"]) == ("0.002", {"usd": "0.002"})
    address = {"line": "7  Practice Quay", "city": "exampleport", "postcode": "zz1 1zz", "country": "GB"}
    assert company.perform("lookups.address", Call(address)).body["normalized"]["city"] == "Exampleport"
    refused(company, "lookups.credit", Call({"customer_id": "C-9999"}))
    bill = read(company, "billing.charges")
    assert ([charge["usd"] for charge in bill["items"]], bill["total_usd"]) == (["0.002", "0.0005"], "0.0025")


@pytest.mark.parametrize(
    ("line", "postcode", "country"),
    [("Practice Quay", "00001", "DE"), ("7 Practice Quay", "1", "DE"), ("7 Practice Quay", "00001", "AQ")],
)
def test_an_address_that_cannot_be_delivered_to_says_why(
    company: Company, line: str, postcode: str, country: str
) -> None:
    call = Call({"line": line, "city": "Musterhafen", "postcode": postcode, "country": country})
    answer = company.perform("lookups.address", call).body
    assert (answer["deliverable"], answer["normalized"]) == (False, None)
    assert answer["reason"]


# Determinism and the database


def test_ids_of_tickets_depend_on_their_content_not_on_the_order_of_calls() -> None:
    subjects = ("one", "two", "three", "one")
    tickets = [Call(body={"subject": subject, "body": "Where is it?"}) for subject in subjects]
    ids: list[set[str]] = []
    states: list[str] = []
    for order in (tickets, tickets[::-1]):
        company = opened()
        ids.append({company.perform("helpdesk.create", call).body["id"] for call in order})
        states.append(company.digest())
        company.close()
    assert ids[0] == ids[1]
    assert len(ids[0]) == 4
    assert states[0] == states[1]


def test_a_ticket_keeps_the_id_its_client_chose_and_nobody_else_gets_it(company: Company) -> None:
    call = Call(body={"id": "T-4001", "subject": "s", "body": "b", "customer_id": "C-1001"})
    assert company.perform("helpdesk.create", call).body["id"] == "T-4001"
    assert refused(company, "helpdesk.create", call).code == "ticket_exists"
    stranger = Call(body={"subject": "s", "body": "b", "customer_id": "C-9999"})
    assert refused(company, "helpdesk.create", stranger).status == 404


def test_the_canonical_state_ignores_times_keys_and_references() -> None:
    digests: set[str] = set()
    for clock, key, ref in ((1.7e9, "a", "x"), (1.9e9, "b", "y")):
        company = Company(clock=lambda clock=clock: clock, rng=random.Random(int(clock)))
        company.perform("refunds.create", refund("O-2001", 5.0, key, client_ref=ref))
        company.perform("purchasing.create", Call(body={"sku": "SKU-504", "quantity": 1}, key=key))
        digests.add(company.digest())
        company.close()
    assert len(digests) == 1


def test_a_second_reply_shows_in_the_canonical_state(company: Company) -> None:
    call = Call({"ticket_id": "T-3006"}, {"body": "Hello"})
    company.perform("helpdesk.reply", call)
    once = company.digest()
    company.perform("helpdesk.reply", call)
    assert company.digest() != once


TRADE = {"instrument_id": "I-408", "counterparty_id": "CP-501", "trader_id": "TR-601", "side": "buy"}


def test_a_trade_moves_position_and_credit_once_and_back_when_it_is_cancelled(company: Company) -> None:
    def stands() -> tuple[int, float]:
        position = read(company, "desk.position", instrument_id="I-408")
        return position["quantity"], read(company, "desk.counterparty", counterparty_id="CP-501")["used"]

    before = stands()
    call = Call(body={**TRADE, "quantity": 100, "price": 21.8}, key="k")
    trade = company.perform("desk.book", call).body
    assert company.perform("desk.book", call).replayed
    assert stands() == (before[0] + 100, before[1] + 2180.0)
    company.perform("desk.cancel", Call({"trade_id": trade["id"]}))
    assert stands() == before
    assert refused(company, "desk.cancel", Call({"trade_id": trade["id"]})).status == 409


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"quantity": 6000}, 409, "position_limit"),
        ({"side": "sell", "quantity": 5001}, 409, "position_limit"),
        ({"quantity": 5000, "price": 100.0}, 409, "credit_line"),
        ({"instrument_id": "I-999"}, 404, "not_found"),
        ({"counterparty_id": "CP-999"}, 404, "not_found"),
        ({"trader_id": "TR-999"}, 404, "not_found"),
        ({"price": 21.805}, 422, "invalid"),
    ],
)
def test_the_desk_refuses_what_no_approval_can_allow(
    company: Company, change: dict[str, Any], status: int, code: str
) -> None:
    found = refused(company, "desk.book", Call(body={**TRADE, "quantity": 10, "price": 21.8, **change}))
    assert (found.status, found.code) == (status, code)


def test_a_confirmed_trade_stands_and_some_counterparties_confirm_nothing(company: Company) -> None:
    for counterparty, confirms in (("CP-501", True), ("CP-504", False)):
        body = {**TRADE, "counterparty_id": counterparty, "quantity": 10, "price": 21.8}
        params = {"trade_id": company.perform("desk.book", Call(body=body)).body["id"]}
        if confirms:
            assert company.perform("desk.confirm", Call(params)).body["status"] == "confirmed"
            assert refused(company, "desk.cancel", Call(params)).status == 409
        else:
            assert refused(company, "desk.confirm", Call(params)).code == "counterparty_refused"


def test_a_price_is_as_old_as_its_feed_is_behind_whenever_one_asks(company: Company) -> None:
    for identifier, minutes in (("I-408", 0), ("I-409", 95)):
        row = read(company, "desk.instrument", instrument_id=identifier)
        age = datetime.fromisoformat(row["as_of"]) - datetime.fromisoformat(row["priced_at"])
        assert age == timedelta(minutes=minutes)
