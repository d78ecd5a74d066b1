"""Control flow that is not failure: the door raises these to stop work, the engine turns them into outcomes.

They derive from BaseException, as asyncio.CancelledError does, so that an agent's `except Exception` cannot
swallow a stop.
"""

from __future__ import annotations


class Signal(BaseException):
    """Work is to stop here."""

    def __init__(self, reason: str = "", *, scope: str = "") -> None:
        self.reason, self.scope = reason, scope
        super().__init__(reason)


class Denied(Signal):
    """A policy or a role does not allow this."""


class ApprovalNeeded(Signal):
    """A person has to allow this first."""


class OverBudget(Signal):
    """An envelope cannot cover this.

    `scope` names the envelope (`run`, `agent:NAME`, `workflow:NAME`, `tenant:NAME`), `unit` what is short.
    """

    def __init__(self, reason: str = "", *, scope: str = "", unit: str = "") -> None:
        self.unit = unit
        super().__init__(reason, scope=scope)


class Refused(OverBudget):
    """An envelope cannot cover this, and nobody granted more."""


class Halted(Signal):
    """The kill switch is on for this scope."""


class Taken(Signal):
    """A person has taken the run over: nothing new begins until it is given back. Its keys stay open."""


class Cancelled(Signal):
    """Somebody cancelled the run."""


class Parked(Signal):
    """The run waits for something outside; its state is in the ledger, nothing of it stays in memory."""
