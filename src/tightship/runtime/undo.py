"""The saga's way back: finished actions are undone in reverse order of settling; what cannot be undone is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tightship.controls.budgets import Amount
from tightship.core import kinds
from tightship.core.errors import (
    NotDeclared,
    OutcomeUnknown,
    PayloadErased,
    StaleOwner,
    StoreError,
    TightshipError,
    Unavailable,
)
from tightship.core.ports import Json, UndoSpec
from tightship.core.signals import Signal
from tightship.effects.call import Call
from tightship.effects.door import Door
from tightship.effects.journal import Body
from tightship.effects.outcomes import describe
from tightship.workflow.conditions import Values
from tightship.workflow.tree import UndoRetry

if TYPE_CHECKING:
    from tightship.runtime.run import RunTask

UNDOER = "workflow"
UNDO = "undo"
"""What the keys of undos begin with."""


class Undo:
    """Takes back what a run has done."""

    def __init__(self, task: RunTask, below: str = "", retry: UndoRetry | None = None) -> None:
        """Of this run, or of what it did below a key; `retry` is the run's without another."""
        self._task = task
        self._below = below
        self._retry = retry or task.program.spec.undo_retry
        self.residual: list[dict[str, Json]] = []
        self.undone: list[str] = []

    async def run(self) -> None:
        """Undo everything that can be; collect what remains."""
        for key, body in reversed(await self.actions()):
            if body.get("reported"):  # a person has it: perhaps it was undone by hand meanwhile
                self._remains(key, body, "its own run has reported it", reported=True)
            else:
                await self._take_back(key, body)

    async def settle_open(self) -> None:
        """Unknown outcomes come first: what may have happened is found out before the run ends or undoes anything."""
        task = self._task
        stuck = task.restarts >= task.program.limits.restarts
        for key, body in task.journal.unfinished():
            if not self._is_below(key) or (body["cls"] == "undo" and not stuck):
                continue  # another part of the run's; or taken up again when its action is undone
            if stuck or task.asks_nothing:  # whoever asks once more may be the next process to end
                await self._give_up(key, body, Unavailable("the process ended while it was under way"))
                continue
            try:
                call = await self._reopened(key, body)
            except (NotDeclared, PayloadErased) as error:
                await self._give_up(key, body, error)
                continue
            try:
                await Door(task.session).close(call)
            except (StoreError, StaleOwner):
                raise
            except (TightshipError, Signal):
                continue  # recorded under its key
        for key, body in task.journal.effects.items():
            if (
                self._is_below(key)
                and body["cls"] == "write"
                and body.get("error", {}).get("error") == OutcomeUnknown.__name__
            ):
                self._remains(key, body, "whether it was done is unknown")

    async def find_out(self) -> None:
        """What a gone process has left open is found out for a run that goes on later; what was not done stays open."""
        task = self._task
        opened = [(key, body) for key, (body, _) in task.journal.admitted.items() if body["cls"] != "undo"]
        for key, body in opened:
            try:
                await Door(task.session).close(await self._reopened(key, body, kept=True))
            except (StoreError, StaleOwner):
                raise
            except (TightshipError, Signal):
                continue  # recorded under its key; or its tool is gone, and forward it is met again

    async def take_back(self, keys: Sequence[str]) -> None:
        """Undo these actions of a run that goes on later, in reverse order of settling."""
        journal = self._task.journal
        for key in sorted(keys, key=lambda one: -journal.actions.get(one, 0)):
            if key in journal.actions and key not in journal.undone:
                await self._take_back(key, journal.effects[key])

    async def _give_up(self, key: str, body: Body, why: TightshipError) -> None:
        """What cannot be asked about any more (its tool or its arguments are gone) is settled from its admit."""
        task = self._task
        error: TightshipError = Unavailable("the run was stopped before the answer came")
        if body["cls"] in ("write", "undo"):
            error = OutcomeUnknown(f"whether {body['name']} was done is not known: {why.message}")
        head, detail = describe(error)
        payload, _ = task.journal.seal(detail)
        reserve = body.get("reserve", {})
        settled: Body = {name: body[name] for name in ("name", "cls", "agent")}
        settled |= {"workflow": task.session.facts.workflow, "ms": 0, "error": head, "detail": payload.address}
        if reserve.get("usd"):
            settled["usd"] = reserve["usd"]
        if reserve.get("tokens"):
            settled["tokens_in"] = reserve["tokens"]
        settled |= task.session.counted(key)
        if body.get("gate"):
            settled["gate"] = [one[:2] for one in body["gate"]]
        await task.journal.record(kinds.SETTLED, key, settled, (payload,))

    async def _reopened(self, key: str, body: Body, kept: bool = False) -> Call:
        undo = body.get("undo")
        return Call(
            key=key,
            tool=self._task.program.tool(body["name"]),
            cls=body["cls"],
            agent=body["agent"],
            args=await self._task.journal.value(body["args"]),
            declared=self._task.program.declared | {body["name"]},
            claim=body.get("claim"),
            undo=None if undo is None else UndoSpec(undo["tool"], undo["args"]),
            settling=True,
            kept=kept,
        )

    async def actions(self) -> list[tuple[str, Body]]:
        """Writes that were settled and not undone, in the order of settling, over branches and children."""
        journal = self._task.journal
        found = [(n, key, journal.effects[key]) for key, n in journal.actions.items() if self._is_below(key)]
        for entry in journal.signals:
            if entry.body["type"] == "child" and self._is_below(entry.body.get("at", "")):
                child, told = entry.body["child"], entry.body.get("actions")
                try:
                    done = await journal.ledger.value(told) if told else ()
                except PayloadErased:
                    self._remains(child, {"name": "a child run"}, "what it did was erased")
                    continue
                found.extend((action["n"], f"{child}:{action['key']}", action) for action in done)
        found.sort(key=lambda one: one[0])
        return [(key, {**body, "n": n}) for n, key, body in found if key not in journal.undone]

    async def _take_back(self, key: str, body: Body) -> None:
        undo = body.get("undo")
        if undo is None:
            self._remains(key, body, "no compensation is declared for it")
            return
        journal, program = self._task.journal, self._task.program
        try:
            names: dict[str, Json] = {
                "args": await journal.value(body["args"]),
                "result": await journal.value(body["out"]),
            }
            tool = program.tool(undo["tool"])
            args = Values.parse(undo["args"]).evaluate(names) if undo["args"] else default_args(tool, names)
            await self._persist(
                Call(
                    key=f"{UNDO}/{key}",
                    tool=tool,
                    cls="undo",
                    agent=UNDOER,
                    args=args,
                    declared=program.declared | {undo["tool"]},
                    undoes=key,
                    releases=body.get("claim"),
                    ceiling=Amount(tool.spec.price.usd, tool.spec.price.tokens),
                )
            )
        except (StoreError, StaleOwner):
            raise
        except OutcomeUnknown:
            self._remains(key, body, "whether it was undone is unknown")
        except (TightshipError, Signal) as error:
            self._remains(key, body, f"undoing it failed: {error}")
        else:
            self.undone.append(key)

    async def _persist(self, call: Call) -> None:
        """Call an undo, and again where its system does not answer; each attempt has a key of its own.

        Raises:
            Unavailable: the last attempt as well. What else the door raises.
        """
        task, first = self._task, call.key
        most = 1 if task.asks_nothing else 1 + self._retry.times
        for attempt in range(1, most + 1):
            key = first if attempt == 1 else f"{first}~{attempt}"
            if attempt > 1 and key not in task.journal.effects and key not in task.journal.admitted:
                await task.session.shared.world.clock.sleep(self._retry.pause(attempt))
            try:
                await Door(task.session).perform(replace(call, key=key))
            except Unavailable:
                if attempt == most:
                    raise
            else:
                return

    def _is_below(self, key: str) -> bool:
        return not self._below or key.startswith(f"{self._below}/")

    def forget(self) -> None:
        """What failed is still said, and no more with the words of an error, which may be about a person."""
        for one in self.residual:
            one["why"] = str(one["why"]).partition(":")[0]

    def _remains(self, key: str, body: Body, why: str, reported: bool = False) -> None:
        self.residual = [one for one in self.residual if one["key"] != key]
        told: dict[str, Json] = {"reported": True} if reported else {}
        self.residual.append({"key": key, "tool": body["name"], "why": why, "args": body.get("args"), **told})


def default_args(tool: Any, names: dict[str, Json]) -> dict[str, Json]:
    """Arguments of an undo that declares none: what its schema asks for, from the result, then from the arguments."""
    wanted = tool.spec.input_schema.get("properties", {})
    found: dict[str, Json] = {}
    for source in (names["args"], names["result"]):
        if isinstance(source, dict):
            found |= {name: source[name] for name in wanted if name in source}
    return found
