"""Forks: a new run that takes over what another one recorded up to a key, and does the rest anew.

What was settled, finished and decided before the key is copied into the new run's own log entries, marked `copied` and
without its cost, so that figures count nothing twice and the new run resumes like any other. The copies refer to the
values of the first run, and the new run seals its own with the same keys: whatever erases the one erases the other.
Copied writes stay the first run's: the fork never undoes them. From the key on reads and models are real; writes are
rehearsed unless the fork is live.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tightship.core import kinds
from tightship.core.errors import GuardRefused, InputRejected, UnknownName
from tightship.core.ids import derived_id, new_id
from tightship.core.ports import Tool
from tightship.core.signals import Halted
from tightship.effects.journal import Journal
from tightship.ledger import Draft, Entry, Guards
from tightship.runtime.four_eyes import named
from tightship.runtime.run import INTERRUPTED
from tightship.workflow.source import did_you_mean

if TYPE_CHECKING:
    from tightship.ledger import Ledger
    from tightship.runtime.program import Program
    from tightship.runtime.result import Run
    from tightship.runtime.workspace import Workspace

_PINNED: Final = ("workflow", "version", "definition", "input", "handed", "tenant", "scope", "priority", "four_eyes")
"""What a fork has in common with the run that it comes from."""
_NOT_COPIED: Final = frozenset(
    {"usd", "tokens_in", "tokens_out", "cached_in", "ms", "attempt", "undo", "claim", "releases"}
    | {"gate", "moved", "raced", "above", "held"}
)
"""Parts of a settle that were the first run's own: its cost and for whom it counts, its claim, its way back."""
_INSIDE: Final = re.compile(
    r"tool|model|context|refresh|gate|ask|given|budget|undo|now|random|pause|fork|p?\d+|note:.*|.*!.*"
)
"""Parts of a key that number or sort what is inside a step: nobody names a step by them."""


class RehearsedWrites(Mapping[str, Tool]):
    """Tools whose reads are real and whose writes answer with generated values and do nothing."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    def __getitem__(self, name: str) -> Tool:
        from tightship.connectors.rehearsal import RehearsalTool

        tool = self._tools[name]
        return RehearsalTool(tool.spec) if tool.spec.effect == "write" else tool

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


def dry(program: Program) -> Program:
    """The program with its writes rehearsed; itself when nothing of it is live anyway."""
    if not program.live:
        return program
    made = copy.copy(program)
    made.live = False
    made.use_tools(RehearsedWrites(program.tools))
    return made


async def fork(workspace: Workspace, source: str, key: str = "", *, live: bool = False, by: str = "") -> Run:
    """Start a fork and drive it until it parks or ends.

    Args:
        workspace: where the run is; this process executes on it from here on.
        source: the run to fork, in whatever state.
        key: what was recorded before the first entry at or below this key, or this part of a key (a step's name), is
            taken over; empty: nothing is.
        live: do writes for real from there on. by: who forks it.

    Raises:
        UnknownName: no such run, or it recorded nothing under that key. InputRejected: the run was a rehearsal.
        Halted: its scope is halted. ExecutorBusy: another process executes.
    """
    engine = await workspace.engine()
    ledger = await workspace.ledger()
    row = await workspace.row(source)
    if not row["live"] and not workspace.rehearse:
        raise InputRejected(f"run {source} did not happen for real", fix="fork a real run")
    entries = await ledger.run_entries(source)
    cut = _cut(entries, key, source)
    made = new_id("r", workspace.world)
    first = entries[0].body
    body: dict[str, Any] = {name: first[name] for name in _PINNED if name in first}
    body |= {"build": engine.build, "forked": {"run": source, "key": key, "n": entries[cut].n if key else 0}}
    if people := named(by, *first.get("by", ())):
        body["by"] = people
    if not live:
        body["live"] = False
    drafts = [Draft(made, kinds.STARTED, "", body, 1), *await _copies(ledger, source, made, entries[:cut])]
    scopes = ("all", f"tenant:{first['tenant']}", f"workflow:{first['workflow']}")
    try:
        await ledger.append(*drafts, guards=Guards(fresh=True, scopes=scopes), log=row["log"])
    except GuardRefused as refused:
        if refused.reason != "halted":
            raise
        raise Halted(f"{refused.holder} is halted: no run is started", scope=refused.holder) from None
    for ended in await workspace.resume([made]):
        if ended.error is not None:
            raise ended.error
    return await workspace.result(made)


def _cut(entries: Sequence[Entry], key: str, source: str) -> int:
    """How many entries stand before the key."""
    if not key:
        return 0
    for index, entry in enumerate(entries):
        if entry.key == key or entry.key.startswith((f"{key}/", f"{key}~", f"{key}!")):
            return index
    for index, entry in enumerate(entries):
        if key in entry.key.split("/"):
            return index
    parts = {part.partition("~")[0] for entry in entries for part in entry.key.split("/")}
    steps = {part for part in parts if part and not _INSIDE.fullmatch(part)}
    raise UnknownName(f"run {source} recorded nothing under {key!r}", fix=did_you_mean(key, steps))


async def _copies(ledger: Ledger, source: str, made: str, entries: Sequence[Entry]) -> list[Draft]:
    """What the fork takes over, in the order of the log."""
    # Without an epoch, since they are appended together with the run's first entry, before anybody owns it.
    journal = Journal(ledger, source, 0, "", "")
    journal.load(entries, {})
    drafts: list[Draft] = []
    for entry in entries:
        body = await _copied(ledger, journal, made, entry)
        if body is not None:
            drafts.append(Draft(made, entry.kind, entry.key, {**body, "copied": entry.n}))
    return drafts


async def _copied(ledger: Ledger, journal: Journal, made: str, entry: Entry) -> dict[str, Any] | None:
    """The body of an entry as the fork has it, or None when it is not taken over."""
    kind, body = entry.kind, entry.body
    if kind in (kinds.TURN, kinds.NODE):
        return body
    if kind == kinds.DECIDED:
        return None if entry.key == INTERRUPTED else body
    if kind == kinds.SETTLED:
        if body.get("again") or body.get("cls") == "undo":
            return None
        wrote = {"wrote": journal.written[entry.key]} if entry.key in journal.written else {}
        kept = {name: value for name, value in journal.effects[entry.key].items() if name not in _NOT_COPIED}
        return kept | wrote
    if kind in (kinds.OPENED, kinds.CLOSED):
        item = body["item"]
        answered = item in journal.opened and item in journal.closed
        return {**body, "item": await _item(journal, made, item)} if answered else None
    if kind == kinds.SIGNAL and body.get("type") == "child":
        return await _child(ledger, made, body)
    if kind == kinds.SIGNAL and body.get("type") in ("do", "edit"):
        return body
    return None


async def _item(journal: Journal, made: str, item: str) -> str:
    """The id that a question has in the fork."""
    key = next(entry.key for entry in journal.entries if entry.kind == kinds.OPENED and entry.body["item"] == item)
    return derived_id("i", made, key)


async def _child(ledger: Ledger, made: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """How a child run ended, told to the fork; what the child did stays the first run's to undo."""
    child = derived_id("r", made, (await ledger.run_entries(body["child"]))[0].body["key"])
    told = {name: value for name, value in body.items() if name != "actions"}
    return {**told, "by": child, "child": child}


__all__ = ["RehearsedWrites", "dry", "fork"]
