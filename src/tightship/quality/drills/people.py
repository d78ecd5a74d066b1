"""People of a drill: they approve what they may, give what is asked for, and grant no money."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tightship.core.errors import BoundaryError, GuardRefused, InputRejected, TightshipError
from tightship.core.ports import Json
from tightship.models.rehearsal import rehearsed
from tightship.review.inbox import Decision, InboxItem

if TYPE_CHECKING:
    from tightship.runtime.operator import Operator
    from tightship.workflow.loader import WorkspaceFiles

ANYBODY = "anybody"
ASKED = frozenset({"review", "question", "budget"})
"""Items over which a run waits; the others report."""


class People:
    """Decides what waits, as the holders of the declared roles."""

    def __init__(self, files: WorkspaceFiles) -> None:
        self._files = files

    async def decide(self, operator: Operator, runs: Collection[str]) -> int:
        """Decide what these runs wait for; how many items were decided."""
        items = [one for one in await operator.items() if one.run in runs and one.type in ASKED]
        return sum([await self._decide(operator, item) for item in items])

    async def _decide(self, operator: Operator, item: InboxItem) -> bool:
        for person in self._holders(item.role):
            for decision, value in self._answers(item):
                try:
                    await operator.decide(item.item, Decision(decision, person, value))  # type: ignore[arg-type]
                    return True
                except (InputRejected, GuardRefused):
                    continue
                except BoundaryError:
                    break  # somebody else of the role may
                except TightshipError:
                    return False
        return False

    def _holders(self, role: str) -> list[str]:
        people = list(self._files.config.roles.get(role, ()))
        return [ANYBODY if one == "*" else one for one in people] or [ANYBODY]

    def _answers(self, item: InboxItem) -> list[tuple[str, Json]]:
        """What is tried, in order."""
        if item.type == "budget":
            return [("reject", None)]
        if item.type == "review":
            return [("approve", None), ("reject", None)]
        wanted = [agent.output_schema for agent in self._files.agents.values() if agent.human == item.role]
        given = [("answer", rehearsed(schema, item.item)) for schema in wanted if schema is not None]
        return [*given, ("approve", None)] if given else [("reject", None), ("approve", None)]
