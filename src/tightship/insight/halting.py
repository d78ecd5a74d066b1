"""What a halt would stop, said beforehand: a reading of the ledger that changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from tightship.controls.halts import TAKEN, check_scope
from tightship.core.ports import Json, ToolSpec
from tightship.effects.journal import Body, Journal
from tightship.ledger import Entry, Ledger
from tightship.ledger.paging import PAGE, pages
from tightship.runtime.program import DEFAULT_ROLE
from tightship.workflow.definition import Definition, from_definition

LIMIT: Final = 1000
"""Runs that are looked into."""
PASSED: Final = 20
"""Rows that are read and are not covered (other workflows', tenants' or agents'), at most, for each of these."""
OPEN: Final = ("running", "queued", "parked")
"""States of runs that have not ended, in the order in which they are looked at."""
_TOGETHER: Final = 64
"""Runs whose entries are read at once."""
_SHOWN: Final = 20
"""Lines of one list that are shown; `--json` has all."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a halt of a scope would do now.

    Attributes:
        scope: what would be halted.
        runs: runs that it ends, those below them included: run, workflow, state.
        taken: runs that stay in the hands of a person, with whom; they end when they are given back.
        in_flight: calls that were sent and have not settled: run, step, call, and what is done about each.
        undone: actions that are taken back: run, step, action, and by which tool.
        remains: actions that stay: run, step, action, why.
        items: open inbox items that close: item, run, type, role, title.
        people: who gets the work: role, people, how many runs.
        partial: whether these are a part: more runs are covered, or may be, than were looked into.
    """

    scope: str
    runs: tuple[Mapping[str, Json], ...]
    taken: tuple[Mapping[str, Json], ...]
    in_flight: tuple[Mapping[str, Json], ...]
    undone: tuple[Mapping[str, Json], ...]
    remains: tuple[Mapping[str, Json], ...]
    items: tuple[Mapping[str, Json], ...]
    people: tuple[Mapping[str, Json], ...]
    partial: bool = False

    def counts(self) -> dict[str, int]:
        """Runs by state."""
        return dict(Counter(str(run["state"]) for run in self.runs))

    def by_workflow(self) -> dict[str, dict[str, int]]:
        """Runs by workflow and state."""
        found: dict[str, dict[str, int]] = {}
        for run in self.runs:
            states = found.setdefault(str(run["workflow"]), {})
            states[str(run["state"])] = states.get(str(run["state"]), 0) + 1
        return dict(sorted(found.items()))

    def as_dict(self) -> dict[str, Json]:
        """All of it as JSON."""
        lists = {
            name: [dict(one) for one in getattr(self, name)]
            for name in self.__slots__
            if name not in ("scope", "partial")
        }
        return {"scope": self.scope, "partial": self.partial, "by_workflow": self.by_workflow(), **lists}

    def render(self) -> str:
        """As text."""
        told = ", ".join(f"{count} {state}" for state, count in sorted(self.counts().items()))
        least = "at least " if self.partial and told else ""
        lines = [f"{self.scope} covers {least}{told or 'no run that has not ended'}"]
        if self.partial:
            lines.append("  this is a part: more runs have not ended than were looked at (--limit looks into more)")
        for workflow, states in self.by_workflow().items():
            lines.append(f"  {workflow}: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}")
        lines += _block("stay with the person who has them", (f"{one['run']}: {one['by']}" for one in self.taken))
        lines += _block("in flight", (f"{one['call']} ({one['run']}): {one['then']}" for one in self.in_flight))
        lines += _block("undone", (f"{one['action']} ({one['run']}): by {one['tool']}" for one in self.undone))
        lines += _block("remains outside", (f"{one['action']} ({one['run']}): {one['why']}" for one in self.remains))
        lines += _block("inbox items that close", (f"{one['item']}: {one['title']}" for one in self.items))
        lines += _block("goes to", (f"{one['role']} ({one['people']}): {one['runs']}" for one in self.people))
        return "\n".join(lines)


async def preview(
    ledger: Ledger,
    scope: str,
    *,
    roles: Mapping[str, Sequence[str]] | None = None,
    limit: int = LIMIT,
) -> Preview:
    """What a halt of this scope would do now.

    Args:
        ledger: where to look. scope: `all`, `tenant:X`, `workflow:X`, `agent:X` or `run:X`.
        roles: the people of each role. limit: how many runs are looked into; beyond them it is a part (`partial`).

    Raises:
        InputRejected: no such scope.
    """
    scope = check_scope(scope)
    rows, partial = await _covered(ledger, scope, limit)
    taken = {
        row["scope"].removeprefix(TAKEN): row["by_whom"]
        for row in await ledger.select("halts", [("state", "=", "on")])
        if row["scope"].startswith(TAKEN)
    }
    reader = _Preview(ledger, roles or {})
    mine = [row for row in rows if row["id"] not in taken]
    for part in _parts(mine):
        entries = await ledger.runs_entries([row["id"] for row in part])
        items = await ledger.select("inbox", [("run", "in", [row["id"] for row in part]), ("state", "=", "open")])
        for row in part:
            await reader.read(row, entries[row["id"]])
        reader.items += [{name: item[name] for name in ("item", "run", "type", "role", "title")} for item in items]
    return Preview(
        scope,
        tuple({"run": row["id"], "workflow": row["workflow"], "state": row["state"]} for row in mine),
        tuple({"run": run, "by": taken[run]} for run in (row["id"] for row in rows) if run in taken),
        tuple(reader.in_flight),
        tuple(reader.undone),
        tuple(reader.remains),
        tuple(reader.items),
        tuple(reader.people()),
        partial,
    )


class _Preview:
    def __init__(self, ledger: Ledger, roles: Mapping[str, Sequence[str]]) -> None:
        self._ledger = ledger
        self._roles = roles
        self._told: Counter[str] = Counter()
        self.in_flight: list[dict[str, Json]] = []
        self.undone: list[dict[str, Json]] = []
        self.remains: list[dict[str, Json]] = []
        self.items: list[dict[str, Json]] = []

    async def read(self, row: Mapping[str, Any], entries: Sequence[Entry]) -> None:
        definition = await _pinned(self._ledger, entries)
        journal = Journal(self._ledger, row["id"], 0, row["log"], "")
        journal.load(entries, {})
        for key, body in journal.unfinished():
            then = _then(body, definition.tools.get(body["name"]), open_=key in journal.admitted)
            call: dict[str, Json] = {"run": row["id"], "step": key, "call": body["name"], "cls": body["cls"]}
            self.in_flight.append({**call, "then": then})
        spec = definition.workflow
        for key in reversed(sorted(journal.actions, key=lambda one: journal.actions[one])):
            if key in journal.undone:
                continue
            body = journal.effects[key]
            one: dict[str, Json] = {"run": row["id"], "step": key, "action": body["name"]}
            if not spec.undo_on_failure:
                self.remains.append({**one, "why": f"{spec.workflow} says that nothing is undone"})
            elif body.get("undo") is None:
                self.remains.append({**one, "why": "no compensation is declared for it"})
            else:
                self.undone.append({**one, "tool": body["undo"]["tool"]})
        self._told[spec.escalation_role(tuple(self._roles)) or DEFAULT_ROLE] += 1

    def people(self) -> Iterator[dict[str, Json]]:
        for role, count in sorted(self._told.items()):
            people = ", ".join(self._roles.get(role, ())) or "nobody holds this role"
            yield {"role": role, "people": people, "runs": count}


def _then(body: Body, spec: ToolSpec | None, open_: bool) -> str:
    """What is done about a call that has not settled."""
    if not open_:
        return "it failed and is not tried again"
    if body["cls"] not in ("write", "undo"):
        return "its answer is waited for, and charged"
    if spec is None:
        return "its answer is waited for"
    if spec.can_lookup:
        return "its answer is waited for; if that is lost, it is looked up; what was done is undone then"
    if spec.idempotency in ("key", "etag"):
        return "its answer is waited for; if that is lost, it is sent again under the same key, and undone then"
    return "its answer is waited for; if that is lost, a person is told that nobody knows"


async def _covered(ledger: Ledger, scope: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The rows of unfinished runs that a halt ends, those below them included; whether there may be more."""
    kind, _, name = scope.partition(":")
    if kind == "run":
        rows = await ledger.select("runs", [("id", "=", name), ("state", "in", OPEN)])
        partial = False
    else:
        rows, partial = await _first(ledger, _is_covered(ledger, kind, name), limit)
    found = {row["id"]: row for row in rows}
    above = list(found)
    while above and not partial:
        where = [("state", "in", OPEN), ("parent", "in", above)]
        below = await ledger.select("runs", where, [("id", "asc")], limit + 1)
        fresh = [row for row in below if row["id"] not in found]
        partial = len(below) > limit or len(found) + len(fresh) > limit
        found |= {row["id"]: row for row in fresh[: limit - len(found)]}
        above = [row["id"] for row in fresh]
    return list(found.values()), partial


async def _first(
    ledger: Ledger, is_covered: Callable[[dict[str, Any]], Awaitable[bool]], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Unfinished runs that are covered, and whether there may be more of them than could be looked at."""
    found: list[dict[str, Any]] = []
    passed = 0
    for state in OPEN:
        async with aclosing(unfinished(ledger, state, min(limit + 1, PAGE))) as read:
            async for rows in read:
                for row in rows:
                    if not await is_covered(row):
                        passed += 1
                    elif len(found) == limit:
                        return found, True
                    else:
                        found.append(row)
                if passed >= limit * PASSED:
                    return found, True
    return found, False


def unfinished(ledger: Ledger, state: str, size: int) -> AsyncGenerator[list[dict[str, Any]]]:
    """Runs in a state, a page at a time, as the index of open runs has them."""
    return pages(ledger, "runs", [("state", "=", state)], ("wake_at", "id"), None, size)


def _is_covered(ledger: Ledger, kind: str, name: str) -> Callable[[dict[str, Any]], Awaitable[bool]]:
    """Whether a run lies in a scope itself, by its row; runs of one version share their definition."""
    known: dict[tuple[str, str], bool] = {}

    async def uses(row: dict[str, Any]) -> bool:
        version = row["workflow"], row["version"]
        if version not in known:
            known[version] = name in (await _pinned(ledger, await ledger.run_entries(row["id"]))).agents
        return known[version]

    async def lies(row: dict[str, Any]) -> bool:
        return kind == "all" or row[kind] == name

    return uses if kind == "agent" else lies


async def _pinned(ledger: Ledger, entries: Sequence[Entry]) -> Definition:
    return from_definition(await ledger.value(entries[0].body["definition"]))


def _parts(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(0, len(rows), _TOGETHER):
        yield rows[start : start + _TOGETHER]


def _block(heading: str, lines: Iterable[str]) -> list[str]:
    found = list(lines)
    more = [f"    … and {len(found) - _SHOWN} more (--json names all)"] if len(found) > _SHOWN else []
    return [f"  {heading}:", *(f"    {line}" for line in found[:_SHOWN]), *more] if found else []
