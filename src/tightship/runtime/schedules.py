"""Workflows that start by themselves: once per slot, however many workers look, and however often.

A slot's run has an id that is derived from workflow and slot, and its first entry is appended together with the entry
that says how far the schedule was kept. So a second start is the same run, and what was missed is recorded once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tightship.core import kinds
from tightship.core.errors import GuardRefused, TightshipError
from tightship.core.ids import derived_id
from tightship.core.ports import Delta, EntryView
from tightship.core.signals import Halted
from tightship.ledger import Draft, Guards, Ledger
from tightship.runtime.start import Start
from tightship.runtime.starting import Starter
from tightship.workflow.models import Schedule, WorkflowSpec
from tightship.workflow.slots import last_slot, slot_name, slots_between


class SchedulesProjection:
    """The `schedules` table: how far each workflow's schedule was kept, and what came of it."""

    table = "schedules"
    key_columns: Sequence[str] = ("log", "workflow")
    kinds = frozenset({kinds.SCHEDULE})

    def fold(self, entry: EntryView) -> list[Delta]:
        """Go forward to the entry's slot."""
        body = entry.body
        changes: dict[str, Any] = {"cron": body["cron"], "timezone": body["timezone"], "upto": float(body["upto"])}
        if body.get("run"):
            changes["run"] = body["run"]
        add = {"started": int(bool(body.get("run"))), "missed": int(body.get("missed", 0))}
        return [Delta((entry.log, body["workflow"]), changes, add)]


class Schedules:
    """Starts what is due of the workflows that declare a schedule.

    Args:
        ledger: where runs are recorded.
        workflows: the workspace's, as they stand.
        starter: gives what makes runs.
    """

    def __init__(
        self, ledger: Ledger, workflows: Mapping[str, WorkflowSpec], starter: Callable[[], Awaitable[Starter]]
    ) -> None:
        self.ledger = ledger
        self._workflows = workflows
        self._starter = starter

    async def look(self) -> None:
        """Start the last slot of each schedule that has come and was not dealt with; record earlier ones as missed."""
        declared = {name: spec.schedule for name, spec in self._workflows.items() if spec.schedule is not None}
        if not declared:
            return
        now = self.ledger.world.clock.now()
        rows = await self.ledger.select("schedules", [("workflow", "in", sorted(declared))])
        known = {(row["log"], row["workflow"]): row for row in rows}
        for name, schedule in declared.items():
            try:
                await self._keep(name, schedule, known.get((schedule.tenant, name)), now)
            except (TightshipError, Halted) as error:  # the slot stays open, and is tried at every look until the next
                logging.getLogger(__name__).warning("the schedule of %s could not be kept: %s", name, error)

    async def _keep(self, name: str, schedule: Schedule, row: Mapping[str, Any] | None, now: float) -> None:
        if row is None or (row["cron"], row["timezone"]) != (schedule.cron, schedule.timezone):
            await self._record(name, schedule, {"upto": now}, row)  # from now on its slots count
            return
        slot = last_slot(schedule.cron, schedule.timezone, now)
        if slot <= row["upto"]:
            return
        cron, zone = schedule.cron, schedule.timezone
        missed = await self.ledger.off_loop(slots_between, cron, zone, row["upto"], slot)
        body: dict[str, Any] = {"upto": slot}
        if missed:
            body |= {"missed": len(missed), "since": missed[0]}
        reference = slot_name(slot)
        run = derived_id("r", schedule.tenant, name, reference)
        start = Start(name, dict(schedule.input), reference, schedule.tenant, id=run)
        beginning = await (await self._starter()).prepare(start, owner="")
        beginning.guards = replace(beginning.guards, kept=_kept(name, schedule, row))
        try:
            await beginning.record(self._draft(name, schedule, {**body, "run": run}))
        except GuardRefused as refused:
            if refused.reason == "exists":  # another worker has started it, or somebody by hand under this reference
                await self._record(name, schedule, body, row)
            elif refused.reason != "kept":
                raise

    async def _record(self, name: str, schedule: Schedule, body: dict[str, Any], row: Mapping[str, Any] | None) -> None:
        guards = Guards(kept=_kept(name, schedule, row))
        with contextlib.suppress(GuardRefused):  # another worker was first
            await self.ledger.append(self._draft(name, schedule, body), guards=guards, log=schedule.tenant)

    def _draft(self, name: str, schedule: Schedule, body: dict[str, Any]) -> Draft:
        stated = {"workflow": name, "cron": schedule.cron, "timezone": schedule.timezone}
        return Draft("", kinds.SCHEDULE, name, {**stated, **body})


def _kept(name: str, schedule: Schedule, row: Mapping[str, Any] | None) -> tuple[str, str, float]:
    """What has to stand still: how far the schedule was kept when it was looked at."""
    return schedule.tenant, name, 0.0 if row is None else float(row["upto"])
