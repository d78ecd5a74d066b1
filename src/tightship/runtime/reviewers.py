"""Reviewers and their load: reassigning, reminding, what is done when too much waits; thresholds in people's hands."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tightship.core import kinds
from tightship.core.errors import GuardRefused, InputRejected, UnknownName
from tightship.core.world import World
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger.vault import encode
from tightship.patterns.review import Review
from tightship.review.inbox import InboxItem, require_holder, require_item
from tightship.review.load import ASKS, PersonLoad, RoleLoad, beyond, passed, person_loads, role_loads
from tightship.review.thresholds import Standing
from tightship.runtime.timetable import keep_looking
from tightship.workflow.config import Overload
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.source import did_you_mean

if TYPE_CHECKING:
    from tightship.runtime.engine import Engine

LOOK: Final = 5.0
"""Seconds between two looks at what waits for reviewers."""
MANY: Final = 1000
"""Items that one look goes through."""
WEEK: Final = 7 * 86400.0
OVERLOAD: Final = "overload"
"""Who moves an item because a role has too many."""


class Reviewers:
    """Who decides what, how much waits, and the thresholds that their decisions teach."""

    def __init__(self, ledger: Ledger, files: WorkspaceFiles, world: World) -> None:
        self._ledger = ledger
        self._files = files
        self._clock = world.clock

    async def load(self, since: float = WEEK) -> tuple[list[RoleLoad], list[PersonLoad]]:
        """What waits for each role, and what each person has decided in the last seconds."""
        now, config = self._clock.now(), self._files.config
        open_ = [InboxItem.from_row(row) for row in await self._ledger.select("inbox", [("state", "=", "open")])]
        closed = await self._ledger.select("inbox", [("state", "=", "closed"), ("closed_at", ">", now - since)])
        rules = {role: (rule.open, rule.age) for role, rule in config.overload.items()}
        return role_loads(open_, now, config.roles, rules), person_loads(closed)

    async def reassign(self, item: str, role: str, by: str, reason: str = "") -> InboxItem:
        """Let another role decide an open item.

        Raises:
            UnknownName: no such item or role. GuardRefused: it was decided. BoundaryError: `by` may not decide it now.
            InputRejected: that role has it already.
        """
        found = await self._item(item)
        config = self._files.config
        if role not in config.roles:
            raise UnknownName(f"there is no role {role!r}", fix=did_you_mean(role, config.roles))
        if found.role:
            require_holder(by, found.role, config.roles, f"decide {item}")
        if found.role == role:
            raise InputRejected(f"{item} waits for {role} already")
        payloads = ()
        if reason and (started := await self._ledger.run_entries(found.run)):
            payloads = (self._ledger.vault.seal(started[0].body["scope"], encode({"reason": reason})),)
        body: dict[str, Any] = {"item": item, "role": role, "was": found.role, "by": by}
        body |= {"detail": payloads[0].address} if payloads else {}
        draft = Draft(found.run, kinds.ASSIGNED, "", body, payloads=payloads)
        await self._ledger.append(draft, guards=Guards(open_item=item), log=found.log or "default")
        return await self._item(item)

    async def _item(self, item: str) -> InboxItem:
        rows = await self._ledger.select("inbox", [("item", "=", item)])
        return require_item(rows[0] if rows else None, item)

    # --- thresholds ------------------------------------------------------------------------------

    def learning(self) -> dict[str, tuple[Review, float]]:
        """The reviews that learn, by class of decisions, each with its workflow's own threshold."""
        found: dict[str, tuple[Review, float]] = {}
        for name, spec in self._files.workflows.items():
            default = self._files.config.settings.threshold if spec.threshold is None else spec.threshold
            found |= {
                step.decision_class(name): (step, default)
                for step in spec.walk()
                if isinstance(step, Review) and step.learn is not None
            }
        return found

    async def thresholds(self) -> list[Standing]:
        """How every class that learns, or has learned, stands."""
        rows = {row["class"]: row for row in await self._ledger.select("thresholds", [], [("class", "asc")])}
        names = sorted({*rows, *self.learning()})
        return [Standing.from_row(rows[name]) if name in rows else Standing(name) for name in names]

    async def set(self, decision_class: str, state: str, by: str, reason: str, at: float | None = None) -> Standing:
        """Take a threshold into a person's hands.

        Args:
            decision_class: `workflow/step`.
            state: `frozen` at a value, `thawed` (learning goes on), or `reset` (all that was learned is forgotten).
            by, reason: who, and why; both stand in clear.
            at: for `frozen`, in [0, 1]; the learned one without it.

        Raises:
            UnknownName: no review learns under this name. BoundaryError: `by` does not decide such cases.
            InputRejected: no reason, or nothing to freeze.
        """
        known = self.learning()
        if decision_class not in known:
            raise UnknownName(f"no review learns as {decision_class!r}", fix=did_you_mean(decision_class, known))
        require_holder(by, known[decision_class][0].by, self._files.config.roles, f"decide {decision_class}")
        if not reason.strip():
            raise InputRejected("a threshold is changed by hand for a reason only", fix="say why with --reason")
        body: dict[str, Any] = {"class": decision_class, "state": state, "by": by, "reason": reason}
        if state == "frozen":
            standing = next(one for one in await self.thresholds() if one.decision_class == decision_class)
            at = standing.threshold if at is None else at
            if at is None or not 0 <= at <= 1:
                raise InputRejected("there is no learned threshold to freeze", fix="name one with --at, from 0 to 1")
            body["threshold"] = at
        await self._ledger.append(Draft("", kinds.THRESHOLD, "", body))
        return next(one for one in await self.thresholds() if one.decision_class == decision_class)


class ReviewWatch:
    """Looks, in the process that executes, for items whose time runs out, and for roles with too many."""

    def __init__(self, engine: Engine, rules: Mapping[str, Overload]) -> None:
        self._engine = engine
        self._rules = rules

    async def watch(self) -> None:
        """Look again and again."""
        await keep_looking(self.look, self._engine.shared.world.clock, LOOK)

    async def look(self) -> None:
        """Look once."""
        await self._remind()
        for role, rule in self._rules.items():
            if rule.then != "hold":
                await self._relieve(role, rule)

    async def _remind(self) -> None:
        now = self._engine.shared.world.clock.now()
        where: list[tuple[str, str, Any]] = [("state", "=", "open"), ("remind", ">", 0.0), ("remind", "<=", now)]
        for row in await self._engine.ledger.select("inbox", where, [("due", "asc")], MANY):
            item = InboxItem.from_row(row)
            body: dict[str, Any] = {"item": item.item, "role": item.role, "due": item.due}
            await self._append(item, kinds.REMINDED, body)

    async def _relieve(self, role: str, rule: Overload) -> None:
        """Do what is declared for what is too much. None of it approves anything."""
        now = self._engine.shared.world.clock.now()
        where: list[tuple[str, str, Any]] = [("state", "=", "open"), ("role", "=", role)]
        rows = await self._engine.ledger.select("inbox", where, [("opened_at", "asc")])
        items = [item for row in rows if (item := InboxItem.from_row(row)).type in ASKS]
        why = passed(items, now, rule.open, rule.age)
        if not why:
            return
        for item in beyond(items, now, rule.open, rule.age):
            if rule.to is not None:
                body = {"item": item.item, "role": rule.to, "was": role, "by": OVERLOAD, "reason": why}
                await self._append(item, kinds.ASSIGNED, body)
            elif item.type == "review":
                await self._give_up(item, why)

    async def _give_up(self, item: InboxItem, why: str) -> None:
        """Nobody decides it: what the review says of that counts (`otherwise`), and nothing is learned from it."""
        body = {"item": item.item, "decision": "expired", "by": "", "reason": f"too much waits: {why}", "spared": True}
        signal = Draft(item.run, kinds.SIGNAL, "", {"type": "answer", "item": item.item, "by": OVERLOAD})
        await self._append(item, kinds.CLOSED, body, signal)

    async def _append(self, item: InboxItem, kind: str, body: dict[str, Any], *more: Draft) -> None:
        draft = Draft(item.run, kind, "", body)
        with contextlib.suppress(GuardRefused):  # somebody has decided it meanwhile
            guards = Guards(open_item=item.item)
            await self._engine.ledger.append(draft, *more, guards=guards, log=item.log or "default")
