"""Claims that stand in what they cite (F10): several that agree on an invention are no evidence for it.

A claim names what gave it: a call of a tool, or a value of the shared context in the version that was read. Only what
reached this turn through the door counts, and the ledger says that it did. Whether the claim stands there is judged by
exact rules (`agents.offline.claims`), by nobody who wrote it. What a tool for writing answers, what the agent itself
has written into the shared context, and what other agents say is no source; an input is one only where it is declared.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tightship.agents.offline.claims import Claim, verify
from tightship.core import kinds
from tightship.core.errors import Ungrounded
from tightship.core.ports import Json
from tightship.effects.session import Session
from tightship.workflow.models import GroundedSpec

CLAIM: Final = "claim"
SOURCE: Final = "source"
_TEXT: Final = 200
_ATTEMPT: Final = re.compile(r"~\d+$")


@dataclass(frozen=True, slots=True)
class Ungroundedness:
    """A claim that does not stand, and why."""

    claim: str
    reason: str

    def __str__(self) -> str:
        return f"{self.claim[:_TEXT]!r}: {self.reason}" if self.claim else self.reason


async def require_grounded(
    session: Session, agent: str, key: str, spec: GroundedSpec, given: Mapping[str, Json], output: Json
) -> None:
    """Hold every claim of an output against what it cites.

    Args:
        agent: who claims. key: the turn's key, of any attempt. given: the turn's inputs.

    Raises:
        Ungrounded: a claim cites nothing, something that was not read in this turn, or says what its source does not.
    """
    wrong = judge(spec, output, await sources(session, agent, key, spec, given))
    if wrong:
        raise Ungrounded(
            f"{agent} claims what its sources do not say: " + "; ".join(str(one) for one in wrong),
            fix="let it cite the call (`orders.get`, or the call's key) or the value (`stock/A-1@17`) that says so",
        )


def judge(spec: GroundedSpec, output: Json, known: Mapping[str, Sequence[str]]) -> list[Ungroundedness]:
    """The claims of an output that do not stand.

    Args:
        known: the texts of each source by what it may be cited as; one of them has to cover the claim.
    """
    claims = output.get(spec.claims) if isinstance(output, Mapping) else None
    if not isinstance(claims, list | None):
        return [Ungroundedness(str(claims), f"{spec.claims} is no list of claims with their sources")]
    if len(claims or ()) < spec.fewest:
        return [
            Ungroundedness("", f"{spec.fewest} claims with their sources are needed, and {len(claims or ())} given")
        ]
    found: list[Ungroundedness] = []
    for one in claims or ():
        text, cited = _parts(one)
        reason = "it cites no source" if not cited else _why_not(text, cited, known, spec.overlap)
        if reason:
            found.append(Ungroundedness(text, reason))
    return found


def _parts(one: Any) -> tuple[str, list[str]]:
    if not isinstance(one, Mapping):
        return str(one), []
    cited = one.get(SOURCE)
    names = cited if isinstance(cited, list) else [] if cited in (None, "") else [cited]
    said = one.get(CLAIM)
    return said if isinstance(said, str) else orjson.dumps(said).decode(), [str(name).strip() for name in names]


def _why_not(text: str, cited: Sequence[str], known: Mapping[str, Sequence[str]], overlap: float) -> str:
    """Why what is cited does not say it; empty when it does. Of several calls under one name, one has to."""
    unknown = [name for name in cited if name not in known]
    if unknown:
        return f"{', '.join(unknown)} is nothing that it has read in this turn"
    passages = {f"{name}#{number}": passage for name in cited for number, passage in enumerate(known[name], 1)}
    reason = ""
    for name in passages:
        verdict = verify(Claim(text, (name,)), passages, overlap=overlap)
        if verdict.supported:
            return ""
        reason = reason or verdict.reason
    whole = verify(Claim(text, tuple(passages)), passages, overlap=overlap) if len(cited) > 1 else None
    return "" if whole is not None and whole.supported else reason


async def sources(
    session: Session, agent: str, key: str, spec: GroundedSpec, given: Mapping[str, Json]
) -> dict[str, list[str]]:
    """The texts of all that this turn may cite, by every name it may be cited as."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    base, journal = _ATTEMPT.sub("", key), session.journal
    for path, body in list(journal.effects.items()):
        if not _below(path, base) or "out" not in body:
            continue
        cls = body.get("cls")
        if not ((cls == "read" and "tools" in spec.sources) or (cls == "context" and "context" in spec.sources)):
            continue
        await journal.landed(kinds.SETTLED, path)
        value = await journal.value(body["out"])
        if cls == "read":
            for name in (path, str(body["name"])):
                found[name].append(as_text(value))
        elif isinstance(value, list):  # what was read of the shared context; a write gives an object
            for one in value:
                if one.get("version") and one.get("writer") != agent:
                    for name in (f"{one['key']}@{one['version']}", str(one["key"])):
                        found[name].append(as_text({one["key"]: one["value"]}))
    for name in spec.sources:
        kind, _, field = name.partition(".")
        if kind == "input" and field in given:
            found[name].append(as_text({field: given[field]}))
    return found


def _below(path: str, base: str) -> bool:
    return path.startswith((f"{base}/", f"{base}~"))


def as_text(value: Json) -> str:
    """A JSON value as sentences: one for each object and list of plain values, names before what they hold."""
    sentences: list[str] = []

    def say(name: str, one: Json) -> str:
        words = name.replace("_", " ").replace("/", " ").strip()
        if isinstance(one, Mapping):
            plain = [say(str(field), inner) for field, inner in one.items()]
            told = ", ".join(part for part in plain if part)
            if told:
                sentences.append(f"{words}: {told}." if words else f"{told}.")
            return ""
        if isinstance(one, list):
            plain = [say(name, inner) for inner in one]
            return ", ".join(part for part in plain if part)
        text = one if isinstance(one, str) else orjson.dumps(one).decode()
        return f"{words} {text}".strip()

    rest = say("", value)
    return "\n".join([*sentences, *([rest] if rest else [])])
