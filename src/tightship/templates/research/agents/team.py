"""The research team: planner, search, read, writer, and who stands in for the manager.

They work without a language model: full-text search, sentences that are quoted and never made up, and rules.
"""

# The modules of this folder import each other by their plain names, which a type checker sees only from inside it.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from shelves import EVERYWHERE, REGISTRY, best_sentence, figures, share

from tightship import DataMissing, RuleConflict, Unavailable
from tightship.agents.offline.text import terms

if TYPE_CHECKING:
    from tightship import AgentContext

Input = Mapping[str, Any]
Output = dict[str, Any]

FIGURE: Final = ("how many", "how much", "how long", "when", "what date", "how loud", "how heavy")
"""Parts that begin like this ask for a figure, which is looked up in two places."""
LEAST: Final = 0.6
"""How much of what is asked for a sentence must hold to count as an answer."""


# --- planning -----------------------------------------------------------------------------------------


async def planner(ctx: AgentContext, input: Input) -> Output:
    """Search, read and verify for every part; figures twice, on two shelves.

    The first plan goes by the question as it was asked. Parts that the question does not name are planned when the plan
    comes back. What a shelf could not give is looked up on another one; when there is none, what is done is enough.
    """
    parts, failed = input["parts"], input["failed"]
    asked = set(terms(input["question"]))
    if failed:
        lost = {one["input"]["part"] for one in failed if one["error"] == "Unavailable"}
        items = [part for part in parts if part in input["items"] or part in lost]
    else:
        items = [part for part in parts if ctx.feedback or asked & set(terms(part))]
    tasks = list[Output]()
    for part in items:
        for place, shelf in enumerate(_places(part, input), 1):
            again = f"-again{len(input['done']) + len(failed)}" if failed else ""
            tasks += _chain(f"{parts.index(part) + 1}-{place}{again}", part, shelf)
    return {"tasks": tasks}


def _places(part: str, input: Input) -> list[str]:
    """On which shelves a part is to be looked up now; none where nothing is left to try."""
    if not terms(part):
        return []  # nothing to search with
    before = [one for one in (*input["done"], *input["failed"]) if one["input"]["part"] == part]
    tried = {one["input"]["shelf"] for one in before if "shelf" in one["input"]}
    closed = {one["input"]["shelf"] for one in input["failed"] if one["error"] == "Unavailable"}
    left = [shelf for shelf in input["shelves"] if shelf not in tried | closed]
    if kind_of(part) == "figure" and len(input["shelves"]) > 1:
        return left[:1] if tried else left[:2]
    return [] if EVERYWHERE in tried else [EVERYWHERE]


def _chain(id: str, part: str, shelf: str) -> list[Output]:
    names = {worker: f"{worker}-{id}" for worker in ("search", "read", "verify")}
    first = {"id": names["search"], "worker": "search", "goal": f"search {shelf} for: {part}"}
    then = {"id": names["read"], "worker": "read", "goal": f"read what {shelf} says of: {part}"}
    last = {"id": names["verify"], "worker": "verify", "goal": f"verify what {shelf} says of: {part}"}
    return [
        {**first, "input": {"part": part, "shelf": shelf}},
        {**then, "needs": [names["search"]], "input": {"part": part, "kind": kind_of(part)}},
        {**last, "needs": [names["read"]], "covers": [part], "input": {"part": part}},
    ]


def kind_of(part: str) -> str:
    """Whether a part asks for a figure or for what a text says."""
    return "figure" if part.casefold().startswith(FIGURE) else "text"


# --- working ------------------------------------------------------------------------------------------


async def search(ctx: AgentContext, input: Input) -> Output:
    """The passages of a shelf that fit the part best, best first.

    Raises:
        Unavailable: there is no such shelf. DataMissing: nothing fits.
    """
    task = input["task"]["input"]
    shelves = list(input["shelves"]) if task["shelf"] == EVERYWHERE else [task["shelf"]]
    hits = list[str]()
    if REGISTRY in shelves:
        shelves.remove(REGISTRY)
        hits += await ctx.tool("registry.search", {"text": task["part"]})
    if shelves:
        found = await ctx.tool("documents.search", {"shelves": shelves, "text": task["part"]})
        if task["shelf"] in found["missing"]:
            raise Unavailable(f"the shelf {task['shelf']} cannot be reached", needed="somebody who can read it")
        hits = [*found["passages"], *hits]
    if not hits:
        raise DataMissing(f"{task['shelf']}: nothing is said of it: {task['part']}", needed=task["part"])
    return {"passages": hits}


async def read(ctx: AgentContext, input: Input) -> Output:
    """The sentence of the passages found that answers the part.

    Raises:
        DataMissing: none of them does.
    """
    task = input["task"]
    found = await ctx.tool("documents.get", {"ids": input["inputs"][task["needs"][0]]["passages"]})
    return _answer(task["input"]["part"], task["input"]["kind"], best_sentence(task["input"]["part"], found))


def _answer(part: str, kind: str, best: Any) -> Output:
    if best is None or share(part, best[0]) < LEAST or (kind == "figure" and not figures(best[0])):
        raise DataMissing(f"no sentence answers it: {part}", needed=part)
    sentence, passage = best
    return {"value": figures(sentence) if kind == "figure" else sentence, "sentence": sentence, "passage": passage}


# --- writing ------------------------------------------------------------------------------------------


async def writer(ctx: AgentContext, input: Input) -> Output:
    """The verified sentences in the order of the parts, each with the passages that say so.

    Where a summary is asked for, the first draft opens with one in its own words; when the checker objects, it goes.
    """
    lines, sources, superseded = list[str](), list[str](), list[str]()
    lost = {one["input"]["part"] for one in input["failed"] if one["error"] == "Unavailable"}
    for part in input["parts"]:
        verified = [one["value"] for one in input["results"] if part in one["covers"]]
        value = input["settled"].get(part, verified[0]["value"])
        agreed = [one for one in verified if one["value"] == value]
        superseded += [one["passage"] for one in verified if one["value"] != value]
        cited = list(dict.fromkeys(one["passage"] for one in agreed))
        lines.append(cite(agreed[0]["sentence"], cited))
        sources += cited
    if input.get("summary") and not ctx.feedback:
        lines.insert(0, f"In short, {len(sources)} documents agree on all of it.")
    alone = [part for part in input["parts"] if part in lost]
    return {**report("manager", lines, sources, superseded), "unconfirmed": alone}


async def stand_in(ctx: AgentContext, input: Input) -> Output:
    """What was verified until then, the newest where it differs, and what one search alone finds; the rest stays open.

    A figure on which not two documents agree is unconfirmed.

    Raises:
        RuleConflict: two current documents contradict each other. DataMissing: there is no answer to any part.
    """
    why = input["failed"][0]
    if why["error"] == "NoConsensus":
        said = why["evidence"]["answers"]
        raise RuleConflict(
            "; ".join(one["reason"] for one in said),
            needed="which of the two documents holds",
            evidence={"answers": said},
        )
    by_age = sorted((one for one in input["results"] if one["covers"]), key=lambda one: one["value"]["month"])
    verified = {part: one["value"] for one in by_age for part in one["covers"]}
    same = [(part, one) for one in by_age for part in one["covers"]]
    agreed = Counter(part for part, one in same if one["value"]["value"] == verified[part]["value"])
    lines, sources, open_, alone = list[str](), list[str](), list[str](), list[str]()
    for part in input["parts"]:
        found = verified.get(part)
        if found is None:
            try:
                found = _answer(part, kind_of(part), best_sentence(part, await _alone(ctx, input["shelves"], part)))
            except DataMissing:
                open_.append(part)
                continue
        if agreed[part] < (2 if kind_of(part) == "figure" else 1):
            alone.append(part)
        lines.append(cite(found["sentence"], [found["passage"]]))
        sources.append(found["passage"])
    if not lines:
        raise DataMissing("the documents answer no part of the question", needed="; ".join(input["parts"]))
    return {**report("stand-in", lines, sources, []), "open": open_, "unconfirmed": alone}


async def _alone(ctx: AgentContext, shelves: Sequence[str], part: str) -> list[Input]:
    """The passages of the shelves of the house, which answer at once."""
    near = [shelf for shelf in shelves if shelf != REGISTRY]
    if not near or not terms(part):
        return []
    found = await ctx.tool("documents.search", {"shelves": near, "text": part})
    return await ctx.tool("documents.get", {"ids": found["passages"]}) if found["passages"] else []


def cite(sentence: str, ids: Sequence[str]) -> str:
    """A sentence with its sources before the full stop."""
    return f"{sentence.rstrip('.')} [{', '.join(ids)}]."


def report(by: str, lines: Sequence[str], sources: Sequence[str], superseded: Sequence[str]) -> Output:
    """A report in which nothing is open."""
    return {
        "text": "\n\n".join(lines),
        "sources": list(dict.fromkeys(sources)),
        "superseded": list(dict.fromkeys(superseded)),
        "open": [],
        "unconfirmed": [],
        "by": by,
    }
