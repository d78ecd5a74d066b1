"""The error tree. Every exception the package raises stands here; its docstring is its default message.

TightshipError
├── WorkspaceError
│   ├── LoadError              a file of the workspace is wrong (file, line, column, fix)
│   ├── CheckFailed            readiness rules found errors
│   ├── WorkspaceMissing       no tightship.yaml here
│   ├── UnknownName            no such workflow, agent, run, inbox item, …
│   └── InputRejected          an input does not fit the workflow's declared fields
├── StoreError
│   ├── StoreMissing           the store's folder is not there
│   ├── StoreReadOnly          the disk does not accept writes
│   ├── StoreFull              the disk is full
│   ├── StoreCorrupt           the database file is damaged
│   ├── StoreVersionError      the store was written by another version
│   ├── StoreLost              the connection to the store's server was lost
│   ├── CommitUnknown          nobody can tell whether the last batch was written
│   └── ExecutorBusy           another process executes on this workspace
├── LedgerError
│   ├── TamperError            what is stored is not what was appended
│   ├── StaleOwner             another owner has taken the run over
│   ├── GuardRefused           a condition of an append did not hold
│   ├── PayloadErased          the payload's key was destroyed
│   └── PayloadTooLarge        a value exceeds the declared size
├── RunError
│   ├── NondeterminismError    a replayed run asked for something else than it did before
│   ├── BuildMismatch          the run was started by other code
│   ├── NotTaken               an act by hand on a run that this person has not taken over
│   ├── ActRefused             a step cannot be done, edited or undone by hand as it stands
│   ├── Overloaded             too much waits already; come again later
│   └── RunFailed              the run ended as failed
├── WorkException              what a person would call an exception (E1 to E7)
│   ├── Unavailable            E1
│   │   ├── RateLimited        E1, the other side asks for patience
│   │   └── TimedOut           E1, no answer in time
│   ├── DataMissing            E2
│   │   ├── StaleContext       E2, a shared value is older than its reader accepts
│   │   └── HandoffRefused     E2, a handoff lacks what its brief must carry, or goes where it may not
│   ├── RuleConflict           E3
│   │   └── ConflictingWrite   E3, a shared value has changed since this writer read it
│   ├── OutOfScope             E4
│   ├── LowConfidence          E5
│   ├── FormatMismatch         E6
│   └── Unforeseen             E7
│       ├── AgentRaised        an agent's code raised
│       ├── AgentHung          an agent did not finish in time
│       ├── CheckpointFailed   a checkpoint's condition stayed false
│       ├── ChecksExhausted    maker and checker ran out of rounds
│       ├── NoConsensus        those who were asked did not come to one answer
│       ├── HandoffsExhausted  the agents went on handing the work over
│       ├── PlanRejected       no plan stood up to its check
│       ├── BranchFailed       a concurrent branch failed
│       ├── Stalled            a run does not move, or waits for what cannot come
│       ├── OutcomeUnknown     a write may or may not have been done
│       ├── WriteFailed        the other side refused a write
│       ├── DuplicateClaim     another run holds the business key
│       └── ContextChanged     what a decision was based on changed before the action
├── BoundaryError
│   ├── InvalidArguments       arguments do not fit the tool's schema
│   │   └── InventedArgument   a value that does not exist outside
│   ├── NotDeclared            a tool, host or peer outside the role
│   │   └── OutsideReached     code reached past its tools during a drill
│   ├── ForkedEffect           an effect from a task that the door did not open
│   └── WrongShape             an output does not fit the declared shape
│       └── Ungrounded         a claim does not stand in what it cites
└── LimitReached               turns, calls, rounds or repeats beyond the limit
    └── LoopFound              agents go round in circles
        └── NearRepeat         an agent says nearly the same again and again

Control flow that is no error (deny, approval needed, over budget, halted) stands in `signals.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any


class TightshipError(Exception):
    """Something went wrong in Tightship."""

    def __init__(self, message: str | None = None, *, fix: str | None = None, where: str | None = None) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or type(self).__name__)
        self.fix = fix
        self.where = where
        super().__init__(self.message)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        stop = "" if text.endswith((".", "!", "?")) else "."
        return f"{text}{stop} Fix: {self.fix}" if self.fix else text

    @property
    def code(self) -> str:
        """The stable name that JSON output and the ledger use for this error."""
        return type(self).__name__

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON: code, message, and where and fix when known."""
        parts = {"error": self.code, "message": self.message, "where": self.where, "fix": self.fix}
        return {name: value for name, value in parts.items() if value is not None}


class WorkspaceError(TightshipError):
    """The workspace is not usable as it is."""


class LoadError(WorkspaceError):
    """A file of the workspace cannot be read as what it should be."""

    def __init__(
        self,
        message: str | None = None,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        fix: str | None = None,
    ) -> None:
        self.file, self.line, self.column = file, line, column
        where = file if line is None else f"{file}:{line}" + (f":{column}" if column is not None else "")
        super().__init__(message, fix=fix, where=where)


class CheckFailed(WorkspaceError):
    """The readiness check found errors."""


class WorkspaceMissing(WorkspaceError):
    """There is no tightship.yaml here."""


class UnknownName(WorkspaceError):
    """There is nothing of that name."""


class InputRejected(WorkspaceError):
    """The input does not fit the fields that the workflow declares."""


class StoreError(TightshipError):
    """The store cannot be used."""


class StoreMissing(StoreError):
    """The store's folder is not there."""


class StoreReadOnly(StoreError):
    """The store's disk does not accept writes."""


class StoreFull(StoreError):
    """The store's disk is full; nothing of the last batch was written."""


class StoreCorrupt(StoreError):
    """The store's database file is damaged."""


class Archived(StoreError):
    """It has left the store for an archive."""


class StoreVersionError(StoreError):
    """The store was written by a version that this one does not know."""


class StoreLost(StoreError):
    """The connection to the store's server was lost; nothing of the last batch was written."""


class CommitUnknown(StoreError):
    """The connection was lost in a commit, and the store was closed before the server could be asked about it."""


class ExecutorBusy(StoreError):
    """Another process executes on this workspace."""


class LedgerError(TightshipError):
    """The ledger refused."""


class TamperError(LedgerError):
    """What is stored is not what was appended."""


class StaleOwner(LedgerError):
    """Another owner has taken this run over; nothing was written."""


class GuardRefused(LedgerError):
    """A condition of this append did not hold; nothing was written."""

    def __init__(self, message: str | None = None, *, reason: str = "", holder: str = "") -> None:
        self.reason, self.holder = reason, holder
        super().__init__(message)


class PayloadErased(LedgerError):
    """This payload was erased: its key is destroyed."""


class PayloadTooLarge(LedgerError):
    """A value is larger than the declared limit."""


class RunError(TightshipError):
    """A run cannot go on."""


class NondeterminismError(RunError):
    """On replay the run asked for something else than what its ledger holds."""


class BuildMismatch(RunError):
    """The run was started by other code than what is here now."""


class NotTaken(RunError):
    """This run is not in this person's hands."""


class ActRefused(RunError):
    """This cannot be done by hand as the run stands."""


class Overloaded(RunError):
    """Too many runs wait already: this one was not started, and nothing was written.

    Attributes:
        retry_after: seconds after which it makes sense to come again.
    """

    def __init__(self, message: str | None = None, *, retry_after: float = 0.0, fix: str | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message, fix=fix or f"start it again in {max(1, round(retry_after))} s, or raise `admission:`")

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON, with `retry_after` in seconds."""
        return {**super().as_dict(), "retry_after": round(self.retry_after, 3)}


class RunFailed(RunError):
    """The run ended as failed."""


class WorkException(TightshipError):
    """An exception of the work itself: it has a declared behaviour, never a silent end.

    Agents raise its subclasses; `evidence` is what a person needs to judge the case.
    """

    kind = "unforeseen"

    def __init__(
        self,
        message: str | None = None,
        *,
        needed: str | None = None,
        options: Sequence[Mapping[str, Any]] = (),
        evidence: Mapping[str, Any] | None = None,
        fix: str | None = None,
        where: str | None = None,
    ) -> None:
        self.needed = needed
        self.options = tuple(dict(option) for option in options)
        self.evidence = dict(evidence or {})
        super().__init__(message, fix=fix, where=where)


class Unavailable(WorkException):
    """A system does not answer."""

    kind = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after: float | None = None, **more: Any) -> None:
        self.retry_after = retry_after
        super().__init__(message, **more)


class RateLimited(Unavailable):
    """A system asks for patience."""


class TimedOut(Unavailable):
    """A system did not answer in time."""


class DataMissing(WorkException):
    """Data that the work needs is not there."""

    kind = "data_missing"


class StaleContext(DataMissing):
    """A value of the shared context is older than its reader accepts."""


class HandoffRefused(DataMissing):
    """A handoff does not carry what its receiver has to know, or goes where it may not."""


class RuleConflict(WorkException):
    """Two business rules contradict each other."""

    kind = "rule_conflict"


class ConflictingWrite(RuleConflict):
    """Somebody else has changed this value since it was read."""


class OutOfScope(WorkException):
    """This work is outside what the agents were made for."""

    kind = "out_of_scope"


class LowConfidence(WorkException):
    """The confidence is below the threshold."""

    kind = "low_confidence"


class FormatMismatch(WorkException):
    """A record has another format than the one expected."""

    kind = "format_mismatch"


class Unforeseen(WorkException):
    """Something happened that nobody declared a behaviour for."""


class AgentRaised(Unforeseen):
    """An agent's code raised an exception."""


class AgentHung(Unforeseen):
    """An agent did not finish within its time."""


class CheckpointFailed(Unforeseen):
    """A checkpoint's condition does not hold."""


class ChecksExhausted(Unforeseen):
    """Maker and checker did not agree within their rounds."""


class NoConsensus(Unforeseen):
    """Those who were asked did not come to one answer by the declared rule."""


class HandoffsExhausted(Unforeseen):
    """The agents handed the work over as often as they may, and none of them finished it."""


class PlanRejected(Unforeseen):
    """A planner gave no plan that stands up to its check, also not when it was told why."""


class BranchFailed(Unforeseen):
    """A concurrent branch failed."""


class Stalled(Unforeseen):
    """The run does not move any more, or waits for something that can never come."""

    kind = "stalled"


class NobodyMoves(Unforeseen):
    """Peers have sub-problems left, and none of them can move any more."""

    kind = "stalled"


class OutcomeUnknown(Unforeseen):
    """A write may or may not have been done, and the system cannot tell."""


class WriteFailed(Unforeseen):
    """The other side refused a write."""


class DuplicateClaim(Unforeseen):
    """Another run already does, or did, this piece of work."""

    kind = "duplicate"


class ContextChanged(Unforeseen):
    """What a decision was based on has changed before its action."""


class BoundaryError(TightshipError):
    """Something was asked for that lies outside the declared boundaries."""


class InvalidArguments(BoundaryError):
    """The arguments do not fit the tool's schema."""


class InventedArgument(InvalidArguments):
    """An argument has a value that does not exist outside, or that the declared domain excludes."""


class NotDeclared(BoundaryError):
    """The agent did not declare this tool, host or peer."""


class OutsideReached(NotDeclared, PermissionError):
    """Code reached for something outside while a drill was carried out, and got nothing."""


class ForkedEffect(BoundaryError):
    """An effect came from a task that was not opened by ctx.parallel."""


class WrongShape(BoundaryError):
    """An output does not fit its declared shape."""


class Ungrounded(WrongShape):
    """A claim does not stand in what it cites."""


class LimitReached(TightshipError):
    """A limit on turns, calls, rounds or repeats was reached."""


class LoopFound(LimitReached):
    """Agents go round in circles, and nothing new was learned."""


class NearRepeat(LoopFound):
    """An agent says nearly the same again and again, and nothing new was learned.

    `evidence` says what was repeated, how often and how alike it is.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        evidence: Mapping[str, Any] | None = None,
        fix: str | None = None,
        where: str | None = None,
    ) -> None:
        self.evidence: Mapping[str, Any] = evidence or {}
        super().__init__(message, fix=fix, where=where)
