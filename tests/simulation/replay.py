"""Replay equals first run: what a finished run recorded is walked through again, and the outside is not asked."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.effects.journal import Journal
from tightship.effects.outcomes import describe
from tightship.ledger.entries import Draft, Entry, Guards, Line
from tightship.runtime.ending import Escalate
from tightship.runtime.run import INTERRUPTED, Done

from .machines import SimLedger
from .story import World

BY_OTHERS = ("cancelled", "halted", "over_budget", "LimitReached", "LoopFound", "NearRepeat")
"""Ends that do not follow from the run's own record: somebody or an envelope has stopped it."""


class Asked(AssertionError):
    """A replay wanted something that the first run had not recorded."""


class ReadOnly(SimLedger):
    """The ledger of a replay: turns may be recorded again if they give the same, and nothing else may be."""

    first: dict[tuple[str, str], Entry]
    """What the first run recorded, by kind and key."""

    def append(
        self, *drafts: Draft, guards: Guards | None = None, log: str = "default", line: Line | None = None
    ) -> asyncio.Future[list[Entry]]:
        """Compare with the first run in place of appending."""
        future: asyncio.Future[list[Entry]] = asyncio.get_running_loop().create_future()
        found: list[Entry] = []
        for draft in drafts:
            before = self.first.get((draft.kind, draft.key))
            if draft.kind not in (kinds.TURN, kinds.NODE) or before is None:
                raise Asked(f"a replay of {draft.run} wants to record {draft.kind} {draft.key}")
            if before.body.get("out") != draft.body.get("out"):
                raise Asked(f"a replay of {draft.run} gives something else for {draft.key}")
            found.append(before)
        future.set_result(found)
        return future


class NoTool:
    """A tool that nobody may ask."""

    def __init__(self, inner: Any) -> None:
        self.spec = inner.spec

    async def perform(self, request: Any) -> Any:
        """Never."""
        raise Asked(f"a replay asks {self.spec.name} under {request.key}")

    async def lookup(self, request: Any) -> Any:
        """Never."""
        raise Asked(f"a replay looks {self.spec.name} up under {request.key}")


async def replay_all(world: World) -> int:
    """Replay every run that came to an end of its own; returns how many.

    Raises:
        Asked: something was asked of the outside. AssertionError: it came out differently.
    """
    ledger = ReadOnly(world.state, world.sim.world())
    nobody = httpx2.MockTransport(_nobody)
    ws = world.workspace(ledger, nobody, {"letters.send": NoTool(_letters(world))})
    engine = await ws.engine()
    assert ws._dispatcher is not None
    ws._outfit.tools.wrap = NoTool  # type: ignore[assignment]
    ws._outfit.tools._made.clear()
    count = 0
    for row in await ledger.select("runs", [("state", "=", "ended")]):
        entries = await ledger.run_entries(row["id"])
        if not _followed(world, row, entries):
            continue
        # an edit tells by its record what had begun before it, and what was undone by hand would be done again
        by_hand = any(entry.kind == kinds.SIGNAL and entry.body["type"] in ("edit", "undo") for entry in entries)
        for forget in (False,) if by_hand else (False, True):
            await _replay(world, engine, ledger, row, entries, forget)
        count += 1
    await ws.close()
    return count


def _nobody(request: httpx2.Request) -> httpx2.Response:
    raise Asked(f"a replay sends {request.method} {request.url}")


def _letters(world: World) -> Any:
    from .story import LetterBox

    return LetterBox(None, world.sim.clock.now)  # type: ignore[arg-type]


async def _replay(
    world: World, engine: Any, ledger: ReadOnly, row: dict[str, Any], entries: list[Entry], forget: bool
) -> None:
    """Once through; `forget`: the agents' code runs again, on what their calls have recorded."""
    ledger.first = {(entry.kind, entry.key): entry for entry in entries}
    decided = [entry for entry in entries if entry.kind == kinds.DECIDED]
    forgotten = {one.n for one in entries if forget and _finished(one) and not _is_cut_off(one.key, decided)}
    kept = [entry for entry in entries if entry.kind != kinds.ENDED and entry.n not in forgotten]
    turned = next((entry.n for entry in kept if entry.kind == kinds.DECIDED and entry.key == INTERRUPTED), None)
    kept = [entry for entry in kept if turned is None or entry.n < turned]
    journal = Journal(ledger, row["id"], row["epoch"], row["log"], "")
    sealed = await ledger.read_sealed(journal.needed(kept))
    await engine._revive(row, journal, kept, sealed)
    driven = engine._runs[row["id"]]
    engine._forget(row["id"])
    task = driven.task
    for entry in journal.signals:
        task._note_signal(entry)
    got = await task._forward()
    what = f"run {row['id']} of {row['workflow']} ({row['outcome']}, {'without' if forget else 'with'} its turns)"
    if row["outcome"] == "completed":
        assert isinstance(got, Done), f"{what} comes to {got!r} on replay"
        output = await ledger.value(row["output"])
        assert got.output == output, f"{what} gives {got.output} on replay, and gave {output}"
        return
    first = next(entry.body["value"] for entry in entries if entry.kind == kinds.DECIDED and entry.key == INTERRUPTED)
    cause = got.exception if isinstance(got, Escalate) else got
    assert isinstance(cause, TightshipError), f"{what} comes to {cause!r} on replay, and came to {first}"
    said = f"{describe(cause)[0]} ({cause})"
    assert describe(cause)[0] == first["error"], f"{what} comes to {said} on replay, and came to {first}"


def _followed(world: World, row: dict[str, Any], entries: list[Entry]) -> bool:
    """Whether the end follows from the run's record alone.

    A run that was stopped does not: by somebody, by an envelope, or by one of several branches, which goes as far as it
    gets before it is stopped.
    """
    if row["reason"] in BY_OTHERS or any(e.kind == kinds.SIGNAL and e.body["type"] == "cancel" for e in entries):
        return False
    spec = next(spec for spec in world.plan.workflows if spec.workflow == row["workflow"])
    if spec.budget.seconds is not None:
        return False
    beside = ("concurrent", "foreach")
    if row["outcome"] == "failed":  # a manager and a vote keep failures of the work, and no end of the run
        beside += ("manager", "vote")
    forked = any(pattern in entry.key for entry in entries for pattern in beside)
    return row["outcome"] == "completed" or not forked


def _finished(entry: Entry) -> bool:
    return entry.kind in (kinds.TURN, kinds.NODE) and "out" in entry.body


def _is_cut_off(key: str, decided: list[Entry]) -> bool:
    """Whether no replay walks into a node again: its time was over, or its branch was ended. What it recorded stays."""
    for entry in decided:
        value, at = entry.body["value"], entry.key
        if at.endswith("/within") and value is True and key.startswith(at.removesuffix("within")):
            return True
        if isinstance(value, dict) and "walked" in value:
            below = at.rpartition("fork/")[0]
            if key.startswith(below) and key.removeprefix(below).partition("/")[0] not in value["walked"]:
                return True
    return False
