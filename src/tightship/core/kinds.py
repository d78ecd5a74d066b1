"""The ledger's vocabulary: every kind of entry and what its body holds. Addresses are hex payload addresses.

Owner's entries carry the run's epoch; a signal carries none, since anyone may append it.
"""

from __future__ import annotations

from typing import Final

# --- runs (body fields) ---------------------------------------------------------------------------
STARTED: Final = "run.started"
"""workflow, version, definition (address), input (address), tenant, build, owner, parent, key, subjects, priority, live"""
CLAIMED: Final = "run.claimed"
"""owner, build: a worker took the run over; the entry's epoch is the new one"""
PARKED: Final = "run.parked"
"""wake_at (s or 0), waiting: [what], seen: position of the last signal that was read"""
ENDED: Final = "run.ended"
"""outcome, reason, error, output (address), usd (nano), tokens_in, tokens_out, calls, seconds, package, residual, seen"""
SIGNAL: Final = "signal"
"""type (cancel | halt | answer | wake | child), by, and fields of the type"""

# --- effects ---------------------------------------------------------------------------------------
ADMITTED: Final = "effect.admitted"
"""name, cls, agent, args (address), hash, reserve {usd, tokens}, claim, idempotency, not_after, undo, undoes"""
SETTLED: Final = "effect.settled"
"""name, cls, agent, hash, [args for free reads], out (address), usd, tokens_in, tokens_out, ms, cached, model, policy, attempt.
Instead of out: error {error, message, kind, …}; or refused {signal, reason, scope}."""
TURN: Final = "turn.done"
"""agent, hash, out (address), ms; or error {…}"""
NODE: Final = "node.done"
"""out (address): a finished composite node whose inside need not be walked again"""
DECIDED: Final = "decided"
"""value: a race, a timer or an ambient name, decided once"""
NOTE: Final = "note"
"""type (checkpoint.failed | exception | limit | maker_checker.round | budget | …) and its fields"""

# --- people -----------------------------------------------------------------------------------------
OPENED: Final = "inbox.opened"
"""item, type (review | escalation | budget | question | residual), package (address), role, due, title"""
CLOSED: Final = "inbox.closed"
"""item, decision (approve | reject | edit | answer | expired | withdrawn), by, value (address), reason"""

# --- control ----------------------------------------------------------------------------------------
HALT: Final = "halt.set"
"""scope (all | tenant:X | workflow:X | agent:X | run:X), by, reason"""
UNHALT: Final = "halt.lifted"
"""scope, by, reason"""
ENVELOPE: Final = "envelope.lent"
"""scope, period, usd, tokens, calls, owner: a durable chunk for a worker (negative on return)"""
EXTENDED: Final = "budget.extended"
"""scope, usd, tokens, seconds, calls, by"""
ERASED: Final = "erased"
"""subject (key id): its key is destroyed, again at every start"""
SNAPSHOT: Final = "snapshot"
"""position up to which entries were archived, with the projections as they stood"""

OUTCOMES: Final = ("completed", "escalated", "failed", "cancelled")
EFFECT_CLASSES: Final = ("read", "write", "model", "undo")
