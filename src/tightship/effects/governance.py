"""The places in the door where policy, information flow and privacy stand, with the default that needs no setup.

The default lets an agent use what it declared and nothing else, and treats all that tools return as untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tightship.core.errors import NotDeclared
from tightship.core.labels import Integrity, Label
from tightship.core.ports import Json, Reply
from tightship.effects.call import Call


class Governance(Protocol):
    """What may be done, with which data. Methods may raise signals.Denied or signals.ApprovalNeeded."""

    def authorise(self, call: Call) -> tuple[str, ...]:
        """Policy: the ids of the rules that allow this call."""
        ...

    def flow(self, call: Call) -> None:
        """Labels: whether values of this trust may steer this call."""
        ...

    def outbound(self, call: Call) -> Mapping[str, Json]:
        """Privacy: the arguments as they may leave."""
        ...

    def inbound(self, call: Call, value: Json) -> Json:
        """Privacy: the outcome with tokens restored."""
        ...

    def label(self, call: Call, reply: Reply) -> Label:
        """Labels: how far the outcome may be trusted."""
        ...


class DeclaredOnly:
    """Default deny: a call passes when its actor declared the tool; nothing else is known to be allowed."""

    def __init__(self) -> None:
        self._labels: dict[str, Label] = {}

    def authorise(self, call: Call) -> tuple[str, ...]:
        """Allow declared tools.

        Raises:
            NotDeclared: the tool is outside the actor's role; it is counted and recorded by the door.
        """
        name = call.tool.spec.name
        if name not in call.declared:
            raise NotDeclared(
                f"{call.agent} did not declare the tool {name!r}",
                fix=f"add {name} to `tools:` of {call.agent}, or do not call it",
            )
        return ("declared",)

    def flow(self, call: Call) -> None:
        """No information-flow rules are declared."""

    def outbound(self, call: Call) -> Mapping[str, Json]:
        """Nothing is declared as personal: the arguments go as they are, to declared hosts only."""
        return call.args

    def inbound(self, call: Call, value: Json) -> Json:
        """Nothing was tokenised."""
        return value

    def label(self, call: Call, reply: Reply) -> Label:
        """What comes from outside is untrusted."""
        name = call.tool.spec.name
        label = self._labels.get(name)
        if label is None:
            label = self._labels[name] = Label(Integrity.UNTRUSTED, sources=frozenset({name}))
        return label
