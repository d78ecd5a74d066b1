"""What must hold when a story is over, whatever went wrong in it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tightship.core import kinds
from tightship.core.money import to_nano
from tightship.ledger._schema import projection_tables
from tightship.ledger.entries import Entry
from tightship.ledger.folded import deltas
from tightship.ledger.memory import MemoryBackend

from ._paths import held_by_one
from .machines import SimLedger
from .story import World, waits_for_people

UNKNOWN = "OutcomeUnknown"
COUNTED = (kinds.PARKED, kinds.CLAIMED, kinds.EXTENDED, kinds.OPENED)
COORDINATED = ("settled", "plan.rejected", "manager.replan", "manager.replaced", "handoff", "handoff.returned",
               "saga.undone")  # fmt: skip
FAILED = "/failed"
BEGUN, UNDONE = "/begun", "/note:saga.undone/1"
"""How the key of the decision ends by which a saga has turned around."""


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class Effect:
    """What the ledger says of one effect."""

    run: str
    key: str
    admits: list[Entry] = field(default_factory=list[Entry])
    settles: list[Entry] = field(default_factory=list[Entry])

    @property
    def final(self) -> list[Entry]:
        """Settles after which nothing follows under the key."""
        return [entry for entry in self.settles if not entry.body.get("again")]

    @property
    def done(self) -> Entry | None:
        """The settle that says it was done."""
        return next((entry for entry in self.settles if "out" in entry.body), None)

    @property
    def unknown(self) -> bool:
        """Whether the last word is that nobody knows."""
        return bool(self.final) and self.final[-1].body.get("error", {}).get("error") == UNKNOWN

    @property
    def open(self) -> bool:
        """Whether an admit has no settle."""
        last = max((entry.n for entry in self.settles), default=0)
        return any(entry.n > last for entry in self.admits)

    @property
    def token(self) -> str:
        """The token under which the company knows it."""
        key = f"{self.run}/{self.key}"
        return "ts-" + hashlib.sha256(f"{self.run}\x1f{key}".encode()).hexdigest()[:32]


class Checker:
    """Judges one seed's world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger: SimLedger = world.ledger()
        self.entries: list[Entry] = []
        self.rows: dict[str, dict[str, Any]] = {}
        self.effects: dict[tuple[str, str], Effect] = {}
        self.by_run: dict[str, list[Entry]] = defaultdict(list)

    async def check(self) -> None:
        """Check everything.

        Raises:
            Broken: with what does not hold.
        """
        await self._read()
        self._complaints()
        self._positions()
        self._stops()
        self._projections()
        await self._endings()
        self._effects()
        self._budgets()
        await self._company()
        await self._undo()
        await self._claims()
        self._inbox()
        self._money()
        await self._boards()

    async def check_now(self) -> None:
        """Check what must hold at any moment.

        Raises:
            Broken: with what does not hold.
        """
        await self._read()
        self._positions()
        self._stops()
        self._effects()
        self._budgets()

    async def _boards(self) -> None:
        """No sub-problem was held by two, or done twice; every run's results are its own."""
        try:
            await held_by_one(self.ledger)
        except AssertionError as error:
            raise Broken(f"a board: {error}") from error

    async def _read(self) -> None:
        self.entries = await self.ledger.entries(0, 10**9)
        self.rows = {row["id"]: row for row in await self.ledger.select("runs")}
        for entry in self.entries:
            if entry.run:
                self.by_run[entry.run].append(entry)
            if entry.kind in (kinds.ADMITTED, kinds.SETTLED):
                effect = self.effects.setdefault((entry.run, entry.key), Effect(entry.run, entry.key))
                (effect.admits if entry.kind == kinds.ADMITTED else effect.settles).append(entry)

    def happened(self) -> Counter[str]:
        """What this seed has exercised."""
        count = Counter(entry.kind for entry in self.entries if entry.kind in COUNTED)
        count["crashes"] = self.world.crashes
        for entry in self.entries:
            if entry.kind == kinds.SIGNAL and entry.body["type"] in ("take", "do", "edit", "undo", "give"):
                count[entry.body["type"]] += 1
            count["halts"] += entry.kind == kinds.HALT
            count["board moves"] += entry.kind == kinds.CONTEXT
            if entry.kind == kinds.NOTE and entry.body["type"] in COORDINATED:
                count[entry.body["type"]] += 1
            if entry.kind == kinds.NODE and entry.key.endswith("/accepted"):
                count["plans"] += 1
        for row in self.rows.values():
            count[row["outcome"] or "waiting"] += 1
        for effect in self.effects.values():
            cls = effect.settles[-1].body["cls"] if effect.settles else ""
            count["undone"] += cls == "undo" and effect.done is not None
            count["unknown"] += effect.unknown
            count["from cache"] += any(entry.body.get("cached") for entry in effect.settles)
            count["retried"] += len(effect.settles) > 1
            count["found by look-up"] += effect.done is not None and bool(
                effect.done.body.get("meta", {}).get("looked_up")
            )
            codes = [entry.body.get("error", {}).get("error") for entry in effect.final]
            count["refused claims"] += codes == ["DuplicateClaim"]
        for entry in self.entries:
            if entry.kind == kinds.ENDED and entry.body.get("residual"):
                count["residual reports"] += 1
        return count

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(what)

    # --- the log ------------------------------------------------------------------------------------

    def _complaints(self) -> None:
        self._require(not self.world.sim.complaints, f"asyncio complained: {self.world.sim.complaints[:3]}")
        bad = [error for error in self.world.errors if "StoreFull" not in error]
        self._require(not bad, f"somebody who ran a workflow got: {bad[:3]}")

    def _positions(self) -> None:
        numbers = [entry.n for entry in self.entries]
        self._require(numbers == list(range(1, len(numbers) + 1)), "positions have gaps")
        times = [entry.at for entry in self.entries]
        self._require(times == sorted(times), "store time goes back")

    def _projections(self) -> None:
        fresh = MemoryBackend(projection_tables())
        fresh.replace_projections(deltas(self.ledger), self.ledger.folder.tables)
        for table, keys in self.ledger.folder.tables.items():
            order = [(key, "asc") for key in keys]
            kept, rebuilt = (one.select(table, (), order, None) for one in (self.ledger.backend, fresh))
            self._require(kept == rebuilt, f"the projection {table} differs from its rebuild")

    def _stops(self) -> None:
        """No effect is begun in a scope after its halt, nor in a run that a person has; only what takes back passes.

        A further attempt at what was begun before is no new effect: it finds out what became of it.
        """
        halted: set[str] = set()
        for entry in self.entries:
            body = entry.body
            if entry.kind in (kinds.HALT, kinds.UNHALT):
                (halted.add if entry.kind == kinds.HALT else halted.discard)(body["scope"])
            elif entry.kind == kinds.SIGNAL and body["type"] in ("take", "give"):
                (halted.add if body["type"] == "take" else halted.discard)(f"run {entry.run} taken")
            elif entry.kind == kinds.ADMITTED and body["cls"] != "undo" and not body.get("attempt"):
                row = self.rows[entry.run]
                scopes = {"all", f"tenant:{row['tenant']}", f"workflow:{row['workflow']}", f"run:{entry.run}"}
                scopes |= {f"agent:{body['agent']}", f"run {entry.run} taken"}
                self._require(not scopes & halted, f"{entry.key} of {entry.run} began at {entry.n} in a halted scope")

    # --- runs ---------------------------------------------------------------------------------------

    async def _endings(self) -> None:
        for run, row in self.rows.items():
            entries = self.by_run[run]
            ends = [entry for entry in entries if entry.kind == kinds.ENDED]
            if row["state"] == "ended":
                self._require(len(ends) == 1, f"run {run} has {len(ends)} ends")
                self._require(
                    ends[0].body["outcome"] in kinds.OUTCOMES, f"run {run} ended as {ends[0].body['outcome']}"
                )
                late = [entry for entry in entries if entry.n > ends[0].n and entry.epoch]
                self._require(not late, f"run {run} went on after its end: {[entry.kind for entry in late]}")
                self._parents(row)
            else:
                self._require(not ends, f"run {run} has ended and is {row['state']}")
                self._require(
                    await waits_for_people(self.world, self.ledger, row), f"run {run} is {row['state']} for no reason"
                )

    def _parents(self, row: dict[str, Any]) -> None:
        children = [child for child in self.rows.values() if child["parent"] == row["id"]]
        open_ = [child["id"] for child in children if child["state"] != "ended"]
        self._require(not open_, f"run {row['id']} has ended and its children {open_} go on")

    # --- effects ------------------------------------------------------------------------------------

    def _effects(self) -> None:
        for effect in self.effects.values():
            what = f"effect {effect.key} of {effect.run}"
            self._require(len(effect.final) <= 1, f"{what} was settled {len(effect.final)} times")
            if effect.done is not None:
                later = [entry.n for entry in effect.settles + effect.admits if entry.n > effect.done.n]
                self._require(not later, f"{what} went on after it was done")
            if self.rows[effect.run]["state"] == "ended":
                self._require(not effect.open, f"{what} is open, and its run has ended")

    def _budgets(self) -> None:
        for run, row in self.rows.items():
            spec = next(spec for spec in self.world.plan.workflows if spec.workflow == row["workflow"])
            scopes: dict[str, Any] = {"run": spec.budget}
            scopes |= {f"agent:{one.agent}": one.budget for one in self.world.plan.agents if not one.budget.empty}
            for scope, budget in scopes.items():
                # what runs below it spend, a run has spent too
                entries = self._with_children(run) if scope == "run" else self.by_run[run]
                self._envelope(f"{scope} of {run}", run, scope, budget, entries)
        if self.world.plan.tenant_usd is not None:
            self._tenant(to_nano(self.world.plan.tenant_usd))

    def _with_children(self, run: str) -> list[Entry]:
        family = {run}
        while more := {one for one, row in self.rows.items() if row["parent"] in family} - family:
            family |= more
        return [entry for entry in self.entries if entry.run in family]

    def _envelope(self, what: str, run: str, scope: str, budget: Any, entries: Iterable[Entry]) -> None:
        limit = {"usd": budget.usd, "calls": budget.calls}
        held: dict[tuple[str, str], tuple[int, int]] = {}
        spent = {"usd": 0, "calls": 0}
        for entry in entries:
            body, key = entry.body, (entry.run, entry.key)
            mine = scope == "run" or scope == (body.get("task") or f"agent:{body.get('agent')}")
            if entry.kind == kinds.EXTENDED and body["scope"] == scope and entry.run == run:
                limit = {unit: most if most is None else most + int(body.get(unit, 0)) for unit, most in limit.items()}
            elif entry.kind == kinds.ADMITTED and mine:
                before = held.pop(key, None)
                if before is not None:
                    spent = {"usd": spent["usd"] + before[0], "calls": spent["calls"] + 1}
                held[key] = (int(body.get("reserve", {}).get("usd", 0)), 1)
                if body["cls"] != "undo":
                    self._within(what, entry, limit, spent, held)
            elif entry.kind == kinds.SETTLED and mine:
                held.pop(key, None)
                if not (body.get("denied") or body.get("refused") or body.get("cached")):
                    spent = {"usd": spent["usd"] + int(body.get("usd") or 0), "calls": spent["calls"] + 1}

    def _within(self, what: str, entry: Entry, limit: Any, spent: Any, held: Any) -> None:
        for index, unit in enumerate(("usd", "calls")):
            total = spent[unit] + sum(one[index] for one in held.values())
            asked = held[entry.run, entry.key][index]
            self._require(
                limit[unit] is None or not asked or total <= limit[unit],
                f"the budget of {what} is exceeded at {entry.n}: {total} of {limit[unit]} {unit}",
            )

    def _tenant(self, limit: int) -> None:
        held: dict[tuple[str, str], int] = {}
        spent = 0
        for entry in self.entries:
            body, key = entry.body, (entry.run, entry.key)
            if entry.kind == kinds.EXTENDED and body["scope"].startswith("tenant:"):
                limit += int(body.get("usd", 0))
            elif entry.kind == kinds.ADMITTED:
                spent += held.pop(key, 0)
                held[key] = int(body.get("reserve", {}).get("usd", 0))
                total = spent + sum(held.values())
                self._require(
                    not held[key] or total <= limit, f"the tenant's budget is exceeded at {entry.n}: {total} of {limit}"
                )
            elif entry.kind == kinds.SETTLED:
                held.pop(key, None)
                spent += int(body.get("usd") or 0)

    # --- the company --------------------------------------------------------------------------------

    async def _company(self) -> None:
        done = await self._done_outside()
        by_token = {effect.token: effect for effect in self.effects.values()}
        for token, count in done.items():
            effect = by_token.get(token)
            self._require(effect is not None, f"the company did {token}, which no ledger knows")
            assert effect is not None
            what = f"{effect.key} of {effect.run} ({effect.settles[-1].body['name'] if effect.settles else 'open'})"
            self._require(count == 1, f"{what} was done {count} times")
            if effect.done is None and self.rows[effect.run]["state"] == "ended":
                self._require(
                    effect.unknown, f"{what} was done, and the run says {[e.body.get('error') for e in effect.final]}"
                )
        for effect in self.effects.values():
            if effect.done is not None and effect.done.body["cls"] in ("write", "undo"):
                self._require(done.get(effect.token) == 1, f"{effect.key} of {effect.run} was settled and not done")

    async def _done_outside(self) -> dict[str, int]:
        """How often the company did each effect, by token."""
        done: dict[str, int] = defaultdict(int)
        notes = await self._notes()
        for row in self.world.outside.company.ledger():
            token = row["idempotency_key"] or row["client_ref"] or notes.get(str(row["body"].get("note")))
            self._require(bool(token), f"the company did something without a name: {row}")
            done[str(token)] += 1
        for letter in self.world.outside.letters:
            run, _, key = letter["key"].partition("/")
            done[Effect(run, key).token] += 1
        return done

    async def _notes(self) -> dict[str, str]:
        """Conditional writes carry no name of their own: their text tells which effect they are."""
        found: dict[str, str] = {}
        for effect in self.effects.values():
            if effect.admits and effect.admits[0].body["name"] == "orders.update":
                args = await self.ledger.value(effect.admits[0].body["args"])
                found[args["note"]] = effect.token
        return found

    # --- undo ---------------------------------------------------------------------------------------

    async def _undo(self) -> None:
        for run, row in self.rows.items():
            if row["state"] != "ended":
                continue
            told = await self._actions(run)
            turned = [e.n for e in self.by_run[run] if e.kind == kinds.DECIDED and e.key == "run/interrupted"]
            undone = [  # what a person had undone before the run turned around was undone when they said so
                entry.body
                for entry in self.by_run[run]
                if entry.kind == kinds.ADMITTED
                and entry.body["cls"] == "undo"
                and entry.n > min(turned, default=entry.n)
            ]
            first = list(dict.fromkeys(body["undoes"] for body in undone))
            order = [told.index(key) for key in first if key in told]
            self._require(order == sorted(order, reverse=True), f"run {run} undid in the order {order}")
            self._sagas(run, told)
            await self._residual(run, row, told)

    def _sagas(self, run: str, told: list[str]) -> None:
        """A saga that failed has undone what was done in it, in reverse order; what it could not, it has told of."""
        entries = self.by_run[run]
        ended = {entry.key: entry.n for entry in entries if entry.kind == kinds.NODE}
        done = {*ended, *(entry.key.removesuffix(UNDONE) for entry in entries if entry.kind == kinds.NOTE)}
        by_hand = any(entry.kind == kinds.SIGNAL and entry.body["type"] in ("do", "undo") for entry in entries)
        if self.rows[run]["outcome"] == "completed" and not by_hand:
            begun = {e.key.removesuffix(BEGUN) for e in entries if e.kind == kinds.DECIDED and e.key.endswith(BEGUN)}
            self._require(begun <= done, f"run {run} completed with half done sagas: {sorted(begun - done)}")
        for failed in entries:
            if failed.kind != kinds.DECIDED or not failed.key.endswith(FAILED):
                continue
            saga = failed.key.removesuffix(FAILED)
            until = ended.get(saga, failed.n)
            undoes = [
                entry.body["undoes"]
                for entry in entries
                if entry.kind == kinds.ADMITTED and entry.body["cls"] == "undo" and failed.n < entry.n < until
            ]
            first = [key for key in dict.fromkeys(undoes) if key.startswith(f"{saga}/") and key in told]
            order = [told.index(key) for key in first]
            self._require(order == sorted(order, reverse=True), f"saga {saga} of {run} undid in the order {order}")

    async def _actions(self, run: str) -> list[str]:
        """What the run and its children did, in the order in which it was settled."""
        found: list[tuple[int, str]] = []
        for entry in self.by_run[run]:
            effect = self.effects.get((run, entry.key))
            if entry.kind == kinds.SETTLED and "out" in entry.body and effect is not None and effect.admits:
                if effect.admits[0].body["cls"] == "write":
                    found.append((entry.n, entry.key))
            elif entry.kind == kinds.SIGNAL and entry.body["type"] == "child":
                child, told = entry.body["child"], entry.body.get("actions")
                done = await self.ledger.value(told) if told else ()
                found += [(action["n"], f"{child}:{action['key']}") for action in done]
        return [key for _, key in sorted(found)]

    async def _residual(self, run: str, row: dict[str, Any], told: list[str]) -> None:
        """A run that was turned around has undone what it did, or says what remains."""
        spec = next(spec for spec in self.world.plan.workflows if spec.workflow == row["workflow"])
        end = next(entry for entry in self.by_run[run] if entry.kind == kinds.ENDED)
        unknown = [effect.key for effect in self.effects.values() if effect.run == run and effect.unknown]
        turned = row["outcome"] != "completed" and (spec.undo_on_failure or row["outcome"] == "cancelled")
        expected = list(unknown)
        if turned:
            undone = {
                effect.admits[0].body["undoes"]
                for effect in self.effects.values()
                if effect.run == run and effect.done is not None and effect.done.body["cls"] == "undo"
            }
            expected += [key for key in told if key not in undone]
        if not expected:
            return
        detail = await self.ledger.value(end.body["detail"]) if "detail" in end.body else {}
        said = {one["key"] for one in detail.get("residual", ())} | await self._told_by_sagas(run)
        expected = [key for key in expected if not key.startswith("undo/")]
        self._require(
            set(expected) <= said,
            f"run {run} ({row['outcome']}) does not report that {sorted(set(expected) - said)} remain",
        )

    async def _told_by_sagas(self, run: str) -> set[str]:
        """What sagas could not undo, and have put into the inbox at once."""
        found: set[str] = set()
        for entry in self.by_run[run]:
            if entry.kind == kinds.OPENED and entry.body["type"] == "residual":
                package = await self.ledger.value(entry.body["package"])
                found |= {one["key"] for one in package["evidence"]["effects"]}
        return found

    # --- claims, inbox, money -----------------------------------------------------------------------

    async def _claims(self) -> None:
        for row in await self.ledger.select("claims"):
            effect = self.effects[row["run"], row["effect"]]
            if self.rows[row["run"]]["state"] != "ended" or row["state"] == "released":
                continue
            held = effect.done is not None or effect.unknown
            self._require(held, f"the claim of {row['effect']} of {row['run']} is {row['state']}, and nothing was done")

    def _inbox(self) -> None:
        closed: dict[str, list[str]] = defaultdict(list)
        for entry in self.entries:
            if entry.kind == kinds.CLOSED:
                closed[entry.body["item"]].append(entry.body["decision"])
        twice = {item: how for item, how in closed.items() if len(how) > 1}
        self._require(not twice, f"items were decided more than once: {twice}")
        for entry in self.entries:
            if entry.kind == kinds.OPENED and entry.body["type"] not in ("escalation", "residual"):
                left = entry.body["item"] not in closed and self.rows[entry.run]["state"] == "ended"
                self._require(not left, f"{entry.body['item']} waits for a run that has ended")

    def _money(self) -> None:
        """What the company charged is in the ledger, settled or as the full price of what was lost."""
        page = self.world.outside.company.lookups
        billed = _billed(page)
        recorded = sum(int(e.body.get("usd") or 0) for e in self.entries if e.kind == kinds.SETTLED)
        recorded += sum(
            int(effect.admits[-1].body.get("reserve", {}).get("usd", 0))
            for effect in self.effects.values()
            if effect.open
        )
        self._require(recorded >= billed, f"the company charged {billed}, the ledger knows {recorded}")


def _billed(lookups: Any) -> int:
    rows = lookups._db.all("SELECT usd FROM charges")
    return sum(to_nano(row["usd"]) for row in rows)
