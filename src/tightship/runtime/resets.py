"""Agents that begin anew as declared: what their code has kept in this process is dropped, and the ledger says so (F6).

A model's turn begins with its instructions and its inputs in any case. A Python agent's module is imported once in a
process, and may have gathered caches and memories of cases since: these are its only state beside the shared context,
which has versions, rights and times of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightship.core import kinds
from tightship.core.ids import CONDUCT
from tightship.core.world import Clock
from tightship.ledger import Draft, Ledger
from tightship.workflow.models import AgentSpec, ResetSpec

if TYPE_CHECKING:
    from tightship.runtime.code import Code


@dataclass(slots=True)
class Age:
    """How long an agent has gone without beginning anew in this process: since when (s), and how many turns."""

    since: float
    turns: int = 0

    def is_over(self, rule: ResetSpec, now: float) -> bool:
        """Whether it has to begin anew before its next turn."""
        if not self.turns:
            return False
        late = rule.every is not None and now - self.since >= rule.every
        return late or (rule.turns is not None and self.turns >= rule.turns)


class Resets:
    """The ages of the agents of one process."""

    def __init__(self) -> None:
        self._ages: dict[str, Age] = {}

    async def before_turn(self, spec: AgentSpec, code: Code, clock: Clock, ledger: Ledger) -> None:
        """Let an agent begin anew where it is time; turns of it that are under way end as they began.

        Raises:
            StoreError: it cannot be recorded.
        """
        if spec.reset is None or spec.python is None or not code.renews(spec.agent):
            return
        age = self._ages.setdefault(spec.agent, Age(clock.now()))
        if age.is_over(spec.reset, clock.now()):
            self._ages[spec.agent] = Age(clock.now(), 1)
            code.renew(spec.agent)
            body = {"agent": spec.agent, "turns": age.turns, "since": age.since}
            await ledger.append(Draft(CONDUCT, kinds.RESET, spec.agent, body))
        else:
            age.turns += 1
