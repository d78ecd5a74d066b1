"""How much waits for reviewers, for how long, and what they get done: figures read from the inbox."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tightship.core.ports import Json
from tightship.review.inbox import InboxItem

ASKS = frozenset({"review", "question", "budget"})
"""Items that a run waits for; escalations and residuals are of runs that have ended."""


@dataclass(frozen=True, slots=True)
class RoleLoad:
    """What waits for a role.

    Attributes:
        people: how many hold the role.
        open: items that runs wait for. closing: items of runs that have ended.
        oldest: age of the oldest of the open ones (s). overdue: how many of them are late.
        overloaded: what of the declared rule is passed, empty when nothing is.
    """

    role: str
    people: int
    open: int
    closing: int
    oldest: float
    overdue: int
    overloaded: str = ""

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class PersonLoad:
    """What a person has decided since some time: how many items, and the median time from asking to deciding (s)."""

    person: str
    decided: int
    median: float
    approved: int
    changed: int

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def passed(items: Sequence[InboxItem], now: float, most: int | None, age: float | None) -> str:
    """What of an overload rule the open items of a role pass: words, or empty.

    Args:
        items: the open ones that runs wait for. now: store time (s).
        most: the most that may be open. age: how old the oldest may be (s).
    """
    if most is not None and len(items) > most:
        return f"{len(items)} are open, and {most} may be"
    oldest = max((now - item.opened_at for item in items), default=0.0)
    return (
        f"the oldest waits for {oldest:.0f} s, and {age:.0f} s are allowed" if age is not None and oldest > age else ""
    )


def beyond(items: Sequence[InboxItem], now: float, most: int | None, age: float | None) -> list[InboxItem]:
    """The items that have to go elsewhere: those that are too old, and the latest beyond the most that may be open."""
    old = [item for item in items if age is not None and now - item.opened_at > age]
    rest = sorted((item for item in items if item not in old), key=lambda item: (item.opened_at, item.item))
    return old if most is None else [*old, *rest[max(0, most) :]]


def role_loads(
    items: Iterable[InboxItem],
    now: float,
    roles: Mapping[str, Collection[str]],
    rules: Mapping[str, tuple[int | None, float | None]],
) -> list[RoleLoad]:
    """What waits for each role, the fullest first.

    Args:
        items: open ones. now: store time (s). roles: the people of each role. rules: most open and oldest age by role.
    """
    waiting: dict[str, list[InboxItem]] = defaultdict(list)
    for role in roles:
        waiting[role] = []
    for item in items:
        waiting[item.role].append(item)
    found: list[RoleLoad] = []
    for role, held in waiting.items():
        asks = [item for item in held if item.type in ASKS]
        oldest = max((now - item.opened_at for item in asks), default=0.0)
        late = sum(item.overdue(now) for item in asks)
        said = passed(asks, now, *rules.get(role, (None, None)))
        found.append(RoleLoad(role, len(roles.get(role, ())), len(asks), len(held) - len(asks), oldest, late, said))
    return sorted(found, key=lambda one: (-one.open, one.role))


def person_loads(rows: Iterable[Mapping[str, Any]]) -> list[PersonLoad]:
    """What each person has decided, the busiest first; what nobody decided is left out."""
    taken: dict[str, list[InboxItem]] = defaultdict(list)
    for row in rows:
        item = InboxItem.from_row(row)
        if not item.open and item.decided_by:
            taken[item.decided_by].append(item)
    found = [
        PersonLoad(
            person,
            len(items),
            median(item.closed_at - item.opened_at for item in items),
            sum(item.decision == "approve" for item in items),
            sum(item.decision in ("edit", "reject") for item in items),
        )
        for person, items in taken.items()
    ]
    return sorted(found, key=lambda one: (-one.decided, one.person))
