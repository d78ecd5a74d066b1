"""Seeds that once failed. They are always played; a new one is added here together with its repair."""

from __future__ import annotations

FAILED_ONCE = (
    *(12, 36, 40, 109, 175, 209, 315, 502, 562),  # an agent took a full disk for a failed effect, and went on
    *(373,),  # what a crash had left open was not counted against the tenant's budget
    *(432, 568),  # a recorded effect was counted again on replay, and refused by a limit
    *(20393, 20963),  # a declared retry was taken for a loop, but only after a crash
    *(7091,),  # a turn that a limit had refused was counted as taken, and another one was refused in its place
    *(30418,),  # what a look-up had found counted as a call in the ledger, and not in memory
)
