"""The ledger's vocabulary: every kind of entry and what its body holds. Addresses are hex payload addresses.

Owner's entries carry the run's epoch; a signal carries none, since anyone may append it. Fields in brackets are there
only when they say something.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# --- runs --------------------------------------------------------------------------------------------
STARTED: Final = "run.started"
"""workflow, version, definition (address), input (address), tenant, build, owner, scope (of its payloads);
[reference, parent, key, depth, until, priority, linked, forked, live: false for a rehearsal, handed (address): what
holds where a run above has started it, by: [the people who set it going: it, the run above it, the one that it follows
or was forked from], four_eyes: none of them may check it, before {used, held: {usd, tokens, calls}}: what the run above
had spent and set aside when it started this one, its first child]"""
CLAIMED: Final = "run.claimed"
"""owner, build: a worker took the run over; the entry's epoch is the new one"""
PARKED: Final = "run.parked"
"""wake_at (s), waiting: [what], seen: position of the last signal that was read, seconds worked since the last park;
[taken: the person who has it in hand]"""
ENDED: Final = "run.ended"
"""outcome, usd (nano), tokens_in, tokens_out, calls, seconds, seen;
[reason, output (address), detail (address), package (address), residual: how many effects remain, handoffs: [ids of
handoffs in it and in the runs below it], messages {run: how many its peers have sent}: the same of messages]"""
SIGNAL: Final = "signal"
"""type (cancel | halt | answer | child | take | do | edit | undo | give), by, and the type's fields: detail (address of
what the person said), reason (the engine's own words), scope, item, child with at (its step's key), outcome, output,
package, usd, tokens_in, tokens_out, calls, handoffs, messages and actions (address); of a person who has taken the run
over: key
(the step), name, value (address), was (address), actions: [key], again: [steps that begin anew], through (the run above
them)"""

# --- effects -----------------------------------------------------------------------------------------
ADMITTED: Final = "effect.admitted"
"""name, cls, agent, args (address), not_after (s); [reserve {usd, tokens}, task, attempt, claim (hex HMAC),
undo {tool, args}, undoes (key), based [[scope, key, version]]: values of the shared context that it was decided on,
gate: those of them that it makes old; after, replied and said: how it continues a conversation; line: its branch or
item; above: [the runs above], for which its reserve counts as well: of a run with a family]"""
SETTLED: Final = "effect.settled"
"""name, cls, agent, workflow, ms, and one of: out (address); error {error, kind} with detail (address);
refused {signal, reason, scope}. [args and line, when nothing was admitted; usd, tokens_in, tokens_out, cached_in,
cached, trust, meta, overrun, policy, attempt, claim, releases; again: another attempt follows; denied: it was not let
through; context [{scope, key, version, age (ms), max_age (s), stale,
refreshed, refused}]: what it read of the shared context; wrote: the version it wrote, in a fork; gate and moved
[[scope, key]]: values that this action has made old; above: [the runs above], for which it counts as well, and held
{usd, tokens}: what was set aside for it; raced [[scope, key]]: what had changed since it was decided]"""
TURN: Final = "turn.done"
"""agent, hash (address of its inputs), ms, and out (address) or error {error, kind} with detail (address);
[line, rehearsal: the output was generated, repair: the attempt at an output that did not fit, samples: how often
it was asked]"""
NODE: Final = "node.done"
"""out (address of output and bound names): a finished composite node whose inside need not be walked again"""
DECIDED: Final = "decided"
"""value: a race, a timer, an ambient name, that a saga has begun and how its undos are tried again, why a run or a saga
turned around; decided once"""
NOTE: Final = "note"
"""type (checkpoint.failed | exception | maker_checker.round | settled | branch.failed | breaker | budget.alert |
fallback | rehearsal.decision | near_repeat | …), its fields; of a round of a pattern agent, line, args and out
(addresses of what was begun and what came of it); [again: work that was done before follows, which counts as a
retry; above: [the runs above, for which a handoff or a peer's messages count as well]]"""

# --- shared context ----------------------------------------------------------------------------------
CONTEXT: Final = "context.written"
"""scope (tenant:T | workflow:T/W | run:R), key, value (address), writer; [as_of (s), sources, ttl (s), base: the
version it was based on, since: the position from which on it was read outside (its own without it), labels, claim
(hex HMAC of the delivery by which a source has pushed it)]. Its position is the value's version"""
CONFLICT: Final = "context.conflict"
"""scope, key, rule, by, base and version (the one that stood), other (its writer), value (address of what `by` wrote),
end (refused | overrode | merged | asked); [item, claim (as of a write)]"""

# --- how agents behave -------------------------------------------------------------------------------
BASELINE: Final = "drift.baseline"
"""subject (agent:X | workflow:X), by, runs: [ids], since (s), until (s). The last one of a subject counts"""
DRIFT: Final = "drift.checked"
"""subject, baseline (position), runs: how many were compared, upto (s), drifted: [features], level; [slot (s): of a
check that is declared; recent: [ids] and since (s): how it behaves now, item: by which people are told]"""
LEAKS: Final = "leaks.checked"
"""What a declared look for leaks has found. slot (s), entries and runs: how many were read, left: entries that were not
yet, since and upto {log: position}: behind which, and how far, canaries {mark: run}: those that were not known before,
leaks: [{mark, home, run, n, at, kind, key, agent}]: each once; [item: by which people are told of them and of earlier
ones]"""
MODEL: Final = "model.version"
"""tier, asked: the model as declared, model: as the provider has reported it; [was: what it reported before, run]"""
RESET: Final = "agent.reset"
"""agent, turns: taken since it began, since (s): when that was; what its code had kept in a process was dropped"""
AUDIT: Final = "audit.started"
"""agent, workflow, upto (s): outputs of runs that ended until then were drawn from, runs: [ids of the runs that look at
them]; [by]"""

# --- breakers ----------------------------------------------------------------------------------------
BREAKER: Final = "breaker.changed"
"""name: what it stands before, state (open | closed), by: the process that has found out; [seconds: for how long it
is not asked, why]: every worker of a shared store heeds it"""

# --- people ------------------------------------------------------------------------------------------
OPENED: Final = "inbox.opened"
"""item, type (review | escalation | budget | question | residual | drift | leak), role, title, package (address);
[due (s), remind (s): when its reviewers are reminded, made_by: [people who made what it is about], four_eyes: whoever
has set the run going or had a hand in it may not decide it, class, confidence, drawn and held (the learned threshold it
was held against): what its decision teaches]"""
CLOSED: Final = "inbox.closed"
"""item, decision (approve | reject | edit | answer | expired | withdrawn), by; [value (address),
detail (address of what the person said), reason (the engine's own words), spared: nothing is learned from it]"""

ASSIGNED: Final = "inbox.assigned"
"""item, role, by; [was: the role before, detail (address of why), reason (the engine's own words)]: who decides it"""
REMINDED: Final = "inbox.reminded"
"""item, role, due (s): its reviewers were told that its time is running out"""
DELIVERY: Final = "delivery"
"""target (of `notify`), item, event (opened | reminded), state (sending | failed | delivered | given up | withdrawn: it
was decided before anybody was told; declared: the target was seen first); [attempt, since (s): when the event came,
next (s): when it is tried again, why (a status or a kind of failure, never what the receiver has said)]"""
THRESHOLD: Final = "threshold.set"
"""class, state (learned | drift | frozen | thawed | reset), threshold (none while it learns), by; [cases and wrong: the
evidence, error and confidence: what is promised, reason (in clear: about a class, never a case)]. Its position is the
threshold's version"""

# --- control -----------------------------------------------------------------------------------------
HALT: Final = "halt.set"
"""scope (all | tenant:X | workflow:X | agent:X | run:X), by, reason (in clear: about the scope, never a person)"""
UNHALT: Final = "halt.lifted"
"""scope, by, reason"""
ENVELOPE: Final = "envelope.lent"
"""scope, period, usd, tokens, calls, owner: a durable chunk for a worker (negative on return); [reconciled, by: what a
lost worker had left was given back, once and for all]"""
EXTENDED: Final = "budget.extended"
"""scope, by; [usd, tokens, calls, seconds]"""
SCHEDULE: Final = "schedule.kept"
"""workflow (or `drift:SUBJECT`, `drift:leaks`: a check), cron, timezone, upto (s): slots up to there are dealt with;
[run: the last one's, missed: how many were not started, since: the first of them (s)]"""
SNAPSHOT: Final = "snapshot"
"""Of an archive. With `table`: detail (address), a page of that table's rows as they stood. Without: by, before (s),
folder, manifest (its SHA-256), upto {log: position}: where the tables stood so, archived {log: position}: up to there
entries have left unless `detail` says that they stay, entries and values: how many leave, detail (address): the pages,
and which entries stay. Rebuilding the tables starts from the last one"""
ERASED: Final = "erased"
"""subject (key name), by: its key is destroyed, again at every start"""

NEVER: Final = 4_102_444_800.0
"""A wake-up that never comes (the year 2100): the run waits for people only."""


def went_out(body: Mapping[str, Any]) -> bool:
    """Whether a settled attempt is a call, as budgets and figures count them.

    What was refused or answered from cache went nowhere, and the shared context is no outside.
    """
    return not (body.get("cached") or body.get("denied") or "refused" in body or body.get("cls") == "context")


OUTCOMES: Final = ("completed", "escalated", "failed", "cancelled")

TOLD: Final = frozenset({STARTED, SIGNAL, CLOSED, HALT, UNHALT, EXTENDED, ENVELOPE, ERASED, CONTEXT, BREAKER})
"""What every process that executes must hear of at once, whoever appended it."""
