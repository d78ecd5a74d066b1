"""What ends a conflict of two writes: a write was based on a version, and another one has come in between.

Optimistic concurrency control with backward validation (H. T. Kung and J. T. Robinson, "On Optimistic Methods for
Concurrency Control", ACM TODS 6(2), 1981), and a declared rule in place of a plain abort.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tightship.core.errors import AgentRaised, ConflictingWrite, TightshipError
from tightship.core.ports import Json
from tightship.workflow.context_keys import ConflictRule

Merge = Callable[[Json, Json, Json], Json]
"""`merge(base, theirs, ours)`: a pure function, since a replay does not call it again."""
End = Literal["refused", "overrode", "merged", "asked"]


@dataclass(frozen=True, slots=True)
class Collision:
    """Two writes of one key that were based on the same version.

    Attributes:
        key: the key. base: the value both began with (None for none). ours, by: what is to be written, and by whom.
        theirs, other: what stands now, and who wrote it.
    """

    key: str
    base: Json
    theirs: Json
    ours: Json
    other: str
    by: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a conflict ends, and what is written then (nothing when it is refused or asked)."""

    end: End
    value: Json = None


def resolve(rule: ConflictRule, collision: Collision, merge: Merge | None = None) -> Resolution:
    """What the declared rule says.

    Args:
        rule: the rule. collision: the two writes.
        merge: the function that a rule `merge` names.

    Raises:
        AgentRaised: the merge function raised.
    """
    if rule.person is not None:
        return Resolution("asked")
    if rule.merge is not None and merge is not None:
        try:
            return Resolution("merged", merge(collision.base, collision.theirs, collision.ours))
        except TightshipError:
            raise
        except Exception as error:
            raise AgentRaised(f"{rule.merge} raised {type(error).__name__}: {error}") from error
    if rule.priority and _rank(rule, collision.by) < _rank(rule, collision.other):
        return Resolution("overrode", collision.ours)
    return Resolution("refused")


def _rank(rule: ConflictRule, writer: str) -> int:
    """Its place in the order; whoever is not named comes last."""
    return rule.priority.index(writer) if writer in rule.priority else len(rule.priority)


def refused(collision: Collision, version: int, base: int) -> ConflictingWrite:
    """The error that names the winner."""
    return ConflictingWrite(
        f"{collision.other} has written {collision.key} (version {version}) since {collision.by} read it "
        f"(version {base})",
        needed="read it again and decide anew",
        evidence={
            "key": collision.key,
            "winner": collision.other,
            "version": version,
            "based_on": base,
            "theirs": collision.theirs,
            "ours": collision.ours,
        },
    )
