"""What keeps agents within bounds: budgets, counted limits, rates, loops, breakers, halts, claims and the cache.

All of it stands in the hot path of every effect: plain objects without logging, input or output. What has to last is
in the ledger; the projections here (`envelopes`, `halts`, `claims`) are readings of it.
"""

from __future__ import annotations

from tightship.controls.breakers import BreakerRule, Breakers
from tightship.controls.buckets import Rate
from tightship.controls.budgets import (
    UNLIMITED,
    Alert,
    Amount,
    Chain,
    Envelope,
    EnvelopeTree,
    Limit,
    Reservation,
    Shortage,
)
from tightship.controls.cache import Flight, ResultCache
from tightship.controls.claims import ClaimsProjection, normalise
from tightship.controls.halts import Halt, Halts, HaltsProjection, check_scope, scopes_of
from tightship.controls.leases import ChunkPlanner, EnvelopesProjection, Lease
from tightship.controls.limits import Limits, RunLimits, Stopwatch
from tightship.controls.loop_verdicts import LoopModel, LoopVerdict, LoopWatch, detect_loops
from tightship.controls.loops import LoopDetector, LoopLimits
from tightship.controls.periods import Forecast, Period, forecast, period_bounds, period_key
from tightship.controls.rates import Rates
from tightship.controls.rebuild import rebuild
from tightship.controls.retries import RetryBudgets, Throttle
from tightship.controls.shares import Ask, Booking, MemoryShares, Shares, StoredShares
from tightship.controls.spend import SpendProjection

__all__ = [
    "UNLIMITED",
    "Alert",
    "Amount",
    "Ask",
    "Booking",
    "BreakerRule",
    "Breakers",
    "Chain",
    "ChunkPlanner",
    "ClaimsProjection",
    "Envelope",
    "EnvelopeTree",
    "EnvelopesProjection",
    "Flight",
    "Forecast",
    "Halt",
    "Halts",
    "HaltsProjection",
    "Lease",
    "Limit",
    "Limits",
    "LoopDetector",
    "LoopLimits",
    "LoopModel",
    "LoopVerdict",
    "LoopWatch",
    "MemoryShares",
    "Period",
    "Rate",
    "Rates",
    "Reservation",
    "ResultCache",
    "RetryBudgets",
    "RunLimits",
    "Shares",
    "Shortage",
    "SpendProjection",
    "Stopwatch",
    "StoredShares",
    "Throttle",
    "check_scope",
    "detect_loops",
    "forecast",
    "normalise",
    "period_bounds",
    "period_key",
    "rebuild",
    "scopes_of",
]
