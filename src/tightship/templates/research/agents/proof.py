"""Quality: verify, newer and checker. They open the documents themselves, and trust nothing that they judge."""

# The modules of this folder import each other by their plain names, which a type checker sees only from inside it.
# pyright: reportMissingImports=false
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from shelves import figures, share

from tightship import DataMissing, RuleConflict
from tightship.agents.offline import Claim, split_claims, verify_all
from tightship.agents.offline import verify as supported

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

LEAST: Final = 0.6
"""How much of what is asked for a verified sentence must hold."""
CLEARLY_OLDER: Final = 12
"""Months between two documents from which on the newer one replaces the older one."""
_SAID: Final = re.compile(r"of (\d{4})-(\d{2}):")


async def verify(ctx: AgentContext, input: Input) -> Output:
    """What was read, confirmed by the passage that it cites.

    Raises:
        DataMissing: the passage does not say so, or what it says is no answer.
    """
    part, found = input["task"]["input"]["part"], input["inputs"][input["task"]["needs"][0]]
    opened = await _opened(ctx, [found["passage"]])
    texts = {id: one["text"] for id, one in opened.items()}
    verdict = supported(Claim(found["sentence"], (found["passage"],)), texts)
    if not verdict.supported:
        raise DataMissing(f"{found['passage']} does not say it: {verdict.reason}", needed=part)
    if share(part, found["sentence"]) < LEAST:
        raise DataMissing(f"{found['passage']} does not answer it: {part}", needed=part)
    value = found["value"] if isinstance(found["value"], str) else figures(found["sentence"])
    at = opened[found["passage"]]["month"]
    reason = f"{found['passage']} of {at}: {found['sentence']}"
    return {**{name: found[name] for name in ("sentence", "passage")}, "value": value, "month": at, "reason": reason}


async def newer(ctx: AgentContext, input: Input) -> Output:
    """The figure of the document that is clearly newer than all that differ from it.

    Raises:
        RuleConflict: none is; two current documents contradict each other.
    """
    ages = sorted(((_months(one["reasons"]), one) for one in input["answers"]), key=lambda pair: -pair[0])
    (newest, chosen), (next_, _) = ages[:2]
    if newest - next_ < CLEARLY_OLDER:
        raise RuleConflict("; ".join(reason for _, one in ages for reason in one["reasons"]))
    return {"answer": chosen["answer"], "reason": f"the newer document counts: {'; '.join(chosen['reasons'])}"}


def _months(reasons: list[str]) -> int:
    """The age of the newest document that says so, in months since the year 0; 0 where none says its age."""
    found = [match for reason in reasons if (match := _SAID.search(reason))]
    return max((int(match[1]) * 12 + int(match[2]) for match in found), default=0)


async def checker(ctx: AgentContext, input: Input) -> Output:
    """Whether every claim of a report cites a passage that says so, and nothing internal is cited."""
    text = input["report"]["text"]
    cited = list(dict.fromkeys(id for claim in split_claims(text) for id in claim.citations))
    verdicts = verify_all(text, {id: one["text"] for id, one in (await _opened(ctx, cited)).items()})
    objections = [f"{one.reason}: {one.claim.text}" for one in verdicts if not one.supported]
    return {"approved": bool(verdicts) and not objections, "objections": objections}


async def _opened(ctx: AgentContext, ids: list[str]) -> dict[str, Mapping[str, Any]]:
    """The passages of these ids that may be cited."""
    found = await ctx.tool("documents.get", {"ids": ids}) if ids else []
    return {one["id"]: one for one in found}
