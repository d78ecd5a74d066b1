"""The inbox: what waits for people, and whether a decision may be taken the way somebody wants to take it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from tightship.core import kinds
from tightship.core.errors import BoundaryError, GuardRefused, InputRejected, UnknownName
from tightship.core.ports import Delta, EntryView, Json

ItemType = Literal["review", "escalation", "budget", "question", "residual", "drift", "leak"]
DecisionType = Literal["approve", "reject", "edit", "answer"]

_ALLOWED: Final[Mapping[str, tuple[DecisionType, ...]]] = {
    "review": ("approve", "reject", "edit"),
    "budget": ("approve", "reject", "edit"),
    "question": ("answer", "approve", "reject"),
    "escalation": ("answer", "reject"),
    "residual": ("approve", "answer"),
    "drift": ("approve", "answer"),
    "leak": ("approve", "answer"),
}
_TEXTS: Final = (
    *("item", "run", "log", "type", "role", "title", "package", "state"),
    *("decision", "decided_by", "value", "detail"),
)
_TIMES: Final = ("due", "opened_at", "closed_at")
ANYBODY: Final = "*"
"""In a role's list of people: whoever has a name."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decides. `value` is the edited result, the answer, or the budget that is granted."""

    type: DecisionType
    by: str
    value: Json = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class InboxItem:
    """One row of the `inbox` table. `due`, `opened_at` and `closed_at` are store time (s), 0 where there is none;
    `package`, `value` and `detail` are addresses. `reason` is what the person has said, once `detail` was opened.
    `made_by` are the people who made what it is about: somebody else decides."""

    item: str
    run: str
    log: str
    type: str
    role: str
    title: str
    due: float
    package: str
    state: str
    decision: str
    decided_by: str
    value: str
    detail: str
    opened_at: float
    closed_at: float
    reason: str = ""
    made_by: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> InboxItem:
        """The item of a table's row."""
        texts = {name: str(row.get(name) or "") for name in _TEXTS}
        times = {name: float(row.get(name) or 0.0) for name in _TIMES}
        made_by = tuple(orjson.loads(row.get("made_by") or "[]"))
        fields: dict[str, Any] = {**texts, **times, "made_by": made_by}
        return cls(**fields)

    @property
    def open(self) -> bool:
        """Whether it still waits."""
        return self.state == "open"

    def overdue(self, now: float) -> bool:
        """Whether it still waits although its time is over."""
        return self.open and 0 < self.due <= now

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class InboxProjection:
    """The `inbox` table: one row an item, open until it is closed; and what its decision teaches."""

    table = "inbox"
    key_columns: Sequence[str] = ("item",)
    kinds = frozenset({kinds.OPENED, kinds.CLOSED, kinds.ASSIGNED, kinds.REMINDED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Open or close the item's row, or note who decides it now and that they were reminded."""
        body = entry.body
        if entry.kind == kinds.ASSIGNED:
            yield Delta((body["item"],), set={"role": str(body.get("role") or ""), "noticed_at": entry.at})
            return
        if entry.kind == kinds.REMINDED:
            yield Delta((body["item"],), set={"remind": 0.0, "reminded_at": entry.at, "noticed_at": entry.at})
            return
        if entry.kind == kinds.OPENED:
            names = ("type", "role", "title", "package")
            fields: dict[str, Any] = {name: str(body.get(name) or "") for name in names}
            fields |= {"run": entry.run, "log": entry.log, "due": float(body.get("due") or 0.0)}
            fields |= {"position": moment(entry), "remind": float(body.get("remind") or 0.0)}
            fields |= {"class": str(body.get("class") or ""), "confidence": float(body.get("confidence") or 0.0)}
            fields |= {"drawn": int(bool(body.get("drawn"))), "held": float(body.get("held", -1.0))}
            fields |= {"made_by": _listed(body.get("made_by")), "noticed_at": entry.at}
            yield Delta((body["item"],), set=fields | {"state": "open", "opened_at": entry.at})
            return
        spared: dict[str, Any] = {"drawn": 0} if body.get("spared") else {}
        yield Delta(
            (body["item"],),
            set=spared
            | {
                "state": "closed",
                "decision": str(body.get("decision") or ""),
                "decided_by": str(body.get("by") or ""),
                "value": str(body.get("value") or ""),
                "detail": str(body.get("detail") or ""),
                "closed_at": entry.at,
            },
        )


def moment(entry: EntryView) -> int:
    """Its place in the order of all logs: store time (us), which goes forward with every unit. Positions order the
    entries of one log, and cases of a class may lie in the logs of several tenants."""
    return round(entry.at * 1_000_000)


def _listed(names: Any) -> str:
    return orjson.dumps([str(one) for one in names or ()]).decode()


def require_item(row: Mapping[str, Any] | None, item: str) -> InboxItem:
    """The item of a row that was looked up.

    Raises:
        UnknownName: there is no such row.
    """
    if row is None:
        raise UnknownName(f"there is no inbox item {item!r}", fix="list the open ones with `tightship inbox list`")
    return InboxItem.from_row(row)


def allowed_decisions(type: str) -> tuple[DecisionType, ...]:
    """The decisions that an item of this type takes; none for a type that is not known."""
    return _ALLOWED.get(type, ())


def check_decision(
    decision: Decision,
    item: InboxItem,
    *,
    roles: Mapping[str, Collection[str]],
    made_by: Collection[str] = (),
    voted: Collection[str] = (),
    barred: Mapping[str, str] | None = None,
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Whether this person may decide this item this way.

    Args:
        decision: what is decided, and by whom.
        item: as the table holds it now.
        roles: the people of each role; `*` stands for anybody. A role that is not here has nobody.
        made_by: people who made what is to be decided: somebody else has to decide (four eyes).
        voted: people who have answered in another branch of the same vote: one person has one voice.
        barred: people who have set the run going or had a hand in it where four eyes are declared, each with which it
            is in words (`has edited draft in run r-1`).
        schema: JSON Schema that an edited or given value has to fit.

    Raises:
        GuardRefused: it was decided already; the message says by whom and when.
        InputRejected: the item does not take such a decision, or the value is missing or does not fit.
        BoundaryError: the person lacks the role, made it, has had a hand in it, or has a voice in the same vote
            already.
    """
    by = decision.by.strip()
    if not by:
        raise InputRejected("a decision needs the name of the person who takes it", fix="name them with --by")
    if not item.open:
        raise GuardRefused(_decided(item), reason="decided", holder=item.decided_by)
    allowed = allowed_decisions(item.type)
    if decision.type not in allowed:
        raise InputRejected(
            f"{item.item} is {_article(item.type)} and does not take {decision.type!r}",
            fix=f"use one of: {', '.join(allowed) or 'none'}",
        )
    _check_person(by, item, roles, (*made_by, *item.made_by), barred or {})
    if _person(by) in map(_person, voted):
        raise BoundaryError(
            f"{by} has answered in the vote that {item.item} belongs to, and one person has one voice",
            fix="let another holder of the role answer" if item.role else "let another person answer",
        )
    if schema is not None and item.type == "question" and decision.type == "approve":
        raise InputRejected(f"{item.item} asks for an output, which approving does not give", fix="answer with --value")
    _check_value(decision, schema)


def closing_body(item: str, decision: Decision, value: str = "", detail: str = "") -> dict[str, Json]:
    """The body of the `inbox.closed` entry: what the person wrote stands in it by address only.

    Args:
        item: the item's id.
        decision: as checked.
        value: the address under which the decision's value is stored, empty without one.
        detail: the address under which its reason is stored (`{"reason": …}`), empty without one.
    """
    body: dict[str, Json] = {"item": item, "decision": decision.type, "by": decision.by.strip()}
    if value:
        body["value"] = value
    if detail:
        body["detail"] = detail
    return body


def require_holder(by: str, role: str, roles: Mapping[str, Collection[str]], what: str) -> None:
    """Whether a person holds a role; `what` says what it is about (`decide i-1`).

    Raises:
        BoundaryError: they do not, or nobody does. InputRejected: nobody is named.
    """
    if not by.strip():
        raise InputRejected(f"whoever is to {what} needs a name", fix="name them with --by")
    people = roles.get(role)
    verb = what.partition(" ")[0]
    if not people:
        raise BoundaryError(
            f"nobody holds the role {role}, which has to {what}",
            fix=f"name its people in tightship.yaml: roles: {{{role}: [{by}]}}",
        )
    if ANYBODY not in people and _person(by) not in map(_person, people):
        raise BoundaryError(
            f"{by} does not hold the role {role}, which has to {what}",
            fix=f"let one of these {verb}: {', '.join(sorted(people))}",
        )


def _check_person(
    by: str,
    item: InboxItem,
    roles: Mapping[str, Collection[str]],
    made_by: Collection[str],
    barred: Mapping[str, str],
) -> None:
    if item.role:
        require_holder(by, item.role, roles, f"decide {item.item}")
    why = next((why for one, why in barred.items() if _person(one) == _person(by)), "")
    if why:
        raise BoundaryError(
            f"{by} {why}, and four eyes are declared, so somebody else has to decide {item.item}",
            fix=f"let another holder of the role {item.role} decide" if item.role else "let another person decide",
        )
    if _person(by) in map(_person, made_by):
        raise BoundaryError(
            f"{by} made what {item.item} is about, so somebody else has to decide it",
            fix="let another holder of the role decide" if item.role else "let another person decide",
        )


def _check_value(decision: Decision, schema: Mapping[str, Any] | None) -> None:
    if decision.type not in ("edit", "answer"):
        return
    if decision.value is None:
        what = "the edited value" if decision.type == "edit" else "the answer"
        raise InputRejected(f"{what} is missing", fix="give it with --value")
    if schema is not None:
        require_fit(decision.value, schema)


def require_fit(value: Json, schema: Mapping[str, Any]) -> None:
    """Whether a value that a person gives has the declared shape.

    Raises:
        InputRejected: it has not.
    """
    import jsonschema_rs

    errors = list(jsonschema_rs.validator_for(dict(schema)).iter_errors(value))
    if errors:
        first = errors[0]
        path = ".".join(str(part) for part in first.instance_path)
        raise InputRejected(
            f"the value does not fit: {path + ': ' if path else ''}{first.message}",
            fix=f"correct {path or 'the value'}" + (f" and {len(errors) - 1} more" if len(errors) > 1 else ""),
        )


def _decided(item: InboxItem) -> str:
    when = f"{datetime.fromtimestamp(item.closed_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if item.decision in ("expired", "withdrawn"):
        return f"{item.item} is closed: it was {item.decision} at {when}"
    return f"{item.item} was decided already: {item.decision} by {item.decided_by or 'somebody'} at {when}"


def _article(type: str) -> str:
    return f"an {type}" if type[:1] in "aeiou" else f"a {type}"


def _person(name: str) -> str:
    return name.strip().casefold()
