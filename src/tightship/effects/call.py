"""One call, as it comes to the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tightship.controls.budgets import Amount
from tightship.core.ports import EffectClass, Json, Tool, UndoSpec
from tightship.ledger import Expected, SealedPayload


@dataclass(slots=True)
class Call:
    """What an agent or an action asks for.

    Attributes:
        key: the path of nodes, tasks and ordinals; unique in the run, the same on replay.
        tool: what performs it.
        cls: `read`, `write`, `model`, `context` (an operation of the shared context), or `undo` (a compensation, which
            a halt lets pass).
        agent: the acting identity: an agent's name, or `workflow` for an action of the workflow itself.
        args: the arguments, as JSON.
        declared: the tools that this identity declared.
        task: the envelope it is paid from first (`agent:NAME` or `run`).
        claim: the business key that no other run may hold (F9).
        undo: the compensation, recorded with the write; `undo_declared` says that there is none on purpose.
        undoes: the key of the action that this call compensates, and the claim that it gives free.
        deadline: store time (s) after which it may not begin.
        ceiling: the highest cost, reserved before the call.
        after: the key of the effect whose conversation this one continues, or empty.
        replied: whether that effect's outcome is the next message of the conversation.
        said: the messages that come then, sealed. A conversation is the chain of these, so that n turns cost O(n).
        line: the branch or item that it belongs to, for the detection of loops.
        fresh: do not answer from cache.
        settling: an interrupted run finds out what became of this write; a halt lets it pass.
        kept: settling for a run that goes on later: what was not done stays to be tried again.
        expect: values of the shared context that must still stand when it is admitted.
        turn: the key of the turn that asks, for an operation of the shared context.
        cache: seconds for which an answer may be used again, where the tool's own are fewer.
    """

    key: str
    tool: Tool
    cls: EffectClass
    agent: str
    args: Mapping[str, Json]
    declared: frozenset[str]
    task: str = "run"
    claim: str | None = None
    undo: UndoSpec | None = None
    undoes: str | None = None
    releases: str | None = None
    deadline: float | None = None
    ceiling: Amount = field(default_factory=Amount)
    after: str = ""
    replied: bool = False
    said: tuple[SealedPayload, ...] = ()
    line: str = ""
    fresh: bool = False
    settling: bool = False
    kept: bool = False
    expect: tuple[Expected, ...] = ()
    turn: str = ""
    cache: float = 0.0

    @property
    def costs(self) -> bool:
        """Whether it admits and settles: a write, or anything that may cost money or tokens."""
        return self.cls in ("write", "undo") or bool(self.ceiling.usd or self.ceiling.tokens)
