"""A person takes a run over: takes it, does steps by hand, edits its state, has actions undone, gives it back (F12).

Every act is one append to the run's mailbox, with the name and the reason of the person; the run's owner turns it into
state. So a process may die between any two of them, and a replay gives what the first run gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tightship.controls.halts import TAKEN
from tightship.core import kinds
from tightship.core.errors import ActRefused, GuardRefused, InputRejected, NotTaken, StaleOwner, UnknownName
from tightship.core.ports import Json
from tightship.core.world import World
from tightship.ledger import Draft, Guards, Ledger, SealedPayload
from tightship.ledger.vault import encode
from tightship.patterns.action import Action
from tightship.patterns.concurrent import Concurrent
from tightship.patterns.workflow_step import WorkflowStep
from tightship.review.inbox import require_fit, require_holder
from tightship.runtime.four_eyes import check_act, checks_again
from tightship.runtime.program import DEFAULT_ROLE
from tightship.runtime.steps import FINISHED, Standing, StepState, standing
from tightship.workflow.definition import from_definition
from tightship.workflow.loader import WorkspaceFiles

Row = Mapping[str, Any]
PATIENCE: Final = 5.0
"""Seconds that an act waits for a process that still settles what the run had begun."""
_LOOK: Final = 0.05
_RACES: Final = 20


class Hands:
    """What a person does to one run after another."""

    def __init__(self, ledger: Ledger, files: WorkspaceFiles, world: World) -> None:
        self._ledger = ledger
        self._files = files
        self._clock = world.clock

    # --- looking ---------------------------------------------------------------------------------

    async def row(self, run: str) -> Row:
        """The row of a run that has not ended.

        Raises:
            UnknownName: there is none. InputRejected: it has ended.
        """
        rows = await self._ledger.select("runs", [("id", "=", run)])
        if not rows or not rows[0]["state"]:
            raise UnknownName(f"there is no run {run!r}", fix="list them with `tightship runs list`")
        if rows[0]["state"] == "ended":
            raise InputRejected(
                f"run {run} has ended already: {rows[0]['outcome']}",
                fix=f"look at it with `tightship runs show {run}`; its case may be in the inbox",
            )
        return rows[0]

    async def holder(self, run: str) -> str:
        """Who has the run in hand; empty when nobody has."""
        rows = await self._ledger.select("halts", [("scope", "=", f"{TAKEN}{run}"), ("state", "=", "on")])
        return str(rows[0]["by_whom"] or "") if rows else ""

    async def standing(self, run: str) -> Standing:
        """How a run's steps stand, ended or not.

        Raises:
            UnknownName: there is no such run.
        """
        entries = await self._ledger.run_entries(run)
        if not entries or entries[0].kind != kinds.STARTED:
            raise UnknownName(f"there is no run {run!r}", fix="list them with `tightship runs list`")
        definition = from_definition(await self._ledger.value(entries[0].body["definition"]))
        return standing(self._ledger, definition, entries)

    # --- taking and giving -----------------------------------------------------------------------

    async def take(self, run: str, by: str, reason: str = "") -> None:
        """Take a run over: nothing of it goes forward until it is given back, and what was sent settles.

        Runs below it come along. Whoever holds it already passes it on that way.

        Raises:
            UnknownName, InputRejected: there is no such run, or it has ended. BoundaryError: they lack the role.
        """
        for _ in range(_RACES):
            row = await self.row(run)
            await self._check_role(row, by)
            if _same(await self.holder(run), by):
                return
            said = await self._said(run, reason)
            drafts = [Draft(run, kinds.SIGNAL, "", {"type": "take", "by": by, **_detail(said)}, payloads=said)]
            for below in await self._below(run):
                drafts.append(Draft(below, kinds.SIGNAL, "", {"type": "take", "by": by, "through": run}))
            try:
                await self._ledger.append(*drafts, guards=Guards(takeover=row["epoch"]), log=row["log"])
                return
            except StaleOwner:
                continue  # it was claimed, or has ended, meanwhile
        raise ActRefused(f"run {run} changes hands all the time", fix="take it again in a moment")

    async def give(self, run: str, by: str, reason: str = "") -> None:
        """Give a run back: it goes on from where it stands, with what was done by hand.

        Raises:
            UnknownName, InputRejected, BoundaryError: as `take`. NotTaken: it is not in their hands.
        """
        row = await self._held(run, by)
        said = await self._said(run, reason)
        drafts = [Draft(run, kinds.SIGNAL, "", {"type": "give", "by": by, **_detail(said)}, payloads=said)]
        for below in await self._below(run):
            if await self._came_along(below, run):
                drafts.append(Draft(below, kinds.SIGNAL, "", {"type": "give", "by": by, "through": run}))
        await self._append(row, drafts)

    # --- acts ------------------------------------------------------------------------------------

    async def do(self, run: str, step: str, output: Json, by: str, reason: str = "") -> StepState:
        """Do a step by hand: its output counts as the step's, and its open questions are withdrawn.

        Args:
            run: a run in their hands. step: a step's key, or its name where only one has it. output: what it gives.

        Raises:
            as `give`; ActRefused: the step is done, under way, or no piece of work of its own. InputRejected: the
            output does not have the declared shape.
        """
        row = await self._resting(run, by)
        stands = await self.standing(run)
        found = _one(stands, step)
        _check_doable(run, found)
        check_act(stands.journal.entries, found, "do")
        if found.schema is not None:
            require_fit(output, found.schema)
        value = await self._seal(run, output)
        said = await self._said(run, reason)
        body = {"type": "do", "by": by, "key": found.key, "name": found.name, "value": value.address, **_detail(said)}
        drafts = [Draft(run, kinds.SIGNAL, "", body, payloads=(value, *said)), *_withdrawn(run, by, found.items)]
        await self._append(row, drafts)
        return found

    async def edit(self, run: str, name: str, value: Json, by: str, reason: str = "") -> list[StepState]:
        """Change what a finished step has given, for all that has not been done yet.

        The old value stays in the log. Steps under way that read it begin anew; finished ones keep what they gave and
        are returned. Under four eyes a review behind it begins anew as well.

        Raises:
            as `give`; UnknownName: no step gives such a name. ActRefused: it is not there yet, or an action that used
            it stands. InputRejected: the value does not have the declared shape.
        """
        row = await self._resting(run, by)
        stands = await self.standing(run)
        known = await stands.value(name)
        if known is None:
            raise _no_value(stands, name, run)
        step, was = known
        check_act(stands.journal.entries, step, "change")
        if step.schema is not None:
            require_fit(value, step.schema)
        if value == was:
            raise InputRejected(f"{name} has that value already", fix="give another one")
        kept, anew = _readers(stands, step, name, run)
        old, new = await self._seal(run, was), await self._seal(run, value)
        said = await self._said(run, reason)
        body = {"type": "edit", "by": by, "key": step.key, "name": name, "value": new.address, "was": old.address}
        body |= {"again": [one.key for one in anew]} if anew else {}
        drafts = [Draft(run, kinds.SIGNAL, "", {**body, **_detail(said)}, payloads=(old, new, *said))]
        for one in anew:
            drafts += _withdrawn(run, by, one.items)
        await self._append(row, drafts)
        return kept

    async def undo(self, run: str, step: str, by: str, reason: str = "") -> StepState:
        """Have a finished action undone; it is open again then. Whoever executes carries it out.

        Steps that have read its answer begin anew.

        Raises:
            as `give`; ActRefused: it is no finished action, no compensation is declared for it, or another action that
            used its answer stands.
        """
        row = await self._resting(run, by)
        stands = await self.standing(run)
        found = _one(stands, step)
        keys = list(found.writes)
        if found.pattern != Action.pattern or not keys:
            raise ActRefused(
                f"{found.key} is no action that was done", fix=f"see `tightship runs steps {run}` for what was"
            )
        if any("undo" not in stands.journal.effects[key] for key in keys):
            raise ActRefused(f"{found.key} declares no compensation", fix="take it back outside, by hand")
        # whatever has read its answer, finished or not, will read another one
        anew = [one for part in _readers(stands, found, found.name or found.key, run) for one in part]
        said = await self._said(run, reason)
        body = {"type": "undo", "by": by, "key": found.key, "actions": keys, **_detail(said)}
        body |= {"again": [one.key for one in anew]} if anew else {}
        drafts = [Draft(run, kinds.SIGNAL, "", body, payloads=said)]
        for one in anew:
            drafts += _withdrawn(run, by, one.items)
        await self._append(row, drafts)
        return found

    # --- what all of them need -------------------------------------------------------------------

    async def _held(self, run: str, by: str) -> Row:
        row = await self.row(run)
        await self._check_role(row, by)
        holder = await self.holder(run)
        if not _same(holder, by):
            whose = f"is in the hands of {holder}" if holder else "is in nobody's hands"
            raise NotTaken(f"run {run} {whose}", fix=f"take it over: `tightship runs take {run} --by {by}`")
        return row

    async def _resting(self, run: str, by: str) -> Row:
        """The row of a run in their hands once what it had begun has settled; one that is queued has begun nothing.

        Whoever takes that one up later reads that it is taken, and what was done by hand, before anything else.
        """
        until = self._clock.monotonic() + PATIENCE
        while True:
            row = await self._held(run, by)
            if row["state"] in ("parked", "queued"):
                return row
            if self._clock.monotonic() >= until:
                raise ActRefused(
                    f"run {run} has begun what is not settled yet",
                    fix=f"wait for the process that executes, or put it down here: `tightship runs resume {run}`",
                )
            await self._clock.sleep(_LOOK)

    async def _check_role(self, row: Row, by: str) -> None:
        if not by.strip():
            raise InputRejected("taking a run over needs the name of a person", fix="name them with --by")
        entries = await self._ledger.run_entries(row["id"])
        spec = from_definition(await self._ledger.value(entries[0].body["definition"])).workflow
        roles = self._files.config.roles
        role = spec.escalation_role(tuple(roles)) or DEFAULT_ROLE
        require_holder(by.strip(), role, roles, f"handle {row['workflow']}")

    async def _below(self, run: str) -> list[str]:
        """Runs below a run that have not ended, the nearest first."""
        found: list[str] = []
        above = [run]
        while above:
            rows = await self._ledger.select("runs", [("parent", "in", above), ("state", "!=", "ended")])
            above = [row["id"] for row in rows]
            found += above
        return found

    async def _came_along(self, run: str, above: str) -> bool:
        """Whether a run was last taken together with one above it."""
        entries = await self._ledger.run_entries(run)
        taken = [entry.body for entry in entries if entry.kind == kinds.SIGNAL and entry.body["type"] == "take"]
        if not taken or not await self.holder(run):
            return False
        through = str(taken[-1].get("through") or "")
        return through == above or (bool(through) and await self._came_along(through, above))

    async def _append(self, row: Row, drafts: Sequence[Draft]) -> None:
        """Append an act, if nobody has done anything to the run since it was looked at.

        Raises:
            ActRefused: somebody has.
        """
        try:
            await self._ledger.append(*drafts, guards=Guards(seen=row["last_signal"]), log=row["log"])
        except GuardRefused:
            raise ActRefused(
                f"something has happened to run {row['id']} at the same moment",
                fix=f"look at it (`tightship runs steps {row['id']}`) and do it again",
            ) from None

    async def _scope(self, run: str) -> str:
        return str((await self._ledger.run_entries(run))[0].body["scope"])

    async def _seal(self, run: str, value: Json) -> SealedPayload:
        return self._ledger.vault.seal(await self._scope(run), encode(value))

    async def _said(self, run: str, reason: str) -> tuple[SealedPayload, ...]:
        return (await self._seal(run, {"reason": reason}),) if reason else ()


def _detail(said: Sequence[SealedPayload]) -> dict[str, Json]:
    return {"detail": said[0].address} if said else {}


def _same(one: str, other: str) -> bool:
    return bool(one) and one.strip().casefold() == other.strip().casefold()


def _withdrawn(run: str, by: str, items: Sequence[str]) -> list[Draft]:
    """Questions that nobody has to answer any more."""
    return [Draft(run, kinds.CLOSED, "", {"item": item, "decision": "withdrawn", "by": by}) for item in items]


def _one(stands: Standing, wanted: str) -> StepState:
    """The step that somebody names.

    Raises:
        UnknownName: there is none. ActRefused: there are several.
    """
    found = stands.find(wanted)
    run = stands.journal.run
    if not found:
        keys = ", ".join(one.key for one in stands.steps)
        raise UnknownName(f"run {run} has no step {wanted!r}", fix=f"use one of: {keys}")
    if len(found) > 1:
        keys = " or ".join(one.key for one in found)
        raise ActRefused(f"several steps are called {wanted!r}", fix=f"give the key: {keys}")
    return found[0]


def _check_doable(run: str, step: StepState) -> None:
    if step.state in FINISHED:
        fix = f"change what it gave: `tightship runs edit {run} {step.name or 'NAME'}=JSON`"
        raise ActRefused(f"{step.key} is done", fix=fix)
    if step.state == "not taken":
        raise ActRefused(f"the run has gone another way than {step.key}", fix="do a step that is open")
    if step.state == "in flight":
        raise ActRefused(
            f"a call of {step.key} has not settled yet", fix=f"have it settled: `tightship runs resume {run}`"
        )
    if step.writes:
        raise ActRefused(
            f"{step.key} has written already: {', '.join(step.writes)}",
            fix="give the run back, so that the step is finished, or cancel it, so that it is undone",
        )
    if step.parts and step.pattern == Concurrent.pattern:
        raise ActRefused(f"{step.key} is several pieces of work", fix="do the steps inside it one by one")


def _no_value(stands: Standing, name: str, run: str) -> ActRefused | UnknownName:
    named = [one for one in stands.steps if one.name == name]
    if not named:
        names = ", ".join(dict.fromkeys(one.name for one in stands.steps if one.name))
        return UnknownName(f"no step of run {run} gives {name!r}", fix=f"use one of: {names}")
    return ActRefused(
        f"{name} is not there yet: {named[0].key} is {named[0].state}",
        fix=f"do that step by hand: `tightship runs do {run} {named[0].key} --output JSON`",
    )


def _readers(stands: Standing, source: StepState, name: str, run: str) -> tuple[list[StepState], list[StepState]]:
    """Of the steps that have read a name, themselves or through others: the finished ones, which keep what they gave,
    and those that begin anew (under way, undone, or readers of what begins anew).

    Raises:
        ActRefused: an action that used it stands, or a child run that used it is under way.
    """
    touched, renewed, kept, anew = {name}, set[str](), list[StepState](), list[StepState]()
    for step in stands.steps[stands.steps.index(source) + 1 :]:
        again = bool(step.reads & renewed)
        read = bool(step.reads & touched)
        checked = step.state in FINISHED and checks_again(stands.journal.entries, step, again or read)
        if step.parts or step.state in ("open", "not taken", "by hand"):
            continue
        if not (again or checked or read):
            continue
        _check_touchable(step, name, run)
        if step.state in FINISHED and not again and not checked:
            kept.append(step)
            touched.add(step.name)
        else:
            anew.append(step)
            renewed.add(step.name)
    return kept, anew


def _check_touchable(step: StepState, name: str, run: str) -> None:
    if step.writes:
        raise ActRefused(
            f"{step.key} has used {name} already, and what it did outside stands",
            fix=f"have it undone first: `tightship runs undo {run} {step.key}`",
        )
    under_way = step.pattern == WorkflowStep.pattern and step.state not in FINISHED
    if under_way or step.state in ("in flight", "unknown"):
        raise ActRefused(
            f"{step.key} has used {name} already and is {step.state}", fix=f"do it by hand first, or cancel {run}"
        )
