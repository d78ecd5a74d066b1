"""Reception: what a ticket asks for, and who should have it.

It works without a language model, by words. To move it to one, see the comment in the support template's agents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tightship import OutOfScope

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

DOMAINS: Final[Mapping[str, Sequence[str]]] = {
    "it": ("log in", "login", "password", "account", "app", "website", "checkout page", "hacked", "phishing"),
    "orders": ("parcel", "arrive", "arrived", "deliver", "delivered", "sent", "where is", "in stock", "lost"),
    "billing": ("charged", "invoice", "payment", "paid", "refund", "money", "bill"),
}
"""The words by which a sentence belongs to a domain; the domain with the most of them has it, the first where two have
as many."""
_ORDER: Final = re.compile(r"\bO-\d{4,}\b")
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


async def reception(ctx: AgentContext, input: Input) -> Output:
    """Answer, or hand over with a brief.

    Raises:
        OutOfScope: it is for no domain, and reception has no answer.
    """
    sentences = [one for one in re.split(r"(?<=[.?!])\s+", " ".join(input["ticket"].split())) if one]
    questions = [f"{domain}: {one}" for one in sentences if (domain := domain_of(one)) is not None]
    if not questions:
        return {"answer": _known(ctx, input["ticket"]), "waiting": ""}
    orders = list(dict.fromkeys(_ORDER.findall(input["ticket"])))
    brief: Output = {
        "ticket_id": input["id"],
        "problem": " ".join(sentences)[:500],
        "orders": orders,
        "facts": [],
        "constraints": [*ctx.constraints, *(["write, do not phone"] if "not call" in input["ticket"] else [])],
        "open_questions": questions,
    }
    customer = input["customer_id"] or await _looked_up(ctx, input["ticket"])
    if customer:
        brief["customer_id"] = customer
    to = questions[0].partition(":")[0]
    return {"answer": "", "waiting": "", "handoff": {"to": to, "brief": brief}}


def domain_of(sentence: str) -> str | None:
    """The domain that a sentence belongs to, or None."""
    plain = sentence.casefold()
    counts = {name: sum(bool(re.search(rf"\b{word}\b", plain)) for word in words) for name, words in DOMAINS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


async def _looked_up(ctx: AgentContext, ticket: str) -> str:
    """Who writes, by the address in the ticket; looked up only once the brief has come back for want of it."""
    found = _EMAIL.search(ticket) if any("customer_id" in one for one in ctx.feedback) else None
    if found is None:
        return ""
    listed = await ctx.tool("customers.list", {"email": found[0]})
    return str(listed["items"][0]["id"]) if len(listed["items"]) == 1 else ""


def _known(ctx: AgentContext, ticket: str) -> str:
    plain = ticket.casefold()
    for line in (ctx.knowledge() / "answers.jsonl").read_text("utf-8").splitlines():
        known = json.loads(line)
        if any(word in plain for word in known["words"]):
            return str(known["answer"])
    raise OutOfScope("the ticket is for none of the domains", needed="somebody to say whose it is")
