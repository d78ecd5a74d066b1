"""How a run begins: the entry that says what it is, for whoever starts it here or leaves it to a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.ports import Json
from tightship.core.signals import Halted
from tightship.core.world import World
from tightship.effects.frame import RunFacts
from tightship.effects.journal import Journal
from tightship.ledger import Draft, Guards, Ledger, SealedPayload
from tightship.ledger.vault import names_of
from tightship.runtime.fork import dry
from tightship.runtime.four_eyes import named
from tightship.runtime.program import Program
from tightship.runtime.reserve import Reserve
from tightship.runtime.start import Start
from tightship.workflow.conditions import Expression
from tightship.workflow.types import check_input


@dataclass(slots=True)
class Beginning:
    """A run that is ready to be recorded."""

    facts: RunFacts
    program: Program
    journal: Journal
    body: dict[str, Any]
    payloads: tuple[SealedPayload, ...]
    guards: Guards

    async def record(self, *beside: Draft) -> None:
        """Append its first entry, together with others about it or not at all.

        Raises:
            Halted: its scope is halted. GuardRefused: the id exists already. StoreError: the disk.
        """
        journal = self.journal
        first = Draft(journal.run, kinds.STARTED, "", self.body, journal.epoch, self.payloads)
        try:
            journal.index((await journal.ledger.append(first, *beside, guards=self.guards, log=journal.log))[0])
        except GuardRefused as refused:
            if refused.reason == "halted":
                raise Halted(f"{refused.holder} is halted: no run is started", scope=refused.holder) from None
            raise
        journal.ledger.defined(self.program.address)


class Starter:
    """Makes runs.

    Args:
        ledger: where they are recorded.
        world: time and chance, for their ids.
        program: the program of a workflow as it stands.
        build: the code that they are pinned to.
    """

    def __init__(self, ledger: Ledger, world: World, program: Callable[[str], Program], build: str) -> None:
        self._ledger = ledger
        self._program = program
        self._build = build
        self._reserve = Reserve(ledger.vault.keyring, world)

    async def prepare(self, start: Start, owner: str) -> Beginning:
        """Check the input and seal it; `owner` drives the run, and without one it is queued.

        Raises:
            InputRejected: the input does not fit. UnknownName: no such workflow.
        """
        program = self._program(start.workflow)
        if not start.live:
            program = dry(program)
        if start.parent:
            program = program.for_parent(start.parent)
        given = check_input(program.spec.input, start.input, start.workflow)
        run = start.id or self._reserve.take()
        handed = tuple(one for one in dict.fromkeys(start.handed) if one not in program.spec.constraints)
        facts = RunFacts(run, start.workflow, start.tenant, given, handed)
        scope = await self._scope(facts, program, start.around, new=not start.id)
        journal = Journal(self._ledger, run, 1, start.tenant, scope)
        payload, data = journal.seal(given)
        facts = replace(facts, input=orjson.loads(data))  # its keys in the order in which a resume finds them
        stored = self._ledger.define_once(program.address, lambda: program.definition_json)
        guards = Guards(fresh=True, scopes=("all", f"tenant:{start.tenant}", f"workflow:{start.workflow}"))
        body = self._body(start, owner, program) | {"input": payload.address, "scope": scope}
        by = await self._started_by(start)
        body |= {"by": by} if by else {}
        if handed:
            sealed, _ = journal.seal(list(handed))
            body["handed"], stored = sealed.address, (sealed, *stored)
        return Beginning(facts, program, journal, body, (payload, *stored), guards)

    def _body(self, start: Start, owner: str, program: Program) -> dict[str, Any]:
        body: dict[str, Any] = {
            "workflow": start.workflow,
            "version": program.version,
            "definition": program.address,
            "tenant": start.tenant,
            "build": self._build,
            "owner": owner,
        }
        for name in ("reference", "parent", "key", "linked", "depth", "until", "before"):
            if getattr(start, name):
                body[name] = getattr(start, name)
        priority = program.spec.priority if start.priority is None else start.priority
        if priority:
            body["priority"] = priority
        if not start.live:
            body["live"] = False
        if program.spec.four_eyes or start.four_eyes:
            body["four_eyes"] = True
        return body

    async def _started_by(self, start: Start) -> list[str]:
        """The people who set a run going: whoever starts it, and those who set going what it follows."""
        before: Sequence[str] = ()
        if start.linked:
            entries = await self._ledger.run_entries(start.linked)
            before = entries[0].body.get("by", ()) if entries else ()
        return named(*start.by, *before)

    async def _scope(self, facts: RunFacts, program: Program, around: str, new: bool) -> str:
        """The keys that this run's values are sealed with: its own, those of its data subjects, and those `around`.

        `new`: the id was made just now. An id that was given may be that of a run that exists, and has its key.
        """
        vault = self._ledger.vault
        await self._ledger.own_keys(f"tenant:{facts.tenant}")
        subjects: set[str] = set()
        for expression in program.spec.subjects:
            value = _evaluate(expression, facts.input)
            subjects.update(str(one) for one in (value if isinstance(value, list) else [value]) if one)
        if new and not subjects and not around:
            return vault.new_scope(facts.id)
        shared = await self._ledger.off_loop(vault.subjects, facts.tenant, subjects)
        await self._ledger.own_keys(*shared, *(() if new else (facts.id,)))
        scope = await self._ledger.off_loop(vault.scope_of_run, facts.id, facts.tenant, subjects, new)
        if not around:
            return scope
        scope = vault.scope({*names_of(scope), *names_of(around)})
        await self._ledger.off_loop(vault.keys, scope)
        return scope


def _evaluate(expression: Expression, given: Mapping[str, Json]) -> Json:
    return expression.evaluate({"input": dict(given)})
