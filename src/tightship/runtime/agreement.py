"""What a gate compares: the reads of agents, as the run's ledger has them, and one snapshot of the shared context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tightship.context import Declared, Value
from tightship.context.desk import SharedContext
from tightship.core.errors import NotDeclared
from tightship.core.ports import WORKFLOW
from tightship.effects.door import Door
from tightship.effects.frame import Agreement
from tightship.effects.journal import Journal
from tightship.effects.shared import SNAPSHOT, local_call
from tightship.ledger import Expected
from tightship.workflow.context_keys import matches

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame

Used = list[list[Any]]
"""Scope, key, version, and the age (s) that the reader accepted, or None."""


async def agree(frame: NodeFrame, agents: Sequence[str], on: Sequence[str], inside: Sequence[str]) -> Agreement:
    """Compare what agents have read inside some steps with a snapshot of it."""
    session, shared = frame.task.session, _shared(frame)
    await session.journal.drain()
    used: Used = await frame.decide("used", lambda: _used(session.journal, agents, on, inside))
    keys = list(dict.fromkeys([*(key for key in on if "*" not in key), *(key for _, key, _, _ in used)]))
    ages = _ages(used)
    call = local_call(SNAPSHOT, f"{frame.key}/context/1", WORKFLOW, {"keys": keys, "gated": True, "ages": ages})
    values = [Value.from_json(one) for one in await Door(session).perform(call)]
    found = {value.key: value for value in values}
    changed = list(dict.fromkeys(key for _, key, version, _ in used if found[key].version != version))
    expect = tuple(
        _expected(shared.declarations.of(key), found[key].version, found[key].born, ages.get(key), frame)
        for key in keys
    )
    return Agreement({key: value.to_json() for key, value in found.items()}, changed, expect)


async def based(frame: NodeFrame, agents: Sequence[str], on: Sequence[str], agreed: Agreement) -> tuple[Expected, ...]:
    """The snapshot, what else the agents have read when they decided again below this node, and what they wrote."""
    session, shared = frame.task.session, _shared(frame)
    await session.journal.drain()
    used: Used = await frame.decide("based", lambda: _used(session.journal, agents, on, [frame.key]))
    stands = {key: value["version"] for key, value in agreed.snapshot.items()}
    more = {key: version for _, key, version, _ in used if stands.get(key) != version}
    if not more:
        return agreed.expect
    heads = await shared.heads.read([(scope, key) for scope, key, _, _ in used if key in more])
    born = {
        key: head.born for (_, key), head in heads.items()
    }  # the version is judged at the admit, whatever these say
    ages = _ages(used)
    extra = [_expected(shared.declarations.of(key), more[key], born[key], ages.get(key), frame) for key in more]
    return (*(one for one in agreed.expect if one.key not in more), *extra)


def pin(frame: NodeFrame, agreed: Agreement) -> None:
    """Below this node the shared context is read as the snapshot has it."""
    facts, shared = frame.run, _shared(frame)
    frame.task.session.pins[frame.key] = {
        (shared.declarations.of(key).scope(facts.tenant, facts.workflow, facts.id), key): Value.from_json(value)
        for key, value in agreed.snapshot.items()
    }


def _expected(declared: Declared, version: int, born: float, asked: float | None, frame: NodeFrame) -> Expected:
    facts, spec = frame.run, declared.spec
    limits = [limit for limit in (asked, spec.max_age) if limit is not None]
    until = born + min(limits) if limits and version else 0.0
    scope = declared.scope(facts.tenant, facts.workflow, facts.id)
    return Expected(scope, declared.key, version, until, spec.outside)


def _used(journal: Journal, agents: Sequence[str], on: Sequence[str], inside: Iterable[str]) -> Used:
    """What these agents have read or written of these keys in the steps, in the order of the ledger; and what the steps
    themselves have read for them, in their inputs and conditions.

    What an agent has written itself makes nothing old that it read before.
    """
    prefixes = tuple(f"{key}{end}" for key in inside for end in "/~!")
    found: Used = []
    for key, reads in journal.reads.items():
        if not key.startswith(prefixes):
            continue
        for one in reads:
            if one.agent not in (*agents, WORKFLOW) or all(matches(pattern, one.key) is None for pattern in on):
                continue
            if journal.written.get(key) == one.version:
                found = [used for used in found if used[:2] != [one.scope, one.key]]
            found.append([one.scope, one.key, one.version, one.max_age])
    return found


def _ages(used: Used) -> dict[str, float]:
    """The least age that a reader accepted, by key."""
    found: dict[str, float] = {}
    for _, key, _, max_age in used:
        if max_age is not None:
            found[key] = min(max_age, found.get(key, max_age))
    return found


def _shared(frame: NodeFrame) -> SharedContext:
    found = frame.task.session.shared.context
    if found is None:
        raise NotDeclared("this workspace declares no shared context", fix="add `context:` to tightship.yaml")
    return found
