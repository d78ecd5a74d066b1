"""Looks for leaks that are declared: made by themselves, once per slot, and told to people with the evidence (F6).

A check reads what was recorded since the one before, so each entry is read once however many checks there are, and no
check reads more than its declared window and number of entries. Which run a canary belongs to is known from the checks
that have met it first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import GuardRefused, TightshipError
from tightship.core.ids import CONDUCT, derived_id
from tightship.core.ports import Json
from tightship.ledger import Draft, Ledger
from tightship.ledger.vault import encode
from tightship.review.package import Option, Package
from tightship.runtime.drift_checks import DRIFT, Slot, conduct_scope, due
from tightship.runtime.leaks import PAGE, Seen, Span, leaks_of, look_through
from tightship.workflow.conduct import LeakSpec
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.units import show_duration

LEAK: Final = "leak"
"""The type of inbox items that tell of leaks."""
SCHEDULE: Final = f"{DRIFT}:leaks"
"""The name under which its slots are kept."""
_SHOWN: Final = 50
"""Leaks that a package shows."""


@dataclass(slots=True)
class Known:
    """What earlier checks have found.

    Attributes:
        upto: how far each log was read. homes: the run of each canary. leaks: those that were found, by mark and run.
        told: items that tell of them. untold: leaks of which no item tells yet.
    """

    upto: dict[str, int] = field(default_factory=dict[str, int])
    homes: dict[str, str] = field(default_factory=dict[str, str])
    leaks: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    told: list[str] = field(default_factory=list[str])
    untold: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])


class LeakChecks:
    """Looks for canaries where they should not be, as declared.

    Args:
        ledger: where runs are. files: the workspace's, as they stand.
    """

    def __init__(self, ledger: Ledger, files: WorkspaceFiles) -> None:
        self._ledger, self._files = ledger, files

    async def look(self) -> None:
        """Make the check whose time has come. Doing so twice makes none twice."""
        spec = self._files.config.leaks
        if spec is None:
            return
        try:
            slot = await due(self._ledger, SCHEDULE, spec.every)
            if slot is not None:
                await self._make(spec, slot)
        except GuardRefused as refused:  # another worker was first
            if refused.reason != "kept":
                raise
        except TightshipError as error:
            logging.getLogger(__name__).warning("the look for leaks was put off: %s", error)

    async def _make(self, spec: LeakSpec, slot: Slot) -> None:
        """One check: what it has found, and who is told, are one unit with its slot."""
        known = await self._known()
        spans = await self._spans(spec, known)
        seen = await look_through(self._ledger, spans, spec.entries)
        drafts = [slot.draft]
        if seen.runs or seen.entries >= PAGE:  # else it is short to read again
            drafts += await self._drafts(spec, slot, known, spans, seen)
        await self._ledger.append(*drafts, guards=slot.guards)

    async def _known(self) -> Known:
        known = Known()
        for entry in await self._ledger.run_entries(CONDUCT):
            if entry.kind != kinds.LEAKS:
                continue
            body = entry.body
            known.upto |= body["upto"]
            known.homes |= body["canaries"]
            known.leaks |= {(one["mark"], one["run"]) for one in body["leaks"]}
            known.untold += body["leaks"]
            if "item" in body:
                known.told.append(str(body["item"]))
                known.untold = []
        return known

    async def _spans(self, spec: LeakSpec, known: Known) -> list[Span]:
        """What is to be read: of each log what is new, and not older than the window."""
        heads = await self._ledger.off_loop(self._ledger.backend.heads)
        since = self._ledger.world.clock.now() - spec.window
        spans = list[Span]()
        for log, (_, head) in sorted(heads.items()):
            after = known.upto.get(log, 0)
            if after < head:
                spans.append(Span(log, await self._first_since(log, after, head, since), head))
        return spans

    async def _first_since(self, log: str, after: int, upto: int, since: float) -> int:
        """The position behind which entries are as young as that; by bisection, for store time grows with positions."""
        low, high = after, upto
        while low < high:
            middle = (low + high) // 2
            entries = await self._ledger.entries(middle, 1, log)
            if entries and entries[0].at < since:
                low = middle + 1
            else:
                high = middle
        return low

    async def _drafts(self, spec: LeakSpec, slot: Slot, known: Known, spans: Sequence[Span], seen: Seen) -> list[Draft]:
        homes, found = await leaks_of(self._ledger, seen, known.homes)
        fresh = [leak.as_dict() for leak in found if (leak.mark, leak.run) not in known.leaks]
        body: dict[str, Any] = {
            "slot": slot.at,
            "entries": seen.entries,
            "runs": len(seen.runs),
            "left": seen.left,
            "since": {span.log: span.after for span in spans},
            "upto": seen.upto,
            "canaries": {mark: run for mark, run in homes.items() if mark not in known.homes},
            "leaks": fresh,
        }
        drafts = [Draft(CONDUCT, kinds.LEAKS, LEAK, body)]
        tells = [*known.untold, *fresh]
        if tells and not await self._waits(known.told):
            body["item"] = derived_id("i", slot.name, str(slot.at))
            drafts.append(await self._item(spec, tells, str(body["item"])))
        return drafts

    async def _waits(self, told: Sequence[str]) -> bool:
        """Whether an earlier item has not been decided: one waits at a time."""
        rows = await self._ledger.select("inbox", [("item", "=", told[-1])]) if told else []
        return any(row["state"] == "open" for row in rows)

    async def _item(self, spec: LeakSpec, leaks: Sequence[Mapping[str, Json]], item: str) -> Draft:
        package = finding(spec, leaks)
        payload = self._ledger.vault.seal(await conduct_scope(self._ledger), encode(package.to_json()))
        body = {"item": item, "type": LEAK, "role": spec.role, "title": package.title, "package": payload.address}
        return Draft(CONDUCT, kinds.OPENED, LEAK, body, payloads=(payload,))


def finding(spec: LeakSpec, leaks: Sequence[Mapping[str, Json]]) -> Package:
    """What a person needs to judge leaks by: where they are, and never what stands there."""
    runs = {str(leak["run"]) for leak in leaks}
    evidence: dict[str, Json] = {
        "leaks": [dict(leak) for leak in leaks[:_SHOWN]],
        "found": len(leaks),
        "looked every": show_duration(spec.every),
    }
    return Package(
        kind=LEAK,
        title=f"something has crossed from run to run; runs reached: {len(runs)}",
        what_happened="A marked value that was put into one run stands in others that have nothing to do with it; "
        f"runs reached: {len(runs)}.",
        needed="Look at the first place in each run, and find what carries it over; then say what was done.",
        options=(
            Option(id="approve", label="It may be there"),
            Option(id="answer", label="It may not; this was done about it"),
        ),
        evidence=evidence,
    )
