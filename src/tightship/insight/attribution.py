"""Which agent, at which step, may have caused a failure (O6): a ranking of evidence, and no finding.

Evidence is what can be read off the log without judging what the work is about: errors, refusals, objections,
unanswered instructions, the place from which on nothing moved. It was held against half of the hand-crafted logs of
S. Zhang et al., "Which Agent Causes Task Failures and When?" (ICML 2025), by `benchmarks/attribution.py`: it does not
clearly beat always naming the same agent, and is worse than always naming the same step. So nothing here may be read as
a finding; it says where to look first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.controls.loop_verdicts import LoopWatch
from tightship.controls.transcript import Said, transcript
from tightship.core import kinds
from tightship.core.errors import InputRejected
from tightship.core.ports import WORKFLOW, EntryView
from tightship.insight._reading import base_of

CAVEAT: Final = "a ranking of evidence, and no finding: it says where to look first, not who is to blame"

_FAILED = re.compile(
    r"\b(traceback|exception|error \d{3}|404|not found|no results|failed|failure|unable to|cannot|could not|couldn't|"
    r"timed out|denied|unavailable|encountered an error)\b",
    re.IGNORECASE,
)
_LOOKED_AT: Final = 1_500
"""Characters at the start of a message, and at its end, in which failures are looked for."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that speaks for a step as the cause.

    Attributes:
        step: the message's position, or the key in a run's ledger. agent: whose step it is.
        weight: how much it counts, above 0. reason: what was seen.
    """

    step: str
    agent: str
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """An agent or a step with what speaks for it.

    Attributes:
        name: the agent, or the step. agent: whose step it is. share: its part of all weight, 0 to 1. reasons: what was
            seen, the weightiest first.
    """

    name: str
    agent: str
    share: float
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "agent": self.agent,
            "share": round(self.share, 4),
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class Attribution:
    """Agents and steps, the likeliest first by the evidence; both are empty where nothing speaks for anybody."""

    agents: tuple[Suspect, ...]
    steps: tuple[Suspect, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON, with what it is worth."""
        return {
            "caveat": CAVEAT,
            "agents": [one.as_dict() for one in self.agents],
            "steps": [one.as_dict() for one in self.steps],
        }


def attribute(messages: Sequence[Mapping[str, Any]]) -> Attribution:
    """Rank the agents and steps of a failed run by its messages.

    Args:
        messages: as for `detect_loops`, all of them: this looks back on a run that has ended.

    Raises:
        InputRejected: a message has no role or no text, or there is nothing but a task.
    """
    told = list(transcript(messages))
    if len(told) < 2:
        raise InputRejected("there is nothing to attribute: a log needs a task and what was said after it")
    return rank(_from_messages(told))


def attribute_run(entries: Sequence[EntryView]) -> Attribution:
    """Rank the agents and steps of a run by its ledger.

    Args:
        entries: the run's, in their order.
    """
    return rank(_from_entries(entries))


def rank(evidence: Iterable[Evidence]) -> Attribution:
    """Put evidence together by agent and by step; of equals, what came first comes first."""
    found = list(evidence)
    total = sum(one.weight for one in found) or 1.0
    by_agent: dict[str, list[Evidence]] = {}
    by_step: dict[str, list[Evidence]] = {}
    for one in found:
        by_agent.setdefault(one.agent, []).append(one)
        by_step.setdefault(one.step, []).append(one)

    def suspects(groups: Mapping[str, list[Evidence]], steps: bool) -> tuple[Suspect, ...]:
        made = [
            Suspect(name, parts[0].agent, sum(one.weight for one in parts) / total, _reasons(parts, steps))
            for name, parts in groups.items()
        ]
        return tuple(sorted(made, key=lambda one: -one.share))

    return Attribution(suspects(by_agent, steps=False), suspects(by_step, steps=True))


def _reasons(parts: Sequence[Evidence], steps: bool) -> tuple[str, ...]:
    weighty = sorted(parts, key=lambda one: -one.weight)
    return tuple(dict.fromkeys(one.reason if steps else f"{one.step}: {one.reason}" for one in weighty[:5]))


# --- messages -----------------------------------------------------------------------------------------


def _from_messages(told: Sequence[Said]) -> Iterable[Evidence]:
    watch = LoopWatch()
    looping = [watch.judge(message) for message in told]
    began = next((one.position for one in looping if one.looping), None)
    asked: int | None = None
    for position, message in enumerate(told):
        if position == 0 or message.aside or not message.text.strip():
            continue
        step, agent = str(position), message.speaker
        if message.addressee:
            if asked is not None:
                yield Evidence(str(asked), told[asked].addressee, 0.5, "was asked and gave no answer")
            asked = position
        else:
            asked = None
            yield Evidence(step, agent, 0.1, "took part")
        if _FAILED.search(message.text[:_LOOKED_AT]) or _FAILED.search(message.text[-_LOOKED_AT:]):
            yield Evidence(step, agent, 0.3, "speaks of a failure")
        if position == began:
            yield Evidence(step, agent, 0.5, f"the run goes round in circles from here on: {looping[position].reason}")


# --- ledger -------------------------------------------------------------------------------------------


def _from_entries(entries: Sequence[EntryView]) -> Iterable[Evidence]:
    turns = list[tuple[str, str]]()  # the key and the agent of each that was taken until then
    for entry in entries:
        body = entry.body
        agent = str(body.get("agent") or "")
        if entry.kind == kinds.NOTE:
            yield from _from_note(entry, turns)
        elif entry.kind == kinds.SIGNAL and body.get("type") == "child" and body.get("outcome") != "completed":
            yield Evidence(str(body["at"]), f"run {body['child']}", 0.7, f"the run below ended: {body['outcome']}")
        elif not agent or agent == WORKFLOW:
            continue
        elif entry.kind == kinds.TURN:
            turns.append((entry.key, agent))
            yield from _from_turn(entry, agent)
        elif entry.kind == kinds.SETTLED:
            yield from _from_effect(entry, agent)


def _from_turn(entry: EntryView, agent: str) -> Iterable[Evidence]:
    error = entry.body.get("error")
    if error:
        yield Evidence(entry.key, agent, 1.0, f"its turn ended with {error.get('error', 'an error')}")
    if entry.body.get("repair"):
        yield Evidence(entry.key, agent, 0.5, "gave an output that did not fit and was asked again")


def _from_effect(entry: EntryView, agent: str) -> Iterable[Evidence]:
    body = entry.body
    name = body.get("name", "a tool")
    refused, error = body.get("refused"), body.get("error")
    if refused or body.get("denied"):
        why = (refused or error or {}).get("signal") or (error or {}).get("error") or "refused"
        yield Evidence(entry.key, agent, 0.7, f"asked {name} for what was not let through ({why})")
    elif error:
        yield Evidence(entry.key, agent, 0.3, f"{name} failed ({error.get('error', 'an error')})")


_NOTES: Final[Mapping[str, tuple[float, str]]] = {
    "checkpoint.failed": (0.8, "a checkpoint after it did not hold"),
    "maker_checker.round": (0.3, "its checker objected"),
    "exception": (0.5, "raised an exception"),
    "branch.failed": (0.5, "its branch failed"),
    "task.failed": (0.5, "its task failed"),
    "plan.rejected": (0.5, "its plan did not stand"),
    "handoff.returned": (0.5, "its handoff came back"),
    "handoff.refused": (0.8, "its handoff did not stand"),
    "peers.refused": (0.2, "asked for what its board did not let through"),
    "loop": (0.8, "went round in circles"),
}


def _from_note(entry: EntryView, turns: Sequence[tuple[str, str]]) -> Iterable[Evidence]:
    """What a note says against somebody: whom it names, else whose turn it is about."""
    body, step = entry.body, base_of(entry.key)
    type = str(body.get("type"))
    if type not in _NOTES or body.get("passed"):
        return
    weight, reason = _NOTES[type]
    below = [one for one in turns if one[0] == step or one[0].startswith(f"{step}/")]
    around = [one for one in turns if one[0].startswith(step.rpartition("/")[0])]
    if type == "maker_checker.round":  # the maker's is the first of its round
        key, agent = below[0] if below else (entry.key, step)
    else:
        key, agent = below[-1] if below else around[-1] if around else (entry.key, step)
    named = str(body.get("agent") or body.get("source") or (body.get("title") if type == "exception" else "") or "")
    yield Evidence(entry.key if named and named != agent else key, named or agent, weight, reason)
