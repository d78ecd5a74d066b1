"""Checks for drift that are declared: made by themselves, once per slot, and told to people with the evidence (F6).

What is compared again and again is found different by chance sooner or later. So all checks of a year share one chance
of a false alarm, each as much of it as its time is of the year: linear spending (K. Lan and D. DeMets, "Discrete
sequential boundaries for clinical trials", Biometrika 70, 1983), added up by Bonferroni's inequality, which holds
however the checks depend on each other. They do: all of them look at the same baseline, most at some of the same runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import GuardRefused, InputRejected, TightshipError, UnknownName
from tightship.core.ids import CONDUCT, derived_id
from tightship.core.ports import Json
from tightship.ledger import DEFAULT_LOG, Draft, Entry, Guards, Ledger
from tightship.ledger.vault import encode
from tightship.review.package import Option, Package
from tightship.runtime.conduct import Baseline, baselines, ended_runs, record_baseline, record_check
from tightship.runtime.drift import MOST, DriftReport, Observation, compare, latest, observe
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.models import DriftSpec
from tightship.workflow.units import show_duration

YEAR: Final = 31_536_000.0
"""Seconds over which the chance of a false alarm is declared: 365 days."""
DRIFT: Final = "drift"
"""The type of inbox items that tell of a finding, and what the name of a schedule of checks begins with."""
CHECK: Final = "tightship drift"
"""Who has halted what has drifted."""


def share(spec: DriftSpec) -> float:
    """The chance of a false alarm that one of the checks of a year has."""
    return spec.level * min(1.0, spec.every / YEAR)


@dataclass(frozen=True, slots=True)
class Slot:
    """The time of one check: whoever appends with its guard and its draft first has made it."""

    name: str
    at: float
    before: float
    every: float

    @property
    def guards(self) -> Guards:
        """Nobody else has made it."""
        return Guards(kept=(DEFAULT_LOG, self.name, self.before))

    @property
    def draft(self) -> Draft:
        """It is made."""
        body = {"workflow": self.name, "cron": f"every {show_duration(self.every)}", "timezone": "UTC", "upto": self.at}
        return Draft("", kinds.SCHEDULE, self.name, body)


async def due(ledger: Ledger, name: str, every: float) -> Slot | None:
    """The slot that has come and was not dealt with; None where there is none. Earlier ones are passed over."""
    now = ledger.world.clock.now()
    rows = await ledger.select("schedules", [("log", "=", DEFAULT_LOG), ("workflow", "=", name)])
    before = float(rows[0]["upto"]) if rows else 0.0
    at = now - now % every
    return Slot(name, at, before, every) if at > before else None


class DriftChecks:
    """Compares what runs do now with what they did, by hand or as declared.

    Args:
        ledger: where runs are. files: the workspace's, as they stand.
    """

    def __init__(self, ledger: Ledger, files: WorkspaceFiles) -> None:
        self._ledger, self._files = ledger, files

    # --- by hand -----------------------------------------------------------------------------------

    async def record(self, subject: str, since: float, until: float, by: str) -> Baseline:
        """Say that the latest runs of a time (at most 500) show how a subject should behave.

        Raises:
            UnknownName: there is no such agent or workflow. InputRejected: no run, or nobody says so.
        """
        kind, _, name = subject.partition(":")
        _ = self._files.agent(name) if kind == "agent" else self._files.workflow(name)
        return await self._record(subject, since, until, by, MOST)

    async def check(self, subject: str | None, level: float, effect: float, fewest: int) -> list[DriftReport]:
        """Compare what ran since with the baselines: of one subject, or of all. One check, recorded, told to nobody.

        Args:
            level: the chance of a false alarm of this check. effect: the least difference that is told.
            fewest: runs needed on either side.

        Raises:
            UnknownName: there is no baseline of this subject.
        """
        known = await baselines(self._ledger)
        if subject is not None and subject not in known:
            raise UnknownName(f"there is no baseline of {subject!r}", fix="record one: tightship drift baseline AGENT")
        found: list[DriftReport] = []
        for name, base in known.items():
            if subject in (None, name):
                before, recent = await self._sides(base, base.until, MOST)
                report = await self._compared(name, before, recent, level, effect, fewest)
                if not report.missing:
                    drifted = [one.feature for one in report.changes]
                    await record_check(self._ledger, base, len(recent), recent[-1].at, drifted, level)
                found.append(report)
        return found

    # --- as declared -------------------------------------------------------------------------------

    def declared(self) -> Iterator[tuple[str, DriftSpec, str]]:
        """What is checked by itself: subject, how, and who answers for it."""
        for name, agent in self._files.agents.items():
            if agent.drift is not None:
                yield f"agent:{name}", agent.drift, agent.owner
        for name, workflow in self._files.workflows.items():
            if workflow.drift is not None:
                yield f"workflow:{name}", workflow.drift, workflow.owner

    async def look(self) -> None:
        """Make every check whose time has come. Doing so twice makes none twice."""
        for subject, spec, owner in self.declared():
            try:
                slot = await due(self._ledger, f"{DRIFT}:{subject}", spec.every)
                if slot is not None:
                    await self._make(subject, spec, owner, slot)
            except GuardRefused as refused:  # another worker was first
                if refused.reason != "kept":
                    raise
            except TightshipError as error:
                logging.getLogger(__name__).warning("the check of %s was put off: %s", subject, error)

    async def _make(self, subject: str, spec: DriftSpec, owner: str, slot: Slot) -> None:
        """One check: what it has found, and who is told, are one unit with its slot."""
        entries = await self._ledger.run_entries(CONDUCT)
        base = (await baselines(self._ledger)).get(subject) or await self._first(subject, spec, owner)
        if base is None:
            return
        made = [one for one in entries if one.kind == kinds.DRIFT and one.body["baseline"] == base.n]
        told = [str(one.body["item"]) for one in made if "item" in one.body]
        rows = await self._ledger.select("inbox", [("item", "in", told)]) if told else []
        since = max([base.until, *(float(row["closed_at"] or 0.0) for row in rows)])
        before, recent = await self._sides(base, since, spec.latest)
        looked = max((float(one.body["upto"]) for one in made if "slot" in one.body), default=0.0)
        drafts = [slot.draft]
        if recent and recent[-1].at > looked:
            report = await self._compared(subject, before, recent, share(spec), spec.effect, spec.fewest, exact=True)
            if not report.missing:
                waits = any(row["state"] == "open" for row in rows)
                drafts += await self._drafts(spec, slot, base, report, recent, waits)
        await self._ledger.append(*drafts, guards=slot.guards)

    async def _drafts(
        self,
        spec: DriftSpec,
        slot: Slot,
        base: Baseline,
        report: DriftReport,
        recent: Sequence[Observation],
        waits: bool,
    ) -> list[Draft]:
        body: dict[str, Any] = {"subject": base.subject, "baseline": base.n, "runs": len(recent)}
        body |= {"upto": recent[-1].at, "drifted": [one.feature for one in report.changes]}
        body |= {"level": share(spec), "slot": slot.at}
        if not report.changes:
            return [Draft(CONDUCT, kinds.DRIFT, base.subject, body)]
        body |= _as_it_is_now(report, recent, spec.fewest)
        found = [Draft(CONDUCT, kinds.DRIFT, base.subject, body)]
        if not waits:
            body["item"] = derived_id("i", slot.name, str(base.n), str(slot.at))
            found.append(await self._item(spec, base, report, str(body["item"])))
        if spec.then == "halt":
            reason = f"it has drifted: {', '.join(body['drifted'])}"
            found.append(Draft("", kinds.HALT, "", {"scope": base.subject, "by": CHECK, "reason": reason}))
        return found

    async def _item(self, spec: DriftSpec, base: Baseline, report: DriftReport, item: str) -> Draft:
        package = finding(spec, base, report)
        payload = self._ledger.vault.seal(await conduct_scope(self._ledger), encode(package.to_json()))
        body = {"item": item, "type": DRIFT, "role": spec.role, "title": package.title, "package": payload.address}
        return Draft(CONDUCT, kinds.OPENED, base.subject, body, payloads=(payload,))

    async def _first(self, subject: str, spec: DriftSpec, owner: str) -> Baseline | None:
        """The declared baseline, once so many runs have ended."""
        if spec.baseline is None:
            return None
        try:
            return await self._record(subject, 0.0, float("inf"), owner, spec.baseline, spec.baseline)
        except InputRejected:  # not yet
            return None

    # --- what is compared --------------------------------------------------------------------------

    async def _record(self, subject: str, since: float, until: float, by: str, most: int, fewest: int = 0) -> Baseline:
        rows = await self._ended(subject, since, until)
        seen = await latest(self._ledger, subject, [row["id"] for row in rows], most, self._schema(subject))
        if len(seen) < fewest:
            raise InputRejected(f"{len(seen)} runs show how {subject} behaves, and {fewest} are needed")
        ends = (seen[0].at, seen[-1].at) if seen else (since, since)
        return await record_baseline(self._ledger, subject, [one.run for one in seen], by, *ends)

    async def _sides(self, base: Baseline, since: float, most: int) -> tuple[list[Observation], list[Observation]]:
        schema = self._schema(base.subject)
        rows = await self._ended(base.subject, since)
        fresh = [row["id"] for row in rows if row["id"] not in base.runs]
        recent = await latest(self._ledger, base.subject, fresh, most, schema)
        return await observe(self._ledger, base.subject, list(base.runs), schema), recent

    async def _ended(self, subject: str, since: float, until: float = float("inf")) -> list[dict[str, Any]]:
        kind, _, name = subject.partition(":")
        return await ended_runs(self._ledger, since, until, name if kind == "workflow" else "")

    async def _compared(
        self,
        subject: str,
        before: Sequence[Observation],
        recent: Sequence[Observation],
        level: float,
        effect: float,
        fewest: int,
        exact: bool = False,
    ) -> DriftReport:
        work = lambda: compare(subject, before, recent, level=level, effect=effect, fewest=fewest, exact=exact)  # noqa: E731
        return await self._ledger.off_loop(work)

    def _schema(self, subject: str) -> Mapping[str, Any] | None:
        spec = self._files.agents.get(subject.partition(":")[2]) if subject.startswith("agent:") else None
        return None if spec is None else spec.output_schema


# --- what people are told, and what comes of what they decide -----------------------------------------------


async def conduct_scope(ledger: Ledger) -> str:
    """The keys of what is told about many runs: those of the tenant."""
    name = f"tenant:{DEFAULT_LOG}"
    await ledger.own_keys(name)
    return ledger.vault.scope([name])


def finding(spec: DriftSpec, base: Baseline, report: DriftReport) -> Package:
    """What a person needs to judge a drift by."""
    kind, _, name = base.subject.partition(":")
    halted = f" The {kind} is halted until this is decided." if spec.then == "halt" else ""
    evidence: dict[str, Json] = {
        "drifted": [one.as_dict() for one in report.changes],
        "runs compared": report.recent,
        "baseline": {"runs": report.baseline, "by": base.by},
        "chance of a false alarm in a year": spec.level,
    }
    return Package(
        kind=DRIFT,
        title=f"the {kind} {name} does not behave as its baseline: {len(report.changes)} features"[:300],
        what_happened=f"Later runs of the {kind} {name} differ from those of its baseline in "
        f"{', '.join(one.feature for one in report.changes)}.{halted}",
        needed="Look at the runs that show it, and say whether it may behave so, or what was done about it.",
        options=(
            Option(id="approve", label="It may: what it does now is its new baseline"),
            Option(id="answer", label="It may not; this was done about it"),
        ),
        evidence=evidence,
        agent=name if kind == "agent" else "",
        workflow=name if kind == "workflow" else "",
    )


async def decided(ledger: Ledger, item: str, decision: str, by: str) -> list[Draft]:
    """What a decision about a drift does: what it does now is accepted, or not; in either case it goes on."""
    entries = await ledger.run_entries(CONDUCT)
    told = next(one for one in entries if one.kind == kinds.DRIFT and one.body.get("item") == item)
    subject = str(told.body["subject"])
    found = [_accepted(told, by)] if decision == "approve" else []
    rows = await ledger.select("halts", [("scope", "=", subject), ("state", "=", "on")])
    if any(row["by_whom"] == CHECK for row in rows):
        found.append(Draft("", kinds.UNHALT, "", {"scope": subject, "by": by, "reason": f"{item} was decided"}))
    return found


def _as_it_is_now(report: DriftReport, recent: Sequence[Observation], fewest: int) -> dict[str, Any]:
    """The runs that are the new baseline if somebody accepts it: those since it began, where there are enough."""
    began = min(one.since for one in report.changes)
    shown = [one for one in recent if one.at >= began]
    shown = shown if len(shown) >= fewest else list(recent)
    return {"recent": [one.run for one in shown], "since": shown[0].at}


def _accepted(told: Entry, by: str) -> Draft:
    body = told.body
    names = {"subject": body["subject"], "by": by, "runs": body["recent"]}
    span = {"since": float(body["since"]), "until": float(body["upto"])}
    return Draft(CONDUCT, kinds.BASELINE, body["subject"], {**names, **span})
