"""What is recorded about how agents behave: baselines, checks for drift, and audits of what finished runs gave (F6)."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import GuardRefused, InputRejected, TightshipError
from tightship.core.ids import CONDUCT, derived_id
from tightship.core.ports import Json
from tightship.core.signals import Halted
from tightship.ledger import Draft, Entry, Ledger
from tightship.runtime.start import Start
from tightship.runtime.starting import Starter
from tightship.workflow.models import AgentSpec

_LOOKED_AT: Final = 5000
"""Ended runs among which an audit draws."""
_BATCH: Final = 100
_ERASED: Final = object()


@dataclass(frozen=True, slots=True)
class Baseline:
    """How a subject behaved when somebody said that it behaves as it should.

    Attributes:
        subject: `agent:NAME` or `workflow:NAME`. n: the position of its entry. at: when it was recorded (s).
        by: who did. runs: in which it shows. since, until: when they ended (s).
    """

    subject: str
    n: int
    at: float
    by: str
    runs: tuple[str, ...]
    since: float
    until: float

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        names = ("subject", "at", "by", "since", "until")
        return {**{name: getattr(self, name) for name in names}, "runs": list(self.runs)}


def ended(since: float, until: float) -> list[tuple[str, str, Any]]:
    """The conditions for real runs that ended in a time (s), the first moment left out."""
    return [("state", "=", "ended"), ("live", "=", 1), ("ended_at", ">", since), ("ended_at", "<=", until)]


async def ended_runs(
    ledger: Ledger, since: float = 0.0, until: float = float("inf"), workflow: str = "", limit: int = _LOOKED_AT
) -> list[dict[str, Any]]:
    """The rows of real runs that ended in a time, the latest ones, in the order in which they ended."""
    where = ended(since, min(until, 1e12))
    if workflow:
        where.append(("workflow", "=", workflow))
    rows = await ledger.select("runs", where, [("ended_at", "desc"), ("id", "asc")], limit)
    return rows[::-1]


async def record_baseline(
    ledger: Ledger, subject: str, runs: Sequence[str], by: str, since: float, until: float
) -> Baseline:
    """Say that these runs show how a subject should behave.

    Raises:
        InputRejected: there are none, or nobody says so. StoreError: the disk.
    """
    if not runs:
        raise InputRejected(f"no run that has ended shows how {subject} behaves", fix="run it first, or widen the time")
    if not by:
        raise InputRejected("a baseline needs somebody who stands by it", fix="give --by NAME")
    body = {"subject": subject, "by": by, "runs": list(runs), "since": since, "until": until}
    [entry] = await ledger.append(Draft(CONDUCT, kinds.BASELINE, subject, body))
    return _baseline(entry)


async def baselines(ledger: Ledger) -> dict[str, Baseline]:
    """The last baseline of each subject."""
    entries = await ledger.run_entries(CONDUCT)
    return {entry.body["subject"]: _baseline(entry) for entry in entries if entry.kind == kinds.BASELINE}


def _baseline(entry: Entry) -> Baseline:
    body = entry.body
    return Baseline(body["subject"], entry.n, entry.at, body["by"], tuple(body["runs"]), body["since"], body["until"])


async def record_check(
    ledger: Ledger, baseline: Baseline, runs: int, upto: float, drifted: Sequence[str], level: float
) -> None:
    """Record what a check has found, for figures and alerts."""
    body = {
        "subject": baseline.subject,
        "baseline": baseline.n,
        "runs": runs,
        "upto": upto,
        "drifted": list(drifted),
        "level": level,
    }
    await ledger.append(Draft(CONDUCT, kinds.DRIFT, baseline.subject, body))


class Audits:
    """Has outputs of finished runs looked at: each by a run of the workflow that the agent's `audit:` names.

    Args:
        ledger: where runs are. agents: the workspace's, as they stand. starter: gives what makes runs.
    """

    def __init__(
        self, ledger: Ledger, agents: Mapping[str, AgentSpec], starter: Callable[[], Awaitable[Starter]]
    ) -> None:
        self._ledger = ledger
        self._agents = agents
        self._starter = starter

    async def look(self) -> None:
        """Begin every audit that is due. Doing so twice starts no run twice."""
        for name in [name for name, spec in self._agents.items() if spec.audit is not None]:
            try:
                await self.begin(name)
            except (TightshipError, Halted) as error:
                logging.getLogger(__name__).warning("the audit of %s was put off: %s", name, error)

    async def begin(self, agent: str, by: str = "", *, due_only: bool = True) -> list[str]:
        """Draw outputs of an agent and start a run for each.

        Args:
            by: who asks for it; nobody where it is due. due_only: do nothing before `every` has passed.

        Returns: the runs' ids.

        Raises:
            InputRejected: the agent declares no audit. UnknownName: its workflow is not there.
        """
        spec = self._agents[agent].audit
        if spec is None:
            raise InputRejected(f"{agent} declares no audit", fix="add `audit: {by: WORKFLOW}` to the agent")
        entries = await self._ledger.run_entries(CONDUCT)
        last = next((one for one in reversed(entries) if one.kind == kinds.AUDIT and one.key == agent), None)
        if due_only and last is not None and self._ledger.world.clock.now() - last.at < spec.every:
            return []
        since = 0.0 if last is None else float(last.body["upto"])
        rows = await ended_runs(self._ledger, since)
        upto = max((row["ended_at"] for row in rows), default=since)
        drawn = await self._draw(agent, [row["id"] for row in rows if row["workflow"] != spec.by], spec.sample)
        begun = [await self._start(agent, spec.by, *one, by) for one in drawn]
        runs = [run for run in begun if run]
        body: dict[str, Any] = {"agent": agent, "workflow": spec.by, "upto": upto, "runs": runs}
        await self._ledger.append(Draft(CONDUCT, kinds.AUDIT, agent, body | ({"by": by} if by else {})))
        return runs

    async def _draw(self, agent: str, runs: Sequence[str], sample: int) -> list[tuple[Entry, Entry]]:
        """The starts and the turns of as many runs, drawn by the hash of their ids: at random for the agent, the same
        for every worker."""
        drawn = sorted(runs, key=lambda run: hashlib.sha256(f"{agent}\0{run}".encode()).digest())
        found: list[tuple[Entry, Entry]] = []
        for start in range(0, len(drawn), _BATCH):
            grouped = await self._ledger.runs_entries(drawn[start : start + _BATCH])
            for entries in grouped.values():
                own = [e for e in entries if e.kind == kinds.TURN and e.body.get("agent") == agent and "out" in e.body]
                if own and len(found) < sample:
                    found.append((entries[0], own[-1]))
            if len(found) >= sample:
                break
        return found

    async def _start(self, agent: str, workflow: str, began: Entry, turn: Entry, by: str) -> str:
        """Begin to look at what a turn gave; nothing where it was erased.

        The run is sealed with the keys of the one that it looks at, its data subjects' among them: whoever erases that
        erases what this one holds of it.
        """
        run, addresses = turn.run, [turn.body["hash"], turn.body["out"]]
        values = await self._ledger.values(addresses, _ERASED)
        if any(values[one] is _ERASED for one in addresses):
            return ""
        given, output = (values[one] for one in addresses)
        reference = f"audit:{agent}:{run}:{turn.key}"
        input = {"agent": agent, "run": run, "given": given, "output": output}
        id = derived_id("r", turn.log, workflow, reference)
        start = Start(workflow, input, reference, turn.log, id=id, linked=run, around=str(began.body["scope"]))
        start.by = [by]
        beginning = await (await self._starter()).prepare(start, owner="")
        with contextlib.suppress(GuardRefused):  # another worker has started it
            await beginning.record()
        return beginning.facts.id
