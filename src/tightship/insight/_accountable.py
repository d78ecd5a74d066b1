"""What a run's pinned definition says about who answers for what, and which tools are declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tightship.core.ports import Json


class Declared:
    """The owners and tools of a definition; of one that cannot be opened, nothing is known.

    Args:
        workflow: the workflow's name.
        definition: the definition as stored with the run (`workflows`, `agents`, …), or anything else.
    """

    def __init__(self, workflow: str, definition: Json) -> None:
        known: Mapping[str, Any] = definition if isinstance(definition, Mapping) else {}
        self.workflow = workflow
        self._agents: Mapping[str, Any] = known.get("agents") or {}
        spec: Mapping[str, Any] = (known.get("workflows") or {}).get(workflow) or {}
        self.owner = str(spec.get("owner") or "")
        self.purpose = str(spec.get("purpose") or "")

    def accountable(self, agent: str) -> str:
        """Who answers for an agent: its owner, else the workflow's."""
        return str((self._agents.get(agent) or {}).get("owner") or "") or self.owner

    def undeclared(self, agent: str, used: Iterable[str]) -> list[str]:
        """Tools that an agent used and does not declare; none where its declaration is not known."""
        spec = self._agents.get(agent)
        if spec is None:
            return []
        declared = {str(name) for name in spec.get("tools") or ()}
        return sorted({name for name in used if name not in declared})
