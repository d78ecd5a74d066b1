"""The one log that everything is a reading of: group commit, sealed payloads, projections, Merkle proofs."""

from tightship.ledger.entries import Count, Draft, Entry, Expected, Guards, Line, SealedPayload
from tightship.ledger.ledger import DEFAULT_LOG, Ledger, MemoryState

__all__ = [
    "DEFAULT_LOG",
    "Count",
    "Draft",
    "Entry",
    "Expected",
    "Guards",
    "Ledger",
    "Line",
    "MemoryState",
    "SealedPayload",
]
