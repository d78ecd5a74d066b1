"""Decision traceability (G2): for every decision what triggered it, what it considered, by which rules, who answers.

A reading of the run's entries. A version is a position in the ledger; a value is named by its address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tightship.core import kinds
from tightship.core.errors import UnknownName
from tightship.core.ports import EntryView, Json
from tightship.insight._accountable import Declared
from tightship.insight._decision import Datum, Decision, DecisionKind, Rule, RunDecisions, Trigger
from tightship.insight._noted import child_told, noted
from tightship.insight._reading import (
    ERASED,
    HANDS,
    Effect,
    Order,
    Turn,
    base_of,
    by_hand,
    effects,
    first,
    granted_text,
    said_of,
    same_item,
    short,
    turn_key,
    turn_of,
    turns,
)
from tightship.insight._rules import confidence_rule, given_rules, needed, policies, read_datum, reason_of
from tightship.ledger import Ledger


async def why(ledger: Ledger, run: str) -> RunDecisions:
    """The decisions of a run, with the values that explain them opened.

    Raises:
        UnknownName: there is no such run.
    """
    entries = await ledger.run_entries(run)
    if first(entries, kinds.STARTED) is None:
        raise UnknownName(f"there is no run {run!r}", fix="list them with `tightship runs list`")
    return explain(entries, await ledger.values(needed(entries), erased=ERASED))


def explain(entries: Sequence[EntryView], values: Mapping[str, Json]) -> RunDecisions:
    """The decisions of a run.

    Args:
        entries: all entries of the run, in order; the first of them is its start.
        values: opened values by address; what is not here is named by its address alone.
    """
    return _Explaining(entries, values).run()


class _Explaining:
    """One pass over a run's entries."""

    def __init__(self, entries: Sequence[EntryView], values: Mapping[str, Json]) -> None:
        self.entries = entries
        self.values = values
        started = first(entries, kinds.STARTED)
        if started is None:
            raise UnknownName("these are not the entries of a run from its start")
        self.started = started
        self.declared = Declared(
            str(started.body.get("workflow") or ""), values.get(str(started.body.get("definition")))
        )
        self.effects = effects(entries)
        self.turns = turns(entries)
        self.closed = {str(entry.body.get("item")): entry for entry in entries if entry.kind == kinds.CLOSED}
        self.conditions: dict[str, EntryView] = {}
        self.opened = {str(entry.body.get("item")): entry for entry in entries if entry.kind == kinds.OPENED}
        self.asked_at = {base_of(entry.key) for entry in self.opened.values()}
        self.inside: dict[str, list[Effect]] = {}
        self.sources: dict[str, list[Datum]] = {}
        self.order = Order(entries)
        self.before = [("", Trigger("the run's start", started.n))]
        self.reviewers: list[tuple[str, str]] = []
        self.decisions: list[Decision] = []
        for effect in self.effects.values():
            turn = turn_of(effect.key, self.turns)
            if turn is not None:
                self.inside.setdefault(turn.key, []).append(effect)
        self._know_input()

    def run(self) -> RunDecisions:
        ended = first(self.entries, kinds.ENDED)
        for entry in self.entries:
            if entry.kind == kinds.DECIDED and "/given/" in f"/{entry.key}":
                self.conditions[base_of(entry.key)] = entry
        for entry in self.entries:
            self._take(entry)
        self.decisions.sort(key=lambda decision: decision.n)
        body = self.started.body
        return RunDecisions(
            run=self.started.run,
            workflow=self.declared.workflow,
            version=str(body.get("version") or ""),
            owner=self.declared.owner,
            purpose=self.declared.purpose,
            outcome="" if ended is None else str(ended.body.get("outcome") or ""),
            decisions=tuple(self.decisions),
        )

    def _take(self, entry: EntryView) -> None:
        kind = entry.kind
        if kind == kinds.TURN:
            self._turn(entry, self.turns[entry.key])
        elif kind == kinds.SETTLED:
            effect = self.effects[entry.key]
            if effect.settled_n == entry.n:
                self._effect(entry, effect)
        elif kind == kinds.NODE:
            self._node(entry)
        elif kind == kinds.DECIDED:
            self._decided(entry)
        elif kind == kinds.NOTE:
            self._note(entry)
        elif kind == kinds.OPENED:
            self._opened(entry)
        elif kind == kinds.CLOSED:
            self._person(entry)
        elif kind == kinds.EXTENDED:
            self._extended(entry)
        elif kind == kinds.SIGNAL:
            self._signalled(entry)
        elif kind == kinds.ENDED:
            self._ended(entry)

    # --- agents ----------------------------------------------------------------------------------

    def _turn(self, entry: EntryView, turn: Turn) -> None:
        given = self.values.get(turn.given)
        data, trigger = self._considered(turn, given)
        inside = self.inside.get(turn.key, [])
        data += [read_datum(effect) for effect in inside if effect.cls == "read" and effect.out]
        data += [Datum(key, e.out, version, "shared context") for e in inside for key, version in e.shared]
        out = self.values.get(turn.out)
        decision = Decision(
            n=entry.n,
            at=entry.at,
            key=turn.key,
            kind="turn",
            actor=turn.agent,
            trigger=trigger,
            action=f"gave {short(out)}"
            if turn.out and out is not None
            else f"gave {turn.out}"
            if turn.out
            else "failed",
            data=data,
            rules=policies(inside) + confidence_rule(out),
            reason=reason_of(out) if turn.out else self._error(turn.error, turn.detail),
            accountable=self.declared.accountable(turn.agent),
            outside=self._outside(turn, inside),
        )
        self._add(decision, f"the turn of {turn.agent}")
        self._knows(Datum(turn.agent, turn.out, entry.n, turn.key))

    def _considered(self, turn: Turn, given: Json) -> tuple[list[Datum], Trigger]:
        """The turn's inputs with their sources; it was triggered by the latest of them."""
        if not isinstance(given, dict):
            return [Datum("its input", turn.given, source="erased" if given == ERASED else "")], self._previous(
                turn.key
            )
        data: list[Datum] = []
        latest: Datum | None = None
        for name in given:
            known = reversed(self.sources.get(name, []))
            found = next((datum for datum in known if datum.n < turn.began_n), None)
            data.append(Datum(name, source="given by the workflow") if found is None else found)
            if found is not None and (latest is None or found.n > latest.n):
                latest = found
        if latest is None:
            return data, self._previous(turn.key)
        what = "the run's input" if latest.source == "input" else f"the output of {latest.source}"
        return data, Trigger(what, latest.n)

    def _outside(self, turn: Turn, inside: Sequence[Effect]) -> list[str]:
        refused = [f"asked for {effect.name}: {effect.why}, refused" for effect in inside if effect.state == "refused"]
        undeclared = self.declared.undeclared(
            turn.agent,
            (
                e.name
                for e in inside
                if e.state != "refused" and e.cls in ("read", "write") and "/refresh/" not in e.key
            ),
        )
        return refused + [f"used {name}, which it does not declare" for name in undeclared]

    # --- effects ---------------------------------------------------------------------------------

    def _effect(self, entry: EntryView, effect: Effect) -> None:
        if effect.state == "refused":
            self._refusal(entry, effect)
        elif effect.cls in ("write", "undo"):
            self._action(entry, effect)

    def _refusal(self, entry: EntryView, effect: Effect) -> None:
        refused = effect.refused or {}
        scope = str(refused.get("scope") or "")
        reason = str(refused.get("reason") or "") or self._error(effect.error, effect.detail)
        self._add(
            Decision(
                n=entry.n,
                at=entry.at,
                key=effect.key,
                kind="refusal",
                actor="the door",
                trigger=self._inside(effect),
                action=f"refused {effect.name} to {effect.agent}",
                data=[Datum("arguments", effect.args, effect.n)],
                rules=[
                    Rule(effect.why or "refused", scope or effect.name, "refused"),
                    *policies([effect], named=True),
                ],
                reason=reason,
                accountable=self.declared.accountable(effect.agent),
                outside=[f"{effect.agent} asked for {effect.name}: {effect.why}"],
            )
        )

    def _action(self, entry: EntryView, effect: Effect) -> None:
        results = {"done": "done", "failed": "failed", "unknown": "sent; nobody knows whether it was done"}
        undo = effect.cls == "undo"
        reviewer = "" if undo else self._reviewer(effect.key)
        rules = policies([effect])
        if effect.claimed:
            rules.append(Rule("claim", "no other run may do this piece of work", "held"))
        if not undo:
            rules.append(Rule("undo", str((effect.undo or {}).get("tool") or "none declared")))
        of = f" of {effect.undoes}" if undo else ""
        decision = Decision(
            n=entry.n,
            at=entry.at,
            key=effect.key,
            kind="undo" if undo else "action",
            actor=effect.agent,
            trigger=self._inside(effect),
            action=f"{effect.name}{of}: {results.get(effect.state, effect.state)}",
            data=[Datum("arguments", effect.args, effect.n)]
            + ([Datum("result", effect.out, entry.n)] if effect.out else []),
            rules=rules,
            reason=self._error(effect.error, effect.detail) or (f"released by {reviewer}" if reviewer else ""),
            accountable=reviewer or self.declared.accountable(effect.agent),
            outside=[],
        )
        self._add(decision, f"the action {effect.name}")
        self._knows(Datum(effect.name, effect.out, entry.n, effect.key))

    # --- people ----------------------------------------------------------------------------------

    def _opened(self, entry: EntryView) -> None:
        """A question that nobody has answered yet; answered ones are told where they were answered."""
        if str(entry.body.get("item")) in self.closed:
            return
        body, ended = entry.body, first(self.entries, kinds.ENDED)
        role = str(body.get("role") or "anybody")
        if body.get("type") != "escalation" or ended is None:
            self._add(
                Decision(
                    n=entry.n,
                    at=entry.at,
                    key=base_of(entry.key),
                    kind="review",
                    actor=role,
                    trigger=self._previous(base_of(entry.key)),
                    action="still waits for a person",
                    data=self._shown(entry),
                    rules=self._review_rules(entry),
                    reason=str(body.get("title") or ""),
                    accountable=role,
                )
            )

    def _person(self, entry: EntryView) -> None:
        body = entry.body
        opened = self.opened.get(str(body.get("item")))
        decision, by = str(body.get("decision") or ""), str(body.get("by") or "")
        data = [] if opened is None else self._shown(opened)
        if body.get("value"):
            data.append(Datum("value", str(body["value"]), entry.n))
        role = "" if opened is None else str(opened.body.get("role") or "")
        self._add(
            Decision(
                n=entry.n,
                at=entry.at,
                key=base_of(entry.key if opened is None else opened.key),
                kind="review",
                actor=by or "nobody",
                trigger=self._previous(entry.key)
                if opened is None
                else Trigger(str(opened.body.get("title") or ""), opened.n),
                action=decision,
                data=data,
                rules=[] if opened is None else self._review_rules(opened),
                reason=said_of(body, self.values),
                accountable=by or role or self.declared.owner,
            ),
            f"the decision of {by or 'nobody'}",
        )
        if opened is not None and opened.body.get("type") == "review":
            self.reviewers.append((base_of(opened.key), by if decision in ("approve", "edit") else ""))

    def _shown(self, opened: EntryView) -> list[Datum]:
        """What the person was shown: the package, and the plain figures in it."""
        address = str(opened.body.get("package") or "")
        package = self.values.get(address)
        evidence = package.get("evidence") if isinstance(package, dict) else None
        figures = [
            Datum(f"{name} = {short(value, 60)}", address, opened.n, "shown")
            for name, value in (evidence or {}).items()
            if isinstance(value, str | int | float)
        ]
        return [Datum("package", address, opened.n), *figures]

    def _review_rules(self, opened: EntryView) -> list[Rule]:
        package = self.values.get(str(opened.body.get("package")))
        rules = [Rule("role", str(opened.body["role"]), "has to decide")] if opened.body.get("role") else []
        if isinstance(package, dict):
            if package.get("what_happened"):
                rules.append(Rule("condition", short(package["what_happened"])))
            rules += [Rule("rule", str(rule)) for rule in package.get("rules") or ()]
        given = self.conditions.get(base_of(opened.key))
        if given is not None:
            rules += given_rules(given)
        return rules

    def _extended(self, entry: EntryView) -> None:
        body = entry.body
        by = str(body.get("by") or "")
        rules = [Rule("budget", str(body.get("scope") or ""), "extended")]
        self._add(
            Decision(
                entry.n,
                entry.at,
                entry.key,
                "grant",
                by,
                self._previous(base_of(entry.key)),
                f"granted {granted_text(body)}",
                rules=rules,
                accountable=by,
            )
        )

    def _signalled(self, entry: EntryView) -> None:
        """Somebody stops the run from outside, or has it in hand; or a run below it has ended."""
        body, by, type = entry.body, str(entry.body.get("by") or ""), str(entry.body.get("type"))
        if type == "child":
            told = child_told(body)
            step = str(body["at"]).rpartition("/child:")[0]
            self._plain(entry, told.kind, told.action, reason=told.reason, key=step)
            return
        if type not in ("cancel", "halt", *HANDS):
            return
        scope = str(body.get("scope") or "")
        self._add(
            Decision(
                n=entry.n,
                at=entry.at,
                key=str(body.get("key") or ""),
                kind="by hand" if type in HANDS else "stop",
                actor=by or "somebody",
                trigger=self._previous(""),
                action=by_hand(body, self.values) if type in HANDS else f"asked to {type} the run",
                rules=[Rule("halt", scope)] if scope else [],
                reason=said_of(body, self.values),
                accountable=by,
            ),
            f"the {type} by {by or 'somebody'}",
        )
        if body.get("name") and body.get("value"):
            self._knows(Datum(str(body["name"]), str(body["value"]), entry.n, f"by {by}"))

    # --- the workflow ----------------------------------------------------------------------------

    def _node(self, entry: EntryView) -> None:
        value = self.values.get(str(entry.body.get("out")))
        if isinstance(value, dict) and isinstance(value.get("names"), dict):
            for name in value["names"]:
                self._knows(Datum(name, str(entry.body["out"]), entry.n, entry.key))

    def _decided(self, entry: EntryView) -> None:
        value, key = entry.body.get("value"), entry.key
        if turn_key(key) != key:  # an agent's clock or chance: part of its turn
            return
        if key == "run/interrupted" and isinstance(value, dict):
            cause = value.get("signal") or (value.get("error") or {}).get("error") or ""
            reason, scope = said_of(value, self.values), str(value.get("scope") or "")
            self._plain(
                entry, "stop", f"the run turned around: {cause}", [Rule(str(cause), scope)] if scope else [], reason
            )
        elif "/given/" in f"/{key}":
            if base_of(key) not in self.asked_at:
                self._plain(entry, "condition", "a condition was evaluated", given_rules(entry))
        elif "/fork/" in f"/{key}" and isinstance(value, dict):
            self._plain(
                entry, "condition", f"a branch failed first; these had ended: {', '.join(value.get('walked', []))}"
            )
        elif value and (key.endswith("/within") or key == "within"):
            self._plain(entry, "condition", "the step's time was over before it ended", [Rule("within", base_of(key))])

    def _note(self, entry: EntryView) -> None:
        told = self.values.get(str(entry.body.get("detail")))
        body = {**entry.body, **(told if isinstance(told, dict) else {})}
        found = noted(body, base_of(entry.key))
        if found is not None:
            self._plain(entry, found.kind, found.action, list(found.rules), found.reason)

    def _ended(self, entry: EntryView) -> None:
        body = entry.body
        detail = self.values.get(str(body.get("detail")))
        message = str(detail.get("message") or "") if isinstance(detail, dict) else ""
        residual = detail.get("residual") if isinstance(detail, dict) else None
        reason = ": ".join(part for part in (str(body.get("reason") or ""), message) if part)
        self._plain(entry, "outcome", str(body.get("outcome") or ""), [], reason)
        self.decisions[-1].outside = [
            f"{one.get('tool')} could not be undone: {one.get('why')}" for one in residual or ()
        ]

    # --- helpers ---------------------------------------------------------------------------------

    def _plain(
        self,
        entry: EntryView,
        kind: DecisionKind,
        action: str,
        rules: list[Rule] | None = None,
        reason: str = "",
        key: str | None = None,
    ) -> None:
        """A decision of the workflow itself; at the entry's step where no other is given."""
        step = base_of(entry.key) if key is None else key
        self._add(
            Decision(
                n=entry.n,
                at=entry.at,
                key=step,
                kind=kind,
                actor="workflow",
                trigger=self._previous(step),
                action=action,
                rules=rules or [],
                reason=reason,
                accountable=self.declared.owner,
            ),
            f"{kind}: {action}" if kind in ("checkpoint", "exception", "stop") else "",
        )

    def _add(self, decision: Decision, becomes: str = "") -> None:
        self.decisions.append(decision)
        if becomes:
            self.before.append(("" if decision.kind == "stop" else decision.key, Trigger(becomes, decision.n)))

    def _knows(self, datum: Datum) -> None:
        self.sources.setdefault(datum.name, []).append(datum)

    def _previous(self, key: str) -> Trigger:
        """What came before it; what ran beside it is no trigger."""
        before = next(trigger for where, trigger in reversed(self.before) if not self.order.beside(where, key))
        return Trigger(before.what, before.n, certain=False)

    def _reviewer(self, key: str) -> str:
        """Who decided the last review before it, in the same branch and the same item of a loop."""
        order = self.order
        reviews = ((where, by) for where, by in reversed(self.reviewers) if same_item(where, key))
        return next((by for where, by in reviews if not order.beside(where, key)), "")

    def _inside(self, effect: Effect) -> Trigger:
        """An agent's own effects were triggered by its turn."""
        key = turn_key(effect.key)
        return self._previous(key) if key == effect.key else Trigger(f"{effect.agent}, in its turn {key}", effect.n)

    def _error(self, error: Mapping[str, Any] | None, detail: str) -> str:
        if error is None:
            return ""
        opened = self.values.get(detail)
        message = opened.get("message") if isinstance(opened, dict) else None
        return f"{error.get('error', '')}: {message}" if message else str(error.get("error") or "")

    def _know_input(self) -> None:
        address = str(self.started.body.get("input") or "")
        given = self.values.get(address)
        n = self.started.n
        if isinstance(given, dict):
            for name in given:
                self._knows(Datum(name, address, n, "input"))
