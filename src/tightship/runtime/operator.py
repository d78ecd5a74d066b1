"""What people do to runs, from any process: decide what waits, cancel, halt. All of it is an append to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tightship.context import Declarations, Heads
from tightship.controls.halts import TAKEN, check_scope
from tightship.core import kinds
from tightship.core.errors import GuardRefused, InputRejected, PayloadErased, UnknownName
from tightship.core.ids import CONDUCT, derived_id
from tightship.core.ports import Json
from tightship.core.world import World
from tightship.ledger import Draft, Guards, Ledger, SealedPayload
from tightship.ledger.vault import encode, names_of
from tightship.review.inbox import Decision, InboxItem, check_decision, closing_body, require_item
from tightship.runtime.ballots import voters
from tightship.runtime.conduct import Audits
from tightship.runtime.drift_checks import DRIFT, conduct_scope, decided
from tightship.runtime.four_eyes import barred, named
from tightship.runtime.leak_checks import LEAK
from tightship.runtime.manual import Hands
from tightship.runtime.purse import wrong_grant
from tightship.runtime.starting import Starter
from tightship.runtime.steps import StepState
from tightship.workflow.definition import Definition, from_definition
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.models import WorkflowSpec
from tightship.workflow.types import check_input

_INHERITED: Final = ("workflow", "version", "definition", "handed", "tenant", "build", "priority", "live", "four_eyes")
"""What a linked run has in common with the run whose escalation was answered."""
_URGENCY: Final[Sequence[tuple[str, list[tuple[str, str, Any]], list[tuple[str, str]]]]] = (
    ("open", [("due", ">", 0.0)], [("due", "asc"), ("opened_at", "asc")]),
    ("open", [("due", "=", 0.0)], [("opened_at", "asc")]),
    ("closed", [], [("closed_at", "desc")]),
)
"""The order in which items are listed: state, further conditions, order."""


def linked_run(item: str) -> str:
    """The id of the run that an answer to this item starts."""
    return derived_id("r", item, "answer")


class Operator:
    """A person's hands on the workspace.

    Everywhere `by` is the person who acts, whom the caller has authenticated, and `reason` why: it is sealed like the
    run's other values, and erased with them. A halt's reason stands in clear.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: WorkspaceFiles,
        world: World,
        starter: Callable[[], Awaitable[Starter]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._files = files
        self._world = world
        self._hands = Hands(ledger, files, world)
        self._context = Declarations(files.config.context)
        self._starter = starter

    # --- audits ----------------------------------------------------------------------------------

    async def audit(self, agent: str, by: str) -> list[str]:
        """Have a sample of an agent's outputs looked at now; returns the ids of the runs that do (runtime.conduct).

        Raises:
            UnknownName: there is no such agent. InputRejected: it declares no audit.
        """
        self._files.agent(agent)
        assert self._starter is not None, "the workspace gives it"
        return await Audits(self._ledger, self._files.agents, self._starter).begin(agent, by, due_only=False)

    # --- the inbox -------------------------------------------------------------------------------

    async def items(self, state: str = "open", role: str | None = None, limit: int = 200) -> list[InboxItem]:
        """Items of the inbox: open ones, the most urgent first; then decided ones, the latest first.

        Args:
            state: `open`, `closed` or `all`. role: only what waits for it. limit: how many at most.
        """
        whose: list[tuple[str, str, Any]] = [] if role is None else [("role", "=", role)]
        rows: list[dict[str, Any]] = []
        for of, more, order in _URGENCY:
            if state in (of, "all") and len(rows) < limit:
                where = [("state", "=", of), *more, *whose]
                rows += await self._ledger.select("inbox", where, order, limit - len(rows))
        return await self._worded([InboxItem.from_row(row) for row in rows])

    async def item(self, item: str) -> tuple[InboxItem, Mapping[str, Json]]:
        """An item with its package.

        Raises:
            UnknownName: there is none.
        """
        rows = await self._ledger.select("inbox", [("item", "=", item)])
        [found] = await self._worded([require_item(rows[0] if rows else None, item)])
        package = await self._ledger.values([found.package], erased={"title": "erased"}) if found.package else {}
        return found, package.get(found.package, {})

    async def barred(self, item: InboxItem) -> dict[str, str]:
        """The people who may not decide an item, since four eyes are declared: each with why, in words."""
        return await barred(self._ledger, item.run, item.item) or {}

    async def told(self, item: str) -> list[dict[str, Any]]:
        """What outside systems were told of an item: target, event, state, attempts, why (the last failure), at (s)."""
        rows = await self._ledger.select("deliveries", [("item", "=", item)])
        return [{name: row[name] for name in ("target", "event", "state", "attempts", "why", "at")} for row in rows]

    async def _worded(self, items: list[InboxItem]) -> list[InboxItem]:
        """The items with what people said when they decided them."""
        told = await self._ledger.values([item.detail for item in items if item.detail], erased={"reason": "(erased)"})
        return [replace(item, reason=told[item.detail]["reason"]) if item.detail else item for item in items]

    async def decide(self, item: str, decision: Decision) -> InboxItem:
        """Take a person's decision: the first one stands.

        Under four eyes it is decided again whether this person may when something happens to the run meanwhile.

        Raises:
            UnknownName: no such item. GuardRefused: it was decided already. InputRejected: it does not take this.
            BoundaryError: this person may not.
        """
        found, package = await self.item(item)
        seen, apart = await self._seen(found.run), await barred(self._ledger, found.run, item)
        roles = {role: set(people) for role, people in self._files.config.roles.items()}
        voted = await voters(self._ledger, found.run, package)
        schema = await self._schema(found, decision, package)
        check_decision(decision, found, roles=roles, voted=voted, barred=apart, schema=schema)
        wrong = wrong_grant(decision.value) if found.type == "budget" and decision.value is not None else None
        if wrong is not None:
            raise InputRejected(
                f"this grants nothing: {wrong}", fix="--value '{\"usd\": 0.5}', or no value for as much again"
            )
        payloads: list[SealedPayload] = []
        address = ""
        if decision.value is not None:
            scope = await self._scope(found.run)
            payloads.append(self._ledger.vault.seal(scope, encode(decision.value)))
            address = payloads[0].address
        said = await self._said(found.run, decision.reason)
        body = closing_body(item, decision, address, said[0].address if said else "")
        closed = Draft(found.run, kinds.CLOSED, "", body, payloads=(*payloads, *said))
        following = (*await self._following(found, decision), *await self._settled_conflict(found, decision, package))
        signal = Draft(found.run, kinds.SIGNAL, "", {"type": "answer", "item": item, "by": decision.by})
        if found.type in (DRIFT, LEAK):  # about many runs, none of which waits for it
            follows = await decided(self._ledger, item, decision.type, decision.by) if found.type == DRIFT else ()
            drafts = (closed, *follows)
        else:
            drafts = (closed, signal, *following)
        try:
            guards = Guards(open_item=item, seen=None if apart is None else seen)
            await self._ledger.append(*drafts, guards=guards, log=found.log or "default")
        except GuardRefused as refused:
            if refused.reason == "signal":
                return await self.decide(item, decision)
            now, _ = await self.item(item)
            check_decision(decision, now, roles=roles)
            raise
        return (await self.item(item))[0]

    async def _following(self, item: InboxItem, decision: Decision) -> tuple[Draft, ...]:
        """The run that an answer to an escalation starts: an escalated run is final, what comes of it is another one.

        An answer that is an object gives input that was missing or wrong; a sentence says what was done, and that is
        all. The linked run has the definition, the tenant and the rest of the input of the run that was escalated. It
        is nobody's yet: whoever executes takes it up, as after a crash.

        Raises:
            InputRejected: the input that comes of it does not fit. PayloadErased: the earlier input is gone.
        """
        if item.type != "escalation" or decision.type != "answer" or not isinstance(decision.value, dict):
            return ()
        first = await self._started(item.run)
        spec = from_definition(await self._ledger.value(first["definition"])).workflow
        given = check_input(spec.input, {**await self._ledger.value(first["input"]), **decision.value}, spec.name)
        vault = self._ledger.vault
        subjects = {vault.keyring.subject(first["tenant"], one) for one in self._subjects(spec, given)}
        scope = vault.scope({*names_of(first["scope"]), *subjects})
        payload = vault.seal(scope, encode(given))
        body = {name: first[name] for name in _INHERITED if name in first}
        body |= {"input": payload.address, "scope": scope, "linked": item.run}
        body["by"] = named(decision.by, *first.get("by", ()))
        return (Draft(linked_run(item.item), kinds.STARTED, "", body, 1, (payload,)),)

    async def _settled_conflict(
        self, item: InboxItem, decision: Decision, package: Mapping[str, Json]
    ) -> tuple[Draft, ...]:
        """What a decision about two values of the shared context writes; nothing where the first one stands."""
        asked = package.get("context")
        if not isinstance(asked, Mapping) or decision.type == "reject":
            return ()
        declared = self._context.of(asked["key"])
        value = decision.value if decision.type == "edit" else asked["value"]
        declared.check_value(value)
        heads = Heads(self._ledger)
        payload = heads.seal(asked["tenant"], value, await self._scope(item.run))
        return (heads.draft(declared, asked["scope"], payload, decision.by, run=item.run, sources=(item.item,)),)

    @staticmethod
    def _subjects(spec: WorkflowSpec, given: dict[str, Json]) -> set[str]:
        """The data subjects that the workflow declares, as the engine finds them at a start."""
        found: set[str] = set()
        for expression in spec.subjects:
            value = expression.evaluate({"input": given})
            found.update(str(one) for one in (value if isinstance(value, list) else [value]) if one)
        return found

    async def _schema(
        self, item: InboxItem, decision: Decision, package: Mapping[str, Json]
    ) -> Mapping[str, Any] | None:
        """The shape that a given value has to fit: as the package says, or as declared by what is reviewed."""
        schema = package.get("schema")
        if isinstance(schema, Mapping):
            return schema
        if item.type != "review" or decision.type != "edit":
            return None
        started = await self._started(item.run)
        definition = await self._ledger.value(started["definition"])
        return reviewed_schema(from_definition(definition), str(package.get("agent") or ""))

    async def _scope(self, run: str) -> str:
        """The keys that the run's values are sealed with."""
        if run == CONDUCT:
            return await conduct_scope(self._ledger)
        return str((await self._started(run))["scope"])

    async def _seen(self, run: str) -> int:
        """The position of the last signal to a run."""
        rows = await self._ledger.select("runs", [("id", "=", run)])
        return int(rows[0]["last_signal"] or 0) if rows else 0

    async def _started(self, run: str) -> Mapping[str, Any]:
        entries = await self._ledger.run_entries(run)
        if not entries:
            raise UnknownName(f"there is no run {run!r}")
        return entries[0].body

    async def _said(self, run: str, reason: str) -> tuple[SealedPayload, ...]:
        """What a person has typed, sealed like the run's other values; nothing once the run's key was destroyed."""
        if not reason:
            return ()
        try:
            return (self._ledger.vault.seal(await self._scope(run), encode({"reason": reason})),)
        except PayloadErased:  # the decision stands; its words could never be erased again
            return ()

    # --- runs ------------------------------------------------------------------------------------

    async def cancel(self, run: str, by: str, reason: str = "") -> None:
        """Ask a run to stop: it undoes what it has done and ends as cancelled.

        Raises:
            UnknownName: no such run. InputRejected: it has ended already.
        """
        rows = await self._ledger.select("runs", [("id", "=", run)])
        if not rows:
            raise UnknownName(f"there is no run {run!r}", fix="list them with `tightship runs list`")
        if rows[0]["state"] == "ended":
            raise InputRejected(f"run {run} has ended already: {rows[0]['outcome']}")
        said = await self._said(run, reason)
        body = {"type": "cancel", "by": by, **({"detail": said[0].address} if said else {})}
        await self._ledger.append(Draft(run, kinds.SIGNAL, "", body, payloads=said), log=rows[0]["log"])

    # --- taking a run over -----------------------------------------------------------------------

    async def steps(self, run: str) -> list[StepState]:
        """The steps of a run as they stand: what is done and by whom, what is open, what waits.

        Raises:
            UnknownName: no such run.
        """
        return (await self._hands.standing(run)).steps

    async def values(self, run: str) -> dict[str, Json]:
        """A run's state: its input, and what its finished steps have given, by name.

        Raises:
            UnknownName: no such run. PayloadErased: it was erased.
        """
        stands = await self._hands.standing(run)
        given = await self._ledger.value(stands.journal.entries[0].body["input"])
        return {"input": given, **await stands.values()}

    async def holder(self, run: str) -> str:
        """The person who has the run in hand; empty when nobody has."""
        return await self._hands.holder(run)

    async def held(self) -> dict[str, str]:
        """Every run that a person has in hand, and who."""
        rows = await self._ledger.select("halts", [("state", "=", "on")])
        return {row["scope"].removeprefix(TAKEN): row["by_whom"] for row in rows if row["scope"].startswith(TAKEN)}

    async def take(self, run: str, by: str, reason: str = "") -> None:
        """Take a run over, and the runs below it: nothing new begins until it is given back; what was sent settles.

        Raises:
            UnknownName: no such run. InputRejected: it has ended. BoundaryError: this person may not.
        """
        await self._hands.take(run, by, reason)

    async def do(self, run: str, step: str, output: Json, by: str, reason: str = "") -> StepState:
        """Do a step by hand, by its key or name: `output` counts as the step's.

        Raises:
            as `take`; NotTaken: the run is not in their hands. ActRefused: the step is done or under way.
            InputRejected: the output does not fit what is declared.
        """
        return await self._hands.do(run, step, output, by, reason)

    async def edit(self, run: str, name: str, value: Json, by: str, reason: str = "") -> list[StepState]:
        """Change what a finished step gave, for all that is still open. Returns finished steps that had read it.

        Raises:
            as `do`; ActRefused: an action that used the old value stands, or the value is not there yet.
        """
        return await self._hands.edit(run, name, value, by, reason)

    async def undo(self, run: str, step: str, by: str, reason: str = "") -> StepState:
        """Have a finished action of a run in their hands undone; whoever executes does it. It is open again then.

        Raises:
            as `do`; ActRefused: it is no finished action, or has no compensation.
        """
        return await self._hands.undo(run, step, by, reason)

    async def give(self, run: str, by: str, reason: str = "") -> None:
        """Give a run back: it goes on from where it stands, with what was done by hand.

        Raises:
            as `do`.
        """
        await self._hands.give(run, by, reason)

    # --- halts -----------------------------------------------------------------------------------

    async def halt(self, scope: str, by: str, reason: str = "") -> dict[str, int]:
        """Stop a scope: no new effect is begun in it. Returns what it stops: runs by state.

        The reason stands in clear: every process reads it, and no erasure takes it away.

        Raises:
            InputRejected: no such scope.
        """
        scope = check_scope(scope)
        covered = await self.covered(scope)
        await self._ledger.append(Draft("", kinds.HALT, "", {"scope": scope, "by": by, "reason": reason}))
        return covered

    async def unhalt(self, scope: str, by: str, reason: str = "") -> bool:
        """Lift a halt; false when the scope was not halted."""
        scope = check_scope(scope)
        rows = await self._ledger.select("halts", [("scope", "=", scope), ("state", "=", "on")])
        if not rows:
            return False
        await self._ledger.append(Draft("", kinds.UNHALT, "", {"scope": scope, "by": by, "reason": reason}))
        return True

    async def halts(self) -> list[dict[str, Any]]:
        """What is halted now."""
        rows = await self._ledger.select("halts", [("state", "=", "on")], [("scope", "asc")])
        return [row for row in rows if not row["scope"].startswith(TAKEN)]

    async def covered(self, scope: str) -> dict[str, int]:
        """How many unfinished runs a halt of this scope reaches, by state."""
        kind, _, name = scope.partition(":")
        where: list[tuple[str, str, Any]] = [("state", "in", ["queued", "running", "parked"])]
        column = {"tenant": "tenant", "workflow": "workflow", "run": "id"}.get(kind)
        if column is not None:
            where.append((column, "=", name))
        elif kind == "agent":
            users = [w for w, spec in self._files.workflows.items() if name in spec.agents()]
            where.append(("workflow", "in", users))
        counts: dict[str, int] = {}
        for row in await self._ledger.select("runs", where):
            counts[row["state"]] = counts.get(row["state"], 0) + 1
        return counts


class _Declared:
    """What a pinned definition declares, as `Step.gives` asks for it."""

    def __init__(self, definition: Definition) -> None:
        self.agent = definition.agents.get
        self.tool = definition.tools.get


def reviewed_schema(definition: Definition, subject: str) -> Mapping[str, Any] | None:
    """JSON Schema of the output that a review is about; None where nothing is declared, or several things differ.

    Args:
        definition: what the run is pinned to.
        subject: the name under which the output is bound.
    """
    declared = _Declared(definition)
    steps = [one for step in definition.workflow.steps for one in step.walk() if subject and one.result == subject]
    schemas = [schema for step in steps if (schema := step.gives(declared)) is not None]
    return schemas[0] if schemas and all(schema == schemas[0] for schema in schemas) else None
