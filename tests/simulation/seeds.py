"""Seeds that once failed. They are always played; a new one is added here together with its repair."""

from __future__ import annotations

FAILED_ONCE = (
    *(12, 36, 40, 109, 175, 209, 315, 502, 562),  # an agent took a full disk for a failed effect, and went on
    *(373,),  # what a crash had left open was not counted against the tenant's budget
    *(432, 568),  # a recorded effect was counted again on replay, and refused by a limit
    *(20393, 20963),  # a declared retry was taken for a loop, but only after a crash
    *(7091,),  # a turn that a limit had refused was counted as taken, and another one was refused in its place
    *(61017, 61107),  # an effect that was given up before its first step was waited for without end
    *(61052,),  # a call whose fate stayed unknown counted in the ledger and not in memory
    *(63015,),  # a settle was on the disk and not taken in yet when its key was asked for again
    *(63053,),  # a settle that the disk refused was charged at what it had cost, and the ledger counts it in full
    *(65056, 65078),  # a run ended although the disk had refused a turn that it had gone on from
    *(30418,),  # what a look-up had found counted as a call in the ledger, and not in memory
    *(10,),  # a write that was cut off and had just settled was no action yet when its saga was undone
    *(5825,),  # peers' claims went back in another order on replay than in which they were recorded
    *(5858,),  # the simulated disk refused an entry, and wrote the next one of its run
    *(5268, 8287),  # a run turned around although somebody had taken it over before
)

SHARED_FAILED_ONCE = (
    *(53, 78, 89, 92),  # a run was claimed by this worker while it still had what it had parked of it
    *(84, 111),  # a suspect waited for itself to be done
    *(185,),  # nobody took up what a living worker had let go of
    *(347,),  # a run was claimed by the sweep and taken over by a caller of the same process at once
    *(7027,),  # the simulated disk refused an entry, and wrote the next one of its run
    *(7896,),  # what a person granted of a shared envelope was spent twice
    *(7164,),  # peers' claims went back in another order on replay than in which they were recorded
)
"""The same of several workers on one store."""
