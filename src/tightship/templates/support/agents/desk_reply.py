"""Composing a reply from sentences that each cite their source, and mending it after a checker's objections."""

# pyright: reportMissingImports=false
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from desk_records import days, money

from tightship.agents.offline import BM25Index
from tightship.agents.offline.text import sentences, terms

CLOSING: Final = "Kind regards, the support team"
APOLOGY: Final = "We are sorry for the trouble."
FOLLOW_UP: Final = "Please answer this message if anything is open."
_OBJECTION: Final = re.compile(r"^(?P<rule>[A-Z]+(?:-[A-Z]+)?)(?: «(?P<found>[^»]*)»)?: ")
_SORRY_TOPICS: Final = frozenset({"delivery_problem", "complaint"})


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the id of the source that it cites."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


def greeting(name: str) -> str:
    """The first line."""
    return f"Hello {name.split(maxsplit=1)[0]},"


def courtesies(name: str) -> tuple[str, ...]:
    """The lines of a reply that claim nothing."""
    return greeting(name), APOLOGY, FOLLOW_UP, CLOSING


def order_sentences(order: Mapping[str, Any]) -> list[Sentence]:
    """Where an order stands."""
    name, source = f"Order {order['id']}", f"ORDER-{order['id']}"
    said = {
        "placed": f"{name} is placed but not paid yet, so it waits for the payment.",
        "paid": f"{name} is paid and being packed; it is not shipped yet.",
        "shipped": f"{name} was shipped and is on its way; the carrier has it.",
        "delivered": f"{name} was delivered {days(order['days_since_delivery'] or 0)} ago.",
        "returned": f"{name} was returned and the goods are back in the warehouse.",
        "cancelled": f"{name} was cancelled.",
        "lost": f"{name} was shipped and lost by the carrier.",
    }
    found = [Sentence(said[order["status"]], source)]
    if order["status"] == "shipped" and order["note"]:
        found += [Sentence(text, source) for text in sentences(order["note"])]
    return found


def status_sentences(orders: Sequence[Mapping[str, Any]], index: BM25Index) -> list[Sentence]:
    """What usually helps somebody whose orders stand as they do."""
    helps = {"placed": "KB-33", "paid": "KB-20", "shipped": "KB-22", "delivered": "KB-23"}
    wanted = dict.fromkeys(helps[order["status"]] for order in orders if order["status"] in helps)
    return [sentence for passage in wanted for sentence in passage_sentences(index, passage)]


def decision_text(decision: Mapping[str, Any]) -> str:
    """What is said about a refund that is due; true from the moment when the reply is sent."""
    amount = money(decision["amount"], decision["currency"])
    return f"A refund of {amount} for order {decision['order_id']} has been started."


def refund_sentences(decision: Mapping[str, Any], account: Mapping[str, Any], index: BM25Index) -> list[Sentence]:
    """What the refund rules give for this order, and why."""
    order_id, answer = decision["order_id"], decision["answer"]
    order = next(order for order in account["orders"] if order["id"] == order_id)
    source = f"ORDER-{order_id}"
    rules = [
        Sentence(record["text"], record["id"]) for record in account["records"] if record["id"] in decision["rules"]
    ]
    rules += _explained(decision["rules"], index)
    match answer:
        case "due":
            started = Sentence(decision_text(decision), f"DECISION-{order_id}")
            return [started, *rules, *passage_sentences(index, "KB-11")]
        case "already":
            refunded = f"Of order {order_id} {money(order['refunded'], order['currency'])} was refunded already."
            return [Sentence(refunded, source), *_numbers(account["refunds"]), *passage_sentences(index, "KB-11")]
        case "unpaid":
            return [
                Sentence(f"Nothing was charged for order {order_id}.", source),
                *passage_sentences(index, "KB-13")[1:],
            ]
        case _:
            return [*order_sentences(order), *rules]


def _explained(rules: Sequence[str], index: BM25Index) -> list[Sentence]:
    """The passages behind a decision, without the sentences about cases that are not this one."""
    part = {"KB-13": slice(0, 1), "KB-15": slice(1, 2), "KB-16": slice(1, 2)}
    return [
        sentence
        for rule in rules
        if rule in index.passages
        for sentence in passage_sentences(index, rule)[part.get(rule, slice(None))]
    ]


def _numbers(refunds: Sequence[Mapping[str, Any]]) -> list[Sentence]:
    return [
        Sentence(
            f"The number of the refund is {refund['id']} and its status is {refund['status']}.",
            f"REFUND-{refund['id']}",
        )
        for refund in refunds
    ]


def payment_sentences(account: Mapping[str, Any]) -> list[Sentence]:
    """The payments of the orders that the case is about, as their records say."""
    return [
        Sentence(text, record["id"])
        for record in account["records"]
        if record["id"].startswith(("PAYMENTS-", "STOCK-"))
        for text in sentences(record["text"])
    ]


def passage_sentences(index: BM25Index, passage: str) -> list[Sentence]:
    """A whole passage."""
    return [Sentence(text, passage) for text in sentences(index.passages[passage].text)]


def knowledge_sentences(passages: Sequence[Mapping[str, Any]], question: str) -> list[Sentence]:
    """The best passage whole, and from a second one that fits nearly as well its best sentence."""
    if not passages:
        return []
    found = [Sentence(text, passages[0]["id"]) for text in sentences(passages[0]["text"])]
    for passage in passages[1:2]:
        if passage["score"] >= 0.6 * passages[0]["score"]:
            asked = set(terms(question))
            found.append(
                Sentence(max(sentences(passage["text"]), key=lambda text: len(asked & set(terms(text)))), passage["id"])
            )
    return found


def wants_apology(topic: str, urgency: str) -> bool:
    """Whether a first draft says sorry."""
    return topic in _SORRY_TOPICS and urgency != "low"


def mend(body: Sequence[Sentence], objections: Sequence[str]) -> tuple[list[Sentence], bool]:
    """What is left of a draft after objections, and whether an apology is asked for.

    A sentence that an objection quotes, in full or in part, is taken out: what cannot be backed is not said.
    """
    parsed = [match for match in map(_OBJECTION.match, objections) if match is not None]
    quoted = [match["found"].casefold() for match in parsed if match["found"]]
    kept = [one for one in body if not any(found in one.text.casefold() for found in quoted)]
    return kept, any(match["rule"] == "T-APOLOGY" for match in parsed)


def objection(rule: str, message: str, found: str = "") -> str:
    """An objection as a line that `mend` and people can read."""
    return f"{rule} «{found}»: {message}" if found else f"{rule}: {message}"


def write(name: str, body: Sequence[Sentence], *, apology: bool) -> str:
    """The reply as it would be sent."""
    once = list(dict.fromkeys(map(str, body)))
    middle = [*([APOLOGY] if apology else []), *once, FOLLOW_UP]
    return f"{greeting(name)}\n\n{' '.join(middle)}\n\n{CLOSING}"
