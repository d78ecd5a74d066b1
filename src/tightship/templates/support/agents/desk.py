"""The agents of the support desk: triage, knowledge, account, respond, quality, and refund_status.

They work without a language model: a trained classifier, full-text search, the company's records, rules, and a checker
that compares every sentence with its source. What a customer writes is classified and searched with; it is never
carried out, and amounts come from records alone.
"""

# The modules of this folder import each other by their plain names, which a type checker sees only from inside it.
# pyright: reportMissingImports=false
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from desk_models import knowledge_index, search, triage_models
from desk_records import named_products, order_text, read_customer, records_of
from desk_reply import (
    Sentence,
    courtesies,
    decision_text,
    knowledge_sentences,
    mend,
    objection,
    order_sentences,
    passage_sentences,
    payment_sentences,
    refund_sentences,
    status_sentences,
    wants_apology,
    write,
)
from desk_rules import BAND_LIMITS, LOOKUP_FROM, LOOKUP_TO, NO_REFUND, Decision, decide
from desk_words import alarms, asks_for_stock, is_angry, is_general, order_ids

from tightship import DataMissing, FormatMismatch, LowConfidence, OutOfScope
from tightship.agents.offline import BM25Index, Verdict, check_tone, strangers, take_apart, verify_all

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

LOWEST_CONFIDENCE: Final = 0.55
"""Below it nobody should even draft an answer: a person says what the message is about."""

NEEDS_ORDER: Final = frozenset({"order_status", "refund", "delivery_problem"})
MAX_ORDERS: Final = 3


# --- triage -----------------------------------------------------------------------------------------


async def triage(ctx: AgentContext, input: Input) -> Output:
    """What a ticket is about and how urgent it is, from the customer's own words alone.

    Raises:
        DataMissing: it holds nothing but quotations. OutOfScope: it is not for the desk. LowConfidence: the
            topics lie too close together.
    """
    message = take_apart(input["ticket"])
    if not message.own:
        raise DataMissing("the message holds nothing of the customer's own", needed="what the customer wants")
    models = await triage_models(ctx.knowledge("training"))
    topic = models.topic.predict(message.own)
    evidence = {
        "topic": topic.label,
        "confidence": round(topic.confidence, 3),
        "similarity": round(topic.similarity, 3),
    }
    if not topic.familiar:
        raise OutOfScope("the message is unlike anything the desk was made for", evidence=evidence)
    if topic.confidence < LOWEST_CONFIDENCE:
        options = [{"id": label, "label": label, "confidence": round(share, 3)} for label, share in topic.ranking[:3]]
        raise LowConfidence("it cannot be told what the message is about", options=options, evidence=evidence)
    if topic.label == "out_of_scope":
        raise OutOfScope(
            "the message is not about the shop (KB-83)", needed="somebody to pass it on to", evidence=evidence
        )
    if topic.label == "privacy_request" and not is_general(message.own):
        needed = "the privacy team to carry the request out within one month"
        raise OutOfScope(
            "requests about personal data are not carried out by the desk (KB-61)", needed=needed, evidence=evidence
        )
    return {
        "topic": topic.label,
        "urgency": models.urgency.predict(message.own).label,
        "confidence": topic.confidence,
        "own_words": message.own,
        "order_ids": order_ids(message.own),
        "alarms": alarms(message.own),
        "angry": is_angry(message.own),
        "general": is_general(message.own),
    }


def _index(ctx: AgentContext) -> BM25Index:
    return knowledge_index(ctx.knowledge("knowledge"), ctx.knowledge("training"))


# --- knowledge --------------------------------------------------------------------------------------


async def knowledge(ctx: AgentContext, input: Input) -> Output:
    """The passages of the knowledge base that fit the ticket best, best first."""
    index = _index(ctx)
    hits = search(index, input["triage"]["own_words"], input["triage"]["topic"])
    return {
        "passages": [
            {
                "id": hit.passage.id,
                "heading": hit.passage.heading,
                "text": hit.passage.text,
                "score": round(hit.score, 4),
            }
            for hit in hits
        ]
    }


# --- account ----------------------------------------------------------------------------------------


async def account(ctx: AgentContext, input: Input) -> Output:
    """What the company's records say, and what the refund rules make of it.

    Raises:
        DataMissing: the customer or the order cannot be found. FormatMismatch: the customer's record cannot be read.
        RuleConflict: two rules contradict each other. OutOfScope: money for an order of another account.
    """
    case: Input = input["triage"]
    customer, orders = await ctx.parallel(
        lambda c: _customer(c, input["customer_id"]), lambda c: _orders(c, input["customer_id"], case)
    )
    own, foreign = _owned(orders, customer["id"], case)
    refunds = [row for order in own if order["refunded"] > 0 for row in await _refunds(ctx, order["id"])]
    payments = {order["id"]: await _payments(ctx, order["id"]) for order in own if case["topic"] == "billing"}
    stock = await _stock(ctx, case)
    decision = decide(own[0], case["topic"]) if len(own) == 1 else NO_REFUND
    return {
        "customer": customer,
        "orders": own,
        "foreign": foreign,
        "refunds": refunds,
        "payments": payments,
        "stock": stock,
        "records": records_of(own, refunds, payments, stock),
        "refund": decision.as_dict(),
        "holds": await _holds(ctx, customer, decision),
    }


async def _customer(ctx: AgentContext, customer_id: str) -> Output:
    """The customer, converted where the record is old: by ourselves, else by the source, else by a person (E6)."""
    record = await ctx.tool("customers.get", {"customer_id": customer_id})
    try:
        return read_customer(record)
    except FormatMismatch as unreadable:
        try:
            return read_customer(await ctx.tool("customers.get", {"customer_id": customer_id, "schema": "v2"}))
        except FormatMismatch as refused:
            unreadable.evidence["source"] = refused.message
            raise unreadable from refused


async def _orders(ctx: AgentContext, customer_id: str, case: Input) -> list[Input]:
    """The orders that the case is about: named, or else found among the customer's own (E2)."""
    named = case["order_ids"][:MAX_ORDERS]
    if named:
        return [await ctx.tool("orders.get", {"order_id": order_id}) for order_id in named]
    if case["topic"] not in NEEDS_ORDER or case["general"]:
        return []
    listed = await ctx.tool("orders.list", {"customer_id": customer_id, "limit": 50})
    found = _meant(listed["items"], case)
    if len(found) == 1:
        return found
    raise DataMissing(
        "the message names no order, and the records do not tell which one is meant",
        needed="the number of the order",
        options=[{"id": order["id"], "label": order_text(order)} for order in found or listed["items"]],
        evidence={"customer": customer_id, "orders": [order["id"] for order in listed["items"]]},
    )


def _meant(orders: Sequence[Input], case: Input) -> list[Input]:
    """The orders that a message without a number can mean: by the goods it names, then by where the order stands."""
    names = {item["sku"]: item["name"] for order in orders for item in order["items"]}
    skus = set(named_products(case["own_words"], names))
    fitting = [order for order in orders if skus & {item["sku"] for item in order["items"]}] or list(orders)
    open_states = {"placed", "paid", "shipped", "lost"}
    if case["topic"] == "order_status":
        return [order for order in fitting if order["status"] in open_states] or fitting
    return [order for order in fitting if order["status"] not in open_states - {"lost"}] or fitting


def _owned(orders: Sequence[Input], customer_id: str, case: Input) -> tuple[list[Input], list[str]]:
    """The orders of this customer, and the numbers of those that are somebody else's (KB-64)."""
    own = [order for order in orders if order["customer_id"] == customer_id]
    foreign = [order["id"] for order in orders if order["customer_id"] != customer_id]
    if foreign and case["topic"] in ("refund", "return", "delivery_problem"):
        raise OutOfScope(
            f"order {foreign[0]} belongs to another account, and money is asked for (KB-64)",
            needed="somebody to find out who is writing",
            evidence={"order": foreign[0], "customer": customer_id},
        )
    if len(own) > 1 and case["topic"] == "refund":
        raise DataMissing(
            "the message names more than one order",
            needed="which order is to be refunded",
            options=[{"id": order["id"], "label": order_text(order)} for order in own],
        )
    return own, foreign


async def _refunds(ctx: AgentContext, order_id: str) -> list[Input]:
    listed = await ctx.tool("refunds.list", {"order_id": order_id})
    return [refund for refund in listed["items"] if refund["status"] != "cancelled"]


async def _payments(ctx: AgentContext, order_id: str) -> list[Input]:
    return list((await ctx.tool("payments.list", {"order_id": order_id}))["items"])


async def _stock(ctx: AgentContext, case: Input) -> list[Input]:
    """The stock of the products that a question about availability names."""
    if case["topic"] != "product_question" or not asks_for_stock(case["own_words"]):
        return []
    items = (await ctx.tool("stock.list", {"limit": 200}))["items"]
    named = named_products(case["own_words"], {item["sku"]: item["name"] for item in items})
    return [item for item in items if item["sku"] in named[:2]]


async def _holds(ctx: AgentContext, customer: Input, decision: Decision) -> list[str]:
    """Why a person releases the refund whatever the confidence; the paid look-up is made only where it counts."""
    if not decision.due:
        return []
    holds = [] if customer["verified"] else ["the account is not verified (KB-82)"]
    if LOOKUP_FROM <= decision.amount <= LOOKUP_TO:
        credit = await ctx.tool("lookups.credit", {"customer_id": customer["id"]})
        if decision.amount > BAND_LIMITS.get(credit["band"], 0.0):
            holds.append(f"the credit look-up gave band {credit['band']} (KB-19)")
    return holds


# --- respond ----------------------------------------------------------------------------------------


async def respond(ctx: AgentContext, input: Input) -> Output:
    """A reply whose every statement cites a passage or a record; after objections, the reply without what they quote.

    Raises:
        LowConfidence: nothing that can be backed answers the ticket.
    """
    case, facts = input["triage"], input["account"]
    body = _body(ctx, case, facts, input["knowledge"]["passages"])
    body, sorry = mend(body, ctx.feedback)
    if not body:
        raise LowConfidence(
            "nothing in the knowledge base or the records answers the message",
            options=[
                {"id": "answer", "label": "write the answer"},
                {"id": "add", "label": "add a passage, and run again"},
            ],
            evidence={"topic": case["topic"], "objections": ctx.feedback},
        )
    reply = write(facts["customer"]["name"], body, apology=sorry or wants_apology(case["topic"], case["urgency"]))
    return {
        "reply": reply,
        "citations": list(dict.fromkeys(sentence.source for sentence in body)),
        "refund": _proposal(facts["refund"]),
    }


def _proposal(decision: Input) -> Output:
    return {name: decision[name] for name in ("due", "order_id", "amount", "currency", "reason")}


def _body(ctx: AgentContext, case: Input, facts: Input, passages: Sequence[Input]) -> list[Sentence]:
    index = _index(ctx)
    if facts["foreign"]:
        return passage_sentences(index, "KB-64")
    decision = facts["refund"]
    if decision["answer"] != "not_asked":
        return refund_sentences(decision, facts, index)
    body = payment_sentences(facts)
    if case["topic"] in NEEDS_ORDER:
        body += [sentence for order in facts["orders"] for sentence in order_sentences(order)]
    if case["topic"] == "order_status" and facts["orders"]:
        return body + status_sentences(facts["orders"], index)
    return body + knowledge_sentences(passages, case["own_words"])


# --- quality ----------------------------------------------------------------------------------------


async def quality(ctx: AgentContext, input: Input) -> Output:
    """Check a reply: every claim against its source, the refund against the rules, the tone, and whose data it names.

    The sources are read again here: the knowledge base from its files, the records from what the systems answered, and
    the refund from the rules; nothing is taken from the maker but the reply and the proposal.
    """
    case, facts, made = input["triage"], input["account"], input["respond"]
    verdicts = _verdicts(ctx, facts, made["reply"], case["topic"])
    objections = [
        objection("CLAIM", verdict.reason, verdict.claim.text) for verdict in verdicts if not verdict.supported
    ]
    objections += _refund_objections(facts, made, case["topic"])
    sorry = case["angry"] or case["topic"] in ("complaint", "delivery_problem")
    objections += [
        objection(remark.rule, remark.message, remark.found)
        for remark in check_tone(made["reply"], apology=sorry and case["urgency"] != "low", acronyms=_CAPITALS)
        if remark.severity == "must"
    ]
    objections += _stranger_objections(facts, made["reply"])
    backed = sum(verdict.supported for verdict in verdicts) / max(len(verdicts), 1)
    return {
        "approved": bool(verdicts) and not objections,
        "objections": objections,
        "confidence": case["confidence"] * backed,
        "claims": [_claim(verdict) for verdict in verdicts],
    }


_CAPITALS: Final = frozenset({"ORDER", "POLICY", "REFUND", "PAYMENTS", "STOCK", "DECISION", "GDPR"})
_ORDER_ID: Final = re.compile(r"\bO-\d{4,}\b")
_CUSTOMER_ID: Final = re.compile(r"\bC-\d{4,}\b")
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


def _verdicts(ctx: AgentContext, facts: Input, reply: str, topic: str) -> list[Verdict]:
    index = _index(ctx)
    sources = {key: passage.text for key, passage in index.passages.items() if "internal" not in passage.tags}
    records = records_of(facts["orders"], facts["refunds"], facts["payments"], facts["stock"])
    sources.update({record["id"]: record["text"] for record in records})
    decision = _ruled(facts, topic)
    if decision.due:
        sources[f"DECISION-{decision.order_id}"] = decision_text(decision.as_dict())
    return verify_all(reply, sources, courtesies=courtesies(facts["customer"]["name"]))


def _ruled(facts: Input, topic: str) -> Decision:
    return decide(facts["orders"][0], topic) if len(facts["orders"]) == 1 else NO_REFUND


def _refund_objections(facts: Input, made: Input, topic: str) -> list[str]:
    """The proposal has to be what the rules give for the record, to the cent."""
    ruled = _proposal(_ruled(facts, topic).as_dict())
    if made["refund"] != ruled:
        return [
            objection(
                "R-REFUND", f"the rules give {ruled['amount']:.2f}, the proposal is {made['refund']['amount']:.2f}"
            )
        ]
    return []


def _stranger_objections(facts: Input, reply: str) -> list[str]:
    """Only the customer's own orders, number and address may be named."""
    customer = facts["customer"]
    own = {
        _ORDER_ID: [order["id"] for order in facts["orders"]],
        _CUSTOMER_ID: [customer["id"]],
        _EMAIL: [customer["email"]],
    }
    found = [name for pattern, allowed in own.items() for name in strangers(reply, allowed, pattern)]
    return [objection("C-STRANGER", "it names somebody else's data", name) for name in found]


def _claim(verdict: Verdict) -> Output:
    return {
        "text": verdict.claim.text,
        "supported": verdict.supported,
        "source": verdict.source or "",
        "overlap": round(verdict.overlap, 3),
        "reason": verdict.reason,
    }


# --- when another run already refunds ------------------------------------------------------------------


async def refund_status(ctx: AgentContext, input: Input) -> Output:
    """The refund that another run has already started for the same order, so that the reply stays true.

    Raises:
        DataMissing: there is none to be found (yet).
    """
    wanted = input["respond"]["refund"]
    for refund in await _refunds(ctx, wanted["order_id"]):
        if abs(refund["amount"] - wanted["amount"]) < 0.005:
            return {name: refund[name] for name in ("id", "order_id", "amount", "currency", "status")}
    raise DataMissing(
        f"another run claims the refund of order {wanted['order_id']}, and no such refund is to be found",
        needed="whether the customer gets the money",
        evidence=dict(wanted),
    )
